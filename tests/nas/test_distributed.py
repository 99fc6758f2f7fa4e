"""Training in two processes: what they share out, that they agree, and that one process comes to the same weights."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor, nn

from nas.distributed import ALONE, Ranks, joined
from nas.fitting import StepOutcome, fit
from nas.sandwich import Sandwich
from nas.sandwich_step import SandwichStep
from nas.supernet import Supernet, channels_last
from nas.teacher import Teacher
from nas.training import step_answers, train_supernet
from nas.training_record import TrainingConfig, find_record, training_config
from search_spaces.errors import CheckError, InputError
from search_spaces.tiny import tiny
from tests.command_line import environment
from tests.nas.hazards import wait_until
from tests.nas.torch_helpers import few_digits, one_thread

SPACE = tiny(channels=1, classes=10)
CONFIG = TrainingConfig(steps=24, batch_size=8, warmup_steps=4, sandwich=True, random_subnets=2)
WORLD = 2


@pytest.fixture(scope="module", autouse=True)
def single_threaded() -> Iterator[None]:
    with one_thread():
        yield


def started(act: Callable[[Ranks, Any], None], folder: Path, options: object, rank: int) -> None:
    """Be one of two processes that meet in a file; what is raised is left as a text."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=WORLD)
    try:
        act(Ranks(rank, WORLD), options)
    except (CheckError, InputError) as error:
        (folder / f"error-{rank}").write_text(str(error))
    finally:
        dist.destroy_process_group()


def in_two_processes(act: Callable[[Ranks, Any], None], folder: Path, options: object = None) -> list[str]:
    """Run a function in two processes and return what they raised."""
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=started, args=(act, folder, options, rank)) for rank in range(WORLD)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
        assert process.exitcode == 0
    return [path.read_text() for path in sorted(folder.glob("error-*"))]


def train(ranks: Ranks, options: tuple[Path, TrainingConfig, str | None]) -> None:
    directory, config, teacher = options
    train_supernet(SPACE, few_digits(), config, directory=directory, teacher=teacher, ranks=ranks)


def in_turn(directory: Path, config: TrainingConfig, teacher: str | None) -> dict[str, Tensor]:
    """Return the parameters of one process that runs the shards of every batch in turn, and averages."""
    supernet = channels_last(Supernet(SPACE, seed=config.seed))
    sandwich = Sandwich.of(SPACE, config)
    soft = Teacher(teacher, few_digits(), torch.device("cpu")).soft_labels(directory) if teacher else None
    shards = [
        SandwichStep(
            supernet,
            SPACE,
            sandwich,
            config,
            rank=rank,
            taught=step_answers(soft, few_digits(), config, Ranks(rank, WORLD)) if soft else None,
        )
        for rank in range(WORLD)
    ]

    def backward(step: int, images: Tensor, labels: Tensor) -> StepOutcome:
        outcomes, gradients = [], []
        for shard, *part in zip(shards, images.chunk(WORLD), labels.chunk(WORLD), strict=True):
            supernet.zero_grad(set_to_none=True)
            outcomes.append(shard(step, *part))
            gradients.append([parameter.grad for parameter in supernet.parameters()])
        for parameter, *of_shards in zip(supernet.parameters(), *gradients, strict=True):
            there = [each for each in of_shards if each is not None]
            parameter.grad = torch.stack(there).mean(0) if there else None
        return outcomes[0]

    fit(supernet, backward, few_digits(), config, checkpoint=directory / "c.pt", identity="in turn")
    return {name: parameter.detach() for name, parameter in supernet.named_parameters()}


@pytest.mark.parametrize(
    ("changes", "teacher"),
    [
        ({}, None),
        ({"drop_path": 0.2, "ema_decay": 0.9, "optimizer": "sgd"}, "tests.nas.test_teacher:Judge"),
        ({"sandwich": False, "random_subnets": 1}, "tests.nas.test_teacher:Judge"),
    ],
)
def test_two_processes_come_to_the_weights_of_one_that_runs_their_parts_in_turn(
    changes: dict[str, Any], teacher: str | None, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, steps=6, **changes)
    assert in_two_processes(train, tmp_path / "two", (tmp_path / "two" / "supernet", config, teacher)) == []
    expected, found = (
        in_turn(tmp_path, config, teacher),
        load_file(tmp_path / "two" / "supernet" / "weights.safetensors"),
    )
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6, msg=name)
    assert find_record(tmp_path / "two" / "supernet") is not None


