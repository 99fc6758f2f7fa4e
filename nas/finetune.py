"""A chosen subnet trained further by itself: from the weights it inherits, taught by the largest subnet."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor
from torch.nn import functional as F

from nas.checkpoint import remove_checkpoints
from nas.devices import Precision
from nas.distillation import soft_cross_entropy
from nas.evaluate import SubnetEvaluator, network_accuracy
from nas.files import make_folder, read_document, sha256_file, write_atomic
from nas.fitting import StepOutcome, fit, images_seen, share_correct
from nas.front import Candidate
from nas.onnx_accuracy import onnx_accuracy, quantized_network
from nas.optimization import choose_accelerator, forward_precision
from nas.progress import Notice, Progress, ignore, no_progress
from nas.runtime import open_session
from nas.supernet import Network, channels_last
from nas.training_log import LOG_FILE
from nas.training_record import Accelerator, TrainingConfig
from nas.tune_mode import tune_mode
from predictors.quality import standard_error
from search_spaces.documents import document, pretty_json
from search_spaces.errors import InputError, first_line
from search_spaces.spec import NetworkSpec

RECORD_FILE, _WEIGHTS_FILE, _CHECKPOINT_FILE = "finetuning.json", "weights.safetensors", "checkpoint.pt"
STEPS = 1120
"""Where the user says nothing."""
IMPORTED_RATE = 3e-4
"""Peak learning rate where the supernet's weights were imported; else it is the supernet's own."""

Norms = Literal["frozen", "batch"]
_OBSERVED_AT_A_TIME = 32
NORMS: tuple[Norms, ...] = ("frozen", "batch")


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneSettings:
    """How a subnet is trained further.

    Attributes:
        training: steps, optimiser, augmentation; what it says of subnets and teachers does not matter.
        norms: ``batch`` trains with the statistics of each batch, and recalibrates at the end; ``frozen`` keeps batch
            norm's recalibrated statistics and folds them (`nas.tune_mode`).
        precision: ``int8`` trains against the rounding of 8 bits.
        distillation: share of the largest subnet's soft labels in the loss; the rest is the data's labels.
    """

    training: TrainingConfig
    norms: Norms = "batch"
    precision: Precision = "fp32"
    distillation: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.distillation <= 1:
            raise InputError(f"distillation must be from 0 to 1, got {self.distillation}")
        if self.precision == "int8" and self.norms != "frozen":
            raise InputError("training against the rounding of 8 bits needs frozen norms")


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneRecord:
    """What stands beside fine-tuned weights.

    Attributes:
        id: of the network.
        supernet_hash: weights that it started from.
        weights_sha256: of the file.
        before: search-validation accuracy with inherited weights, in the precision of the settings, in 0..1.
        after: with the fine-tuned ones.
        after_in_floats: the same in floats.
        standard_error: binomial, of `after`.
        validation_images: how many these were counted on.
        images_seen: training images that went through the network.
        final_loss: of the last step.
        seconds: wall time of all training steps.
    """

    CURRENT_VERSION: ClassVar[int] = 1

    format_version: int
    id: str
    genes: tuple[int, ...]
    space_hash: str
    supernet_hash: str
    data_hash: str
    settings: FinetuneSettings
    weights_sha256: str
    before: float
    after: float
    after_in_floats: float
    standard_error: float
    validation_images: int
    images_seen: int
    final_loss: float
    seconds: float = field(compare=False)
    torch_version: str

    @property
    def weights_hash(self) -> str:
        """Short name of the weights in the ledger."""
        return self.weights_sha256[:16]


@dataclass(frozen=True, slots=True)
class TunedNetwork:
    """A network that was trained further after it was extracted, and what identifies its weights."""

    network: Network
    weights_hash: str


def finetune_settings(
    trained: TrainingConfig | None,
    *,
    steps: int = STEPS,
    learning_rate: float | None = None,
    norms: Norms | None = None,
    precision: Precision = "fp32",
    distillation: float = 0.0,
    seed: int = 0,
) -> FinetuneSettings:
    """Return settings for a subnet of a supernet; defaults are what ``experiments/finetune`` found best.

    Args:
        trained: how the supernet was trained; None for imported weights.
        steps: of the optimiser.
        learning_rate: its peak; None is that of the supernet's training, or `IMPORTED_RATE`.
        norms: None is ``batch``, but ``frozen`` for 8 bits.
        precision: to train for.
        distillation: share of the largest subnet's answers.
        seed: of the order of images.
    """
    usual = trained or TrainingConfig(peak_learning_rate=IMPORTED_RATE)
    rate = usual.peak_learning_rate if learning_rate is None else learning_rate
    norms = norms or ("batch" if precision == "fp32" else "frozen")
    training = dataclasses.replace(
        usual.lasting(steps), peak_learning_rate=rate, head_warmup_steps=0, ema_decay=0.0, seed=seed
    )
    return FinetuneSettings(training=training, norms=norms, precision=precision, distillation=distillation)


def finetune_subnet(
    evaluator: SubnetEvaluator,
    candidate: Candidate,
    settings: FinetuneSettings,
    *,
    directory: Path,
    force: bool = False,
    accelerator: Accelerator = "auto",
    progress: Progress = no_progress,
    notice: Notice = ignore,
) -> FinetuneRecord:
    """Train an extracted subnet further; write weights, record and log into `directory`.

    A directory that holds the result of the same settings is left as it is; a run that was killed goes on from its last
    checkpoint.

    Args:
        evaluator: holds supernet and data.
        candidate: the subnet.
        settings: how to train.
        directory: where to write; made if missing.
        force: replace what is there, finished or not.
        accelerator: what to train on.
        progress: called after each step.
        notice: told of a damaged checkpoint, and of networks that do not learn.

    Raises:
        InputError: the directory holds a result of other settings; CUDA is asked for and absent.
        CheckError: the loss is not finite.
        MachineError: the directory cannot be written, or the memory does not suffice.
    """
    checkpoint = directory / _CHECKPOINT_FILE
    done = find_finetuned(directory)
    if done is not None and not force:
        _require_same(done, evaluator, candidate, settings, directory)
        if sha256_file(directory / _WEIGHTS_FILE) == done.weights_sha256:
            return done
    space, data = evaluator.space, evaluator.data
    genome = space.check([candidate.genes])[0]
    spec, largest = space.lower(genome), space.lower(space.resize(genome[None], largest=True)[0])
    target = choose_accelerator(accelerator)
    network = evaluator.calibrated(spec)
    before = _accuracy(network, evaluator, settings.precision)
    teacher = evaluator.calibrated(largest).to(target) if settings.distillation else None
    batches = torch.split(torch.from_numpy(evaluator.calibration_images), _OBSERVED_AT_A_TIME)
    make_folder(directory)
    if force:
        remove_checkpoints(checkpoint)
    with _mode(network, batches, settings):
        fitted = fit(
            channels_last(network).to(target),
            _backward(network, teacher, settings),
            data,
            settings.training,
            checkpoint=checkpoint,
            identity=pretty_json(
                {
                    "settings": settings,
                    "genes": candidate.genes,
                    "supernet": evaluator.supernet_hash,
                    "data": data.content_hash,
                }
            ),
            log=directory / LOG_FILE,
            progress=progress,
            notice=notice,
        )
        network.cpu().eval()
    if settings.norms == "batch":
        evaluator.recalibrate(network)
    weights = directory / _WEIGHTS_FILE
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in network.state_dict().items()}
    write_atomic(weights, save_tensors(tensors))
    after, images = _accuracy(network, evaluator, settings.precision), evaluator.validation_images
    record = FinetuneRecord(
        format_version=FinetuneRecord.CURRENT_VERSION,
        id=candidate.id,
        genes=candidate.genes,
        space_hash=space.hash,
        supernet_hash=evaluator.supernet_hash,
        data_hash=data.content_hash,
        settings=settings,
        weights_sha256=sha256_file(weights),
        before=before,
        after=after,
        after_in_floats=network_accuracy(network, data, "validation"),
        standard_error=standard_error(after, images),
        validation_images=images,
        images_seen=images_seen(settings.training, data),
        final_loss=fitted.loss,
        seconds=fitted.seconds,
        torch_version=torch.__version__,
    )
    write_atomic(directory / RECORD_FILE, pretty_json(record))
    remove_checkpoints(checkpoint)
    return record


def find_finetuned(directory: Path) -> FinetuneRecord | None:
    """Return the record of a finished fine-tuning, or None; raises `InputError` if it cannot be read."""
    path = directory / RECORD_FILE
    return read_document(path, FinetuneRecord) if path.exists() else None


def load_finetuned(directory: Path, spec: NetworkSpec, *, genes: tuple[int, ...], supernet_hash: str) -> TunedNetwork:
    """Read fine-tuned weights of a network.

    Args:
        directory: where `finetune_subnet` wrote them.
        spec: of the network.
        genes: of the network.
        supernet_hash: of the weights that they must have started from.

    Raises:
        InputError: there are none, they are of another network or supernet, or they are damaged.
    """
    record = find_finetuned(directory)
    again = f"run `nas finetune --pick {directory.name} --force`"
    if record is None:
        raise InputError(f"{directory} holds no fine-tuned network; run `nas finetune --pick {directory.name}` first")
    if (record.supernet_hash, record.genes) != (supernet_hash, genes):
        raise InputError(
            f"{directory} is network {record.id}, fine-tuned from supernet {record.supernet_hash}; {again}"
        )
    path = directory / _WEIGHTS_FILE
    if sha256_file(path) != record.weights_sha256:
        raise InputError(f"{path} is damaged (its hash is not the recorded one); {again}")
    network = Network(spec)
    try:
        network.load_state_dict(load_tensors(path.read_bytes()))
    except (SafetensorError, RuntimeError) as error:
        raise InputError(f"{path} does not fit the network: {first_line(error)}") from None
    return TunedNetwork(channels_last(network).eval(), record.weights_hash)


def _mode(network: Network, batches: tuple[Tensor, ...], settings: FinetuneSettings) -> AbstractContextManager[None]:
    return tune_mode(network, batches, settings.precision) if settings.norms == "frozen" else nullcontext()


def _backward(
    network: Network, teacher: Network | None, settings: FinetuneSettings
) -> Callable[[int, Tensor, Tensor], StepOutcome]:
    config, share = settings.training, settings.distillation

    def backward(step: int, images: Tensor, labels: Tensor) -> StepOutcome:
        with forward_precision(config, images.device):
            logits = network(images).float()
        loss = own = F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
        if teacher is not None:
            with torch.no_grad(), forward_precision(config, images.device):
                soft = teacher(images).float()
            loss = (1.0 - share) * own + share * soft_cross_entropy(logits, soft)
        loss.backward()  # type: ignore[no-untyped-call]
        return StepOutcome(own.detach(), share_correct(logits, labels))

    return backward


def _accuracy(network: Network, evaluator: SubnetEvaluator, precision: Precision) -> float:
    data = evaluator.data
    if precision == "fp32":
        return network_accuracy(network, data, "validation")
    model, split = quantized_network(network, evaluator.calibration_images), data.split("validation")
    session = open_session(model.SerializeToString())
    return onnx_accuracy(session, data.normalise(split.images), split.labels)


def _require_same(
    done: FinetuneRecord,
    evaluator: SubnetEvaluator,
    candidate: Candidate,
    settings: FinetuneSettings,
    directory: Path,
) -> None:
    known = (done.settings, done.genes, done.supernet_hash, done.data_hash)
    if known != (settings, candidate.genes, evaluator.supernet_hash, evaluator.data.content_hash):
        raise InputError(
            f"{directory} holds a network fine-tuned with other settings, or another one; add --force to replace it"
        )
