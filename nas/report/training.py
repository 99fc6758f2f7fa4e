"""How the supernet learned, and from what."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from nas.data import ImageData, ImageSplit
from nas.data.images import Pixels
from nas.data.picture import sample_picture
from nas.report.holdings import Holdings
from nas.report.parts import Chart, Line, Missing, Part, Picture, Section, Table, rounded
from nas.training_log import COLUMNS, LOG_FILE
from search_spaces.errors import MachineError

_POINTS = 240
_SAMPLES = 10
_CLASSES = 24
_LARGEST = 64  # side of an image, pixels


def training_section(held: Holdings, images: ImageData | str) -> Section:
    """Return the section of the supernet's training.

    Args:
        held: what the run holds.
        images: the run's, or why they cannot be shown.
    """
    parts: list[Part] = [Line(text=_summary(held))]
    log = _read_log(held)
    if log:
        parts += _curves(held, log)
    elif held.record is None or held.record.config is not None:
        parts.append(Missing(what="What the training told of its steps", command=held.command("nas train")))
    parts += _ends(held)
    if isinstance(images, str):
        parts.append(Missing(what=f"Samples of the data ({images})", command=held.command("nas data show")))
    else:
        parts.append(_samples(images))
    return Section(
        name="training",
        title="Training",
        about="How the weights that all networks share were trained, and samples of what they were trained on.",
        parts=tuple(parts),
    )


def _summary(held: Holdings) -> str:
    record = held.record
    if record is None:
        state = "was stopped" if held.status.supernet == "stopped" else "has not begun"
        return f"The training on {held.run.settings.data} {state}."
    if record.config is None:
        return f"The supernet was imported from {record.imported_from}."
    loss = "" if record.final_loss is None else f", last loss {record.final_loss:.3f}"
    return (
        f"{record.config.steps:,} steps of {record.config.batch_size} images of {held.run.settings.data} in "
        f"{record.seconds:.0f} s (seed {record.config.seed}{loss})."
    )


def _read_log(held: Holdings) -> dict[str, list[float | None]]:
    """Return the columns of the log, thinned; empty where there is none."""
    path = held.run.supernet_dir / LOG_FILE
    try:
        rows = list(csv.DictReader(path.read_text(errors="replace").splitlines()))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise MachineError(f"cannot read {path}: {error.strerror}") from None
    except csv.Error:
        return {}  # damaged: said to be missing
    table = np.array([[_number(row.get(name)) for name in COLUMNS] for row in rows]).reshape(-1, len(COLUMNS))
    table = table[np.isfinite(table[:, 0])]
    if not len(table):
        return {}
    parts = np.array_split(table, min(_POINTS, len(table)))
    # Means, since single steps jump; of what no step of a part has there is none.
    means = np.array([[_mean(column) for column in part.T] for part in parts])
    return {name: rounded(column) for name, column in zip(COLUMNS, means.T, strict=True)}


def _mean(values: np.typing.NDArray[np.float64]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


def _curves(held: Holdings, log: dict[str, list[float | None]]) -> list[Part]:
    sandwich = held.record is not None and held.record.config is not None and held.record.config.sandwich
    whom = "largest" if sandwich else "random"
    charts: list[Part] = []
    for kind, unit, scale in (("accuracy", "accuracy %", 100.0), ("loss", "loss", 1.0)):
        lines = [(f"{whom} subnets", log[kind]), ("smallest subnet", log[f"smallest_{kind}"])]
        told = [(name, _scaled(values, scale)) for name, values in lines if any(each is not None for each in values)]
        if told:
            charts.append(_curve(kind, unit, log["step"], told))
    return charts


def _curve(kind: str, unit: str, steps: list[float | None], told: Sequence[tuple[str, list[float | None]]]) -> Chart:
    title = f"Training {kind}"
    last = {name: next(each for each in reversed(values) if each is not None) for name, values in told}
    ends = ", ".join(f"{name} ends at {value}" for name, value in last.items())
    return Chart(
        name=f"training-{kind}",
        title=f"{title}, on each step's own images",
        alt=f"Lines over steps: {ends}.",
        traces=tuple(_line(name, steps, values, position) for position, (name, values) in enumerate(told)),
        layout={"xaxis": {"title": {"text": "step"}}, "yaxis": {"title": {"text": unit}}},
        table=Table(
            name=f"training-{kind}",
            title=f"{title}, means over equal stretches",
            columns=("step", *(f"{name}, {unit}" for name, _ in told)),
            rows=tuple(zip(steps, *(values for _, values in told), strict=True)),
            shown=False,
        ),
    )


def _scaled(values: list[float | None], scale: float) -> list[float | None]:
    return rounded([None if each is None else scale * each for each in values])


def _line(name: str, x: list[float | None], y: list[float | None], position: int) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": x,
        "y": y,
        "line": {"color": f"var(--c{position + 1})", "dash": ("solid", "dash")[position % 2]},
    }


def _ends(held: Holdings) -> list[Part]:
    """Return what the ends of the space are worth after the training, where they were evaluated."""
    space = held.space
    both = np.stack(
        [space.resize(space.sample(1, np.random.default_rng(0)), largest=large)[0] for large in (True, False)]
    )
    known = held.accuracies["fp32"].known
    told = [
        f"the {name} {100 * known[genes]:.1f} %"
        for name, genes in zip(("largest", "smallest"), map(tuple, both.tolist()), strict=True)
        if genes in known
    ]
    return [Line(text=f"Of the search-validation images {' and '.join(told)} has right.")] if told else []


def _samples(images: ImageData) -> Picture:
    few = _few(images)
    of = "each class" if len(few.class_names) == len(images.class_names) else f"the first {_CLASSES} classes"
    return Picture(
        title=f"Training images, {_SAMPLES} of {of}",
        alt=f"Rows of images, one for each class: {', '.join(few.class_names)}.",
        png=sample_picture(few, columns=_SAMPLES, seed=0),
    )


def _few(images: ImageData) -> ImageData:
    """Return some training images of some classes, none larger than a picture of them needs."""
    train, rng = images.split("train"), np.random.default_rng(0)
    names = images.class_names[:_CLASSES]
    members = [rng.permutation(np.flatnonzero(train.labels == label))[:_SAMPLES] for label in range(len(names))]
    rows = np.concatenate(members)
    side = min(images.resolution, _LARGEST)
    pixels = np.stack([_resized(each, side) for each in train.images[rows]])
    return replace(images, class_names=names, resolution=side, splits={"train": ImageSplit(pixels, train.labels[rows])})


def _resized(image: Pixels, side: int) -> Pixels:
    if image.shape[0] == side:
        return image
    grey = image.shape[2] == 1
    resized = np.asarray(Image.fromarray(image[:, :, 0] if grey else image).resize((side, side)))
    return resized[:, :, None] if grey else resized
