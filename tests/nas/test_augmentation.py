"""Training images that are moved, zoomed, mirrored, tinted and blanked: within their bounds, and as the step says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from nas.augmentation import augmented
from nas.training_record import training_config


def pictures(n: int = 6, side: int = 16) -> Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(0))


def changed(images: Tensor, step: int = 0, **settings: Any) -> Tensor:
    return augmented(images, training_config(None, settings), step)


def test_nothing_is_changed_unless_it_is_asked_for() -> None:
    assert torch.equal(changed(pictures()), pictures())


def test_half_of_the_images_are_mirrored() -> None:
    images = pictures(400, side=4)
    found = changed(images, flip=True)
    same = [torch.allclose(a, b, atol=1e-5) for a, b in zip(found, images, strict=True)]
    mirrored = [torch.allclose(a, b.flip(-1), atol=1e-5) for a, b in zip(found, images, strict=True)]
    assert all(a != b for a, b in zip(same, mirrored, strict=True))
    assert 150 < sum(mirrored) < 250


def test_images_move_and_zoom_within_their_bounds() -> None:
    # A wide spot in the middle: its centre and its width tell where it went.
    side = 64
    at = torch.arange(side) - (side - 1) / 2
    spot = torch.exp(-(at[:, None] ** 2 + at[None, :] ** 2) / 50).expand(300, 1, side, side)
    across = torch.arange(side, dtype=torch.float32)

    def measured(images: Tensor) -> tuple[Tensor, Tensor]:
        profile = images.sum((1, 2)) / images.sum((1, 2, 3))[:, None]
        centre = (profile * across).sum(1)
        width = ((profile * (across - centre[:, None]) ** 2).sum(1)).sqrt()
        return centre - (side - 1) / 2, width / 5

    centre, width = measured(changed(spot, shift=0.1))
    assert 0.09 * side < float(centre.abs().max()) <= 0.101 * side
    assert abs(float(centre.mean())) < 1
    assert torch.allclose(width, torch.ones(300), atol=0.02)
    centre, width = measured(changed(spot, zoom=0.3))
    assert float(centre.abs().max()) < 0.1
    assert 0.73 < float(width.min()) < 0.78
    assert 1.28 < float(width.max()) < 1.36


def test_colours_change_and_grey_stays_grey() -> None:
    grey = pictures()[:, :1].expand(-1, 3, -1, -1)
    found = changed(grey, colour=0.5)
    assert torch.allclose(found, found[:, :1].expand_as(found), atol=1e-6)
    spread = found.std((1, 2, 3)) / grey.std((1, 2, 3))
    assert 0.5 <= float(spread.min()) < float(spread.max()) <= 1.5


@pytest.mark.parametrize(("share", "blank"), [(0.5, 8 * 8), (0.01, 1), (1.0, 16 * 16)])
def test_a_square_is_blank(share: float, blank: int) -> None:
    found = changed(pictures(50), erase=share)
    gone = (found == 0).all(dim=1)
    assert gone.sum((1, 2)).tolist() == [blank] * 50
    if share == 0.5:
        assert gone.any(0).float().mean() > 0.9, "it is somewhere else every time"


def test_draws_are_of_the_step_and_do_not_depend_on_other_settings() -> None:
    images = pictures()
    assert torch.equal(changed(images, 3, shift=0.2), changed(images, 3, shift=0.2))
    assert not torch.equal(changed(images, 3, shift=0.2), changed(images, 4, shift=0.2))
    assert not torch.equal(changed(images, 3, shift=0.2), changed(images, 3, shift=0.2, seed=1))
    erased = (changed(images, 3, erase=0.3) == 0).all(dim=1)
    assert torch.equal(erased, (changed(images, 3, erase=0.3, flip=True, colour=0.1) == 0).all(dim=1))
