"""What the parsers of `losiko` jobs share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiida.engine import ExitCode
from aiida.parsers import Parser

__all__ = ("LosikoParser",)

#: Lines of stderr that an exit message repeats.
TAIL_LINES = 5


class LosikoParser(Parser):
    """Base of the parsers: finds the outputs, or the reason why there are none."""

    #: Raise this when the same files are parsed to other nodes.
    CACHE_VERSION = 1

    def stderr(self) -> str:
        """Return what the program wrote to stderr; empty where that was not retrieved."""
        name = self.node.get_option("error_filename")
        if name not in self.retrieved.base.repository.list_object_names():
            return ""
        with self.retrieved.base.repository.open(name, "rb") as handle:
            return handle.read().decode("utf-8", errors="replace")

    def error_lines(self) -> list[str]:
        """Return the one-line error messages in stderr, without their prefix."""
        prefix = "Error: "
        return [line.removeprefix(prefix) for line in self.stderr().splitlines() if line.startswith(prefix)]

    def failure(self, label: str, **values: Any) -> ExitCode:
        """Return an exit code of the job by its label, its message filled in."""
        exit_code: ExitCode = self.exit_codes[label]
        return exit_code.format(**values)

    def missing(self, folder: Path, *names: str) -> ExitCode | None:
        """Return the exit code for outputs that are not there, None if all are.

        Parameters
        ----------
        folder
            Where the outputs were retrieved to.
        names
            Files that a run leaves, all or none of them.
        """
        absent = [name for name in names if not (folder / name).is_file()]
        if not absent:
            return None
        if self.node.exit_status:
            # The scheduler knows why: out of memory, out of wallclock time, ...
            return ExitCode(self.node.exit_status, self.node.exit_message)
        text = self.stderr()
        errors = self.error_lines()
        if "Traceback (most recent call last)" in text:
            return self.failure("ERROR_PROGRAM_CRASHED", tail=_tail(text))
        if errors:
            return self.failure("ERROR_INPUT_REJECTED", message=errors[-1])
        tail = _tail(text) or _tail(self.node.get_scheduler_stderr() or "") or "nothing on stderr"
        return self.failure("ERROR_OUTPUT_MISSING", missing=" and ".join(absent), tail=tail)


def _tail(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-TAIL_LINES:])
