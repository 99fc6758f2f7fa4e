"""The gradients of a training step: whose they are, how they are combined."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from nas.gradients import without_conflict
from nas.sandwich import SMALLEST, Sandwich
from nas.sandwich_step import SandwichStep
from nas.supernet import Supernet
from nas.training_record import TrainingConfig
from search_spaces.errors import InputError
from search_spaces.tiny import tiny
from tests.nas.torch_helpers import few_digits, one_thread

SPACE = tiny(channels=1, classes=10)
SHORT = TrainingConfig(steps=3, batch_size=8, warmup_steps=1, sandwich=True, random_subnets=2)


@pytest.fixture(scope="module", autouse=True)
def single_threaded() -> Iterator[None]:
    with one_thread():
        yield


vectors = st.lists(st.floats(-3, 3, width=32), min_size=3, max_size=3)


@settings(deadline=None)
@given(large=vectors, others=vectors)
def test_what_is_against_the_others_is_taken_out(large: list[float], others: list[float]) -> None:
    h, g = torch.tensor(large, dtype=torch.float64), torch.tensor(others, dtype=torch.float64)
    (found,) = without_conflict([h], [g])
    assert found is not None
    along, size = float(h @ g), float(g @ g)
    if along >= 0:
        torch.testing.assert_close(found, g + h)
    elif -along < 2 * size and size > 1e-2:
        # Only the component of h along -g is gone, so the step helps the others as if h were at a right angle.
        assert float(found @ g) == pytest.approx(size, rel=1e-3)
    elif size > 1e-2:
        torch.testing.assert_close(found, 3 * g + h, rtol=1e-3, atol=1e-3)


def test_parameters_of_one_side_keep_their_gradient() -> None:
    h, g = torch.ones(2), -torch.ones(2)
    assert without_conflict([h, None, None], [None, g, None]) == [h, g, None]


def test_projection_changes_the_training_from_its_step_on() -> None:
    def gradients(step: int, projection_from: float) -> list[Tensor | None]:
        config = dataclasses.replace(SHORT, steps=10, projection_from=projection_from)
        supernet = Supernet(SPACE, seed=0).train()
        images = torch.randn(8, 1, 24, 24, generator=torch.Generator().manual_seed(0))
        SandwichStep(supernet, SPACE, Sandwich(SPACE, seed=0), config)(step, images, torch.arange(8))
        return [each.grad for each in supernet.parameters()]

    def same(one: list[Tensor | None], other: list[Tensor | None]) -> bool:
        pairs = list(zip(one, other, strict=True))
        assert all((a is None) == (b is None) for a, b in pairs)
        return all(a is None or b is None or torch.allclose(a, b, rtol=1e-4, atol=1e-7) for a, b in pairs)

    assert same(gradients(4, 1.0), gradients(4, 0.5))
    assert not same(gradients(5, 1.0), gradients(5, 0.5))


def gradients_by_hand(supernet: Supernet, loss: Tensor) -> dict[str, Tensor | None]:
    torch.autograd.backward(loss)
    return {name: parameter.grad for name, parameter in supernet.named_parameters()}


def assert_gradients(supernet: Supernet, wanted: dict[str, Tensor | None]) -> None:
    for name, parameter in supernet.named_parameters():
        if parameter.grad is None:
            assert wanted[name] is None
        else:
            torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-4, atol=1e-6)


def eight_digits() -> tuple[Tensor, Tensor]:
    train_split = few_digits().split("train")
    return torch.from_numpy(few_digits().normalise(train_split.images[:8])), torch.from_numpy(train_split.labels[:8])


def test_random_subnets_that_share_a_batch_add_up_to_the_loop_over_its_parts() -> None:
    config = dataclasses.replace(SHORT, random_subnets=3, split_batch=True)
    images, labels = eight_digits()
    sandwich = Sandwich(SPACE, seed=0, random_subnets=3)
    supernet, again = (Supernet(SPACE, seed=0).train() for _ in range(2))
    outcome = SandwichStep(supernet, SPACE, sandwich, config)(0, images, labels)
    largest, smallest, *random = (SPACE.lower(genome) for genome in sandwich.subnets(0))
    teacher = again(images, largest)
    loss = F.cross_entropy(teacher, labels, label_smoothing=0.1)
    for spec, part in ((smallest, slice(0, 8)), *zip(random, (slice(0, 2), slice(2, 5), slice(5, 8)), strict=True)):
        logits = again(images[part], spec)
        soft = F.cross_entropy(logits, teacher[part].detach().softmax(1))
        hard = F.cross_entropy(logits, labels[part], label_smoothing=0.1)
        loss = loss + (0.5 * soft + 0.5 * hard) * (part.stop - part.start) / 8
    assert_gradients(supernet, gradients_by_hand(again, loss))
    assert float(outcome.correct) == float((teacher.argmax(dim=1) == labels).float().mean())


@pytest.mark.parametrize("split_batch", [False, True], ids=["all images", "parts"])
@pytest.mark.parametrize("taught", [False, True], ids=["labels", "teacher"])
def test_without_a_sandwich_random_subnets_learn_from_labels_and_an_external_teacher(
    *, split_batch: bool, taught: bool
) -> None:
    config = dataclasses.replace(SHORT, sandwich=False, random_subnets=2, split_batch=split_batch, teacher_share=0.3)
    images, labels = eight_digits()
    answers = torch.rand(8, 10, generator=torch.Generator().manual_seed(1)).softmax(dim=1)
    sandwich = Sandwich.of(SPACE, config)
    supernet, again = (Supernet(SPACE, seed=0).train() for _ in range(2))
    step = SandwichStep(supernet, SPACE, sandwich, config, taught=(lambda _: answers) if taught else None)
    outcome = step(4, images, labels)
    parts = (slice(0, 4), slice(4, 8)) if split_batch else (slice(0, 8), slice(0, 8))
    hard, right, total = [], [], torch.zeros(())
    for genome, part in zip(sandwich.subnets(4)[SMALLEST + 1 :], parts, strict=True):
        logits = again(images[part], SPACE.lower(genome))
        hard.append(F.cross_entropy(logits, labels[part], label_smoothing=0.1))
        loss = 0.3 * F.cross_entropy(logits, answers[part]) + 0.7 * hard[-1] if taught else hard[-1]
        right.append(float((logits.argmax(dim=1) == labels[part]).float().mean()))
        total = total + loss * (0.5 if split_batch else 1.0)
    assert_gradients(supernet, gradients_by_hand(again, total))
    # What is told is the labels' loss.
    torch.testing.assert_close(outcome.loss, torch.stack(hard).mean().detach())
    assert outcome.smallest_loss is outcome.smallest_correct is None
    assert float(outcome.correct) == pytest.approx(np.mean(right))


def test_a_part_of_fewer_than_two_images_is_refused() -> None:
    config = dataclasses.replace(SHORT, split_batch=True, random_subnets=5)
    step = SandwichStep(Supernet(SPACE, seed=0), SPACE, Sandwich.of(SPACE, config), config)
    with pytest.raises(InputError, match="split_batch needs two images for each of 5 random subnets, a step has 8"):
        step(0, *eight_digits())
