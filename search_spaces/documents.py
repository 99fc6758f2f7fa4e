"""JSON in and out: canonical text from values, validated values from untrusted text; TOML in.

Every file format of the toolkit is a frozen dataclass with a ``format_version`` field. Reading goes through
`decode`, which checks types strictly, refuses unknown keys and non-finite numbers, and executes nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import tomllib
from collections.abc import Hashable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from search_spaces.errors import InputError, MachineError

Document = TypeVar("Document")

document = with_config(ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))
"""Class decorator: makes the validation of a dataclass strict: exact types, no unknown keys, finite numbers."""


ADDED_LATER: Mapping[str, object] = MappingProxyType({"added_later": True})
"""Metadata of a dataclass field that a later version added: canonical texts leave it out while it has its default, so
that hashes of what was written before stay."""


def canonical_json(value: object) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, no NaN; equal values give equal texts."""
    return json.dumps(_plain(value, canonical=True), sort_keys=True, separators=(",", ":"), allow_nan=False)


def pretty_json(value: object) -> str:
    """Return JSON for people: indented, in field order, ending in a newline, no NaN."""
    return json.dumps(_plain(value), indent=1, allow_nan=False) + "\n"


def content_hash(value: object, length: int = 16) -> str:
    """Return the first `length` hexadecimal digits of the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def decode(kind: type[Document], text: str | bytes, *, source: str) -> Document:
    """Validate JSON text as a value of a dataclass.

    Args:
        kind: the dataclass to build; nested dataclasses and tuples are built too.
        text: the JSON text, which is not trusted.
        source: where the text came from, for the message.

    Raises:
        InputError: the text is not JSON, or a field is missing, unknown, of a wrong type or not finite.
    """
    adapter = _adapter(cast(Hashable, kind))
    try:
        value: Document = adapter.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "document"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise InputError(_one_line(f"{source}: {place}: {first['msg'].removeprefix('Value error, ')}{more}")) from None
    try:
        # What pydantic lets pass where any value is allowed, or passes over: NaN, and keys given twice.
        json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_refuse_repeats)
    except (ValueError, RecursionError) as error:
        raise InputError(_one_line(f"{source}: not valid JSON: {error}")) from None
    return value


_MAX_BYTES = 1_000_000


def read_text(path: Path, *, wanted: str) -> str:
    """Return the text of a file that a person has written.

    Args:
        path: which is not trusted.
        wanted: what to say where there is no such file.

    Raises:
        InputError: there is no such file, or it is no text of a sensible size.
        MachineError: it cannot be read.
    """
    try:
        if not path.is_file():
            raise InputError(f"there is no file {path}; {wanted}")
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path} has {path.stat().st_size} bytes; such a file has at most {_MAX_BYTES}")
        return path.read_bytes().decode()
    except UnicodeDecodeError:
        raise InputError(f"{path} is no UTF-8 text") from None
    except OSError as error:
        if isinstance(error, MachineError):
            raise
        raise MachineError(f"cannot read {path}: {error.strerror}") from None


def parse_toml(text: str, *, source: str) -> dict[str, Any]:
    """Return the table of a TOML text; raises `InputError`, naming the source and the line, if it is none."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a plain ValueError
        raise InputError(f"{source}: not valid TOML: {error}") from None


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a number")


def _refuse_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a key is given twice")
    return result


def _one_line(text: str) -> str:
    return " ".join(text.split())


@functools.cache
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast(Any, kind))


def _plain(value: object, *, canonical: bool = False) -> object:
    """Turn dataclasses and tuples into dicts and lists, recursively."""
    plain = functools.partial(_plain, canonical=canonical)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [each for each in dataclasses.fields(value) if not (canonical and _left_out(each, value))]
        return {each.name: plain(getattr(value, each.name)) for each in fields}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _left_out(field: dataclasses.Field[Any], value: object) -> bool:
    return "added_later" in field.metadata and getattr(value, field.name) == field.default
