"""What docs/extend-space.md and docs/extend-block.md show runs as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from search_spaces.blocks import FAMILIES
from search_spaces.blocks.words import ACTIVATIONS, NORMS, SQUEEZES
from search_spaces.space_file import parse_space
from tests.source_tree import ROOT

SPACE_PAGE, BLOCK_PAGE = ((ROOT / "docs" / f"extend-{name}.md").read_text() for name in ("space", "block"))


def examples(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def run(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_file_is_a_space(tmp_path: Path) -> None:
    (example,) = examples(SPACE_PAGE, "toml")
    space = parse_space(example, source="pocket.toml", channels=3, classes=10)
    first, second = 4 + 2, 4 + 2
    assert space.count() == 2 * 2 * (first + first * 6 + first * 6**2) * 2 * (second + second**2)
    (tmp_path / "pocket.toml").write_text(example)
    for arguments in (["check", "pocket.toml"], ["show", "pocket.toml"], ["count", "pocket.toml"]):
        code = f"import sys; from nas.cli import run_command; sys.exit(run_command(['space', *{arguments}]))"
        assert "pocket" in (out := run(code, tmp_path)) or str(space.count()) in out


def test_the_python_example_runs(tmp_path: Path) -> None:
    (example,) = examples(SPACE_PAGE, "python")
    # 2 widths and 4 or 4 + 4 * 4 blocks, 2 widths and 4 + 16 + 64 blocks.
    assert run(example, tmp_path).split()[0] == str(2 * (4 + 16) * 2 * (4 + 16 + 64))


def test_all_families_and_words_are_described() -> None:
    operators = [family for family, kind in FAMILIES.items() if kind.role in {"operator", "stem", "head", "downsample"}]
    for word in (*operators, *ACTIVATIONS, *SQUEEZES, *NORMS):
        assert word in SPACE_PAGE, word


def test_the_block_works(tmp_path: Path) -> None:
    spec, module, use = examples(BLOCK_PAGE, "python")
    folder = tmp_path / "separable"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "spec.py").write_text(spec)
    (folder / "module.py").write_text(module)
    assert "SeparableSpec(channels=16, resolution=16, kernel=3)" in run(use, tmp_path)
