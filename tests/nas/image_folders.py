"""Folders of small images, made for a test."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nas.data import SPLITS, ImageData, load_data
from nas.data.images import Pixels

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def plain(colour: int | tuple[int, int, int], size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.new("L" if isinstance(colour, int) else "RGB", size, colour)


def make_classes(root: Path, counts: dict[str, int], *, base: int = 0) -> None:
    """Save grey images, each of its own level, as ``root/<class>/<number>.png``."""
    level = base
    for name, count in counts.items():
        for number in range(count):
            save(root / name / f"{number}.png", plain(level))
            level += 1


def levels(data: ImageData) -> dict[str, list[int]]:
    """Return the grey level of each image by split, sorted: what identifies it in `make_classes`."""
    return {name: sorted(int(image[0, 0, 0]) for image in data.split(name).images) for name in SPLITS}


def load_folder(root: Path, *, resolution: int = 8, seed: int = 0) -> ImageData:
    return load_data(f"folder:{root}", resolution=resolution, seed=seed)


def load_one(root: Path, image: Image.Image, suffix: str = ".png", **options: Any) -> Pixels:
    """Return one image as the loader sees it, from a folder of colour images: ``uint8[8, 8, 3]``."""
    for name in ("a", "b"):
        for number in range(3):
            save(root / name / f"{number}.png", plain(GREEN))
    save(root / "c" / f"1{suffix}", image, **options)
    shutil.copy(root / "c" / f"1{suffix}", root / "c" / f"2{suffix}")
    shutil.copy(root / "c" / f"1{suffix}", root / "c" / f"3{suffix}")
    train = load_folder(root).split("train")
    (seen,) = train.images[train.labels == 2]
    return np.asarray(seen, dtype=np.uint8)
