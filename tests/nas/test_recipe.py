"""What a training is made of: its settings, losses, gradients, averages, log, alarms and checkpoints."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import math
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from nas.fitting import StepOutcome, fit, networks_per_image
from nas.optimization import averaged, forward_precision, learning_rate, optimizer_of
from nas.supernet import DropPath, Supernet
from nas.training import train_supernet
from nas.training_log import COLUMNS, ChanceWatch, TrainingLog
from nas.training_record import TrainingConfig, TrainingRecord, training_config
from search_spaces.catalogue import SPACES, usual_training
from search_spaces.documents import content_hash
from search_spaces.errors import CheckError, InputError, MachineError
from search_spaces.tiny import tiny
from tests.nas.torch_helpers import few_digits, one_thread, same_state, state_of
from tests.source_tree import ROOT

SPACE = tiny(channels=1, classes=10)
SHORT = TrainingConfig(steps=3, batch_size=8, warmup_steps=1, sandwich=True, random_subnets=2)
RICH = {
    "sandwich": True,
    "random_subnets": 3,
    "sampling": "balanced",
    "shrinking": ["kernel", "depth"],
    "split_batch": True,
    "optimizer": "sgd",
    "schedule": "one-cycle",
    "divergence": "alpha",
    "projection_from": 0.5,
    "drop_path": 0.2,
    "flip": True,
    "shift": 0.1,
    "zoom": 0.1,
    "colour": 0.1,
    "erase": 0.2,
    "ema_decay": 0.9,
    "recompute": True,
    "peak_learning_rate": 0.05,
}
"""Everything that is not the default."""


@pytest.fixture(scope="module", autouse=True)
def single_threaded() -> Iterator[None]:
    with one_thread():
        yield


def train(directory: Path, config: TrainingConfig = SHORT, **options: Any) -> TrainingRecord:
    return train_supernet(SPACE, few_digits(), config, directory=directory, **options)


# Settings


def test_settings_come_from_a_file_and_options_come_before_it(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('steps = 1000\npeak_learning_rate = 1\noptimizer = "sgd"\nmomentum = 0.8\n')
    found = training_config(path, {"steps": 20, "seed": 3})
    assert found == TrainingConfig(
        steps=20, warmup_steps=2, seed=3, peak_learning_rate=1.0, optimizer="sgd", momentum=0.8
    )
    assert training_config(None, {}) == TrainingConfig()


def test_what_a_space_has_of_its_own_comes_last(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("steps = 1000\n")
    own = {"batch_size": 64, "steps": 4200, "gradient_norm": 2.0}
    found = training_config(path, {"batch_size": 8}, own)
    assert found == TrainingConfig(steps=1000, batch_size=8, warmup_steps=100, gradient_norm=2.0)


def test_a_warm_up_is_a_tenth_of_the_steps_and_stays_in_proportion() -> None:
    assert training_config(None, {"steps": 12}) == TrainingConfig(steps=12, warmup_steps=1)
    assert training_config(None, {"steps": 12, "warmup_steps": 5}).warmup_steps == 5
    assert TrainingConfig(steps=50, warmup_steps=10, seed=3).lasting(20) == TrainingConfig(
        steps=20, warmup_steps=4, seed=3
    )


@pytest.mark.parametrize("name", SPACES)
def test_a_named_space_trains_as_documented(name: str) -> None:
    settings = training_config(None, {}, usual_training(f"{name}:width=1.0")).chosen
    told = [f"`{key}` {value}" for key, value in settings.items()]
    (row,) = re.findall(rf"^\| `{name}` \| (.*?) \|", (ROOT / "docs" / "training.md").read_text(), re.MULTILINE)
    assert row == (", ".join(told) or "as above")


def test_a_space_from_a_file_trains_as_usual() -> None:
    assert training_config(None, {}, usual_training("cifar.toml")) == TrainingConfig()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("steps = 0", "steps must be at least 1, got 0"),
        ("batch_size = -1", "batch_size must be at least 1, got -1"),
        ("random_subnets = -1", "random_subnets must be at least 0"),
        ("peak_learning_rate = 0", "peak_learning_rate must be above 0"),
        ("distillation = 1.5", "distillation must be from 0 to 1, got 1.5"),
        ("ema_decay = 1.0", "ema_decay must be at least 0 and below 1"),
        ("drop_path = nan", "drop_path: .* finite"),
        ('steps = "many"', "steps: Input should be a valid integer"),
        ("steps = 1.5", "steps: Input should be a valid integer"),
        ("steps = true", "steps: Input should be a valid integer"),
        ('optimizer = "adam"', "optimizer: Input should be 'adamw' or 'sgd'"),
        ("learning_rate = 0.1", "unknown training setting 'learning_rate'; did you mean 'peak_learning_rate'"),
        ("steps = 2026-01-01", "no dates"),
        ("[steps]\nmany = 1", "steps: Input should be a valid integer"),
        ("sandwich = false\nrandom_subnets = 0", "random_subnets must be at least 1, got 0"),
        (
            "sandwich = false\ndrop_path = 0.1",
            "drop_path = 0.1 needs a step's largest subnet, .* set sandwich = true, or leave drop_path at 0.0",
        ),
        (
            "sandwich = false\nprojection_from = 0.5",
            "projection_from = 0.5 needs a step's largest subnet, .* or leave projection_from at 1.0",
        ),
        (
            "sandwich = false\ndistillation = 1",
            "distillation = 1.0 needs a step's largest subnet, .* or leave distillation at 0.5",
        ),
        ('shrinking = ["depth", "depth"]', "shrinking names a kind of size twice: depth, depth"),
        ('shrinking = "depth"', "shrinking: Input should be a valid"),
        (f"seed = 0x{'f' * 5000}", "of a sensible size"),
        (f"seed = {2**65}", "seed"),
        ("steps = \n", "not valid TOML: .*line 1"),
    ],
)
def test_settings_of_no_use_are_refused_in_one_line(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=complaint) as refusal:
        training_config(path, {})
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_file_of_settings_that_is_absent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no file .*; --config takes a TOML file"):
        training_config(tmp_path / "absent.toml", {})


def test_every_setting_is_documented_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \|", (ROOT / "docs" / "training.md").read_text(), re.MULTILINE)
    defaults = json.loads(json.dumps(dataclasses.asdict(TrainingConfig())))
    assert [(name, json.loads(value)) for name, value in rows] == list(defaults.items())


def test_trainings_are_told_apart_by_settings_that_are_not_the_default() -> None:
    assert TrainingConfig().chosen == {}
    assert TrainingConfig(steps=3, shrinking=("depth",)).chosen == {"steps": 3, "shrinking": ("depth",)}


DEFAULTS_HASH = "9d28ed9b66305bdc"


def test_other_defaults_are_another_training() -> None:
    # Who adds a setting takes the new hash; who changes a default first raises `_DEFAULTS` of nas/training_record.py.
    assert content_hash([TrainingConfig(), TrainingConfig().identity]) == DEFAULTS_HASH


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({}, 1),
        ({"random_subnets": 3}, 3),
        ({"random_subnets": 8, "split_batch": True}, 1),
        ({"sandwich": True, "random_subnets": 2}, 4),
        ({"sandwich": True, "random_subnets": 0}, 2),
        ({"sandwich": True, "random_subnets": 8, "split_batch": True}, 3),
    ],
)
def test_how_many_networks_see_an_image(settings: dict[str, Any], count: int) -> None:
    assert networks_per_image(TrainingConfig(**settings)) == count


# Schedule, optimiser, averages, arithmetic


@pytest.mark.parametrize(("steps", "warmup_steps"), [(50, 10), (7, 2), (100, 30)])
def test_one_cycle_is_that_of_torch(steps: int, warmup_steps: int) -> None:
    config = TrainingConfig(steps=steps, warmup_steps=warmup_steps, schedule="one-cycle", peak_learning_rate=0.3)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.3, total_steps=steps, pct_start=warmup_steps / steps, cycle_momentum=False
    )
    for step in range(steps):
        assert learning_rate(config, step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        if step < steps - 1:
            theirs.step()


@pytest.mark.parametrize(("steps", "warmup_steps"), [(1, 0), (1, 20), (5, 5), (3, 20), (20, 0)])
def test_every_step_of_a_short_cycle_has_a_rate_inside_the_peak(steps: int, warmup_steps: int) -> None:
    config = TrainingConfig(steps=steps, warmup_steps=warmup_steps, schedule="one-cycle")
    assert all(0 < learning_rate(config, step) <= config.peak_learning_rate for step in range(steps))


def test_sgd_has_the_momentum_that_was_asked_for() -> None:
    module = nn.Linear(3, 2)
    for momentum in (0.0, 0.7):
        optimizer = optimizer_of(module, TrainingConfig(optimizer="sgd", momentum=momentum, weight_decay=0.1))
        assert isinstance(optimizer, torch.optim.SGD)
        assert [(group["momentum"], group["weight_decay"]) for group in optimizer.param_groups] == [
            (momentum, 0.1),
            (momentum, 0.0),
        ]


def test_the_average_follows_its_formula_and_forgets_the_first_weights() -> None:
    module = nn.Linear(1, 1, bias=False)
    mean = averaged(module, 0.9)
    values = [100.0, *range(60)]
    expected = math.nan
    for count, value in enumerate(values):
        with torch.no_grad():
            module.weight.fill_(value)
        mean.update_parameters(module)
        decay = min(0.9, (1 + count) / (10 + count))
        expected = value if count == 0 else decay * expected + (1 - decay) * value
    assert state_of(mean.module)["weight"].item() == pytest.approx(expected, rel=1e-5)
    assert abs(expected - 50) < 3, "the mean lags ten steps behind, and nothing is left of the first value"


def test_a_training_with_an_average_ends_with_it(tmp_path: Path) -> None:
    train(tmp_path / "last")
    train(tmp_path / "mean", dataclasses.replace(SHORT, ema_decay=0.999))
    train(tmp_path / "none", dataclasses.replace(SHORT, ema_decay=1e-9))
    last, mean, none = (load_file(tmp_path / name / "weights.safetensors") for name in ("last", "mean", "none"))
    assert same_state(last, none)
    fresh = state_of(Supernet(SPACE, seed=0))
    name = "slots.head.head.classify.weight"
    assert (mean[name] - fresh[name]).abs().mean() < (last[name] - fresh[name]).abs().mean()
    statistics = "slots.stem.stem.norm.running_mean"
    assert torch.equal(mean[statistics], last[statistics]), "batch norm's statistics are the last ones"


def test_arithmetic_is_bf16_where_it_is_asked_for_or_on_cuda() -> None:
    product = torch.ones(2, 2), torch.ones(2, 2)
    for arithmetic, expected in (("auto", torch.float32), ("fp32", torch.float32), ("bf16", torch.bfloat16)):
        config = training_config(None, {"arithmetic": arithmetic})
        with forward_precision(config, torch.device("cpu")):
            assert (product[0] @ product[1]).dtype == expected
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of CUDA that is absent
        context = forward_precision(TrainingConfig(), torch.device("cuda"))
    assert isinstance(context, torch.autocast)
    assert context.fast_dtype == torch.bfloat16


# Drop path


def test_drop_path_is_right_in_the_mean_and_drops_whole_images() -> None:
    before, after = torch.zeros(4000, 2, 1, 1), torch.ones(4000, 2, 1, 1)
    out = DropPath(0.4, torch.Generator().manual_seed(0))(before, after, 0.5)
    assert set(np.unique(out.numpy()).round(6)) == {0.0, np.float32(1.25).round(6)}
    assert torch.equal(out[:, 0], out[:, 1])
    assert float(out.mean()) == pytest.approx(1.0, abs=0.03)
    first = DropPath(0.4, torch.Generator().manual_seed(0))(before, after, 0.0)
    assert torch.equal(first, after), "the first block is never left out"


def test_drop_path_reaches_the_blocks_of_a_supernet() -> None:
    supernet = Supernet(SPACE, seed=0).eval()
    spec = SPACE.lower(SPACE.resize(SPACE.sample(1, np.random.default_rng(0)), largest=True)[0])
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(2, 1, 24, 24, generator=rng)
    with torch.no_grad():
        plain = supernet(images, spec)
        almost_none = supernet(images, spec, DropPath(1e-9, rng))
        most = supernet(images, spec, DropPath(1 - 1e-9, rng))
    torch.testing.assert_close(plain, almost_none)
    assert not torch.allclose(plain, most)
    assert torch.isfinite(most).all()


# Log and alarms


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_step_is_in_the_log(tmp_path: Path) -> None:
    train(tmp_path)
    rows = rows_of(tmp_path / "training.csv")
    assert tuple(rows[0]) == COLUMNS
    assert [int(row["step"]) for row in rows] == [0, 1, 2]
    for row in rows:
        assert all(math.isfinite(float(value)) for value in row.values())
        assert 0 <= float(row["accuracy"]) <= 1
        assert 0 <= float(row["smallest_accuracy"]) <= 1
        assert float(row["learning_rate"]) == pytest.approx(learning_rate(SHORT, int(row["step"])), rel=1e-6)
    assert all(float(a["seconds"]) < float(b["seconds"]) for a, b in itertools.pairwise(rows))
    assert float(rows[0]["loss"]) == pytest.approx(math.log(10), rel=0.5)


def test_a_training_without_a_sandwich_tells_of_no_smallest_subnet(tmp_path: Path) -> None:
    config = dataclasses.replace(SHORT, sandwich=False, random_subnets=1, ema_decay=0.9)
    assert train(tmp_path, config).config == config
    rows = rows_of(tmp_path / "training.csv")
    assert [(row["smallest_loss"], row["smallest_accuracy"]) for row in rows] == [("", "")] * 3
    assert all(float(row["loss"]) > 0 and 0 <= float(row["accuracy"]) <= 1 for row in rows)


def test_the_log_of_a_training_that_diverged_reaches_to_its_end(tmp_path: Path) -> None:
    with pytest.raises(CheckError, match=r"diverged at step \d+"):
        train(tmp_path, dataclasses.replace(SHORT, steps=15, peak_learning_rate=1e12, warmup_steps=0))
    assert rows_of(tmp_path / "training.csv")


def test_a_log_goes_on_at_the_step_of_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "training.csv"
    log = TrainingLog(path, 0)
    for step in range(4):
        log.add({"step": step, "loss": 0.25})
    log.write()
    whole = path.read_text()
    path.write_text(whole + "4,0.1")  # torn by a kill
    again = TrainingLog(path, 2)
    for step in range(2, 4):
        again.add({"step": step, "loss": 0.25})
    again.write()
    assert path.read_text() == whole
    TrainingLog(path, 0).write()
    assert path.read_text() == ",".join(COLUMNS) + "\n"


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_tensorboard_is_told_what_the_log_is_told(tmp_path: Path) -> None:
    train(tmp_path, tensorboard=True)
    for name in ("loss", "smallest_accuracy"):
        logged = [(int(row["step"]), float(row[name])) for row in rows_of(tmp_path / "training.csv")]
        assert scalars(tmp_path / "tensorboard", name) == [pytest.approx(row, rel=1e-5) for row in logged]


def test_tensorboard_forgets_steps_that_are_done_again(tmp_path: Path) -> None:
    for first, value in ((0, 1.0), (2, 2.0)):
        log = TrainingLog(None, first, tmp_path)
        for step in range(first, 4):
            log.add({"step": step, "loss": value})
        log.write()
    assert scalars(tmp_path, "loss") == [(0, 1.0), (1, 1.0), (2, 2.0), (3, 2.0)]


def test_without_tensorboard_a_training_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match="pip install tensorboard"):
        train(tmp_path, tensorboard=True)


def test_a_smallest_subnet_that_guesses_is_told_once_and_not_before_the_warm_up() -> None:
    labels = np.repeat(np.arange(10), [30, *[10] * 9])
    watch = ChanceWatch("the smallest subnet", labels, batch_size=16, warmup_steps=50)
    told = [step for step in range(500) if watch.guesses(step, 0.25)]
    assert told == [149]
    assert "at step 149 the smallest subnet still guesses: 25.0%" in watch.complaint(149)
    assert "25.0% are of the most frequent class" in watch.complaint(149)
    learning = ChanceWatch("the smallest subnet", labels, batch_size=16, warmup_steps=50)
    assert not any(learning.guesses(step, 0.32) for step in range(500))


@pytest.mark.parametrize("smallest", [None, torch.tensor(0.0)])
def test_a_training_tells_of_networks_that_guess(smallest: Tensor | None, tmp_path: Path) -> None:
    def backward(step: int, images: Tensor, labels: Tensor) -> StepOutcome:
        right = torch.tensor(0.9 if smallest is not None else 0.1)
        return StepOutcome(torch.tensor(1.0), right, smallest, smallest)

    notices: list[str] = []
    fit_one(backward, tmp_path, dataclasses.replace(SHORT, steps=130), notice=notices.append)
    whom = "what is trained" if smallest is None else "the smallest subnet"
    assert [f"at step 100 {whom} still guesses" in each for each in notices] == [True]


def test_gradients_above_the_norm_are_scaled_down(tmp_path: Path) -> None:
    module = nn.Linear(1, 1)
    before = [parameter.detach().clone() for parameter in module.parameters()]

    def backward(step: int, images: Tensor, labels: Tensor) -> StepOutcome:
        module.weight.grad, module.bias.grad = torch.full((1, 1), 300.0), torch.full((1,), -400.0)
        return StepOutcome(torch.tensor(1.0), torch.tensor(1.0))

    config = TrainingConfig(
        steps=1,
        warmup_steps=0,
        optimizer="sgd",
        momentum=0.0,
        weight_decay=0.0,
        peak_learning_rate=0.1,
        gradient_norm=2.0,
    )
    fit(module, backward, few_digits(), config, checkpoint=tmp_path / "c.pt", identity="it")
    moved = [float(parameter.detach() - old) for parameter, old in zip(module.parameters(), before, strict=True)]
    assert moved == pytest.approx([-0.1 * 2.0 * 0.6, 0.1 * 2.0 * 0.8])


def fit_one(backward: Any, tmp_path: Path, config: TrainingConfig = SHORT, **options: Any) -> None:
    module = nn.Linear(1, 1)
    fit(module, backward, few_digits(), config, checkpoint=tmp_path / "c.pt", identity="it", **options)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA"), MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_memory_that_is_short_suggests_a_smaller_batch(error: BaseException, tmp_path: Path) -> None:
    def backward(step: int, images: Tensor, labels: Tensor) -> StepOutcome:
        raise error

    with pytest.raises(MachineError, match="does not suffice for 8 images per step; try --batch-size 4"):
        fit_one(backward, tmp_path)


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    def backward(step: int, images: Tensor, labels: Tensor) -> StepOutcome:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        fit_one(backward, tmp_path)
