"""`tiny`: the smallest space that is worth searching; trains on two cores in minutes."""

from __future__ import annotations

from search_spaces.language import NetworkSpace
from search_spaces.layout import Head, ImageInput, Layout, Operator, Stage, Stem

RESOLUTION = 24

# Widths are multiples of 16, the channel block of ONNX Runtime's CPU convolutions with AVX-512: between two multiples
# latency does not change, so other widths would only cost accuracy.
_WIDTHS = ((16, 32), (32, 48, 64), (48, 64, 96))
_DEPTHS = ((1, 2), (1, 2, 3), (1, 2, 3))
# On maps of 3 pixels the outer ring of a 7x7 kernel would only ever meet padding.
_CONVNEXT_KERNELS = ((3, 5, 7), (3, 5, 7), (3, 5))


def tiny(channels: int, classes: int) -> NetworkSpace:
    """Return the space for 24x24 images: three stages at 12, 6 and 3 pixels, MBConv / ConvNeXt / attention per block.

    Args:
        channels: of the input images, 1 or 3.
        classes: number of labels.
    """
    stages = tuple(
        Stage(width=width, depth=depth, operators=_operators(kernels), stride=stride)
        for width, depth, kernels, stride in zip(_WIDTHS, _DEPTHS, _CONVNEXT_KERNELS, (1, 2, 2), strict=True)
    )
    return NetworkSpace(
        Layout(
            name="tiny",
            input=ImageInput(channels=channels, resolution=RESOLUTION, classes=classes),
            stem=Stem(settings=(("kernel", 3), ("stride", 2))),
            stages=stages,
            head=Head(settings=(("features", 128),)),
        )
    )


def _operators(convnext_kernels: tuple[int, ...]) -> tuple[Operator, ...]:
    return (
        Operator(family="mbconv", sizes=(("kernel", (3, 5)), ("expansion", (2, 4)))),
        Operator(family="convnext", sizes=(("kernel", convnext_kernels), ("expansion", (2, 4)))),
        Operator(family="attention", sizes=(("expansion", (1, 2)),)),
    )
