"""What shells offer after an option: names that there are, ids of the run that is named. Loads neither torch nor more.

Whatever goes wrong while a line is being typed is no reason to print an error into it: then nothing is offered.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import typer

from nas import defaults

Completion = Callable[[typer.Context, str], list[str]]


def _completing(names: Callable[[Path], Iterable[str]]) -> Completion:
    """Return what completes names, given the run of the command line so far."""

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        try:
            run = Path(context.params.get("run") or defaults.RUN)
            return [name for name in names(run) if name.startswith(incomplete)]
        except Exception:  # noqa: BLE001 - see the module
            return []

    return complete


def _listed(names: Callable[[], Iterable[str]]) -> Completion:
    """Return what completes the last of several names, with commas between them."""

    def complete(_: typer.Context, incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [before + comma + name for name in names() if name.startswith(last)]

    return complete


def _spaces(_: Path) -> Iterable[str]:
    from search_spaces.catalogue import SPACES

    return SPACES


def _data(_: Path) -> Iterable[str]:
    from nas.data import SOURCES

    return [source.usage.partition(":")[0] + (":" if ":" in source.usage else "") for source in SOURCES]


def _devices(run: Path) -> Iterable[str]:
    from nas.devices import DEVICES

    measured = [
        json.loads(path.read_text())["device"]
        for path in sorted((run / "luts").glob("*.json"))
        if ".kit." not in path.name
    ]
    return dict.fromkeys([*DEVICES, *measured])


def _fronts(run: Path) -> Iterable[str]:
    return list(json.loads((run / "front.json").read_text())["fronts"])


def _networks(run: Path) -> Iterable[str]:
    fronts = json.loads((run / "front.json").read_text())["fronts"].values()
    return ["best", "knee", *(each["id"] for front in fronts for each in front["candidates"])]


def _exports(run: Path) -> Iterable[str]:
    return [path.parent.name for path in sorted(run.glob("exports/*/export.json"))]


def _strategies(_: Path) -> Iterable[str]:
    from nas.engine.strategies import STRATEGIES

    return STRATEGIES


def _presets(_: Path) -> Iterable[str]:
    from search_spaces.presets import PRESETS

    return [*PRESETS, "all"]


def _formats() -> Iterable[str]:
    from nas.export.record import FORMATS

    return FORMATS


spaces, data, devices = _completing(_spaces), _completing(_data), _completing(_devices)
fronts, networks, exports = _completing(_fronts), _completing(_networks), _completing(_exports)
strategies, presets, formats = _completing(_strategies), _completing(_presets), _listed(_formats)
