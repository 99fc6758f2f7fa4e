"""The spaces known by name. To add one: write its file, add its line to `SPACES`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from search_spaces import tiny
from search_spaces.errors import unknown_name
from search_spaces.language import NetworkSpace


@dataclass(frozen=True, slots=True)
class SpaceEntry:
    """A named space: the side of the images it takes, and how to build it for given channels and classes."""

    resolution: int
    build: Callable[[int, int], NetworkSpace]


SPACES: dict[str, SpaceEntry] = {
    "tiny": SpaceEntry(tiny.RESOLUTION, tiny.tiny),
}


def find_space(name: str) -> SpaceEntry:
    """Return a named space; raises `InputError` naming the known ones."""
    if name not in SPACES:
        raise unknown_name("space", name, SPACES)
    return SPACES[name]
