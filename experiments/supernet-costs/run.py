"""What training a supernet costs: against the same networks alone, in memory, in images per second.

    python experiments/supernet-costs/run.py [--photos DIR] [PART...]

Needs an idle machine for a quarter of an hour. A part whose table is there is left as it is.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
sys.path.insert(0, str(HERE.parents[1]))  # studies are scripts; what they share is a package that is never installed

from experiments.study import Rows, provenance, run_parts, save_table, say  # noqa: E402
from nas.augmentation import augmented  # noqa: E402
from nas.data import ImageData, ImageSplit, load_data  # noqa: E402
from nas.data.images import Pixels  # noqa: E402
from nas.data.pixels import SUFFIXES, decode_square  # noqa: E402
from nas.evaluate import CALIBRATION_IMAGES, SubnetEvaluator  # noqa: E402
from nas.fitting import batch_of, networks_per_image  # noqa: E402
from nas.ledger import Ledger  # noqa: E402
from nas.memory import keep_freed_memory  # noqa: E402
from nas.sandwich import Sandwich  # noqa: E402
from nas.sandwich_step import SandwichStep  # noqa: E402
from nas.supernet import Supernet, channels_last, extract, recalibrate  # noqa: E402
from nas.training_record import TrainingConfig  # noqa: E402
from search_spaces.catalogue import find_space  # noqa: E402
from search_spaces.language import NetworkSpace  # noqa: E402
from search_spaces.space import Genomes  # noqa: E402

CHANNELS, CLASSES = 3, 10
SPACES = {"tiny": 32, "cifar": 64, "mobile": 16, "mobile-int8": 16, "ofa-mbv3": 16}
"""Images per step."""
COMPARED = {"tiny": 32, "cifar": 32, "mobile": 8}
"""Images per step of networks inside a supernet and alone."""
NETWORKS, ROUNDS, STEPS = 6, 15, 12
PHOTOS, PHOTO_SIDE = 2000, 128
EVALUATED = 24
HOW = ("as nas train", "memory given back", "recompute")
"""Steps of a process that keeps the memory that it frees, of one that does not, and of one that does and recomputes."""


def overhead(_: Path | None) -> None:
    """Time forward and backward passes of networks inside the supernet and alone, turn by turn."""
    rows = []
    for name, batch_size in COMPARED.items():
        space = find_space(name, channels=CHANNELS, classes=CLASSES)
        supernet = channels_last(Supernet(space, seed=0)).train()
        rng = np.random.default_rng(0)
        drawn = space.sample(NETWORKS - 2, rng)
        ends = [space.resize(space.sample(1, rng), largest=largest) for largest in (True, False)]
        for number, genome in enumerate(np.concatenate([*ends, drawn])):
            spec = space.lower(genome)
            alone = channels_last(extract(supernet, spec)).train()
            images, labels = _batch(space, batch_size)
            runs: list[tuple[Callable[[Tensor], Tensor], nn.Module]] = [
                (partial(supernet, spec=spec), supernet),
                (alone, alone),
                (alone, alone),
            ]
            figures = np.zeros((ROUNDS, 3))
            for turn in range(-2, ROUNDS):  # the first two warm up
                for place in np.roll(np.arange(3), turn):
                    seconds = _step_s(*runs[place], images, labels)
                    figures[max(turn, 0), place] = seconds
            ratio = np.median(figures[:, 0] / figures[:, 1])
            rows.append(
                {
                    "space": name,
                    "network": ("largest", "smallest")[number] if number < 2 else f"random {number - 1}",
                    "alone_ms": 1e3 * np.median(figures[:, 1]),
                    "ratio": ratio,
                    "alone_again_ratio": np.median(figures[:, 2] / figures[:, 1]),
                }
            )
            say(f"overhead: {rows[-1]}")
    save_table(RESULTS, pd.concat([pd.DataFrame(rows), _whole_steps(pd.DataFrame(rows))]), "overhead")


def _whole_steps(networks: pd.DataFrame) -> pd.DataFrame:
    """Return the ratio of whole steps: of an average random network; of a sandwich, with two such networks."""
    rows = []
    for space, part in networks.groupby("space", sort=False):
        random = part["network"].str.startswith("random")
        for name, ends in (("a step", 0.0), ("a step with a sandwich", 1.0)):
            alone_ms = np.where(random, (1.0 + ends) / (NETWORKS - 2), ends) * part["alone_ms"]
            ratios = {key: (alone_ms * part[key]).sum() / alone_ms.sum() for key in ("ratio", "alone_again_ratio")}
            rows.append({"space": space, "network": name, "alone_ms": alone_ms.sum()} | ratios)
    return pd.DataFrame(rows)


def _batch(space: NetworkSpace, count: int) -> tuple[Tensor, Tensor]:
    side, rng = space.layout.input.resolution, torch.Generator().manual_seed(0)
    images = torch.randn(count, CHANNELS, side, side, generator=rng)
    return images.to(memory_format=torch.channels_last), torch.arange(count) % CLASSES


def _step_s(run: Callable[[Tensor], Tensor], model: nn.Module, images: Tensor, labels: Tensor) -> float:
    model.zero_grad(set_to_none=True)
    started = time.perf_counter()
    F.cross_entropy(run(images), labels).backward()  # type: ignore[no-untyped-call]
    return time.perf_counter() - started


def costs(_: Path | None) -> None:
    """Measure memory and images per second of whole steps, each setting in a process of its own."""
    rows = [_told("--steps", name, how) for name in SPACES for how in HOW]
    save_table(RESULTS, pd.DataFrame(rows), "costs")


def _told(*arguments: object) -> Any:
    """Return the JSON that this script prints for an option of its own, in another process."""
    command = [sys.executable, "-W", "ignore", str(HERE / "run.py"), *map(str, arguments)]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    say(f"{' '.join(map(str, arguments))}: {told}")
    return told


def train_some(name: str, how: str) -> None:
    """Run steps in one of the ways of `HOW`, and print what they cost."""
    space = find_space(name, channels=CHANNELS, classes=CLASSES)
    before_mb = _peak_mb()
    config = TrainingConfig(batch_size=SPACES[name], recompute=how == "recompute")
    if how != "memory given back":
        keep_freed_memory()
    supernet = channels_last(Supernet(space, seed=0)).train()
    step = SandwichStep(supernet, space, Sandwich.of(space, config), config)
    optimizer = torch.optim.AdamW(supernet.parameters())
    images, labels = _batch(space, config.batch_size)
    seconds = []
    for number in range(STEPS):
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        step(number, images, labels)
        optimizer.step()
        seconds.append(time.perf_counter() - started)
    told = {
        "space": name,
        "side": space.layout.input.resolution,
        "batch_size": config.batch_size,
        "networks_per_image": networks_per_image(config),
        "how": how,
        "million_weights": sum(each.numel() for each in supernet.parameters()) / 1e6,
        "images_per_s": config.batch_size / float(np.median(seconds[1:])),
        "memory_mb": _peak_mb() - before_mb,
    }
    print(json.dumps(told))


def _peak_mb() -> float:
    """Return the most memory that this process has held; what `resource` tells begins with its parent's."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found.group(1)) / 1024


