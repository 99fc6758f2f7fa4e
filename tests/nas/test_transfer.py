"""A table from the blocks of a known device and a few whole networks of a new one."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from nas import kit as kit_module
from nas import lut, lut_plan
from nas.devices import KitDevice, Measurement, MeasurementRun, Sustained
from nas.lut import again_id, network_id, table_of
from nas.lut_plan import TablePlan, plan_transfer, planned_blocks
from predictors.additive import AdditiveCost
from predictors.latency import LatencyPredictor, LatencyTable, TableSource
from search_spaces.errors import InputError
from search_spaces.tiny import tiny
from tests.command_line import nas_here, refusal, succeed
from tests.nas.synthetic_latency import FINGERPRINT, synthetic_table

SPACE = tiny(1, 10)
BOARD = KitDevice(target="board")
SLOWER = {"attention": 2.6, "convnext": 2.2, "downsample": 1.8, "head": 2.0, "mbconv": 1.6, "stem": 2.0}


def known() -> LatencyPredictor:
    return LatencyPredictor(SPACE, synthetic_table(SPACE))


def board_cost() -> AdditiveCost:
    """Latency on another device, which likes other blocks."""
    source = known()
    factors = np.array([SLOWER[block.family] for block in SPACE.blocks])
    return AdditiveCost(SPACE, factors * source.block_values, constant=0.1)


def measured_there(plan: TablePlan) -> MeasurementRun:
    """Return what that device would report, each figure 1 % off."""
    rng = np.random.default_rng(0)
    genomes = SPACE.check([*plan.calibration, *plan.held_out])
    exact_ms = board_cost().predict(genomes)
    measurements = []
    for number, latency_ms in enumerate(exact_ms):
        ids = [network_id(number)]
        if number >= len(plan.calibration):
            ids.append(again_id(ids[0]))
        for each in ids:
            noisy = float(latency_ms * (1 + 0.01 * rng.standard_normal()))
            measurements.append(
                Measurement(
                    id=each,
                    rounds_ms=(noisy,) * 4,
                    first_ms=(1.5 * noisy,) * 4,
                    median_ms=noisy,
                    p90_ms=noisy,
                    runs=4,
                    sustained=Sustained(mean_ms=noisy, p50_ms=noisy, p90_ms=noisy, runs=4, duration_s=0.1),
                )
            )
    return MeasurementRun(fingerprint=FINGERPRINT, measurements=tuple(measurements))


def test_ten_networks_carry_a_table_to_a_device_that_likes_other_blocks() -> None:
    source = known()
    plan = plan_transfer(source, BOARD, seed=0)
    assert len(plan.calibration) == 10
    table = table_of(plan, SPACE, measured_there(plan), source.table)
    assert table.source == TableSource.of(source.table)
    assert (table.device, table.blocks) == (BOARD.name, source.table.blocks)
    others = SPACE.sample(1000, np.random.default_rng(1))
    there = board_cost().predict(others)
    error = LatencyPredictor(SPACE, table).predict(others) / there - 1
    assert np.mean(np.abs(error) <= 0.1) >= 0.95
    plain = source.predict(others) / there - 1
    assert np.mean(np.abs(plain) <= 0.1) < 0.05, "the devices are not alike"


def test_networks_for_a_transfer_are_distinct_and_none_of_those_it_is_tested_on() -> None:
    source = known()
    for seed in range(3):
        plan = plan_transfer(source, BOARD, seed=seed)
        genomes = SPACE.check(plan.calibration)
        assert len(SPACE.unique(genomes)) == 10
        assert not set(plan.calibration) & set(plan.held_out)


def test_only_the_blocks_of_the_networks_are_needed() -> None:
    plan = plan_transfer(known(), BOARD, seed=0)
    few = dataclasses.replace(plan, calibration=plan.calibration[:1], held_out=())
    (genome,) = SPACE.check(few.calibration)
    assert set(planned_blocks(few, SPACE)) == {placed.block for placed in SPACE.lower(genome)}
    assert planned_blocks(dataclasses.replace(plan, source=None), SPACE) == SPACE.blocks


def test_too_few_networks_are_refused() -> None:
    with pytest.raises(InputError, match="at least 8 networks, got 7"):
        plan_transfer(known(), BOARD, seed=0, networks=7)


@pytest.mark.parametrize("changed", ["built anew", "left out"])
def test_another_source_than_the_planned_one_is_refused(changed: str) -> None:
    source = known()
    plan = plan_transfer(source, BOARD, seed=0)
    other: LatencyTable | None = dataclasses.replace(source.table, created="2001-01-01T00:00:00+00:00")
    if changed == "left out":
        other = None
    with pytest.raises(InputError, match="not the one that this one was planned with"):
        table_of(plan, SPACE, measured_there(plan), other)


def test_a_transfer_from_a_table_that_is_not_there_names_the_command(measured_run: Path) -> None:
    error = refusal(nas_here("build-lut", "--run", measured_run, "--transfer-from", "cpu:threads=2"))
    assert "run `nas build-lut --device cpu:threads=2" in error


def test_a_table_is_not_transferred_onto_itself(measured_run: Path) -> None:
    before = (measured_run / "luts" / "cpu.json").read_bytes()
    error = refusal(nas_here("build-lut", "--run", measured_run, "--device", "cpu:threads=1", "--transfer-from", "cpu"))
    assert "names the device that is measured" in error
    assert (measured_run / "luts" / "cpu.json").read_bytes() == before


@pytest.mark.slow
@pytest.mark.device
@pytest.mark.usefixtures("any_noise")
def test_a_table_is_transferred_here_and_by_a_kit(
    measured_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lut_plan, "HELD_OUT_NETWORKS", 6)
    monkeypatch.setattr(lut, "SUSTAINED_S", 0.001)
    for module in (lut, kit_module):
        monkeypatch.setattr(module, "ROUNDS", 6)
    run = shutil.copytree(measured_run, tmp_path / "run")
    int8 = "cpu:precision=int8"
    made = nas_here("build-lut", "--run", run, "--device", int8, "--transfer-from", "cpu")
    assert "10 networks measured on cpu:precision=int8, blocks of cpu" in succeed(made).stdout
    assert "110 blocks of cpu, calibrated" in succeed(nas_here("lut", "show", "--run", run, "--device", int8)).stdout
    # The blocks are another device's already.
    chained = nas_here("build-lut", "--run", run, "--device", "cpu:threads=2", "--transfer-from", int8)
    assert "transfer from that one" in refusal(chained)
    out = tmp_path / "kit.zip"
    kit = ("--device", "kit", "--name", "board", "--out", out, "--transfer-from", "cpu", "--json")
    assert succeed(nas_here("build-lut", "--run", run, *kit)).json["models"] == 10 + 2 * 6
    with zipfile.ZipFile(out) as archive:
        archive.extractall(tmp_path / "there")
    subprocess.run([sys.executable, "measure.py"], cwd=tmp_path / "there", check=True, stdout=subprocess.DEVNULL)
    back = nas_here("build-lut", "--run", run, "--from", tmp_path / "there" / "results.jsonl", "--json")
    assert succeed(back).json["transferred_from"] == "cpu"
