"""Words that several families know."""

from __future__ import annotations

ACTIVATIONS = ("relu", "relu6", "hard-swish", "silu")
"""Activation functions of convolutional blocks. Only the first two stay in int8 (ONNX Runtime on CPU)."""

NO_SQUEEZE, SQUEEZE_HIDDEN, SQUEEZE_INPUT = "none", "hidden", "input"
SQUEEZES = (NO_SQUEEZE, SQUEEZE_HIDDEN, SQUEEZE_INPUT)
"""Squeeze-and-excite: none; to a quarter of the hidden channels, rounded to 8, ReLU and hard sigmoid (MobileNetV3,
arXiv:1905.02244); to a quarter of the input's channels, the block's activation and a sigmoid (EfficientNet,
arXiv:1905.11946)."""

LAYER_NORM, BATCH_NORM = "layer", "batch"
NORMS = (LAYER_NORM, BATCH_NORM)
"""Norms of blocks that are published with a layer norm."""