def loading(_: Path | None) -> None:
    """Time what comes before a step on photos of 128x128 pixels: choosing, normalising, augmenting."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (PHOTOS, PHOTO_SIDE, PHOTO_SIDE, CHANNELS), dtype=np.uint8)
    split = ImageSplit(pixels, rng.integers(0, CLASSES, PHOTOS))
    names = tuple(str(number) for number in range(CLASSES))
    data = ImageData(
        name="photos",
        class_names=names,
        channels=CHANNELS,
        resolution=PHOTO_SIDE,
        mean=(0.5,) * CHANNELS,
        std=(0.3,) * CHANNELS,
        splits={"train": split},
        content_hash="",
    )
    recipes: dict[str, dict[str, Any]] = {
        "as they are": {},
        "augmented": {"flip": True, "shift": 0.125, "zoom": 0.2, "colour": 0.2, "erase": 0.25},
    }
    rows = []
    for recipe, changes in recipes.items():
        config = TrainingConfig(batch_size=32, **changes)
        seconds = []
        for step in range(4 * STEPS):
            started = time.perf_counter()
            images, _labels = batch_of(data, split, config, step, slice(None))
            augmented(images, config, step)
            seconds.append(time.perf_counter() - started)
        rows.append({"images": recipe, "side": PHOTO_SIDE, "images_per_s": 32 / float(np.median(seconds[2:]))})
    save_table(RESULTS, pd.DataFrame(rows), "loading")


def evaluation(photos: Path | None) -> None:
    """Time the evaluation of networks, each data set in a process of its own."""
    rows: Rows = _told("--evaluate", "clutter")
    if photos is not None:
        rows += _told("--evaluate", f"folder:{photos}")
    save_table(RESULTS, pd.DataFrame(rows), "evaluation")


def evaluate_some(name: str) -> None:
    """Evaluate networks as written down plainly, and as the toolkit does it; print what that costs."""
    data = load_data(name, resolution=find_space("tiny", channels=1, classes=2).layout.input.resolution, seed=0)
    space = find_space("tiny", channels=data.channels, classes=len(data.class_names))
    supernet = channels_last(Supernet(space, seed=0)).eval()
    genomes = space.unique(space.sample(EVALUATED + 9, np.random.default_rng(0)))
    chosen, others = genomes[:EVALUATED], genomes[EVALUATED:]
    kind, _, folder = name.partition(":")
    images = CALIBRATION_IMAGES + len(data.split("validation").labels)
    rows: Rows = []

    def timed(how: str, workers: int, evaluate: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        values = evaluate()
        seconds = (time.perf_counter() - started) / EVALUATED
        told = {"data": kind, "images": images, "how": how, "workers": workers, "seconds_per_network": seconds}
        rows.append(told)
        return values

    plain = timed("plainly", 1, lambda: [_plain_accuracy(supernet, space, genome, data) for genome in chosen])
    if folder:
        timed("reading files alone", 1, lambda: [_read(Path(folder), images, data) for _ in chosen])
    for how, workers in (("evaluate, memory given back", None), ("evaluate", None), ("evaluate", 2)):
        if how == "evaluate":
            keep_freed_memory()  # which cannot be undone
        with tempfile.TemporaryDirectory() as scratch:
            ledger = Ledger(Path(scratch) / "ledger.db")
            evaluator = SubnetEvaluator(space, supernet, "5eed", data, ledger, workers=workers)
            evaluator.evaluate(others)  # starts the workers
            values = timed(how, workers or 1, partial(evaluator.evaluate, chosen))
            evaluator.close()
        rows[-1]["same_accuracies"] = int(np.sum(np.isclose(values, plain, rtol=0.0, atol=1e-9)))
    print(json.dumps(rows))


def _read(folder: Path, count: int, data: ImageData) -> list[Pixels]:
    """Decode some photos of all classes, as an evaluation does that keeps no images."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    side = data.split("train").images.shape[1]
    chosen = [files[place] for place in np.linspace(0, len(files) - 1, count).astype(int)]
    return [decode_square(path.read_bytes(), resolution=side, channels=data.channels) for path in chosen]


