from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.documents import ADDED_LATER, canonical_json, content_hash, decode, document, pretty_json
from search_spaces.errors import InputError
from tests.search_spaces.strategies import PROPERTY


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    x_ms: float
    label: str


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    CURRENT_VERSION: ClassVar[int] = 1

    format_version: int
    kind: Literal["fast", "slow"]
    ready: bool
    points: tuple[Point, ...]
    shares: dict[str, float]
    anything: dict[str, object]


REPORT = Report(
    format_version=1,
    kind="fast",
    ready=True,
    points=(Point(x_ms=0.1, label="é"), Point(x_ms=-2.0, label="")),
    shares={"b": 1e-300, "a": 3.0},
    anything={"z": [1, {"y": None}], "text": "x"},
)
PLAIN: dict[str, Any] = json.loads(pretty_json(REPORT))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def message(text: str | bytes) -> str:
    """Return what reading a report from a text is refused with."""
    with pytest.raises(InputError) as caught:
        decode(Report, text, source="report.json")
    return str(caught.value)


def test_a_document_comes_back_from_either_text() -> None:
    assert decode(Report, pretty_json(REPORT), source="test") == REPORT
    assert decode(Report, canonical_json(REPORT).encode(), source="test") == REPORT


def test_a_whole_number_is_a_number() -> None:
    point = decode(Point, '{"x_ms": 2, "label": ""}', source="test")
    assert point == Point(x_ms=2.0, label="")
    assert isinstance(point.x_ms, float)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"format_version": "1"}, "format_version"),
        ({"format_version": 1.0}, "format_version"),
        ({"format_version": True}, "format_version"),
        ({"format_version": None}, "format_version"),
        ({"kind": "medium"}, "kind"),
        ({"ready": 1}, "ready"),
        ({"ready": "true"}, "ready"),
        ({"points": {"x_ms": 1.0, "label": ""}}, "points"),
        ({"points": [{"x_ms": 1.0, "label": ""}, {"x_ms": "1", "label": ""}]}, "points.1.x_ms"),
        ({"points": [{"x_ms": True, "label": ""}]}, "points.0.x_ms"),
        ({"points": [{"x_ms": 1.0, "label": 1}]}, "points.0.label"),
        ({"points": [{"x_ms": 1.0, "label": "", "colour": "red"}]}, "points.0.colour"),
        ({"points": [{"label": ""}]}, "points.0.x_ms"),
        ({"points": [[1.0, ""]]}, "points.0"),
        ({"points": [{"x_ms": math.nan, "label": ""}]}, "points.0.x_ms"),
        ({"points": [{"x_ms": -math.inf, "label": ""}]}, "points.0.x_ms"),
        ({"shares": {"a": math.nan}}, "shares.a"),
        ({"shares": {"a": "half"}}, "shares.a"),
        ({"shares": []}, "shares"),
        ({"CURRENT_VERSION": 1}, "CURRENT_VERSION"),
        ({"note": "x"}, "note"),
        ({"a\nb": 1}, "a b"),
    ],
)
def test_a_wrong_field_is_refused_in_one_line_that_names_the_place(change: dict[str, object], place: str) -> None:
    refusal = message(json.dumps(PLAIN | change))
    assert refusal.startswith(f"report.json: {place}: ")
    assert "\n" not in refusal


@pytest.mark.parametrize("field", sorted(PLAIN))
def test_a_missing_field_is_refused(field: str) -> None:
    text = json.dumps({name: value for name, value in PLAIN.items() if name != field})
    assert message(text) == f"report.json: {field}: Field required"


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", "1", "NaN", '"report"', pretty_json(REPORT)[:-5], b"\xff\xfe", "\ud800", "[" * 100_000],
    ids=lambda text: repr(text[:8]),
)
def test_what_is_no_json_object_is_refused_in_one_line(text: str | bytes) -> None:
    refusal = message(text)
    assert refusal.startswith("report.json: document: ")
    assert "\n" not in refusal


def test_further_errors_are_counted() -> None:
    assert message(json.dumps(PLAIN | {"kind": "x", "ready": 1, "note": 1})).endswith(" (and 2 more)")


@PROPERTY
@given(json_values, st.randoms(use_true_random=False))
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: object, random: Any) -> None:
    def shuffled(item: Any) -> Any:
        if isinstance(item, dict):
            keys = list(item)
            random.shuffle(keys)
            return {key: shuffled(item[key]) for key in keys}
        # A tuple and a list are the same in JSON.
        return tuple(map(shuffled, item)) if isinstance(item, list) else item

    text = canonical_json(value)
    assert canonical_json(shuffled(value)) == text
    assert content_hash(shuffled(value)) == content_hash(value)
    assert json.loads(text) == value
    assert json.loads(pretty_json(value)) == value


def test_canonical_json_is_compact_and_sorted() -> None:
    assert canonical_json({"b": (1, 2.5), "a": Point(x_ms=1.0, label="é")}) == (
        '{"a":{"label":"\\u00e9","x_ms":1.0},"b":[1,2.5]}'
    )


def test_pretty_json_keeps_the_order_of_fields() -> None:
    assert pretty_json(Point(x_ms=1.0, label="a")) == '{\n "x_ms": 1.0,\n "label": "a"\n}\n'


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_does_not_have_are_not_written(number: float) -> None:
    for write in (canonical_json, pretty_json, content_hash):
        with pytest.raises(ValueError, match="JSON"):
            write(Point(x_ms=number, label=""))


def test_the_content_hash_is_the_start_of_a_sha256() -> None:
    # printf '%s' '{"a":1}' | sha256sum
    digits = "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
    assert content_hash({"a": 1}) == digits[:16]
    assert content_hash({"a": 1}, 64) == digits


@pytest.mark.parametrize(
    "text",
    [
        '{"a": NaN}',
        '{"a": [Infinity]}',
        '{"a": 1, "a": 2}',
        pytest.param('{"a": [1e999]}', marks=pytest.mark.xfail(strict=True, reason="1e999 is read as infinity")),
    ],
)
def test_what_pydantic_lets_pass_is_refused_too(text: str) -> None:
    given = json.dumps(PLAIN | {"anything": 0}).replace('"anything": 0', f'"anything": {text}')
    assert "not valid JSON" in message(given)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    first: int = 1
    later: bool = field(default=False, metadata=ADDED_LATER)


def test_a_field_that_was_added_later_leaves_older_hashes_as_they_are() -> None:
    assert canonical_json([Grown()]) == '[{"first":1}]'
    assert canonical_json({"a": Grown(later=True)}) == '{"a":{"first":1,"later":true}}'
    assert json.loads(pretty_json(Grown())) == {"first": 1, "later": False}
