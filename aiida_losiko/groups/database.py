"""A release of an environment database: a group with a name and one node."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, cast

from aiida.orm import Group, Node

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import EnvironmentDatabaseData

__all__ = ("DatabaseGroup",)

_PART = r"[A-Za-z0-9()+=._-]+"
_NAME = re.compile(rf"{_PART}@{_PART}(/{_PART})*")


class DatabaseGroup(Group):
    """One release: its label is the name, such as `Si-O@2026-11-20/0.3eV`, its only node the database.

    One group for each name, as families of pseudopotentials are in aiida-pseudo, and not one group of labelled nodes:
    AiiDA's database keeps the labels of groups of a type unique, also when two processes add one at the same time, and
    `verdi group list -T losiko.database` and `verdi archive create -G` take a release by its name. Make releases with
    `aiida_losiko.groups.add_release`, which sees to what is in the group.

    Parameters
    ----------
    label
        Name of the release: what is in it, `@`, and the date or version; optionally more after `/`.
    **kwargs
        Of `aiida.orm.Group`: `description`, ...

    Raises
    ------
    LosikoError
        If the name is not of that form.
    """

    def __init__(self, label: str | None = None, **kwargs: Any) -> None:
        """See the class."""
        super().__init__(label=self.check_name(label), **kwargs)

    @staticmethod
    def check_name(name: Any) -> str:
        """Return the name of a release.

        Raises
        ------
        LosikoError
            If it is not of the form `WHAT@VERSION` or `WHAT@VERSION/MORE`.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > 255:
            raise LosikoError(
                f"{name!r} is no name of a release: give what is in it, @ and the date or version, and what else tells "
                "it apart after /, such as Si-O@2026-11-20/0.3eV (letters, digits and ()+=._-)"
            )
        return name

    @property
    def database(self) -> EnvironmentDatabaseData:
        """The database.

        Raises
        ------
        LosikoError
            If its node was deleted or taken out of the group.
        """
        nodes = list(self.nodes)
        if len(nodes) != 1:
            raise LosikoError(
                f"the release {self.label!r} has {len(nodes)} nodes in place of its database, which was deleted or "
                f"taken out: delete the group (verdi group delete {self.pk}) and add the release again"
            )
        return cast("EnvironmentDatabaseData", nodes[0])

    def add_nodes(self, nodes: Node | Sequence[Node]) -> None:
        """Add the database, stored already; a release that has one keeps it.

        Raises
        ------
        LosikoError
            For a second node, and for one that is no environment database.
        """
        given = list(nodes) if isinstance(nodes, list | tuple) else [cast("Node", nodes)]
        if any(not isinstance(node, EnvironmentDatabaseData) for node in given):
            raise LosikoError(f"a release holds an EnvironmentDatabaseData, not a {type(given[0]).__name__}")
        present = {node.uuid for node in self.nodes} if self.is_stored else set()
        if len(present | {node.uuid for node in given}) > 1:
            raise LosikoError(f"the release {self.label!r} has a database, which does not change: give a new name")
        super().add_nodes(given)
