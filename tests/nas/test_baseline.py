"""Hand-made networks: scaled to a latency, trained like the supernet, kept when they are done."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from nas import present
from nas.baseline import image_input, plan_baseline, steps_within, train_baseline, train_network
from nas.baseline_record import Baseline, BaselinePlan
from nas.block_cache import BlockCache
from nas.front import Candidate
from nas.run import Run
from nas.supernet import Network
from nas.training_record import TrainingConfig, TrainingRecord
from predictors.latency import LatencyPredictor
from search_spaces.errors import InputError
from search_spaces.presets import PRESETS
from search_spaces.tiny import tiny
from tests.command_line import nas_here, refusal, succeed
from tests.nas.synthetic_latency import ChosenDevice, at_the_pace_of, hollow_models, synthetic_latency
from tests.nas.torch_helpers import few_digits, one_thread, same_state, state_of

PRESET = PRESETS["mobilenetv2"]
LADDER = PRESET.ladder(image_input(few_digits()))
LATENCY = synthetic_latency(tiny(1, 10))
ELSEWHERE = LatencyPredictor(LATENCY.space, dataclasses.replace(LATENCY.table, fingerprint_hash="elsewhere"))
"""Of a table that tells nothing of the machine here."""
CONFIG = TrainingConfig(steps=30, batch_size=16, warmup_steps=3, peak_learning_rate=5e-3)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> BlockCache:
    """A cache that holds every block of the ladder, hollow: only a chosen device measures it."""
    blocks = dict.fromkeys(placed.block for rung in LADDER for placed in rung.spec)
    return hollow_models(list(blocks), tmp_path_factory.mktemp("baseline") / "blocks")


def milliseconds(name: str) -> float:
    """The place on the ladder, which is in the order of MACs, as a latency."""
    return 1.0 + int(name.rpartition("-")[2])


def plan(
    cache: BlockCache, folder: Path, limit_ms: float, asked: list[str], *, seconds: float | None = None
) -> BaselinePlan:
    return plan_baseline(
        PRESET,
        limit_ms,
        CONFIG,
        seconds=seconds,
        data=few_digits(),
        latency=ELSEWHERE,
        cache=cache,
        device=ChosenDevice(milliseconds, asked),
        directory=folder,
    )


def test_sizes_are_measured_beside_networks_of_the_table_as_searched_ones_are(tmp_path: Path) -> None:
    ladder = dict.fromkeys(placed.block for rung in LADDER for placed in rung.spec)
    cache = hollow_models(list(dict.fromkeys([*ladder, *LATENCY.space.blocks])), tmp_path / "blocks")
    device = ChosenDevice(at_the_pace_of(LATENCY.table, milliseconds, pace=0.8), [])
    found = plan_baseline(
        PRESET, 4.5, CONFIG, data=few_digits(), latency=LATENCY, cache=cache, device=device, directory=tmp_path / "plan"
    )
    # Sizes of 1, 2, 3 ms and so on, on a machine that takes 0.8 of its usual time.
    assert found.latency_ms == pytest.approx(3 / 0.8)


@pytest.mark.parametrize(("limit_ms", "place"), [(1.0, 0), (4.5, 3), (1000.0, len(LADDER) - 1)])
def test_the_slowest_size_inside_the_limit_is_taken(
    cache: BlockCache, tmp_path: Path, limit_ms: float, place: int
) -> None:
    asked: list[str] = []
    found = plan(cache, tmp_path / "one", limit_ms, asked)
    assert (found.width, found.depth) == (LADDER[place].width, LADDER[place].depth)
    assert found.latency_ms == 1.0 + place <= limit_ms
    assert len(asked) == len(LADDER)
    # Settled once: a killed training goes on with the same network, whatever would be measured now.
    assert plan(cache, tmp_path / "one", limit_ms, asked) == found
    assert len(asked) == len(LADDER)


def test_a_limit_below_every_size_is_refused_with_the_fastest(cache: BlockCache, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the smallest mobilenetv2 takes 1 ms, above 0.5 ms; give a larger"):
        plan(cache, tmp_path / "none", 0.5, [])
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_a_time_is_turned_into_steps_of_that_network(cache: BlockCache, tmp_path: Path) -> None:
    small, large = LADDER[0].spec, LADDER[-1].spec
    assert steps_within(20.0, small, few_digits(), CONFIG) > 2 * steps_within(20.0, large, few_digits(), CONFIG)
    found = plan(cache, tmp_path / "timed", 3.0, [], seconds=5.0)
    assert found.config.steps != CONFIG.steps
    assert found.config == CONFIG.lasting(found.config.steps)


def test_a_baseline_is_trained_evaluated_and_kept(cache: BlockCache, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    found = plan(cache, folder, 3.0, [])
    result = train_baseline(found, few_digits(), directory=folder)
    spec = PRESET.network(image_input(few_digits()), width=found.width, depth=found.depth)
    assert (result.plan, result.params, result.macs) == (found, spec.params(), spec.macs())
    assert result.images_seen == 30 * 16
    assert result.validation_images == 60
    assert result.validation_accuracy > 0.3  # chance is a tenth
    assert result.seconds > 0
    assert not (folder / "checkpoint.pt").exists()
    again = train_baseline(
        found, few_digits(), directory=folder, progress=lambda done, total: pytest.fail("trained again")
    )
    assert again == result
    assert isinstance(again, Baseline)


def test_a_training_that_was_stopped_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 25:
            raise StopError

    def train(name: str, **options: object) -> Network:
        network, _ = train_network(LADDER[0].spec, few_digits(), CONFIG, checkpoint=tmp_path / name, **options)  # type: ignore[arg-type]
        return network

    whole = train("whole")
    with pytest.raises(StopError):
        train("parts", progress=stop)
    steps: list[int] = []
    resumed = train("parts", progress=lambda done, total: steps.append(done))
    assert steps[0] == 20
    assert same_state(state_of(whole), state_of(resumed))
    with pytest.raises(InputError, match="belongs to a training with other settings"):
        train_network(LADDER[1].spec, few_digits(), CONFIG, checkpoint=tmp_path / "parts")


# The command


def test_what_cannot_be_compared_is_refused(trained_run: Path, measured_run: Path, searched_run: Path) -> None:
    for run, missing in ((trained_run, "build-lut --device cpu"), (measured_run, "search --budget-ms 50%")):
        assert f"run `nas {missing} --run {run}` first" in refusal(nas_here("baseline", "--run", run))
    for words, expected in (
        (("--preset", "convnex"), "did you mean 'convnext'"),
        (("--steps", "3", "--seconds", "3"), "not both"),
        (("--budget-ms", "x"), "not a number"),
        (("--seconds", "nan"), "Invalid value for '--seconds'"),
        (("--seconds", "inf"), "seconds must be a positive number, got inf"),
        (("--accelerator", "tpu"), "unknown accelerator"),
        (("--device", "cpu:threads=2"), "run `nas build-lut --device cpu:threads=2"),
    ):
        assert expected in refusal(nas_here("baseline", "--run", searched_run, *words))


@pytest.mark.device
@pytest.mark.slow
def test_hand_made_networks_stand_beside_the_best_of_the_front(searched_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(searched_run, tmp_path / "run")
    words = ("baseline", "--run", run, "--preset", "hybrid", "--budget-ms", "50%", "--steps", "2")
    value = succeed(nas_here(*words, "--json")).json
    (result,) = value["baselines"]
    assert result["plan"]["preset"] == "hybrid"
    assert result["plan"]["latency_ms"] <= result["plan"]["limit_ms"]
    assert value["best"]["id"] == Run.existing(run, first="nas train").front().best.id
    assert value["supernet_images_seen"] == 12 * 32
    text = succeed(nas_here(*words)).stdout  # from what is kept
    assert value["best"]["id"] in text
    points = 100 * (value["best"]["validation_accuracy"] - result["validation_accuracy"])
    assert f"Searched against hybrid: {points:+.1f} ± " in text


@pytest.mark.parametrize(
    ("of_searched", "verdict"),
    [(0.9, "+20.0 ± 1.4 points (a win)"), (0.5, "-20.0 ± 1.4 points (a loss)"), (0.71, "within two standard errors")],
)
def test_a_loss_is_printed_like_a_win(
    cache: BlockCache, tmp_path: Path, capsys: pytest.CaptureFixture[str], of_searched: float, verdict: str
) -> None:
    result = Baseline(
        format_version=Baseline.CURRENT_VERSION,
        plan=plan(cache, tmp_path / "plan", 3.0, []),
        params=1000,
        macs=10_000,
        validation_accuracy=0.7,
        validation_standard_error=0.01,
        validation_images=60,
        images_seen=480,
        seconds=1.0,
    )
    best = Candidate(
        id="0a1b2c3d4e",
        genes=(0,),
        validation_accuracy=of_searched,
        validation_standard_error=0.01,
        predicted_latency_ms=2.0,
        measured_latency_ms=2.0,
        params=1000,
        macs=10_000,
    )
    record = TrainingRecord(
        format_version=TrainingRecord.CURRENT_VERSION,
        config=CONFIG,
        space_hash="5bace",
        data_hash="da7a",
        weights_sha256="5eed",
        final_loss=1.0,
        seconds=60.0,
        torch_version="2",
    )
    present.baselines(Run.open(tmp_path / "run"), [result], best, record, few_digits(), as_json=False)
    assert verdict in capsys.readouterr().out
