"""Figures of models that were visited in turn, on a machine that is now faster, now slower."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from nas.devices.drift import LEAST_OTHERS, slowness
from nas.devices.results import parse_results
from nas.measure import Manifest, ModelFile
from nas.runtime import describe_machine

MODELS, ROUNDS = 100, 16
Values = npt.NDArray[np.float64]


def visited(rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return the models of visits: every round in another order."""
    return np.concatenate([rng.permutation(MODELS) for _ in range(ROUNDS)])


def figures(models: npt.NDArray[np.int64], times: Values) -> Values:
    """Return the lower quartile of every model."""
    return np.array([np.quantile(times[models == each], 0.25) for each in range(MODELS)])


def drifting(visits: int, rng: np.random.Generator) -> Values:
    """Return a machine's slowness: it wanders by a tenth within some hundred visits."""
    steps = np.interp(np.arange(visits), np.arange(0, visits, 50), rng.normal(0.0, 0.1, len(range(0, visits, 50))))
    return np.asarray(np.exp(steps), dtype=np.float64)


@pytest.mark.parametrize("seed", range(3))
def test_what_all_models_share_is_taken_out(seed: int) -> None:
    rng = np.random.default_rng(seed)
    models = visited(rng)
    own = rng.uniform(0.1, 10.0, MODELS)
    times = own[models] * drifting(len(models), rng) * np.exp(rng.normal(0.0, 0.01, len(models)))
    raw, steady = figures(models, times), figures(models, times / slowness(models, times))

    def spread(found: Values) -> float:
        return float(np.std(np.log(found / own)))

    assert spread(steady) < 0.4 * spread(raw)
    # What is reported stays the lower quartile of what was seen, in the middle of all models.
    assert np.median(steady / raw) == pytest.approx(1.0, abs=1e-3)


def test_what_a_model_does_alone_stays() -> None:
    rng = np.random.default_rng(0)
    models = visited(rng)
    times = rng.uniform(0.1, 10.0, MODELS)[models]
    odd = (models == 7) & (np.arange(len(models)) // MODELS % 2 == 1)
    times[odd] *= 1.5
    steady = times / slowness(models, times)
    assert steady[odd] / steady[(models == 7) & ~odd].mean() == pytest.approx(1.5)
    assert steady[models == 8] == pytest.approx(times[models == 8])


def test_few_models_are_left_as_they_are() -> None:
    rng = np.random.default_rng(0)
    models = np.tile(np.arange(LEAST_OTHERS), 8)
    assert slowness(models, rng.uniform(1.0, 2.0, len(models))).tolist() == [1.0] * len(models)
    assert slowness(np.zeros(1, dtype=np.int64), np.ones(1)).tolist() == [1.0]


@pytest.mark.parametrize("alone", [1, 5])
def test_models_that_are_visited_again_alone_do_not_hide_their_own_slowness(alone: int) -> None:
    rng = np.random.default_rng(0)
    complete = visited(rng)
    models = np.concatenate([complete, np.tile(np.arange(alone), ROUNDS)])
    times = rng.uniform(0.1, 10.0, MODELS)[models]
    times[len(complete) :] *= 1.2
    steady = times / slowness(models, times)
    # The first visits after the complete rounds have others around them; the later ones have not.
    last = steady[-alone:] / [np.median(steady[: len(complete)][complete == each]) for each in models[-alone:]]
    assert last == pytest.approx(1.2)


def test_a_stretch_of_one_kind_is_told_by_its_neighbours_in_any_order_of_files(tmp_path: Path) -> None:
    kinds, rounds = 2, 6
    files = [
        ModelFile(f"{kind}-{number}", tmp_path / "m", "0", group=kind) for kind in range(kinds) for number in range(25)
    ]
    manifest = Manifest(models=tuple(files), rounds=rounds)
    rng = np.random.default_rng(0)
    machine = describe_machine(1)
    start = {"kind": "start", "format_version": 2, "manifest_hash": manifest.hash, "fingerprint": machine}
    own = {file.id: int(rng.integers(10**5, 10**6)) for file in files}
    for part in range(2):
        now = {"load": 0.0, "temperature_c": None, "clock_mhz": None, "time_unix_s": 1.0 + part}
        lines: list[dict[str, object]] = [{**start, "python": "3", "numpy": "2", "conditions": now}]
        for number in range(part * rounds // 2, (part + 1) * rounds // 2):
            for kind in range(kinds):
                # Networks, but not blocks, are slow in half of the rounds.
                slow = 1.3 if kind == 1 and number % 2 else 1.0
                for place in rng.permutation(25):
                    name = f"{kind}-{place}"
                    time_ns = round(own[name] * slow)
                    times = {"first_ns": time_ns, "min_ns": time_ns, "median_ns": time_ns, "p90_ns": time_ns}
                    lines.append({"kind": "visit", "round": number, "id": name, "runs": 3, **times})
        (tmp_path / f"{part}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    first, second = (parse_results(tmp_path / f"{part}.jsonl") for part in range(2))
    run = first.merged(second).run(manifest)
    assert run == second.merged(first).run(manifest)
    exact = []
    for measurement in run.measurements:
        assert len(measurement.rounds_ms) == rounds
        if measurement.id.startswith("0"):
            assert measurement.slowness == pytest.approx((1.0,) * rounds)
        else:
            exact += [
                each / own[measurement.id] * 1e6 == pytest.approx(1.0, rel=1e-3) for each in measurement.steady_ms
            ]
            assert max(measurement.rounds_ms) > 1.29 * min(measurement.rounds_ms)
    # All but those at the ends of a stretch, half of whose neighbours were in another one.
    assert np.mean(exact) > 0.9
