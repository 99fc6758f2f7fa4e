"""The cache of exported blocks: filled once, named by what determines its content."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from nas import block_cache, onnx_format
from nas.block_cache import BlockCache
from tests.command_line import environment
from tests.nas.micro_space import micro

FILL_TINY = """
import sys
from pathlib import Path
from nas.block_cache import BlockCache
from search_spaces.catalogue import find_space

told = []
BlockCache(Path(sys.argv[1])).fill(find_space("tiny", channels=1, classes=10).blocks, lambda *each: told.append(each))
print(told, sorted({"torch", "onnxscript"} & set(sys.modules)))
"""


BLOCKS = micro().blocks


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> BlockCache:
    """A cache of the micro space; for reading only."""
    cache = BlockCache(tmp_path_factory.mktemp("blocks"))
    cache.fill(BLOCKS)
    return cache


def copy_of(cache: BlockCache, folder: Path) -> BlockCache:
    shutil.copytree(cache.directory, folder)
    return BlockCache(folder)


def stamps(cache: BlockCache) -> dict[str, tuple[int, int]]:
    """Return what changes when a file is written anew, by name."""
    stats = {path.name: path.stat() for path in cache.directory.iterdir()}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


def paths(cache: BlockCache) -> list[Path]:
    return [cache.path(block) for block in BLOCKS]


def test_every_distinct_block_gets_one_file(filled: BlockCache) -> None:
    assert len(BLOCKS) > 10
    assert sorted(filled.directory.iterdir()) == sorted(set(paths(filled)))
    assert len(set(paths(filled))) == len(BLOCKS)
    for block in BLOCKS:
        model = filled.block(block)
        onnx.checker.check_model(model, full_check=True)
        shape = [dimension.dim_value for dimension in model.graph.input[0].type.tensor_type.shape.dim]
        assert shape == [1, block.in_channels, block.resolution, block.resolution]


def test_what_is_missing_is_exported_and_nothing_else(filled: BlockCache, tmp_path: Path) -> None:
    cache = copy_of(filled, tmp_path / "blocks")
    lost = paths(cache)[3:5]
    contents = {path: path.read_bytes() for path in lost}
    for path in lost:
        path.unlink()
    before = stamps(cache)
    told: list[tuple[int, int]] = []
    cache.fill(BLOCKS, lambda *each: told.append(each))
    total = len(BLOCKS)
    assert told == [(total - 2, total), (total, total)]
    after = stamps(cache)
    assert {name: after[name] for name in before} == before
    assert after.keys() == stamps(filled).keys()
    for path, content in contents.items():
        again, first = onnx.load(path), onnx.load_from_string(content)
        assert [node.op_type for node in again.graph.node] == [node.op_type for node in first.graph.node]


def test_a_cache_that_is_full_loads_no_torch_and_writes_nothing(measured_run: Path) -> None:
    folder = measured_run / "blocks"
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    done = subprocess.run(
        [sys.executable, "-c", FILL_TINY, str(folder)], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "[] []\n"
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert len(before) == 110


def test_the_name_of_a_file_tells_block_exporter_and_opset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first, second = micro().blocks[:2]
    cache = BlockCache(tmp_path)
    names = {cache.path(first), cache.path(second)}
    monkeypatch.setattr(block_cache, "_WEIGHT_SEED", 1)
    names.add(cache.path(first))
    monkeypatch.setattr(onnx_format, "OPSET", 19)
    names.add(cache.path(first))
    monkeypatch.setattr(onnx_format, "version", lambda package: "0.0.1")
    names.add(cache.path(first))
    assert len(names) == 5
