"""What a network takes besides time, from its weights: size of its file, memory of the process that runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from predictors.additive import AdditiveCost
from predictors.quality import mape_percent
from search_spaces.documents import document
from search_spaces.language import NetworkSpace
from search_spaces.space import Genomes

Values = npt.NDArray[np.float64]
Size = Literal["file_mb", "memory_mb"]


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class SizeFit:
    """A straight line through sizes of whole networks, for which the size of images counts little.

    Attributes:
        constant_mb: of any network.
        per_block_mb: what the description of a block adds.
        per_weight_mb: what a MB of weights, at the table's precision, adds.
        mape_percent: mean error on the networks of the fit.
    """

    constant_mb: float
    per_block_mb: float
    per_weight_mb: float
    mape_percent: float

    def cost(self, space: NetworkSpace, precision: str) -> AdditiveCost:
        """Return what predicts the size, MB, of the networks of a space."""
        weights_mb = np.array([block.weight_bytes(precision) / 1e6 for block in space.blocks])
        return AdditiveCost(space, self.per_block_mb + self.per_weight_mb * weights_mb, self.constant_mb)


def fit_size(space: NetworkSpace, genomes: Genomes, sizes_mb: Values, precision: str) -> SizeFit:
    """Fit the relative error of sizes.

    Args:
        space: what the genomes mean.
        genomes: canonical, ``int16[n, n_genes]``; where they do not tell the three factors apart, the line is the one
            with the smallest factors.
        sizes_mb: ``float64[n]``.
        precision: of the weights.
    """
    weights_mb = AdditiveCost.of(space, lambda block: block.weight_bytes(precision) / 1e6).predict(genomes)
    blocks = AdditiveCost.of(space, lambda block: 1.0).predict(genomes)
    design = np.stack([np.ones(len(genomes)), blocks, weights_mb], axis=1)
    factors = np.linalg.lstsq(design / sizes_mb[:, None], np.ones(len(genomes)), rcond=None)[0]
    return SizeFit(
        constant_mb=float(factors[0]),
        per_block_mb=float(factors[1]),
        per_weight_mb=float(factors[2]),
        mape_percent=mape_percent(design @ factors, sizes_mb),
    )
