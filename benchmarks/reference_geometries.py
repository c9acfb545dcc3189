#!/usr/bin/env python
"""Our own reference molecules against QM9's geometries of the same molecules, both B3LYP/6-31G(2df,p).

    python benchmarks/reference_geometries.py                # what workflows/reference_molecules.py has made so far

Atoms are brought to correspond by the graph of bonds, in the way of the smallest RMSD. Where a molecule has several
conformers, QM9 may have another one than ours: such pairs are marked by their RMSD. Bar: bonds within 0.002 Angstrom.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import common
import numpy as np
from ase import Atoms

sys.path.insert(0, str(common.REPOSITORY / "workflows"))

#: QM9 begins with the smallest molecules; all with up to four heavy atoms of C, N, O lie among these.
N_RECORDS = 300
#: Angstrom; pairs that are further apart are not the same conformer.
SAME_CONFORMER = 0.1
#: Angstrom, of each bond.
BAR = 0.002
#: Correspondences that are looked at, of all that the graphs allow.
MAX_MATCHES = 5000


def main() -> None:
    """Print the table and the verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", help="AiiDA profile (default: the default one)")
    options = parser.parse_args()
    path = common.qm9_file("qm9_b3lyp.npz")
    common.header("reference molecules against QM9")
    rows = list(compare(ours(options.profile), known(path)))
    same = [row for row in rows if row["rmsd"] < SAME_CONFORMER]
    print(table(rows))
    if not same:
        sys.exit("no molecule of ours is in QM9 as the same conformer: run workflows/reference_molecules.py first")
    print(f"\n{len(rows)} molecules in both, {len(same)} of them the same conformer\n")
    worst = max(row["bond"] for row in same)
    common.finish([common.verdict("largest difference of a bond", worst, BAR, at_least=False, unit=" Angstrom")])


def ours(profile: str | None) -> dict[str, Atoms]:
    """Return the minima that there are, by name."""
    from aiida import load_profile

    load_profile(profile)
    from reference_molecules import MOLECULES, finished

    from aiida_losiko.data import structure_to_atoms

    done = {name: node for name in MOLECULES if (node := finished(name)) is not None}
    return {name: structure_to_atoms(node.outputs.minima["structure_0"]) for name, node in done.items()}


def known(path: Path) -> list[tuple[str, Atoms]]:
    """Return the first molecules of QM9."""
    from aiida_losiko.sources.qm9 import read_qm9

    return [(record.identifier, record.atoms) for record in read_qm9(path, {"first": N_RECORDS})]


def compare(molecules: dict[str, Atoms], references: list[tuple[str, Atoms]]) -> Iterator[dict[str, Any]]:
    """Yield a row for each molecule that QM9 has, with the record that is closest."""
    from aiida_losiko.core.metrics import angle_errors, bond_length_errors

    for name, atoms in molecules.items():
        formula = atoms.get_chemical_formula()
        candidates = [(label, each) for label, each in references if each.get_chemical_formula() == formula]
        found = [(*match, label, each) for label, each in candidates if (match := best_match(atoms, each)) is not None]
        if not found:
            continue
        distance, order, label, reference = min(found, key=lambda match: match[0])
        moved = reference[order]
        angles = angle_errors(atoms, moved)
        yield {
            "name": name,
            "record": label,
            "rmsd": distance,
            "bond": float(np.abs(bond_length_errors(atoms, moved)).max()),
            "angle": float(np.abs(angles).max()) if len(angles) else None,
        }


def best_match(atoms: Atoms, reference: Atoms) -> tuple[float, list[int]] | None:
    """Return the smallest RMSD in Angstrom and the order of the reference's atoms that gives it, mirrored or not.

    None where the graphs of bonds differ.
    """
    from networkx.algorithms.isomorphism import GraphMatcher

    from aiida_losiko.core.metrics import rmsd

    matcher = GraphMatcher(graph_of(atoms), graph_of(reference), node_match=lambda a, b: a["number"] == b["number"])
    orders: Iterable[list[int]] = (
        [match[i] for i in range(len(atoms))] for match in islice(matcher.isomorphisms_iter(), MAX_MATCHES)
    )
    mirrored = reference.copy()
    mirrored.positions[:, 0] *= -1
    found = [(min(rmsd(atoms, each[order]) for each in (reference, mirrored)), order) for order in orders]
    return min(found, default=None)


def graph_of(atoms: Atoms) -> Any:
    """Return atoms and bonds as a graph."""
    import networkx

    from aiida_losiko.core.bonding import bonds

    graph = networkx.Graph()
    graph.add_nodes_from((i, {"number": int(number)}) for i, number in enumerate(atoms.numbers))
    first, second, _ = bonds(atoms)
    graph.add_edges_from(zip(first.tolist(), second.tolist(), strict=True))
    return graph


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table, the largest difference of bonds first."""
    from aiida_losiko.tools.tables import Column, text_table

    columns = [
        Column("name", "molecule"),
        Column("record", "QM9"),
        Column("rmsd", "RMSD", "Angstrom", ".4f"),
        Column("bond", "largest bond difference", "Angstrom", ".4f"),
        Column("angle", "largest angle difference", "degree", ".2f"),
    ]
    return text_table(sorted(rows, key=lambda row: -row["bond"]), columns)


if __name__ == "__main__":
    main()
