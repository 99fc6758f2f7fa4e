"""An exported file where nothing of ours is installed: onnxruntime, numpy, and what the file says about itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from nas.run import Run
from nas.runtime import open_session
from tests.command_line import Stage
from tests.environments import run

pytestmark = pytest.mark.slow

PREDICT = """
import importlib.util, json, sys
import numpy as np, onnxruntime

path, images, out = sys.argv[1:]
session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
texts = session.get_modelmeta().custom_metadata_map
preprocessing = json.loads(texts["paretonas.preprocessing"])
assert preprocessing["layout"] == "NCHW"
pixels = np.load(images, allow_pickle=False)
assert list(pixels.shape[1:3]) == preprocessing["size"]
mean, std = (np.array(preprocessing[name], dtype=np.float32) for name in ("mean", "std"))
batch = (pixels.astype(np.float32) * np.float32(preprocessing["scale"]) - mean) / std
batch = np.ascontiguousarray(batch.transpose(0, 3, 1, 2))
(value,) = session.get_inputs()
logits = np.concatenate([session.run(None, {value.name: image[None]})[0] for image in batch])
np.save(out, logits)
unwanted = ["nas", "onnx", "torch", "search_spaces", "predictors"]
print(json.dumps({
    "found": [name for name in unwanted if importlib.util.find_spec(name)],
    "classes": json.loads(texts["paretonas.class_names"]),
    "test_accuracy": json.loads(texts["paretonas.accuracy"])["test"],
}))
"""


def test_a_file_alone_tells_enough_to_predict_as_it_did_here(
    bare_python: Path, export_stage: Stage, tmp_path: Path
) -> None:
    exported = export_stage.finished.json
    data = Run.existing(export_stage.run, first="nas train").load_data()
    test = data.split("test")
    np.save(tmp_path / "images.npy", test.images)
    (tmp_path / "model.onnx").write_bytes(Path(exported["path"]).read_bytes())
    files = [tmp_path / name for name in ("model.onnx", "images.npy", "logits.npy")]
    told = json.loads(run(bare_python, "-c", PREDICT, *files, cwd=tmp_path))
    assert told["found"] == []
    assert told["classes"] == list(data.class_names)
    logits = np.load(files[-1])

    session = open_session(exported["path"])
    here = np.concatenate([session.run(None, {"input": image[None]})[0] for image in data.normalise(test.images)])
    assert np.abs(logits - here).max() <= 1e-4
    assert np.array_equal(logits.argmax(axis=1), here.argmax(axis=1))
    assert (
        np.mean(logits.argmax(axis=1) == test.labels) == told["test_accuracy"] == exported["files"][0]["test_accuracy"]
    )


def test_the_environment_of_these_tests_holds_more(bare_python: Path, tmp_path: Path) -> None:
    count = "import importlib.metadata as m; print(len(list(m.distributions())))"
    bare, ours = (int(run(python, "-c", count, cwd=tmp_path)) for python in (bare_python, sys.executable))
    assert bare < 10 < ours