def disagree(ranks: Ranks, what: str) -> None:
    module = nn.Linear(3, 2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(1.0)
        if what == "weights":  # whose sum is the same
            module.weight[0, 0] += 0.5 * ranks.rank
            module.weight[1, 2] -= 0.5 * ranks.rank
    module.weight.grad = torch.full((2, 3), float(ranks.rank))
    if what == "weights":
        ranks.compare(module)
    else:
        ranks.average(list(module.parameters()), [torch.ones(())], token=7 + ranks.rank)


@pytest.mark.parametrize(
    ("what", "complaint"), [("weights", "different weights"), ("subnets", "do not run the same step")]
)
def test_processes_that_do_not_agree_are_found_out(what: str, complaint: str, tmp_path: Path) -> None:
    errors = in_two_processes(disagree, tmp_path, what)
    assert len(errors) == WORLD
    assert all(complaint in error for error in errors)


def agree(ranks: Ranks, options: None) -> None:
    module = nn.Linear(3, 2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(2.0)
    module.weight.grad = torch.full((2, 3), 10.0 * ranks.rank)
    (loss,) = ranks.average(list(module.parameters()), [torch.tensor(3.0 + ranks.rank)], token=2**40 + 1)
    ranks.compare(module)
    if (float(loss), set(module.weight.grad.flatten().tolist()), module.bias.grad) != (3.5, {5.0}, None):
        raise CheckError("not the mean")


def test_gradients_and_figures_are_averaged(tmp_path: Path) -> None:
    assert in_two_processes(agree, tmp_path) == []


def test_a_batch_is_shared_out_equally_or_refused() -> None:
    assert [Ranks(rank, 4).part(12) for rank in range(4)] == [slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 12)]
    assert ALONE.part(7) == slice(0, 7)
    with pytest.raises(InputError, match="7 images per step cannot be shared out equally among 2 processes"):
        Ranks(1, 2).part(7)


# As people start it


def with_other_images(ranks: Ranks, directory: Path) -> None:
    data = dataclasses.replace(few_digits(), content_hash=f"of rank {ranks.rank}")
    train_supernet(SPACE, data, CONFIG, directory=directory, ranks=ranks)


def test_processes_with_other_images_are_found_out(tmp_path: Path) -> None:
    errors = in_two_processes(with_other_images, tmp_path, tmp_path / "supernet")
    assert len(errors) == WORLD
    assert all("do not run the same step" in error for error in errors)


def test_a_training_goes_on_with_as_many_processes_as_it_was_begun_with(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, steps=1)
    assert in_two_processes(train, tmp_path / "two", (tmp_path / "two" / "supernet", config, None)) == []
    with pytest.raises(InputError, match=r"other settings \(processes 2, now 1"):
        train(ALONE, (tmp_path / "two" / "supernet", config, None))


@pytest.mark.parametrize("names", [{"WORLD_SIZE": "2"}, {"WORLD_SIZE": "many", "RANK": "0"}])
def test_what_a_scheduler_sets_is_not_taken_for_torchrun(
    names: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    with joined(torch.device("cpu")) as ranks:
        assert ranks == ALONE


OPTIONS = ("train", "--data", "digits", "--batch-size", "16", "--json")


def torchrun(folder: Path, *options: str, restarts: int = 0) -> list[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(WORLD)]
    return [
        *start,
        "--max-restarts",
        str(restarts),
        "-m",
        "nas",
        "--",
        *OPTIONS,
        "--run",
        str(folder / "run"),
        *options,
    ]


@pytest.mark.slow
def test_torchrun_trains_a_run_and_prints_once(tmp_path: Path) -> None:
    command = torchrun(tmp_path, "--steps", "4")
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("validation_accuracy") == 1
    record = find_record(tmp_path / "run" / "supernet")
    assert record is not None
    assert record.config == training_config(None, {"steps": 4, "batch_size": 16})


@pytest.mark.slow
def test_a_process_that_is_killed_is_started_again_and_all_go_on(tmp_path: Path) -> None:
    command = torchrun(tmp_path, "--steps", "60", restarts=1)
    running = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    checkpoint = tmp_path / "run" / "supernet" / "checkpoint.pt"
    try:
        wait_until(lambda: running.poll() is not None or checkpoint.exists(), seconds=240)
        assert running.poll() is None, running.communicate()[1]
        os.kill(youngest_child(running.pid), signal.SIGKILL)
        stdout, stderr = running.communicate(timeout=300)
    finally:
        running.kill()
    assert running.returncode == 0, stderr
    assert stdout.count("validation_accuracy") == 1
    record = find_record(tmp_path / "run" / "supernet")
    assert record is not None
    log = (tmp_path / "run" / "supernet" / "training.csv").read_text().splitlines()
    assert [int(line.partition(",")[0]) for line in log[1:]] == list(range(60))
    again = subprocess.run(
        torchrun(tmp_path / "whole", "--steps", "60"), env=environment(), capture_output=True, check=False, timeout=300
    )
    assert again.returncode == 0
    whole = find_record(tmp_path / "whole" / "run" / "supernet")
    assert whole is not None
    assert whole.weights_sha256 == record.weights_sha256


def youngest_child(parent: int) -> int:
    """Return the process that `torchrun` has started last; it is the second rank."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        if len(children) >= WORLD:
            return max(map(int, children))
    raise AssertionError("no processes were started")
