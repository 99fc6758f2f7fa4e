"""What all ONNX files of the toolkit have in common, whoever makes them; loads no torch."""

from __future__ import annotations

from importlib.metadata import version

OPSET = 18
"""The lowest that the exporter writes; ONNX Runtime reads it since 1.14."""
IR_VERSION = 8
"""The one that came with that opset, so that old runtimes accept the file."""
INPUT, OUTPUT = "input", "output"


def exporter_name() -> str:
    """Return exporter, versions and opset: part of the identity of everything exported."""
    return f"torch.onnx dynamo, torch {version('torch')}, onnxscript {version('onnxscript')}, opset {OPSET}"
