"""A latency table as a pandas frame: a row per block, for looking at it and for spreadsheets."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pandas as pd

from predictors.latency import LatencyPredictor
from search_spaces.spec import block_key

_STAIRCASES = 3
_FIGURES = (
    "family",
    "latency_ms",
    "cold_ms",
    "calibrated_ms",
    "in_context_ms",
    "noise_percent",
    "mmacs",
    "params",
    "weights_mb",
)


@dataclass(frozen=True, slots=True)
class Staircase:
    """What one kind of block costs at all its widths.

    Attributes:
        block: in words, without its channels.
        steps: channels, rising, and the block's latency, ms.
    """

    block: str
    steps: tuple[tuple[int, float], ...]


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


def block_words(row: pd.Series) -> str:
    """Return a block of a table's frame in words: its family and what its fields say."""
    fields = row.drop(list(_FIGURES)).dropna()
    return f"{row['family']} " + " ".join(f"{name}={_plain(value)}" for name, value in fields.items())


def staircases(frame: pd.DataFrame) -> list[Staircase]:
    """Return, for the families with the most widths, one block at all its widths; those of three widths or more."""
    found = []
    for family, rows in frame.groupby("family"):
        fields = [name for name in rows.columns if name not in _FIGURES and rows[name].notna().all()]
        wide = [name for name in ("channels", "out_channels") if name in fields]
        if not wide:
            continue
        others = [name for name in fields if name not in ("channels", "in_channels", "out_channels")]
        groups = rows.groupby(others) if others else [((), rows)]
        _, best = max(groups, key=lambda group: group[1][wide[0]].nunique())
        best = best.drop_duplicates(wide[0]).sort_values(wide[0])
        same = " ".join(f"{name}={_plain(best.iloc[0][name])}" for name in others)
        steps = tuple((int(width), float(ms)) for width, ms in zip(best[wide[0]], best["calibrated_ms"], strict=True))
        found.append(Staircase(f"{family} {same}", steps))
    return sorted((each for each in found if len(each.steps) >= 3), key=lambda each: -len(each.steps))[:_STAIRCASES]


def _plain(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value
