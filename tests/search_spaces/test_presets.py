"""Hand-made designs: whole networks at every size, built from the families of the spaces."""

from __future__ import annotations

import itertools

import pytest

from search_spaces.errors import InputError
from search_spaces.layout import ImageInput
from search_spaces.presets import PRESETS, Preset, find_preset

IMAGE = ImageInput(channels=3, resolution=24, classes=7)
ALL = pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS.keys())


@ALL
def test_the_blocks_of_every_size_fit_one_another(preset: Preset) -> None:
    for rung in preset.ladder(IMAGE):
        blocks = [placed.block for placed in rung.spec]
        assert rung.spec.input_shape == (3, 24, 24)
        assert blocks[-1].out_channels == 7
        for before, after in itertools.pairwise(blocks):
            assert (after.in_channels, after.resolution) == (before.out_channels, before.out_resolution)
        slots = [placed.slot for placed in rung.spec]
        assert len(set(slots)) == len(slots)


@ALL
def test_sizes_are_distinct_climb_and_are_found_again_by_their_factors(preset: Preset) -> None:
    ladder = preset.ladder(IMAGE)
    assert len({rung.spec for rung in ladder}) == len(ladder) >= 12
    macs = [rung.spec.macs() for rung in ladder]
    assert macs == sorted(macs)
    assert macs[-1] > 10 * macs[0]
    for rung in ladder:
        assert preset.network(IMAGE, width=rung.width, depth=rung.depth) == rung.spec


@ALL
def test_widths_are_aligned_and_depths_rounded_up(preset: Preset) -> None:
    small, plain = (preset.network(IMAGE, width=1.0, depth=depth) for depth in (0.5, 1.0))
    widths = {block.out_channels for block in (placed.block for placed in plain) if block.family != "head"}
    assert widths == {stage.width for stage in preset.stages}
    assert all(width % 16 == 0 for width in widths)
    blocks = [placed for placed in plain if ".block" in placed.slot]
    assert len(blocks) == sum(stage.depth for stage in preset.stages)
    assert len([placed for placed in small if ".block" in placed.slot]) == sum(
        -(-stage.depth // 2) for stage in preset.stages
    )


def test_presets_are_what_they_are_named_after() -> None:
    families = {
        name: {placed.block.family for placed in preset.network(IMAGE, width=1, depth=1) if ".block" in placed.slot}
        for name, preset in PRESETS.items()
    }
    assert families == {
        "mobilenetv2": {"mbconv"},
        "mobilenetv3": {"mbconv"},
        "convnext": {"convnext"},
        "hybrid": {"mbconv", "attention"},
        "shvit": {"single_head"},
    }


def test_an_unknown_preset_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown preset 'convnex'; did you mean 'convnext'"):
        find_preset("convnex")


def test_images_that_three_stages_are_too_few_for_are_refused() -> None:
    with pytest.raises(InputError, match="at most 64 pixels; these have 224"):
        PRESETS["hybrid"].ladder(ImageInput(channels=3, resolution=224, classes=7))
