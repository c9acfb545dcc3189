"""Parser of `losiko database build`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiida import orm
from aiida.engine import ExitCode

from aiida_losiko.calculations.common import DATABASE_FILE
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.data import EnvironmentDatabaseData
from aiida_losiko.parsers.common import LosikoParser

__all__ = ("DescribeParser",)


class DescribeParser(LosikoParser):
    """Make a database node of the file, and a report."""

    def parse(self, **kwargs: Any) -> ExitCode | None:
        """Parse the files.

        Parameters
        ----------
        **kwargs
            `retrieved_temporary_folder`: where the database file lies.

        Returns
        -------
        ExitCode or None
        """
        folder = Path(kwargs["retrieved_temporary_folder"])
        if exit_code := self.missing(folder, DATABASE_FILE):
            return exit_code
        try:
            database = EnvironmentDatabaseData.from_file(folder / DATABASE_FILE)
        except LosikoError as error:
            return self.failure("ERROR_OUTPUT_UNREADABLE", name=DATABASE_FILE, message=error)
        self.out("database", database)
        self.out("report", orm.Dict(database.summary))

        n_structures = len(self.node.inputs.structures)
        if database.n_sources < n_structures:
            n_failed = n_structures - database.n_sources
            message = "; ".join(self.error_lines()[:5]) or "see stderr"
            return self.failure(
                "ERROR_SOME_STRUCTURES_FAILED", n_failed=n_failed, n_structures=n_structures, message=message
            )
        return None
