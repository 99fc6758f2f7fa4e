from __future__ import annotations

import pytest

from search_spaces.catalogue import SPACES, find_space
from search_spaces.errors import (
    CheckError,
    InputError,
    MachineError,
    ToolError,
    first_line,
    kind_and_first_line,
    unknown_name,
)


@pytest.mark.parametrize(("error", "exit_code"), [(CheckError, 1), (InputError, 2), (MachineError, 3)])
def test_every_error_has_its_exit_code(error: type[ToolError], exit_code: int) -> None:
    assert issubclass(error, ToolError)
    assert error("why").exit_code == exit_code
    assert str(error("why")) == "why"


def test_an_unknown_name_lists_the_known_and_the_nearest() -> None:
    assert str(unknown_name("device", "cpi", ["cuda", "cpu"])) == (
        "unknown device 'cpi'; did you mean 'cpu'? (known: cuda, cpu)"
    )
    assert str(unknown_name("device", "zzz", ["cuda", "cpu"])) == "unknown device 'zzz' (known: cuda, cpu)"
    assert str(unknown_name("option", 3, [])) == "unknown option 3 (known: none)"


@pytest.mark.parametrize("name", sorted(SPACES))
def test_named_spaces_are_built_for_the_images_they_ask_for(name: str) -> None:
    space = find_space(name, channels=3, classes=7)
    assert space.name == name
    assert (space.layout.input.channels, space.layout.input.classes) == (3, 7)


@pytest.mark.parametrize(
    ("text", "line", "with_kind"),
    [
        ("why\nand more", "why", "KeyboardInterrupt: why"),
        ("\n\n  late", "late", "KeyboardInterrupt: late"),
        ("", "KeyboardInterrupt", "KeyboardInterrupt"),
        (" \n", "KeyboardInterrupt", "KeyboardInterrupt"),
    ],
)
def test_other_errors_are_quoted_in_a_line(text: str, line: str, with_kind: str) -> None:
    error = KeyboardInterrupt(text)
    assert (first_line(error), kind_and_first_line(error)) == (line, with_kind)
