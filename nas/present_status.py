"""What ``nas status`` prints."""

from __future__ import annotations

import dataclasses

from nas.status import FrontStatus, RunStatus, TableStatus
from nas.terminal import print_json, say
from nas.wording import in_words

_INDENT = 13


def status(result: RunStatus, *, as_json: bool) -> None:
    """Print where a run stands."""
    if as_json:
        print_json(dataclasses.asdict(result))
        return
    say(f"Run {result.run}: space {result.space} ({in_words(result.architectures)} networks), data {result.data}")
    told = {
        "supernet": [_supernet(result)],
        "tables": [_table(table) for table in result.tables],
        "evaluated": [f"{result.evaluated:,} networks"],
        "fronts": [result.front_problem] if result.front_problem else [_front(front) for front in result.fronts],
        "exports": [", ".join(result.exports)] if result.exports else [],
    }
    for name, lines in told.items():
        for position, line in enumerate(lines or ["none"]):
            say(f"  {'' if position else name:<10} {line}", indent=_INDENT)
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
    return f"{table.device}: off by {table.mape_percent:.1f} % on networks that it has not seen"


def _front(front: FrontStatus) -> str:
    budget = "no budget" if front.budget_ms is None else f"at most {front.budget_ms:.4g} ms"
    at = "" if front.budget_at == "min" else f" at {front.budget_at}"
    return (
        f"{front.device}, {budget}{at}: {front.networks} networks, the best {front.best} "
        f"({100 * front.validation_accuracy:.1f} %, {front.latency_ms:.4g} ms{at})"
    )
