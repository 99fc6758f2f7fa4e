"""The published evaluations of OFA-MobileNetV3 networks, and an oracle that answers for the others.

The oracle is OFA's own accuracy predictor (Cai et al. 2020, arXiv:1908.09791: an MLP with three hidden layers of 400 on
one-hots), as an ensemble: another family than the regressions that the strategies fit.
"""

from __future__ import annotations

import ast
import csv
import io
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nas.files import make_folder, write_atomic
from search_spaces.space import Genomes, SearchSpace

Values = npt.NDArray[np.float64]

KERNELS, EXPANSIONS, DEPTHS = (3, 5, 7), (3, 4, 6), (2, 3, 4)
STAGES, BLOCKS = 5, 4
_WIDTH, _BATCH, _RATE = 400, 128, 2e-3


def ofa_space() -> SearchSpace:
    """Return the space of 7371⁵ networks: depth by stage, kernel and expansion by block that exists."""
    choices: dict[str, tuple[int, ...]] = {}
    when: dict[str, dict[str, tuple[int, ...]]] = {}
    for stage in range(STAGES):
        choices[f"depth{stage}"] = DEPTHS
        for block in range(BLOCKS):
            for kind, options in (("kernel", KERNELS), ("expand", EXPANSIONS)):
                name = f"{kind}{stage}.{block}"
                choices[name] = options
                deep_enough = tuple(depth for depth in DEPTHS if depth > block)
                if deep_enough != DEPTHS:
                    when[name] = {f"depth{stage}": deep_enough}
    return SearchSpace.from_choices(choices, when=when, name="ofa-mbv3")


@dataclass(frozen=True)
class Trace:
    """Published evaluations in their order.

    Attributes:
        genomes: canonical, ``int16[n, 45]``.
        accuracy: ImageNet top-1, percent.
        macs: in millions.
    """

    genomes: Genomes
    accuracy: Values
    macs: Values


def read_trace(path: Path, space: SearchSpace) -> Trace:
    """Read one published file."""
    genomes, accuracy, macs = [], [], []
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            network = ast.literal_eval(row["Sub-network"])
            genes = {f"depth{stage}": DEPTHS.index(depth) for stage, depth in enumerate(network["d"])}
            for position, (kernel, expand) in enumerate(zip(network["ks"], network["e"], strict=True)):
                name = f"{position // BLOCKS}.{position % BLOCKS}"
                genes |= {f"kernel{name}": KERNELS.index(kernel), f"expand{name}": EXPANSIONS.index(expand)}
            genomes.append([genes[name] for name in space.names])
            accuracy.append(float(row["Top-1 Acc (%)"]))
            macs.append(float(row["MACs"]) / 1e6)
    return Trace(space.check(genomes), np.array(accuracy), np.array(macs))


def read_all(folder: Path, space: SearchSpace) -> Trace:
    """Read every published file; networks that were evaluated more than once have their mean accuracy."""
    traces = [read_trace(path, space) for path in sorted(folder.glob("*.csv"))]
    genomes = np.concatenate([trace.genomes for trace in traces])
    distinct, row = np.unique(genomes, axis=0, return_inverse=True)
    row = row.ravel()
    count = np.bincount(row)
    accuracy = np.bincount(row, np.concatenate([trace.accuracy for trace in traces])) / count
    macs = np.bincount(row, np.concatenate([trace.macs for trace in traces])) / count
    return Trace(distinct.astype(np.int16), accuracy, macs)


