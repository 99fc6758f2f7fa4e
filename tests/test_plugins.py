"""Every plug-in's file is registered: one that is not would miss its contract suite."""

from __future__ import annotations

import pytest

from nas.data import SOURCES
from nas.devices import DEVICES
from nas.engine.strategies import STRATEGIES
from predictors.regression.chosen import REGRESSIONS
from search_spaces.blocks import FAMILIES
from tests.source_tree import ROOT

KINDS = {
    "search_spaces/blocks": [spec.__module__.split(".")[-2] for spec in FAMILIES.values()],
    "nas/data": [type(source).__module__.split(".")[-1] for source in SOURCES],
    "nas/devices": [type(kind()).__module__.split(".")[-1] for kind in DEVICES.values()],
    "nas/engine/strategies": [name.partition(":")[0].split(".")[-1] for name in STRATEGIES.values()],
    "predictors/regression": [fit.__module__.split(".")[-1] for fit in REGRESSIONS.values()],
}
# What the plug-ins of a kind are made of, in the same folder.
SHARED = {"layers", "words", "base", "drift", "results", "evidence", "warp", "chosen"}
SHARED |= {"arrays", "images", "picture", "pixels", "source", "splits"}


@pytest.mark.parametrize("folder", KINDS)
def test_every_file_is_registered(folder: str) -> None:
    found = {path.stem for path in (ROOT / folder).iterdir() if not path.name.startswith("_")}
    assert found - SHARED == set(KINDS[folder])
