"""``nas search`` and ``nas front``: networks inside a budget, searched for, or of those evaluated before."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from nas import defaults
from nas.options import DeviceOption, JsonOption, MismatchOption, RunOption, SeedOption
from nas.progress import progress_bar
from nas.terminal import warn
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from nas.devices import Device
    from nas.front import Front
    from nas.goal import Goal
    from nas.run import Run
    from nas.search_plan import SearchSettings

BudgetOption = Annotated[
    str | None,
    typer.Option("--budget-ms", metavar="MS", help="Milliseconds, or a share such as 60%.  [default: no budget]"),
]
AtOption = Annotated[
    str, typer.Option("--budget-at", metavar="min|p50|p90", help="What the budget is of: undisturbed, or sustained.")
]
ObjectiveOption = Annotated[
    list[str] | None,
    typer.Option("--objective", metavar="NAME", help="Cost to trade off, may be repeated.  [default: latency_ms]"),
]
ParamsOption = Annotated[float | None, typer.Option("--max-params", metavar="N", help="Most parameters, such as 2e5.")]
SizeOption = Annotated[float | None, typer.Option("--max-size-mb", metavar="MB", help="Largest predicted file.")]
MemoryOption = Annotated[
    float | None, typer.Option("--max-memory-mb", metavar="MB", help="Most predicted memory of a process.")
]


def search_command(
    *,
    budget: BudgetOption = None,
    budget_at: AtOption = "min",
    max_params: ParamsOption = None,
    max_size_mb: SizeOption = None,
    max_memory_mb: MemoryOption = None,
    objective: ObjectiveOption = None,
    device: DeviceOption = defaults.DEVICE,
    run: RunOption = defaults.RUN,
    evaluations: Annotated[
        int | None,
        typer.Option(
            "--evaluations",
            min=1,
            help=f"Search, up to N networks in all.  [default: {defaults.EVALUATIONS}; none after a search]",
        ),
    ] = None,
    time_limit: Annotated[
        float | None, typer.Option("--time-limit", min=0.0, metavar="S", help="Evaluate for so many seconds at most.")
    ] = None,
    strategy: Annotated[
        str, typer.Option("--strategy", metavar="NAME", help="How networks are chosen for evaluation.")
    ] = defaults.STRATEGY,
    compare: Annotated[
        str | None, typer.Option("--compare", metavar="NAME", help="Also run a second strategy at equal cost.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what can be reached and how long it would take; evaluate nothing.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            min=0,
            metavar="N",
            help="Processes that evaluate; 0 leaves it to `nas work`.  [default: this one]",
        ),
    ] = None,
    ledger: Annotated[
        str | None,
        typer.Option("--ledger", metavar="URL", help="Keep evaluations in a database from now on, such as PostgreSQL."),
    ] = None,
    allow_mismatch: MismatchOption = False,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Find the networks that are most accurate inside a latency budget."""
    from nas import present
    from nas.files import write_atomic
    from nas.run import run_option
    from nas.search_plan import SearchSettings, plan_search
    from search_spaces.documents import pretty_json

    settings = SearchSettings(
        evaluations=evaluations or defaults.EVALUATIONS,
        strategy=strategy,
        compare=compare,
        seed=seed,
        time_limit_s=time_limit,
    )
    # Whoever says how to search wants to search.
    look_up = evaluations is None and settings == SearchSettings()
    bounds = {"params": max_params, "file_mb": max_size_mb, "memory_mb": max_memory_mb}
    opened, target, goal = _asked(run, device, budget, budget_at, objective, bounds)
    if told := opened.require_this_machine(target, goal.latency.table, allow_mismatch=allow_mismatch):
        warn(told)
    if dry_run:
        front = _front_before(opened, goal) if look_up else None
        present.search_plan(plan_search(opened, goal, None if front else settings), as_json=as_json)
        return
    with opened.lock():
        if ledger is not None:
            opened.move_ledger(ledger)
        front = _front_before(opened, goal) if look_up else None
        front = front or _searched(opened, target, goal, settings, workers=workers, quiet=as_json)
        write_atomic(opened.front_path, pretty_json(front))
    present.front(opened, front, next_step=f"nas export{run_option(opened.path)}", written=True, as_json=as_json)


