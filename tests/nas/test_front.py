"""The result of a search as a file, and picking one of its networks."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from nas.budget import Budget
from nas.files import read_document, write_atomic
from nas.front import Candidate, Comparison, DeviceBudget, DeviceLatency, Front, Fronts
from search_spaces.documents import pretty_json
from search_spaces.errors import InputError


def candidate(name: str, accuracy: float, latency_ms: float) -> Candidate:
    return Candidate(
        id=name,
        genes=(0, 2, 1),
        validation_accuracy=accuracy,
        validation_standard_error=0.01,
        predicted_latency_ms=latency_ms * 1.01,
        measured_latency_ms=latency_ms,
        params=1000,
        macs=20000,
    )


CANDIDATES = (
    candidate("0a1b2c3d4e", 0.50, 1.0),
    candidate("0a1bffffff", 0.75, 2.0),
    candidate("9c00000000", 0.80, 3.5),
    candidate("beef000000", 0.80, 3.0),
)
FRONT = Front(
    space_hash="5bace",
    supernet_hash="5eed",
    device="cpu",
    fingerprint_hash="cafe",
    budget_ms=4.0,
    budget_at="min",
    bounds={},
    objectives=("latency_ms",),
    reachable_ms=(0.5, 8.25),
    budget_binds=True,
    margin=0.02,
    seed=0,
    evaluations=96,
    known=120,
    validation_images=360,
    candidates=CANDIDATES,
    dropped=(candidate("dddddddddd", 0.9, 4.5),),
    comparison=Comparison(
        strategy="nsga2",
        evaluations=96,
        hypervolume=1.5,
        against="random",
        against_evaluations=96,
        against_hypervolume=1.25,
        reference={"error": 0.5, "latency_ms": 4.0},
    ),
)


TWO = dataclasses.replace(
    FRONT,
    candidates=tuple(
        dataclasses.replace(
            each,
            others=(DeviceLatency(device="cpu:threads=2", predicted_latency_ms=0.5, measured_latency_ms=None),),
        )
        for each in CANDIDATES
    ),
    dropped=(),
    others=(
        DeviceBudget(
            device="cpu:threads=2",
            fingerprint_hash="beef",
            budget_ms=1.0,
            reachable_ms=(0.25, 4.0),
            budget_binds=True,
            margin=0.01,
        ),
    ),
)


def fronts_of(*fronts: Front) -> Fronts:
    return Fronts(
        format_version=Fronts.CURRENT_VERSION,
        last=tuple(front.name for front in fronts),
        fronts={front.name: front for front in fronts},
    )


def test_a_front_is_of_one_device_or_of_several_together() -> None:
    both = fronts_of(FRONT, TWO)
    assert both.pick("cpu") == FRONT
    assert both.pick("cpu + cpu:threads=2") == TWO
    assert [each.device for each in TWO.devices] == ["cpu", "cpu:threads=2"]
    assert TWO.best.everywhere_ms == (3.0, 0.5)
    assert TWO.best.measured_everywhere_ms == (3.0, None)
    with pytest.raises(InputError, match="for several devices: add --device"):
        both.pick()
    with pytest.raises(InputError, match="'cpu:threads=2'"):
        both.pick("cpu:threads=2")
    assert fronts_of(TWO).pick() == TWO


def test_the_best_is_the_most_accurate_and_the_fastest_of_equals() -> None:
    assert FRONT.best.id == "beef000000"
    assert FRONT.pick("best") is FRONT.best
    assert dataclasses.replace(FRONT, candidates=CANDIDATES[::-1]).best.id == "beef000000"


def test_ties_are_within_one_standard_error_of_the_best() -> None:
    best, close, far = (
        candidate(name, accuracy, 2.0) for name, accuracy in zip("abc", (0.8, 0.791, 0.789), strict=True)
    )
    front = dataclasses.replace(FRONT, candidates=(far, close, best))
    assert front.best == best
    assert best.validation_standard_error == 0.01
    assert front.ties == (close,)


def test_a_network_that_nobody_measured_has_its_predicted_latency() -> None:
    unmeasured = dataclasses.replace(CANDIDATES[0], measured_latency_ms=None)
    assert (CANDIDATES[0].latency_ms, unmeasured.latency_ms) == (1.0, 1.01)
    assert dataclasses.replace(FRONT, candidates=(unmeasured,)).within(1.0, device="cpu", supernet_hash="5eed") is None
    sustained = dataclasses.replace(FRONT, budget_at="p50")
    assert sustained.within(9.0, device="cpu", supernet_hash="5eed") is None


def test_the_knee_is_farthest_above_the_line_between_the_ends() -> None:
    points = {"a": (0.5, 1.0), "b": (0.7, 1.5), "c": (0.78, 2.0), "d": (0.8, 4.0)}
    front = dataclasses.replace(FRONT, candidates=tuple(candidate(name, *point) for name, point in points.items()))
    assert front.knee.id == "c"
    assert front.pick("knee") == front.knee
    # Whatever the units are.
    seconds = tuple(candidate(name, accuracy, ms / 1000) for name, (accuracy, ms) in points.items())
    assert dataclasses.replace(front, candidates=seconds).knee.id == "c"
    below = tuple(
        candidate(name, accuracy, ms) for name, accuracy, ms in (("a", 0.5, 1), ("b", 0.51, 2), ("c", 0.8, 3))
    )
    assert dataclasses.replace(front, candidates=below).knee.id == "c", "none is above the line: the best"
    assert dataclasses.replace(front, candidates=below[:1]).knee.id == "a"


def test_a_tighter_budget_leaves_those_that_another_measurement_will_find_inside() -> None:
    budget = Budget(limit_ms=3.05, reachable_ms=(0.5, 8.0), margin=0.1, wide_margin=0.6, noise=0.02)
    tighter = FRONT.inside(budget)
    assert tighter.budget_ms == 3.05
    assert [each.latency_ms for each in tighter.candidates] == [1.0, 2.0], "3.0 is less than 2 % below 3.05"
    assert tighter.best.id == "0a1bffffff"
    unmeasured = tuple(dataclasses.replace(each, measured_latency_ms=None) for each in CANDIDATES)
    assert len(dataclasses.replace(FRONT, candidates=unmeasured).inside(budget).candidates) == 1
    with pytest.raises(InputError, match=r"fastest takes 1 ms; run `nas search --budget-ms 0.9`"):
        FRONT.inside(dataclasses.replace(budget, limit_ms=0.9))
    with pytest.raises(InputError, match=r"inside 4 ms; for 5 ms run `nas search"):
        FRONT.inside(dataclasses.replace(budget, limit_ms=5.0))
    with pytest.raises(InputError, match="one device"):
        TWO.inside(budget)


@pytest.mark.parametrize("expected", [each.id for each in CANDIDATES])
def test_a_network_is_picked_by_its_id(expected: str) -> None:
    assert FRONT.pick(expected).id == expected


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("0a1b2", "0a1b2c3d4e"), ("0a1bf", "0a1bffffff"), ("9", "9c00000000"), ("be", "beef000000")],
)
def test_a_beginning_that_only_one_id_has_is_enough(choice: str, expected: str) -> None:
    assert FRONT.pick(choice).id == expected


@pytest.mark.parametrize("choice", ["0", "0a1b"])
def test_a_beginning_of_several_ids_is_refused_naming_them(choice: str) -> None:
    with pytest.raises(InputError) as refusal:
        FRONT.pick(choice)
    message = str(refusal.value)
    assert repr(choice) in message
    assert "0a1b2c3d4e" in message
    assert "0a1bffffff" in message
    assert "9c00000000" not in message


def test_an_empty_choice_is_no_choice() -> None:
    with pytest.raises(InputError):
        FRONT.pick("")


@pytest.mark.parametrize(
    ("choice", "nearest"), [("0a1b2c3d4f", "0a1b2c3d4e"), ("bets", "best"), ("beef0000001", "beef000000")]
)
def test_an_unknown_network_is_refused_naming_the_nearest(choice: str, nearest: str) -> None:
    with pytest.raises(InputError) as refusal:
        FRONT.pick(choice)
    message = str(refusal.value)
    assert repr(choice) in message
    assert f"did you mean {nearest!r}" in message
    assert all(each.id in message for each in CANDIDATES)


def test_what_was_dropped_cannot_be_picked() -> None:
    with pytest.raises(InputError, match="dddddddddd"):
        FRONT.pick("dddddddddd")


@pytest.mark.parametrize(
    "front", [FRONT, TWO, dataclasses.replace(FRONT, comparison=None, dropped=(), budget_binds=False)]
)
def test_a_front_comes_back_from_its_file_as_it_was(tmp_path: Path, front: Front) -> None:
    path = tmp_path / "front.json"
    fronts = fronts_of(front)
    write_atomic(path, pretty_json(fronts))
    assert read_document(path, Fronts) == fronts


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("budget_ms", "4", "budget_ms"),
        ("candidates", [{"id": "0a1b2c3d4e"}], "candidates"),
        ("supernet", "5eed", "supernet"),
        ("margin", None, "margin"),
        ("candidates", [], "candidates"),
    ],
)
def test_a_front_that_was_changed_by_hand_is_refused_naming_the_field(
    tmp_path: Path, field: str, value: object, word: str
) -> None:
    path = tmp_path / "front.json"
    stored = json.loads(pretty_json(fronts_of(FRONT)))
    stored["fronts"]["cpu"][field] = value
    path.write_text(json.dumps(stored))
    with pytest.raises(InputError, match=word) as refusal:
        read_document(path, Fronts)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("limit_ms", "expected"), [(0.9, None), (1.0, "0a1b2c3d4e"), (2.9, "0a1bffffff"), (9.0, "beef000000")]
)
def test_only_candidates_inside_a_latency_are_compared_at_it(limit_ms: float, expected: str | None) -> None:
    found = FRONT.within(limit_ms, device="cpu", supernet_hash="5eed")
    assert (found and found.id) == expected


@pytest.mark.parametrize(("device", "supernet_hash"), [("cpu:threads=2", "5eed"), ("cpu", "other")])
def test_a_front_of_another_device_or_other_weights_is_not_compared(device: str, supernet_hash: str) -> None:
    assert FRONT.within(9.0, device=device, supernet_hash=supernet_hash) is None
