"""The weight-sharing supernet, the standalone network, and the way from one to the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from search_spaces.blocks import build_module
from search_spaces.blocks.layers import copy_slices
from search_spaces.language import NetworkSpace
from search_spaces.spec import NetworkSpec, largest_spec

Module = TypeVar("Module", bound=nn.Module)


class Supernet(nn.Module):
    """All networks of a space in one set of weights.

    Sizes share weights by prefix slices; operators of a slot have weights of their own. The subnet to run is an
    argument of every call, never hidden state.

    Args:
        space: what the weights must cover.
        seed: of the initial weights.
    """

    def __init__(self, space: NetworkSpace, *, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.slots = nn.ModuleDict(
                {
                    _module_name(slot): nn.ModuleDict(
                        {family: build_module(largest_spec(blocks)) for family, blocks in families.items()}
                    )
                    for slot, families in space.slot_families().items()
                }
            )

    def block(self, slot: str, family: str) -> nn.Module:
        """Return the elastic block of one family in one slot."""
        families: Any = self.slots[_module_name(slot)]
        block: nn.Module = families[family]
        return block

    def forward(self, x: Tensor, spec: NetworkSpec) -> Tensor:
        """Return the logits ``float[n, classes]`` of the subnet `spec` for images ``float[n, c, h, w]``."""
        for placed in spec:
            x = self.block(placed.slot, placed.block.family)(x, placed.block)
        return x


class Network(nn.Module):
    """One network at one spec: plain layers, no trace of the supernet."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.blocks = nn.ModuleDict({_module_name(placed.slot): build_module(placed.block) for placed in spec})

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``float[n, classes]`` for images ``float[n, c, h, w]``."""
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


def _module_name(slot: str) -> str:
    """Return a slot's name as torch allows it in module paths."""
    return slot.replace(".", "_")
