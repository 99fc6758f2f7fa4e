"""Settings of a training and the record of a finished one; loads no torch, so that commands can ask without it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Self, get_args

from nas.files import read_document, sha256_file
from search_spaces.documents import decode, document, parse_toml, read_text
from search_spaces.errors import InputError, unknown_name

Accelerator = Literal["auto", "cpu", "cuda"]
Sampling = Literal["uniform", "balanced", "bounded"]
Optimizer = Literal["adamw", "sgd"]
Schedule = Literal["cosine", "one-cycle"]
Divergence = Literal["kl", "alpha"]
Arithmetic = Literal["auto", "fp32", "bf16"]


def parse_accelerator(name: str) -> Accelerator:
    """Return what to train on; raises `InputError` for an unknown name."""
    for known in get_args(Accelerator):
        if name == known:
            accelerator: Accelerator = known
            return accelerator
    raise unknown_name("accelerator", name, get_args(Accelerator))


_DEFAULTS = 2  # to be raised when a default changes: a training that was stopped must not go on with other ones


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """How a supernet is trained.

    Attributes:
        steps: of the optimiser.
        batch_size: images per step.
        sandwich: update the largest and the smallest subnet in every step (arXiv:1903.05134), beside random ones.
        random_subnets: in a step.
        sampling: of the random subnets' sizes: ``uniform``; ``balanced``, which trains cheap and dear ones as often as
            those in the middle; or ``bounded``, of MACs that rise and fall slowly from step to step (ElasticViT,
            arXiv:2303.09730).
        shrinking: kinds of sizes that become free one after the other, such as kernel, depth and width; all others are
            free from the start (progressive shrinking, arXiv:1908.09791).
        split_batch: share a step's images out among the random subnets, instead of showing all to each (ViT-ResNAS,
            arXiv:2109.00642): more random subnets at the cost of one.
        optimizer: AdamW, or SGD with Nesterov's momentum.
        momentum: of SGD.
        schedule: ``cosine`` rises linearly to the peak and falls to zero as a cosine; ``one-cycle`` rises and falls as
            cosines, from a 25th of the peak (arXiv:1708.07120).
        peak_learning_rate: reached after the warm-up.
        warmup_steps: over which the rate rises; `training_config` makes it a tenth of the steps where nothing is said.
        weight_decay: on weights of two dimensions or more.
        gradient_norm: above which gradients are scaled down.
        label_smoothing: of the data's labels.
        head_warmup_steps: first steps in which nothing but the head learns: for weights that come from elsewhere.
        distillation: share of the largest subnet's soft labels in the other subnets' loss, where a step has a largest
            one; the rest is the data's.
        teacher_share: share of an external teacher's answers, where there is one, in the largest subnet's loss; without
            a sandwich in that of all subnets.
        divergence: from soft labels: ``kl``, or the adaptive ``alpha`` (AlphaNet, arXiv:2102.07954).
        projection_from: share of the steps after which what the largest subnet's gradient has against the others' is
            taken out of it (NASViT, ICLR 2022); 1 is never.
        drop_path: chance that the largest subnet leaves a residual block out, were it the last of its blocks; others
            have less, in proportion to where they stand (stochastic depth, arXiv:1603.09382).
        flip: mirror half of the images, left to right; not for texts and digits.
        shift: move every image by up to this share of its side.
        zoom: enlarge or shrink every image by up to this logarithm of a factor.
        colour: change contrast, brightness (in standard deviations) and saturation by up to this.
        erase: blank a square of this share of the side.
        ema_decay: of the moving average of weights that a training ends with; 0 ends with the last ones. The first
            averages decay faster, so that they do not keep what was drawn at random.
        arithmetic: of the layers; ``auto`` is bf16 on CUDA, else fp32. Weights and losses are always fp32.
        recompute: run each block once more in the backward pass, instead of keeping what it computed: less memory,
            more time.
        seed: of weights, subnets and the order of images.
    """

    steps: int = 2240
    batch_size: int = 32
    sandwich: bool = False
    random_subnets: int = 1
    sampling: Sampling = "uniform"
    shrinking: tuple[str, ...] = ()
    split_batch: bool = False
    optimizer: Optimizer = "adamw"
    momentum: float = 0.9
    schedule: Schedule = "cosine"
    peak_learning_rate: float = 3e-3
    warmup_steps: int = 224
    head_warmup_steps: int = 0
    weight_decay: float = 0.05
    gradient_norm: float = 1.0
    label_smoothing: float = 0.1
    distillation: float = 0.5
    teacher_share: float = 0.5
    divergence: Divergence = "kl"
    projection_from: float = 1.0
    drop_path: float = 0.0
    flip: bool = False
    shift: float = 0.0
    zoom: float = 0.0
    colour: float = 0.0
    erase: float = 0.0
    ema_decay: float = 0.0
    arithmetic: Arithmetic = "auto"
    recompute: bool = False
    seed: int = 0

    @property
    def chosen(self) -> dict[str, object]:
        """Settings that are not the default."""
        return {
            each.name: getattr(self, each.name)
            for each in dataclasses.fields(self)
            if getattr(self, each.name) != each.default
        }

    @property
    def identity(self) -> dict[str, object]:
        """What tells trainings apart, whatever settings later versions add."""
        return {"defaults": _DEFAULTS, **self.chosen}

    def lasting(self, steps: int) -> Self:
        """Return the same settings for another number of steps, with a warm-up in proportion."""
        return dataclasses.replace(self, steps=steps, warmup_steps=round(self.warmup_steps * steps / self.steps))

    def __post_init__(self) -> None:
        for allowed, words, names in _RANGES:
            for name in names:
                if not allowed(getattr(self, name)):
                    raise InputError(f"{name} must be {words}, got {getattr(self, name)}")
        if not self.sandwich:
            self._check_without_sandwich()
        if self.shrinking and self.sampling == "bounded":
            raise InputError("bounded sampling cannot keep to costs while shrinking holds sizes; choose one of the two")
        if len(set(self.shrinking)) < len(self.shrinking):
            raise InputError(f"shrinking names a kind of size twice: {', '.join(self.shrinking)}")

    def _check_without_sandwich(self) -> None:
        if self.random_subnets < 1:
            raise InputError(
                "without a sandwich a step needs a random subnet: random_subnets must be at least 1, got 0"
            )
        for name, *without in (
            ("drop_path", 0.0),
            ("projection_from", 1.0),
            ("distillation", 0.5, 0.0),
            ("divergence", "kl"),
        ):
            if (given := getattr(self, name)) not in without:
                raise InputError(
                    f"{name} = {given} needs a step's largest subnet, which sandwich = false leaves out; "
                    f"set sandwich = true, or leave {name} at {without[0]}"
                )


_RANGES: tuple[tuple[Callable[[float], bool], str, tuple[str, ...]], ...] = (
    (lambda value: value >= 1, "at least 1", ("steps", "batch_size")),
    (
        lambda value: value >= 0,
        "at least 0",
        ("random_subnets", "warmup_steps", "head_warmup_steps", "weight_decay", "seed"),
    ),
    (lambda value: value < 2**63, "below 2 to the 63rd", ("seed", "steps", "batch_size", "random_subnets")),
    (lambda value: 0 < value < math.inf, "above 0 and finite", ("peak_learning_rate", "gradient_norm")),
    (
        lambda value: 0 <= value <= 1,
        "from 0 to 1",
        ("distillation", "teacher_share", "projection_from", "shift", "zoom", "colour", "erase"),
    ),
    (
        lambda value: 0 <= value < 1,
        "at least 0 and below 1",
        ("momentum", "label_smoothing", "drop_path", "ema_decay"),
    ),
)


def training_config(
    path: Path | None, given: Mapping[str, object], usual: Mapping[str, object] | None = None
) -> TrainingConfig:
    """Return the settings of a training.

    Args:
        path: TOML file of `TrainingConfig`'s fields, or None.
        given: others, which come before those of the file.
        usual: what takes the place of `TrainingConfig`'s defaults.

    Raises:
        InputError: the file is missing, no TOML, or has a setting that is unknown or not allowed.
        MachineError: the file cannot be read.
    """
    settings: dict[str, object] = {}
    if path is not None:
        settings = parse_toml(
            read_text(path, wanted="--config takes a TOML file of training settings"), source=str(path)
        )
        known = [each.name for each in dataclasses.fields(TrainingConfig)]
        for name in settings:
            if name not in known:
                raise InputError(f"{path}: {unknown_name('training setting', name, known)}")
    settings = {**(usual or {}), **settings, **given}
    steps = settings.get("steps")
    if isinstance(steps, int):
        settings.setdefault("warmup_steps", max(0, steps // 10))
    try:
        text = json.dumps(settings)
    except (TypeError, ValueError):
        raise InputError(f"{path}: training settings are texts and numbers of a sensible size; no dates") from None
    return decode(TrainingConfig, text, source=str(path or "training settings"))


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class InitialWeights:
    """Where a training started from, instead of weights that are drawn at random.

    Attributes:
        source: name of the file, or of the run.
        sha256: of the file of weights.
        matched: how many tensors were taken over.
        drawn: weights that stayed as they were drawn: the file lacks them, or has them in another shape.
        unused: tensors of the file that have no place here.
    """

    source: str
    sha256: str
    matched: int
    drawn: tuple[str, ...]
    unused: tuple[str, ...]


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherRecord:
    """A network from elsewhere that a supernet learned from.

    Attributes:
        source: as it was named.
        sha256: of its answers.
        train_accuracy: share of the training images that it has right, 0..1.
    """

    source: str
    sha256: str
    train_accuracy: float


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecord:
    """What stands beside trained weights: how they were made, and the hash that identifies them.

    Attributes:
        config: how they were trained; None if they were imported.
        processes: that they were trained by; each has batch norm see its own part of a batch.
        imported_from: name of the file that they came from; empty if they were trained here.
        initial: what the training started from; None if from weights that are drawn at random.
        teacher: what else it learned from; None if from labels alone.
        space_hash: of the space that they cover.
        data_hash: of the images.
        weights_sha256: of the file.
        final_loss: of the largest subnet in the last step, or the mean of random ones; None if they were imported.
        seconds: wall time of all training steps here.
        torch_version: that trained them.
    """

    CURRENT_VERSION: ClassVar[int] = 4

    format_version: int
    config: TrainingConfig | None
    processes: int = 1
    imported_from: str = ""
    initial: InitialWeights | None = None
    teacher: TeacherRecord | None = None
    space_hash: str
    data_hash: str
    weights_sha256: str
    final_loss: float | None
    seconds: float = field(compare=False)  # equal trainings do not take equally long
    torch_version: str

    @property
    def trained(self) -> TrainingConfig:
        """How they were trained; raises `InputError` if they were imported."""
        if self.config is None:
            raise InputError(f"the supernet was imported from {self.imported_from}; what it cost is not known")
        return self.config

    @property
    def supernet_hash(self) -> str:
        """Short name of the weights in the ledger."""
        return self.weights_sha256[:16]


WEIGHTS_FILE = "weights.safetensors"


def weights_intact(record: TrainingRecord, directory: Path) -> bool:
    """Return whether the weights file is there and is the recorded one."""
    path = directory / WEIGHTS_FILE
    return path.is_file() and sha256_file(path) == record.weights_sha256


def find_record(directory: Path) -> TrainingRecord | None:
    """Return the record of a finished training, or None; raises `InputError` if it cannot be read."""
    path = directory / "training.json"
    return read_document(path, TrainingRecord) if path.exists() else None
