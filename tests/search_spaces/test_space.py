from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, example, given

from search_spaces.errors import InputError
from search_spaces.space import Condition, Gene, SearchSpace
from tests.search_spaces.reference import every_row, meaning
from tests.search_spaces.strategies import PROPERTY, any_rows, forests, seeds

ROWS = 24

# A parent may stand after its children.
NETWORKS = SearchSpace(
    "networks",
    [
        Gene("kernel", (3, 5, 7), Condition("operator", ("conv",))),
        Gene("operator", ("conv", "attention"), Condition("depth", (2, 3))),
        Gene("depth", (1, 2, 3)),
        Gene("heads", (8, 2, 4), Condition("operator", ("attention",))),
    ],
)


@PROPERTY
@given(forests(), seeds)
def test_decode_says_which_genes_exist_and_their_options(space: SearchSpace, seed: int) -> None:
    for row in any_rows(space, ROWS, seed):
        assert space.decode(row) == meaning(space, row)


@PROPERTY
@given(forests(), seeds)
def test_canonical_zeroes_the_genes_that_do_not_exist_and_nothing_else(space: SearchSpace, seed: int) -> None:
    rows = any_rows(space, ROWS, seed)
    canonical = space.canonical(rows)
    assert canonical.dtype == np.int16
    for row, after in zip(rows, canonical, strict=True):
        exists = meaning(space, row)
        assert after.tolist() == [
            option if name in exists else 0 for name, option in zip(space.names, row.tolist(), strict=True)
        ]
    assert np.array_equal(space.canonical(canonical), canonical)


@PROPERTY
@given(forests(), seeds)
def test_equal_networks_are_equal_rows(space: SearchSpace, seed: int) -> None:
    rows = any_rows(space, ROWS, seed)
    keys = [row.tobytes() for row in space.canonical(rows)]
    networks = [meaning(space, row) for row in rows]
    for i in range(ROWS):
        for j in range(i):
            assert (keys[i] == keys[j]) == (networks[i] == networks[j])


@PROPERTY
@given(forests())
def test_count_is_the_number_of_distinct_networks(space: SearchSpace) -> None:
    networks = {frozenset(meaning(space, row).items()) for row in every_row(space)}
    assert space.count() == len(networks)


@PROPERTY
@given(forests())
def test_enumeration_lists_every_network_once_in_canonical_form(space: SearchSpace) -> None:
    listed = space.enumerate()
    assert listed.dtype == np.int16
    assert np.array_equal(space.canonical(listed), listed)
    networks = {frozenset(meaning(space, row).items()) for row in every_row(space)}
    assert len(listed) == len(networks)
    assert {frozenset(meaning(space, row).items()) for row in listed} == networks


@PROPERTY
@given(forests(), seeds)
def test_neighbours_are_all_networks_that_one_changed_gene_makes(space: SearchSpace, seed: int) -> None:
    genome = space.canonical(any_rows(space, 1, seed))[0]
    exists = meaning(space, genome)
    expected = set()
    for position, gene in enumerate(space.genes):
        for option in range(len(gene.options)):
            if gene.name in exists and option != genome[position]:
                changed = genome.copy()
                changed[position] = option
                expected.add(frozenset(meaning(space, changed).items()))
    near = space.neighbours(genome)
    assert near.shape == (len(expected), space.n_genes)
    assert np.array_equal(space.canonical(near), near)
    assert {frozenset(meaning(space, row).items()) for row in near} == expected


def test_count_of_a_space_too_large_to_list() -> None:
    space = SearchSpace.from_choices({f"g{i}": range(10) for i in range(30)})
    assert space.count() == 10**30


def test_option_counts_say_how_many_settings_each_option_allows() -> None:
    # Below depth 2 and 3: a convolution with 3 kernels or an attention with 3 numbers of heads.
    assert NETWORKS.option_counts() == [[1, 1, 1], [3, 3], [1, 6, 6], [1, 1, 1]]
    assert NETWORKS.count() == 13


@PROPERTY
@given(forests(), seeds)
def test_samples_are_canonical_and_repeat_with_the_seed(space: SearchSpace, seed: int) -> None:
    first = space.sample(ROWS, np.random.default_rng(seed))
    again = space.sample(ROWS, np.random.default_rng(seed))
    assert first.shape == (ROWS, space.n_genes)
    assert first.dtype == np.int16
    assert np.array_equal(first, again)
    assert np.array_equal(space.canonical(first), first)


