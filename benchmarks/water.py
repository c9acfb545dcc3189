"""Water from random atoms: how often, how exactly and how fast (the toy of Fig. 3 of the paper).

Descriptor and settings of the protocol `water`, a database of one water molecule, 100 starts with coordinates uniform
in [-1, 1] Angstrom. Bars: at least 95 reach a loss below 1e-8 with the H-O-H angle within 0.1 degree of the database's,
in a median of at most 40 evaluations of loss and gradient (the paper: 298 steps of Nelder-Mead).
"""

from __future__ import annotations

import argparse
import time

import common
import numpy as np
from ase import Atoms
from ase.build import molecule

from aiida_losiko.core import EnvironmentDatabase, RelaxSettings, make_descriptor, relax
from aiida_losiko.core.protocols import load_protocol
from aiida_losiko.tools.tables import Column, text_table

OXYGEN, HYDROGENS = 0, (1, 2)


def main() -> None:
    """Relax the starts and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=100, help="number of random starts")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    common.one_core()
    common.header(f"Water from {arguments.starts} random starts, one core")

    water, protocol = molecule("H2O"), load_protocol("water")
    soap = make_descriptor({"name": "soap", "species": ["H", "O"], **protocol.descriptor})
    database = EnvironmentDatabase.build([water], soap, sources=["g2:H2O"], **{**protocol.database, "dtype": "float64"})
    generator = np.random.default_rng(arguments.seed)
    starts = [Atoms("OH2", generator.uniform(-1, 1, (3, 3))) for _ in range(arguments.starts)]
    rows = []
    for optimizer in ("lbfgs", "fire"):
        settings = RelaxSettings.from_dict({**protocol.relax, "optimizer": optimizer})
        begin = time.perf_counter()
        results = relax(starts, database, settings=settings)
        rows.append({"optimizer": optimizer, "seconds": time.perf_counter() - begin, **summary(results, water)})
    columns = [
        Column("optimizer", "optimizer"),
        Column("reached", "reached"),
        Column("low_loss", "loss < 1e-8"),
        Column("median", "median evaluations", "", ".1f"),
        Column("p95", "95th percentile", "", ".0f"),
        Column("angle", "worst angle error", "degree", ".1e"),
        Column("length", "worst O-H error", "Angstrom", ".1e"),
        Column("seconds", "time for all", "s", ".2f"),
    ]
    print(text_table(rows, columns))
    print("(worst errors: among those that reached; evaluations: of all starts)\n")
    default = rows[0]
    share = 100 * default["reached"] / arguments.starts
    common.finish(
        [
            common.verdict("lbfgs: starts that become water", share, 95, at_least=True, unit=" %"),
            common.verdict("lbfgs: median evaluations", default["median"], 40, at_least=False),
        ]
    )


def summary(results: list, water: Atoms) -> dict[str, float]:
    """What the table says about one optimiser."""
    true_angle = water.get_angle(1, 0, 2)
    angles = np.array([abs(result.atoms.get_angle(1, 0, 2) - true_angle) for result in results])
    true_length = water.get_distance(0, 1)
    lengths = [[abs(r.atoms.get_distance(OXYGEN, h) - true_length) for h in HYDROGENS] for r in results]
    losses = np.array([result.loss for result in results])
    evaluations = np.array([result.evaluations for result in results])
    reached = (losses < 1e-8) & (angles < 0.1)
    return {
        "reached": int(reached.sum()),
        "low_loss": int((losses < 1e-8).sum()),
        "median": float(np.median(evaluations)),
        "p95": float(np.percentile(evaluations, 95)),
        "angle": float(angles[reached].max(initial=0.0)),
        "length": float(np.array(lengths)[reached].max(initial=0.0)),
    }


if __name__ == "__main__":
    main()
