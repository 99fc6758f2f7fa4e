"""ONNX graphs of blocks on disk: exported once, shared by all devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from nas.files import write_atomic
from nas.onnx_format import exporter_name
from nas.progress import Progress, no_progress
from nas.stitch import stitch
from search_spaces.documents import content_hash
from search_spaces.spec import BlockSpec, NetworkSpec, block_key

_WEIGHT_SEED = 0
# One program may hold many blocks (exporting costs seconds per program, a fraction of a second per block), but a
# killed export loses its program.
_BLOCKS_PER_PROGRAM = 60


@dataclass(frozen=True, slots=True)
class BlockCache:
    """Exported blocks in a directory.

    A file's name is the hash of what determines its content: block, exporter and its versions, opset, weight seed and
    batch.

    Attributes:
        directory: where they are.
        batch: images at a time that the blocks take.
    """

    directory: Path
    batch: int = 1

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
        """Return where a block's model is or will be."""
        identity = [block_key(block), exporter_name(), _WEIGHT_SEED, self.batch]
        return self.directory / f"{content_hash(identity)}.onnx"

    def block(self, block: BlockSpec) -> onnx.ModelProto:
        """Return one block's model; the cache must have been filled."""
        return onnx.load(self.path(block))

    def network(self, spec: NetworkSpec) -> onnx.ModelProto:
        """Return a whole network, stitched from its blocks; its weights are random."""
        return stitch([self.block(placed.block) for placed in spec])