def test_samples_are_uniform_over_the_options_of_each_gene_that_exists() -> None:
    n = 30_000
    genomes = NETWORKS.sample(n, np.random.default_rng(0))
    exists = NETWORKS.active(genomes)
    for column, gene in enumerate(NETWORKS.genes):
        options = genomes[exists[:, column], column]
        shares = np.bincount(options, minlength=len(gene.options)) / len(options)
        expected = 1 / len(gene.options)
        # Five standard errors of a share.
        assert np.abs(shares - expected).max() < 5 * np.sqrt(expected * (1 - expected) / len(options)), gene.name
    assert len({genome.tobytes() for genome in genomes}) == NETWORKS.count()


@PROPERTY
@given(forests())
def test_walking_the_tree_of_choices_meets_every_network(space: SearchSpace) -> None:
    def below(gene: str) -> int:
        options = space.genes[space.index(gene)].options
        return sum(math.prod(below(child) for child in space.children(gene, option)) for option in options)

    assert math.prod(below(root) for root in space.roots) == space.count()
    for gene in space.genes:
        for option in gene.options:
            assert all(space.genes[space.index(child)].when is not None for child in space.children(gene.name, option))


def test_walking_below_what_is_not_there_is_refused() -> None:
    gene = NETWORKS.genes[0]
    with pytest.raises(InputError, match="unknown option of gene"):
        NETWORKS.children(gene.name, "absent")
    with pytest.raises(InputError, match="unknown gene 'absent'"):
        NETWORKS.children("absent", 1)


def test_uniform_samples_are_uniform_over_distinct_networks() -> None:
    n = 30_000
    genomes = NETWORKS.sample_uniform(n, np.random.default_rng(0))
    networks, counts = np.unique(genomes, axis=0, return_counts=True)
    assert len(networks) == NETWORKS.count() < n / 100
    # Five standard errors of a count.
    assert np.abs(counts - n / len(networks)).max() < 5 * np.sqrt(n / len(networks))
    plain = NETWORKS.sample(n, np.random.default_rng(0))
    _, uneven = np.unique(plain, axis=0, return_counts=True)
    assert uneven.max() > 2 * n / len(networks)


@PROPERTY
@given(forests(), seeds)
def test_uniform_samples_are_canonical_and_repeat_with_the_seed(space: SearchSpace, seed: int) -> None:
    first, again = (space.sample_uniform(ROWS, np.random.default_rng(seed)) for _ in range(2))
    assert first.shape == (ROWS, space.n_genes)
    assert first.dtype == np.int16
    assert np.array_equal(first, again)
    assert np.array_equal(space.canonical(first), first)


@PROPERTY
@given(forests(), seeds)
def test_encoding_is_a_one_hot_of_what_exists(space: SearchSpace, seed: int) -> None:
    rows = any_rows(space, ROWS, seed)
    features = space.encode(rows)
    assert features.dtype == np.float32
    for row, encoded in zip(rows, features, strict=True):
        chosen = meaning(space, row)
        # A gene that does not exist equals none of its options.
        expected = [gene.name in chosen and chosen[gene.name] == o for gene in space.genes for o in gene.options]
        assert encoded.tolist() == expected


@PROPERTY
@given(forests())
def test_networks_have_encodings_of_their_own(space: SearchSpace) -> None:
    genomes = space.unique(space.canonical(every_row(space)))
    assert len({encoded.tobytes() for encoded in space.encode(genomes)}) == len(genomes) == space.count()


@PROPERTY
@given(forests(), seeds)
@example(NETWORKS, 0)
@example(SearchSpace.from_choices({"fixed": ["relu"], "depth": [1, 2]}), 0)
def test_mutation_changes_every_network(space: SearchSpace, seed: int) -> None:
    assume(space.count() > 1)
    genomes = space.sample(ROWS, np.random.default_rng(seed))
    before = genomes.copy()
    for probability in (0.0, 0.3, 1.0):
        mutated = space.mutate(genomes, np.random.default_rng(seed), probability=probability)
        assert np.array_equal(genomes, before)
        assert mutated.dtype == np.int16
        assert np.array_equal(space.check(mutated), mutated)
        for old, new in zip(genomes, mutated, strict=True):
            assert meaning(space, old) != meaning(space, new)
        assert np.array_equal(mutated, space.mutate(genomes, np.random.default_rng(seed), probability=probability)), (
            "not repeatable"
        )


@PROPERTY
@given(forests(min_options=2), seeds)
def test_the_probability_of_mutation_is_that_of_each_gene(space: SearchSpace, seed: int) -> None:
    genomes = space.sample(ROWS, np.random.default_rng(seed))

    def changed_of_shared(probability: float) -> list[tuple[int, int]]:
        """Return per row how many genes that exist before and after differ, and how many there are."""
        mutated = space.mutate(genomes, np.random.default_rng(seed), probability=probability)
        pairs = [(meaning(space, old), meaning(space, new)) for old, new in zip(genomes, mutated, strict=True)]
        return [
            (sum(old[name] != new[name] for name in old.keys() & new.keys()), len(old.keys() & new.keys()))
            for old, new in pairs
        ]

    assert all(changed == 1 for changed, _ in changed_of_shared(0.0))
    assert all(changed == shared for changed, shared in changed_of_shared(1.0))


