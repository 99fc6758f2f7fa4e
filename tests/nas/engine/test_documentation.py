"""What docs/search.md shows runs as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from nas.engine.strategies import STRATEGIES

PAGE = (Path(__file__).parents[3] / "docs" / "search.md").read_text()


@pytest.mark.slow
def test_the_examples_run(tmp_path: Path) -> None:
    examples = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        for _ in range(2):  # the first one goes on from its ledger
            done = subprocess.run(
                [sys.executable, "-W", "error", "-c", example],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert "accuracy" in done.stdout


def test_every_strategy_is_described() -> None:
    assert {name for name in STRATEGIES if f"`{name}`" not in PAGE} == set()
