"""The one exception that a user is meant to read."""

from __future__ import annotations


class LosikoError(ValueError):
    """A wrong input, told in one line: the value, what is allowed and the way out.

    Command-line programs print the message and exit with a non-zero status; in a batch the message is recorded with
    the structure that caused it and the other structures are done.
    """
