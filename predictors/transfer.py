"""A latency table of another device, from a known one and a few networks measured there."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from predictors.balanced import evenly_spaced
from predictors.calibration import CalibratedCost, calibrate
from predictors.latency import LatencyPredictor
from search_spaces.errors import InputError
from search_spaces.space import Genomes

Values = npt.NDArray[np.float64]

LEAST_NETWORKS = 8


def transferred(source: LatencyPredictor, genomes: Genomes, measured_ms: Values, precision: str) -> CalibratedCost:
    """Predict a device's latency from another's blocks: what few whole networks can tell about the difference.

    Args:
        source: the table of the known device.
        genomes: networks measured on the new one, ``int16[n, n_genes]``; best spread over the source's latency.
        measured_ms: their latency there, ``float64[n]``.
        precision: of the networks there.

    Raises:
        InputError: fewer networks than a fit needs.
    """
    if len(genomes) < LEAST_NETWORKS:
        raise InputError(f"a table is transferred on {LEAST_NETWORKS} networks at least, got {len(genomes)}")
    order = np.argsort(source.predict(genomes))
    fitted = calibrate(source.space, source.block_values, genomes[order], measured_ms[order], precision)
    return CalibratedCost(source.space, source.block_values, fitted, precision)


def spread_over(source: LatencyPredictor, pool: Genomes, n: int) -> Genomes:
    """Return networks of a pool at equal distances on the logarithm of a device's predicted latency."""
    return pool[evenly_spaced(source.predict(pool), n)]
