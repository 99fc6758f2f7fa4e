"""Targets that measure ONNX files, named ``NAME[:key=value,…]``: ``cpu``, ``cpu:threads=2``.

A new execution provider is one line in `nas.runtime.PROVIDERS`; a new kind of device is a frozen dataclass that follows
`Device`, in a file of its own here, and one line in `DEVICES`.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from functools import partial
from typing import Any

from pydantic import TypeAdapter, ValidationError

from nas.devices.base import (
    PRECISIONS,
    Conditions,
    Device,
    Fingerprint,
    Measurement,
    MeasurementRun,
    Precision,
    Sustained,
    options_of,
)
from nas.devices.kit import KitDevice
from nas.devices.local import LocalDevice
from nas.measure import ModelFile
from nas.runtime import PROVIDERS
from search_spaces.errors import InputError, unknown_name

__all__ = [
    "DEVICES",
    "PRECISIONS",
    "Conditions",
    "Device",
    "Fingerprint",
    "KitDevice",
    "LocalDevice",
    "Measurement",
    "MeasurementRun",
    "ModelFile",
    "Precision",
    "Sustained",
    "parse_device",
]

DEVICES: dict[str, Callable[..., Device]] = {
    **{provider: partial(LocalDevice, provider) for provider in PROVIDERS},
    "kit": KitDevice,
}
"""Kinds of devices by name; each makes a `Device`, a dataclass whose fields with a default are options of the name."""


def parse_device(text: str) -> Device:
    """Return the device that a name stands for.

    Args:
        text: ``NAME`` or ``NAME:key=value,…``, such as ``cpu:threads=2``.

    Raises:
        InputError: the name, an option or a value is not known or not allowed.
    """
    name, colon, rest = text.partition(":")
    if name not in DEVICES:
        raise unknown_name("device", name, DEVICES)
    kind = DEVICES[name]
    made: Any = kind()
    types = typing.get_type_hints(type(made))
    known = [field.name for field in options_of(made)]
    options: dict[str, Any] = {}
    for option in rest.split(",") if colon else ():
        key, equals, value = option.partition("=")
        if not equals:
            raise InputError(f"device {text!r}: {option!r} is not an option; write NAME:key=value,…")
        if key not in known:
            raise unknown_name(f"option of device {name!r}", key, known)
        if key in options:
            raise InputError(f"device {text!r}: option {key!r} is given twice")
        try:
            options[key] = TypeAdapter(types[key]).validate_strings(value)
        except ValidationError as error:
            raise InputError(f"device {text!r}: {key}: {error.errors()[0]['msg']}") from None
    return kind(**options)
