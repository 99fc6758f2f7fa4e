"""Training the supernet: sandwich of subnets per step, in-place distillation, checkpoints that resume exactly."""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor
from torch.nn import functional as F

from nas.checkpoint import remove_checkpoints
from nas.data import ImageData
from nas.distillation import DISTILLATION_LOSSES
from nas.distributed import ALONE, Ranks
from nas.files import make_folder, sha256_file, write_atomic
from nas.fitting import Fitted, Notice, StepOutcome, fit, ignore
from nas.gradients import without_conflict
from nas.initial_weights import take_over
from nas.optimization import choose_accelerator, computes_in_bf16, forward_precision
from nas.progress import Progress, no_progress
from nas.sandwich import SMALLEST, Sandwich
from nas.supernet import DropPath, Supernet, channels_last
from nas.training_record import (
    WEIGHTS_FILE,
    Accelerator,
    InitialWeights,
    TrainingConfig,
    TrainingRecord,
    find_record,
    weights_intact,
)
from search_spaces.documents import pretty_json
from search_spaces.errors import InputError, MachineError
from search_spaces.language import NetworkSpace
from search_spaces.space import Genomes

LOG_FILE = "training.csv"
_HEAD = "slots.head."
_DROP_STREAM = 3  # keeps these draws apart from others of the same seed


def train_supernet(
    space: NetworkSpace,
    data: ImageData,
    config: TrainingConfig,
    *,
    directory: Path,
    accelerator: Accelerator = "auto",
    initial: Path | None = None,
    tensorboard: bool = False,
    ranks: Ranks = ALONE,
    progress: Progress = no_progress,
    notice: Notice = ignore,
) -> TrainingRecord:
    """Train a supernet; write ``weights.safetensors``, ``training.json`` and ``training.csv`` into `directory`.

    Every random draw is a function of the seed and the step, so a run that was killed goes on from its last checkpoint
    as if it had not been. A directory that already holds the result of the same config is left as it is.

    Args:
        space: what the supernet covers.
        data: supplies the training split.
        config: how to train.
        directory: where to write.
        accelerator: what to train on.
        ranks: which of several processes this is (`nas.distributed.joined`); all call this function alike.
        initial: weights to start from, as `take_over` reads them; None draws them at random.
        tensorboard: also write what ``training.csv`` tells into ``tensorboard/``.
        progress: called after each step.
        notice: told what a user should see, and what does not end the training.

    Raises:
        InputError: the directory holds a training with another config, space or data; or CUDA is asked for and absent.
        CheckError: the loss is not finite.
        MachineError: the directory cannot be written, or the memory does not suffice.
    """
    target = choose_accelerator(accelerator)
    supernet = Supernet(space, seed=config.seed)
    taken_over = None if initial is None else take_over(supernet, space, initial)
    if (record := find_record(directory)) is not None:
        _check_same(record, config, space, data, taken_over, ranks.world, directory)
        if weights_intact(record, directory):
            return record
    make_folder(directory)
    supernet = channels_last(supernet).to(target)
    sandwich = Sandwich(
        space,
        seed=config.seed,
        random_subnets=config.random_subnets,
        balanced=config.sampling == "balanced",
        shrinking=config.shrinking,
        steps=config.steps,
    )
    checkpoint = directory / "checkpoint.pt"
    fitted = fit(
        supernet,
        SandwichStep(supernet, space, sandwich, config, rank=ranks.rank),
        data,
        config,
        checkpoint=checkpoint,
        identity=pretty_json(
            {
                "settings": config.chosen,
                "space": space.hash,
                "data": data.content_hash,
                "start": taken_over.sha256 if taken_over else "",
                "processes": ranks.world,
                "arithmetic": "bf16" if computes_in_bf16(config, target) else "fp32",
            }
        ),
        log=directory / LOG_FILE,
        events=directory / "tensorboard" if tensorboard and ranks.first else None,
        ranks=ranks,
        progress=progress,
        notice=notice,
    )
    if ranks.first:
        save_supernet(
            supernet,
            space,
            data_hash=data.content_hash,
            directory=directory,
            config=config,
            fitted=fitted,
            initial=taken_over,
            processes=ranks.world,
        )
        remove_checkpoints(checkpoint)
    ranks.wait()
    record = find_record(directory)
    if record is None:
        raise MachineError(f"{directory} is not what the first process has written: all need the same file system")
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


