"""The weight-sharing supernet, the standalone network, and the way from one to the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from search_spaces.blocks import build_module
from search_spaces.blocks.layers import Block, ElasticConv2d, LayerScale, copy_slices, descending
from search_spaces.errors import CheckError
from search_spaces.language import NetworkSpace
from search_spaces.layout import OPERATOR
from search_spaces.spec import BlockSpec, NetworkSpec, largest_spec

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class DropPath:
    """Leaves what residual blocks add out for some images, at random (stochastic depth, arXiv:1603.09382).

    Attributes:
        rate: chance for the last block of a network; that of others is in proportion to where they stand.
        rng: of the draws, on the CPU, so that they are the same on every accelerator.
    """

    rate: float
    rng: torch.Generator

    def __call__(self, before: Tensor, after: Tensor, place: float) -> Tensor:
        """Return a block's output ``float[n, c, h, w]``, expected to be what it is without draws.

        Args:
            before: what the block got.
            after: what it gave.
            place: 0 for the first block of a network, 1 for the last.
        """
        kept = 1.0 - self.rate * place
        mask = (torch.rand(len(before), generator=self.rng) < kept).to(before.dtype) / kept
        return before + mask.to(before.device).reshape(-1, 1, 1, 1) * (after - before)


class Supernet(nn.Module):
    """All networks of a space in one set of weights.

    Sizes share weights by prefix slices, as the layout's `Sharing` says; operators of a slot have weights of their own.
    The subnet to run is an argument of every call, never hidden state.

    Args:
        space: what the weights must cover.
        seed: of the initial weights.
    """

    def __init__(self, space: NetworkSpace, *, seed: int) -> None:
        super().__init__()
        self._layout = space.layout
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.slots = nn.ModuleDict(
                {
                    _module_name(slot): nn.ModuleDict(
                        {family: _elastic(space, blocks) for family, blocks in families.items()}
                    )
                    for slot, families in space.slot_families().items()
                }
            )

    def block(self, slot: str, family: str) -> nn.Module:
        """Return the elastic block of one family in one slot."""
        families: Any = self.slots[_module_name(slot)]
        block: nn.Module = families[family]
        return block

    def forward(
        self, x: Tensor, spec: NetworkSpec, drop_path: DropPath | None = None, *, recompute: bool = False
    ) -> Tensor:
        """Return the logits ``float[n, classes]`` of the subnet `spec` for images ``float[n, c, h, w]``.

        Images of another side than the subnet's are scaled to it.

        Args:
            x: the images.
            spec: the subnet.
            drop_path: leaves residual blocks out, at random.
            recompute: keep only what goes from block to block for the backward pass, which runs each block again
                (arXiv:1604.06174). Running statistics of batch norm count a batch twice then; no evaluation reads them.
        """
        x = scaled(x, spec.input_shape[1])
        for number, placed in enumerate(spec.blocks):
            block = self.block(placed.slot, placed.block.family)
            if recompute:
                out = checkpoint(block, x, placed.block, use_reentrant=False, preserve_rng_state=False)
            else:
                out = block(x, placed.block)
            # A block that keeps the shape of what it gets adds to it.
            dropped = drop_path is not None and out.shape == x.shape
            x = drop_path(x, out, number / (len(spec.blocks) - 1)) if drop_path and dropped else out
        return x

    @torch.no_grad()
    def sort_channels(self) -> None:
        """Put the channels that matter most first, inside and between blocks; the largest subnets stay what they were.

        Between blocks their order stays where it means something: where some block attends to the first of them, and
        where the first block of a stage may add its input to its output, which are channels of two stages.
        """
        for writers, readers in self._streams():
            order = descending(torch.stack([block.input_importance() for block in readers]).sum(0))
            for block in writers:
                block.reorder_outputs(order)
            for block in readers:
                block.reorder_inputs(order)
        for module in self.modules():
            if isinstance(module, Block):
                module.sort_channels()

    def _streams(self) -> Iterator[tuple[list[Block[Any]], list[Block[Any]]]]:
        """Yield who writes and who reads the channels of the stem, if they are its own, and of each stage.

        Those whose order means something are left out.
        """
        layout = self._layout
        stream, tied = [self._blocks("stem")], False
        for number, stage in enumerate(layout.stages, start=1):
            before = [f"stage{number}.downsample"] if layout.downsamples(number) else []
            slots = [*before, *(f"stage{number}.block{block}" for block in range(1, max(stage.depth) + 1))]
            entries = [self._blocks(slot) for slot in slots]
            if before or stage.first == OPERATOR:
                residual = not before and stage.stride == 1 and set(layout.in_width(number)[1]) & set(stage.width)
                yield from _movable(stream, entries[0], tied=tied or bool(residual))
                stream, tied = entries, bool(residual)
            else:
                stream += entries
        yield from _movable(stream, self._blocks("head"), tied=tied)

    def _blocks(self, slot: str) -> list[Block[Any]]:
        """Return the blocks of all families in a slot."""
        families: Any = self.slots[_module_name(slot)]
        return list(families.values())


class Network(nn.Module):
    """One network at one spec: plain layers, no trace of the supernet."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.blocks = nn.ModuleDict({_module_name(placed.slot): build_module(placed.block) for placed in spec})

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``float[n, classes]`` for images ``float[n, c, h, w]``, which are scaled to the spec's side."""
        x = scaled(x, self.spec.input_shape[1])
        for block in self.blocks.values():
            x = block(x)
        return x


