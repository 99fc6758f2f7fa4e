"""What the commands about latency tables print."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nas.run import Run, device_option, run_option
from nas.terminal import print_json, print_table, say
from predictors.latency import LatencyPredictor, LatencyTable
from predictors.quality import LatencyError

if TYPE_CHECKING:
    import pandas as pd

    from nas.analysis_record import Analysis
    from nas.kit import KitRecord
    from nas.lut_check import TableCheck

_FLAGGED_PERCENT = 5.0
_SLOWEST = 8
_LAYERS = 12
_SAMPLE = 1000


def table(run: Run, built: LatencyTable, path: Path, *, as_json: bool) -> None:
    """Print what a new latency table is worth."""
    if as_json:
        print_json({"file": str(path)} | _summary(built))
        return
    if built.source:
        networks = len(built.calibration_networks)
        say(f"{networks} networks measured on {built.device}, blocks of {built.source.device}: {path}")
    else:
        say(f"{len(built.blocks)} blocks measured on {built.device}: {path}")
    _quality(built)
    say("Next: nas search --budget-ms 50%" + device_option(built.device) + run_option(run.path))


def kit(run: Run, record: KitRecord, out: Path, *, as_json: bool) -> None:
    """Print what to do with a measurement kit."""
    size_mb = out.stat().st_size / 1e6
    if as_json:
        print_json({"file": str(out), "device": record.plan.device, "models": len(record.models), "size_mb": size_mb})
        return
    say(f"{out} ({size_mb:.1f} MB) measures {len(record.models)} models on {record.plan.device}.")
    say("Unpack it there and run `python measure.py`; it needs Python >= 3.8, numpy and onnxruntime, and no network.")
    say(f"Then here: nas build-lut --from results.jsonl{run_option(run.path)}")


def devices(obstacles: Mapping[str, str | None], *, as_json: bool) -> None:
    """Print which kinds of devices this machine can measure on."""
    if as_json:
        print_json({"devices": {name: {"usable": why is None, "obstacle": why} for name, why in obstacles.items()}})
        return
    rows = [[name, "yes" if why is None else "no", why or ""] for name, why in obstacles.items()]
    print_table(["device", "usable", "why not"], rows, title="Devices this machine can measure on", left=3)
    say("Options of a device: threads=N, precision=int8, batch=N, such as cpu:threads=2,precision=int8")


def shown(latency: LatencyPredictor, frame: pd.DataFrame, csv: Path | None, *, as_json: bool) -> None:
    """Print what a table holds."""
    from predictors.table_frame import block_words, staircases

    table = latency.table
    networks = _typical(latency)
    if as_json:
        columns = ["family", "calibrated_ms", "latency_ms", "noise_percent", "mmacs", "weights_mb"]
        value = {"csv": str(csv) if csv else None} | _summary(table) | {"rows": frame[columns].to_dict("records")}
        print_json(value | {"networks": networks.to_dict("index")})
        return
    blocks = f"{len(table.blocks)} blocks of {table.source.device if table.source else table.device}"
    if table.source:
        say(f"{blocks}, calibrated on networks of {table.device} {table.created}, batch {table.batch}")
    else:
        say(f"{blocks}, measured {table.created}, batch {table.batch}")
    cost = frame.groupby("family")["calibrated_ms"]
    print_table(
        ["family", "blocks", "fastest ms", "median ms", "slowest ms", "ms per 100 MMACs"],
        [
            [str(family), f"{len(rows)}", *(f"{value:.4f}" for value in (rows.min(), rows.median(), rows.max())), ratio]
            for family, rows in cost
            if (ratio := _per_macs(frame[frame["family"] == family]))
        ],
        title="By kind",
    )
    slowest = frame.nlargest(_SLOWEST, "calibrated_ms")
    print_table(
        ["block", "ms", "noise"],
        [
            [block_words(row), f"{row['calibrated_ms']:.4f}", f"{row['noise_percent']:.1f} %"]
            for _, row in slowest.iterrows()
        ],
        title="Slowest blocks",
    )
    for stairs in staircases(frame):
        widths = [[f"{width}", f"{ms:.4f}", f"{1000 * ms / width:.2f}"] for width, ms in stairs.steps]
        print_table(["channels", "ms", "us per channel"], widths, title=f"Staircase in channels: {stairs.block}")
    print_table(
        ["network", *(_HEADINGS[name] for name in networks.columns)],
        [[name, *(f"{value:.3f}" for value in row)] for name, row in zip(networks.index, networks.values, strict=True)],
        title="What networks of the space take, as predicted",
    )
    _quality(table)
    if csv is not None:
        say(f"All blocks: {csv}")


_HEADINGS = {
    "latency_ms": "ms",
    "low_ms": "from",
    "high_ms": "to",
    "p50_ms": "p50 ms",
    "p90_ms": "p90 ms",
    "images_per_s": "images/s",
    "file_mb": "file MB",
    "memory_mb": "memory MB",
}


def _typical(latency: LatencyPredictor) -> pd.DataFrame:
    """Return what a table predicts of the fastest, the slowest and a network in the middle of many random ones."""
    genomes = latency.space.sample(_SAMPLE, np.random.default_rng(0))
    middle = genomes[np.argsort(latency.predict(genomes), kind="stable")[_SAMPLE // 2]]
    columns = latency.columns(np.stack([latency.cheapest()[1], middle, latency.dearest()[1]]))
    columns.insert(1, "images_per_s", 1000.0 * latency.table.batch / columns["latency_ms"])
    return columns.set_axis(["fastest", "median", "slowest"], axis="index")


def checked(table: LatencyTable, result: TableCheck, *, as_json: bool) -> None:
    """Print what a table is worth now."""
    if as_json:
        print_json({"device": table.device} | result.to_json())
        return
    error = result.steady_error
    print_table(
        _ERROR_COLUMNS,
        [
            _error_row("as measured now", result.error),
            _error_row(f"with the drift of {result.drift_percent:+.1f} % taken out", error),
            _error_row("when the table was built", table.error),
        ],
        title=f"Table of {table.device} against {error.networks} networks it has never seen",
    )
    say(f"Noise floor (the same networks measured twice in the same run): {error.noise_floor_percent:.2f} %")
    say(
        f"With 95 % confidence, at least {error.within_5_percent_at_least:.1f} % of all networks are predicted "
        f"within 5 % once the drift is taken out: that is what {error.networks} networks can prove."
    )
    words = {
        "kept": "The table keeps its promise.",
        "missed": f"The table misses its promise: {', '.join(error.shortfalls)}.",
        "drifted": f"The device runs {result.drift_percent:+.1f} % slower than its table says; build it anew.",
        "too noisy": f"The machine is too noisy to tell: {', '.join(error.shortfalls)}, but measurements of the same "
        f"network disagree by {error.noise_floor_percent:.1f} % themselves. Stop what else runs and check again.",
    }
    say(words[result.verdict])


def analysis(result: Analysis, kept: Path | None, *, as_json: bool) -> None:
    """Print where a model's time goes; `kept` is where the run keeps it, for its report."""
    peaks = result.peaks
    if as_json:
        print_json(
            {
                "file": result.file,
                "kept": None if kept is None else str(kept),
                "device": result.device,
                "latency_ms": result.latency_ms,
                "bound_ms": result.bound_ms,
                "efficiency": result.efficiency,
                "attainable_efficiency": result.attainable_efficiency,
                "memory_bound_share": result.memory_bound_share,
                "peaks": {**asdict(peaks), "copy_gb_per_s": {str(k): v for k, v in peaks.copy_gb_per_s.items()}},
                "layers": [{**asdict(layer), "bound_ms": layer.bound_ms} for layer in result.layers],
            }
        )
        return
    slowest = sorted(result.layers, key=lambda layer: -layer.latency_ms)[:_LAYERS]
    print_table(
        ["layer", "operator", "ms", "share", "MMACs", "MB", "bound ms", "bound by"],
        [
            [
                layer.name,
                layer.operator,
                f"{layer.latency_ms:.4f}",
                f"{100 * layer.latency_ms / result.latency_ms:.0f} %",
                f"{layer.macs / 1e6:.2f}",
                f"{layer.size_bytes / 1e6:.3f}",
                f"{layer.bound_ms:.4f}",
                "memory" if layer.memory_ms > layer.compute_ms else "compute",
            ]
            for layer in slowest
        ],
        title=f"Slowest of {len(result.layers)} layers of {Path(result.file).name}",
        left=2,
    )
    by_operator: dict[str, float] = {}
    for layer in result.layers:
        by_operator[layer.operator] = by_operator.get(layer.operator, 0.0) + layer.latency_ms
    shares = sorted(by_operator.items(), key=lambda each: -each[1])[:_LAYERS]
    say("By operator: " + ", ".join(f"{name} {100 * ms / result.latency_ms:.0f} %" for name, ms in shares))
    rates = list(peaks.copy_gb_per_s.values())
    say(
        f"Whole model {result.latency_ms:.4f} ms on {result.device}; no layer faster than its bound would take "
        f"{result.bound_ms:.4f} ms, {100 * result.memory_bound_share:.0f} % of that waiting for memory."
    )
    say(
        f"Efficiency {100 * result.efficiency:.0f} % of the peak of {peaks.gmacs_per_s:.0f} GMACs/s "
        f"(int8 {peaks.int8_gmacs_per_s:.0f}); memory would allow {100 * result.attainable_efficiency:.0f} %. "
        f"Copies reach {max(rates):.0f} GB/s in the nearest cache, {rates[-1]:.2g} GB/s in memory."
    )
    if kept is not None:
        say(f"Kept for `nas report` in {kept}")


