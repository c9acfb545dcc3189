"""Time to open a database of two million environments, and to match exactly in it.

The vectors are synthetic (low-dimensional families with noise, as environments of molecules are) with the length of a
small descriptor: n_max 2, l_max 2, species H and C. Run with

    python benchmarks/database_open.py [--environments N]

The file takes 32 bytes of origins and 120 of vector per environment (0.3 GB), in a temporary folder.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from aiida_losiko.core.descriptors import make_descriptor
from aiida_losiko.core.environments.database import EnvironmentDatabase
from aiida_losiko.core.environments.file import Tensors, write_tensors
from aiida_losiko.core.environments.tracking import TrackedNearest

DESCRIPTOR = {"name": "soap", "species": ["H", "C"], "r_cut": 4.0, "n_max": 2, "l_max": 2, "sigma": 0.5}
ATOMS_PER_SOURCE = 20


def synthetic_vectors(n: int, dim: int, seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    scales = np.logspace(0, -3, dim)  # the spectrum of SOAP vectors falls off about like this
    mixing = np.linalg.qr(rng.normal(size=(dim, dim)))[0] * scales[:, None]
    centres = rng.normal(size=(2000, dim))
    vectors = np.empty((n, dim), dtype=np.float32)
    for start in range(0, n, 100_000):
        count = min(100_000, n - start)
        families = centres[rng.integers(len(centres), size=count)] + 0.2 * rng.normal(size=(count, dim))
        part = families @ mixing + 3.0 / np.sqrt(dim)
        vectors[start : start + count] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return torch.from_numpy(vectors)


def write_database(path: Path, n_environments: int) -> int:
    dim = make_descriptor(DESCRIPTOR).n_features
    shares = {"H": n_environments // 2, "C": n_environments - n_environments // 2}
    names = [f"synthetic-{i}".encode() for i in range(max(shares.values()) // ATOMS_PER_SOURCE + 1)]
    tensors = {
        "source_bytes": torch.frombuffer(bytearray(b"".join(names)), dtype=torch.uint8),
        "source_offsets": torch.tensor(np.concatenate([[0], np.cumsum([len(name) for name in names])])),
    }
    for seed, (symbol, n) in enumerate(shares.items()):
        tensors[f"vectors/{symbol}"] = synthetic_vectors(n, dim, seed)
        tensors[f"origin_offsets/{symbol}"] = torch.arange(n + 1)
        tensors[f"origin_source/{symbol}"] = torch.arange(n, dtype=torch.int32) // ATOMS_PER_SOURCE
        tensors[f"origin_atom/{symbol}"] = torch.arange(n, dtype=torch.int32) % ATOMS_PER_SOURCE
        tensors[f"loo_distance/{symbol}"] = torch.full((n,), torch.nan, dtype=torch.float64)
    header = {
        "descriptor": DESCRIPTOR,
        "settings": {"reach_quantile": 0.95, "seed": 0},
        "metadata": {"source": "synthetic"},
        "min_distances": {},
        "blocks": list(shares),
        "reach": dict.fromkeys(shares),
    }
    write_tensors(path, Tensors(tensors), header)
    return dim


def clock(label: str, function, *, repeats: int = 1, per: int = 1):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
    print(f"{label:<58} {1e3 * min(times) / per:12.3f} ms")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--environments", type=int, default=2_000_000, help="number of environments")
    parser.add_argument("--queries", type=int, default=256, help="number of vectors that are matched")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="losiko-benchmark-") as folder:
        path = Path(folder) / "large.db"
        dim = write_database(path, args.environments)
        print(f"{args.environments} environments, D={dim}, {path.stat().st_size / 1e6:.0f} MB, ", end="")
        print(f"{torch.get_num_threads()} thread(s), best of the repeats\n")
        database = clock("open", lambda: EnvironmentDatabase.load(path), repeats=5)
        clock("open and check all", lambda: EnvironmentDatabase.load(path, verify=True))
        vectors = clock("first use of the vectors of H (read, checksum)", lambda: database.vectors("H"))
        generator = torch.Generator().manual_seed(3)
        picked = torch.randint(len(vectors), (args.queries,), generator=generator)
        queries = vectors[picked].double()
        queries += 0.01 * queries.std(0) * torch.randn(queries.shape, generator=generator, dtype=torch.float64)
        queries /= torch.linalg.vector_norm(queries, dim=1, keepdim=True)
        single = queries.float()

        def product():
            return torch.cat([(part @ vectors.T).argmax(1) for part in single.split(16)])

        clock("first match (makes the projection)", lambda: database.match(queries[:1], "H"))
        brute = clock("per match: matrix product, float32, not exact", product, repeats=3, per=args.queries)
        found = clock("per match: exact search", lambda: database.match(queries, "H"), repeats=3, per=args.queries)
        searcher = database.searcher("H")
        tracked = TrackedNearest(searcher)
        clock("per match: first step of a trajectory", lambda: tracked.update(queries), per=args.queries)
        step = 1e-5 * torch.randn(queries.shape, generator=generator, dtype=torch.float64)
        clock("per match: a further small step", lambda: tracked.update(queries + step), per=args.queries)
        exact = torch.linalg.vector_norm(vectors[brute].double() - queries, dim=1)
        worse = int((exact > found[0][:, 0]).sum())
        print(f"\nfloat32 matrix product picked another than the nearest for {worse} of {args.queries} queries")


if __name__ == "__main__":
    main()