def test_mutation_reaches_every_other_option() -> None:
    space = SearchSpace.from_choices({"width": [8, 16, 24, 32]})
    genomes = np.ones((3000, 1), dtype=np.int16)
    counts = np.bincount(space.mutate(genomes, np.random.default_rng(0), probability=0.5)[:, 0], minlength=4)
    assert counts[1] == 0
    assert counts[[0, 2, 3]].min() > 850


@PROPERTY
@given(forests(), seeds)
def test_crossover_takes_every_gene_from_a_parent(space: SearchSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = space.sample(ROWS, rng), space.sample(ROWS, rng)
    before = first.copy(), second.copy()
    children = space.crossover(first, second, np.random.default_rng(seed))
    assert np.array_equal(space.check(children), children)
    exists = space.active(children)
    assert ((children == first) | (children == second))[exists].all()
    assert np.array_equal(children, space.crossover(first, second, np.random.default_rng(seed)))
    assert np.array_equal(space.crossover(first, first, rng), first)
    assert np.array_equal([first, second], before)


def test_crossover_takes_as_much_from_either_parent_independently_for_each_gene() -> None:
    space = SearchSpace.from_choices({"a": [0, 1], "b": [0, 1]})
    zeros = np.zeros((4000, 2), dtype=np.int16)
    children = space.crossover(zeros, zeros + np.int16(1), np.random.default_rng(0))
    shares = np.bincount(children[:, 0] * 2 + children[:, 1], minlength=4) / len(children)
    assert np.abs(shares - 0.25).max() < 0.04


@PROPERTY
@given(forests(), seeds)
def test_resize_moves_sizes_to_the_end_and_keeps_kinds(space: SearchSpace, seed: int) -> None:
    rows = any_rows(space, ROWS, seed)
    before = rows.copy()
    for largest, extreme in ((True, max), (False, min)):
        resized = space.resize(rows, largest=largest)
        assert np.array_equal(space.canonical(resized), resized)
        for row, after in zip(rows, resized, strict=True):
            for column, gene in enumerate(space.genes):
                numbers = [option for option in gene.options if not isinstance(option, str)]
                kept = gene.options[row[column]]
                wanted = extreme(numbers) if len(numbers) == len(gene.options) else kept
                assert meaning(space, after).get(gene.name, wanted) == wanted
    assert np.array_equal(rows, before)


@PROPERTY
@given(forests(), seeds)
def test_unique_keeps_the_first_of_each_row_in_order(space: SearchSpace, seed: int) -> None:
    rows = any_rows(space, ROWS, seed)
    assert space.unique(rows).tolist() == [list(row) for row in dict.fromkeys(map(tuple, rows.tolist()))]


def test_unique_takes_rows_of_any_memory_order_and_none() -> None:
    rows = NETWORKS.sample(50, np.random.default_rng(0))
    assert np.array_equal(NETWORKS.unique(np.asfortranarray(rows)), NETWORKS.unique(rows))
    assert NETWORKS.unique(rows[:0]).shape == (0, 4)


def test_no_genomes_in_are_no_genomes_out() -> None:
    rng = np.random.default_rng(0)
    none = NETWORKS.sample(0, rng)
    assert none.shape == (0, 4)
    assert NETWORKS.mutate(none, rng, probability=0.5).shape == (0, 4)
    assert NETWORKS.crossover(none, none, rng).shape == (0, 4)
    assert NETWORKS.encode(none).shape == (0, 11)
    assert NETWORKS.check(none).shape == (0, 4)


def test_check_accepts_lists_and_makes_them_canonical() -> None:
    checked = NETWORKS.check([[2, 1, 0, 2], [2, 0, 1, 2]])
    assert checked.dtype == np.int16
    assert checked.tolist() == [[0, 0, 0, 0], [2, 0, 1, 0]]


@pytest.mark.parametrize(
    ("genomes", "message"),
    [
        ([[0, 0, 0, 0], [0, 2, 0, 0]], r"genome 1: gene 'operator' has index 2, allowed are 0 to 1"),
        ([[0, 0, -1, 0]], r"genome 0: gene 'depth' has index -1, allowed are 0 to 2"),
        # An index that would fit after wrapping around 16 bits.
        ([[65536, 0, 0, 0]], r"gene 'kernel' has index 65536, allowed are 0 to 2"),
        ([[0, 0, 0]], r"space 'networks' have shape \(n, 4\), got \(1, 3\)"),
        ([0, 0, 0, 0], r"shape \(n, 4\), got \(4,\)"),
        ([[0.0, 0.0, 1.0, 0.0]], r"whole numbers.*float64"),
        ([[0, 0, "1", 0]], r"whole numbers"),
        ([[False, True, False, False]], r"whole numbers.*bool"),
        ([[2**70, 0, 0, 0]], r"whole numbers"),
        ([[0, 0, 0, 0], [0, 0, 0]], r"'networks' must all have 4 genes"),
    ],
)
def test_check_names_what_is_wrong(genomes: npt.ArrayLike, message: str) -> None:
    with pytest.raises(InputError, match=message):
        NETWORKS.check(genomes)


@pytest.mark.parametrize(
    ("genes", "message"),
    [
        ([Gene("a", (1, 2)), Gene("b", (1,)), Gene("a", (3,))], "names must differ; repeated: a$"),
        ([Gene("a", ())], r"'a' needs distinct options, got \[\]"),
        ([Gene("a", (1, 2, 1))], r"'a' needs distinct options, got \[1, 2, 1\]"),
        ([Gene("a", (1, 1.0))], "'a' needs distinct options"),
        (
            [Gene("depth", (1, 2)), Gene("b", (1,), Condition("dept", (1,)))],
            "unknown parent of gene 'b' 'dept'; did you mean 'depth'",
        ),
        (
            [Gene("depth", (1, 2)), Gene("b", (1,), Condition("depth", (3,)))],
            r"unknown option of 'depth' in the condition of 'b' 3 \(known: 1, 2\)",
        ),
        ([Gene("a", (1, 2), Condition("a", (1,)))], "cycle among a$"),
        (
            [Gene("a", (1, 2), Condition("b", (1,))), Gene("c", (1,)), Gene("b", (1, 2), Condition("a", (1,)))],
            "cycle among a, b$",
        ),
    ],
)
def test_bad_genes_are_refused(genes: list[Gene], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SearchSpace("bad", genes)


def test_choices_make_the_genes() -> None:
    space = SearchSpace.from_choices(
        {"kernel": [3, 5], "operator": ["conv", "pool"]}, when={"kernel": {"operator": ["conv"]}}, name="mine"
    )
    assert space.name == "mine"
    assert space.genes == (
        Gene("kernel", (3, 5), Condition("operator", ("conv",))),
        Gene("operator", ("conv", "pool")),
    )
    assert [gene.ordinal for gene in space.genes] == [True, False]
    assert [space.index(name) for name in ("kernel", "operator")] == [0, 1]
    assert space.n_options.tolist() == [2, 2]


def test_conditions_of_choices_are_checked() -> None:
    with pytest.raises(InputError, match="unknown conditional gene 'kernl'; did you mean 'kernel'"):
        SearchSpace.from_choices({"kernel": [3]}, when={"kernl": {"kernel": [3]}})
    for parents in ({}, {"a": [1], "b": [1]}):
        with pytest.raises(InputError, match="'c' needs exactly one parent"):
            SearchSpace.from_choices({"a": [1], "b": [1], "c": [1]}, when={"c": parents})


def test_an_unknown_gene_has_no_index() -> None:
    with pytest.raises(InputError, match="unknown gene 'dpth'; did you mean 'depth'"):
        NETWORKS.index("dpth")


@PROPERTY
@given(forests(), seeds)
def test_the_hash_changes_with_any_gene(space: SearchSpace, seed: int) -> None:
    position = seed % space.n_genes
    gene = space.genes[position]
    others = [
        Gene(gene.name, (*gene.options, "new"), gene.when),
        Gene(gene.name, ("new", *gene.options[1:]), None),
        Gene(gene.name, gene.options[::-1], gene.when),
        Gene(gene.name, gene.options, None),
        Gene(gene.name, gene.options, gene.when and Condition(gene.when.gene, gene.when.options[1:])),
    ]
    for other in others:
        # Not every change is one: a list of one option reads the same backwards. Equal numbers of two types are equal.
        if repr(other) == repr(gene):
            continue
        try:
            changed = SearchSpace(space.name, [*space.genes[:position], other, *space.genes[position + 1 :]])
        except InputError:  # a condition below names the option that was replaced
            continue
        assert changed.hash != space.hash
    assert SearchSpace(space.name, [*space.genes, Gene("new", (1,))]).hash != space.hash
    assert SearchSpace("another name", space.genes).hash == space.hash


@PROPERTY
@given(forests(), seeds)
def test_the_hash_changes_with_the_order_of_genes(space: SearchSpace, seed: int) -> None:
    assume(space.n_genes > 1)
    turns = 1 + seed % (space.n_genes - 1)
    assert SearchSpace(space.name, space.genes[turns:] + space.genes[:turns]).hash != space.hash
