"""Is the search worth it? A hand-made design, scaled to the same measured latency and trained at a stated cost."""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn import functional as F

from nas.baseline_record import PLAN_FILE, RESULT_FILE, Baseline, BaselinePlan
from nas.block_cache import BlockCache
from nas.checkpoint import remove_checkpoints
from nas.data import ImageData
from nas.devices import Device
from nas.evaluate import standalone_accuracy
from nas.files import make_folder, read_document, write_atomic
from nas.fitting import Fitted, StepOutcome, fit, images_seen, share_correct
from nas.network_latency import measure_beside_table
from nas.onnx_format import exporter_name
from nas.optimization import choose_accelerator, forward_precision
from nas.progress import Progress, no_progress
from nas.supernet import Network, channels_last
from nas.training_record import Accelerator, TrainingConfig
from predictors.latency import LatencyPredictor
from predictors.quality import standard_error
from search_spaces.documents import content_hash, pretty_json
from search_spaces.errors import InputError
from search_spaces.layout import ImageInput
from search_spaces.presets import Preset, Rung, find_preset
from search_spaces.spec import NetworkSpec, PlacedBlock, block_key

_CHECKPOINT_FILE = "checkpoint.pt"
_TIMED_STEPS = 12


def plan_baseline(
    preset: Preset,
    limit_ms: float,
    config: TrainingConfig,
    *,
    seconds: float | None = None,
    data: ImageData,
    latency: LatencyPredictor,
    cache: BlockCache,
    device: Device,
    directory: Path,
    accelerator: Accelerator = "auto",
    progress: Progress = no_progress,
) -> BaselinePlan:
    """Scale a preset to a latency: all its sizes are measured, and the slowest inside the limit is taken.

    A plan that `directory` already holds is returned as it is.

    Args:
        preset: the design.
        limit_ms: what the measured latency must keep.
        config: of the training to come.
        seconds: how long the training is to take, instead of the steps in `config`: a few steps are timed.
        data: what it will be trained on.
        latency: predictions of the device's table: searched networks were measured beside networks of it, so these are.
        cache: where blocks are exported to.
        device: what to measure on.
        directory: where the plan is kept.
        accelerator: what the training will run on.
        progress: told of the exported blocks, then of measuring.

    Raises:
        InputError: even the smallest size is slower than that.
        MachineError: the device failed, or the plan cannot be written.
    """
    path = directory / PLAN_FILE
    if path.exists():
        return read_document(path, BaselinePlan)
    ladder = preset.ladder(image_input(data))
    rung, latency_ms = _scale(
        preset, ladder, limit_ms, latency=latency, cache=cache, device=device, seed=config.seed, progress=progress
    )
    if seconds is not None:
        config = config.lasting(steps_within(seconds, rung.spec, data, config, accelerator))
    plan = BaselinePlan(
        format_version=BaselinePlan.CURRENT_VERSION,
        preset=preset.name,
        width=rung.width,
        depth=rung.depth,
        latency_ms=latency_ms,
        limit_ms=limit_ms,
        device=device.name,
        config=config,
    )
    make_folder(directory)
    write_atomic(path, pretty_json(plan))
    return plan


def train_baseline(
    plan: BaselinePlan,
    data: ImageData,
    *,
    directory: Path,
    accelerator: Accelerator = "auto",
    progress: Progress = no_progress,
) -> Baseline:
    """Train and evaluate what was planned; a directory that already holds the result is left as it is.

    Raises:
        InputError, CheckError, MachineError: as `train_network`.
    """
    path = directory / RESULT_FILE
    if path.exists():
        return read_document(path, Baseline)
    checkpoint = directory / _CHECKPOINT_FILE
    spec = find_preset(plan.preset).network(image_input(data), width=plan.width, depth=plan.depth)
    network, fitted = train_network(
        spec, data, plan.config, checkpoint=checkpoint, accelerator=accelerator, progress=progress
    )
    accuracy, images = standalone_accuracy(network, data, "validation"), len(data.split("validation").labels)
    result = Baseline(
        format_version=Baseline.CURRENT_VERSION,
        plan=plan,
        params=spec.params(),
        macs=spec.macs(),
        validation_accuracy=accuracy,
        validation_standard_error=standard_error(accuracy, images),
        validation_images=images,
        images_seen=images_seen(plan.config, data),
        seconds=fitted.seconds,
    )
    write_atomic(path, pretty_json(result))
    remove_checkpoints(checkpoint)
    return result


