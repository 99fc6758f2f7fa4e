"""Training the supernet: sandwich of subnets per step, in-place distillation, checkpoints that resume exactly."""

from __future__ import annotations

import dataclasses
import io
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor
from torch.nn import functional as F

from nas.data import ImageData, ImageSplit
from nas.files import make_folder, sha256_file, write_atomic
from nas.progress import Progress, no_progress
from nas.sandwich import LARGEST, Sandwich
from nas.supernet import Supernet, channels_last
from nas.training_record import Accelerator, TrainingConfig, TrainingRecord, find_record
from search_spaces.documents import pretty_json
from search_spaces.errors import CheckError, InputError
from search_spaces.language import NetworkSpace

WEIGHTS_FILE = "weights.safetensors"
_DATA_STREAM = 2  # keeps the order of images apart from other draws of the same seed
_CHECKPOINT_EVERY = 20  # steps; about ten seconds of work on two cores


def train_supernet(
    space: NetworkSpace,
    data: ImageData,
    config: TrainingConfig,
    *,
    directory: Path,
    accelerator: Accelerator = "auto",
    progress: Progress = no_progress,
) -> TrainingRecord:
    """Train a supernet and write ``weights.safetensors`` and ``training.json`` into `directory`.

    Every random draw is a function of the seed and the step, so a run that was killed goes on from its last checkpoint
    as if it had not been. A directory that already holds the result of the same config is left as it is.

    Raises:
        InputError: the directory holds a training with another config, space or data; or CUDA is asked for and absent.
        CheckError: the loss is not finite.
        MachineError: the directory cannot be written.
    """
    target = choose_accelerator(accelerator)
    if (record := find_record(directory)) is not None:
        _check_same(record, config, space, data, directory)
        if weights_intact(record, directory):
            return record
    make_folder(directory)
    supernet = channels_last(Supernet(space, seed=config.seed)).to(target)
    optimizer = _optimizer(supernet, config)
    state = _State(supernet, optimizer, directory / "checkpoint.pt", identity=_identity(config, space, data))
    sandwich = Sandwich(space, seed=config.seed, random_subnets=config.random_subnets)
    train = data.split("train")
    supernet.train()
    start, loss = state.load(), math.nan
    progress(start, config.steps)
    for step in range(start, config.steps):
        images, labels = _batch(data, train, config, step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        loss = _train_step(supernet, optimizer, space, sandwich, step, images.to(target), labels.to(target), config)
        if (step + 1) % _CHECKPOINT_EVERY == 0 and step + 1 < config.steps:
            state.save(step + 1)
        progress(step + 1, config.steps)
    return _finish(supernet, space, data, config, directory, loss)


def load_supernet(space: NetworkSpace, directory: Path) -> tuple[Supernet, TrainingRecord]:
    """Read trained weights.

    Raises:
        InputError: nothing is trained in `directory`, it belongs to another space, or the weights are damaged.
    """
    record = find_record(directory)
    if record is None:
        raise InputError(f"{directory} holds no trained supernet; run `nas train` first")
    if record.space_hash != space.hash:
        raise InputError(f"{directory} holds a supernet of space {record.space_hash}, this run's is {space.hash}")
    path = directory / WEIGHTS_FILE
    if not weights_intact(record, directory):
        raise InputError(f"{path} is missing or damaged (its hash is not the recorded one); run `nas train` again")
    supernet = Supernet(space, seed=0)
    try:
        supernet.load_state_dict(load_tensors(path.read_bytes()))
    except (SafetensorError, RuntimeError) as error:
        raise InputError(f"{path} does not fit the space: {str(error).splitlines()[0]}") from None
    return channels_last(supernet).eval(), record


def weights_intact(record: TrainingRecord, directory: Path) -> bool:
    """Return whether the weights file is there and is the recorded one."""
    path = directory / WEIGHTS_FILE
    return path.is_file() and sha256_file(path) == record.weights_sha256


def choose_accelerator(accelerator: Accelerator) -> torch.device:
    """Return the torch device to train on; raises `InputError` if CUDA is asked for and absent."""
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise InputError("accelerator 'cuda' is not available here; use --accelerator cpu or auto")
    return torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Return the rate of a step: linear warm-up, then a cosine to zero."""
    if step < config.warmup_steps:
        return config.peak_learning_rate * (step + 1) / config.warmup_steps
    left = (config.steps - step) / max(1, config.steps - config.warmup_steps)
    return config.peak_learning_rate * 0.5 * (1.0 - math.cos(math.pi * min(1.0, left)))


def _train_step(
    supernet: Supernet,
    optimizer: torch.optim.Optimizer,
    space: NetworkSpace,
    sandwich: Sandwich,
    step: int,
    images: Tensor,
    labels: Tensor,
    config: TrainingConfig,
) -> float:
    """Update the weights once from all subnets of a step; returns the largest subnet's loss."""
    optimizer.zero_grad(set_to_none=True)
    soft_labels = torch.empty(0)
    largest_loss = math.nan
    for row, genome in enumerate(sandwich.subnets(step)):
        logits = supernet(images, space.lower(genome))
        if row == LARGEST:
            loss = F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
            largest_loss = float(loss.detach())
            # In-place distillation (arXiv:1903.05134): the step's largest subnet teaches the others.
            soft_labels = logits.detach().softmax(dim=1)
        else:
            loss = F.cross_entropy(logits, soft_labels)
        loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(supernet.parameters(), config.gradient_norm)
    if not (math.isfinite(largest_loss) and bool(torch.isfinite(norm))):
        raise CheckError(f"training diverged at step {step}: loss {largest_loss}; lower the learning rate")
    optimizer.step()
    return largest_loss


def _batch(data: ImageData, train: ImageSplit, config: TrainingConfig, step: int) -> tuple[Tensor, Tensor]:
    """Return a step's images and labels: the training split in a fresh order every epoch."""
    size = min(config.batch_size, len(train.labels))
    epoch, position = divmod(step, max(1, len(train.labels) // size))
    order = np.random.default_rng([config.seed, _DATA_STREAM, epoch]).permutation(len(train.labels))
    chosen = order[position * size : (position + 1) * size]
    images = torch.from_numpy(data.normalise(train.images[chosen]))
    return images.to(memory_format=torch.channels_last), torch.from_numpy(train.labels[chosen])


def _optimizer(supernet: Supernet, config: TrainingConfig) -> torch.optim.Optimizer:
    """Return AdamW without weight decay on norms, biases and layer scales."""
    parameters = list(supernet.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.peak_learning_rate)


def _identity(config: TrainingConfig, space: NetworkSpace, data: ImageData) -> str:
    """Return a text that is equal for trainings that may resume each other."""
    return pretty_json({"config": config, "space": space.hash, "data": data.content_hash})


@dataclass(frozen=True, slots=True)
class _State:
    """The checkpoint: weights and optimiser, tied to what is being trained."""

    supernet: Supernet
    optimizer: torch.optim.Optimizer
    path: Path
    identity: str

    def save(self, step: int) -> None:
        """Write a checkpoint from which `step` is the next to run."""
        content = {
            "identity": self.identity,
            "step": step,
            "supernet": self.supernet.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        write_atomic(self.path, buffer.getvalue())

    def load(self) -> int:
        """Restore the checkpoint if there is one; returns the next step to run."""
        if not self.path.exists():
            return 0
        try:
            # torch writes check sums into its archive, but does not look at them.
            with zipfile.ZipFile(self.path) as archive:
                damaged = archive.testzip() is not None
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            identity, step = content["identity"], int(content["step"])
            if identity == self.identity and not damaged:
                self.supernet.load_state_dict(content["supernet"])
                self.optimizer.load_state_dict(content["optimizer"])
        except Exception as error:  # noqa: BLE001 - torch documents no error type for damaged files
            raise InputError(f"{self.path} is not a readable checkpoint ({type(error).__name__}); delete it") from None
        if damaged:
            raise InputError(f"{self.path} is damaged; delete it to start over")
        if identity != self.identity:
            raise InputError(
                f"{self.path} belongs to a training with other settings; use the same ones, or delete it to start over"
            )
        return step


def _finish(
    supernet: Supernet, space: NetworkSpace, data: ImageData, config: TrainingConfig, directory: Path, loss: float
) -> TrainingRecord:
    """Write the final weights, then the record that makes them count, then drop the checkpoint."""
    weights = directory / WEIGHTS_FILE
    tensors = {name: tensor.cpu().contiguous() for name, tensor in supernet.state_dict().items()}
    write_atomic(weights, save_tensors(tensors))
    record = TrainingRecord(
        format_version=TrainingRecord.CURRENT_VERSION,
        config=config,
        space_hash=space.hash,
        data_hash=data.content_hash,
        weights_sha256=sha256_file(weights),
        final_loss=loss,
        torch_version=torch.__version__,
    )
    write_atomic(directory / "training.json", pretty_json(record))
    (directory / "checkpoint.pt").unlink(missing_ok=True)
    return record


def _check_same(
    record: TrainingRecord, config: TrainingConfig, space: NetworkSpace, data: ImageData, directory: Path
) -> None:
    """Refuse to pass off finished weights as the result of other settings."""
    pairs = {"space": (record.space_hash, space.hash), "data": (record.data_hash[:16], data.content_hash[:16])}
    pairs |= {f.name: (getattr(record.config, f.name), getattr(config, f.name)) for f in dataclasses.fields(config)}
    differing = [f"{name} {old}, now {new}" for name, (old, new) in pairs.items() if old != new]
    if differing:
        raise InputError(
            f"{directory} already holds a supernet trained with other settings ({'; '.join(differing)}); "
            "use the same ones or another --run"
        )
