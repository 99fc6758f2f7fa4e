"""ONNX graphs of blocks on disk: exported once, shared by all devices."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from nas.devices import Precision
from nas.files import write_atomic
from nas.onnx_format import QUANTIZATION, exporter_name
from nas.progress import Progress, no_progress
from nas.quantization import quantized, without_double_pairs
from nas.runtime import load_runtime
from nas.stitch import give_own_weights, pointwise, stitch
from search_spaces.documents import content_hash
from search_spaces.spec import BlockSpec, NetworkSpec, block_key

_WEIGHT_SEED = 0
# One program may hold many blocks (exporting costs seconds per program, a fraction of a second per block), but a
# killed export loses its program.
_BLOCKS_PER_PROGRAM = 60


@dataclass(frozen=True, slots=True)
class BlockCache:
    """Exported blocks in a directory.

    A file's name is the hash of what determines its content: block, exporter and its versions, opset, weight seed,
    batch and precision.

    Attributes:
        directory: where they are.
        batch: images at a time that the blocks take.
        precision: of the models that are handed out; those of another than fp32 are made when they are asked for first.
    """

    directory: Path
    batch: int = 1
    precision: Precision = "fp32"

    def fill(self, blocks: Sequence[BlockSpec], progress: Progress = no_progress) -> None:
        """Export those of some distinct blocks that are missing; loads torch only if there are any."""
        missing = [block for block in blocks if not self.path(block).exists()]
        if not missing:
            return
        from nas.onnx_export import export_blocks

        total = len(blocks)
        progress(total - len(missing), total)
        for start in range(0, len(missing), _BLOCKS_PER_PROGRAM):
            part = missing[start : start + _BLOCKS_PER_PROGRAM]
            for block, model in zip(part, export_blocks(part, seed=_WEIGHT_SEED, batch=self.batch), strict=True):
                write_atomic(self.path(block), model.SerializeToString())
            progress(total - len(missing) + start + len(part), total)

    def path(self, block: BlockSpec) -> Path:
        """Return where a block's model in floats is or will be."""
        return self._path(block, [])

    def block(self, block: BlockSpec) -> onnx.ModelProto:
        """Return one block's model; the cache must have been filled."""
        path = self.path(block)
        if self.precision == "fp32":
            return onnx.load(path)
        quantized_path = self._path(block, [self.precision, load_runtime().__version__, str(QUANTIZATION)])
        if not quantized_path.exists():
            write_atomic(quantized_path, quantized(onnx.load(path)).SerializeToString())
        return onnx.load(quantized_path)

    def pointwise(self, channels: int, resolution: int) -> onnx.ModelProto:
        """Return a 1x1 convolution, the neighbour in whose company blocks are measured."""
        return _pointwise(channels, resolution, self.batch, self.precision)

    def chain(self, parts: Sequence[onnx.ModelProto]) -> onnx.ModelProto:
        """Return one model of several that this cache handed out; weights are random."""
        model = stitch(parts)
        give_own_weights(model)
        return without_double_pairs(model) if self.precision == "int8" else model

    def network(self, spec: NetworkSpec) -> onnx.ModelProto:
        """Return a whole network of blocks that the cache must hold; its weights are random."""
        return self.chain([self.block(placed.block) for placed in spec])

    def _path(self, block: BlockSpec, made_by: Sequence[str]) -> Path:
        identity = [block_key(block), exporter_name(), _WEIGHT_SEED, self.batch, *made_by]
        return self.directory / f"{content_hash(identity)}.onnx"


@functools.lru_cache(maxsize=256)
def _pointwise(channels: int, resolution: int, batch: int, precision: Precision) -> onnx.ModelProto:
    model = pointwise(channels, resolution, batch)
    return quantized(model) if precision == "int8" else model
