"""The one exception that a user is meant to read, and the hint that it often ends with."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LosikoError(ValueError):
    """A wrong input, told in one line: the value, what is allowed and the way out.

    Command-line programs print the message and exit with a non-zero status; in a batch the message is recorded with
    the structure that caused it and the other structures are done.
    """


def did_you_mean(word: object, words: Iterable[str]) -> str:
    """Hint for a name that does not exist: `` (did you mean 'x'?)``, or nothing where no name is close."""
    close = difflib.get_close_matches(str(word), list(words), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
