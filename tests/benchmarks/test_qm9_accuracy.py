"""What the accuracy benchmark keeps, measures and judges, without its data and its peers."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule

from aiida_losiko.core import Relaxation


def named(name, identifier, **info):
    atoms = molecule(name)
    atoms.info = {"identifier": identifier, "seconds": 0.5, "converged": True, "error": "", **info}
    return atoms


def test_what_is_kept_is_not_done_again(script, tmp_path):
    study, kept = script("qm9_study"), script("kept")
    starts = [named("H2O", f"gdb_{number}") for number in range(7)]
    done = []

    def work(some):
        done.extend(atoms.info["identifier"] for atoms in some)
        if "gdb_5" in done:
            raise KeyboardInterrupt
        return some

    place = kept.Kept(tmp_path, "peer a", {"seed": 0})
    with pytest.raises(KeyboardInterrupt):
        study.complete(place, starts, work, 2, "peer", warm_up=False)
    assert done == [f"gdb_{number}" for number in (0, 1, 2, 3, 4, 5)]
    again = []
    results = study.complete(place, starts, lambda some: again.extend(some) or some, 2, "peer", warm_up=False)
    assert [atoms.info["identifier"] for atoms in again] == ["gdb_4", "gdb_5", "gdb_6"]
    assert [atoms.info["identifier"] for atoms in results] == [f"gdb_{number}" for number in range(7)]
    assert results[0].info["seconds"] == 0.5
    # Other settings, other place.
    assert kept.Kept(tmp_path, "peer a", {"seed": 1}).load() == {}


def test_code_is_the_same_whatever_its_words(script, tmp_path, monkeypatch):
    code, common = script("code_state"), script("common")
    package = tmp_path / "aiida_losiko" / "core"
    package.mkdir(parents=True)
    monkeypatch.setattr(common, "REPOSITORY", tmp_path)

    def state(method, helper="X = 1\n", other="Y = 1\n"):
        for name, text in (("method", method), ("helper", helper), ("other", other)):
            (package / f"{name}.py").write_text(text)
        code._statements.cache_clear()
        return code.code_fingerprint(["aiida_losiko.core.method"])

    method = "def f():\n    from aiida_losiko.core.helper import X\n    return X\n"
    first = state(method)
    assert state("# why\n" + method.replace(":\n", ':\n    """Say what."""\n', 1)) == first
    assert state(method, other="Y = 2\n") == first
    assert state(method, helper="X = 2\n") != first
    assert state(method.replace("return X", "return -X")) != first


def row(script, start, size, who, errors, flags):
    """A row of blown-up water molecules: each bond is too long by the error asked for, as a part of its length."""
    true = {f"gdb_{n}": named("H2O", f"gdb_{n}") for n in range(len(errors))}
    structures = []
    for n, (error, flag) in enumerate(zip(errors, flags, strict=True)):
        atoms = named("H2O", f"gdb_{n}", flagged=flag)
        atoms.positions *= 1 + error
        structures.append(atoms)
    return script("qm9_measures").measure(start, size, who, "losiko" if size else "start", structures, true)


def test_measures(script):
    made = row(script, "a", 378, "LOSIKO balanced", [0.0, 0.1, 1.0], [False, True, True])
    water = molecule("H2O")
    spread = np.sqrt(((water.positions - water.positions.mean(axis=0)) ** 2).sum(axis=1).mean())
    bond = water.get_distance(0, 1)
    assert made.rmsd == pytest.approx([0.0, 0.1 * spread, spread])
    assert made.values["n"] == 3
    assert made.values["bond"] == pytest.approx(bond * 1.1 / 3)
    assert made.values["angle"] == pytest.approx(0.0, abs=1e-9)
    assert made.values["torsion"] is None
    assert made.values["far"] == pytest.approx(100 / 3)
    assert made.values["flagged"] == pytest.approx(200 / 3)
    assert (made.values["caught"], made.values["alarmed"]) == (100.0, 50.0)


def test_peers_that_failed_are_counted_and_left_out(script):
    structures = [named("H2O", "gdb_0"), named("H2O", "gdb_1", error="no bonds")]
    true = {atoms.info["identifier"]: atoms for atoms in structures}
    made = script("qm9_measures").measure("a", None, "MMFF94", "peer", structures, true)
    assert made.values["n"] == "1 of 2"
    assert made.identifiers == ["gdb_0"]


def test_verdicts(script, capsys):
    verdicts = script("qm9_verdicts").verdicts
    good = row(script, "a", 378, "LOSIKO balanced", [0.01] * 9 + [1.0], [False] * 9 + [True])
    far = row(script, "a", 378, "LOSIKO balanced", [1.0] * 10, [False] * 10)
    exact = row(script, "e", 378, "LOSIKO balanced", [0.001] * 10, [False] * 10)
    assert verdicts([exact], ["balanced"]) == [True, True]
    printed = capsys.readouterr().out
    assert "SKIP  balanced, start (a), database of 30000: mean RMSD: nothing to judge" in printed
    # The mean of the first is pulled up by one; its flag is right.
    assert verdicts([good, exact], ["balanced"]) == [False, True, True, True]
    assert verdicts([far, exact], ["balanced"]) == [False, True, False, True]
    # Others than the first are shown, not judged.
    assert verdicts([far, exact], ["precise", "balanced"]) == []


def test_verdict_against_xtb(script):
    verdicts = script("qm9_verdicts").verdicts
    start = row(script, "c", None, "the start", [0.02], [False])
    better = row(script, "c", 30000, "LOSIKO balanced", [0.009], [False])
    worse = row(script, "c", 30000, "LOSIKO balanced", [0.011], [False])
    # Half of the bond error, smaller RMSD, and the flag.
    assert verdicts([start, better], ["balanced"]) == [True, True, True]
    assert verdicts([start, worse], ["balanced"]) == [False, True, True]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (Relaxation(molecule("H2O"), status="converged"), False),
        (Relaxation(molecule("H2O"), status="converged", flags=("collapsed",)), True),
        (Relaxation(molecule("H2O"), status="error", error="no carbon in the database"), True),
    ],
)
def test_doubtful(script, result, expected):
    assert script("qm9_losiko").doubtful(result) is expected


def test_peers_walk_to_their_minima(script):
    peers = script("peers")
    pytest.importorskip("rdkit")
    pytest.importorskip("tblite")
    true = molecule("CH3CH2OH")
    start = true.copy()
    start.positions += np.random.default_rng(0).normal(scale=0.1, size=(9, 3))
    for name, minimise in peers.PEERS.items():
        outcome = minimise(start, true)
        assert (outcome.converged, outcome.error) == (True, ""), name
        assert np.abs(outcome.atoms.get_all_distances() - true.get_all_distances()).max() < 0.1, name
        assert outcome.atoms.calc is None
    # An atom too many has no bonds that make sense; the start is not changed.
    broken = molecule("CH4") + molecule("H2")[:1]
    broken.positions[5] = [4.0, 0.0, 0.0]
    outcome = peers.PEERS["MMFF94"](broken, broken)
    assert outcome.atoms is None
    assert outcome.error
