"""Networks as people would build them by hand: one design each, in a ladder of sizes, to compare a search with.

A preset scales like its original, all widths by one factor and all depths by another. It is built from the block
families of the spaces, so that it runs through the same exporter and on the same footing as what a search finds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from search_spaces.blocks import DownsampleSpec, HeadSpec, StemSpec
from search_spaces.errors import InputError, unknown_name
from search_spaces.layout import ImageInput, Setting, make_block
from search_spaces.spec import NetworkSpec, PlacedBlock

_ALIGNED = 16  # channels; see `search_spaces.tiny`
_WIDTH_FACTORS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)
_LARGEST_IMAGE = 64
_DEPTH_FACTORS = (0.5, 1.0, 1.5, 2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PresetStage:
    """Equal blocks at one resolution, before scaling.

    Attributes:
        family: of all blocks.
        width: channels.
        depth: blocks.
        settings: the other fields of the family's spec.
    """

    family: str
    width: int
    depth: int
    settings: Mapping[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """A preset at one size: the factors on its widths and depths, and the network."""

    width: float
    depth: float
    spec: NetworkSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A hand-made design.

    Attributes:
        name: what it is called on the command line.
        origin: the paper whose proportions it has.
        stages: before scaling.
        stem_stride: pixels that the stem merges.
        head_features: of the classifier.
    """

    name: str
    origin: str
    stages: tuple[PresetStage, ...]
    stem_stride: int = 2
    head_features: int = 128

    def ladder(self, image: ImageInput) -> tuple[Rung, ...]:
        """Return the distinct networks of all width and depth factors, those with fewest MACs first."""
        rungs: dict[NetworkSpec, Rung] = {}
        for width, depth in itertools.product(_WIDTH_FACTORS, _DEPTH_FACTORS):
            spec = self.network(image, width=width, depth=depth)
            rungs.setdefault(spec, Rung(width=width, depth=depth, spec=spec))
        return tuple(sorted(rungs.values(), key=lambda rung: rung.spec.macs()))

    def network(self, image: ImageInput, *, width: float, depth: float) -> NetworkSpec:
        """Return one network.

        Args:
            image: what it is given and asked for.
            width: factor on all widths, which are then rounded to multiples of 16.
            depth: factor on all depths, which are then rounded up.

        Raises:
            InputError: the images are larger than a design of three stages is good for.
        """
        if image.resolution > _LARGEST_IMAGE:
            raise InputError(
                f"presets are for images of at most {_LARGEST_IMAGE} pixels; these have {image.resolution}"
            )
        return NetworkSpec(tuple(self._blocks(image, width, depth)))

    def _blocks(self, image: ImageInput, width: float, depth: float) -> Iterator[PlacedBlock]:
        channels = [max(_ALIGNED, _ALIGNED * round(stage.width * width / _ALIGNED)) for stage in self.stages]
        resolution = image.resolution
        yield PlacedBlock(
            "stem",
            StemSpec(
                in_channels=image.channels,
                out_channels=channels[0],
                resolution=resolution,
                kernel=3,
                stride=self.stem_stride,
            ),
        )
        resolution = -(-resolution // self.stem_stride)
        for index, stage in enumerate(self.stages, start=1):
            if index > 1:
                yield PlacedBlock(
                    f"stage{index}.downsample",
                    DownsampleSpec(
                        in_channels=channels[index - 2], out_channels=channels[index - 1], resolution=resolution
                    ),
                )
                resolution //= 2
            for block in range(1, math.ceil(stage.depth * depth) + 1):
                yield PlacedBlock(
                    f"stage{index}.block{block}",
                    make_block(
                        stage.family,
                        in_channels=channels[index - 1],
                        out_channels=channels[index - 1],
                        resolution=resolution,
                        settings=stage.settings,
                    ),
                )
        yield PlacedBlock(
            "head",
            HeadSpec(
                in_channels=channels[-1],
                resolution=resolution,
                features=self.head_features,
                classes=image.classes,
            ),
        )


def _stages(*stages: tuple[str, int, int, Mapping[str, Setting]]) -> tuple[PresetStage, ...]:
    return tuple(PresetStage(family=f, width=w, depth=d, settings=s) for f, w, d, s in stages)


# Three stages at the resolutions of `tiny`; on maps of 3 pixels the outer ring of a 7x7 kernel would only meet padding.
PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            name="mobilenetv2",
            origin="MobileNetV2, arXiv:1801.04381: 3x3 kernels, expansion 6, deeper where the map is small",
            stages=_stages(
                ("mbconv", 16, 1, {"kernel": 3, "expansion": 6}),
                ("mbconv", 32, 2, {"kernel": 3, "expansion": 6}),
                ("mbconv", 64, 2, {"kernel": 3, "expansion": 6}),
            ),
        ),
        Preset(
            name="mobilenetv3",
            origin="MobileNetV3, arXiv:1905.02244: squeeze-and-excite, 5x5 kernels and hard-swish late",
            stages=_stages(
                ("mbconv", 16, 1, {"kernel": 3, "expansion": 4}),
                ("mbconv", 32, 2, {"kernel": 5, "expansion": 4, "squeeze": "hidden"}),
                ("mbconv", 64, 2, {"kernel": 5, "expansion": 6, "squeeze": "hidden", "activation": "hard-swish"}),
            ),
        ),
        Preset(
            name="convnext",
            origin="ConvNeXt, arXiv:2201.03545: 7x7 kernels, expansion 4, widths double, the third stage deepest",
            stages=_stages(
                ("convnext", 16, 1, {"kernel": 7, "expansion": 4}),
                ("convnext", 32, 1, {"kernel": 7, "expansion": 4}),
                ("convnext", 64, 2, {"kernel": 5, "expansion": 4}),
            ),
        ),
        Preset(
            name="hybrid",
            origin="CoAtNet, arXiv:2106.04803: MBConv with expansion 4, then attention where the map is small",
            stages=_stages(
                ("mbconv", 16, 1, {"kernel": 3, "expansion": 4}),
                ("mbconv", 32, 2, {"kernel": 3, "expansion": 4}),
                ("attention", 64, 2, {"expansion": 4}),
            ),
        ),
        Preset(
            name="shvit",
            origin="SHViT, arXiv:2401.16456: one head on a part of the channels, none where the map is large",
            stages=_stages(
                ("single_head", 32, 1, {"attended": 0, "expansion": 2}),
                ("single_head", 48, 2, {"attended": 16, "expansion": 2}),
                ("single_head", 64, 2, {"attended": 16, "expansion": 2}),
            ),
        ),
    )
}
"""Every preset; another one is an entry here."""


def find_preset(name: str) -> Preset:
    """Return a preset by its name; raises `InputError` naming the known ones."""
    if name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    return PRESETS[name]
