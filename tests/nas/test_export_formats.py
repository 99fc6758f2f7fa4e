"""All formats of one network, the inputs that can be asked for, and what `nas verify` finds in a changed folder."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from nas.devices import PRECISIONS
from nas.export import FORMATS
from nas.export.answers import torch_logits
from nas.export.onnx_file import read_metadata
from nas.export.record import CARD_FILE, CONFIG_FILE, RECORD_FILE, read_export
from nas.export.torch_file import rebuilt
from nas.export.verify import _latencies
from nas.files import sha256_file
from nas.ledger import accuracy_evaluator
from nas.run import Run
from nas.runtime import open_session
from tests.command_line import Finished, environment, exported, nas_here, refusal, succeed
from tests.nas.hazards import protectable, read_only, small_disk
from tests.nas.test_cli import documented_keys, keys_of
from tests.source_tree import ROOT

pytestmark = pytest.mark.slow

ALL = "onnx,onnx-int8,pt2,safetensors"


@pytest.fixture(scope="module")
def copied(searched_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A searched run of this module's own."""
    return shutil.copytree(searched_run, tmp_path_factory.mktemp("formats") / "run")


@pytest.fixture(scope="module")
def folder(copied: Path) -> Path:
    """All formats of the knee; for reading only. A network of twelve steps guesses, so its classes may change."""
    done = exported(nas_here("export", "--run", copied, "--pick", "knee", "--format", ALL, "--most-lost", 50, "--json"))
    return Path(done.json["folder"])


@pytest.fixture
def alone(folder: Path, tmp_path: Path) -> Path:
    """The same outside any run, to be changed."""
    return shutil.copytree(folder, tmp_path / "given")


def checks(finished: Finished) -> dict[tuple[str, str], bool | None]:
    return {(each["name"], each["file"]): each["passed"] for each in finished.json["checks"]}


def test_every_format_is_a_file_of_its_own_with_its_hash(folder: Path) -> None:
    record = read_export(folder)
    assert [each.format for each in record.files] == list(FORMATS)
    files = {entry.file for entry in FORMATS.values()}
    assert {path.name for path in folder.iterdir()} == files | {CONFIG_FILE, CARD_FILE, RECORD_FILE}
    for each in record.files:
        path = folder / each.file
        assert (sha256_file(path), path.stat().st_size) == (each.sha256, each.size_bytes)
        assert each.parity <= 1e-4 or each.precision == "int8"
        assert each.agreement == 1.0 or each.precision == "int8"
        content = path.read_bytes()
        assert not [place for place in (ROOT, folder.parents[1], Path.home()) if str(place).encode() in content]


def test_the_quantised_file_tells_its_own_figures(folder: Path) -> None:
    record = read_export(folder)
    in_floats, in_integers = record.files[:2]
    metadata = [read_metadata(onnx.load(folder / each.file)) for each in (in_floats, in_integers)]
    assert [each["accuracy"]["precision"] for each in metadata] == ["fp32", "int8"]
    assert [each["accuracy"]["test"] for each in metadata] == [in_floats.test_accuracy, in_integers.test_accuracy]
    assert in_integers.size_bytes < in_floats.size_bytes
    assert record.most_lost == 0.5
    kinds = [{node.op_type for node in onnx.load(folder / each.file).graph.node} for each in (in_floats, in_integers)]
    assert ["QuantizeLinear" in each for each in kinds] == [False, True]
    run = Run.holding(folder.parents[1], folder, record.space_hash)
    assert run is not None
    assert [run.ledger.count(accuracy_evaluator(record.weights_hash, "test", each)) for each in PRECISIONS] == [1, 1]
    assert record.test_reads == 2


def test_weights_and_their_description_make_the_network(folder: Path) -> None:
    record = read_export(folder)
    network = rebuilt(
        (folder / CONFIG_FILE).read_text(),
        (folder / "model.safetensors").read_bytes(),
        shape=(1, *record.preprocessing.size),
        classes=len(record.class_names),
        source="x",
    )
    assert sum(each.numel() for each in network.parameters()) == record.candidate.params
    logits = torch_logits(network, record.preprocessing.normalised(record.preprocessing.probes()))
    assert np.abs(logits - np.array(record.answers["fp32"])).max() <= 1e-4
    described = json.loads((folder / CONFIG_FILE).read_text())
    assert described["class_names"] == list(record.class_names)
    assert described["preprocessing"]["mean"] == list(record.preprocessing.mean)


def test_a_program_of_torch_takes_any_number_of_images(folder: Path) -> None:
    record = read_export(folder)
    program: Any = torch.export.load(folder / "model.pt2").module()  # written a moment ago by the fixture
    images = torch.from_numpy(record.preprocessing.normalised(record.preprocessing.probes()))
    for count in (1, 3, 4):
        apart = program(images[:count]).detach().numpy() - np.array(record.answers["fp32"])[:count]
        assert np.abs(apart).max() <= 1e-4


