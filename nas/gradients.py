"""Gradients of a step's subnets that pull in different directions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_MOST = 2.0  # what is taken out is at most twice the others' gradient
_SMALL = 1e-6


@torch.no_grad()
def without_conflict(largest: Sequence[Tensor | None], others: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Return the sum of both, but for the part of the largest subnet's gradient that is against the others'.

    Tensor by tensor, with g the sum of the others' gradients and h the largest's: g + h + c g, where c removes the part
    of h along -g and is 0 where they agree (NASViT, Gong et al., ICLR 2022, section 3.2).

    Args:
        largest: gradients of the largest subnet's loss; None for parameters that are in none of its layers.
        others: gradients of the sum of the other subnets' losses, in the same order.
    """
    return [_combined(h, g) for h, g in zip(largest, others, strict=True)]


def _combined(largest: Tensor | None, others: Tensor | None) -> Tensor | None:
    if largest is None or others is None:
        return others if largest is None else largest
    share = -(others * largest).sum() / (others.square().sum() + _SMALL)
    return others * (1.0 + share.clamp(0.0, _MOST)) + largest
