"""What all ONNX files of the toolkit have in common, whoever makes them; loads no torch."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

OPSET = 18
"""The lowest that the exporter writes; ONNX Runtime reads it since 1.14."""
IR_VERSION = 8
"""The one that came with that opset, so that old runtimes accept the file."""
QUANTIZATION = 1
"""Raised when `nas.quantization.quantized` makes other models than before, so that none of before are taken."""
STITCHING = 2
"""Raised when `nas.stitch` makes other networks of the same blocks than before; tables of before are refused then."""
INPUT, OUTPUT = "input", "output"


def exporter_name() -> str:
    """Return exporter, versions and opset: part of the identity of everything exported, and of what is measured."""
    made_by = f"torch.onnx dynamo, torch {version('torch')}, onnxscript {version('onnxscript')}"
    return f"{made_by}, opset {OPSET}, stitching {STITCHING}"


def quantizer_name() -> str:
    """Return what makes and computes 8-bit models: part of the identity of their accuracies."""
    try:
        runtime = version("onnxruntime")
    except PackageNotFoundError:  # one of its other distributions
        from nas.runtime import load_runtime

        runtime = str(load_runtime().__version__)
    return f"quantizer {QUANTIZATION}, onnxruntime {runtime}"