def test_the_model_card_says_what_it_is_and_its_lines_run(folder: Path) -> None:
    record, card = read_export(folder), (folder / CARD_FILE).read_text()
    for word in (
        record.candidate.id,
        *(each.file for each in record.files),
        "stage1.block1",
        "Licence",
        record.weights_hash,
    ):
        assert word in card
    assert f"{100 * record.main.test_accuracy:.1f} ±" in card
    (lines,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(lines.splitlines()) <= 10
    done = subprocess.run([sys.executable, "-c", lines], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.strip() in [repr([name]) for name in record.class_names]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_any_number_of_images_in_bytes(copied: Path, tmp_path: Path, folder: Path, precision: str) -> None:
    record = read_export(folder)
    run = shutil.copytree(copied, tmp_path / "run")
    done = nas_here(
        *("export", "--run", run, "--pick", record.candidate.id, "--format", "onnx-int8", "--most-lost", 50),
        *("--dynamic-batch", "--pixels", "--force", "--json"),
    )
    told = read_export(Path(exported(done).json["folder"]))
    assert (told.batch, told.preprocessing.layout, told.preprocessing.dtype) == (None, "NHWC", "uint8")
    (file,) = [each for each in told.files if each.precision == precision]
    session = open_session(Path(done.json["folder"]) / file.file)
    (given,) = session.get_inputs()
    assert (given.type, given.shape[1:]) == ("tensor(uint8)", [*told.preprocessing.size, 1])
    pixels = told.preprocessing.probes()
    answers = np.array(record.answers["fp32" if precision == "fp32" else "int8"])
    for count in (1, 4):
        (logits,) = session.run(None, {"input": pixels[:count]})
        assert np.abs(logits - answers[:count]).max() <= (1e-4 if precision == "fp32" else 0.05)
    assert {path.name for path in Path(done.json["folder"]).iterdir()} == {
        *("model.onnx", "model-int8.onnx", CARD_FILE, RECORD_FILE)
    }, "files of the export before are left"
    code = re.findall(r"```python\n(.*?)```", (Path(done.json["folder"]) / CARD_FILE).read_text(), re.DOTALL)
    assert "astype" not in code[0]


def test_what_is_there_is_kept_unless_forced(copied: Path, folder: Path) -> None:
    before = {path.name: sha256_file(path) for path in folder.iterdir()}
    told = refusal(nas_here("export", "--run", copied, "--pick", "knee"))
    assert "add --force" in told
    assert {path.name: sha256_file(path) for path in folder.iterdir()} == before


def test_quantisation_that_costs_too_much_is_refused(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.existing(copied, first="nas train")
    other = run.front().candidates[0].id
    monkeypatch.setattr("nas.export.int8.LEAST_AGREEMENT", 1.01)
    told = refusal(
        nas_here("export", "--run", copied, "--pick", other, "--format", "onnx-int8", "--most-lost", 50), code=1
    )
    assert "101 % is the least" in told
    assert not (copied / "exports" / other).exists()


def test_a_full_disk_leaves_the_old_export(copied: Path, folder: Path, tmp_path: Path) -> None:
    record = read_export(folder)
    with small_disk(tmp_path / "disk", kilobytes=30_000) as disk:
        run = disk / "run"
        shutil.copytree(copied, run, ignore=shutil.ignore_patterns("blocks", "exports"))
        (run / "exports").mkdir()
        shutil.copytree(folder, run / "exports" / folder.name)
        before = {path.name: sha256_file(path) for path in (run / "exports" / folder.name).iterdir()}
        free = shutil.disk_usage(disk).free
        (run / "filling").write_bytes(b"x" * max(0, free - 150_000))
        words = ("export", "--run", run, "--pick", record.candidate.id, "--force")
        assert "No space left" in refusal(nas_here(*words), code=3)
        assert {path.name: sha256_file(path) for path in (run / "exports" / folder.name).iterdir()} == before


def test_a_folder_that_cannot_be_written_is_explained_before_the_test_split_is_read(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(copied, tmp_path / "run", ignore=shutil.ignore_patterns("exports"))
    with protectable(tmp_path) as place:
        (place / "exports").mkdir()
        (run / "exports").symlink_to(place / "exports")
        assert "leads out of the run" in refusal(nas_here("export", "--run", run, "--pick", "knee"))
        (run / "exports").unlink()
        # A run on a disk that is read-only has no lock either; here only the exports are on one.
        monkeypatch.setattr(Run, "_own", lambda self, *parts: place.joinpath(*parts))
        opened = Run.existing(run, first="nas train")
        name = accuracy_evaluator(opened.front().supernet_hash, "test", "fp32")
        before = opened.ledger.count(name)
        with read_only(place):
            told = refusal(nas_here("export", "--run", run, "--pick", "knee"), code=3)
        assert re.search("Read-only|Permission", told)
        assert Run.existing(run, first="nas train").ledger.count(name) == before


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out latencies, which a busy machine can put outside a budget."""
    monkeypatch.setattr("nas.export.verify._latencies", lambda *_: ())


@pytest.mark.usefixtures("unmeasured")
def test_a_sound_folder_is_verified_alone_and_in_its_run(copied: Path, folder: Path, alone: Path) -> None:
    in_run, outside = (succeed(nas_here("verify", each, "--run", copied, "--json")) for each in (folder, alone))
    assert keys_of(in_run.json) == documented_keys()["verify"]
    assert in_run.json["passed"]
    found, apart = checks(in_run), checks(outside)
    assert apart == {each: passed for each, passed in found.items() if each[0] != "validation accuracy"}
    assert "accuracies were not counted" in outside.stderr
    assert {name for name, _ in found} == {"hash", "model", "answers", "validation accuracy"}
    assert found[("answers", "model.pt2")] is None
    assert [passed for (name, _), passed in found.items() if name in ("hash", "model", "validation accuracy")] == [
        True
    ] * 8


def test_the_latency_here_is_held_against_the_budget(folder: Path) -> None:
    for budget_ms, passed in ((1e-9, False), (1e9, True), (None, None)):
        record = dataclasses.replace(read_export(folder), budget_ms=budget_ms)
        found = {each.file: each for each in _latencies(folder, record, list(record.files[:2]), 0)}
        assert {name: each.passed for name, each in found.items()} == {"model.onnx": passed, "model-int8.onnx": None}
    elsewhere = dataclasses.replace(record, fingerprint=None)
    told = [each.found for each in _latencies(folder, elsewhere, [record.main], 0)]
    assert "under other conditions" in told[0]
    (away,) = _latencies(folder, dataclasses.replace(record, device="kit:target=pi"), [record.main], 0)
    assert (away.passed, away.found) == (None, "not measured: kit:target=pi is not here")


@pytest.mark.usefixtures("unmeasured")
def test_reads_of_the_test_split_are_counted_in_the_run(copied: Path, folder: Path, tmp_path: Path) -> None:
    run = shutil.copytree(copied, tmp_path / "run")
    record = read_export(folder)
    name = f"accuracy:{record.weights_hash}:test:fp32"
    before = Run.existing(run, first="nas train").ledger.count(name)
    found = checks(succeed(nas_here("verify", run / "exports" / folder.name, "--run", run, "--test", "--json")))
    assert found[("test accuracy", "model.onnx")] is found[("test accuracy", "model-int8.onnx")] is True
    assert Run.existing(run, first="nas train").ledger.count(name) == before + 1
    for words in (("--data", "clutter"), ("--data", "digits")):
        apart = nas_here("verify", run / "exports" / folder.name, "--run", run, "--test", *words, "--json")
        assert "counted nowhere" in apart.stderr
    assert Run.existing(run, first="nas train").ledger.count(name) == before + 1
    outside = shutil.copytree(folder, tmp_path / "alone")
    assert "--test and --data need images" in refusal(nas_here("verify", outside, "--run", run, "--test"))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def pretend(folder: Path, name: str) -> None:
    """Write the hash of a changed file into the record."""
    record = json.loads((folder / RECORD_FILE).read_text())
    for file in record["files"]:
        if file["file"] == name:
            file["sha256"] = sha256_file(folder / name)
    (folder / RECORD_FILE).write_text(json.dumps(record))


def with_other_weights(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    largest = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    values = np.frombuffer(largest.raw_data, dtype=np.float32) * np.float32(1.5)
    largest.raw_data = values.tobytes()
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    pretend(folder, "model.onnx")


def with_weights_elsewhere(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    onnx.save_model(
        model, str(folder / "model.onnx"), save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    pretend(folder, "model.onnx")


def of_another_network(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    for entry in model.metadata_props:
        if entry.key == "paretonas.architecture":
            entry.value = '{"id": "0123456789", "genes": {}}'
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    pretend(folder, "model.onnx")


def with_an_odd_description(folder: Path) -> None:
    """A slot of the name of a method, which torch refuses."""
    config = (folder / CONFIG_FILE).read_text().replace('"slot": "stem"', '"slot": "keys"')
    (folder / CONFIG_FILE).write_text(config)
    record = json.loads((folder / RECORD_FILE).read_text())
    record["config_sha256"] = sha256_file(folder / CONFIG_FILE)
    (folder / RECORD_FILE).write_text(json.dumps(record))


def with_odd_weights(folder: Path) -> None:
    """A type that safetensors knows, and torch does not."""
    header = b'{"x":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}'
    content = len(header).to_bytes(8, "little") + header + b"x" * 2_000_000
    (folder / "model.safetensors").write_bytes(content)
    pretend(folder, "model.safetensors")


def with_one_more_input(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    model.graph.input.append(onnx.helper.make_tensor_value_info("other", onnx.TensorProto.FLOAT, [1]))
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    pretend(folder, "model.onnx")


def no_model(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"\x00\xffthis is no model")
    pretend(folder, "model.onnx")


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    ("change", "name", "file", "words"),
    [
        (lambda folder: flip(folder / "model.onnx"), "hash", "model.onnx", "exported was"),
        (lambda folder: flip(folder / "model.pt2"), "hash", "model.pt2", "exported was"),
        (lambda folder: (folder / "model.safetensors").unlink(), "hash", "model.safetensors", "missing"),
        (
            lambda folder: (folder / CONFIG_FILE).write_text("{}"),
            "answers",
            "model.safetensors",
            "not what was exported",
        ),
        (with_an_odd_description, "answers", "model.safetensors", "do not fit"),
        (with_odd_weights, "answers", "model.safetensors", "do not fit"),
        (with_one_more_input, "answers", "model.onnx", "does not run"),
        (with_other_weights, "answers", "model.onnx", "logits"),
        (with_weights_elsewhere, "model", "model.onnx", "another file"),
        (of_another_network, "model", "model.onnx", "0123456789"),
        (no_model, "model", "model.onnx", "no ONNX model"),
    ],
)
def test_a_folder_that_was_changed_fails_the_check_that_is_for_it(
    alone: Path, change: Callable[[Path], object], name: str, file: str, words: str
) -> None:
    change(alone)
    done = nas_here("verify", alone, "--data", "clutter", "--json")
    assert done.code == 1
    assert "checks failed" in done.stderr
    found = checks(done)
    assert found[(name, file)] is False, found
    assert [each for each in done.json["checks"] if words in each["found"]]
    assert found[("hash", "model-int8.onnx")] is True


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda record: record["files"][0].update(file="../../model.onnx"), "is not what the file of format onnx"),
        (lambda record: record["files"][0].update(sha256="../x"), "no SHA-256"),
        (lambda record: record.update(format_version=3), "older release"),
        (lambda record: record.update(files=[]), "files"),
        (lambda record: record["preprocessing"].update(size=[100_000, 100_000]), "of no image"),
        (lambda record: record["preprocessing"].update(scale=0.0), "of no image"),
        (lambda record: record["preprocessing"].update(std=[0.0]), "of no image"),
        (lambda record: record["data"].update(resolution=30_000), "of no image"),
        (lambda record: record.update(class_names=[], answers={"fp32": [[]] * 4, "int8": [[]] * 4}), "answers are not"),
        (lambda record: record["answers"].update(fp32=[[1.0]]), "answers are not 4 rows"),
        (lambda record: record.update(extra=1), "extra"),
    ],
)
def test_a_record_that_cannot_be_is_refused_in_one_line(
    alone: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    record = json.loads((alone / RECORD_FILE).read_text())
    change(record)
    (alone / RECORD_FILE).write_text(json.dumps(record))
    assert words in refusal(nas_here("verify", alone))


def test_images_of_other_classes_are_refused(alone: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "two.npz", x=rng.integers(0, 255, (60, 8, 8), np.uint8), y=np.arange(60) % 2)
    told = refusal(nas_here("verify", alone, "--data", f"npz:{tmp_path / 'two.npz'}"))
    assert "classes that are not those of the network" in told


def test_what_lies_around_a_folder_from_elsewhere_is_not_run(folder: Path, tmp_path: Path) -> None:
    outer = tmp_path / "given"
    inner = shutil.copytree(folder, outer / "exports" / folder.name)
    shutil.copy(folder.parents[1] / "space.json", outer)
    settings = json.loads((outer / "space.json").read_text()) | {"data": "trap:load"}
    (outer / "space.json").write_text(json.dumps(settings))
    (outer / "trap.py").write_text("open('sprung', 'w').close()\n")
    words = [sys.executable, "-m", "nas", "verify", str(inner), "--json"]
    done = subprocess.run(words, cwd=outer, env=environment(), capture_output=True, text=True, check=False)
    assert "accuracies were not counted" in done.stderr
    assert not (outer / "sprung").exists()


def test_a_file_in_place_of_the_folder_is_explained(folder: Path) -> None:
    assert "is a file; name the folder" in refusal(nas_here("verify", folder / "model.onnx"))
