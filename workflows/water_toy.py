#!/usr/bin/env python
"""The toy of the paper's Fig. 3: one water molecule is all that the database knows. Needs no AiiDA.

Draws the loss (Eq. 8) in the plane of the molecule (a) where the oxygen moves and both hydrogens are fixed, (b) where
one hydrogen moves and the others are fixed, with the minima that a relaxation finds; then relaxes random three-atom
starts, coordinates uniform in [-1, 1] Angstrom, and prints loss, H-O-H angle and O-H lengths on the way (c).

The database holds the experimental geometry: O-H 0.9572 Angstrom, H-O-H 104.52 degree (Benedict, Gailar and Plyler,
J. Chem. Phys. 24, 1139, 1956). Settings are those of the protocol `water`: the paper's (Table S1) with L-BFGS in the
place of Nelder-Mead, and a jump for starts that get stuck where one atom is far off or on top of another (a loss of
about 0.2; the curve of such a start goes up once).

    python workflows/water_toy.py --starts 5 --output results/water
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aiida_losiko.core.errors import LosikoError
from aiida_losiko.tools.tables import Column, text_table

if TYPE_CHECKING:
    from ase import Atoms

    from aiida_losiko.core import EnvironmentDatabase

BOND_LENGTH, ANGLE = 0.9572, 104.52  # Angstrom, degree
OXYGEN, FIRST_H, SECOND_H = 0, 1, 2
STAGES = (0, 2, 5, 10, 15, 20, 30, 50, 80, 120, 200)
STRUCTURES_PER_BATCH = 512
STUCK = 0.01  # a minimum of a higher loss is a place where an atom is stuck, not a water molecule

GEOMETRY_COLUMNS = [
    Column("loss", "loss", "", ".2e"),
    Column("angle", "H-O-H", "degree", ".2f"),
    Column("first", "O-H", "Angstrom", ".4f"),
    Column("second", "O-H", "Angstrom", ".4f"),
]


def main(arguments: list[str] | None = None) -> int:
    """Run the toy; returns the exit status."""
    options = parse_arguments(arguments)
    try:
        database = water_database()
        draw_surfaces(database, options.grid, options.extent, options.output)
        if options.starts:
            relax_starts(database, options.starts, options.seed, options.output)
    except (LosikoError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=whole, default=5, help="number of random starts (default 5)")
    parser.add_argument("--seed", type=whole, default=0, help="of the random starts (default 0)")
    parser.add_argument("--grid", type=whole, default=121, help="points per axis of a surface (default 121)")
    parser.add_argument("--extent", type=float, default=2.0, help="the surfaces reach so far, Angstrom (default 2)")
    parser.add_argument("--output", type=Path, default=Path("results/water"), help="folder (default results/water)")
    options = parser.parse_args(arguments)
    if options.grid < 3:
        parser.error(f"--grid {options.grid} is too small for a surface: at least 3")
    if not 0 < options.extent < 100:
        parser.error(f"--extent {options.extent:g} must be a length between 0 and 100 Angstrom")
    return options


def whole(text: str) -> int:
    """Return a number that is zero or more; argparse turns the error into its own."""
    if int(text) < 0:
        raise ValueError(text)
    return int(text)


def water() -> Atoms:
    """Return the molecule in the plane z = 0, its oxygen in the origin and its axis along y."""
    from ase import Atoms

    half = np.radians(ANGLE / 2)
    x, y = BOND_LENGTH * np.sin(half), -BOND_LENGTH * np.cos(half)
    return Atoms("OH2", [[0, 0, 0], [x, y, 0], [-x, y, 0]])


def water_database() -> EnvironmentDatabase:
    """Describe the one molecule with the settings of the protocol."""
    from aiida_losiko.core import EnvironmentDatabase, make_descriptor
    from aiida_losiko.core.protocols import load_protocol

    protocol = load_protocol("water")
    descriptor = make_descriptor({"name": "soap", "species": ["H", "O"], **protocol.descriptor})
    # In double precision, so that the loss of the molecule itself is zero.
    settings = {**protocol.database, "dtype": "float64"}
    return EnvironmentDatabase.build([water()], descriptor, sources=["water"], **settings)


def draw_surfaces(database: EnvironmentDatabase, n_points: int, extent: float, output: Path) -> None:
    """Make the pictures (a) and (b) and print the minima."""
    from aiida_losiko.tools.figures import loss_surface

    cases = (("a", OXYGEN, "O", "oxygen moves, both hydrogens fixed"), ("b", SECOND_H, "H", "one hydrogen moves"))
    for letter, moving, symbol, title in cases:
        molecule = water()
        # The fixed atoms in the middle of the picture, the bond of (b) along x.
        if moving == SECOND_H:
            molecule.rotate(molecule.positions[FIRST_H], "x")
        fixed = [index for index in range(3) if index != moving]
        molecule.positions -= molecule.positions[fixed].mean(axis=0)
        axis = np.linspace(-extent, extent, n_points)
        values = surface(database, molecule, moving, axis)
        rows = minima(database, molecule, moving, axis, values)
        print(f"({letter}) {title}: {len(rows)} minima")
        print(
            text_table(
                rows, [Column("x", "x", "Angstrom", ".3f"), Column("y", "y", "Angstrom", ".3f"), *GEOMETRY_COLUMNS]
            )
        )
        path = loss_surface(
            (axis, axis),
            values,
            molecule[fixed],
            path=output / f"surface-{letter}.png",
            moving=symbol,
            minima=[(row["x"], row["y"]) for row in rows if row["loss"] < STUCK],
            shallow=[(row["x"], row["y"]) for row in rows if row["loss"] >= STUCK],
            title=f"({letter}) {title}",
        )
        print(f"picture: {path}\n")


def surface(database: EnvironmentDatabase, molecule: Atoms, moving: int, axis: np.ndarray) -> np.ndarray:
    """Loss with one atom at each point of the plane, (n_y, n_x); NaN where it would sit on another atom."""
    from aiida_losiko.core.neighbors import StructureBatch
    from aiida_losiko.core.objective import LocalSimilarityObjective

    x, y = np.meshgrid(axis, axis)
    places = np.column_stack([x.ravel(), y.ravel(), np.zeros(x.size)])
    structures = []
    for place in places:
        structures.append(molecule.copy())
        structures[-1].positions[moving] = place
    losses = []
    for begin in range(0, len(structures), STRUCTURES_PER_BATCH):
        batch = StructureBatch.from_atoms(structures[begin : begin + STRUCTURES_PER_BATCH])
        losses.append(LocalSimilarityObjective(batch, database).evaluate(batch.positions).loss.numpy())
    values = np.concatenate(losses)
    others = np.delete(molecule.positions, moving, axis=0)
    values[np.linalg.norm(places[:, None] - others, axis=2).min(axis=1) < 1e-3] = np.nan
    return values.reshape(x.shape)


def minima(
    database: EnvironmentDatabase, molecule: Atoms, moving: int, axis: np.ndarray, values: np.ndarray
) -> list[dict[str, Any]]:
    """Relax the moving atom from each point of the grid that is lower than its neighbours; one row per minimum.

    Minima where the atom is stuck are rows as well; their loss tells.
    """
    from ase.constraints import FixAtoms

    from aiida_losiko.core import relax

    padded = np.pad(np.nan_to_num(values, nan=np.inf), 1, constant_values=-np.inf)
    n = len(axis)
    shifts = [(i, j) for i in (0, 1, 2) for j in (0, 1, 2) if (i, j) != (1, 1)]
    lower = np.all([padded[1:-1, 1:-1] < padded[i : i + n, j : j + n] for i, j in shifts], axis=0)
    starts = []
    for row, column in np.argwhere(lower):
        starts.append(molecule.copy())
        starts[-1].positions[moving] = [axis[column], axis[row], 0.0]
        starts[-1].set_constraint(FixAtoms([index for index in range(3) if index != moving]))
    rows: list[dict[str, Any]] = []
    for result in relax(starts, database, fmax=1e-7, loss_tolerance=1e-16) if starts else []:
        place = result.atoms.positions[moving]
        if all(np.hypot(place[0] - row["x"], place[1] - row["y"]) > 0.01 for row in rows):
            rows.append({"x": place[0], "y": place[1], **geometry(result.atoms, result.loss)})
    return sorted(rows, key=lambda row: row["loss"])


def relax_starts(database: EnvironmentDatabase, n_starts: int, seed: int, output: Path) -> None:
    """Relax random starts, print the stages of the first and the ends of all, and draw the losses."""
    from ase import Atoms

    from aiida_losiko.core import relax
    from aiida_losiko.core.protocols import load_protocol
    from aiida_losiko.tools.figures import loss_curves

    generator = np.random.default_rng(seed)
    starts = [Atoms("OH2", generator.uniform(-1, 1, (3, 3))) for _ in range(n_starts)]
    settings = load_protocol("water").relax
    results = relax(starts, database, **settings)
    print("(c) stages of the first random start")
    rows = []
    for steps in [stage for stage in STAGES if stage < results[0].steps]:
        # The same way again, up to there: with three atoms that costs less than keeping every structure.
        (result,) = relax([starts[0]], database, **{**settings, "max_steps": steps})
        rows.append({"steps": steps, "evaluations": result.evaluations, **geometry(result.atoms, result.loss)})
    final = results[0]
    rows.append({"steps": final.steps, "evaluations": final.evaluations, **geometry(final.atoms, final.loss)})
    columns = [Column("steps", "steps"), Column("evaluations", "evaluations"), *GEOMETRY_COLUMNS]
    print(text_table(rows, columns), "\n")
    print(f"ends of {n_starts} random starts (the molecule of the database: {ANGLE} degree, {BOND_LENGTH} Angstrom)")
    rows = [
        {"steps": result.steps, "evaluations": result.evaluations, **geometry(result.atoms, result.loss)}
        for result in results
    ]
    print(text_table(rows, columns))
    path = loss_curves([result.loss_history for result in results], path=output / "loss.png", title="(c) random starts")
    print(f"picture: {path}")


def geometry(atoms: Atoms, loss: float) -> dict[str, float]:
    """What a row says about a structure."""
    return {
        "loss": loss,
        "angle": atoms.get_angle(FIRST_H, OXYGEN, SECOND_H),
        "first": atoms.get_distance(OXYGEN, FIRST_H),
        "second": atoms.get_distance(OXYGEN, SECOND_H),
    }


if __name__ == "__main__":
    sys.exit(main())