def _summary(built: LatencyTable) -> dict[str, object]:
    return {
        "device": built.device,
        "blocks": len(built.blocks),
        "calibration": built.calibration.model,
        "transferred_from": built.source.device if built.source else None,
        "sustained": {name: asdict(each) for name, each in built.sustained.items()},
        "sizes": {name: asdict(each) for name, each in built.sizes.items()},
        "error": built.error,
        "plain_sum_error": built.plain_error,
        "macs_error": built.macs_error,
    }


_ERROR_COLUMNS = ["model", "MAPE", "within 5 %", "bias", "Spearman"]


def _quality(built: LatencyTable) -> None:
    model = f"{built.calibration.model}, {len(built.calibration_networks)} networks"
    print_table(
        _ERROR_COLUMNS,
        [
            _error_row("MACs, fitted", built.macs_error),
            _error_row("sum of blocks", built.plain_error),
            _error_row(f"calibrated ({model})", built.error),
        ],
        title=f"Predicted against measured, {built.error.networks} other whole networks",
    )
    say(f"Noise floor (the same networks measured twice in the same run): {built.error.noise_floor_percent:.2f} %")
    if waiting := built.calibration.waiting:
        say(
            f"In networks that touch {waiting.touched_mb[0]:.2g} to {waiting.touched_mb[-1]:.2g} MB, blocks wait for "
            f"memory {100 * waiting.share[0]:.0f} to {100 * waiting.share[-1]:.0f} % as long as with cold caches"
        )
    sustained = ", ".join(
        f"{name} {each.ratio:.2f} times (mean error {each.mape_percent:.1f} %)"
        for name, each in built.sustained.items()
    )
    say(f"Running back to back, a network takes of its latency: {sustained}")
    flagged = [entry.noise_percent for entry in built.blocks if entry.noise_percent > _FLAGGED_PERCENT]
    if flagged and not built.source:
        say(
            f"{len(flagged)} blocks disagree with themselves by more than {_FLAGGED_PERCENT:.0f} % (the worst by "
            f"{max(flagged):.0f} %): something else was running"
        )


def _error_row(name: str, error: LatencyError) -> list[str]:
    return [
        name,
        f"{error.mape_percent:.2f} %",
        f"{error.within_5_percent:.0f} %",
        f"{error.bias_percent:+.2f} %",
        f"{error.spearman:.4f}",
    ]


def _per_macs(rows: pd.DataFrame) -> str:
    macs = rows["mmacs"].sum()
    return f"{100 * rows['calibrated_ms'].sum() / macs:.2f}" if macs > 0 else "-"
