"""Print what the atoms of a relaxed structure were matched to: `python -m aiida_losiko.tools.origins PK`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from aiida_losiko.core.errors import LosikoError

__all__ = ("main", "origins_text")

_REACH = {True: "out of reach", False: "", None: "not known"}


def origins_text(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows of `aiida_losiko.tools.provenance.trace` as a table, the nodes on the way and the source below it."""
    from aiida_losiko.tools.tables import Column, text_table

    columns = [
        Column("atom", "atom"),
        Column("symbol", "element"),
        Column("source", "modelled on"),
        Column("source_atom", "its atom"),
        Column("distance", "distance", format=".4f"),
        Column("reach", "reach"),
    ]
    lines = [text_table([{**row, "reach": _REACH[row["out_of_reach"]]} for row in rows], columns)]
    ways: dict[str, str] = {}  # atoms of several sources have come several ways
    for row in rows:
        way = " <- ".join(f"{step['role']} {step['pk']}" for step in row["path"])
        source = row["source_info"] or {}
        told = [str(source[key]) for key in ("name", "version", "licence", "reference", "url") if key in source]
        ways.setdefault(f"way back: {way}", ", ".join(told) or "not in the graph")
    for way, source in ways.items():
        lines += [way, f"source: {source}"]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m aiida_losiko.tools.origins", description=(__doc__ or "").split(":")[0]
    )
    parser.add_argument("node", metavar="NODE", help="pk or uuid of a relaxed structure or set, or of a relaxation")
    parser.add_argument("--structure", metavar="ID", help="which structure of a set: its identifier, or index from 0")
    parser.add_argument("--atom", type=int, action="append", metavar="N", help="index of an atom; repeatable; all")
    parser.add_argument("--profile", help="AiiDA profile (default: the default one)")
    options = parser.parse_args(arguments)
    from aiida import load_profile
    from aiida.common.exceptions import ConfigurationError, NotExistent

    from aiida_losiko.tools.provenance import trace

    structure = options.structure
    if structure is not None and structure.isdigit():
        structure = int(structure)
    try:
        load_profile(options.profile)
        rows = trace(int(options.node) if options.node.isdigit() else options.node, options.atom, structure)
    except (LosikoError, ConfigurationError, NotExistent) as error:
        print(f"Error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    print(origins_text(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
