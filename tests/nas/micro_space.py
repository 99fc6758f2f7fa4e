"""A space of a dozen blocks, which are exported in seconds."""

from __future__ import annotations

from search_spaces.language import NetworkSpace
from search_spaces.layout import Head, ImageInput, Layout, Operator, Stage, Stem


def micro(channels: int = 1, classes: int = 3) -> NetworkSpace:
    """Return a space for 8x8 images with two stages and all three operators."""
    operators = (
        Operator(family="mbconv", sizes=(("kernel", (3,)), ("expansion", (2,)))),
        Operator(family="convnext", sizes=(("kernel", (3,)), ("expansion", (2,)))),
        Operator(family="attention", sizes=(("expansion", (1,)),)),
    )
    return NetworkSpace(
        Layout(
            name="micro",
            input=ImageInput(channels=channels, resolution=8, classes=classes),
            stem=Stem(settings=(("kernel", 3), ("stride", 2))),
            stages=(
                Stage(width=(16,), depth=(1, 2), operators=operators, stride=1),
                Stage(width=(16, 32), depth=(1,), operators=operators),
            ),
            head=Head(settings=(("features", 16),)),
        )
    )