class SandwichStep:
    """Adds up the gradients of all subnets of a step."""

    def __init__(
        self, supernet: Supernet, space: NetworkSpace, sandwich: Sandwich, config: TrainingConfig, *, rank: int = 0
    ) -> None:
        self._supernet, self._space, self._sandwich, self._config = supernet, space, sandwich, config
        self._rank = rank
        self._distill = DISTILLATION_LOSSES[config.divergence]
        self._parameters = list(supernet.parameters())
        self._body = [each for name, each in supernet.named_parameters() if not name.startswith(_HEAD)]

    def __call__(self, step: int, images: Tensor, labels: Tensor) -> StepOutcome:
        """Run a step's subnets forwards and backwards; see `Backward`."""
        config = self._config
        largest, *others = subnets = self._sandwich.subnets(step)
        # Small subnets have too little to spare for being held back (NASViT, section 3.3).
        teacher = self._logits(largest, images, _drop_path(config, step, self._rank))
        largest_loss = F.cross_entropy(teacher, labels, label_smoothing=config.label_smoothing)
        largest_loss.backward()  # type: ignore[no-untyped-call]
        project = step >= config.projection_from * config.steps
        alone = self._taken_gradients() if project else []
        smallest_loss = smallest_correct = None
        for row, genome in enumerate(others, start=1):
            seen = self._part(row, len(labels))
            logits = self._logits(genome, images[seen])
            # With its labels alone a weak teacher of the first steps would hold the others back.
            told = F.cross_entropy(logits, labels[seen], label_smoothing=config.label_smoothing)
            # In-place distillation (arXiv:1903.05134): the step's largest subnet teaches the others.
            taught = self._distill(logits, teacher[seen].detach())
            loss = config.distillation * taught + (1.0 - config.distillation) * told
            (loss * ((seen.stop - seen.start) / len(labels))).backward()
            if row == SMALLEST:
                smallest_loss, smallest_correct = told.detach(), (logits.argmax(dim=1) == labels).float().mean()
        if project:
            combined = without_conflict(alone, [each.grad for each in self._parameters])
            for parameter, gradient in zip(self._parameters, combined, strict=True):
                parameter.grad = gradient
        if step < config.head_warmup_steps:
            for parameter in self._body:
                parameter.grad = None
        token = zlib.crc32(np.ascontiguousarray(subnets).tobytes())
        return StepOutcome(largest_loss.detach(), smallest_loss, smallest_correct, token)

    def _logits(self, genome: Genomes, images: Tensor, drop_path: DropPath | None = None) -> Tensor:
        with forward_precision(self._config, images.device):
            logits: Tensor = self._supernet(
                images, self._space.lower(genome), drop_path, recompute=self._config.recompute
            )
        return logits.float()

    def _part(self, row: int, n_images: int) -> slice:
        """Return which of a step's images a subnet sees: all, unless random subnets share them out."""
        first, count = row - SMALLEST - 1, self._config.random_subnets
        if row == SMALLEST or not self._config.split_batch:
            return slice(0, n_images)
        if n_images < 2 * count:
            raise InputError(f"split_batch needs two images for each of {count} random subnets, a step has {n_images}")
        return slice(first * n_images // count, (first + 1) * n_images // count)

    def _taken_gradients(self) -> list[Tensor | None]:
        """Return the gradients so far, and leave none behind."""
        gradients = [each.grad for each in self._parameters]
        for parameter in self._parameters:
            parameter.grad = None
        return gradients


def _drop_path(config: TrainingConfig, step: int, rank: int) -> DropPath | None:
    """Return which residual blocks of a step are left out, image by image; a function of seed and step."""
    if not config.drop_path:
        return None
    seed = int(np.random.SeedSequence([config.seed, _DROP_STREAM, step, rank]).generate_state(1)[0])
    return DropPath(config.drop_path, torch.Generator().manual_seed(seed))


def save_supernet(
    supernet: Supernet,
    space: NetworkSpace,
    *,
    data_hash: str,
    directory: Path,
    config: TrainingConfig | None = None,
    fitted: Fitted | None = None,
    initial: InitialWeights | None = None,
    processes: int = 1,
    imported_from: str = "",
) -> TrainingRecord:
    """Write weights, then the record that makes them count."""
    weights = directory / WEIGHTS_FILE
    tensors = {name: tensor.cpu().contiguous() for name, tensor in supernet.state_dict().items()}
    write_atomic(weights, save_tensors(tensors))
    record = TrainingRecord(
        format_version=TrainingRecord.CURRENT_VERSION,
        config=config,
        processes=processes,
        imported_from=imported_from,
        initial=initial,
        space_hash=space.hash,
        data_hash=data_hash,
        weights_sha256=sha256_file(weights),
        final_loss=fitted.loss if fitted else None,
        seconds=fitted.seconds if fitted else 0.0,
        torch_version=torch.__version__,
    )
    write_atomic(directory / "training.json", pretty_json(record))
    return record


def _identified(initial: InitialWeights | None) -> str:
    return "weights drawn at random" if initial is None else f"weights {initial.sha256[:16]} of {initial.source}"


def _check_same(
    record: TrainingRecord,
    config: TrainingConfig,
    space: NetworkSpace,
    data: ImageData,
    initial: InitialWeights | None,
    processes: int,
    directory: Path,
) -> None:
    """Refuse to pass off finished weights as the result of other settings."""
    if record.config is None:
        raise InputError(f"{directory} holds weights imported from {record.imported_from}; use another --run to train")
    pairs = {"space": (record.space_hash, space.hash), "data": (record.data_hash[:16], data.content_hash[:16])}
    if (record.initial and record.initial.sha256) != (initial and initial.sha256):
        pairs["start"] = (_identified(record.initial), _identified(initial))
    pairs["processes"] = (str(record.processes), str(processes))
    pairs |= {f.name: (getattr(record.trained, f.name), getattr(config, f.name)) for f in dataclasses.fields(config)}
    differing = [f"{name} {old}, now {new}" for name, (old, new) in pairs.items() if old != new]
    if differing:
        raise InputError(
            f"{directory} already holds a supernet trained with other settings ({'; '.join(differing)}); "
            "use the same ones or another --run"
        )
