"""Random networks of every space in every format: whole, described, and running where nothing of ours is installed.

``make test-export`` tries a hundred of each space, ``make test-slow`` three.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from nas.export import FORMATS
from nas.export.onnx_file import read_metadata
from nas.export.record import CARD_FILE, CONFIG_FILE, RECORD_FILE, read_export
from nas.files import sha256_file
from nas.onnx_format import OPSET
from search_spaces.catalogue import SPACES
from tests.environments import environment_with, run
from tests.exported_spaces import export_random, untrained

pytestmark = pytest.mark.slow

NETWORKS = int(os.environ.get("NAS_EXPORT_NETWORKS", "3"))
_AT_A_TIME = 5
METADATA = {
    *("accuracy", "architecture", "class_names", "cost", "created", "device", "latency_ms", "licence"),
    *("preprocessing", "space", "versions", "weights"),
}

HEAD = """
import hashlib, importlib.util, json, pathlib, sys
import numpy as np
"""
RUN = """
def probes(record):
    # From what docs/exporting.md says of them.
    steps = record["preprocessing"]
    (height, width), channels, cells = steps["size"], len(steps["mean"]), 6
    drawn = hashlib.shake_256(b"paretonas probes").digest(4 * (cells + 1) ** 2 * channels)
    grid = np.frombuffer(drawn, dtype=np.uint8).reshape(4, cells + 1, cells + 1, channels).astype(int)
    pixels = np.zeros((4, height, width, channels), dtype=np.uint8)
    mean, std = np.array(steps["mean"]), np.array(steps["std"])
    low, high = (np.clip(np.rint(255 * (mean + sign * 1.7 * std)), 0, 255).astype(int) for sign in (-1, 1))
    for y in range(height):
        i, v = divmod(y * cells, height)
        for x in range(width):
            j, h = divmod(x * cells, width)
            upper = grid[:, i, j] * (width - h) + grid[:, i, j + 1] * h
            lower = grid[:, i + 1, j] * (width - h) + grid[:, i + 1, j + 1] * h
            shade = (upper * (height - v) + lower * v) // (height * width)
            pixels[:, y, x] = low + (high - low) * shade // 255
    images = (pixels / np.float32(255) - np.float32(steps["mean"])) / np.float32(steps["std"])
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2).astype(np.float32))

told = {"found": [name for name in ("nas", "search_spaces", "predictors") if importlib.util.find_spec(name)]}
for folder in map(pathlib.Path, sys.argv[1:]):
    record = json.loads((folder / "export.json").read_text())
    images = probes(record)
    for file in record["files"]:
        expected = np.array(record["answers"][file["precision"]])
        logits = answer(folder / file["file"], images)
        if logits is not None:
            told[f"{folder.name} {file['format']}"] = float(np.abs(logits - expected).max())
print(json.dumps(told))
"""
WITH_ONNXRUNTIME = """
import onnxruntime
def answer(path, images):
    if path.suffix != ".onnx":
        return None
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"input": image[None]})[0] for image in images])
"""
WITH_TORCH = """
import torch
def answer(path, images):
    if path.suffix == ".safetensors":
        from safetensors import safe_open
        with safe_open(path, framework="pt") as file:
            assert json.loads(file.metadata()["paretonas.architecture"])["id"] in path.parent.name
            assert list(file.keys())
        return None
    if path.suffix != ".pt2":
        return None
    return torch.export.load(path).module()(torch.from_numpy(images)).detach().numpy()
"""


@pytest.mark.parametrize("first", range(0, NETWORKS, _AT_A_TIME))
@pytest.mark.parametrize("space", SPACES)
def test_random_networks_in_every_format(
    bare_python: Path, monkeypatch: pytest.MonkeyPatch, space: str, first: int
) -> None:
    seeds = range(first, min(first + _AT_A_TIME, NETWORKS))
    with exported(space, seeds, monkeypatch) as folders:
        for folder in folders:
            check_whole(folder)
        in_onnxruntime = answers(bare_python, WITH_ONNXRUNTIME, folders)
        assert len(in_onnxruntime) == 2 * len(folders)
        assert max(in_onnxruntime.values()) <= 1e-4
        # Where torch is, but nothing of ours: its packages are found, the link to this checkout is not followed.
        packages = str(Path(torch.__file__).parents[1])
        in_torch = answers(bare_python, WITH_TORCH, folders, PYTHONPATH=packages)
        assert len(in_torch) == len(folders)
        assert max(in_torch.values()) <= 1e-4


def test_a_runtime_of_two_minor_versions_before_takes_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    major, minor = (int(part) for part in version("onnxruntime").split(".")[:2])
    older = environment_with(tmp_path / "older", f"onnxruntime=={major}.{minor - 2}.*", "numpy", constrained=False)
    found = run(older, "-c", "import onnxruntime; print(onnxruntime.__version__)", cwd=tmp_path)
    assert found.startswith(f"{major}.{minor - 2}.")
    with exported("cifar", [0], monkeypatch) as (folder,):
        told = answers(older, WITH_ONNXRUNTIME, [folder])
        known = {name: np.array(rows) for name, rows in read_export(folder).answers.items()}
    assert told[f"{folder.name} onnx"] <= 1e-4
    assert told[f"{folder.name} onnx-int8"] <= np.abs(known["int8"] - known["fp32"]).max()


@contextmanager
def exported(space_name: str, seeds: Sequence[int], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Export the networks that some seeds draw, for the block."""
    monkeypatch.setattr("nas.export.int8.LEAST_AGREEMENT", 0.0)  # networks that have learned nothing
    with tempfile.TemporaryDirectory(prefix="exported-") as home:
        space, evaluator = untrained(space_name, Path(home))
        yield [export_random(space, evaluator, seed, Path(home)) for seed in seeds]


def answers(python: Path, runtime: str, folders: Sequence[Path], **variables: str) -> dict[str, float]:
    """Return how far each file's logits are from those at export, in another environment."""
    told = json.loads(run(python, "-c", HEAD + runtime + RUN, *folders, cwd=folders[0].parent, **variables))
    assert told.pop("found") == []
    return {name: float(apart) for name, apart in told.items()}


def check_whole(folder: Path) -> None:
    record = read_export(folder)
    assert [each.format for each in record.files] == list(FORMATS)
    assert {path.name for path in folder.iterdir()} == {
        *(each.file for each in FORMATS.values()),
        CARD_FILE,
        CONFIG_FILE,
        RECORD_FILE,
    }
    for each in record.files:
        assert sha256_file(folder / each.file) == each.sha256
        assert each.parity <= 1e-4 or each.precision == "int8"
        if not FORMATS[each.format].is_onnx:
            continue
        model = onnx.load(folder / each.file, load_external_data=False)
        onnx.checker.check_model(model, full_check=True)
        assert not [weight.name for weight in model.graph.initializer if weight.external_data]
        assert model.opset_import[0].version == OPSET
        metadata = read_metadata(model)
        assert metadata.keys() == METADATA
        assert metadata["architecture"]["id"] == record.candidate.id
        assert metadata["accuracy"]["precision"] == each.precision
        assert not re.search(rb"/\w+/\w+/\w+\.py", (folder / each.file).read_bytes())
