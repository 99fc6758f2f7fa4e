"""Which subnets a step trains: largest, smallest, random ones, and every operator equally often."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest

from nas.sandwich import LARGEST, SMALLEST, Sandwich
from nas.training_record import Sampling
from predictors.additive import AdditiveCost
from search_spaces.errors import InputError
from search_spaces.language import NetworkSpace
from search_spaces.layout import Head, ImageInput, Layout, Operator, Stage, Stem
from search_spaces.space import Genomes, SearchSpace
from search_spaces.tiny import tiny

MBCONV = Operator(family="mbconv", sizes=(("kernel", (3, 5)), ("expansion", (2, 4))))
CONVNEXT = Operator(family="convnext", sizes=(("kernel", (3, 5, 7)), ("expansion", (2,))))
ATTENTION = Operator(family="attention", sizes=(("expansion", (1, 2)),))
SAMPLINGS: tuple[Sampling, ...] = ("uniform", "balanced", "bounded")


def mixed() -> NetworkSpace:
    """Return a space whose slots have one, two and three operators."""
    stages = (
        Stage(width=(16, 32), depth=(1, 2), operators=(MBCONV, CONVNEXT), stride=1),
        Stage(width=(32, 48), depth=(1, 2, 3), operators=(MBCONV, CONVNEXT, ATTENTION)),
        Stage(width=(48,), depth=(2,), operators=(CONVNEXT,)),
    )
    return NetworkSpace(
        Layout(
            name="mixed",
            input=ImageInput(channels=1, resolution=24, classes=10),
            stem=Stem(settings=(("kernel", 3), ("stride", 2))),
            stages=stages,
            head=Head(settings=(("features", 32),)),
        )
    )


def plain() -> SearchSpace:
    """Return a space that is no network: operators of two, three and four options, sizes given largest first."""
    return SearchSpace.from_choices(
        {
            "depth": (3, 2, 1),
            "op1": ("a", "b"),
            "op2": ("a", "b", "c"),
            "op3": ("a", "b", "c", "d"),
            "k1": (7, 5, 3),
        },
        when={"op2": {"depth": (2, 3)}, "op3": {"depth": (3,)}, "k1": {"op1": ("b",)}},
    )


SPACES: dict[str, SearchSpace] = {"tiny": tiny(1, 10), "mixed": mixed(), "plain": plain()}


@pytest.fixture(params=sorted(SPACES))
def space(request: pytest.FixtureRequest) -> SearchSpace:
    return SPACES[request.param]


def operators(space: SearchSpace) -> list[int]:
    return [position for position, gene in enumerate(space.genes) if not gene.ordinal]


def steps(sandwich: Sandwich, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    """Return the genomes of the first steps, ``int16[count, n_subnets, n_genes]``."""
    return np.stack([sandwich.subnets(step) for step in range(count)])


@pytest.mark.parametrize("seed", range(3))
def test_in_any_aligned_window_of_m_steps_each_of_m_operators_comes_once(space: SearchSpace, seed: int) -> None:
    count = 120
    genomes = steps(Sandwich(space, seed=seed, random_subnets=3), count)
    active = np.stack([space.active(step) for step in genomes])
    for gene, subnet in itertools.product(operators(space), range(genomes.shape[1])):
        m = len(space.genes[gene].options)
        assert count % m == 0
        for start in range(0, count, m):
            window = slice(start, start + m)
            exists = active[window, subnet, gene]
            assert exists.all() or not exists.any(), "a slot that is used in a part of a window cannot be fair"
            if exists.all():
                assert sorted(genomes[window, subnet, gene]) == list(range(m))


def test_update_counts_are_equal_over_all_subnets_and_slots(space: SearchSpace) -> None:
    sandwich = Sandwich(space, seed=0)
    genomes = steps(sandwich, 10 * sandwich.cycle).reshape(-1, space.n_genes)
    active = space.active(genomes)
    for gene in operators(space):
        counts = np.bincount(genomes[active[:, gene], gene], minlength=len(space.genes[gene].options))
        assert counts.min() == counts.max() > 0, space.genes[gene].name


def test_order_within_a_window_changes(space: SearchSpace) -> None:
    sandwich = Sandwich(space, seed=0)
    genomes = steps(sandwich, 30 * sandwich.cycle)
    for gene in operators(space):
        m = len(space.genes[gene].options)
        windows = {tuple(row) for row in genomes[:, LARGEST, gene].reshape(-1, m)}
        assert len(windows) > 1 or m == 1


def test_a_cycle_is_the_least_common_multiple_of_the_numbers_of_operators() -> None:
    assert {name: Sandwich(each, seed=0).cycle for name, each in SPACES.items()} == {"tiny": 3, "mixed": 6, "plain": 12}


def test_the_first_rows_have_the_largest_and_the_smallest_sizes(space: SearchSpace) -> None:
    for genomes in steps(Sandwich(space, seed=0), 12):
        for row, choose in ((LARGEST, max), (SMALLEST, min)):
            for name, option in space.decode(genomes[row]).items():
                gene = space.genes[space.index(name)]
                if gene.ordinal:
                    assert option == choose(float(each) for each in gene.options), (row, name)


def test_largest_and_smallest_are_so_by_parameters() -> None:
    space = tiny(1, 10)
    for genomes in steps(Sandwich(space, seed=1), 12):
        params = [space.lower(genome).params() for genome in genomes]
        assert params[SMALLEST] < min(params[2:])
        assert max(params[2:]) < params[LARGEST]


def test_every_size_is_drawn_and_changes_within_a_cycle_unless_it_is_a_depth(space: SearchSpace) -> None:
    sandwich = Sandwich(space, seed=0)
    genomes = steps(sandwich, 40 * sandwich.cycle)[:, 2:]
    active = np.stack([space.active(step) for step in genomes])
    parents = {gene.when.gene for gene in space.genes if gene.when is not None}
    for position, gene in enumerate(space.genes):
        drawn = set(genomes[..., position][active[..., position]].tolist())
        assert drawn == set(range(len(gene.options))), gene.name
        if gene.ordinal and gene.name in parents:
            cycles = genomes[..., position].reshape(-1, sandwich.cycle, genomes.shape[1])
            assert (cycles == cycles[:, :1]).all()


def test_genomes_are_canonical_and_as_many_as_asked(space: SearchSpace) -> None:
    for random_subnets in (0, 1, 4):
        genomes = Sandwich(space, seed=0, random_subnets=random_subnets).subnets(7)
        assert genomes.shape == (2 + random_subnets, space.n_genes)
        assert genomes.dtype == np.int16
        np.testing.assert_array_equal(space.check(genomes), genomes)


def test_a_step_depends_on_seed_and_step_alone(space: SearchSpace) -> None:
    forwards = steps(Sandwich(space, seed=4), 30)
    another = Sandwich(space, seed=4)
    for step in (29, 3, 17, 3, 0):
        np.testing.assert_array_equal(another.subnets(step), forwards[step])
    assert (steps(Sandwich(space, seed=5), 30) != forwards).any()
    random_rows = {genomes[2:].tobytes() for genomes in forwards}
    assert len(random_rows) > 20


def test_balanced_subnets_are_cheap_and_dear_as_often_as_in_between() -> None:
    space = tiny(1, 10)
    shares = []
    for sampling in SAMPLINGS[:2]:
        genomes = steps(Sandwich(space, seed=0, random_subnets=4, sampling=sampling), 300)[:, 2:].reshape(
            -1, space.n_genes
        )
        np.testing.assert_array_equal(space.check(genomes), genomes)
        macs = np.log([space.lower(genome).macs() for genome in genomes])
        low, high = (
            np.log(space.lower(space.resize(genomes[:1], largest=largest)[0]).macs()) for largest in (False, True)
        )
        counts = np.histogram(macs, bins=5, range=(min(low, macs.min()), max(high, macs.max())))[0]
        shares.append(counts / counts.sum())
    uniform, even = shares
    assert even.max() < uniform.max()
    assert even[[0, -1]].min() > 2 * uniform[[0, -1]].min()
    assert even.max() < 3 * even.min()


def test_bounded_subnets_have_costs_that_rise_and_fall_slowly() -> None:
    space, total = tiny(1, 10), 1200
    macs = AdditiveCost.of(space, lambda block: block.macs()).predict
    jumps, shares = {}, {}
    for sampling in SAMPLINGS:
        sandwich = Sandwich(space, seed=0, random_subnets=3, sampling=sampling, steps=total, cost=macs)
        genomes = steps(sandwich, total)[:, 2:]
        np.testing.assert_array_equal(
            space.check(genomes.reshape(-1, space.n_genes)), genomes.reshape(-1, space.n_genes)
        )
        size = np.log(macs(genomes.reshape(-1, space.n_genes))).reshape(total, 3)
        jumps[sampling] = np.abs(np.diff(size, axis=0)).mean(), size.std(axis=1).mean()
        counts = np.histogram(size, bins=5)[0]
        shares[sampling] = counts.min() / counts.max()
    for other in ("uniform", "balanced"):
        # From step to step, and among the subnets of a step.
        assert jumps["bounded"][0] < 0.5 * jumps[other][0]
        assert jumps["bounded"][1] < 0.5 * jumps[other][1]
    assert shares["bounded"] > 0.3 > shares["uniform"]


@pytest.mark.parametrize("sampling", ["balanced", "bounded"])
def test_other_draws_are_fair_to_operators_too(space: SearchSpace, sampling: Sampling) -> None:
    def cost(genomes: Genomes) -> npt.NDArray[np.float64]:
        size: npt.NDArray[np.float64] = 1.0 + genomes.sum(axis=1, dtype=np.float64)
        return size

    sandwich = Sandwich(space, seed=0, sampling=sampling, cost=cost)
    genomes = steps(sandwich, 10 * sandwich.cycle)
    active = np.stack([space.active(step) for step in genomes])
    for gene in operators(space):
        used = genomes[..., gene][active[..., gene]]
        counts = np.bincount(used, minlength=len(space.genes[gene].options))
        assert counts.min() == counts.max() > 0, space.genes[gene].name


def test_sizes_become_free_one_kind_after_the_other() -> None:
    space = tiny(1, 10)
    order = ("kernel", "depth")
    genomes = steps(Sandwich(space, seed=0, random_subnets=3, shrinking=order, steps=90), 90)
    free = steps(Sandwich(space, seed=0, random_subnets=3), 90)
    np.testing.assert_array_equal(genomes[60:], free[60:])
    for kind, since in zip(order, (30, 60), strict=True):
        for name, gene in ((each.name, each) for each in space.genes if each.name.endswith(f".{kind}")):
            position = space.index(name)
            active = np.stack([space.active(step) for step in genomes])[..., position]
            drawn = genomes[..., position]
            largest = int(np.argmax([float(option) for option in gene.options]))
            assert set(drawn[:since][active[:since]].tolist()) <= {largest}
            assert len(set(drawn[since:][active[since:]].tolist())) == len(gene.options)
    widths = genomes[:30, :, space.index("stage1.width")]
    assert len(set(widths.ravel().tolist())) > 1, "what does not shrink is free from the start"


@pytest.mark.parametrize("held", [("depth",), ("width", "kernel", "depth")])
def test_operators_are_fair_while_sizes_are_held(held: tuple[str, ...]) -> None:
    space = tiny(1, 10)
    sandwich = Sandwich(space, seed=0, shrinking=held, steps=10**6)
    genomes = steps(sandwich, 10 * sandwich.cycle)
    for subnet in range(genomes.shape[1]):
        rows = genomes[:, subnet]
        active = space.active(rows)
        for gene in operators(space):
            used = rows[active[:, gene], gene]
            counts = np.bincount(used, minlength=len(space.genes[gene].options))
            assert counts.min() == counts.max(), (subnet, space.genes[gene].name)
    for genome in genomes[:, SMALLEST]:
        for name, option in space.decode(genome).items():
            options = space.genes[space.index(name)].options
            if not isinstance(option, str):
                choose = max if name.rpartition(".")[2] in held else min
                assert option == choose(float(each) for each in options), name


def test_a_kind_of_size_that_the_space_lacks_is_refused() -> None:
    with pytest.raises(InputError, match="unknown kind of size to shrink 'kernels'; did you mean 'kernel'"):
        Sandwich(tiny(1, 10), seed=0, shrinking=("kernels",), steps=10)
