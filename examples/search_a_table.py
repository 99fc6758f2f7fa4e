"""Search your own table of results: nothing is trained and nothing is measured.

Shows `nas.search` with a space and figures of your own: a table of 2,304 networks, of which the accuracy is costly to
ask for and the latency is cheap. Since the whole table is known here, so is its true front. The table is made up, and
more regular than most.
Needs: nothing. Takes: some seconds. Writes: nothing.
Prints: the front that was found, and how much of the true front that is, with two strategies.

    python examples/search_a_table.py
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from nas import Constraint, Objective, SearchSpace, search

EVALUATIONS = 60
MOST_MS, LEAST_ACCURACY = 4.0, 80.0
BLOCKS = (1, 2, 3, 4)
SPACE = SearchSpace.from_choices(
    {"resolution": [96, 128, 160], "width": [16, 24, 32]}
    | {
        name: options
        for block in BLOCKS
        for name, options in ((f"block{block}", ["skip", "mbconv", "attention"]), (f"kernel{block}", [3, 5]))
    },
    when={f"kernel{block}": {f"block{block}": ["mbconv"]} for block in BLOCKS},  # other blocks have no kernel
)


def made_up(genome: npt.NDArray[np.int16]) -> tuple[float, float]:
    """Return accuracy (percent) and latency (ms) of a network; yours are read from a file, say."""
    chosen = SPACE.decode(genome)
    resolution, width = float(chosen["resolution"]), float(chosen["width"])
    capacity, cost = 0.5 * math.log2(resolution * width / (96 * 16)), 0.5
    for block in BLOCKS:
        if chosen[f"block{block}"] == "mbconv":
            kernel = float(chosen[f"kernel{block}"])
            capacity, cost = capacity + 0.5 + 0.02 * (kernel + block), cost + 0.3 + 0.06 * kernel + 0.01 * block
        elif chosen[f"block{block}"] == "attention":  # the later, the better, and the cheaper
            capacity, cost = capacity + 0.35 + 0.17 * block, cost + 1.4 - 0.2 * block
    return 92.0 - 50.0 * math.exp(-0.8 * capacity), cost * width / 16 * (resolution / 96) ** 2


def row_of(genomes: npt.NDArray[np.int16]) -> npt.NDArray[np.int64]:
    """Return the row of the table ``int64[n]`` of each genome ``int16[n, n_genes]``."""
    rows: npt.NDArray[np.int64] = np.ravel_multi_index(tuple(genomes.T), tuple(SPACE.n_options))
    return rows


def main() -> None:
    """Fill the table, search it, and compare with its true front."""
    everything = SPACE.enumerate()
    rows = row_of(everything)
    accuracy, latency_ms = np.full((2, np.prod(SPACE.n_options)), np.nan)
    accuracy[rows], latency_ms[rows] = np.transpose([made_up(genome) for genome in everything])

    inside = rows[(latency_ms[rows] <= MOST_MS) & (accuracy[rows] >= LEAST_ACCURACY)]
    by_latency = inside[np.lexsort((-accuracy[inside], latency_ms[inside]))]
    best_before = np.maximum.accumulate(np.append(-np.inf, accuracy[by_latency]))[:-1]
    true_front = by_latency[accuracy[by_latency] > best_before]

    for strategy in ("random", "predictor"):
        result = search(
            SPACE,
            [
                Objective("accuracy", evaluate=lambda genomes: accuracy[row_of(genomes)], maximize=True, costly=True),
                Objective("latency_ms", evaluate=lambda genomes: latency_ms[row_of(genomes)]),
            ],
            [Constraint("latency_ms", upper=MOST_MS), Constraint("accuracy", lower=LEAST_ACCURACY)],
            evaluations=EVALUATIONS,
            strategy=strategy,
        )
        found = np.isin(true_front, row_of(result.front.genomes)).sum()
        print(
            f"{strategy}: {found} of the {len(true_front)} networks of the true front, "
            f"after {result.evaluations} evaluations of {SPACE.count()}"
        )
    networks = [" ".join(map(str, SPACE.decode(genome).values())) for genome in result.front.genomes]
    print(result.front.values.assign(network=networks).to_string(index=False, float_format="%.2f"))


if __name__ == "__main__":
    main()
