"""A space of a dozen blocks, which are exported in seconds."""

from __future__ import annotations

from search_spaces.language import ImageInput, Layout, NetworkSpace, Operator, Stage


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
            stem_kernel=3,
            stem_stride=2,
            stages=(
                Stage(width=(16,), depth=(1, 2), operators=operators),
                Stage(width=(16, 32), depth=(1,), operators=operators),
            ),
            head_features=16,
        )
    )
