"""Measuring in processes of their own: the core as the script that it is, and a device."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from nas import measure as core
from nas.devices import Device
from nas.measure import Manifest, ModelFile
from tests.nas.small_models import conv, saved

SCRIPT = Path(core.__file__)
COMMAND = [sys.executable, "-P", str(SCRIPT)]
ROUNDS = 4


def run(folder: Path, *, expect: int = 0) -> list[dict[str, Any]]:
    """Run the core on a folder's manifest, and return the lines it printed."""
    command = [*COMMAND, "manifest.json", "results.jsonl"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == expect, (done.stdout, done.stderr)
    assert expect != 0 or done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


def error_of(folder: Path) -> dict[str, Any]:
    """Run the core where it must refuse, and return its one error line."""
    *_, message = run(folder, expect=2)
    assert message.keys() == {"error", "id"}
    assert "\n" not in message["error"]
    return message


def written(folder: Path, models: list[ModelFile], **settings: Any) -> Manifest:
    """Write a folder's manifest."""
    manifest = Manifest(models=tuple(models), **{"rounds": ROUNDS, "visit_ms": 1.0, **settings})
    (folder / "manifest.json").write_text(manifest.to_json())
    return manifest


def results(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_bytes().splitlines()]


def visits(lines: list[dict[str, Any]]) -> list[tuple[int, str]]:
    return [(line["round"], line["id"]) for line in lines if line["kind"] == "visit"]


def three_models(folder: Path) -> list[ModelFile]:
    """Write three small models of different cost into a folder."""
    return [saved(folder / f"conv{size}.onnx", conv(size)) for size in (8, 12, 16)]


MEASURE = """
import sys
from pathlib import Path
from nas.devices import ModelFile, parse_device

name, folder, *entries = sys.argv[1:]
models = [ModelFile(*entry.split("=")) for entry in entries]
models = [ModelFile(model.id, Path(model.path), model.sha256) for model in models]
parse_device(name).measure(models, rounds=40, visit_ms=5, work_dir=Path(folder))
print("onnxruntime" in sys.modules)
"""


def measuring_command(device: Device, folder: Path, models: list[ModelFile]) -> list[str]:
    """Return a command that measures 40 rounds, then prints whether that loaded onnxruntime into its process."""
    entries = [f"{model.id}={model.path}={model.sha256}" for model in models]
    return [sys.executable, "-c", MEASURE, device.name, str(folder), *entries]
