"""A chosen network trained further: better than what it inherits, resumed exactly, exported like any other."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nas.evaluate import SubnetEvaluator
from nas.export.record import read_export
from nas.finetune import (
    RECORD_FILE,
    FinetuneSettings,
    find_finetuned,
    finetune_settings,
    finetune_subnet,
    load_finetuned,
)
from nas.front import Candidate
from nas.ledger import Ledger
from nas.supernet import Supernet, channels_last
from nas.training_record import TrainingConfig
from search_spaces.errors import InputError
from search_spaces.language import NetworkSpace
from search_spaces.tiny import tiny
from tests.command_line import exported, nas_here, refusal, succeed
from tests.nas.test_cli import documented_keys
from tests.nas.test_front import candidate
from tests.nas.torch_helpers import few_digits, one_thread

STEPS = 30


@pytest.fixture(scope="module")
def space() -> NetworkSpace:
    return tiny(1, 10)


@pytest.fixture
def evaluator(space: NetworkSpace, tmp_path: Path) -> SubnetEvaluator:
    """An untrained supernet: everything is still to be learned."""
    supernet = channels_last(Supernet(space, seed=0)).eval()
    return SubnetEvaluator(space, supernet, "5eed", few_digits(), Ledger(tmp_path / "ledger.db"))


@pytest.fixture
def subnet(space: NetworkSpace) -> Candidate:
    genome = space.sample(1, np.random.default_rng(0))[0]
    return dataclasses.replace(
        candidate(space.architecture(genome).id, 0.1, 1.0), genes=tuple(int(gene) for gene in genome)
    )


def settings(**changes: Any) -> FinetuneSettings:
    given = finetune_settings(TrainingConfig(batch_size=64), steps=STEPS, norms="frozen")
    return dataclasses.replace(given, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param({"norms": "batch"}, marks=pytest.mark.slow),
        pytest.param({"distillation": 0.3}, marks=pytest.mark.slow),
        pytest.param({"precision": "int8"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_network_learns_and_is_read_back_as_it_was_evaluated(
    evaluator: SubnetEvaluator, space: NetworkSpace, subnet: Candidate, tmp_path: Path, changes: dict[str, object]
) -> None:
    folder = tmp_path / "tuned" / subnet.id
    with one_thread():
        record = finetune_subnet(evaluator, subnet, settings(**changes), directory=folder)
        assert record.before < 0.4 < record.after
        assert (record.validation_images, record.images_seen) == (60, STEPS * 64)
        assert find_finetuned(folder) == record
        assert {path.name for path in folder.iterdir()} == {RECORD_FILE, "weights.safetensors", "training.csv"}
        tuned = load_finetuned(
            folder, space.lower(np.array(subnet.genes, dtype=np.int16)), genes=subnet.genes, supernet_hash="5eed"
        )
        split = evaluator.data.split("validation")
        with torch.inference_mode():
            logits = tuned.network(torch.from_numpy(evaluator.data.normalise(split.images))).numpy()
    assert np.mean(logits.argmax(axis=1) == split.labels) == record.after_in_floats
    assert tuned.weights_hash == record.weights_sha256[:16]


def test_the_same_settings_are_done_and_others_are_refused_unless_forced(
    evaluator: SubnetEvaluator, space: NetworkSpace, subnet: Candidate, tmp_path: Path
) -> None:
    folder, given = tmp_path / "tuned", settings()
    given = dataclasses.replace(given, training=dataclasses.replace(given.training, steps=3, warmup_steps=0))
    with one_thread():
        record = finetune_subnet(evaluator, subnet, given, directory=folder)
        steps: list[int] = []
        again = finetune_subnet(evaluator, subnet, given, directory=folder, progress=lambda done, _: steps.append(done))
        assert (again, steps) == (record, [])
        other = dataclasses.replace(given, distillation=0.5)
        with pytest.raises(InputError, match=r"other settings, .*--force"):
            finetune_subnet(evaluator, subnet, other, directory=folder)
        forced = finetune_subnet(evaluator, subnet, other, directory=folder, force=True)
    assert forced.weights_sha256 != record.weights_sha256
    spec = space.lower(np.array(subnet.genes, dtype=np.int16))
    with pytest.raises(InputError, match="or another one"):
        finetune_subnet(evaluator, dataclasses.replace(subnet, genes=(0, *subnet.genes[1:])), other, directory=folder)
    with pytest.raises(InputError, match="fine-tuned from supernet 5eed; run `nas finetune"):
        load_finetuned(folder, spec, genes=(*subnet.genes[:-1], 9), supernet_hash="5eed")
    with pytest.raises(InputError, match="fine-tuned from supernet 5eed; run `nas finetune"):
        load_finetuned(folder, spec, genes=subnet.genes, supernet_hash="0ther")
    content = bytearray((folder / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        load_finetuned(folder, spec, genes=subnet.genes, supernet_hash="5eed")
    with pytest.raises(InputError, match="holds no fine-tuned network; run `nas finetune --pick nothing`"):
        load_finetuned(tmp_path / "nothing", spec, genes=subnet.genes, supernet_hash="5eed")


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"precision": "int8"}, {"norms": "batch"}], ids=str)
def test_what_was_stopped_ends_as_if_it_had_not_been(
    evaluator: SubnetEvaluator, subnet: Candidate, tmp_path: Path, changes: dict[str, object]
) -> None:
    class StoppedError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 25:
            raise StoppedError

    given = settings(**changes)
    with one_thread():
        whole = finetune_subnet(evaluator, subnet, given, directory=tmp_path / "whole")
        with pytest.raises(StoppedError):
            finetune_subnet(evaluator, subnet, given, directory=tmp_path / "parts", progress=stop)
        assert not (tmp_path / "parts" / RECORD_FILE).exists()
        steps: list[int] = []
        parts = finetune_subnet(
            evaluator, subnet, given, directory=tmp_path / "parts", progress=lambda done, _: steps.append(done)
        )
    assert steps[0] == 20
    assert parts == whole


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="needs frozen norms"):
        settings(precision="int8", norms="batch")
    with pytest.raises(InputError, match="distillation must be from 0 to 1"):
        settings(distillation=1.5)
    usual = finetune_settings(None)
    assert usual.training.peak_learning_rate < TrainingConfig().peak_learning_rate
    assert (usual.norms, finetune_settings(None, precision="int8").norms) == ("batch", "frozen")


@pytest.mark.slow
def test_the_command_and_the_export_of_its_network(searched_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(searched_run, tmp_path / "run")
    words = ("--run", run, "--pick", "knee")
    assert "run `nas finetune --pick" in refusal(nas_here("export", *words, "--finetuned"))
    told = succeed(nas_here("finetune", *words, "--steps", 40, "--json")).json
    assert told.keys() == documented_keys()["finetune"]
    assert told["after"] > told["before"]
    assert "Next: nas export --pick" in succeed(nas_here("finetune", *words, "--steps", 40)).stdout
    done = exported(nas_here("export", *words, "--finetuned", "--json"))
    record = read_export(Path(done.json["folder"]))
    assert Path(done.json["folder"]).name == f"{record.candidate.id}-finetuned"
    assert (record.finetuned, record.weights_hash) == (True, told["weights_sha256"][:16])
    assert record.main.validation_accuracy == pytest.approx(told["after"], abs=0.002)
    assert record.test_reads == 1
    assert "fine-tuned" in (Path(done.json["folder"]) / "README.md").read_text()
    for wrong, word in ((("--norms", "froze"), "frozen"), (("--precision", "int4"), "int8"), (("--pick", "x"), "knee")):
        assert word in refusal(nas_here("finetune", "--run", run, *wrong))
    record_file = run / "finetuned" / record.candidate.id / RECORD_FILE
    record_file.write_text(json.dumps(json.loads(record_file.read_text()) | {"format_version": 99}))
    assert "newer release" in refusal(nas_here("export", *words, "--finetuned", "--force"))
