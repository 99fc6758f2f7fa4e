"""Training the supernet: subnets of every step, who teaches whom, checkpoints that resume exactly."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from nas.checkpoint import remove_checkpoints
from nas.data import ImageData
from nas.distributed import ALONE, Ranks
from nas.files import make_folder, sha256_file, write_atomic
from nas.fitting import Fitted, batch_rows, fit
from nas.initial_weights import take_over
from nas.optimization import choose_accelerator, computes_in_bf16
from nas.progress import Notice, Progress, ignore, no_progress
from nas.sandwich import Sandwich
from nas.sandwich_step import Answers, SandwichStep
from nas.supernet import Supernet, channels_last
from nas.teacher import SoftLabels, Teacher, kept_answers
from nas.training_log import LOG_FILE, require_tensorboard
from nas.training_record import (
    WEIGHTS_FILE,
    Accelerator,
    InitialWeights,
    TeacherRecord,
    TrainingConfig,
    TrainingRecord,
    find_record,
    weights_intact,
)
from search_spaces.documents import pretty_json
from search_spaces.errors import InputError, MachineError, first_line
from search_spaces.language import NetworkSpace

_NOT_SHARED = "{} is not what the first process has written: all need the same file system"


def train_supernet(
    space: NetworkSpace,
    data: ImageData,
    config: TrainingConfig,
    *,
    directory: Path,
    accelerator: Accelerator = "auto",
    initial: Path | None = None,
    teacher: str | None = None,
    tensorboard: bool = False,
    ranks: Ranks = ALONE,
    preparing: Progress = no_progress,
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
        teacher: an ONNX file or ``MODULE:FUNCTION``, see `nas.teacher.Teacher`; or None.
        tensorboard: also write what ``training.csv`` tells into ``tensorboard/``.
        preparing: told of the images that the teacher has answered to.
        progress: called after each step.
        notice: told what a user should see, and what does not end the training.

    Raises:
        InputError: the directory holds a training with another config, space, data or teacher; the teacher is none; or
            CUDA or TensorBoard is asked for and absent.
        CheckError: the loss is not finite.
        MachineError: the directory cannot be written, or the memory does not suffice.
    """
    target = choose_accelerator(accelerator)
    supernet = Supernet(space, seed=config.seed)
    taken_over = None if initial is None else take_over(supernet, space, initial)
    if tensorboard:
        require_tensorboard()
    if (record := find_record(directory)) is not None:
        _check_same(record, config, space, data, taken_over, teacher, ranks.world, directory)
    taught = answers = None
    if teacher is not None:
        soft = _asked(teacher, data, directory, target, ranks, preparing)
        right = soft.right(data.split("train").labels)
        taught = TeacherRecord(source=teacher, sha256=soft.sha256, train_accuracy=right)
        answers = step_answers(soft, data, config, ranks)
    if record is not None:
        _check_same_teacher(record, taught, directory)
        if weights_intact(record, directory):
            return record
    make_folder(directory)
    supernet = channels_last(supernet).to(target)
    checkpoint = directory / "checkpoint.pt"
    fitted = fit(
        supernet,
        SandwichStep(
            supernet,
            space,
            Sandwich.of(space, config),
            config,
            rank=ranks.rank,
            taught=answers,
        ),
        data,
        config,
        checkpoint=checkpoint,
        identity=pretty_json(
            {
                "settings": config.identity,
                "space": space.hash,
                "data": data.content_hash,
                "start": taken_over.sha256 if taken_over else "",
                "teacher": taught.sha256 if taught else "",
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
            teacher=taught,
            processes=ranks.world,
        )
        remove_checkpoints(checkpoint)
    ranks.wait()
    record = find_record(directory)
    if record is None:
        raise MachineError(_NOT_SHARED.format(directory))
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
        raise InputError(f"{path} does not fit the space: {first_line(error)}") from None
    return channels_last(supernet).eval(), record


def save_supernet(
    supernet: Supernet,
    space: NetworkSpace,
    *,
    data_hash: str,
    directory: Path,
    config: TrainingConfig | None = None,
    fitted: Fitted | None = None,
    initial: InitialWeights | None = None,
    teacher: TeacherRecord | None = None,
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
        teacher=teacher,
        space_hash=space.hash,
        data_hash=data_hash,
        weights_sha256=sha256_file(weights),
        final_loss=fitted.loss if fitted else None,
        seconds=fitted.seconds if fitted else 0.0,
        torch_version=torch.__version__,
    )
    write_atomic(directory / "training.json", pretty_json(record))
    return record


def _asked(
    teacher: str, data: ImageData, directory: Path, device: torch.device, ranks: Ranks, progress: Progress
) -> SoftLabels:
    """Return the answers of a teacher: the first process asks it, the others read what it wrote."""
    if ranks.first:
        soft = Teacher(teacher, data, device).soft_labels(directory, progress)
        ranks.wait()
        return soft
    ranks.wait()
    kept = kept_answers(directory, data)
    if kept is None:
        raise MachineError(_NOT_SHARED.format(directory))
    return kept


def step_answers(soft: SoftLabels, data: ImageData, config: TrainingConfig, ranks: Ranks) -> Answers:
    """Return a teacher's answers to the images that a process sees in each step."""
    n_images = len(data.split("train").labels)

    def of_step(step: int) -> Tensor:
        rows = batch_rows(config, n_images, step)
        return soft.of(rows[ranks.part(len(rows))])

    return of_step


def _identified(initial: InitialWeights | None) -> str:
    return "weights drawn at random" if initial is None else f"weights {initial.sha256[:16]} of {initial.source}"


def _check_same(
    record: TrainingRecord,
    config: TrainingConfig,
    space: NetworkSpace,
    data: ImageData,
    initial: InitialWeights | None,
    teacher: str | None,
    processes: int,
    directory: Path,
) -> None:
    """Refuse to pass off finished weights as the result of other settings."""
    if record.config is None:
        raise InputError(f"{directory} holds weights imported from {record.imported_from}; use another --run to train")
    pairs = {"space": (record.space_hash, space.hash), "data": (record.data_hash[:16], data.content_hash[:16])}
    if (record.initial and record.initial.sha256) != (initial and initial.sha256):
        pairs["start"] = (_identified(record.initial), _identified(initial))
    if (record.teacher is None) != (teacher is None):
        pairs["teacher"] = (record.teacher.source if record.teacher else "none", teacher or "none")
    pairs["processes"] = (str(record.processes), str(processes))
    pairs |= {f.name: (getattr(record.trained, f.name), getattr(config, f.name)) for f in dataclasses.fields(config)}
    differing = [f"{name} {old}, now {new}" for name, (old, new) in pairs.items() if old != new]
    if differing:
        raise InputError(
            f"{directory} already holds a supernet trained with other settings ({'; '.join(differing)}); "
            "use the same ones or another --run"
        )


def _check_same_teacher(record: TrainingRecord, taught: TeacherRecord | None, directory: Path) -> None:
    if record.teacher and taught and record.teacher.sha256 != taught.sha256:
        raise InputError(
            f"{directory} holds a supernet of another teacher than {taught.source} is now; use another --run"
        )
