"""Latency tables: what they hold, how their own error is counted, what a killed build leaves, how good they are."""

from __future__ import annotations

import json
import operator
import os
import shutil
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from nas.devices import LocalDevice
from nas.devices.drift import slowness
from nas.files import read_document
from nas.lut import STATISTIC, network_error
from nas.lut_plan import CALIBRATION_NETWORKS, ROUNDS, calibration_sample, held_out_sample
from nas.network_latency import measure_networks
from nas.onnx_format import exporter_name
from nas.run import Run
from predictors.additive import AdditiveCost
from predictors.latency import LatencyPredictor, LatencyTable
from search_spaces.catalogue import find_space
from search_spaces.language import NetworkSpace
from search_spaces.space import Genomes
from search_spaces.spec import block_key
from tests.command_line import command, environment, nas, succeed
from tests.nas.hazards import wait_until

CPU = LocalDevice("cpu")


@pytest.fixture(scope="module")
def space() -> NetworkSpace:
    return find_space("tiny", channels=1, classes=10)


@pytest.fixture(scope="module")
def table(measured_run: Path) -> LatencyTable:
    return Run.existing(measured_run, first="nas train").latency_table(CPU)


def rows(genomes: Genomes) -> set[bytes]:
    return {row.tobytes() for row in genomes}


def macs_of(space: NetworkSpace) -> AdditiveCost:
    return AdditiveCost.of(space, lambda block: block.macs())


def test_every_distinct_block_is_in_the_table_once(space: NetworkSpace, table: LatencyTable) -> None:
    assert [entry.block for entry in table.blocks] == [block_key(block) for block in space.blocks]
    figures = np.array([(entry.latency_ms, entry.in_context_ms, entry.noise_percent) for entry in table.blocks])
    assert np.isfinite(figures).all()
    latency_ms, in_context_ms, noise_percent = figures.T
    assert (latency_ms < in_context_ms).all()
    assert (in_context_ms > 0).all()
    assert (noise_percent >= 0).all()


def test_calibration_and_proof_are_separate_networks(space: NetworkSpace, table: LatencyTable) -> None:
    calibration = {network.genes for network in table.calibration_networks}
    held_out = {network.genes for network in table.held_out}
    assert len(calibration) == len(table.calibration_networks) >= 12
    assert len(held_out) == len(table.held_out) >= 30
    assert not calibration & held_out
    assert all(network.repeated_ms is not None for network in table.held_out)
    for networks in (table.calibration_networks, table.held_out):
        genomes = np.array([network.genes for network in networks], dtype=np.int16)
        assert np.array_equal(space.canonical(genomes), genomes)
        assert min(network.measured_ms for network in networks) > 0
        # Two sessions of one file: independent figures, which agree to the nanosecond only by chance.
        assert sum(network.measured_ms == network.repeated_ms for network in networks) < len(networks) / 2


def test_the_error_that_is_stored_is_that_of_predictions_from_the_table(
    space: NetworkSpace, table: LatencyTable
) -> None:
    genomes = np.array([network.genes for network in table.held_out], dtype=np.int16)
    assert network_error(LatencyPredictor(space, table).predict(genomes), table.held_out) == table.error
    plain = AdditiveCost(space, [entry.latency_ms for entry in table.blocks])
    assert network_error(plain.predict(genomes), table.held_out) == table.plain_error
    assert table.error.networks == len(table.held_out)


@pytest.mark.device
def test_blocks_measured_in_context_add_up_to_networks_even_without_calibration(table: LatencyTable) -> None:
    # Far from the promised figures, which a busy machine may miss, and far from what a wrong table would reach.
    assert table.plain_error.spearman > 0.9
    assert table.plain_error.mape_percent < 20
    assert table.error.spearman > 0.9


def test_the_table_says_what_it_was_made_of(space: NetworkSpace, measured_run: Path, table: LatencyTable) -> None:
    assert table.device == "cpu"
    assert table.space_hash == space.hash
    assert table.exporter == exporter_name()
    assert table.fingerprint_hash == CPU.fingerprint().hash
    assert table.statistic == STATISTIC
    stored = json.loads((measured_run / "luts" / "cpu.json").read_text())
    assert stored["format_version"] == LatencyTable.CURRENT_VERSION
    assert stored["fingerprint"]["onnxruntime"]


def test_a_finished_build_leaves_nothing_but_the_table_and_the_blocks(measured_run: Path) -> None:
    assert [path.name for path in (measured_run / "luts").iterdir()] == ["cpu.json"]
    assert {path.suffix for path in (measured_run / "blocks").iterdir()} == {".onnx"}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("figure", ["macs", "params"])
