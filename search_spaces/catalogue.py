"""Spaces by name, ``NAME[:key=value,…]``, or in a TOML file. To add one: write its file, add its line to `SPACES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search_spaces import cifar, mobile, ofa, tiny
from search_spaces.errors import InputError, unknown_name
from search_spaces.language import NetworkSpace
from search_spaces.space_file import parse_space, read_space_file


@dataclass(frozen=True, slots=True)
class SpaceEntry:
    """A named space.

    Attributes:
        about: in a line.
        build: from channels and classes, and its options by name.
        options: how to read each option from text.
        training: settings of a training that suit it better than the usual ones.
    """

    about: str
    build: Callable[..., NetworkSpace]
    options: Mapping[str, Callable[[str], Any]] = field(default_factory=dict)
    training: Mapping[str, int | float | bool] = field(default_factory=dict)


def _sides(text: str) -> tuple[int, ...]:
    """Read ``192`` or ``160/192/224``."""
    return tuple(int(part) for part in text.split("/"))


# Nine minutes on two cores, as in experiments/supernet-photos.
_CIFAR_TRAINING = {"steps": 2800, "batch_size": 64}
# Two to three gigabytes of memory at most, by experiments/supernet-costs.
_MOBILE_TRAINING = {"batch_size": 16}

SPACES: dict[str, SpaceEntry] = {
    "tiny": SpaceEntry("24x24 images; trains on two cores in minutes", tiny.tiny),
    "cifar": SpaceEntry("32x32 images, an operator to choose in every block", cifar.cifar, training=_CIFAR_TRAINING),
    "mobile": SpaceEntry("128 to 224 pixels, for CPUs", mobile.mobile, training=_MOBILE_TRAINING),
    "mobile-int8": SpaceEntry("128 to 224 pixels, for 8-bit arithmetic", mobile.mobile_int8, training=_MOBILE_TRAINING),
    "ofa-mbv3": SpaceEntry(
        "the MobileNetV3 space of Once-for-All at width 1.2 and 224 pixels; options width=1.0, resolution=160/192/224",
        ofa.ofa_mbv3,
        {"width": float, "resolution": _sides},
        _MOBILE_TRAINING,
    ),
}


def find_space(text: str, *, channels: int, classes: int) -> NetworkSpace:
    """Return a space for images of these channels and so many classes.

    Args:
        text: a name of `SPACES` with options, or a path that ends in ``.toml``.
        channels: of the input images.
        classes: number of labels.

    Raises:
        InputError: the name, an option or a value is not known or not allowed; the file does not exist.
        MachineError: the file cannot be read.
    """
    if text.endswith(".toml"):
        return parse_space(read_space_file(Path(text)), source=text, channels=channels, classes=classes)
    name, colon, rest = text.partition(":")
    if name not in SPACES:
        raise unknown_name("space", name, [*SPACES, "or a file that ends in .toml"])
    entry = SPACES[name]
    options: dict[str, Any] = {}
    for option in rest.split(",") if colon else ():
        key, _, value = option.partition("=")
        if key not in entry.options:
            raise unknown_name(f"option of space {name!r}", key, entry.options)
        try:
            options[key] = entry.options[key](value)
        except ValueError:
            raise InputError(f"space {name!r}: {key}={value!r} cannot be read ({entry.about})") from None
    return entry.build(channels, classes, **options)


def usual_training(text: str) -> Mapping[str, int | float | bool]:
    """Return the settings of a training that a space has of its own; none for one from a file."""
    name = text.partition(":")[0]
    return SPACES[name].training if name in SPACES else {}
