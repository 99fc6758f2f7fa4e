"""A latency table as a pandas frame: a row per block, for looking at it and for spreadsheets."""

from __future__ import annotations

import json

import pandas as pd

from predictors.latency import LatencyPredictor
from search_spaces.spec import block_key


def table_frame(latency: LatencyPredictor) -> pd.DataFrame:
    """Return one row per block of a table, in the order of the space.

    Columns: ``family``; ``latency_ms`` (what the block adds to a network, as measured), ``cold_ms`` (the same where
    nothing of it is in the caches), ``calibrated_ms`` (what predictions use, but for waiting), ``in_context_ms``,
    ``noise_percent``; ``mmacs``, ``params``, ``weights_mb`` (at the table's precision); then the fields of the blocks,
    empty where a family has none of that name.
    """
    table, blocks = latency.table, latency.space.blocks
    entries = {entry.block: entry for entry in table.blocks}
    rows = []
    for block, calibrated_ms in zip(blocks, latency.block_values, strict=True):
        key = block_key(block)
        entry = entries[key]
        rows.append(
            {
                "family": block.family,
                "latency_ms": entry.latency_ms,
                "cold_ms": entry.cold_ms,
                "calibrated_ms": float(calibrated_ms),
                "in_context_ms": entry.in_context_ms,
                "noise_percent": entry.noise_percent,
                "mmacs": block.macs() / 1e6,
                "params": block.params(),
                "weights_mb": block.weight_bytes(table.precision) / 1e6,
                **json.loads(key),
            }
        )
    return pd.DataFrame(rows)
