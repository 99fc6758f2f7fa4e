"""`ofa-mbv3`: exactly the MobileNetV3 space of Once-for-All (arXiv:1908.09791), for its published weights."""

from __future__ import annotations

from search_spaces.errors import InputError
from search_spaces.language import NetworkSpace
from search_spaces.layout import OPERATOR, Head, ImageInput, Layout, Operator, Sharing, Stage, Stem
from search_spaces.spec import round_channels

RESOLUTION = 224
WIDTHS = (1.0, 1.2)
"""Multipliers of the supernets that were published."""

_STAGES = (
    # Channels at width 1, stride, activation, squeeze-and-excite.
    (24, 2, "relu", "none"),
    (40, 2, "relu", "hidden"),
    (80, 2, "hard-swish", "none"),
    (112, 1, "hard-swish", "hidden"),
    (160, 2, "hard-swish", "hidden"),
)


def ofa_mbv3(
    channels: int, classes: int, *, width: float = 1.2, resolution: tuple[int, ...] = (RESOLUTION,)
) -> NetworkSpace:
    """Return the space: five stages of two to four MBConvs, kernel 3/5/7 and expansion 3/4/6 each.

    Args:
        channels: of the input images; the published weights have 3.
        classes: number of labels.
        width: multiplier of all channels.
        resolution: sides of the images; the original had 128 to 224 in steps of 4.

    Raises:
        InputError: a width that was not published, or resolutions that are no sides.
    """
    if width not in WIDTHS:
        raise InputError(f"ofa-mbv3 was published at width {' and '.join(map(str, WIDTHS))}, not {width}")

    def scaled(base: int) -> int:
        return round_channels(base * width)

    first = Operator(family="mbconv", settings=(("kernel", 3), ("expansion", 1), ("activation", "relu")))
    stages = [Stage(width=(scaled(16),), depth=(1,), operators=(first,), stride=1, first=OPERATOR)]
    for base, stride, activation, squeeze in _STAGES:
        block = Operator(
            family="mbconv",
            sizes=(("kernel", (3, 5, 7)), ("expansion", (3, 4, 6))),
            settings=(("activation", activation), ("squeeze", squeeze)),
        )
        stages.append(Stage(width=(scaled(base),), depth=(2, 3, 4), operators=(block,), stride=stride, first=OPERATOR))
    if not resolution:
        raise InputError("ofa-mbv3 needs at least one resolution")
    *smaller, largest = sorted(resolution)
    return NetworkSpace(
        Layout(
            name="ofa-mbv3",
            input=ImageInput(channels=channels, resolution=largest, classes=classes, smaller=tuple(smaller)),
            stem=Stem(width=(scaled(16),), settings=(("kernel", 3), ("stride", 2), ("activation", "hard-swish"))),
            stages=tuple(stages),
            head=Head(
                settings=(
                    ("expanded", scaled(960)),
                    ("features", scaled(1280)),
                    ("activation", "hard-swish"),
                )
            ),
            sharing=Sharing(kernel_transforms=True),
        )
    )
