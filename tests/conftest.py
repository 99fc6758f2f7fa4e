"""Fixtures that tests of every package share."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of published tables and image sets that lies beside a checkout; a clone elsewhere has none."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no ../shared/data beside this checkout: published tables and image sets are not part of it")
    return SHARED_DATA
