from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from nas.data import SPLITS, describe_data
from search_spaces.errors import InputError
from tests.nas.image_folders import BLUE, RED, WHITE, levels, load_folder, load_one, make_classes, plain, save


def test_grey_needs_every_image_to_be_stored_grey(tmp_path: Path) -> None:
    make_classes(tmp_path, {"a": 3, "b": 3})
    assert describe_data(f"folder:{tmp_path}").channels == load_folder(tmp_path).channels == 1
    save(tmp_path / "b" / "9.png", plain(RED))
    assert describe_data(f"folder:{tmp_path}").channels == load_folder(tmp_path).channels == 3
    images = np.concatenate([load_folder(tmp_path).split(name).images for name in SPLITS])
    assert sorted(image[0, 0].tolist() for image in images) == [*([k] * 3 for k in range(6)), list(RED)]


def test_describing_decodes_nothing(tmp_path: Path) -> None:
    make_classes(tmp_path, {"a": 3, "b": 3})
    for file in tmp_path.rglob("*.png"):
        file.write_bytes(file.read_bytes()[:45])  # the header and no pixel
    description = describe_data(f"folder:{tmp_path}")
    assert (description.channels, description.class_names) == (1, ("a", "b"))


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp", ".webp", ".gif", ".ppm", ".jpg", ".jpeg"])
def test_formats_are_read(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == ".webp" else {}
    result = load_one(tmp_path, plain(BLUE), suffix, **options)
    assert np.abs(result.astype(int) - BLUE).max() <= 2


def test_modes_are_brought_to_eight_bits_per_channel(tmp_path: Path) -> None:
    ramp = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    deep = Image.fromarray(ramp.astype(np.uint16) * 256 + 255)
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([*RED, *BLUE])
    expected = {
        "bits": (Image.new("1", (8, 8), 1), np.full((8, 8, 3), 255)),
        "grey": (Image.fromarray(ramp), np.repeat(ramp[..., None], 3, axis=2)),
        "deep": (deep, np.repeat(ramp[..., None], 3, axis=2)),
        "palette": (palette, np.full((8, 8, 3), BLUE)),
    }
    for name, (image, pixels) in expected.items():
        assert np.array_equal(load_one(tmp_path / name, image), pixels), name


def test_what_is_transparent_becomes_white(tmp_path: Path) -> None:
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([*RED, *BLUE])
    palette.paste(1, (0, 0, 4, 8))
    half = np.full((8, 8, 3), WHITE)
    half[:, :4] = BLUE
    assert np.array_equal(load_one(tmp_path / "P", palette, transparency=0), half)
    for mode in ("RGBA", "LA"):
        image = Image.new("RGBA", (8, 8), (0, 0, 0, 0)).convert(mode)
        image.paste(Image.new("RGBA", (4, 8), (0, 0, 0, 255)).convert(mode), (0, 0))
        result = load_one(tmp_path / mode, image)
        assert result[:, :4].max() == 0
        assert result[:, 4:].min() == 255


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_upright(tmp_path: Path, orientation: int) -> None:
    stored = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    seen = load_one(tmp_path, stored, exif=exif)
    with Image.open(tmp_path / "c" / "1.png") as image:
        assert np.array_equal(seen, np.asarray(ImageOps.exif_transpose(image)))


@pytest.mark.parametrize("size", [(16, 8), (8, 16)])
def test_the_longer_side_is_cropped_evenly(tmp_path: Path, size: tuple[int, int]) -> None:
    image = plain(RED, size)
    image.paste(BLUE, ((size[0] - 8) // 2, (size[1] - 8) // 2, (size[0] + 8) // 2, (size[1] + 8) // 2))
    assert np.array_equal(load_one(tmp_path, image), np.full((8, 8, 3), BLUE))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_shrinking_averages_all_pixels(tmp_path: Path, suffix: str) -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    result = load_one(tmp_path, Image.fromarray(stripes), suffix)
    assert np.abs(result.astype(int) - 127).max() <= 10


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_shrinking_keeps_what_the_resolution_can_show(tmp_path: Path, suffix: str) -> None:
    # Eight bands across: a JPEG decoded at less than the resolution would show them grey.
    bands = np.zeros((32, 32, 3), dtype=np.uint8)
    bands[:, np.arange(32) // 4 % 2 == 0] = 255
    result = load_one(tmp_path, Image.fromarray(bands), suffix).astype(int)
    assert (result[:, 0::2].min(), result[:, 1::2].max()) == (pytest.approx(255, abs=70), pytest.approx(0, abs=70))


def test_a_chunk_that_ends_too_early_is_damage(tmp_path: Path) -> None:
    make_classes(tmp_path, {"a": 3, "b": 4})
    file = tmp_path / "b" / "1.png"
    content = file.read_bytes()
    length = content.index(b"IDAT") - 4
    file.write_bytes(content[:length] + (5).to_bytes(4, "big") + content[length + 4 :])
    (unreadable,) = load_folder(tmp_path).unreadable
    assert unreadable.startswith("b/1.png (broken PNG file")


def test_all_broken_images_are_counted_and_the_first_ones_named(tmp_path: Path) -> None:
    make_classes(tmp_path, {"a": 8, "b": 3})
    for number in range(7):
        file = tmp_path / "a" / f"{number}.png"
        file.write_bytes(file.read_bytes()[: 0 if number == 0 else 50])
    with pytest.raises(InputError, match=r"class 'a' has 1 training images.*; 7 images cannot be read: ") as caught:
        load_folder(tmp_path)
    message = str(caught.value)
    assert "a/0.png (not an image of a known format), a/1.png (" in message
    assert "a/4.png" in message
    assert message.endswith(", …")
    assert "a/5.png" not in message
    assert "\n" not in message


def test_a_damaged_image_is_left_out_and_named(tmp_path: Path) -> None:
    make_classes(tmp_path, {"a": 4, "b": 4})
    whole = load_folder(tmp_path)
    assert whole.unreadable == ()
    (tmp_path / "b" / "1.png").write_text("<html>404</html>")
    assert describe_data(f"folder:{tmp_path}").channels == 1
    rest = load_folder(tmp_path)
    assert rest.unreadable == ("b/1.png (not an image of a known format)",)
    assert rest.content_hash != whole.content_hash
    assert sorted(level for part in levels(rest).values() for level in part) == [0, 1, 2, 3, 4, 6, 7]
    for name in SPLITS:
        split = rest.split(name)
        assert np.array_equal(split.labels, split.images[:, 0, 0, 0] >= 4)


def test_an_image_of_too_many_pixels_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_classes(tmp_path, {"a": 3, "b": 3})
    save(tmp_path / "b" / "1.png", plain(0, (12, 12)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow's own limit takes a file of 90 million pixels
    with pytest.raises(InputError, match=r"1 image cannot .*b/1\.png \(Image size \(144 pixels\) exceeds limit"):
        load_folder(tmp_path)


def test_damage_anywhere_in_an_image_is_refused_or_harmless(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Make] = "camera"
    pixels = rng.integers(0, 256, (24, 20, 3), dtype=np.uint8)
    make_classes(tmp_path, {"a": 3, "b": 2})
    refused = 0
    for suffix, options in (
        (".png", {"exif": exif}),
        (".jpg", {"exif": exif}),
        (".webp", {}),
        (".gif", {}),
        (".bmp", {}),
    ):
        content = save(tmp_path / "b" / f"odd{suffix}", Image.fromarray(pixels), **options).read_bytes()
        for case in range(60):
            damaged = bytearray(content)
            if case % 2:
                del damaged[int(rng.integers(len(content))) :]
            else:
                for position in rng.integers(0, min(200, len(content)), 3):
                    damaged[position] = rng.integers(256)
            (tmp_path / "b" / f"odd{suffix}").write_bytes(damaged)
            try:
                load_folder(tmp_path)
            except InputError as error:
                assert f"1 image cannot be read: b/odd{suffix}" in str(error)
                refused += 1
        (tmp_path / "b" / f"odd{suffix}").unlink()
    assert refused > 100
