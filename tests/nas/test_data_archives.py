"""Published archives, unpacked as a user would, train without a line of code."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from nas.run import Run
from tests.command_line import nas_here, succeed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("archive", "data", "channels", "classes", "test_images"),
    [
        ("cifar10_jpg.tar.xz", "folder:cifar10_jpg", 3, 10, 10_000),
        ("trashnet_128x96.tar", "folder:trashnet", 3, 6, None),
        ("fashion_mnist_first3615.npz", "npz:fashion_mnist_first3615.npz", 1, 10, None),
    ],
)
def test_a_published_archive_trains(
    archive: str,
    data: str,
    channels: int,
    classes: int,
    test_images: int | None,
    shared_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    if archive.endswith(".npz"):
        Path(archive).write_bytes((shared_data / archive).read_bytes())
    else:
        subprocess.run(["tar", "-xf", str(shared_data / archive)], check=True)
    shown = succeed(nas_here("data", "show", "--data", data, "--json")).json
    assert (shown["channels"], len(shown["class_names"])) == (channels, classes)
    assert shown["unreadable_images"] == []
    assert test_images in (None, shown["images"]["test"])
    succeed(nas_here("train", "--run", "run", "--data", data, "--steps", "2", "--batch-size", "8", "--json"))
    assert Run.existing(Path("run"), first="nas train").require_supernet().trained.steps == 2
