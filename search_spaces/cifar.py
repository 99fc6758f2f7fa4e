"""`cifar`: 32x32 images, MBConv / ConvNeXt / attention per block, small enough to train on one GPU in hours."""

from __future__ import annotations

from search_spaces.language import NetworkSpace
from search_spaces.layout import OPERATOR, Head, ImageInput, Layout, Operator, Stage, Stem

RESOLUTION = 32


def cifar(channels: int, classes: int) -> NetworkSpace:
    """Return the space: three stages at 16, 8 and 4 pixels.

    Args:
        channels: of the input images, 1 or 3.
        classes: number of labels.
    """
    mbconv = Operator(
        family="mbconv",
        sizes=(("kernel", (3, 5, 7)), ("expansion", (2, 4, 6))),
        settings=(("activation", "hard-swish"), ("squeeze", "hidden")),
    )
    # On maps of 4 pixels the outer ring of a 9x9 kernel would only ever meet padding, that of a 7x7 still meets some.
    convnext = Operator(family="convnext", sizes=(("kernel", (3, 5, 7)), ("expansion", (2, 3, 4))))
    single_head = Operator(family="single_head", sizes=(("attended", (16, 32)),), settings=(("expansion", 2),))
    attention = Operator(family="attention", sizes=(("heads", (2, 4)), ("expansion", (1, 2))))
    return NetworkSpace(
        Layout(
            name="cifar",
            input=ImageInput(channels=channels, resolution=RESOLUTION, classes=classes),
            stem=Stem(width=(16,), settings=(("kernel", 3), ("stride", 1), ("activation", "hard-swish"))),
            stages=(
                _stage((32, 48), mbconv, convnext),
                _stage((64, 80, 96), mbconv, convnext, single_head),
                _stage((96, 128, 160), mbconv, convnext, attention),
            ),
            head=Head(settings=(("expanded", 0), ("features", 512), ("activation", "hard-swish"))),
        )
    )


def _stage(width: tuple[int, ...], *operators: Operator) -> Stage:
    return Stage(width=width, depth=(1, 2, 3, 4), operators=operators, first=OPERATOR)
