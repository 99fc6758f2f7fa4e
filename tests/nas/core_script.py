"""Measuring in processes of their own: the core as the script that it is, and a device."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from nas import measure as core
from nas import runtime
from nas.devices import Device
from nas.measure import Manifest, ModelFile
from tests.nas.small_models import conv, saved

SCRIPT = Path(core.__file__)
CORE = (SCRIPT, Path(runtime.__file__))
"""What is shipped to other devices."""
COMMAND = [sys.executable, "-P", "-m", core.__name__]
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


def timed(models: Iterable[ModelFile], *, visit_ms: float = 1.0, sustained_s: float = 0.0) -> list[ModelFile]:
    """Return models with other times."""
    return [replace(each, visit_ms=visit_ms, sustained_s=sustained_s) for each in models]


def written(
    folder: Path, models: list[ModelFile], *, visit_ms: float = 1.0, sustained_s: float = 0.0, **settings: Any
) -> Manifest:
    """Write a folder's manifest."""
    files = timed(models, visit_ms=visit_ms, sustained_s=sustained_s)
    manifest = Manifest(models=tuple(files), **{"rounds": ROUNDS, **settings})
    (folder / "manifest.json").write_text(manifest.to_json())
    return manifest


def results(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_bytes().splitlines()]


def visits(lines: list[dict[str, Any]], *, rounds: int = ROUNDS) -> list[tuple[int, str]]:
    """Return the visits of the rounds that every model has; where a machine is restless, some have more."""
    return [(line["round"], line["id"]) for line in lines if line["kind"] == "visit" and line["round"] < rounds]


def three_models(folder: Path) -> list[ModelFile]:
    """Write three small models of different cost into a folder."""
    return [saved(folder / f"conv{size}.onnx", conv(size)) for size in (8, 12, 16)]


MEASURE = """
import sys
from pathlib import Path
from nas.devices import ModelFile, parse_device

name, folder, *entries = sys.argv[1:]
models = [ModelFile(*entry.split("=")) for entry in entries]
models = [ModelFile(model.id, Path(model.path), model.sha256, 5.0) for model in models]
parse_device(name).measure(models, rounds=40, work_dir=Path(folder))
print("onnxruntime" in sys.modules)
"""


def measuring_command(device: Device, folder: Path, models: list[ModelFile]) -> list[str]:
    """Return a command that measures 40 rounds, then prints whether that loaded onnxruntime into its process."""
    entries = [f"{model.id}={model.path}={model.sha256}" for model in models]
    return [sys.executable, "-c", MEASURE, device.name, str(folder), *entries]
