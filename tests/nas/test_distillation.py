"""Losses by which the largest subnet teaches the others have the gradients of the divergences they stand for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from nas.distillation import adaptive_alpha_divergence, soft_cross_entropy

logits = st.lists(st.lists(st.floats(-6, 6), min_size=4, max_size=4), min_size=1, max_size=5)


def gradient(loss: Tensor, at: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, at)
    return found


@settings(deadline=None)
@given(student=logits, seed=st.integers(0, 2**31))
def test_kl_has_the_gradient_of_the_divergence(student: list[list[float]], seed: int) -> None:
    at = torch.tensor(student, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(at.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    divergence = F.kl_div(at.log_softmax(1), teacher.log_softmax(1), reduction="batchmean", log_target=True)
    torch.testing.assert_close(gradient(soft_cross_entropy(at, teacher), at), gradient(divergence, at))


@settings(deadline=None)
@given(student=logits, seed=st.integers(0, 2**31), scale=st.sampled_from([0.1, 1.0, 4.0]))
def test_alpha_has_the_gradient_of_the_larger_divergence(student: list[list[float]], seed: int, scale: float) -> None:
    at = torch.tensor(student, dtype=torch.float64, requires_grad=True)
    teacher = scale * torch.randn(at.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = gradient(adaptive_alpha_divergence(at, teacher), at)
    p, q = teacher.softmax(1), at.softmax(1)
    # The definition, image by image; an importance weight above 5 becomes 5, which leaves 5 q of q squared by 2 p.
    held = (q / p).detach() > 5
    reverse_terms = torch.where(held, 5.0 * q, 0.5 * q * q / p)
    compared = (q * ((q / p).clamp(max=5) - 1) / 2).sum(1)
    forward = (p * (p / q).log()).sum(1)
    expected = gradient(torch.where(compared > forward, reverse_terms.sum(1), forward).mean(), at)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_alpha_punishes_a_student_that_sees_what_the_teacher_does_not() -> None:
    # A teacher of two answers, a student that is sure of a third: KL hardly tells students apart by the third's size.
    teacher = torch.tensor([[4.0, 4.0, -4.0, -4.0]])
    spread = torch.tensor([[3.0, 3.0, 3.0, -4.0]], requires_grad=True)
    pull = {
        loss.__name__: float(gradient(loss(spread, teacher), spread)[0, 2])
        for loss in (soft_cross_entropy, adaptive_alpha_divergence)
    }
    assert pull["adaptive_alpha_divergence"] > 1.2 * pull["soft_cross_entropy"] > 0


def test_logits_of_the_teacher_get_no_gradient() -> None:
    student, teacher = (torch.randn(3, 4, requires_grad=True) for _ in range(2))
    for loss in (soft_cross_entropy, adaptive_alpha_divergence):
        with pytest.raises(RuntimeError, match="not have been used in the graph"):
            gradient(loss(student, teacher), teacher)
