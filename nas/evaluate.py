"""True accuracy of subnets with inherited weights: batch norm recalibrated on a copy, then counted on a split."""

from __future__ import annotations

import copy
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nas.data import ImageData, SplitName
from nas.devices import Precision
from nas.evaluation_workers import EvaluationWorkers, Work
from nas.ledger import Genes, Ledger, accuracy_evaluator
from nas.ledger_queue import LedgerQueue
from nas.progress import Progress, no_progress
from nas.sandwich import LARGEST, SMALLEST, Sandwich
from nas.supernet import Network, Supernet, channels_last, extract, recalibrate
from search_spaces.errors import CheckError, MachineError
from search_spaces.language import NetworkSpace
from search_spaces.layout import Layout
from search_spaces.space import Genomes
from search_spaces.spec import NetworkSpec

BATCH_SIZE = 128  # larger ones spend their time on page faults
CALIBRATION_IMAGES = 512
_CALIBRATION_BATCH = 128
_WEIGHTS = "weights.safetensors"
_SUMMARY_SEED = 2**32 - 1  # not one that anybody trains with


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracySummary:
    """How good a supernet is at its ends and in between: mean search-validation accuracies in 0..1."""

    largest: float
    smallest: float
    random: float
    images: int


class SubnetEvaluator:
    """Evaluates genomes of one trained supernet on one data set; every true value goes into the ledger, once.

    What the ledger holds is read once: networks that another process evaluates meanwhile are evaluated here as well,
    but for those that came to it by the same queue.

    Args:
        space: what the genomes mean.
        supernet: trained weights; never changed.
        supernet_hash: identifies the weights in the ledger.
        data: supplies the calibration images (of the training split) and the split to count on.
        ledger: where values are kept and looked up.
        workers: processes that evaluate, through the ledger; with 0, only those that others have started. None is this
            process alone.
        precision: of the networks. Those in int8 are quantised, with ranges of the calibration images, and counted in
            ONNX Runtime: what is counted is what is exported.
    """

    def __init__(
        self,
        space: NetworkSpace,
        supernet: Supernet,
        supernet_hash: str,
        data: ImageData,
        ledger: Ledger,
        *,
        workers: int | None = None,
        precision: Precision = "fp32",
    ) -> None:
        self.space = space
        self.supernet = supernet
        self.supernet_hash = supernet_hash
        self.data = data
        self.ledger = ledger
        self.precision = precision
        self._workers = workers
        self._calibration = _calibration_batches(data)
        self._judges: dict[SplitName, _Judge] = {}
        self._teams: dict[SplitName, tuple[EvaluationWorkers, tempfile.TemporaryDirectory[str]]] = {}
        self._known: dict[SplitName, dict[Genes, float]] = {}
        self._others_work = False

    @property
    def validation_images(self) -> int:
        """How many images a validation accuracy is counted on."""
        return len(self.data.split("validation").labels)

    def ledger_name(self, split: SplitName) -> str:
        """Return the evaluator's name in the ledger."""
        return accuracy_evaluator(self.supernet_hash, split, self.precision)

    def known(self, split: SplitName = "validation") -> dict[Genes, float]:
        """Return every accuracy on a split that the ledger holds, by genome."""
        return self.ledger.values(self.ledger_name(split), self.space.hash)

    def evaluate(self, genomes: Genomes, *, progress: Progress = no_progress) -> npt.NDArray[np.float64]:
        """Return the search-validation accuracy ``float64[n]`` in 0..1 of canonical genomes ``int16[n, n_genes]``.

        Args:
            genomes: whom to evaluate.
            progress: told of what is known, and after each network.

        Raises:
            CheckError: a network's logits are not finite.
            MachineError: a worker process has ended, or could not start.
        """
        return self._evaluate(genomes, "validation", progress)

    def evaluate_on_test(self, genomes: Genomes, *, progress: Progress = no_progress) -> npt.NDArray[np.float64]:
        """Return accuracies as `evaluate` does, on the test split, for studies; no search may see them.

        The ledger counts every network that was tested.
        """
        return self._evaluate(genomes, "test", progress)

    def upcoming(self, genomes: Genomes) -> None:
        """Let workers begin with networks that `evaluate` is about to be asked for; without workers, do nothing."""
        known = self._known_on("validation")
        missing = [genes for genes in _genes(genomes) if genes not in known]
        if self._workers is not None and missing:
            self._team("validation").add(missing)

    def take_over(self) -> None:
        """Take back what a search that was killed has left waiting; call it when a search begins."""
        self._others_work = self._queue("validation").clear()

    def judge(self, genes: Genes) -> float:
        """Return the search-validation accuracy of one network, evaluated in this process and recorded nowhere."""
        return self._judge("validation")(genes)

    def _queue(self, split: SplitName) -> LedgerQueue:
        return LedgerQueue(self.ledger, self.ledger_name(split), self.space.hash)

    def _evaluate(self, genomes: Genomes, split: SplitName, progress: Progress) -> npt.NDArray[np.float64]:
        known, asked = self._known_on(split), _genes(genomes)
        times = Counter(genes for genes in asked if genes not in known)
        done = len(asked) - times.total()
        progress(done, len(asked))
        figures = self._figures if self._workers is None else self._figures_by_workers
        for genes, value in figures(list(times), split):
            known[genes] = value
            done += times[genes]
            progress(done, len(asked))
        return np.array([known[genes] for genes in asked], dtype=np.float64)

    def close(self) -> None:
        """End the worker processes, if there are any; the next networks start them again."""
        while self._teams:
            _, (team, folder) = self._teams.popitem()
            team.close()
            folder.cleanup()

    def _known_on(self, split: SplitName) -> dict[Genes, float]:
        if split not in self._known:
            self._known[split] = self.known(split)
        return self._known[split]

    def _figures(self, genomes: list[Genes], split: SplitName) -> Iterator[tuple[Genes, float]]:
        """Yield networks with their accuracy, each in the ledger: nothing of a search that is killed is lost."""
        for genes in genomes:
            value = self._judge(split)(genes)
            # Workers of a search that was killed may have finished the same network meanwhile.
            if not self._others_work or genes not in self.known(split):
                self.ledger.record(self.ledger_name(split), self.space.hash, genes, value)
            yield genes, value

    def _figures_by_workers(self, genomes: list[Genes], split: SplitName) -> Iterator[tuple[Genes, float]]:
        if genomes:
            try:
                yield from self._team(split).figures(genomes)
            except MachineError:
                self.close()  # what is left of the workers is of no use
                raise

    def _judge(self, split: SplitName) -> _Judge:
        """Return what counts on a split; its images are made once, since a search asks for one network at a time."""
        if split not in self._judges:
            images, labels = _as_tensors(self.data, split)
            self._judges[split] = _Judge(self.space, self.supernet, self._calibration, images, labels, self.precision)
        return self._judges[split]

    def _team(self, split: SplitName) -> EvaluationWorkers:
        if split not in self._teams:
            assert self._workers is not None
            folder = tempfile.TemporaryDirectory(prefix="nas-evaluate-")
            self._judge(split).store(Path(folder.name))
            make = partial(_Judge.load, self.space.layout, Path(folder.name), self.precision)
            work = Work(make, self.ledger.place, self.ledger_name(split), self.space.hash)
            self._teams[split] = EvaluationWorkers(work, self._workers), folder
        return self._teams[split][0]

    def summary(self, *, progress: Progress = no_progress) -> AccuracySummary:
        """Return mean search-validation accuracies of large, small and random subnets, every operator in turn."""
        sandwich = Sandwich(self.space, seed=_SUMMARY_SEED)
        steps = np.concatenate([sandwich.subnets(step) for step in range(sandwich.cycle)])
        values = self.evaluate(steps, progress=progress).reshape(sandwich.cycle, -1)
        return AccuracySummary(
            largest=float(values[:, LARGEST].mean()),
            smallest=float(values[:, SMALLEST].mean()),
            random=float(values[:, SMALLEST + 1 :].mean()),
            images=self.validation_images,
        )

    @property
    def calibration_images(self) -> npt.NDArray[np.float32]:
        """Normalised training images ``float32[n, c, h, w]``, which tell batch norm's statistics and ranges."""
        return torch.cat(self._calibration).numpy()

    def recalibrate(self, network: Network) -> None:
        """Replace the statistics of a network's batch norm as `calibrated` does."""
        recalibrate(network, self._calibration, network)

    def calibrated(self, spec: NetworkSpec) -> Network:
        """Return the extracted subnet with batch norm recalibrated for it."""
        return _calibrated(self.supernet, spec, self._calibration)

    def calibrated_supernet(self, spec: NetworkSpec) -> Supernet:
        """Return a copy of the supernet with batch norm recalibrated for one subnet, to compare outputs with."""
        supernet = copy.deepcopy(self.supernet)
        recalibrate(supernet, self._calibration, lambda images: supernet(images, spec))
        return supernet


