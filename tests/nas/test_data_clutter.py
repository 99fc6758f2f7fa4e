"""Cluttered digits: deterministic, divided before they are drawn, and what their name says."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nas.data import SPLITS, ImageData, clutter, load_data
from nas.data.clutter import ClutterSource, Recipe
from nas.data.digits import load_grey_digits
from nas.data.images import Pixels
from nas.data.picture import sample_picture
from nas.data.source import SourceImages
from nas.progress import no_progress

# A whole digit, as it is, and nothing else.
PLAIN = Recipe(
    pictures=(1, 1, 1),
    side=(1.0, 1.0),
    stretch=(1.0, 1.0),
    turn_degrees=0.0,
    shear=0.0,
    brightness=(1.0, 1.0),
    fragments=(0, 0),
    noise=(0.0, 0.0),
)


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load_data("clutter", resolution=24, seed=0)


def read(recipe: Recipe, *, resolution: int = 8, seed: int = 0) -> SourceImages:
    return ClutterSource(recipe).read("", resolution=resolution, seed=seed, progress=no_progress)


def as_texts(images: Pixels) -> list[bytes]:
    return [image.tobytes() for image in images]


def test_there_are_enough_images_of_every_class_in_every_split(data: ImageData) -> None:
    sizes = {name: len(data.split(name).labels) for name in SPLITS}
    assert sizes["test"] >= 4000
    assert sizes["validation"] >= 1000
    for name in SPLITS:
        part = data.split(name)
        assert part.images.shape == (sizes[name], 24, 24, 1)
        assert np.bincount(part.labels, minlength=10).min() >= 0.09 * sizes[name]


def test_one_seed_gives_equal_images_and_another_seed_others(data: ImageData) -> None:
    again, other = load_data("clutter", resolution=24, seed=0), load_data("clutter", resolution=24, seed=1)
    assert again.content_hash == data.content_hash != other.content_hash
    for name in SPLITS:
        assert np.array_equal(again.split(name).images, data.split(name).images)
        assert not np.array_equal(other.split(name).images, data.split(name).images)


def test_no_two_pictures_are_equal(data: ImageData) -> None:
    pictures = [text for name in SPLITS for text in as_texts(data.split(name).images)]
    assert len(set(pictures)) == len(pictures)


def test_an_undisturbed_picture_is_the_digit_itself() -> None:
    drawn = read(PLAIN)
    digits, labels = load_grey_digits()
    ours = sorted(zip(as_texts(drawn.images[..., 0]), drawn.labels.tolist(), strict=True))
    assert ours == sorted(zip(as_texts(digits), labels.tolist(), strict=True))


def test_whole_digits_and_fragments_of_a_split_come_from_digits_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[set[bytes]] = []
    cut = clutter._cut

    def remember(digits: Pixels, recipe: Recipe, rng: np.random.Generator) -> Pixels:
        used[-1].update(as_texts(digits))
        return cut(digits, recipe, rng)

    draw = clutter._draw

    def noted(shown: Pixels, others: Pixels, resolution: int, recipe: Recipe, rng: np.random.Generator) -> Pixels:
        used.append(set(as_texts(shown)))
        return draw(shown, others, resolution, recipe, rng)

    monkeypatch.setattr(clutter, "_cut", remember)
    monkeypatch.setattr(clutter, "_draw", noted)
    monkeypatch.setattr(clutter, "_CHUNK", 10**6)  # one call for each split
    read(Recipe(pictures=(2, 2, 2)))
    train, validation, test = used
    digits = set(as_texts(load_grey_digits()[0]))
    assert train | validation | test == digits
    assert not train & validation
    assert not train & test
    assert not validation & test


def test_a_fragment_is_a_piece_of_a_digit_on_black() -> None:
    digits, _ = load_grey_digits()
    recipe = Recipe(fragment_pixels=(4, 4))
    pieces = clutter._cut(digits[:50], recipe, np.random.default_rng(0))
    for digit, piece in zip(digits, pieces, strict=False):
        inside = piece[2:6, 2:6]
        assert piece.sum() == inside.sum()
        windows = np.lib.stride_tricks.sliding_window_view(digit, (4, 4)).reshape(-1, 4, 4)
        assert (windows == inside).all(axis=(1, 2)).any()


@pytest.mark.parametrize(
    ("change", "at_least", "at_most"),
    [
        ({"fragments": (6, 6)}, 1.1, 3.0),
        ({"noise": (0.2, 0.2)}, 1.1, 3.0),
        ({"brightness": (0.3, 0.3)}, 0.2, 0.8),
    ],
)
def test_every_ingredient_shows(change: dict[str, Any], at_least: float, at_most: float) -> None:
    few = Recipe(pictures=(1, 1, 1), fragments=(1, 1))
    plain, changed = (read(recipe, resolution=24).images for recipe in (few, dataclasses.replace(few, **change)))
    assert at_least <= changed.mean() / plain.mean() <= at_most


def test_turning_keeps_a_digit_in_its_place() -> None:
    straight = read(PLAIN, resolution=25).images[..., 0].astype(float)
    turned = read(dataclasses.replace(PLAIN, turn_degrees=45.0), resolution=25).images[..., 0].astype(float)
    assert not np.array_equal(straight, turned)
    # The ink that a rotation about the middle moves out of the picture is little.
    assert turned.sum() == pytest.approx(straight.sum(), rel=0.1)


def test_the_picture_of_samples_shows_training_images_of_every_class_in_its_row(data: ImageData) -> None:
    content = sample_picture(data, columns=3, seed=0)
    assert content == sample_picture(data, columns=3, seed=0)
    with Image.open(io.BytesIO(content)) as picture:
        pixels = np.asarray(picture)
    tile, gap = 72, 4  # 24 pixels, three times as large
    assert pixels.shape[0] == gap + 10 * (tile + gap)
    left = pixels.shape[1] - 3 * (tile + gap)
    train = data.split("train")
    known = dict(zip(as_texts(train.images), train.labels.tolist(), strict=True))
    for row in range(10):
        for column in range(3):
            top, start = gap + row * (tile + gap), left + column * (tile + gap)
            shown = pixels[top : top + tile : 3, start : start + tile : 3]
            assert known[np.ascontiguousarray(shown).tobytes()] == row


def test_the_picture_has_room_for_few_images_and_long_names(data: ImageData) -> None:
    few = {
        name: dataclasses.replace(part, images=part.images[:1], labels=part.labels[:1])
        for name, part in data.splits.items()
    }
    long_names = tuple(f"a class with a long name {number}" * 3 for number in range(10))
    named = dataclasses.replace(data, splits=few, class_names=long_names)
    with Image.open(io.BytesIO(sample_picture(named, columns=2, seed=0))) as picture:
        assert picture.width < 600
