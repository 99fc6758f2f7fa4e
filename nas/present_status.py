"""What ``nas status`` prints."""

from __future__ import annotations

import dataclasses

from nas.status import FrontStatus, RunStatus, TableStatus
from nas.terminal import in_words, print_json, say


def status(result: RunStatus, *, as_json: bool) -> None:
    """Print where a run stands."""
    if as_json:
        print_json(dataclasses.asdict(result))
        return
    say(f"Run {result.run}: space {result.space} ({in_words(result.architectures)} networks), data {result.data}")
    told = {
        "supernet": _supernet(result),
        "tables": "; ".join(map(_table, result.tables)) or "none",
        "evaluated": f"{result.evaluated:,} networks",
        "front": (result.front_problem or "none") if result.front is None else _front(result.front),
        "exports": ", ".join(result.exports) or "none",
    }
    for name, text in told.items():
        say(f"  {name:<10} {text}")
    say(f"Next: {result.next}")


def _supernet(result: RunStatus) -> str:
    match result.supernet:
        case "trained":
            return f"trained, {result.steps:,} steps"
        case "stopped":
            return f"its training was stopped after step {result.steps:,}, or is going on"
        case "imported" | "missing":
            return result.supernet


def _table(table: TableStatus) -> str:
    if table.problem is not None:
        return f"{table.device}: {table.problem}"
    return f"{table.device} (off by {table.mape_percent:.1f} % on networks that it has not seen)"


def _front(front: FrontStatus) -> str:
    budget = "no budget" if front.budget_ms is None else f"at most {front.budget_ms:.4g} ms"
    at = "" if front.budget_at == "min" else f" at {front.budget_at}"
    return (
        f"{front.networks} networks on {front.device}, {budget}{at}; the best is {front.best}: "
        f"{100 * front.validation_accuracy:.1f} %, {front.latency_ms:.4g} ms{at}"
    )
