"""Writes docs/spaces.md: every named space in figures and in a drawing, its ends measured on this machine.

    python experiments/space-pages/run.py [SPACE...]

Set OMP_NUM_THREADS=1 for the speed of one core.

Latencies are those of ONNX Runtime on one thread, by the protocol of the latency table, with random weights.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import timeit
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))  # studies are scripts; what they share is a package that is never installed

from experiments.study import provenance, save_table, say  # noqa: E402
from nas.block_cache import BlockCache  # noqa: E402
from nas.devices import parse_device  # noqa: E402
from nas.files import make_folder, write_atomic  # noqa: E402
from nas.network_latency import measure_networks  # noqa: E402
from predictors.additive import AdditiveCost  # noqa: E402
from predictors.space_summary import blocks_by_resolution, summarise  # noqa: E402
from search_spaces.catalogue import SPACES, find_space  # noqa: E402
from search_spaces.language import NetworkSpace  # noqa: E402
from search_spaces.space import Genomes  # noqa: E402

CHANNELS = 3
CLASSES = {"tiny": 10, "cifar": 10}  # 1000 for the others
SEED = 0
SAMPLE = 10_000


@dataclass(frozen=True)
class Measured:
    """A network of a space in figures: params and MACs in millions, activations in thousands, sizes in MB."""

    network: str
    params_m: float
    macs_m: float
    peak_activations_mb: float
    weights_fp32_mb: float
    weights_int8_mb: float
    latency_ms: float
    again_ms: float


def ends(space: NetworkSpace) -> dict[str, Genomes]:
    """Return the networks of fewest and most MACs, and one of the median among networks drawn uniformly."""
    macs = AdditiveCost.of(space, lambda block: block.macs())
    drawn = space.sample_uniform(SAMPLE, np.random.default_rng(SEED))
    costs = macs.predict(drawn)
    median = drawn[np.argmin(np.abs(costs - np.median(costs)))]
    return {"smallest": macs.cheapest()[1], "median": median, "largest": macs.dearest()[1]}


def measure(name: str) -> list[Measured]:
    """Return the figures of a space's smallest, median and largest network."""
    space = find_space(name, channels=CHANNELS, classes=CLASSES.get(name, 1000))
    networks = {which: space.lower(genome) for which, genome in ends(space).items()}
    with tempfile.TemporaryDirectory() as folder:
        cache = BlockCache(Path(folder) / "blocks")
        make_folder(cache.directory)
        cache.fill(list(dict.fromkeys(placed.block for network in networks.values() for placed in network)))
        twice = [
            measure_networks(
                cache, networks, parse_device("cpu"), work_dir=Path(folder) / f"measuring-{seed}", seed=seed
            )
            for seed in (SEED, SEED + 1)
        ]
    return [
        Measured(
            which,
            network.params() / 1e6,
            network.macs() / 1e6,
            4 * network.peak_elements() / 1e6,
            network.weight_bytes("fp32") / 1e6,
            network.weight_bytes("int8") / 1e6,
            first.latency_ms,
            second.latency_ms,
        )
        for (which, network), first, second in zip(networks.items(), *twice, strict=True)
    ]


def speed() -> pd.DataFrame:
    """Return seconds that a million networks of each space take on one core, the fastest of three."""
    rows = []
    for name in SPACES:
        space = find_space(name, channels=CHANNELS, classes=CLASSES.get(name, 1000))
        macs = AdditiveCost.of(space, lambda block: block.macs())
        genomes = space.sample(1_000_000, np.random.default_rng(SEED))
        tasks = {
            "look_up_s": lambda space=space, genomes=genomes: space.block_numbers(genomes),
            "cost_s": lambda macs=macs, genomes=genomes: macs.predict(genomes),
            "canonical_s": lambda space=space, genomes=genomes: space.canonical(genomes),
        }
        seconds = {task: min(timeit.repeat(function, number=1, repeat=3)) for task, function in tasks.items()}
        rows.append({"space": name, "slots": len(space.slots), "genes": space.n_genes, **seconds})
    return pd.DataFrame(rows)


