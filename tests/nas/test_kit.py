"""Measurement kits: what is in one, what comes back, and what is refused."""

from __future__ import annotations

import dataclasses
import functools
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas import lut, lut_plan
from nas.block_cache import BlockCache
from nas.devices import KitDevice
from nas.devices.results import Results, parse_results
from nas.files import write_atomic
from nas.kit import KitRecord, kit_results, tiled, write_kit
from nas.lut import again_id, network_id, table_of
from nas.lut_plan import plan_table
from nas.measure import Manifest, measure, read_manifest
from nas.runtime import open_session, random_inputs
from predictors.latency import LatencyPredictor
from search_spaces.documents import pretty_json
from search_spaces.errors import InputError
from search_spaces.language import NetworkSpace
from tests.nas.core_script import CORE, three_models, timed
from tests.nas.micro_space import micro
from tests.nas.small_models import conv

Kit = tuple[Path, KitRecord, NetworkSpace]
BOARD = KitDevice(target="board")

pytestmark = pytest.mark.device


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    """The archive for a small space, unpacked, and what is kept of it."""
    folder = tmp_path_factory.mktemp("kit")
    return make_kit(folder)


def make_kit(folder: Path, device: KitDevice = BOARD) -> Kit:
    """Write and unpack a kit of few networks and short times."""
    space = micro()
    cache = BlockCache(folder / "blocks")
    cache.directory.mkdir()
    cache.fill(space.blocks)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("CALIBRATION_NETWORKS", 12), ("HELD_OUT_NETWORKS", 8)):
            patch.setattr(lut_plan, name, value)
        patch.setattr(lut_plan, "BLOCK_VISIT_MS", 0.5)
        patch.setattr(lut, "SUSTAINED_S", 0.01)
        plan = plan_table(space, device, seed=3)
        record = write_kit(plan, space, cache, device, folder / "kit.zip", work_dir=folder / "work")
    with zipfile.ZipFile(folder / "kit.zip") as archive:
        archive.extractall(folder / "there")
    write_atomic(folder / "board.kit.json", pretty_json(record))
    return folder, record, space


def test_a_kit_holds_the_core_itself_and_whole_models(kit: Kit) -> None:
    folder, record, _ = kit
    for file in CORE:
        assert (folder / "there" / file.name).read_bytes() == file.read_bytes()
    # Even where this package is installed, the files that were shipped are the ones that run.
    (folder / "there" / "probe.py").write_text("import measure; print(measure.runtime.__file__)")
    found = subprocess.run(
        [sys.executable, "probe.py"], cwd=folder / "there", capture_output=True, text=True, check=True
    )
    assert Path(found.stdout.strip()).resolve() == (folder / "there" / "runtime.py").resolve()
    manifest = read_manifest(folder / "there" / "manifest.json")
    assert manifest.hash == record.manifest.hash
    for model in manifest.models:
        loaded = onnx.load(model.path)
        assert loaded.ir_version == 8
        assert {each.domain: each.version for each in loaded.opset_import}[""] == 18
    assert "python measure.py" in (folder / "there" / "README.txt").read_text()


def test_a_space_in_which_too_few_networks_are_found_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("CALIBRATION_NETWORKS", 40),
        ("HELD_OUT_NETWORKS", 8),
        ("_POOL", 10),
    ):
        monkeypatch.setattr(lut_plan, name, value)
    with pytest.raises(InputError, match="too few to find 40 to calibrate on and 8 others"):
        plan_table(micro(), BOARD, seed=0)


def test_equal_kits_are_equal_archives(kit: Kit, tmp_path: Path) -> None:
    again, _, _ = make_kit(tmp_path)
    assert (again / "kit.zip").read_bytes() == (kit[0] / "kit.zip").read_bytes()


def test_tiled_weights_keep_shapes_and_types_and_compress(tmp_path: Path) -> None:
    model = conv(8)
    weight = model.graph.initializer[0]
    weight.CopyFrom(onnx.numpy_helper.from_array(np.random.default_rng(0).random((512, 3, 5, 5), "float32"), "w"))
    small = tiled(model)
    before, after = (onnx.numpy_helper.to_array(each.graph.initializer[0]) for each in (model, small))
    assert (before.shape, before.dtype) == (after.shape, after.dtype)
    assert np.array_equal(before.ravel()[:251], after.ravel()[:251])
    assert not np.array_equal(before, after)
    for each, least, most in ((model, 0.8, 1.0), (small, 0.0, 0.05)):
        path = tmp_path / "model.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("model", each.SerializeToString())
        assert least < path.stat().st_size / len(each.SerializeToString()) <= most


