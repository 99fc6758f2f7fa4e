"""Losses by which the largest subnet of a step teaches the others, from logits of both."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from nas.training_record import Divergence

_MOST = 5.0  # importance weight, as in AlphaNet


def soft_cross_entropy(logits: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean cross-entropy with the teacher's soft labels: KL divergence, but for what no gradient sees.

    Args:
        logits: of the student, ``float[n, classes]``.
        teacher: logits of the teacher, ``float[n, classes]``; no gradient goes there.
    """
    return F.cross_entropy(logits, teacher.detach().softmax(dim=1))


def adaptive_alpha_divergence(logits: Tensor, teacher: Tensor) -> Tensor:
    """Return a loss with the gradient of the larger of two divergences, image by image (AlphaNet, arXiv:2102.07954).

    With teacher p and student q, D₁ = Σ p log(p/q) punishes what the student misses of the teacher, and
    D₋₁ = ½ Σ (q²/p - q) what it sees where the teacher does not. The importance weight q/p is at most 5, so that single
    images do not take over. The value is not that of a divergence: only its gradient means something.

    Args:
        logits: of the student, ``float[n, classes]``.
        teacher: logits of the teacher, ``float[n, classes]``; no gradient goes there.
    """
    log_q, log_p = logits.log_softmax(dim=1), teacher.detach().log_softmax(dim=1)
    with torch.no_grad():
        p, q, log_ratio = log_p.exp(), log_q.exp(), log_q - log_p
        importance = log_ratio.exp().clamp(max=_MOST)
        missed = -(p * log_ratio).sum(dim=1)
        imagined = (q * (importance - 1.0) / 2.0).sum(dim=1)
        # The gradient of either is a sum of the gradients of log q with these weights.
        weights = torch.where((imagined > missed)[:, None], q * importance, -p)
    return (weights * log_q).sum(dim=1).mean()


DISTILLATION_LOSSES: dict[Divergence, Callable[[Tensor, Tensor], Tensor]] = {
    "kl": soft_cross_entropy,
    "alpha": adaptive_alpha_divergence,
}
