"""`mobile`: networks for phones and small servers, 128 to 224 pixels; `mobile-int8`: the same for 8-bit arithmetic."""

from __future__ import annotations

from search_spaces.language import NetworkSpace
from search_spaces.layout import OPERATOR, Head, ImageInput, Layout, Operator, Settings, Stage, Stem

RESOLUTION = 224
_SMALLER = (128, 160, 192)

# Widths are multiples of 16, see `search_spaces.tiny`. One activation and one form of squeeze-and-excite per stage, as
# MobileNetV3 places them: blocks to measure stay few, and per block they were found to matter little.
_KERNELS, _EXPANSIONS = (3, 5, 7), (3, 4, 6)
_UP_TO_4, _UP_TO_5, _UP_TO_6 = (2, 3, 4), (2, 3, 4, 5), (2, 3, 4, 5, 6)
_RELU: Settings = (("activation", "relu"),)
_SWISH: Settings = (("activation", "hard-swish"),)
_SQUEEZE: Settings = (("squeeze", "hidden"),)
_FUSED = Operator(family="fused_mbconv", sizes=(("expansion", (2, 4)),), settings=(("kernel", 3), *_RELU))


def mobile(channels: int, classes: int) -> NetworkSpace:
    """Return the space: MBConv everywhere, Fused MBConv early, ConvNeXt late, single-head attention on small maps.

    Args:
        channels: of the input images, 1 or 3.
        classes: number of labels.
    """
    convnext = Operator(family="convnext", sizes=(("kernel", (5, 7)), ("expansion", (2, 3))))
    return NetworkSpace(
        Layout(
            name="mobile",
            input=ImageInput(channels=channels, resolution=RESOLUTION, classes=classes, smaller=_SMALLER),
            stem=_stem("hard-swish"),
            stages=(
                _first_stage(),
                _stage((32,), (1, 2, 3), _mbconv(_RELU, kernels=(3, 5)), _FUSED),
                _stage((48, 80), _UP_TO_5, _mbconv(_RELU + _SQUEEZE)),
                _stage((96, 128), _UP_TO_6, _mbconv(_SWISH), convnext),
                _stage((128, 192), _UP_TO_6, _mbconv(_SWISH + _SQUEEZE), convnext, _single_head(32, 48), stride=1),
                _stage((192, 320), _UP_TO_4, _mbconv(_SWISH + _SQUEEZE), _single_head(48, 64)),
            ),
            head=_head("hard-swish"),
        )
    )


def mobile_int8(channels: int, classes: int) -> NetworkSpace:
    """Return the space: ReLU and convolutions alone, so that nothing falls back to floating point.

    Args:
        channels: of the input images, 1 or 3.
        classes: number of labels.
    """
    return NetworkSpace(
        Layout(
            name="mobile-int8",
            input=ImageInput(channels=channels, resolution=RESOLUTION, classes=classes, smaller=_SMALLER),
            stem=_stem("relu"),
            stages=(
                _first_stage(),
                _stage((32,), (1, 2, 3), _mbconv(_RELU, kernels=(3, 5)), _FUSED),
                _stage((48, 80), _UP_TO_5, _mbconv(_RELU), _FUSED),
                _stage((96, 128), _UP_TO_6, _mbconv(_RELU)),
                _stage((128, 192), _UP_TO_6, _mbconv(_RELU), stride=1),
                _stage((192, 320), _UP_TO_4, _mbconv(_RELU)),
            ),
            head=_head("relu"),
        )
    )


def _stem(activation: str) -> Stem:
    return Stem(width=(16,), settings=(("kernel", 3), ("stride", 2), ("activation", activation)))


def _first_stage() -> Stage:
    """Return the one block that all networks have on the largest map."""
    block = Operator(family="mbconv", settings=(("kernel", 3), ("expansion", 1), *_RELU))
    return Stage(width=(16,), depth=(1,), operators=(block,), stride=1, first=OPERATOR)


def _stage(width: tuple[int, ...], depth: tuple[int, ...], *operators: Operator, stride: int = 2) -> Stage:
    return Stage(width=width, depth=depth, operators=operators, stride=stride, first=OPERATOR)


def _mbconv(settings: Settings, *, kernels: tuple[int, ...] = _KERNELS) -> Operator:
    return Operator(family="mbconv", sizes=(("kernel", kernels), ("expansion", _EXPANSIONS)), settings=settings)


def _single_head(*attended: int) -> Operator:
    return Operator(family="single_head", sizes=(("attended", attended),), settings=(("expansion", 2),))


def _head(activation: str) -> Head:
    return Head(settings=(("expanded", 960), ("features", 1280), ("activation", activation)))
