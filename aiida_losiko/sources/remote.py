"""What a source that asks a service says beyond the rest: the query, as it was sent, and that the service failed."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, cast

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.sources.base import SourceInfo


class ServiceError(LosikoError):
    """A service that does not answer, or gives no whole answer; the same question may be answered later."""


@dataclass(frozen=True)
class RemoteInfo(SourceInfo):
    """The account of an answer of a service; ``version`` is that of the service's database.

    Parameters
    ----------
    description : str
        The query as compact JSON: a text, so that it travels with the rest of the account. See :attr:`query`.
    """

    description: str = ""

    @property
    def query(self) -> dict[str, Any]:
        """What was asked: the options of the loader and the requests that were sent; no key is among them."""
        return cast("dict[str, Any]", json.loads(self.description)) if self.description else {}

    def without_time(self) -> RemoteInfo:
        """Return the account without the moment of the answer, so that equal answers have equal accounts."""
        query = {key: value for key, value in self.query.items() if key != "time_stamp"}
        return replace(self, description=query_text(query) if query else "")


def query_text(query: dict[str, Any]) -> str:
    """Return a query as the compact JSON that ``RemoteInfo.description`` holds."""
    return json.dumps(query, separators=(",", ":"), sort_keys=True)