def extract(supernet: Supernet, spec: NetworkSpec) -> Network:
    """Return the subnet `spec` as a standalone network that holds copies of its weights, in evaluation mode."""
    network = Network(spec)
    for placed in spec:
        target: Any = network.blocks[_module_name(placed.slot)]
        copy_slices(supernet.block(placed.slot, placed.block.family), target)
    return network.eval()


@torch.inference_mode()
def check_forward(supernet: Supernet, specs: Iterable[NetworkSpec]) -> None:
    """Run subnets and their extracted copies on one random image each.

    Raises:
        CheckError: their logits differ, are not finite, or have another shape than the spec says.
    """
    supernet.eval()
    for spec in specs:
        image = torch.randn(1, *spec.input_shape, generator=torch.Generator().manual_seed(0))
        inside, alone = supernet(image, spec), extract(supernet, spec)(image)
        if inside.shape != (1, spec.blocks[-1].block.out_channels) or not torch.isfinite(inside).all():
            raise CheckError(f"a network of the space gives logits of shape {tuple(inside.shape)}, or not finite ones")
        if not torch.allclose(inside, alone, rtol=0, atol=1e-4):
            raise CheckError("a subnet and its extracted copy differ: a block of the space is not elastic as it should")


def scaled(images: Tensor, side: int) -> Tensor:
    """Return images ``float[n, c, h, w]`` at a side, as they are where they have it: bilinear, with antialiasing."""
    if images.shape[-1] == side:
        return images
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True, align_corners=False)


def channels_last(module: Module) -> Module:
    """Return the module with its weights in the memory layout that convolutions are fastest in (2.3x on CPU)."""
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Tensor], forward: Callable[[Tensor], Tensor]) -> None:
    """Replace batch norm's running statistics by those of these batches, equally weighted; ends in evaluation mode.

    Shared statistics belong to whichever subnets trained last (slimmable networks, arXiv:1903.05134, section 3.3), so
    this precedes every evaluation. It writes to `model`: pass a copy.

    Args:
        model: holds the norms.
        batches: training images ``float[n, c, h, w]``.
        forward: runs one batch through the subnet in question.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
    model.train()
    for images in batches:
        forward(images)
    model.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _movable(
    stream: list[list[Block[Any]]], following: list[Block[Any]], *, tied: bool
) -> Iterator[tuple[list[Block[Any]], list[Block[Any]]]]:
    """Yield who writes and who reads a stream, if its channels may be moved.

    All its slots write to it, all but the first one read it, and so does the slot that follows.
    """
    writers = [block for slot in stream for block in slot]
    readers = [block for slot in stream[1:] for block in slot] + following
    if not tied and not any(block.fixes_order for block in (*writers, *readers)):
        yield writers, readers


def _elastic(space: NetworkSpace, blocks: list[BlockSpec]) -> nn.Module:
    """Return one family's module of a slot, as the layout's `Sharing` asks for."""
    sharing = space.layout.sharing
    module = build_module(largest_spec(blocks))
    has_kernels = len({getattr(block, "kernel", None) for block in blocks}) > 1
    for layer in module.modules():
        if isinstance(layer, LayerScale):
            if sharing.switchable_layer_scale:
                layer.switch({block.out_channels for block in blocks})
            layer.start_at(sharing.layer_scale)
        if isinstance(layer, ElasticConv2d) and has_kernels and sharing.kernel_transforms:
            layer.learn_kernels()
    return module


def _module_name(slot: str) -> str:
    """Return a slot's name as torch allows it in module paths."""
    return slot.replace(".", "_")
