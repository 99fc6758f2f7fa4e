"""Images and labels as arrays: numpy's archives, MNIST's files, functions; the same set is the same from each."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from nas.data import SPLITS, ImageData, describe_data, load_data, resolved
from nas.data.arrays import describe_arrays, read_arrays
from nas.progress import no_progress
from search_spaces.errors import InputError
from tests.nas.image_folders import save

Array = npt.NDArray[Any]
SIDE = 8


@pytest.fixture(scope="module")
def numbered() -> dict[str, Array]:
    """Ten grey images of each of three classes for training and four for test, each of its own level."""
    rng = np.random.default_rng(0)
    train, test = np.arange(30, dtype=np.uint8), np.arange(100, 112, dtype=np.uint8)
    order = rng.permutation(30)
    arrays: dict[str, Array] = {}
    for name, levels, labels in (("train", train[order], order % 3), ("test", test, np.arange(12) % 3)):
        arrays[f"x_{name}"] = np.broadcast_to(levels[:, None, None], (len(levels), SIDE, SIDE)).copy()
        arrays[f"y_{name}"] = labels
    return arrays


def as_npz(folder: Path, arrays: Mapping[str, Array]) -> str:
    path = folder / "set.npz"
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return f"npz:{path}"


def idx(array: Array) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def as_idx(folder: Path, arrays: Mapping[str, Array]) -> str:
    for ours, theirs in (("train", "train"), ("test", "t10k")):
        images, labels = idx(arrays[f"x_{ours}"]), idx(arrays[f"y_{ours}"])
        (folder / f"{theirs}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (folder / f"{theirs}-labels-idx1-ubyte").write_bytes(labels)
    return f"idx:{folder}"


def as_function(folder: Path, arrays: Mapping[str, Array]) -> str:
    as_npz(folder, arrays)
    (folder / "my_images.py").write_text(
        "import numpy\n\ndef everything():\n    return dict(numpy.load('set.npz'))\n\nnothing = 3\n"
        "def broken():\n    raise OSError('the share\\nis not mounted')\ndef wrong():\n    return [1]\n"
        "def ragged():\n    return {'x': [numpy.zeros((2, 2)), numpy.zeros((3, 3))], 'y': [0, 1]}\n"
    )
    (folder / "no_syntax.py").write_text("def (")
    return "my_images:everything"


def as_folder(folder: Path, arrays: Mapping[str, Array]) -> str:
    for split in ("train", "test"):
        for number, (image, label) in enumerate(zip(arrays[f"x_{split}"], arrays[f"y_{split}"], strict=True)):
            save(folder / "set" / split / str(label) / f"{number}.png", Image.fromarray(image))
    return f"folder:{folder / 'set'}"


def contents(data: ImageData) -> dict[str, list[tuple[int, int]]]:
    """Return level and label of every image, by split."""
    return {
        name: sorted(zip(data.split(name).images[:, 0, 0, 0].tolist(), data.split(name).labels.tolist(), strict=True))
        for name in SPLITS
    }


@pytest.mark.parametrize("write", [as_npz, as_idx, as_function, as_folder])
def test_a_set_is_the_same_from_every_source(
    write: Callable[[Path, Mapping[str, Array]], str],
    numbered: dict[str, Array],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = write(tmp_path, numbered)
    described = describe_data(spec)
    assert (described.channels, described.class_names) == (1, ("0", "1", "2"))
    data = load_data(spec, resolution=SIDE, seed=0)
    assert data.class_names == described.class_names
    found = contents(data)
    assert found["test"] == [(100 + n, n % 3) for n in range(12)]
    assert sorted(found["train"] + found["validation"]) == [(n, n % 3) for n in range(30)]
    assert len(found["validation"]) == 6
    assert load_data(spec, resolution=5, seed=1).content_hash == data.content_hash


def read(arrays: Mapping[str, Array], resolution: int = SIDE) -> tuple[tuple[str, ...], Array, Array]:
    found = read_arrays(arrays, "it", resolution=resolution, progress=no_progress)
    assert describe_arrays(arrays, "it").class_names == found.class_names
    assert describe_arrays(arrays, "it").channels == found.images.shape[-1]
    return found.class_names, found.images, found.labels


@pytest.mark.parametrize(
    ("train", "validation"),
    [
        (("x_train", "y_train"), ("x_val", "y_val")),
        (("train_images", "train_labels"), ("val_images", "val_labels")),
        (("X", "y"), ("X_valid", "y_valid")),
        (("images", "labels"), ("images_validation", "labels_validation")),
    ],
)
def test_arrays_go_by_the_names_that_people_give_them(train: tuple[str, str], validation: tuple[str, str]) -> None:
    images = np.zeros((4, SIDE, SIDE), np.uint8)
    labels = np.array([[0], [1], [0], [1]])
    arrays = {train[0]: images, train[1]: labels, validation[0]: images + 9, validation[1]: labels[::-1]}
    found = read_arrays(arrays, "it", resolution=SIDE, progress=no_progress)
    assert found.origins.tolist() == [0] * 4 + [1] * 4
    assert found.images[:, 0, 0, 0].tolist() == [0] * 4 + [9] * 4
    assert found.labels.tolist() == [0, 1, 0, 1, 1, 0, 1, 0]


@pytest.mark.parametrize("layout", ["last", "first"])
@pytest.mark.parametrize("channels", [1, 3])
def test_channels_may_come_last_or_second(layout: str, channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 12, 10, channels), dtype=np.uint8)
    given = images if layout == "last" else images.transpose(0, 3, 1, 2)
    labels = np.arange(6) % 2
    found = read({"x": given, "y": labels}, resolution=10)[1]
    mode = "L" if channels == 1 else "RGB"
    cropped = [Image.fromarray(np.squeeze(each), mode).crop((0, 1, 10, 11)) for each in images]
    assert np.array_equal(found, np.stack([np.asarray(each).reshape(10, 10, channels) for each in cropped]))


def test_what_is_transparent_becomes_white() -> None:
    images = np.zeros((4, SIDE, SIDE, 4), np.uint8)
    images[1:, :, :, 3] = 255
    found = read({"x": images, "y": np.arange(4) % 2})[1]
    assert found[:, 0, 0].tolist() == [[255] * 3, [0] * 3, [0] * 3, [0] * 3]


@pytest.mark.parametrize(
    ("labels", "more", "names", "positions"),
    [
        ([10, 2, 2, 10], {}, ("2", "10"), [1, 0, 0, 1]),
        (["cat", "ant", "ant", "cat"], {}, ("ant", "cat"), [1, 0, 0, 1]),
        ([0, 2, 2, 0], {"class_names": np.array(["ant", "bee", "cat"])}, ("ant", "bee", "cat"), [0, 2, 2, 0]),
    ],
)
def test_classes_are_named(
    labels: list[Any], more: dict[str, Array], names: tuple[str, ...], positions: list[int]
) -> None:
    found = read({"x": np.zeros((4, SIDE, SIDE), np.uint8), "y": np.array(labels), **more})
    assert (found[0], found[2].tolist()) == (names, positions)


IMAGES, LABELS = np.zeros((4, SIDE, SIDE), np.uint8), np.array([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({}, "no training images; name arrays x_train and y_train"),
        ({"x_test": IMAGES, "y_test": LABELS}, "no training images"),
        ({"x": IMAGES}, "x alone; images and labels go in pairs"),
        ({"x": IMAGES, "y": LABELS, "x_extra": IMAGES}, "'x_extra', which is unknown"),
        ({"x": IMAGES, "y": LABELS, "images": IMAGES}, "x and images and y, which are for the same"),
        ({"x": IMAGES, "y": LABELS[:3]}, "x holds 4 images, but y 3 labels"),
        ({"x": IMAGES / 255, "y": LABELS}, r"x is float64\[4, 8, 8\], not images: uint8"),
        ({"x": IMAGES[0], "y": LABELS}, r"x holds 8 images, but y 4"),
        ({"x": np.zeros((4, 2, 2, 2), np.uint8), "y": LABELS}, r"x is uint8\[4, 2, 2, 2\], not images"),
        ({"x": np.zeros((4, 0, 2), np.uint8), "y": LABELS}, r"x is uint8\[4, 0, 2\], not images"),
        ({"x": IMAGES, "y": np.eye(4)}, r"y is float64\[4, 4\], not one whole number or text per image"),
        ({"x": IMAGES, "y": LABELS * 0}, "1 classes and needs at least 2"),
        ({"x": IMAGES, "X": IMAGES, "y": LABELS}, "names differ in capitals alone"),
        ({"x": IMAGES, "y": LABELS, "class_names": np.array([b"a", b"b"])}, "not one text per class"),
        ({"x": IMAGES, "y": LABELS.astype(str), "class_names": np.array(["1", "0"])}, "texts and class_names"),
        ({"x": IMAGES, "y": LABELS, "class_names": np.array(["a"])}, "labels 0 to 1, but names 1 classes"),
        ({"x": IMAGES, "y": LABELS - 1, "class_names": np.array(["a", "b"])}, "labels -1 to 0, but names 2"),
        ({"x": IMAGES, "y": LABELS, "class_names": np.array(["a", "a"])}, "1 classes and needs at least 2, each of"),
        ({"x": IMAGES, "y": LABELS, "x_test": IMAGES, "y_test": LABELS + 1}, "no training image of class 2"),
        ({"x": IMAGES, "y": LABELS, "x_test": IMAGES, "y_test": LABELS.astype(str)}, "texts and labels that are num"),
        (
            {"x": IMAGES, "y": LABELS, "x_test": np.zeros((4, 8, 8, 3), np.uint8), "y_test": LABELS},
            "1 and of 3 channels",
        ),
    ],
)
def test_arrays_of_no_use_are_refused(arrays: dict[str, Array], complaint: str, tmp_path: Path) -> None:
    for act in (
        lambda: describe_data(as_npz(tmp_path, arrays)),
        lambda: load_data(as_npz(tmp_path, arrays), resolution=SIDE, seed=0),
    ):
        with pytest.raises(InputError, match=complaint) as caught:
            act()
        assert "set.npz" in str(caught.value)
        assert "\n" not in str(caught.value)


# Archives and files that lie


def npy(array: Array, *, shape: tuple[int, ...] | None = None) -> bytes:
    """Return an .npy file, of which the header may promise another shape."""
    buffer = io.BytesIO()
    header = {"descr": array.dtype.str, "fortran_order": False, "shape": shape or array.shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + array.tobytes()


def pickled() -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("member", "complaint"),
    [
        (npy(IMAGES, shape=(10**9, 8, 8)), "x.npy is shorter than its header says"),
        (npy(IMAGES, shape=(10**30, 8, 8)), "x.npy is shorter than its header says"),
        (pickled(), "x.npy holds Python objects"),
        (b"no array", "not a readable .npz file"),
        (b"\x93NUMPY\x01\x00\x0c\x00{'descr': (  ", "not a readable .npz file"),
        (npy(np.zeros(0, "<U1"), shape=(10**12,)).replace(b"<U1", b"<U0"), "holds Python objects or nothing"),
        (b"", "not a readable .npz file"),
    ],
)
def test_an_archive_that_lies_is_refused(member: bytes, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", member)
        archive.writestr("y.npy", npy(LABELS))
    with pytest.raises(InputError, match=complaint):
        load_data(f"npz:{path}", resolution=SIDE, seed=0)


def test_damage_anywhere_in_an_archive_is_refused_or_harmless(numbered: dict[str, Array], tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    as_npz(tmp_path, numbered)
    content, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    for case in range(200):
        damaged = bytearray(content)
        if case % 2:
            del damaged[int(rng.integers(len(content))) :]
        else:
            for position in rng.integers(0, len(content), 3):
                damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            load_data(f"npz:{path}", resolution=SIDE, seed=0)
        except InputError:
            refused += 1
    assert refused > 150


def test_more_than_the_memory_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = as_npz(tmp_path, {"x": np.zeros((100, 64, 64), np.uint8), "y": np.arange(100) % 2})
    monkeypatch.setattr("os.sysconf", lambda name: 1 if name == "SC_PHYS_PAGES" else 4096)
    with pytest.raises(InputError, match=r"set\.npz need .* GB of memory .* divide the file"):
        load_data(spec, resolution=SIDE, seed=0)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not a readable IDX file"),
        (b"GIF89a", "does not start as one of bytes does"),
        (struct.pack(">HBBI", 0, 0x0D, 1, 4) + b"1234", "does not start"),
        (idx(IMAGES)[:-1], "shorter than its header says"),
        (idx(IMAGES) + b"1", "longer than its header says"),
        (struct.pack(">HBB3I", 0, 8, 3, 2**31, 2**31, 2**31), "^the train-images.* need .* GB of memory"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_that_lie_are_refused(content: bytes, complaint: str, suffix: str, tmp_path: Path) -> None:
    (tmp_path / "train-labels.idx1-ubyte").write_bytes(idx(LABELS))
    (tmp_path / f"train-images.idx3-ubyte{suffix}").write_bytes(gzip.compress(content) if suffix else content)
    with pytest.raises(InputError, match=complaint) as caught:
        load_data(f"idx:{tmp_path}", resolution=SIDE, seed=0)
    assert "\n" not in str(caught.value)


def test_a_torn_gzip_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(LABELS))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(IMAGES))[:-12])
    with pytest.raises(InputError, match="not a readable IDX file"):
        load_data(f"idx:{tmp_path}", resolution=SIDE, seed=0)


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        ([], "no files named as train-images-idx3-ubyte"),
        (["train-images-idx3-ubyte"], "train_images alone"),
        (["train-images-idx3-ubyte", "emnist-letters-train-images-idx3-ubyte"], "are both train images; keep one"),
    ],
)
def test_a_folder_without_its_idx_files_is_refused(names: list[str], complaint: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).write_bytes(idx(IMAGES))
    with pytest.raises(InputError, match=complaint):
        describe_data(f"idx:{tmp_path}")


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("npz:missing.npz", "missing.npz: No such file or directory"),
        ("npz:.", "Is a directory"),
        ("npz", "data 'npz' should be written npz:FILE"),
        ("idx:missing", "there is no folder missing"),
        ("my_images:nobody", r"my_images\.py has no function 'nobody'"),
        ("my_images:nothing", r"my_images\.py has no function 'nothing'"),
        ("my_images:broken", "'my_images:broken' raised OSError: the share$"),
        ("my_images:ragged", "'my_images:ragged' raised ValueError: setting an array element"),
        ("my_images:wrong", "'my_images:wrong' must return a mapping of names to arrays, not list"),
        ("my_images.deeper:everything", r"raised ModuleNotFoundError: No module named 'my_images\.deeper'"),
        ("no_syntax:everything", "raised SyntaxError"),
        ("nowhere_to_be_found:load", r"MODULE:FUNCTION\); nor is there a module 'nowhere_to_be_found'"),
        ("this:load", "unknown data 'this:load'"),
        ("__main__:load", "unknown data '__main__:load'"),
        ("MODULE:load", "unknown data 'MODULE:load'"),
        ("foldr:pictures", "unknown data 'foldr:pictures'"),
        ("my_images:", "unknown data 'my_images:'"),
    ],
)
def test_a_source_that_is_not_there_is_refused(
    spec: str, complaint: str, numbered: dict[str, Array], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    as_function(tmp_path, numbered)
    for act in (lambda: describe_data(spec), lambda: load_data(spec, resolution=SIDE, seed=0)):
        with pytest.raises(InputError, match=complaint):
            act()


def test_only_places_on_disk_are_made_absolute(
    numbered: dict[str, Array], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    as_function(tmp_path, numbered)
    assert [resolved(f"{kind}:a/../b") for kind in ("folder", "npz", "idx")] == [
        f"{kind}:{tmp_path / 'b'}" for kind in ("folder", "npz", "idx")
    ]
    assert resolved("my_images:everything") == "my_images:everything"
    assert resolved("clutter") == "clutter"
