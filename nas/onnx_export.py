"""From torch modules to ONNX: the one exporter of LUT blocks and final networks alike.

Whatever makes the table's blocks must make the final network too: two exporters emit different operators for the same
module, and the difference is larger than the table's error.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator, Sequence

import onnx
import torch
from onnx.utils import Extractor
from torch import Tensor, nn

from nas.onnx_format import INPUT, IR_VERSION, OPSET, OUTPUT
from nas.supernet import Network
from search_spaces.blocks import build_module
from search_spaces.documents import content_hash
from search_spaces.spec import BlockSpec, block_key


def export_network(network: Network, *, batch: int | None = 1) -> onnx.ModelProto:
    """Return a network as one ONNX model, input ``float[batch, c, h, w]``, output logits.

    Args:
        network: what to export.
        batch: images at a time that it takes; None for any number.
    """
    return _export(network, [network.spec.input_shape], [INPUT], [OUTPUT], batch=batch)


def export_blocks(blocks: Sequence[BlockSpec], *, seed: int, batch: int = 1) -> list[onnx.ModelProto]:
    """Return each block as an ONNX model of its own, for batches of a fixed size, with weights drawn from the seed.

    The blocks are exported as one program from a tuple of inputs to a tuple of outputs, which is then split: an export
    costs seconds per program, but a fraction of a second per block in it.
    """
    program = _Program([seeded_block(block, seed) for block in blocks])
    shapes = [(block.in_channels, block.resolution, block.resolution) for block in blocks]
    inputs = [f"{INPUT}_{i}" for i in range(len(blocks))]
    outputs = [f"{OUTPUT}_{i}" for i in range(len(blocks))]
    extractor = Extractor(_export(program, shapes, inputs, outputs, batch=batch))
    return [extractor.extract_model([i], [o]) for i, o in zip(inputs, outputs, strict=True)]


def seeded_block(block: BlockSpec, seed: int) -> nn.Module:
    """Return a block whose weights depend on its spec and the seed, not on its company in a program."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(content_hash([block_key(block), seed], 12), 16))
        return build_module(block)


class _Program(nn.Module):
    """Independent blocks side by side."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(block(x) for block, x in zip(self.blocks, inputs, strict=True))


def _export(
    module: nn.Module, shapes: Sequence[tuple[int, ...]], inputs: list[str], outputs: list[str], *, batch: int | None
) -> onnx.ModelProto:
    # The exported wrapper itself must be in evaluation mode, or batch norm is exported with batch statistics; and
    # contiguous, or channels-last strides add reshapes to the graph (2.5 microseconds a network).
    module = copy.deepcopy(module).cpu().to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    # torch takes sizes of 0 and 1 for constants.
    examples = tuple(torch.zeros(batch or 2, *shape) for shape in shapes)
    any_number = None if batch else tuple({0: torch.export.Dim("batch", min=1)} for _ in shapes)
    with quiet_exporter():
        program = torch.onnx.export(
            module,
            examples,
            dynamo=True,
            dynamic_shapes=any_number,
            opset_version=OPSET,
            input_names=inputs,
            output_names=outputs,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    model.ir_version = IR_VERSION
    return model


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silence the warnings of exporters about their own internals."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