def page() -> str:
    """Return the text of the page from the tables."""
    origin = pd.read_csv(RESULTS / "provenance.csv").set_index("what")["value"]
    parts = [
        "# The named spaces\n",
        "Made by `python experiments/space-pages/run.py`; latencies are of one thread of ONNX Runtime on an "
        f"{origin['cpu']} (onnxruntime {origin['onnxruntime']}, commit {origin['commit'][:7]}), the minimum over "
        "interleaved rounds, batch 1, measured twice. *Median* is a network of the median MACs among networks drawn "
        "uniformly over distinct architectures. In the drawings a column is a block, coloured by the operators it "
        "chooses from and as high as the map is; pale blocks are those that shallower networks do not have.\n",
    ]
    for name, entry in SPACES.items():
        classes = CLASSES.get(name, 1000)
        space = find_space(name, channels=CHANNELS, classes=classes)
        figures = summarise(space)
        rows = pd.read_csv(RESULTS / f"{name}.csv").to_dict("records")
        counts = ", ".join(f"{len(numbers)} at {side}" for side, numbers in blocks_by_resolution(space).items())
        kinds = Counter(_kind(gene) for gene in space.names)
        genes = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        parts += [
            f"## `{name}`\n",
            f"{entry.about[0].upper()}{entry.about[1:]}.\n",
            f"![Stages and blocks of {name}](spaces/{name}.png)\n",
            f"- **{figures.architectures:,}** distinct networks ({figures.architectures:.2e}) for {classes} classes.",
            f"- **{figures.genes} genes**: {genes}.",
            f"- **{figures.blocks} distinct blocks** to measure ({counts} pixels).\n",
            "| network | params, M | MACs, M | peak activations, MB | weights fp32 / int8, MB | latency, ms (again) |",
            "|---|---|---|---|---|---|",
            *(
                f"| {row['network']} | {row['params_m']:.3g} | {row['macs_m']:.3g} | {row['peak_activations_mb']:.3g} "
                f"| {row['weights_fp32_mb']:.3g} / {row['weights_int8_mb']:.3g} "
                f"| {row['latency_ms']:.3g} ({row['again_ms']:.3g}) |"
                for row in rows
            ),
            "",
        ]
    parts += [
        "## Speed\n",
        "Seconds for 10⁶ networks on one core: the block in every slot, a cost from a table, canonical form.\n",
        "| space | slots | genes | look-up | cost | canonical |",
        "|---|---|---|---|---|---|",
        *(
            f"| `{row['space']}` | {row['slots']} | {row['genes']} | {row['look_up_s']:.3f} | {row['cost_s']:.3f} "
            f"| {row['canonical_s']:.3f} |"
            for row in pd.read_csv(RESULTS / "speed.csv").to_dict("records")
        ),
        "",
    ]
    return "\n".join(parts)


def _kind(gene: str) -> str:
    """Return what a gene chooses: ``stage2.block1.mbconv.kernel`` chooses an mbconv kernel."""
    return " ".join(part for part in gene.split(".") if not part.startswith(("stage", "block")))


def main() -> None:
    """Measure what has not been measured yet, then write the page and its drawings."""
    from drawing import draw

    parser = argparse.ArgumentParser(description="The page of the named spaces.")
    parser.add_argument("spaces", nargs="*", metavar="SPACE", help="measure these again")
    again = parser.parse_args().spaces
    if again or not (RESULTS / "provenance.csv").exists():
        save_table(RESULTS, provenance(("torch", "onnxruntime", "numpy")), "provenance")
    for name in SPACES:
        if name in again or not (RESULTS / f"{name}.csv").exists():
            say(f"measuring {name}")
            save_table(RESULTS, pd.DataFrame(measure(name)), name)
    if not (RESULTS / "speed.csv").exists():
        say("timing look-ups")
        save_table(RESULTS, speed(), "speed")
    make_folder(ROOT / "docs" / "spaces")
    for name in SPACES:
        draw(find_space(name, channels=CHANNELS, classes=10), ROOT / "docs" / "spaces" / f"{name}.png")
    write_atomic(ROOT / "docs" / "spaces.md", page())


if __name__ == "__main__":
    main()
