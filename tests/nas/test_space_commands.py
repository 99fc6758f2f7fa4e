"""``nas space``, and runs whose space is a file, has several resolutions or came with published weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from nas.run import Run
from search_spaces.catalogue import SPACES, find_space
from tests.command_line import command, exported, nas, nas_here, on_terminal, refusal, succeed
from tests.nas.test_cli import documented_keys, keys_of
from tests.nas.test_ofa_weights import published

POCKET = """
name = "pocket"
resolution = [16, 24]
stem = { kernel = 3, stride = 2 }
head = { features = 32 }
[[stages]]
width = [16, 32]
depth = [1, 2]
first = "operator"
operators = [ { family = "mbconv", kernel = [3, 5], expansion = 2, squeeze = "hidden", activation = "hard-swish" } ]
[[stages]]
width = 32
depth = [1, 2]
operators = [
    { family = "convnext", kernel = 3, expansion = 2 },
    { family = "single_head", attended = 16, expansion = 1 },
]
[sharing]
kernel_transforms = true
"""


@pytest.fixture
def pocket(tmp_path: Path) -> Path:
    path = tmp_path / "pocket.toml"
    path.write_text(POCKET)
    return path


def test_named_spaces_are_listed() -> None:
    text = succeed(nas_here("space", "list")).stdout
    assert all(name in text for name in SPACES)
    assert succeed(nas_here("space", "list", "--json")).json.keys() == SPACES.keys()


@pytest.mark.parametrize("name", SPACES)
def test_a_space_is_shown(name: str) -> None:
    space = find_space(name, channels=3, classes=10)
    lines = on_terminal(command("space", "show", name), 80)
    assert max(map(len, lines)) <= 80
    shown = succeed(nas_here("space", "show", name, "--json")).json
    assert keys_of(shown, without=("layout", "blocks_by_resolution")) == documented_keys()["space show"]
    assert shown["architectures"] == space.count()
    assert shown["blocks"] == len(space.blocks)
    smallest = space.lower(space.resize(space.sample(1, np.random.default_rng(0)), largest=False)[0])
    assert shown["macs"]["smallest"] <= smallest.macs() <= shown["macs"]["median"] < shown["macs"]["largest"]
    assert succeed(nas_here("space", "count", name)).stdout.strip() == str(space.count())


def test_a_file_is_checked(pocket: Path) -> None:
    text = succeed(nas_here("space", "check", pocket)).stdout
    assert "sound" in text
    assert "8 networks were run" in text
    checked = succeed(nas_here("space", "check", pocket, "--json")).json
    documented = documented_keys()
    assert checked.keys() - documented["space check"] == documented["space show"] - {
        *("layout", "smallest", "median", "largest"),
    }
    pocket.write_text(POCKET.replace("expansion = 2, squeeze", "expansion = [2, -2], squeeze"))
    message = refusal(nas_here("space", "check", pocket))
    assert message.startswith(f"{pocket}: stage 1: options of mbconv.expansion must be numbers of at least 1")
    assert "unknown space 'pocke'" in refusal(nas_here("space", "show", "pocke"))
    assert "there is no file" in refusal(nas_here("space", "count", pocket.with_name("absent.toml")))


def test_a_run_keeps_the_text_of_its_space(pocket: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    succeed(nas_here("train", "--run", run, "--space", pocket, "--steps", 2, "--batch-size", 16))
    pocket.write_text(POCKET.replace("[16, 32]", "[16, 48]"))
    opened = Run.existing(run, first="nas train")
    assert opened.space.layout.stages[0].width == (16, 32)
    message = refusal(nas_here("train", "--run", run, "--space", pocket, "--steps", 2, "--batch-size", 16))
    assert message.startswith(f"{pocket} has changed since {run} was made with it")
    pocket.unlink()
    succeed(nas_here("train", "--run", run, "--steps", 2, "--batch-size", 16))


@pytest.mark.slow
@pytest.mark.device
def test_a_space_from_a_file_goes_through_all_stages(pocket: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    succeed(nas("train", "--run", run, "--space", pocket, "--steps", 20, "--batch-size", 32))
    succeed(nas("build-lut", "--run", run))
    succeed(nas("search", "--run", run, "--budget-ms", "60%", "--evaluations", 24))
    front = Run.existing(run, first="nas train").front()
    space = Run.existing(run, first="nas train").space
    sides = {int(space.decode(np.array(c.genes, dtype=np.int16))["resolution"]) for c in front.candidates}
    assert sides <= {16, 24}
    # A network that takes smaller images says so, and is tested on them.
    for candidate in front.candidates:
        record = exported(nas("export", "--run", run, "--pick", candidate.id, "--json"))
        model = onnx.load(record.json["path"])
        side = model.graph.input[0].type.tensor_type.shape.dim[2].dim_value
        chosen = space.decode(np.array(candidate.genes, dtype=np.int16))
        assert side == chosen["resolution"]
        metadata = {item.key: item.value for item in model.metadata_props}
        assert json.loads(metadata["paretonas.preprocessing"])["size"] == [side, side]


def test_published_weights_become_the_supernet_of_a_run(tmp_path: Path) -> None:
    torch.save({"state_dict": published(classes=1000)}, tmp_path / "ofa.pth")
    run, space = tmp_path / "run", "ofa-mbv3:width=1.0,resolution=16"
    arguments = ("import-ofa", tmp_path / "ofa.pth", "--run", run, "--space", space)
    assert "--new-classifier" in refusal(nas_here(*arguments))
    assert not run.exists() or not (run / "space.json").exists()
    text = succeed(nas_here(*arguments, "--new-classifier")).stdout
    assert "imported from ofa.pth" in text
    opened = Run.existing(run, first="nas import-ofa")
    weights = opened.evaluator().supernet.state_dict()
    # The default data are grey: one channel in stead of three equal ones.
    expected = published()["first_conv.conv.weight"].sum(1, keepdim=True)
    torch.testing.assert_close(weights["slots.stem.stem.conv.weight"], expected)
    assert "has a supernet already" in refusal(nas_here(*arguments, "--new-classifier"))
    assert "holds weights imported from ofa.pth" in refusal(nas_here("train", "--run", run))