def test_calibration_networks_span_the_space(space: NetworkSpace, figure: str, seed: int) -> None:
    cost = AdditiveCost.of(space, operator.methodcaller(figure))
    genomes = calibration_sample(space, np.random.default_rng(seed))
    assert np.array_equal(space.canonical(genomes), genomes)
    assert len(genomes) == len(rows(genomes)) == CALIBRATION_NETWORKS
    size = np.sort(cost.predict(genomes))
    assert (size[0], size[-1]) == (cost.cheapest()[0], cost.dearest()[0])
    # Evenly on the scale of factors: no gap of more than a few times that of the networks that are there for it.
    steps = np.diff(np.log(size))
    assert steps.max() < 4 * steps.sum() / (CALIBRATION_NETWORKS // 4 - 1)


def test_many_calibration_networks_are_of_the_kinds_of_blocks_that_most_networks_have() -> None:
    space = find_space("mobile", channels=3, classes=10)
    families = sorted({block.family for block in space.blocks})
    of_family = [np.array([float(block.family == family) for block in space.blocks]) for family in families]
    costs = [AdditiveCost(space, values) for values in of_family]

    def counts(genomes: Genomes) -> npt.NDArray[np.float64]:
        return np.column_stack([cost.predict(genomes) for cost in costs])

    most = counts(space.sample_uniform(4000, np.random.default_rng(0)))
    off = np.abs(most - most.mean(axis=0))
    bound = np.quantile((off / (most.std(axis=0) + 1.0)).max(axis=1), 0.95)
    for seed in range(3):
        there = np.abs(counts(calibration_sample(space, np.random.default_rng(seed))) - most.mean(axis=0))
        usual = (there / (most.std(axis=0) + 1.0)).max(axis=1) <= bound
        assert usual.sum() >= CALIBRATION_NETWORKS // 3


def test_samples_of_one_seed_are_equal_and_of_two_seeds_are_not(space: NetworkSpace) -> None:
    samples: list[Callable[[np.random.Generator], Genomes]] = [
        lambda rng: calibration_sample(space, rng),
        lambda rng: held_out_sample(space, 40, rng, exclude=space.sample(1, np.random.default_rng(0))),
    ]
    for sample in samples:
        first, again, other = (sample(np.random.default_rng(seed)) for seed in (0, 0, 1))
        assert np.array_equal(first, again)
        assert rows(first) != rows(other)


def test_networks_for_the_proof_are_none_of_those_excluded(space: NetworkSpace) -> None:
    unrestricted = held_out_sample(
        space, 40, np.random.default_rng(0), exclude=space.sample(0, np.random.default_rng(0))
    )
    assert len(rows(unrestricted)) == len(unrestricted) >= 30
    others = held_out_sample(space, 40, np.random.default_rng(0), exclude=unrestricted)
    assert len(others) >= 30
    assert not rows(others) & rows(unrestricted)


@pytest.mark.device
def test_networks_are_measured_in_the_order_in_which_they_are_given(measured_run: Path, tmp_path: Path) -> None:
    run = Run.existing(measured_run, first="nas train")
    space = run.space
    macs = macs_of(space)
    genomes = np.stack([macs.dearest()[1], macs.cheapest()[1]])
    networks = {space.architecture(genome).id: space.lower(genome) for genome in genomes}
    large, small = measure_networks(run.block_cache(), networks, CPU, work_dir=tmp_path / "here", seed=0)
    assert large.id == space.architecture(genomes[0]).id
    assert large.latency_ms > 3 * small.latency_ms
    assert len(large.rounds_ms) >= 10


@pytest.mark.slow
@pytest.mark.device
def test_a_build_killed_while_exporting_and_while_measuring_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    build = ["build-lut", "--run", run, "--json"]
    blocks = run / "blocks"

    kill_when(build, lambda: len(list(blocks.glob("*.onnx"))) >= 5)
    exported = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in blocks.glob("*.onnx")}
    space = find_space("tiny", channels=1, classes=10)
    assert 5 <= len(exported) < len(space.blocks)
    assert not list(run.glob("luts/*.json"))

    def results() -> list[Path]:
        return list(run.glob("luts/cpu.work/**/results.jsonl"))

    kill_when(build, lambda: bool(results()) and results()[0].read_bytes().count(b"\n") > 400)
    assert not list(run.glob("luts/*.json"))
    measured = results()[0].read_bytes()
    measured = measured[: measured.rfind(b"\n") + 1]
    # The build removes what it measured into when it is done: a second name keeps the file.
    kept = tmp_path / "kept.jsonl"
    os.link(results()[0], kept)

    finished = succeed(nas(*build))
    assert finished.json["blocks"] == len(space.blocks)
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in exported} == exported
    assert kept.read_bytes().startswith(measured)
    lines = [json.loads(line) for line in kept.read_bytes().splitlines()]
    visits = Counter((line["round"], line["id"]) for line in lines if line["kind"] == "visit")
    assert set(visits.values()) == {1}
    assert lines[-1]["kind"] == "end"
    assert not (run / "luts" / "cpu.work").exists()
    assert_blocks_are_what_is_left_of_their_context(lines, read_document(run / "luts" / "cpu.json", LatencyTable))


