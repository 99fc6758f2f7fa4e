"""Training the supernet: sandwich of subnets per step, in-place distillation, checkpoints that resume exactly."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor
from torch.nn import functional as F

from nas.data import ImageData
from nas.files import make_folder, sha256_file, write_atomic
from nas.fitting import Backward, Fitted, choose_accelerator, fit
from nas.progress import Progress, no_progress
from nas.sandwich import LARGEST, Sandwich
from nas.supernet import Supernet, channels_last
from nas.training_record import Accelerator, TrainingConfig, TrainingRecord, find_record
from search_spaces.documents import pretty_json
from search_spaces.errors import InputError
from search_spaces.language import NetworkSpace

WEIGHTS_FILE = "weights.safetensors"


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
    sandwich = Sandwich(space, seed=config.seed, random_subnets=config.random_subnets)
    checkpoint = directory / "checkpoint.pt"
    fitted = fit(
        supernet,
        _sandwich_step(supernet, space, sandwich, config),
        data,
        config,
        checkpoint=checkpoint,
        identity=pretty_json({"config": config, "space": space.hash, "data": data.content_hash}),
        progress=progress,
    )
    record = save_supernet(
        supernet, space, data_hash=data.content_hash, directory=directory, config=config, fitted=fitted
    )
    checkpoint.unlink(missing_ok=True)
    return record


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


def _sandwich_step(supernet: Supernet, space: NetworkSpace, sandwich: Sandwich, config: TrainingConfig) -> Backward:
    """Return what adds up the gradients of all subnets of a step; the loss is the largest subnet's."""

    def backward(step: int, images: Tensor, labels: Tensor) -> Tensor:
        soft_labels = largest_loss = torch.empty(0)
        for row, genome in enumerate(sandwich.subnets(step)):
            logits = supernet(images, space.lower(genome))
            if row == LARGEST:
                loss = F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
                largest_loss = loss.detach()
                # In-place distillation (arXiv:1903.05134): the step's largest subnet teaches the others.
                soft_labels = logits.detach().softmax(dim=1)
            else:
                # With its labels alone a weak teacher of the first steps would hold the others back.
                taught = F.cross_entropy(logits, soft_labels)
                told = F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
                loss = config.distillation * taught + (1.0 - config.distillation) * told
            loss.backward()  # type: ignore[no-untyped-call]
        return largest_loss

    return backward


def save_supernet(
    supernet: Supernet,
    space: NetworkSpace,
    *,
    data_hash: str,
    directory: Path,
    config: TrainingConfig | None = None,
    fitted: Fitted | None = None,
    imported_from: str = "",
) -> TrainingRecord:
    """Write weights, then the record that makes them count."""
    weights = directory / WEIGHTS_FILE
    tensors = {name: tensor.cpu().contiguous() for name, tensor in supernet.state_dict().items()}
    write_atomic(weights, save_tensors(tensors))
    record = TrainingRecord(
        format_version=TrainingRecord.CURRENT_VERSION,
        config=config,
        imported_from=imported_from,
        space_hash=space.hash,
        data_hash=data_hash,
        weights_sha256=sha256_file(weights),
        final_loss=fitted.loss if fitted else None,
        seconds=fitted.seconds if fitted else 0.0,
        torch_version=torch.__version__,
    )
    write_atomic(directory / "training.json", pretty_json(record))
    return record


def _check_same(
    record: TrainingRecord, config: TrainingConfig, space: NetworkSpace, data: ImageData, directory: Path
) -> None:
    """Refuse to pass off finished weights as the result of other settings."""
    if record.config is None:
        raise InputError(f"{directory} holds weights imported from {record.imported_from}; use another --run to train")
    pairs = {"space": (record.space_hash, space.hash), "data": (record.data_hash[:16], data.content_hash[:16])}
    pairs |= {f.name: (getattr(record.trained, f.name), getattr(config, f.name)) for f in dataclasses.fields(config)}
    differing = [f"{name} {old}, now {new}" for name, (old, new) in pairs.items() if old != new]
    if differing:
        raise InputError(
            f"{directory} already holds a supernet trained with other settings ({'; '.join(differing)}); "
            "use the same ones or another --run"
        )