@dataclass(frozen=True, slots=True)
class _Judge:
    """Counts how many images of a split a subnet has right."""

    space: NetworkSpace
    supernet: Supernet
    calibration: list[Tensor]
    images: Tensor
    labels: Tensor
    precision: Precision

    def store(self, folder: Path) -> None:
        """Write all of it into a folder, for other processes to read."""
        weights = {name: tensor.cpu().contiguous() for name, tensor in self.supernet.state_dict().items()}
        save_file(weights, folder / _WEIGHTS)
        np.save(folder / "labels.npy", self.labels.numpy())
        for number, images in enumerate([self.images, *self.calibration]):
            np.save(folder / f"images-{number:04}.npy", images.permute(0, 2, 3, 1).contiguous().numpy())

    @classmethod
    def load(cls, layout: Layout, folder: Path, precision: Precision) -> _Judge:
        """Read what `store` wrote; images are mapped into memory, so that several processes share them."""
        space = NetworkSpace(layout)
        supernet = Supernet(space, seed=0)
        supernet.load_state_dict(load_file(folder / _WEIGHTS))
        # Copies are made of what is written to, which is nothing; torch warns of arrays that cannot be written to.
        arrays = [np.load(path, mmap_mode="c") for path in sorted(folder.glob("images-*.npy"))]
        images, *calibration = (torch.from_numpy(array).permute(0, 3, 1, 2) for array in arrays)
        labels = torch.from_numpy(np.load(folder / "labels.npy"))
        return cls(space, channels_last(supernet).eval(), calibration, images, labels, precision)

    def __call__(self, genes: Genes) -> float:
        spec = self.space.lower(np.array(genes, dtype=np.int16))
        network = _calibrated(self.supernet, spec, self.calibration)
        if self.precision == "fp32":
            return accuracy(network, self.images, self.labels)
        from nas.onnx_accuracy import onnx_accuracy, quantized_network
        from nas.runtime import open_session

        model = quantized_network(network, torch.cat(self.calibration).numpy())
        return onnx_accuracy(open_session(model.SerializeToString()), self.images.numpy(), self.labels.numpy())