def run_there(folder: Path, python: str | Path = sys.executable) -> str:
    """Run the kit where it was unpacked, as its owner would."""
    done = subprocess.run([python, "measure.py"], cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, (done.stdout[-500:], done.stderr)
    return done.stdout


@pytest.fixture(scope="module")
def results(kit: Kit) -> Path:
    """What came back from the kit."""
    run_there(kit[0] / "there")
    return kit[0] / "there" / "results.jsonl"


@pytest.mark.usefixtures("any_noise")
def test_what_comes_back_becomes_a_table_of_that_device(kit: Kit, results: Path) -> None:
    folder, record, space = kit
    found, measured = kit_results([results], [folder / "board.kit.json"])
    assert found == record
    table = table_of(found.plan, space, measured)
    assert table.device == "kit:target=board"
    assert len(table.blocks) == len(space.blocks)
    predicted = LatencyPredictor(space, table).predict(space.enumerate())
    assert (predicted > 0).all()


def test_results_of_another_run_are_refused(kit: Kit, results: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not of a kit that this run made"):
        kit_results([results], [])
    other = dataclasses.replace(kit[1], rounds=kit[1].rounds + 1)
    write_atomic(tmp_path / "other.kit.json", pretty_json(other))
    with pytest.raises(InputError, match="not of a kit"):
        kit_results([results], [tmp_path / "other.kit.json"])


@pytest.mark.usefixtures("any_noise")
def test_results_that_leave_no_time_for_some_network_are_refused(kit: Kit, results: Path, tmp_path: Path) -> None:
    folder, record, space = kit
    genomes = space.check([*record.plan.calibration, *record.plan.held_out])
    depths = {network_id(number): len(tuple(space.lower(genome))) for number, genome in enumerate(genomes)}
    forged_ms = depths | {again_id(name): depth for name, depth in depths.items()}
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    for line in lines:
        if line["kind"] == "visit":
            # Chains that take a second leave every block less than no time, while deeper networks take longer.
            is_chain = line["id"].startswith("chain")
            time_ns = 10**6 * (1000 if is_chain else forged_ms.get(line["id"], 1))
            line |= {"first_ns": time_ns, "min_ns": time_ns, "median_ns": time_ns, "p90_ns": time_ns}
    forged = tmp_path / "forged.jsonl"
    forged.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _, measured = kit_results([forged], [folder / "board.kit.json"])
    with pytest.raises(InputError, match="contradict each other"):
        table_of(record.plan, space, measured)


def test_results_measured_otherwise_than_the_kit_says_are_refused(kit: Kit, results: Path, tmp_path: Path) -> None:
    first, *rest = results.read_text().splitlines(keepends=True)
    start = json.loads(first)
    start["fingerprint"] |= {"provider": "OpenVINOExecutionProvider", "threads": 4}
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps(start) + "\n" + "".join(rest))
    with pytest.raises(InputError, match="OpenVINOExecutionProvider and 4 threads, not as the kit says"):
        kit_results([other], [kit[0] / "board.kit.json"])


def test_a_record_that_cannot_be_read_does_not_stand_in_the_way_of_others(
    kit: Kit, results: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.kit.json"
    broken.write_text("{}")
    assert kit_results([results], [broken, kit[0] / "board.kit.json"])[0] == kit[1]
    with pytest.raises(InputError, match=r"not of a kit that this run made \(nor could one be read: .*broken"):
        kit_results([results], [broken])


def test_results_that_are_not_complete_say_how_to_go_on(kit: Kit, results: Path, tmp_path: Path) -> None:
    lines = results.read_bytes().splitlines(keepends=True)
    part = tmp_path / "part.jsonl"
    part.write_bytes(b"".join(lines[: len(lines) // 2]))
    with pytest.raises(InputError, match=r"part\.jsonl.*lacks results for .* models.*goes on where it stopped"):
        kit_results([part], [kit[0] / "board.kit.json"])
    # A copy taken too early and the rest of the same measurement are complete together.
    _, both = kit_results([part, results], [kit[0] / "board.kit.json"])
    _, whole = kit_results([results], [kit[0] / "board.kit.json"])
    assert both == whole


def test_results_of_two_devices_are_refused_naming_what_differs(kit: Kit, results: Path, tmp_path: Path) -> None:
    first, *rest = results.read_text().splitlines(keepends=True)
    start = json.loads(first)
    start["fingerprint"]["cpu_model"] = "another"
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps(start) + "\n" + "".join(rest))
    with pytest.raises(InputError, match=r"other\.jsonl.*different devices \(cpu_model differ\)"):
        kit_results([results, other], [kit[0] / "board.kit.json"])


# Merging: any order, any grouping, any number of times.


@pytest.fixture(scope="module")
def attempts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, list[Path]]:
    """A hundred results files of one manifest on one device: whole ones, and ones that were cut anywhere."""
    folder = tmp_path_factory.mktemp("attempts")
    manifest = Manifest(models=tuple(timed(three_models(folder), visit_ms=0.1, sustained_s=0.001)), rounds=2)
    measure(manifest, folder / "whole.jsonl", lambda done, total: None)
    text = (folder / "whole.jsonl").read_text().splitlines()
    rng, paths = np.random.default_rng(0), []
    for number in range(100):
        lines: list[dict[str, Any]] = [json.loads(line) for line in text]
        lines[0]["conditions"]["time_unix_s"] += (
            number // 2
        )  # every second file is of the same attempt as the one before
        for line in lines:
            if line["kind"] == "visit" and number // 2:
                slower = (number // 2 * 131 + len(line["id"]) * 17 + line["round"] * 7) % 1000
                line |= {name: line[name] + slower for name in ("first_ns", "min_ns", "median_ns", "p90_ns")}
        kept = lines if number == 0 else lines[: rng.integers(1, len(lines), endpoint=True)]
        paths.append(folder / f"{number}.jsonl")
        paths[-1].write_text("".join(json.dumps(line) + "\n" for line in kept))
    return manifest, paths


def merged(paths: list[Path]) -> Results:
    return functools.reduce(Results.merged, map(_parsed, paths))


_parsed = functools.cache(parse_results)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**9), repeats=st.integers(0, 30))
def test_merging_a_hundred_files_is_commutative_associative_and_idempotent(
    attempts: tuple[Manifest, list[Path]], seed: int, repeats: int
) -> None:
    manifest, paths = attempts
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(len(paths)), rng.integers(0, len(paths), repeats)])
    shuffled = [paths[position] for position in order]
    cut = int(rng.integers(1, len(shuffled)))
    grouped = merged(shuffled[:cut]).merged(merged(shuffled[cut:]))
    assert grouped == merged(paths)
    assert grouped.run(manifest) == merged(paths).run(manifest)