def macs_function(data: Trace, space: SearchSpace) -> Callable[[Genomes], Values]:
    """Return MACs in millions of any network: a block's depend on its kernel and expansion, and they add up.

    Raises:
        ValueError: they do not, so that this is no count but a guess.
    """
    columns = [
        (space.index(f"kernel{stage}.{block}"), space.index(f"expand{stage}.{block}"))
        for stage in range(STAGES)
        for block in range(BLOCKS)
    ]

    def design(genomes: Genomes) -> Values:
        exists = space.active(genomes)
        parts = [np.ones((len(genomes), 1))]
        for kernel, expand in columns:
            part = np.zeros((len(genomes), len(KERNELS) * len(EXPANSIONS)))
            part[np.arange(len(genomes)), genomes[:, kernel] * len(EXPANSIONS) + genomes[:, expand]] = 1.0
            parts.append(part * exists[:, kernel, None])
        return np.concatenate(parts, axis=1)

    weights = np.linalg.lstsq(design(data.genomes), data.macs, rcond=None)[0]
    worst = np.abs(design(data.genomes) @ weights - data.macs).max()
    if worst > 1e-6:
        raise ValueError(f"MACs are not a sum over blocks: off by up to {worst} million")
    return lambda genomes: design(genomes) @ weights


def fit_mlp(x: npt.NDArray[np.float32], y: Values, *, epochs: int, weight_decay: float, seed: int) -> list[Values]:
    """Return weights and biases of a network with three hidden layers, on values that are standardised."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    sizes = [x.shape[1], _WIDTH, _WIDTH, _WIDTH, 1]
    layers = [nn.Linear(*pair) for pair in itertools.pairwise(sizes)]
    network = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))[:-1]
    inputs, targets = torch.tensor(x), torch.tensor(y, dtype=torch.float32)
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=weight_decay)
    steps = epochs * -(-len(x) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(_BATCH):  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            (network(inputs[rows])[:, 0] - targets[rows]).square().mean().backward()
            optimizer.step()
            schedule.step()
    return [value.detach().double().numpy() for layer in layers for value in (layer.weight.T, layer.bias)]


@dataclass(frozen=True)
class Oracle:
    """A fitted ensemble."""

    space: SearchSpace
    members: tuple[tuple[Values, ...], ...]
    mean: float
    scale: float

    @classmethod
    def fit(
        cls, space: SearchSpace, genomes: Genomes, accuracy: Values, *, members: int, epochs: int, weight_decay: float
    ) -> Oracle:
        """Fit to evaluations; always the same for the same ones, on one machine."""
        mean, scale = float(accuracy.mean()), float(accuracy.std())
        x, y = space.encode(genomes), (accuracy - mean) / scale
        fitted = [fit_mlp(x, y, epochs=epochs, weight_decay=weight_decay, seed=seed) for seed in range(members)]
        return cls(space, tuple(tuple(member) for member in fitted), mean, scale)

    def save(self, path: Path) -> None:
        """Write the ensemble to an npz file."""
        arrays = {f"{m}.{i}": value for m, member in enumerate(self.members) for i, value in enumerate(member)}
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, mean=np.array(self.mean), scale=np.array(self.scale), **arrays)
        make_folder(path.parent)
        write_atomic(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path, space: SearchSpace) -> Oracle:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            names = [name.split(".") for name in arrays.files if "." in name]
            count = 1 + max(int(m) for m, _ in names), 1 + max(int(i) for _, i in names)
            members = tuple(tuple(arrays[f"{m}.{i}"] for i in range(count[1])) for m in range(count[0]))
            return cls(space, members, float(arrays["mean"]), float(arrays["scale"]))

    def each(self, genomes: Genomes) -> Values:
        """Return what each member says, ``float64[members, n]``, percent."""
        said = []
        for member in self.members:
            hidden = self.space.encode(genomes).astype(np.float64)
            for layer in range(0, len(member), 2):
                hidden = hidden @ member[layer] + member[layer + 1]
                if layer < len(member) - 2:
                    hidden = np.maximum(hidden, 0.0)
            said.append(self.mean + self.scale * hidden[:, 0])
        return np.stack(said)

    def accuracy(self, genomes: Genomes) -> Values:
        """Return the ensemble's mean, ``float64[n]``, percent."""
        mean: Values = self.each(genomes).mean(axis=0)
        return mean