def _genes(genomes: Genomes) -> list[Genes]:
    return [tuple(row) for row in genomes.tolist()]


def _calibrated(supernet: Supernet, spec: NetworkSpec, calibration: list[Tensor]) -> Network:
    network = channels_last(extract(supernet, spec))
    recalibrate(network, calibration, network)
    return network


def standalone_accuracy(network: Network, data: ImageData, split: SplitName) -> float:
    """Return the accuracy in 0..1 of a network of its own; its batch norm is recalibrated as a subnet's would be."""
    recalibrate(network, _calibration_batches(data), network)
    return network_accuracy(network, data, split)


def network_accuracy(network: Network, data: ImageData, split: SplitName) -> float:
    """Return the accuracy in 0..1 of a network as it is."""
    return accuracy(network, *_as_tensors(data, split))


@torch.inference_mode()
def accuracy(model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> float:
    """Return the share of images ``float[n, c, h, w]`` classified as labelled; raises `CheckError` on NaN logits."""
    correct = 0
    for batch, target in zip(torch.split(images, BATCH_SIZE), torch.split(labels, BATCH_SIZE), strict=True):
        logits = model(batch)
        if not bool(torch.isfinite(logits).all()):
            raise CheckError("a subnet's logits are not finite: the supernet's training has diverged; train it again")
        correct += int((logits.argmax(dim=1) == target).sum())
    return correct / len(images)


def _as_tensors(data: ImageData, split: SplitName) -> tuple[Tensor, Tensor]:
    part = data.split(split)
    images = torch.from_numpy(data.normalise(part.images)).to(memory_format=torch.channels_last)
    return images, torch.from_numpy(part.labels)


def _calibration_batches(data: ImageData) -> list[Tensor]:
    """Return normalised training images for batch norm: the same ones for every subnet, so that none is favoured."""
    return list(_batches(data, np.random.default_rng(0)))


def _batches(data: ImageData, rng: np.random.Generator) -> Iterator[Tensor]:
    images = data.split("train").images
    chosen = rng.permutation(len(images))[:CALIBRATION_IMAGES]
    # Batches of equal size: the statistics average over batches, whatever their size.
    for part in np.array_split(chosen, -(-len(chosen) // _CALIBRATION_BATCH)):
        batch = data.normalise(images[part])
        yield torch.from_numpy(batch).to(memory_format=torch.channels_last)