def train_network(
    spec: NetworkSpec,
    data: ImageData,
    config: TrainingConfig,
    *,
    checkpoint: Path,
    accelerator: Accelerator = "auto",
    progress: Progress = no_progress,
) -> tuple[Network, Fitted]:
    """Train one network from scratch: with the supernet's loss on labels, optimiser, schedule and augmentation.

    Args:
        spec: the network.
        data: supplies the training split.
        config: how to train; what it says of subnets, teachers, drop path, recomputing and the head alone does
            not matter.
        checkpoint: file to resume from; the caller deletes it.
        accelerator: what to train on.
        progress: called after each step.

    Raises:
        InputError: the checkpoint is of another training, or CUDA is asked for and absent.
        CheckError: the loss is not finite.
        MachineError: the checkpoint cannot be written.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = channels_last(Network(spec)).to(choose_accelerator(accelerator))

    def backward(step: int, images: torch.Tensor, labels: torch.Tensor) -> StepOutcome:
        with forward_precision(config, images.device):
            logits = network(images).float()
        loss = F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        return StepOutcome(loss.detach(), share_correct(logits, labels))

    identity = pretty_json(
        {"settings": config.identity, "network": [_identified(placed) for placed in spec], "data": data.content_hash}
    )
    fitted = fit(network, backward, data, config, checkpoint=checkpoint, identity=identity, progress=progress)
    return network.cpu().eval(), fitted


def steps_within(
    seconds: float, spec: NetworkSpec, data: ImageData, config: TrainingConfig, accelerator: Accelerator = "auto"
) -> int:
    """Return how many training steps of a network take a number of seconds on this machine, timed on a few of them."""
    times: list[float] = []
    with tempfile.TemporaryDirectory(prefix="nas-timing-") as folder:
        train_network(
            spec,
            data,
            dataclasses.replace(config, steps=_TIMED_STEPS, warmup_steps=0),
            checkpoint=Path(folder) / _CHECKPOINT_FILE,
            accelerator=accelerator,
            progress=lambda done, total: times.append(time.perf_counter()),
        )
    step_s = statistics.median(after - before for before, after in itertools.pairwise(times[1:]))
    return max(1, round(seconds / step_s))


def baseline_folder(
    preset: Preset,
    limit_ms: float,
    config: TrainingConfig,
    *,
    seconds: float | None,
    data: ImageData,
    device: Device,
    accelerator: Accelerator,
) -> str:
    """Return the name of a baseline's folder: equal only for what would be planned, measured and trained alike.

    Raises:
        InputError: `seconds` is not a time.
    """
    if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
        raise InputError(f"seconds must be a positive number, got {seconds}")
    sizes = [[_identified(placed) for placed in rung.spec] for rung in preset.ladder(image_input(data))]
    asked = [limit_ms, config.identity, seconds, accelerator, data.content_hash]
    measured_by = [device.name, device.fingerprint().hash, exporter_name()]
    return f"{preset.name}-{content_hash([sizes, asked, measured_by], 8)}"


def image_input(data: ImageData) -> ImageInput:
    """Return what a network for a data set is given and asked for."""
    return ImageInput(channels=data.channels, resolution=data.resolution, classes=len(data.class_names))


def _scale(
    preset: Preset,
    ladder: Sequence[Rung],
    limit_ms: float,
    *,
    latency: LatencyPredictor,
    cache: BlockCache,
    device: Device,
    seed: int,
    progress: Progress,
) -> tuple[Rung, float]:
    """Return the slowest size of a preset that was measured inside the limit, and its latency."""
    cache.fill(list(dict.fromkeys(placed.block for rung in ladder for placed in rung.spec)), progress)
    names = [f"{preset.name}-{number}" for number in range(len(ladder))]
    with tempfile.TemporaryDirectory(prefix="nas-baseline-") as folder:
        measured = measure_beside_table(
            latency,
            {name: rung.spec for name, rung in zip(names, ladder, strict=True)},
            cache,
            device,
            work_dir=Path(folder),
            seed=seed,
            progress=progress,
        ).latency_ms
    inside = [(ms, rung) for ms, rung in zip(measured, ladder, strict=True) if ms <= limit_ms]
    if not inside:
        fastest = min(measured)
        raise InputError(
            f"the smallest {preset.name} takes {fastest:.4g} ms, above {limit_ms:.4g} ms; give a larger --budget-ms"
        )
    latency_ms, rung = max(inside, key=lambda entry: entry[0])
    return rung, latency_ms


def _identified(placed: PlacedBlock) -> list[str]:
    return [placed.slot, block_key(placed.block)]
