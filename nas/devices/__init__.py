"""Targets that measure ONNX files, named ``NAME[:key=value,…]``: ``cpu``, ``cpu:threads=2``.

A new kind of device is a frozen dataclass that follows `Device`, in a file of its own here, and one line in `DEVICES`.
"""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from pydantic import TypeAdapter, ValidationError

from nas.devices.base import (
    Conditions,
    Device,
    Fingerprint,
    Measurement,
    MeasurementRun,
    Sustained,
)
from nas.devices.cpu import CpuDevice
from nas.measure import ModelFile
from search_spaces.errors import InputError, unknown_name

__all__ = [
    "DEVICES",
    "Conditions",
    "CpuDevice",
    "Device",
    "Fingerprint",
    "Measurement",
    "MeasurementRun",
    "ModelFile",
    "Sustained",
    "parse_device",
]

DEVICES: dict[str, type[Any]] = {"cpu": CpuDevice}
"""Kinds of devices by name; a kind is a dataclass that follows `Device`, and its fields are the options of the name."""


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
    types = typing.get_type_hints(kind)
    known = [field.name for field in dataclasses.fields(kind)]
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
    device: Device = kind(**options)
    return device
