"""What a network's latency may depend on beside its blocks: which follows which, as figures that add up.

Blocks are measured between two convolutions. In a network they stand beside other kinds of blocks, and a runtime has to
bring what one passes on into another layout of memory, or is spared that.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from search_spaces.errors import InputError
from search_spaces.language import ABSENT, UNREACHABLE, NetworkSpace
from search_spaces.space import Genomes

Values = npt.NDArray[np.float64]

_MARK = ">"
_CHUNK = 8192  # rows, so that what is looked up stays in the cache


def is_passed(name: str) -> bool:
    """Return whether a feature is of neighbours, ``FAMILY>FAMILY``, and not of single blocks."""
    return _MARK in name


def by_neighbours(space: NetworkSpace) -> list[str]:
    """Return the features that tell apart which family of blocks follows which other one in networks of a space."""
    pairs: set[tuple[str, str]] = set()
    before: set[str] = set()
    for slot in space.slots:
        numbers = set(slot.table.tolist())
        here = {space.blocks[number].family for number in numbers - {ABSENT, UNREACHABLE}}
        pairs |= {(first, second) for first in before for second in here if first != second}
        before = here | before if ABSENT in numbers else here
    return [_MARK.join(pair) for pair in sorted(pairs)]


class NeighbourCost:
    """A price for what blocks of one family pass on to blocks of another.

    Args:
        space: what the genomes mean.
        prices: per million elements, by ``FAMILY>FAMILY``.

    Raises:
        InputError: the space has no block of such a family.
    """

    def __init__(self, space: NetworkSpace, prices: Mapping[str, float]) -> None:
        families = sorted({block.family for block in space.blocks})
        numbers = {family: number for number, family in enumerate(families)}
        of_pair = np.zeros((len(families) + 1, len(families)))  # the last row: nothing goes before the stem
        for name, price in prices.items():
            first, _, second = name.partition(_MARK)
            if first not in numbers or second not in numbers:
                raise InputError(f"a latency table counts on {name!r}, which are no two kinds of blocks of the space")
            of_pair[numbers[first], numbers[second]] = price
        family = np.array([numbers[block.family] for block in space.blocks])
        melements = np.array([block.in_channels * block.resolution**2 / 1e6 for block in space.blocks])
        # One more column, which `ABSENT` leads to: a block that is not there costs nothing.
        self._costs = np.pad(of_pair[:, family] * melements, ((0, 0), (0, 1)))
        self._family = np.append(family, len(families)).astype(np.int32)
        self.space = space

    def predict(self, genomes: Genomes) -> Values:
        """Return the sum of prices of canonical genomes ``int16[n, n_genes]``, ``float64[n]``."""
        total = np.zeros(len(genomes))
        for start in range(0, len(genomes), _CHUNK):
            rows = slice(start, start + _CHUNK)
            total[rows] = self._of_chunk(genomes[rows])
        return total

    def _of_chunk(self, genomes: Genomes) -> Values:
        blocks = np.ascontiguousarray(self.space.block_numbers(genomes).T)
        before = np.full(len(genomes), len(self._costs) - 1, dtype=np.int32)
        total = np.zeros(len(genomes))
        for here in blocks:
            total += self._costs[before, here]
            before = np.where(here == ABSENT, before, self._family[here])
        return total