def kill_when(arguments: list[object], reached: Callable[[], bool]) -> None:
    """Start a command and kill it with SIGKILL, its measuring process left alone, as soon as something is reached."""
    process = subprocess.Popen(command(*arguments), env=environment(), stderr=subprocess.PIPE)
    try:
        wait_until(lambda: process.poll() is not None or reached(), seconds=300)
        assert process.poll() is None, process.communicate()[1]
    finally:
        process.kill()
        process.communicate()


def assert_blocks_are_what_is_left_of_their_context(lines: list[dict[str, object]], table: LatencyTable) -> None:
    """Recompute every block's latency from the results: less half of the chain of two convolutions at each end."""
    visits = [line for line in lines if line["kind"] == "visit" and not str(line["id"]).startswith("network")]
    models = {name: number for number, name in enumerate({str(line["id"]): None for line in visits})}
    in_order = np.array([models[str(line["id"])] for line in visits])
    slow = slowness(in_order, np.array([float(str(line["min_ns"])) for line in visits]))
    figures: dict[str, dict[str, float]] = {}
    for field in ("min_ns", "first_ns"):
        rounds: dict[str, list[float]] = defaultdict(list)
        for line, slower in zip(visits, slow, strict=True):
            # Where few models are visited again, caches still hold something of each.
            if field == "first_ns" and int(str(line["round"])) >= ROUNDS:
                continue
            rounds[str(line["id"])].append(float(str(line[field])) / 1e6 / slower)
        figures[field] = {name: float(np.quantile(each, 0.25)) for name, each in rounds.items()}
    hot, cold = figures["min_ns"], figures["first_ns"]
    for number, (entry, block) in enumerate(
        zip(table.blocks, find_space("tiny", channels=1, classes=10).blocks, strict=True)
    ):
        ends = []
        if block.family != "stem":
            ends.append(f"chain-{block.in_channels}x{block.resolution}")
        if block.family != "head":
            ends.append(f"chain-{block.out_channels}x{block.out_resolution}")
        name = f"block-{number}"
        assert entry.in_context_ms == pytest.approx(hot[name])
        assert entry.latency_ms == pytest.approx(hot[name] - sum(hot[end] for end in ends) / 2)
        assert entry.cold_ms == pytest.approx(cold[name] - sum(cold[end] for end in ends) / 2)


@pytest.mark.slow
@pytest.mark.device
def test_a_build_with_another_seed_takes_nothing_from_a_killed_one(measured_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(measured_run, tmp_path / "run")
    (run / "luts" / "cpu.json").unlink()
    kill_when(
        ["build-lut", "--run", run, "--seed", 0],
        lambda: len(list(run.glob("luts/cpu.work/**/network-*.onnx"))) > 30,
    )
    error = succeed(nas("build-lut", "--run", run, "--seed", 1, "--json")).json["error"]
    # Networks of the other seed under the genomes of this one would be wrong by tens of percent.
    assert error["mape_percent"] < 10
    assert error["spearman"] > 0.9


@pytest.mark.slow
@pytest.mark.device
def test_the_table_predicts_whole_networks_as_well_as_promised(measured_run: Path, tmp_path: Path) -> None:
    # The blocks are exported already: what runs here is the measurement alone. A neighbour on the machine (another
    # virtual machine counts) can spoil one build, so one more is allowed; a table that is wrong fails both.
    run = shutil.copytree(measured_run, tmp_path / "run")
    errors = []
    for _ in range(2):
        (run / "luts" / "cpu.json").unlink()
        errors.append(succeed(nas("build-lut", "--run", run, "--json")).json["error"])
        if errors[-1]["mape_percent"] <= 3 and errors[-1]["spearman"] >= 0.98:
            return
    pytest.fail(f"MAPE above 3 % or Spearman below 0.98, twice: {errors}")
