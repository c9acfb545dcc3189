"""The loss of LOSIKO and its gradients, for many structures at once.

For every atom i the normalised feature vector p_i is compared with its target t_i, the nearest environment of the same
central species in the database. The loss of a structure is sum_i c_i D_i with the squared L2 distance
D_i = |p_i - t_i|^2 (Eq. 7, 8), or sum_i c_i (1 - (p_i . t_i)^d) with the polynomial kernel (Eq. 2, 6), which is least
where the similarity is largest. Targets are looked up anew at every evaluation.

Nothing in it holds a molecule together either: two halves that are like two known molecules may be the better match. A
cohesion keeps the bonds of the start; it is exactly zero unless one of them is stretched, by far.

Of a database with a learnt metric D_i is the distance in the metric of one stage (`environments.metric`), and the
targets are those of the first evaluation.

Two atoms on top of each other look to the descriptor like one heavy atom and can be a minimum of that loss. A short-
range repulsion removes these: it is exactly zero unless a pair is closer than any pair of the database, by far.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from ase.data import chemical_symbols

from aiida_losiko.core.attraction import Attraction, Goals, NearestAttraction, StageAttraction
from aiida_losiko.core.chunks import Chunk, cut_into_chunks
from aiida_losiko.core.cohesion import BondsOfStart
from aiida_losiko.core.curvature import CurvatureSketch
from aiida_losiko.core.environments.database import EnvironmentDatabase
from aiida_losiko.core.errors import LosikoError
from aiida_losiko.core.frozen import FrozenPart, Kept
from aiida_losiko.core.neighbors import NeighborTable, StructureBatch, scatter_to_atoms
from aiida_losiko.core.parsimony import SourceShares

KERNELS = ("distance", "polynomial")
# The repulsion begins at this part of the shortest distance that the database has for a pair of elements.
REPULSION_RANGE = 0.8


@dataclass
class Evaluation:
    """Loss and gradients of a batch at one set of positions and cells.

    Attributes
    ----------
    loss : Tensor, shape (n_structures,)
    gradient : Tensor, shape (n_atoms, 3)
        Derivatives in the positions, in 1 / Angstrom; zero for frozen atoms.
    strain_gradient : Tensor, shape (n_structures, 3, 3)
        Derivatives in the strain e of r -> (1 + e) r, at zero strain.
    atom_loss : Tensor, shape (n_atoms,)
        What each atom adds to the loss.
    distance : Tensor, shape (n_atoms,)
        Distance |p_i - t_i| to the target, in the stage's metric where one was learnt.
    environment : Tensor of int64, shape (n_atoms,)
        Its index among the environments of the species.
    curvature : Tensor, shape (n_structures, 3 m, 3 m), optional
        Estimates of the second derivatives in the positions of the structures, of up to m atoms, where it was asked
        for; see `curvature`.
    """

    loss: torch.Tensor
    gradient: torch.Tensor
    strain_gradient: torch.Tensor
    atom_loss: torch.Tensor
    distance: torch.Tensor
    environment: torch.Tensor
    curvature: torch.Tensor | None = None


class LocalSimilarityObjective:
    """Loss and gradients of a batch of structures against a database.

    Parameters
    ----------
    batch : StructureBatch
        The structures; `evaluate` is given their positions and cells.
    database : EnvironmentDatabase
        Where the targets come from; it must hold every element of the batch.
    weights : Tensor, shape (n_atoms,), optional
        The c_i of Eq. 2 and 8; one by default.
    kernel : str
        `distance` (Eq. 7, 8) or `polynomial` (Eq. 2, 6).
    kernel_degree : float
        Degree d of the polynomial kernel.
    free : Tensor of bool, shape (n_atoms,), optional
        Atoms that may move; the gradient of the others is zero. What none of these can come near to is evaluated once,
        and again only when a frozen atom or a cell is elsewhere.
    repulsion : float
        Strength k of the term k sum_pairs (1 - r / R)^2 for pairs closer than R, which is 0.8 of the shortest distance
        that the database has for their elements; zero for none.
    cohesion : float
        Strength k of the term k sum_bonds (r / R - 1)^2 for pairs further apart than R, which is 1.25 times the sum of
        their covalent radii. Bonds are the pairs of molecules (what is not periodic) that are closer than 1.15
        times this sum at `start`.
    start : Tensor, shape (n_atoms, 3), optional
        Positions that say what is bonded, in Angstrom; those of the batch by default.
    stage : int
        Which stage of a learnt metric; the last one by default. Of no meaning without one.
    own : Tensor of int64, shape (n_atoms,), optional
        The number of a source of the database for each atom, whose environments are not looked at: for learning.
    parsimony : float
        What environments cost of sources that hardly any other atom of the structure is like; see `core.parsimony`.
        The sources are counted at the first evaluation. For the kernel `distance` without a learnt metric.
    """

    def __init__(
        self,
        batch: StructureBatch,
        database: EnvironmentDatabase,
        weights: torch.Tensor | None = None,
        kernel: str = "distance",
        kernel_degree: float = 2,
        free: torch.Tensor | None = None,
        repulsion: float = 0.0,
        cohesion: float = 0.0,
        start: torch.Tensor | None = None,
        stage: int = -1,
        own: torch.Tensor | None = None,
        parsimony: float = 0.0,
    ) -> None:
        if kernel not in KERNELS:
            raise LosikoError(f"kernel {kernel!r} does not exist; choose one of: {', '.join(KERNELS)}")
        if kernel != "distance" and database.metric is not None:
            raise LosikoError(
                f"kernel {kernel!r} cannot be used with a learnt metric; choose distance, or build the database with "
                "metric null"
            )
        self.batch = batch
        self.database = database
        self.kernel = kernel
        self.kernel_degree = kernel_degree
        self._weights = torch.ones_like(batch.positions[:, 0]) if weights is None else weights
        self._free = free
        self._repulsion = repulsion
        self._range_of_pair = (REPULSION_RANGE * database.shortest_pairs).to(batch.positions)
        self._range = torch.empty((0, 1))
        bonded = batch if start is None else replace(batch, positions=start)
        self._cohesion = BondsOfStart(cohesion, bonded) if cohesion else None
        self._stage, self._own = stage, own
        self._goals = None if database.metric is None else Goals(database.metric, len(batch.numbers), batch.positions)
        self._table = NeighborTable(database.descriptor.cutoff)
        if parsimony and (kernel != "distance" or database.metric is not None):
            raise LosikoError(
                f"parsimony={parsimony} is for the plain distance: choose kernel distance and a database whose metric "
                "is null, or set it to 0"
            )
        self._shares = SourceShares(parsimony, database, batch) if parsimony else None
        self._squared = torch.empty((0, 1))
        self._frozen = None if free is None or bool(free.all()) else FrozenPart(batch, free, self._table)
        self._begin_again()

    def _attract(self, number: int, columns: torch.Tensor | None, rows: torch.Tensor) -> Attraction:
        """What pulls the atoms `rows`, all of one element, whose features are the columns."""
        device = self.batch.positions.device
        if self._goals is None:
            return NearestAttraction(
                self.database, number, columns, device, self.kernel, self.kernel_degree, self._shares, rows
            )
        exclude = None
        if self._own is not None:
            exclude = (self.database.only_source(chemical_symbols[number]).to(device), self._own[rows])
        return StageAttraction(self.database, self._stage, number, columns, self._goals, rows, exclude)

    def keep(self, structures: torch.Tensor) -> None:
        """Go on with those structures for which the mask, shape (n_structures,), is true."""
        atoms = structures[self.batch.structure_index]
        self.batch = self.batch.keep(structures)
        self._weights = self._weights[atoms]
        if self._free is not None:
            self._free = self._free[atoms]
        if self._own is not None:
            self._own = self._own[atoms]
        if self._goals is not None:
            self._goals.keep(atoms)
        if self._shares is not None:
            self._shares.keep(structures)
        if self._cohesion is not None:
            self._cohesion.keep(atoms)
        if self._frozen is not None:
            self._frozen.keep(structures, atoms)
        self._begin_again()

    def search_anew(self, structures: torch.Tensor) -> None:
        """Look for the targets of the structures of a mask, shape (n_structures,), at the next evaluation.

        Without a learnt metric that is always done.
        """
        if self._goals is not None:
            self._goals.forget(structures[self.batch.structure_index])
            self._begin_again()

    @property
    def distances(self) -> tuple[NeighborTable, torch.Tensor]:
        """The neighbours of the last evaluation and their squared distances, as of `NeighborTable.vectors`."""
        return self._table, self._squared

    def _begin_again(self) -> None:
        """Forget neighbours and attractions; targets that are held stay."""
        self._table = NeighborTable(self._table.cutoff, self._table.skin)
        changing = torch.ones_like(self.batch.numbers, dtype=torch.bool)
        if self._frozen is not None:
            changing = self._frozen.changing
        self._chunks, self._still = self._cut(changing), self._cut(~changing)

    def _cut(self, atoms: torch.Tensor) -> list[Chunk]:
        return cut_into_chunks(self.batch, atoms.cpu().numpy(), self.database.descriptor, self._attract)

    def _skip(self) -> Kept | None:
        """What was kept of the environments that need no evaluation, and neighbours of the others alone; or None."""
        if self._frozen is None:
            return None
        kept = self._frozen.kept(self.batch) if self._still else None
        if kept is not None and self._frozen.follow(self.batch):
            self._begin_again()
        if (self._table.part is None) != (kept is None):
            part = None if kept is None else self._frozen.part
            self._table = NeighborTable(self._table.cutoff, self._table.skin, part)
        return kept

    def evaluate(self, positions: torch.Tensor, cells: torch.Tensor | None = None, n_probes: int = 0) -> Evaluation:
        """Loss and gradients at `positions` (n_atoms, 3) and `cells` (n_structures, 3, 3), in Angstrom.

        With `n_probes` the curvature as well, estimated by so many draws; without what repulsion and cohesion add.
        """
        batch = self.batch
        batch.positions = positions
        if cells is not None:
            batch.cells = cells
        kept = self._skip()
        chunks = self._chunks if kept is not None else [*self._chunks, *self._still]
        table = self._table
        if table.update(batch):
            for chunk in chunks:
                chunk.set_neighbors(table)
            self._range = self._range_of_pair[table.of_rows(batch.numbers)[:, None], batch.numbers[table.index]]
        vectors, inside, squared = table.vectors(batch)
        self._squared = squared
        vector_gradient = torch.zeros_like(vectors)
        atom_loss, distance, environment = self._start(kept)
        sketch = CurvatureSketch(batch, n_probes) if n_probes else None
        if self._shares is not None and self._shares.shares is None:
            self._count_sources(self._shares, chunks, vectors, inside)
        for chunk in chunks:
            rows, places = chunk.rows, chunk.places
            (
                atom_loss[rows],
                distance[rows],
                environment[rows],
                vector_gradient[places, : chunk.width],
            ) = self._evaluate_chunk(chunk, vectors[places, : chunk.width], inside[places, : chunk.width], sketch)
        if self._repulsion:
            self._repel(vectors, squared, atom_loss, vector_gradient)
        virial = torch.einsum("aki,akj->aij", vector_gradient, vectors)
        strain_gradient = self._others_virial(kept)
        strain_gradient.index_add_(0, table.of_rows(batch.structure_index), virial)
        loss = atom_loss.new_zeros(batch.n_structures).index_add_(0, batch.structure_index, atom_loss)
        if self._frozen is not None and self._still and kept is None:
            self._frozen.keep_values(Kept.of(batch, atom_loss, distance, environment, virial))
        gradient = scatter_to_atoms(table, vector_gradient, len(positions))
        if self._cohesion is not None:
            self._cohesion.add(batch, loss, gradient)
        if self._free is not None:
            gradient = gradient * self._free[:, None]
        curvature = None if sketch is None else sketch.matrices(self._free)
        return Evaluation(loss, gradient, strain_gradient, atom_loss, distance, environment, curvature)

    def _others_virial(self, kept: Kept | None) -> torch.Tensor:
        """What environments that are not evaluated add to the gradients in the strain, in a new tensor."""
        if kept is None or self._frozen is None:
            return torch.zeros_like(self.batch.cells)
        return self._frozen.virial(self.batch, kept).clone()

    def _start(self, kept: Kept | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Losses, distances and matches (n_atoms,) with those that are kept."""
        if kept is not None:
            return kept.atom_loss.clone(), kept.distance.clone(), kept.environment.clone()
        atom_loss = torch.empty_like(self.batch.positions[:, 0])
        return atom_loss, torch.empty_like(atom_loss), torch.empty_like(self.batch.numbers)

    def _repel(
        self, vectors: torch.Tensor, squared: torch.Tensor, atom_loss: torch.Tensor, vector_gradient: torch.Tensor
    ) -> None:
        """Add the repulsion to the loss of each atom, half of every pair, and to the gradient in the vectors."""
        close = (squared < self._range**2) & (squared > 0)
        if not bool(close.any()):
            return
        row, _ = pairs = torch.nonzero(close, as_tuple=True)
        r, reach = squared[pairs].sqrt(), self._range[pairs]
        overlap = 1 - r / reach
        atom_loss.index_add_(0, self._table.atoms_of(row), 0.5 * self._repulsion * overlap**2)
        vector_gradient[pairs] -= (self._repulsion * overlap / (reach * r))[:, None] * vectors[pairs]

    def _count_sources(
        self, shares: SourceShares, chunks: list[Chunk], vectors: torch.Tensor, inside: torch.Tensor
    ) -> None:
        """Have the sources counted by all environments."""
        with torch.no_grad():
            for chunk in chunks:
                own = vectors[chunk.places, : chunk.width], inside[chunk.places, : chunk.width]
                features = chunk.descriptor.features_of(*own, chunk.species_index, chunk.elements)
                unit = features / torch.linalg.vector_norm(features, dim=1, keepdim=True).clamp_min(1e-30)
                for atoms, attraction in chunk.groups:
                    if isinstance(attraction, NearestAttraction):
                        attraction.look(unit[atoms])
        shares.count()

    def _evaluate_chunk(
        self, chunk: Chunk, vectors: torch.Tensor, inside: torch.Tensor, sketch: CurvatureSketch | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Loss, distance and match of each atom of a chunk, and the gradient in the vectors to its neighbours."""
        vectors = vectors.detach().requires_grad_()
        features = chunk.descriptor.features_of(vectors, inside, chunk.species_index, chunk.elements)
        with torch.no_grad():
            # An atom without neighbours has no features when its own weight w0 is zero.
            norm = torch.linalg.vector_norm(features, dim=1, keepdim=True).clamp_min(1e-30)
            unit = features / norm
            distance = torch.empty_like(norm[:, 0])
            atom_loss = torch.empty_like(distance)
            environment = torch.empty_like(chunk.species_index[:, 0])
            slope = torch.empty_like(unit)
            for atoms, attraction in chunk.groups:
                pulled = attraction.evaluate(unit[atoms])
                atom_loss[atoms], distance[atoms], environment[atoms] = pulled.loss, pulled.distance, pulled.environment
                slope[atoms] = pulled.slope
            weights = self._weights[chunk.rows]
            atom_loss *= weights
            # dL/dx of p = x / |x|: what points along p does not count.
            factor = weights[:, None] / norm
            along = torch.linalg.vecdot(unit, slope)[:, None]
            feature_gradient = slope.mul_(factor).addcmul_(unit, along.mul_(-factor))
        (gradient,) = torch.autograd.grad(features, vectors, feature_gradient, retain_graph=sketch is not None)
        if sketch is not None:
            self._probe(chunk, sketch, vectors, features, norm)
        return atom_loss, distance, environment, gradient

    def _probe(
        self,
        chunk: Chunk,
        sketch: CurvatureSketch,
        vectors: torch.Tensor,
        features: torch.Tensor,
        norm: torch.Tensor,
    ) -> None:
        """Take random slopes of a chunk back to the vectors, and give them to the sketch."""
        weights, unit = self._weights[chunk.rows].sqrt()[:, None], features.detach() / norm
        neighbors = self._table.index[chunk.places, : chunk.width]
        for probe in range(sketch.n_probes):
            slope = torch.empty_like(unit)
            for atoms, attraction in chunk.groups:
                slope[atoms] = attraction.probe(partial(sketch.draw, probe, chunk.rows[atoms]))
            slope *= weights / norm
            slope.addcmul_(unit, torch.linalg.vecdot(unit, slope)[:, None], value=-1)
            (gradient,) = torch.autograd.grad(features, vectors, slope, retain_graph=True)
            sketch.add(probe, chunk.rows, neighbors, gradient)