def _plain_accuracy(supernet: Supernet, space: NetworkSpace, genome: Genomes, data: ImageData) -> float:
    """Recalibrate a copy of the supernet on the images that `SubnetEvaluator` takes, and count."""
    spec, copied = space.lower(genome), copy.deepcopy(supernet)
    train, validation = data.split("train"), data.split("validation")
    chosen = np.random.default_rng(0).permutation(len(train.labels))[:CALIBRATION_IMAGES]
    batches = (torch.from_numpy(data.normalise(train.images[rows])) for rows in np.array_split(chosen, 4))
    recalibrate(copied, batches, lambda images: copied(images, spec))
    right = 0
    with torch.inference_mode():
        for start in range(0, len(validation.labels), 128):
            rows = slice(start, start + 128)
            answers = copied(torch.from_numpy(data.normalise(validation.images[rows])), spec).argmax(dim=1)
            right += int((answers == torch.from_numpy(validation.labels[rows])).sum())
    return right / len(validation.labels)


def origin(_: Path | None) -> None:
    """Say what made the figures."""
    save_table(RESULTS, provenance(["torch", "numpy"], threads=str(torch.get_num_threads())), "provenance")


PARTS: dict[str, tuple[str, Callable[[Path | None], None]]] = {
    "provenance": ("provenance.csv", origin),
    "overhead": ("overhead.csv", overhead),
    "costs": ("costs.csv", costs),
    "loading": ("loading.csv", loading),
    "evaluation": ("evaluation.csv", evaluation),
}


def main() -> None:
    """Run the parts that the command line names."""
    own: dict[str, Callable[..., None]] = {"--steps": train_some, "--evaluate": evaluate_some}
    if sys.argv[1:] and sys.argv[1] in own:
        own[sys.argv[1]](*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--photos", type=Path, help="Folder of photos (.jpg) by class, on which evaluation is timed, too."
    )
    run_parts(PARTS, RESULTS, parser, lambda arguments: arguments.photos)


if __name__ == "__main__":
    main()
