"""``nas search`` and ``nas front``: networks inside a budget, searched for, or of those evaluated before."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Annotated

import typer

from nas import completion, defaults
from nas.options import JsonOption, MismatchOption, RunOption, SeedOption
from nas.progress import progress_bar
from nas.terminal import warn
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from nas.devices import Precision
    from nas.evaluate import SubnetEvaluator
    from nas.front import Front, Fronts
    from nas.goal import Goal
    from nas.run import Run
    from nas.search_plan import SearchSettings

BudgetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--budget-ms", metavar="MS", help="Milliseconds, or a share such as 60%; or one per device.  [default: none]"
    ),
]
DevicesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--device",
        metavar="NAME",
        help=f"Target device, may be repeated: a front each.  [default: {defaults.DEVICE}]",
        autocompletion=completion.devices,
    ),
]
JointOption = Annotated[bool, typer.Option("--joint", help="One front of networks that keep all devices' budgets.")]
AtOption = Annotated[
    str, typer.Option("--budget-at", metavar="min|p50|p90", help="What the budget is of: undisturbed, or sustained.")
]
ObjectiveOption = Annotated[
    list[str] | None,
    typer.Option(
        "--objective",
        metavar="NAME",
        help="Cost to trade off: latency_ms, params, macs, file_mb or memory_mb; may be repeated.  "
        "[default: latency_ms]",
    ),
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
    device: DevicesOption = None,
    joint: JointOption = False,
    run: RunOption = defaults.RUN,
    evaluations: Annotated[
        int | None,
        typer.Option(
            "--evaluations",
            min=1,
            help=f"Search, evaluating N more networks.  [default: {defaults.EVALUATIONS}; none after a search]",
        ),
    ] = None,
    time_limit: Annotated[
        float | None, typer.Option("--time-limit", min=0.0, metavar="S", help="Evaluate for so many seconds at most.")
    ] = None,
    strategy: Annotated[
        str,
        typer.Option(
            "--strategy",
            metavar="NAME",
            help="How networks are chosen for evaluation: predictor, random-predictor, linas, nsga2, "
            "regularized-evolution, local, tpe, gp or random.",
            autocompletion=completion.strategies,
        ),
    ] = defaults.STRATEGY,
    compare: Annotated[
        str | None,
        typer.Option(
            "--compare",
            metavar="NAME",
            help="Also run a second strategy at equal cost.",
            autocompletion=completion.strategies,
        ),
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
    from nas.run import run_option
    from nas.search_plan import SearchSettings, plan_search

    settings = SearchSettings(
        evaluations=evaluations or defaults.EVALUATIONS,
        strategy=strategy,
        compare=compare,
        seed=seed,
        time_limit_s=time_limit,
    )
    # Whoever says how to search wants to search.
    look_up = evaluations is None and workers is None and settings == SearchSettings()
    if dry_run and ledger is not None:
        raise InputError("--dry-run changes nothing, and --ledger would: leave one of them out")
    bounds = {"params": max_params, "file_mb": max_size_mb, "memory_mb": max_memory_mb}
    opened, goals = _asked(run, device or [], budget or [], budget_at, objective, bounds, joint=joint)
    for told in _mismatches(opened, goals, allowed=allow_mismatch):
        warn(told)
    if dry_run:
        last = readable_fronts(opened) if look_up else None
        asked = [None if look_up and _front_before(opened, goal, last) else settings for goal in goals]
        plans = [plan_search(opened, goal, each) for goal, each in zip(goals, asked, strict=True)]
        present.search_plans(plans, as_json=as_json)
        return
    with opened.lock():
        if ledger is not None:
            opened.move_ledger(ledger)
        before = readable_fronts(opened)
        found = [_front_before(opened, goal, before) if look_up else None for goal in goals]
        fronts = _searched(opened, goals, found, settings, before, workers=workers, quiet=as_json)
        opened.keep_fronts(fronts, before)
    present.fronts(opened, fronts, next_step=f"nas export{run_option(opened.path)}", written=True, as_json=as_json)


def front_command(
    *,
    budget: BudgetOption = None,
    budget_at: AtOption = "min",
    max_params: ParamsOption = None,
    max_size_mb: SizeOption = None,
    max_memory_mb: MemoryOption = None,
    objective: ObjectiveOption = None,
    device: DevicesOption = None,
    joint: JointOption = False,
    run: RunOption = defaults.RUN,
    as_json: JsonOption = False,
) -> None:
    """Show the front of the networks that were evaluated before, for any budget; evaluates and writes nothing."""
    from nas import present
    from nas.run import run_option

    bounds = {"params": max_params, "file_mb": max_size_mb, "memory_mb": max_memory_mb}
    opened, goals = _asked(run, device or [], budget or [], budget_at, objective, bounds, joint=joint)
    last = opened.fronts() if opened.front_path.exists() else None
    fronts = []
    for goal in goals:
        front = _known_front(opened, goal, last) if last else None
        command = f"nas search{goal.options}{run_option(opened.path)}"
        if front is None:
            raise InputError(f"no search has evaluated a network that is safely inside; run `{command}` first")
        fronts.append(front)
    present.fronts(opened, fronts, next_step=command, written=False, as_json=as_json)


def _asked(
    run: Path,
    devices: list[str],
    budgets: list[str],
    budget_at: str,
    objectives: list[str] | None,
    bounds: dict[str, float | None],
    *,
    joint: bool,
) -> tuple[Run, list[Goal]]:
    """Return the run, and the goals that options name: one per device, or one for all."""
    from nas.budget import parse_budget, parse_statistic
    from nas.devices import parse_device
    from nas.goal import Target, parse_goal
    from nas.run import Run, is_here
    from predictors.latency import LatencyPredictor

    named, at = [parse_device(name) for name in devices or [defaults.DEVICE]], parse_statistic(budget_at)
    if len({device.name for device in named}) < len(named):
        raise InputError(f"a device is named twice: {', '.join(device.name for device in named)}")
    if len(budgets) not in (0, 1, len(named)):
        raise InputError(
            f"{len(budgets)} budgets for {len(named)} devices: give --budget-ms once for all, or once for each, in "
            "the order of the devices"
        )
    if joint and len(named) == 1:
        raise InputError("--joint is for several devices: repeat --device")
    opened = Run.existing(run, first="nas train")
    opened.require_supernet()
    asked = budgets if len(budgets) == len(named) else [budgets[0] if budgets else None] * len(named)
    targets = []
    for device, budget in zip(named, asked, strict=True):
        latency = LatencyPredictor(opened.space, opened.latency_table(device))
        targets.append(Target(latency, parse_budget(budget, latency, at=at), is_here(device)))
    groups = [targets] if joint else [[target] for target in targets]
    return opened, [parse_goal(group, objectives=objectives or (), bounds=bounds) for group in groups]


def _mismatches(opened: Run, goals: list[Goal], *, allowed: bool) -> list[str]:
    """Return what is to be warned of tables of other conditions than those here; refuses them unless allowed."""
    from nas.devices import parse_device

    told = []
    for target in (target for goal in goals for target in goal.targets):
        device, table = parse_device(target.device), target.latency.table
        if target.here:
            told.append(opened.require_this_machine(device, table, allow_mismatch=allowed))
        else:
            opened.require_this_exporter(table)
            told.append(f"{device.name} is not this machine: its networks are predicted inside by a wider margin")
    return [each for each in told if each]


def readable_fronts(opened: Run) -> Fronts | None:
    """Return the last front of each device, or None; warns of a file that cannot be read."""
    try:
        return opened.fronts() if opened.front_path.exists() else None
    except InputError as error:
        warn(str(error))
        return None


def _known_front(opened: Run, goal: Goal, last: Fronts) -> Front | None:
    """Return the front of what searches until the last one have evaluated, or None if nothing of it is inside."""
    from nas.finalists import Source, known_front

    record = opened.require_supernet()
    with_these_weights = [each for each in last.fronts.values() if each.supernet_hash == record.supernet_hash]
    if not with_these_weights:
        return None
    source = Source(supernet_hash=record.supernet_hash, validation_images=with_these_weights[0].validation_images)
    return known_front(goal, opened.known_accuracies(goal.latency.table.precision), opened.ledger, source)


def _front_before(opened: Run, goal: Goal, last: Fronts | None) -> Front | None:
    """Return the front of what earlier searches have evaluated, or None; warns where that is not what to expect."""
    front = _known_front(opened, goal, last) if last else None
    if front is None and opened.front_path.exists():
        warn(
            "no network that an earlier search has evaluated with these weights is known to be inside on "
            f"{' and '.join(target.device for target in goal.targets)}; searching anew"
        )
    return front


def _searched(
    opened: Run,
    goals: list[Goal],
    found: list[Front | None],
    settings: SearchSettings,
    before: Fronts | None,
    *,
    workers: int | None,
    quiet: bool,
) -> list[Front]:
    """Return a front for each goal: the one that is found already, or else one that is searched for, and kept."""
    from nas.memory import keep_freed_memory
    from nas.pending_search import ended
    from nas.run import run_option
    from nas.search_plan import require_networks

    keep_freed_memory()
    for goal, front in zip(goals, found, strict=True):
        if front is None:
            require_networks(goal)
    fronts: list[Front] = []
    with ExitStack() as stack:
        evaluators: dict[Precision, SubnetEvaluator] = {}
        for goal, front in zip(goals, found, strict=True):
            precision = goal.latency.table.precision
            if front is None and precision not in evaluators:
                if workers == 0:
                    warn(f"networks are evaluated where `nas work{run_option(opened.path)}` runs, and nowhere else")
                evaluator = opened.evaluator(workers=workers, precision=precision)
                evaluators[precision] = stack.enter_context(closing(evaluator))
                evaluator.take_over()
            if front is None:
                evaluator = evaluators[precision]
                front = _search(opened, goal, settings, evaluator, quiet=quiet)
                opened.keep_fronts([*fronts, front], before)
                ended(opened.pending_path, evaluator, goal, settings)
            fronts.append(front)
    return fronts


def _search(opened: Run, goal: Goal, settings: SearchSettings, evaluator: SubnetEvaluator, *, quiet: bool) -> Front:
    from nas.devices import parse_device
    from nas.pending_search import known_before
    from nas.subnet_search import Place, search_subnets, validate_front

    places = {}
    for device in (parse_device(target.device) for target in goal.targets if target.here):
        cache = opened.block_cache(device.batch, device.precision)
        with progress_bar("exporting blocks", quiet=quiet) as progress:
            cache.fill(opened.space.blocks, progress)
        places[device.name] = Place(device, cache)
    before = {} if settings.compare else known_before(opened.pending_path, evaluator, goal, settings)
    with progress_bar("searching", quiet=quiet) as progress:
        outcome = search_subnets(evaluator, goal, settings, before=before, progress=progress)
    evaluator.close()  # nothing else runs while finalists are measured
    if outcome.cut_short:
        warn(f"the time limit was over after {len(outcome.found.genomes)} of {settings.evaluations} networks")
    with progress_bar("measuring finalists", quiet=quiet) as progress:
        return validate_front(outcome, evaluator, goal, settings, places=places, progress=progress, notice=warn)
