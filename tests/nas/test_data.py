from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.data import SPLITS, describe_data, load_data
from nas.data.images import Labels, channel_statistics
from nas.data.splits import HELD_OUT_SHARE, divide
from search_spaces.errors import InputError
from tests.nas.image_folders import levels, load_folder, make_classes, plain, save
from tests.test_imports import newly_imported


def test_digits_are_scaled_and_divided_by_class() -> None:
    data = load_data("digits", resolution=16, seed=0)
    assert (data.name, data.channels, data.resolution) == ("digits", 1, 16)
    assert data.class_names == tuple("0123456789")
    sizes = {name: len(data.split(name).labels) for name in SPLITS}
    assert sum(sizes.values()) == 1797
    for name, share in zip(SPLITS, (0.6, 0.2, 0.2), strict=True):
        part = data.split(name)
        assert part.images.shape == (sizes[name], 16, 16, 1)
        assert part.images.dtype == np.uint8
        assert part.labels.dtype == np.int64
        assert sizes[name] / 1797 == pytest.approx(share, abs=0.005)
        assert np.bincount(part.labels, minlength=10).min() >= 0.18 / 2 * share * 1797


def test_digits_of_one_seed_are_equal_and_of_two_seeds_divided_differently() -> None:
    first, again, other = (load_data("digits", resolution=8, seed=seed) for seed in (0, 0, 1))
    for name in SPLITS:
        assert np.array_equal(first.split(name).images, again.split(name).images)
        assert np.array_equal(first.split(name).labels, again.split(name).labels)
        assert not np.array_equal(first.split(name).images, other.split(name).images)
    assert first.content_hash == other.content_hash


def test_digits_at_their_own_size_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    data = load_data("digits", resolution=8, seed=0)
    ours = np.concatenate([data.split(name).images[..., 0] for name in SPLITS])
    theirs = np.round(load_digits().images / 16 * 255)
    assert sorted(image.tobytes() for image in ours) == sorted(image.astype(np.uint8).tobytes() for image in theirs)


def test_normalised_training_images_have_mean_0_and_deviation_1() -> None:
    data = load_data("digits", resolution=8, seed=0)
    train = data.split("train").images
    result = data.normalise(train)
    assert result.shape == (len(train), 1, 8, 8)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    assert result.mean() == pytest.approx(0, abs=1e-5)
    assert result.std() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        (
            "digit",
            "unknown data 'digit'; did you mean 'digits'? (known: clutter, digits, folder:PATH, npz:FILE, idx:DIR, "
            "MODULE:FUNCTION)",
        ),
        ("", "unknown data '' (known: clutter, digits, folder:PATH, npz:FILE, idx:DIR, MODULE:FUNCTION)"),
        ("digits:small", "data 'digits:small' should be written digits"),
        ("folder", "data 'folder' should be written folder:PATH"),
        ("folder:", "data 'folder:' should be written folder:PATH"),
        ("folder:missing", "there is no folder missing"),
    ],
)
def test_an_unusable_specification_is_refused(spec: str, complaint: str) -> None:
    with pytest.raises(InputError) as described:
        describe_data(spec)
    with pytest.raises(InputError) as loaded:
        load_data(spec, resolution=8, seed=0)
    assert str(described.value) == str(loaded.value) == complaint


def test_senseless_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="resolution must be at least 1, got 0"):
        load_data("digits", resolution=0, seed=0)
    with pytest.raises(InputError, match="seed must be at least 0, got -1"):
        load_data("digits", resolution=8, seed=-1)
    with pytest.raises(InputError, match=r"GB of memory .* choose a smaller resolution"):
        load_data("digits", resolution=1_000_000, seed=0)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(InputError, match="unknown split 'validate'; did you mean 'validation'"):
        load_data("digits", resolution=8, seed=0).split("validate")  # type: ignore[arg-type]


def test_describing_digits_loads_no_scikit_learn() -> None:
    assert newly_imported("nas.data") & {"sklearn", "torch"} == set()
    assert describe_data("digits").class_names == tuple("0123456789")


@st.composite
def labelled(draw: st.DrawFn) -> tuple[Labels, tuple[str, ...]]:
    counts = draw(st.lists(st.integers(3, 60), min_size=2, max_size=8))
    labels = np.repeat(np.arange(len(counts)), counts)
    order = np.random.default_rng(draw(st.integers(0, 2**32))).permutation(len(labels))
    return labels[order], tuple(f"class {k}" for k in range(len(counts)))