def test_merging_keeps_every_visit(attempts: tuple[Manifest, list[Path]]) -> None:
    manifest, paths = attempts
    visits: dict[str, set[tuple[int, int, int]]] = {}
    for number, path in enumerate(paths):
        for line in map(json.loads, path.read_text().splitlines()):
            if line["kind"] == "visit":
                visits.setdefault(line["id"], set()).add((number // 2, line["round"], line["min_ns"]))
    for measurement in merged(paths).run(manifest).measurements:
        assert sorted(round(each * 1e6) for each in measurement.rounds_ms) == sorted(
            min_ns for _, _, min_ns in visits[measurement.id]
        )


@pytest.mark.parametrize(("kind", "field"), [("visit", "min_ns"), ("sustained", "mean_ns")])
def test_files_that_contradict_each_other_are_refused(
    attempts: tuple[Manifest, list[Path]], tmp_path: Path, kind: str, field: str
) -> None:
    _, paths = attempts
    lines = [json.loads(line) for line in paths[0].read_text().splitlines()]
    next(line for line in lines if line["kind"] == kind)[field] -= 1
    forged = tmp_path / "forged.jsonl"
    forged.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InputError, match="two figures for the same visit"):
        parse_results(paths[0]).merged(parse_results(forged))


# Other environments


@pytest.mark.slow
@pytest.mark.parametrize(
    ("requirements", "device"),
    [
        (["onnxruntime==1.31.1", "numpy"], BOARD),
        (["onnxruntime==1.19.2", "numpy<2.2"], BOARD),
        (["onnxruntime==1.19.2", "numpy<2.2"], KitDevice(target="board", precision="int8")),
        (["onnxruntime-openvino", "numpy"], KitDevice(target="board", provider="openvino")),
    ],
    ids=["pinned", "older", "older-int8", "openvino"],
)
@pytest.mark.usefixtures("any_noise")
def test_a_kit_runs_where_nothing_else_is_installed(tmp_path: Path, requirements: list[str], device: KitDevice) -> None:
    folder, _, space = make_kit(tmp_path, device)
    home = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    python = home / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements], check=True
    )
    found = subprocess.run(
        [
            python,
            "-c",
            "import importlib.util; print([n for n in ('nas', 'onnx', 'torch') if importlib.util.find_spec(n)])",
        ],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert found.stdout.strip() == "[]"
    run_there(folder / "there", python)
    record, measured = kit_results([folder / "there" / "results.jsonl"], [folder / "board.kit.json"])
    expected = "OpenVINOExecutionProvider" if device.provider == "openvino" else "CPUExecutionProvider"
    assert measured.fingerprint.provider == expected
    assert len(table_of(record.plan, space, measured).blocks) == len(space.blocks)


def test_tiled_models_compute_as_ever(kit: Kit) -> None:
    model = next(path for path in sorted((kit[0] / "there" / "models").glob("*.onnx")))
    session = open_session(model)
    (output, *_) = session.run(None, random_inputs(session, np.random.default_rng(0)))
    assert np.isfinite(output).all()
