"""What a training step is made of, beside its loss: device, arithmetic, optimiser, learning rate, averaged weights."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from nas.training_record import Accelerator, TrainingConfig
from search_spaces.errors import InputError

_Tensors = tuple[Tensor, ...] | list[Tensor]


def choose_accelerator(accelerator: Accelerator) -> torch.device:
    """Return the torch device to train on; raises `InputError` if CUDA is asked for and absent."""
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise InputError("accelerator 'cuda' is not available here; use --accelerator cpu or auto")
    return torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Return the rate of a step, by the config's schedule."""
    peak, warmup = config.peak_learning_rate, config.warmup_steps
    if config.schedule == "one-cycle":
        # As torch's OneCycleLR, of which momentum stays as it is.
        lowest, top, last = peak / 25.0, max(0, warmup - 1), max(1, config.steps - 1)
        if step < top:
            return _cosine(lowest, peak, step / top)
        return _cosine(peak, lowest / 1e4, min(1.0, (step - top) / max(1, last - top)))
    if step < warmup:
        return peak * (step + 1) / warmup
    left = (config.steps - step) / max(1, config.steps - warmup)
    return peak * 0.5 * (1.0 - math.cos(math.pi * min(1.0, left)))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * share))


def forward_precision(config: TrainingConfig, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which layers compute as the config says, on a device."""
    if not computes_in_bf16(config, device):
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def computes_in_bf16(config: TrainingConfig, device: torch.device) -> bool:
    """Return what the config's arithmetic means on a device."""
    return config.arithmetic == "bf16" or (config.arithmetic == "auto" and device.type == "cuda")


def optimizer_of(module: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Return the optimiser; norms, biases, layer scales and kernel transforms (at first identities) do not decay."""
    kept = {
        name: parameter
        for name, parameter in module.named_parameters()
        if parameter.ndim <= 1 or ".transforms." in name
    }
    groups: list[dict[str, Any]] = [
        {
            "params": [parameter for name, parameter in module.named_parameters() if name not in kept],
            "weight_decay": config.weight_decay,
        },
        {"params": list(kept.values()), "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        nesterov = config.momentum > 0
        return torch.optim.SGD(groups, lr=config.peak_learning_rate, momentum=config.momentum, nesterov=nesterov)
    return torch.optim.AdamW(groups, lr=config.peak_learning_rate)


def averaged(module: nn.Module, decay: float) -> AveragedModel:
    """Return a module's moving average, to be updated after every step; batch norm's statistics are the last ones."""

    @torch.no_grad()
    def update(means: _Tensors, values: _Tensors, count: Tensor | int) -> None:
        # A long memory would keep the random first weights.
        now = min(decay, (1.0 + float(count)) / (10.0 + float(count)))
        for mean, value in zip(means, values, strict=True):
            mean.lerp_(value, 1.0 - now)

    return AveragedModel(module, multi_avg_fn=update)
