"""Training in several processes, as `torchrun` starts them: one reduction per step, and checks that all agree."""

from __future__ import annotations

import contextlib
import datetime
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from search_spaces.errors import CheckError, InputError, MachineError, first_line

_TOKENS = 2**14
"""Tokens are below this, so that the sum of a thousand is exact in a float of four bytes."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which of how many processes this is.

    Attributes:
        rank: from 0; the first one writes.
        world: how many there are.
    """

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes, evaluates and prints."""
        return self.rank == 0

    def part(self, n: int) -> slice:
        """Return this process's part of a step's images; raises `InputError` if the parts would not be equal."""
        if n % self.world:
            raise InputError(f"{n} images per step cannot be shared out equally among {self.world} processes")
        return slice(self.rank * n // self.world, (self.rank + 1) * n // self.world)

    def average(self, parameters: Sequence[nn.Parameter], figures: Sequence[Tensor], token: int) -> list[Tensor]:
        """Replace gradients by their means over all processes, in one reduction, and return the means of some figures.

        Args:
            parameters: those without a gradient have none in any process.
            figures: numbers ``float[]`` of this process.
            token: what all processes must agree on, such as a hash of the step and its subnets.

        Raises:
            CheckError: they do not agree.
            MachineError: one of them is gone.
        """
        if self.world == 1:
            return list(figures)
        device = parameters[0].device
        told = torch.stack([figure.detach().to(device, torch.float32).reshape(()) for figure in figures])
        agreed = torch.tensor([float(token % _TOKENS)], device=device)
        # Places for all parameters: processes that run other subnets send as much, and so are found out.
        sent = [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters]
        whole = torch.cat([*(each.reshape(-1) for each in sent), told, agreed])
        _reduce(whole, dist.ReduceOp.SUM)
        # Of tokens that are not all equal, at least one is not the mean; `torchrun` ends the others with this process.
        if float(whole[-1]) != float(agreed) * self.world:
            raise CheckError("the processes of this training do not run the same step; start all with the same command")
        whole /= self.world
        start = 0
        for each in parameters:
            if each.grad is not None:
                each.grad.copy_(whole[start : start + each.numel()].view_as(each))
            start += each.numel()
        return list(whole[-1 - len(told) : -1])

    def compare(self, module: nn.Module) -> None:
        """Raise `CheckError` if parameters are not the same in all processes."""
        if self.world == 1:
            return
        # Exact in double precision: 32 bits each.
        digests = [float(zlib.crc32(each.detach().cpu().numpy().tobytes())) for each in module.parameters()]
        least = torch.tensor(digests, dtype=torch.float64, device=next(module.parameters()).device)
        most = least.clone()
        _reduce(least, dist.ReduceOp.MIN)
        _reduce(most, dist.ReduceOp.MAX)
        if not torch.equal(least, most):
            raise CheckError("the processes of this training have come to different weights; start from the checkpoint")

    def wait(self) -> None:
        """Return when all processes are here."""
        if self.world > 1:
            here = torch.ones(1, device="cuda" if dist.get_backend() == "nccl" else "cpu")
            _reduce(here, dist.ReduceOp.SUM)
            here.item()  # reading it is what waits: CUDA only takes note of a reduction


def _reduce(tensor: Tensor, operation: dist.ReduceOp.RedOpType) -> None:
    try:
        dist.all_reduce(tensor, op=operation)
    except RuntimeError as error:
        reason = first_line(error)[:200]
        raise MachineError(
            f"another process of this training is gone; start all again, and they go on ({reason})"
        ) from None


ALONE = Ranks()
_PATIENCE = datetime.timedelta(days=2)
"""The others wait while the first asks a teacher. Who dies is noticed at once: `torchrun` ends them all."""
_STARTED_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Join the processes that `torchrun` has started beside this one, if it has started any.

    Args:
        device: to train on; of several GPUs, each process takes its own.
    """
    if not all(name in os.environ for name in _STARTED_BY_TORCHRUN) or os.environ["WORLD_SIZE"] == "1":
        yield ALONE  # schedulers of clusters set some of these names, too
        return
    if device.type == "cuda":
        own = int(os.environ["LOCAL_RANK"])
        if own >= torch.cuda.device_count():
            raise InputError(f"{torch.cuda.device_count()} GPUs here; start at most as many processes per machine")
        torch.cuda.set_device(own)
    store, rank, world = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
    # Processes that are started again meet where killed ones have left their addresses, and would wait for these.
    name = f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    attempt = dist.PrefixStore(name, store)  # type: ignore[attr-defined]
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo", store=attempt, rank=rank, world_size=world, timeout=_PATIENCE
    )
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
