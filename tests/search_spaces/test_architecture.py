from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given

from search_spaces.errors import InputError
from search_spaces.space import Architecture, Condition, Gene, SearchSpace
from tests.search_spaces.strategies import PROPERTY, any_rows, forests, seeds

SPACE = SearchSpace(
    "small",
    [Gene("operator", ("conv", "pool")), Gene("kernel", (3, 5, 7), Condition("operator", ("conv",)))],
)


@PROPERTY
@given(forests(), seeds)
def test_an_architecture_comes_back_from_json_and_as_its_genome(space: SearchSpace, seed: int) -> None:
    for row in any_rows(space, 8, seed):
        architecture = space.architecture(row)
        read = Architecture.from_json(architecture.to_json(), source="test")
        assert read == architecture
        assert hash(read) == hash(architecture)
        assert read.id == architecture.id
        assert np.array_equal(space.genome(read), space.canonical(row[None])[0])


@PROPERTY
@given(forests(), seeds)
def test_equal_networks_have_equal_ids_and_others_do_not(space: SearchSpace, seed: int) -> None:
    rows = any_rows(space, 24, seed)
    ids = {space.architecture(row).id for row in rows}
    assert len(ids) == len(space.unique(space.canonical(rows)))


def test_the_id_never_changes() -> None:
    # Files of earlier versions name architectures and spaces by these: `sha256sum` of the canonical texts.
    assert Architecture(space_hash="0123456789abcdef", genes=(0, 1, 2)).id == "e5b75dd41c"
    assert SPACE.hash == "d71bc59c8a160d3c"
    assert SPACE.architecture(np.array([0, 2], dtype=np.int16)).id == "8a0332d876"


def test_the_id_depends_on_every_gene_and_on_the_space() -> None:
    architecture = Architecture(space_hash="a", genes=(1, 12))
    others = [("a", (11, 2)), ("a", (1, 1, 2)), ("a", (1,)), ("a", (12, 1)), ("b", (1, 12))]
    assert architecture.id not in {Architecture(space_hash=space, genes=genes).id for space, genes in others}


def test_an_architecture_is_a_value() -> None:
    architecture = SPACE.architecture(np.array([1, 2], dtype=np.int16))
    assert architecture == Architecture(space_hash=SPACE.hash, genes=(1, 0))
    with pytest.raises(dataclasses.FrozenInstanceError):
        architecture.genes = (0, 0)  # type: ignore[misc]


def test_an_architecture_of_another_space_is_refused() -> None:
    other = SearchSpace.from_choices({"operator": ["conv", "pool"], "kernel": [3, 5, 7]})
    architecture = other.architecture(np.array([0, 1], dtype=np.int16))
    message = f"architecture {architecture.id} belongs to space {other.hash}, this is {SPACE.hash}"
    with pytest.raises(InputError, match=message):
        SPACE.genome(architecture)


@pytest.mark.parametrize("genes", [(0,), (0, 3), (-1, 0), (0, 0, 0)])
def test_genes_that_the_space_does_not_have_are_refused(genes: tuple[int, ...]) -> None:
    with pytest.raises(InputError):
        SPACE.genome(Architecture(space_hash=SPACE.hash, genes=genes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"genes": [0, 1.5]}, r"genes\.1"),
        ({"genes": [0, True]}, r"genes\.1"),
        ({"genes": "01"}, "genes"),
        ({"space_hash": 1}, "space_hash"),
        ({"name": "x"}, "name"),
    ],
)
def test_json_that_is_no_architecture_is_refused(change: dict[str, object], message: str) -> None:
    text = json.dumps({"space_hash": "a", "genes": [0, 1]} | change)
    with pytest.raises(InputError, match=f"^arch.json: {message}: "):
        Architecture.from_json(text, source="arch.json")
