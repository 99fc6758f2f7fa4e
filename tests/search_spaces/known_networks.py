"""Published networks in our blocks, as their papers and public code give them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from search_spaces.blocks import (
    ConvNeXtSpec,
    DownsampleSpec,
    HeadSpec,
    MBConvSpec,
    PatchifySpec,
    SingleHeadSpec,
    StemSpec,
)
from search_spaces.spec import BlockSpec, NetworkSpec, PlacedBlock, round_channels


def placed(blocks: Iterable[BlockSpec]) -> NetworkSpec:
    """Return a network of blocks that fit each other."""
    network = NetworkSpec(tuple(PlacedBlock(f"block{i}", block) for i, block in enumerate(blocks)))
    chain = [item.block for item in network]
    for before, after in itertools.pairwise(chain):
        assert (before.out_channels, before.out_resolution) == (after.in_channels, after.resolution)
    return network


def mobilenet(
    stem: int,
    rows: Sequence[tuple[int, float, int, int, str, str]],
    *,
    expanded: int,
    features: int = 0,
    activation: str,
    resolution: int = 224,
) -> NetworkSpec:
    """Return a network of inverted residuals: kernel, expansion, channels, stride, activation, squeeze by row."""
    blocks: list[BlockSpec] = [
        StemSpec(in_channels=3, out_channels=stem, resolution=resolution, kernel=3, stride=2, activation=activation)
    ]
    for kernel, expansion, channels, stride, block_activation, squeeze in rows:
        last = blocks[-1]
        blocks.append(
            MBConvSpec(
                in_channels=last.out_channels,
                out_channels=channels,
                resolution=last.out_resolution,
                stride=stride,
                kernel=kernel,
                expansion=expansion,
                activation=block_activation,
                squeeze=squeeze,
            )
        )
    last = blocks[-1]
    head = HeadSpec(
        in_channels=last.out_channels,
        resolution=last.out_resolution,
        expanded=expanded,
        features=features,
        classes=1000,
        activation=activation,
    )
    return placed([*blocks, head])


def mobilenet_v2() -> NetworkSpec:
    """Return MobileNetV2 at width 1 (arXiv:1801.04381, table 2)."""
    table = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    rows = [
        (3, expansion, channels, stride if i == 0 else 1, "relu6", "none")
        for expansion, channels, repeats, stride in table
        for i in range(repeats)
    ]
    return mobilenet(32, rows, expanded=1280, activation="relu6")


def mobilenet_v3_large() -> NetworkSpec:
    """Return MobileNetV3-Large (arXiv:1905.02244, table 1)."""
    relu, swish, squeezed = ("relu", "none"), ("hard-swish", "none"), ("hard-swish", "hidden")
    rows = [
        (3, 1, 16, 1, *relu),
        (3, 4, 24, 2, *relu),
        (3, 3, 24, 1, *relu),
        (5, 3, 40, 2, "relu", "hidden"),
        (5, 3, 40, 1, "relu", "hidden"),
        (5, 3, 40, 1, "relu", "hidden"),
        (3, 6, 80, 2, *swish),
        (3, 2.5, 80, 1, *swish),
        (3, 2.3, 80, 1, *swish),
        (3, 2.3, 80, 1, *swish),
        (3, 6, 112, 1, *squeezed),
        (3, 6, 112, 1, *squeezed),
        (5, 6, 160, 2, *squeezed),
        (5, 6, 160, 1, *squeezed),
        (5, 6, 160, 1, *squeezed),
    ]
    return mobilenet(16, rows, expanded=960, features=1280, activation="hard-swish")


def efficientnet_b0() -> NetworkSpec:
    """Return EfficientNet-B0 (arXiv:1905.11946, table 1)."""
    table = (
        (3, 1, 16, 1, 1),
        (3, 6, 24, 2, 2),
        (5, 6, 40, 2, 2),
        (3, 6, 80, 3, 2),
        (5, 6, 112, 3, 1),
        (5, 6, 192, 4, 2),
        (3, 6, 320, 1, 1),
    )
    rows = [
        (kernel, expansion, channels, stride if i == 0 else 1, "silu", "input")
        for kernel, expansion, channels, repeats, stride in table
        for i in range(repeats)
    ]
    return mobilenet(32, rows, expanded=1280, activation="silu")


def convnext(widths: Sequence[int], depths: Sequence[int]) -> NetworkSpec:
    """Return a ConvNeXt (arXiv:2201.03545) with batch norms where stem, down-sampling and head have layer norms."""
    blocks: list[BlockSpec] = [PatchifySpec(in_channels=3, out_channels=widths[0], resolution=224, patch=4)]
    for width, depth in zip(widths, depths, strict=True):
        last = blocks[-1]
        if last.out_channels != width:
            blocks.append(
                DownsampleSpec(in_channels=last.out_channels, out_channels=width, resolution=last.out_resolution)
            )
        side = blocks[-1].out_resolution
        blocks += [ConvNeXtSpec(channels=width, resolution=side, kernel=7, expansion=4)] * depth
    last = blocks[-1]
    head = HeadSpec(in_channels=last.out_channels, resolution=last.out_resolution, features=0, classes=1000)
    return placed([*blocks, head])


def shvit_s1() -> NetworkSpec:
    """Return SHViT-S1 (arXiv:2401.16456), with a plain linear classifier."""
    blocks: list[BlockSpec] = [StemSpec(in_channels=3, out_channels=16, resolution=224, kernel=3, stride=2)]
    for channels in (32, 64, 128):
        last = blocks[-1]
        blocks.append(
            StemSpec(
                in_channels=last.out_channels, out_channels=channels, resolution=last.out_resolution, kernel=3, stride=2
            )
        )

    def block(attended: int) -> BlockSpec:
        last = blocks[-1]
        return SingleHeadSpec(
            channels=last.out_channels, resolution=last.out_resolution, attended=attended, expansion=2
        )

    for width, depth, attended in ((128, 2, 0), (224, 4, 48), (320, 5, 68)):
        last = blocks[-1]
        if last.out_channels != width:
            blocks.append(block(0))
            blocks.append(
                MBConvSpec(
                    in_channels=last.out_channels,
                    out_channels=width,
                    resolution=last.out_resolution,
                    stride=2,
                    kernel=3,
                    expansion=4,
                    squeeze="hidden",
                )
            )
            blocks.append(block(0))
        blocks += [block(attended)] * depth
    last = blocks[-1]
    head = HeadSpec(in_channels=last.out_channels, resolution=last.out_resolution, features=0, classes=1000)
    return placed([*blocks, head])


_OFA_WIDTHS = (32, 48, 96, 136, 192)
_OFA_STRIDES = (2, 2, 2, 1, 2)
_OFA_WORDS = (
    ("relu", "none"),
    ("relu", "hidden"),
    ("hard-swish", "none"),
    ("hard-swish", "hidden"),
    ("hard-swish", "hidden"),
)


def ofa_mobilenet_v3(stages: Sequence[Sequence[tuple[int, int]]], resolution: int) -> NetworkSpec:
    """Return a network of Once-for-All's MobileNetV3 space at width 1.2: kernel and expansion by block and stage."""
    rows: list[tuple[int, float, int, int, str, str]] = [(3, 1, 24, 1, "relu", "none")]
    for width, stride, words, blocks in zip(_OFA_WIDTHS, _OFA_STRIDES, _OFA_WORDS, stages, strict=True):
        rows += [
            (kernel, expansion, width, stride if i == 0 else 1, *words) for i, (kernel, expansion) in enumerate(blocks)
        ]
    return mobilenet(
        round_channels(16 * 1.2),
        rows,
        expanded=round_channels(960 * 1.2),
        features=round_channels(1280 * 1.2),
        activation="hard-swish",
        resolution=resolution,
    )


OFA_NETWORKS = {
    # MACs in millions by the name of the published network, kernel and expansion by block, resolution.
    389: (
        (
            ((3, 3), (3, 3)),
            ((5, 3), (5, 6), (3, 3)),
            ((5, 4), (5, 4), (3, 3)),
            ((5, 6), (5, 4), (3, 4), (3, 4)),
            ((3, 6), (3, 6), (7, 6), (3, 3)),
        ),
        224,
    ),
    482: (
        (
            ((5, 3), (3, 3), (3, 3)),
            ((5, 4), (3, 4), (5, 4), (3, 3)),
            ((5, 4), (5, 6), (3, 3), (3, 3)),
            ((5, 6), (7, 6), (3, 6), (5, 4)),
            ((7, 6), (3, 6), (3, 6), (3, 3)),
        ),
        224,
    ),
    595: (
        (
            ((3, 3), (5, 4), (3, 3)),
            ((5, 4), (5, 4), (3, 6), (5, 3)),
            ((7, 6), (5, 6), (3, 3), (5, 4)),
            ((3, 6), (5, 6), (7, 6), (3, 4)),
            ((3, 6), (3, 6), (5, 6), (3, 3)),
        ),
        236,
    ),
}