@given(data=labelled(), seed=st.integers(0, 2**32))
def test_splits_are_disjoint_complete_and_stratified(data: tuple[Labels, tuple[str, ...]], seed: int) -> None:
    labels, class_names = data
    rows = divide(labels, np.zeros(len(labels), dtype=np.int8), class_names, seed=seed)
    assert list(rows) == list(SPLITS)
    assert sorted(np.concatenate(list(rows.values()))) == list(range(len(labels)))
    for label in range(len(class_names)):
        n = int((labels == label).sum())
        counts = [int((labels[rows[name]] == label).sum()) for name in SPLITS]
        assert min(counts) >= 1
        assert counts[1] == counts[2]
        assert abs(counts[1] - HELD_OUT_SHARE * n) <= 0.5


@given(data=labelled(), seed=st.integers(0, 2**32), given_split=st.sampled_from([1, 2]))
def test_a_split_that_is_given_is_kept_and_the_other_is_cut_from_training(
    data: tuple[Labels, tuple[str, ...]], seed: int, given_split: int
) -> None:
    labels, class_names = data
    origins = np.zeros(len(labels), dtype=np.int8)
    for label in range(len(class_names)):
        origins[np.flatnonzero(labels == label)[0]] = given_split
    rows = divide(labels, origins, class_names, seed=seed)
    assert sorted(np.concatenate(list(rows.values()))) == list(range(len(labels)))
    assert set(rows[SPLITS[given_split]]) == set(np.flatnonzero(origins == given_split))
    assert set(labels[rows[SPLITS[3 - given_split]]]) == set(range(len(class_names)))


def test_the_first_rows_are_a_mixture_of_classes(tmp_path: Path) -> None:
    make_classes(tmp_path, {"a": 40, "b": 40})
    assert set(load_folder(tmp_path).split("train").labels[:16]) == {0, 1}


def test_statistics_are_exact_and_a_constant_channel_is_harmless() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1500, 4, 4, 3), dtype=np.uint8)
    images[..., 1] = 77
    mean, std = channel_statistics(images)
    assert mean == pytest.approx(images.mean(axis=(0, 1, 2)) / 255, rel=1e-12)
    assert std == pytest.approx([images[..., 0].std() / 255, 1.0, images[..., 2].std() / 255], rel=1e-12)


def test_a_folder_of_classes_is_divided(tmp_path: Path) -> None:
    make_classes(tmp_path, {"dog": 10, "cat": 20, "2": 5})
    data = load_folder(tmp_path)
    assert data.class_names == ("2", "cat", "dog")
    assert (data.channels, data.name) == (1, f"folder:{tmp_path}")
    assert [np.bincount(data.split(name).labels).tolist() for name in SPLITS] == [[3, 12, 6], [1, 4, 2], [1, 4, 2]]
    found = levels(data)
    assert sorted(found["train"] + found["validation"] + found["test"]) == list(range(35))
    for name in SPLITS:
        for image, label in zip(data.split(name).images, data.split(name).labels, strict=True):
            assert (image == image[0, 0]).all()
            assert label == {0: 2, 1: 1, 2: 1, 3: 0}[int(image[0, 0, 0]) // 10]


@pytest.mark.parametrize("validation", ["val", "valid", "validation"])
def test_splits_that_are_given_are_kept(tmp_path: Path, validation: str) -> None:
    make_classes(tmp_path / "train", {"a": 4, "b": 4}, base=0)
    make_classes(tmp_path / validation, {"a": 1, "b": 1}, base=100)
    make_classes(tmp_path / "test", {"a": 2, "b": 1}, base=200)
    assert levels(load_folder(tmp_path)) == {
        "train": list(range(8)),
        "validation": [100, 101],
        "test": [200, 201, 202],
    }


def test_a_missing_split_is_cut_from_training(tmp_path: Path) -> None:
    make_classes(tmp_path / "train", {"a": 10, "b": 10})
    make_classes(tmp_path / "test", {"a": 2, "b": 2}, base=100)
    found = levels(load_folder(tmp_path))
    assert found["test"] == [100, 101, 102, 103]
    assert sorted(found["train"] + found["validation"]) == list(range(20))
    assert len(found["validation"]) == 4


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    make_classes(tmp_path, {"train": 3, "bus": 3})
    assert load_folder(tmp_path).class_names == ("bus", "train")


def test_hidden_files_are_ignored_and_links_are_followed(tmp_path: Path) -> None:
    make_classes(tmp_path / "elsewhere", {"a": 3})
    root = tmp_path / "root"
    make_classes(root, {"b": 3}, base=10)
    (root / "a").symlink_to(tmp_path / "elsewhere" / "a")
    (root / "b" / ".DS_Store").write_bytes(b"x")
    (root / "b" / "Thumbs.db").write_bytes(b"x")
    (root / ".cache").mkdir()
    (root / "README.txt").write_text("about")
    assert sorted(level for part in levels(load_folder(root)).values() for level in part) == [0, 1, 2, 10, 11, 12]


def test_the_order_is_natural_and_not_that_of_the_file_system(tmp_path: Path) -> None:
    counts = {"a": 12, "b": 12}
    make_classes(tmp_path / "one", counts)
    for file in sorted((tmp_path / "one").rglob("*.png"), reverse=True):
        copy = tmp_path / "two" / file.relative_to(tmp_path / "one")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    # The same images under names that sort alike by number, and differently by character.
    for file in (tmp_path / "one").rglob("*.png"):
        renamed = tmp_path / "three" / file.parent.name / f"{int(file.stem):03}.png"
        renamed.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, renamed)
    one, two, three = (load_folder(tmp_path / name) for name in ("one", "two", "three"))
    assert one.content_hash == two.content_hash != three.content_hash
    for name in SPLITS:
        for other in (two, three):
            assert np.array_equal(one.split(name).images, other.split(name).images)
            assert np.array_equal(one.split(name).labels, other.split(name).labels)