def front_command(
    *,
    budget: BudgetOption = None,
    budget_at: AtOption = "min",
    max_params: ParamsOption = None,
    max_size_mb: SizeOption = None,
    max_memory_mb: MemoryOption = None,
    objective: ObjectiveOption = None,
    device: DeviceOption = defaults.DEVICE,
    run: RunOption = defaults.RUN,
    as_json: JsonOption = False,
) -> None:
    """Show the front of the networks that were evaluated before, for any budget; evaluates and writes nothing."""
    from nas import present
    from nas.run import run_option

    bounds = {"params": max_params, "file_mb": max_size_mb, "memory_mb": max_memory_mb}
    opened, _, goal = _asked(run, device, budget, budget_at, objective, bounds)
    front = _known_front(opened, goal, opened.front()) if opened.front_path.exists() else None
    command = f"nas search{goal.options}{run_option(opened.path)}"
    if front is None:
        raise InputError(f"no search has evaluated a network that is safely inside; run `{command}` first")
    present.front(opened, front, next_step=command, written=False, as_json=as_json)


def _asked(
    run: Path,
    device: str,
    budget: str | None,
    budget_at: str,
    objectives: list[str] | None,
    bounds: dict[str, float | None],
) -> tuple[Run, Device, Goal]:
    """Return the run, the device and the goal that options name."""
    from nas.budget import parse_statistic
    from nas.devices import parse_device
    from nas.goal import parse_goal
    from nas.run import Run, require_searchable
    from predictors.latency import LatencyPredictor

    target, at = parse_device(device), parse_statistic(budget_at)
    require_searchable(target)
    opened = Run.existing(run, first="nas train")
    opened.require_supernet()
    latency = LatencyPredictor(opened.space, opened.latency_table(target))
    return opened, target, parse_goal(latency, budget, at=at, objectives=objectives or (), bounds=bounds)


def readable_front(opened: Run) -> Front | None:
    """Return the last search's front, or None; warns of one that cannot be read."""
    try:
        return opened.front() if opened.front_path.exists() else None
    except InputError as error:
        warn(str(error))
        return None


def _front_before(opened: Run, goal: Goal) -> Front | None:
    """Return the front of what earlier searches have evaluated, or None; warns where that is not what to expect."""
    last = readable_front(opened)
    front = last and _known_front(opened, goal, last)
    if front is None and opened.front_path.exists():
        warn("no network that an earlier search has evaluated with these weights is known to be inside; searching anew")
    return front


def _known_front(opened: Run, goal: Goal, last: Front) -> Front | None:
    """Return the front of what searches until the last one have evaluated, or None if nothing of it is inside."""
    from nas.finalists import Source, known_front

    record = opened.require_supernet()
    if last.supernet_hash != record.supernet_hash:
        return None
    source = Source(supernet_hash=record.supernet_hash, validation_images=last.validation_images)
    return known_front(goal, opened.known_accuracies(), opened.ledger, source)


def _searched(
    opened: Run, target: Device, goal: Goal, settings: SearchSettings, *, workers: int | None, quiet: bool
) -> Front:
    from nas.memory import keep_freed_memory
    from nas.run import run_option
    from nas.subnet_search import search_subnets, validate_front

    keep_freed_memory()
    with progress_bar("exporting blocks", quiet=quiet) as progress:
        cache = opened.block_cache(target.batch)
        cache.fill(opened.space.blocks, progress)
    evaluator = opened.evaluator(workers=workers)
    if workers == 0:
        warn(f"networks are evaluated where `nas work{run_option(opened.path)}` runs, and nowhere else")
    with closing(evaluator), progress_bar("searching", quiet=quiet) as progress:
        outcome = search_subnets(evaluator, goal, settings, progress=progress)
    if outcome.cut_short:
        warn(f"the time limit was over after {len(outcome.found.genomes)} of {settings.evaluations} networks")
    with progress_bar("measuring finalists", quiet=quiet) as progress:
        return validate_front(outcome, evaluator, goal, settings, device=target, cache=cache, progress=progress)


def work_command(
    *,
    run: RunOption = defaults.RUN,
    idle: Annotated[
        float | None,
        typer.Option("--idle", min=0.0, metavar="S", help="End when nothing has come for so long.  [default: never]"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate networks for a search that runs elsewhere; as many of these as there are processors."""
    import math

    from nas.memory import keep_freed_memory
    from nas.run import Run
    from nas.terminal import print_json, say

    opened = Run.existing(run, first="nas train")
    opened.require_supernet()
    keep_freed_memory()
    evaluator = opened.evaluator()
    with progress_bar("evaluating what waits", quiet=as_json) as progress:
        evaluated = evaluator.work(idle_s=math.inf if idle is None else idle, progress=progress)
    if as_json:
        print_json({"run": str(opened.path), "evaluated": evaluated})
    else:
        say(f"evaluated {evaluated:,} networks of {opened.path}")


def status_command(*, run: RunOption = defaults.RUN, as_json: JsonOption = False) -> None:
    """Show where a run stands, and the next command to type."""
    from nas import present_status
    from nas.run import Run
    from nas.status import run_status

    present_status.status(run_status(Run.existing(run, first="nas train")), as_json=as_json)
