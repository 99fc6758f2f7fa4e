"""True accuracy: on the validation split alone, each value once, whatever was evaluated before."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from nas.data import ImageData, ImageSplit, SplitName
from nas.evaluate import BATCH_SIZE, CALIBRATION_IMAGES, SubnetEvaluator, accuracy
from nas.ledger import Ledger
from nas.supernet import Supernet, extract
from predictors.quality import standard_error
from search_spaces.errors import CheckError
from search_spaces.space import Genomes
from search_spaces.tiny import tiny
from tests.nas.torch_helpers import few_digits, one_thread, same_state, scramble, state_of

SPACE = tiny(channels=1, classes=10)
NAME = "accuracy:5eed:validation:fp32"


class GuardedSplits(dict[SplitName, ImageSplit]):
    """Splits of which only some may be read; the test fails at the first other one."""

    def __init__(self, data: ImageData, *allowed: SplitName) -> None:
        super().__init__(data.splits)
        self.allowed = set(allowed)

    def __getitem__(self, name: SplitName) -> ImageSplit:
        if name not in self.allowed:
            pytest.fail(f"the {name} split was read")
        return super().__getitem__(name)


@pytest.fixture(scope="module", autouse=True)
def single_threaded() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def supernet() -> Supernet:
    """Weights whose subnets answer differently; for reading only."""
    model = Supernet(SPACE, seed=0)
    scramble(model, seed=1)
    return model.eval()


@pytest.fixture(scope="module")
def genomes() -> Genomes:
    return SPACE.sample(4, np.random.default_rng(0))


def evaluator_of(supernet: Supernet, folder: Path, data: ImageData | None = None) -> SubnetEvaluator:
    return SubnetEvaluator(SPACE, supernet, "5eed", data or few_digits(), Ledger(folder / "ledger.db"))


def with_split(name: SplitName, split: ImageSplit) -> ImageData:
    return dataclasses.replace(few_digits(), splits={**few_digits().splits, name: split})


def test_values_are_counted_on_the_validation_split_and_no_other_is_read(
    supernet: Supernet, genomes: Genomes, tmp_path: Path
) -> None:
    splits = GuardedSplits(few_digits(), "train", "validation")
    data = dataclasses.replace(few_digits(), splits=splits)
    evaluator = evaluator_of(supernet, tmp_path, data)
    splits.allowed = {"validation"}  # the images for calibration are chosen once
    values = evaluator.evaluate(genomes)
    split = few_digits().split("validation")
    images = torch.from_numpy(data.normalise(split.images))
    for genome, value in zip(genomes, values, strict=True):
        with torch.no_grad():
            answers = evaluator.calibrated(SPACE.lower(genome))(images).argmax(dim=1).numpy()
        assert value == (answers == split.labels).sum() / len(split.labels)
    assert len(set(values)) > 1
    assert evaluator.validation_images == len(split.labels)


def test_other_validation_labels_give_other_values(supernet: Supernet, genomes: Genomes, tmp_path: Path) -> None:
    split = few_digits().split("validation")
    rolled = with_split("validation", ImageSplit(split.images, np.roll(split.labels, 1)))
    (tmp_path / "other").mkdir()
    values = evaluator_of(supernet, tmp_path).evaluate(genomes)
    assert (evaluator_of(supernet, tmp_path / "other", rolled).evaluate(genomes) != values).any()


def test_calibration_uses_the_training_split_and_the_same_images_for_every_subnet(
    supernet: Supernet, genomes: Genomes, tmp_path: Path
) -> None:
    train = few_digits().split("train")
    darker = with_split("train", ImageSplit(train.images // 3, train.labels))
    spec = SPACE.lower(genomes[0])
    first, again = (evaluator_of(supernet, tmp_path).calibrated(spec) for _ in range(2))
    assert same_state(state_of(first), state_of(again))
    other = evaluator_of(supernet, tmp_path, darker).calibrated(spec)
    assert not same_state(state_of(first), state_of(other))
    norm = first.get_submodule("blocks.stem.norm")
    assert 0 < int(norm.get_buffer("num_batches_tracked")) <= CALIBRATION_IMAGES


def test_every_calibration_image_has_the_same_weight(supernet: Supernet, genomes: Genomes, tmp_path: Path) -> None:
    # Statistics are averaged over batches: a last batch of two images must not count as much as one of 128.
    train = few_digits().split("train")
    images = train.images[:130]
    spec = SPACE.lower(genomes[0])
    network = evaluator_of(supernet, tmp_path, with_split("train", ImageSplit(images, train.labels[:130]))).calibrated(
        spec
    )
    with torch.no_grad():
        features = network.get_submodule("blocks.stem.conv")(torch.from_numpy(few_digits().normalise(images)))
    mean = network.get_submodule("blocks.stem.norm").get_buffer("running_mean")
    torch.testing.assert_close(mean, features.mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-5)


def test_recalibration_is_what_makes_subnets_comparable(supernet: Supernet, genomes: Genomes, tmp_path: Path) -> None:
    spec = SPACE.lower(genomes[0])
    before, after = state_of(extract(supernet, spec)), state_of(evaluator_of(supernet, tmp_path).calibrated(spec))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.endswith(("running_mean", "running_var", "num_batches_tracked")) for name in changed)


def test_the_order_of_evaluation_does_not_change_values_and_the_supernet_stays_as_it_is(
    supernet: Supernet, genomes: Genomes, tmp_path: Path
) -> None:
    before = state_of(supernet)
    results: list[dict[bytes, float]] = []
    for number, rows in enumerate((genomes, genomes[::-1], genomes[[2]])):
        (tmp_path / str(number)).mkdir()
        values = evaluator_of(supernet, tmp_path / str(number)).evaluate(rows)
        results.append({row.tobytes(): value for row, value in zip(rows, values.tolist(), strict=True)})
    assert results[0] == results[1]
    assert results[2].items() <= results[0].items()
    assert same_state(state_of(supernet), before)
    assert not supernet.training


def test_the_calibrated_supernet_is_a_copy_that_answers_like_the_calibrated_network(
    supernet: Supernet, genomes: Genomes, tmp_path: Path
) -> None:
    before = state_of(supernet)
    evaluator, spec = evaluator_of(supernet, tmp_path), SPACE.lower(genomes[1])
    x = torch.from_numpy(few_digits().normalise(few_digits().split("validation").images[:8]))
    with torch.no_grad():
        inside, alone = evaluator.calibrated_supernet(spec)(x, spec), evaluator.calibrated(spec)(x)
    torch.testing.assert_close(inside, alone, rtol=0, atol=1e-4)
    assert same_state(state_of(supernet), before)


def test_the_ledger_keeps_every_value_and_no_network_runs_twice(
    supernet: Supernet, genomes: Genomes, tmp_path: Path
) -> None:
    evaluator = evaluator_of(supernet, tmp_path)
    told: list[tuple[int, int]] = []
    values = evaluator.evaluate(genomes[[0, 1, 0]], progress=lambda *each: told.append(each))
    assert told == [(0, 3), (2, 3), (3, 3)]  # the first stands twice
    assert values[0] == values[2]
    ledger = Ledger(tmp_path / "ledger.db")
    rows = [(row.genes, row.value) for row in ledger.rows(NAME, SPACE.hash)]
    assert rows == [(tuple(genomes[i].tolist()), values[i]) for i in range(2)]
    assert evaluator.known() == dict(rows)
    # Weights that cannot be evaluated, under the same name: only what the ledger lacks is run.
    broken = Supernet(SPACE, seed=0)
    fill(broken, math.nan)
    again = evaluator_of(broken, tmp_path)
    np.testing.assert_array_equal(again.evaluate(genomes[[1, 0]]), values[[1, 0]])
    with pytest.raises(CheckError):
        again.evaluate(genomes[[0, 2]])
    assert ledger.count(NAME) == 2


def test_values_of_other_weights_are_not_taken_for_these(supernet: Supernet, genomes: Genomes, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.record("accuracy:0ther:validation:fp32", SPACE.hash, tuple(genomes[0].tolist()), 0.987)
    ledger.record("accuracy:5eed:test:fp32", SPACE.hash, tuple(genomes[0].tolist()), 0.987)
    evaluator = SubnetEvaluator(SPACE, supernet, "5eed", few_digits(), ledger)
    assert evaluator.known() == {}
    assert evaluator.evaluate(genomes[:1])[0] != 0.987
    assert evaluator.ledger_name("validation") == NAME


@torch.no_grad()
def fill(model: Supernet, value: float) -> None:
    for parameter in model.parameters():
        parameter.fill_(value)


@pytest.mark.parametrize("label", [0, 7])
def test_a_network_that_always_gives_one_answer_scores_the_share_of_that_class(
    genomes: Genomes, tmp_path: Path, label: int
) -> None:
    model = Supernet(SPACE, seed=0)
    with torch.no_grad():
        model.get_parameter("slots.head.head.classify.weight").zero_()
        model.get_parameter("slots.head.head.classify.bias").copy_(torch.eye(10)[label])
    labels = few_digits().split("validation").labels
    share = (labels == label).mean()
    assert 0 < share < 1
    assert evaluator_of(model, tmp_path).evaluate(genomes[:2]).tolist() == [share, share]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_no_result(genomes: Genomes, tmp_path: Path, value: float) -> None:
    model = Supernet(SPACE, seed=0)
    with torch.no_grad():
        model.get_parameter("slots.head.head.classify.bias")[3] = value
    with pytest.raises(CheckError, match="not finite"):
        evaluator_of(model, tmp_path).evaluate(genomes[:1])
    assert Ledger(tmp_path / "ledger.db").count(NAME) == 0


@pytest.mark.parametrize("count", [1, BATCH_SIZE, BATCH_SIZE + 1, 2 * BATCH_SIZE + 17])
def test_every_image_counts_once_also_beyond_one_batch(count: int) -> None:
    labels = torch.arange(count) % 3
    images = labels.float()[:, None]

    def model(batch: Tensor) -> Tensor:
        assert len(batch) <= BATCH_SIZE
        right = torch.nn.functional.one_hot(batch[:, 0].long(), 3).float()
        return torch.where(batch == 2, 1 - right, right)  # wrong on every image of class 2

    assert accuracy(model, images, labels) == int((labels != 2).sum()) / count


def test_the_standard_error_is_binomial_and_never_zero() -> None:
    assert standard_error(0.5, 96) == pytest.approx(0.05)
    assert standard_error(0.9, 360) == pytest.approx(0.0158, rel=0.02)
    # No sample is so good that nothing is uncertain.
    assert standard_error(0.0, 10) == pytest.approx(standard_error(1.0, 10))
    assert standard_error(1.0, 10) > standard_error(1.0, 1000) > 0


def test_the_summary_averages_the_ends_and_the_middle_over_every_operator(supernet: Supernet, tmp_path: Path) -> None:
    evaluator = evaluator_of(supernet, tmp_path)
    told: list[tuple[int, int]] = []
    summary = evaluator.summary(progress=lambda *each: told.append(each))
    assert told == [(done, 12) for done in range(13)]
    assert summary.images == evaluator.validation_images
    known = evaluator.known()
    genomes = np.array(list(known), dtype=np.int16)
    values = np.array(list(known.values()))
    is_end = {largest: (SPACE.resize(genomes, largest=largest) == genomes).all(axis=1) for largest in (True, False)}
    random = ~(is_end[True] | is_end[False])
    for stated, rows in ((summary.largest, is_end[True]), (summary.smallest, is_end[False]), (summary.random, random)):
        assert stated == pytest.approx(values[rows].mean())
        assert set(genomes[rows, SPACE.index("stage1.block1.operator")].tolist()) == {0, 1, 2}
    assert (is_end[True].sum(), is_end[False].sum(), random.sum()) == (3, 3, 6)