def test_the_hash_is_of_the_content_at_any_resolution_and_seed(tmp_path: Path) -> None:
    make_classes(tmp_path, {"a": 3, "b": 3})
    first = load_folder(tmp_path).content_hash
    assert load_folder(tmp_path, resolution=5, seed=9).content_hash == first
    save(tmp_path / "b" / "2.png", plain(99))
    assert load_folder(tmp_path).content_hash != first


def add_stray_image(root: Path) -> None:
    save(root / "stray.png", plain(0))


def add_text(root: Path) -> None:
    (root / "a" / "labels.csv").write_text("x")


def add_folder_in_class(root: Path) -> None:
    make_classes(root / "a", {"deeper": 1})


def add_broken_link(root: Path) -> None:
    (root / "a" / "gone.png").symlink_to(root / "nowhere")


def empty_class(root: Path) -> None:
    (root / "empty").mkdir()


def starve_class(root: Path) -> None:
    make_classes(root, {"starved": 2})


def leave_one_class(root: Path) -> None:
    shutil.rmtree(root / "b")


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (add_stray_image, r"stray\.png belongs to no class"),
        (add_text, r"labels\.csv is not an image of a known format \(\.bmp .*1 such files"),
        (add_folder_in_class, "deeper is a folder inside a class"),
        (add_broken_link, r"gone\.png is neither a file nor a folder"),
        (empty_class, "'empty' has 0 training images, but every class needs at least 3 .*validation and test are cut"),
        (starve_class, "'starved' has 2 training images"),
        (leave_one_class, "has 1 class folders and needs at least 2"),
    ],
)
def test_a_folder_of_no_use_is_refused(tmp_path: Path, spoil: Callable[[Path], None], complaint: str) -> None:
    make_classes(tmp_path, {"a": 3, "b": 3})
    assert load_folder(tmp_path).class_names == ("a", "b")
    spoil(tmp_path)
    with pytest.raises(InputError, match=complaint) as caught:
        load_folder(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("extra", "complaint"),
    [
        ({"test/c": 1}, "test has classes that .*train lacks: c"),
        ({"testing/a": 1}, "unknown folder .* 'testing'; did you mean 'test'"),
        ({"val/a": 1, "val/b": 1, "valid/a": 1}, "val and .*valid are both for validation"),
        ({"test/a": 1}, "class 'b' has no image in the test split"),
    ],
)
def test_splits_of_no_use_are_refused(tmp_path: Path, extra: dict[str, int], complaint: str) -> None:
    make_classes(tmp_path / "train", {"a": 5, "b": 5})
    make_classes(tmp_path, extra)
    with pytest.raises(InputError, match=complaint):
        load_folder(tmp_path)


def test_progress_counts_every_image(tmp_path: Path) -> None:
    make_classes(tmp_path, {"a": 3, "b": 3})
    calls: list[tuple[int, int]] = []
    load_data(f"folder:{tmp_path}", resolution=8, seed=0, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 6) for done in range(1, 7)]
