"""Where the figures come from: versions, machines, seeds, hashes, commands, and how often the test split was read."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from shlex import quote

from nas.report.holdings import Holdings, search_options
from nas.report.parts import Cell, Line, Part, Section, Table
from nas.training_record import TrainingRecord
from nas.wording import counted
from search_spaces.documents import canonical_json

_PACKAGES = (
    "paretonas",
    "torch",
    "onnxruntime",
    "onnx",
    "numpy",
    "scikit-learn",
    "pymoo",
    "optuna",
    "pandas",
    "plotly",
)
_SHOWN = ("cpu_model", "threads", "system", "kernel", "onnxruntime", "provider", "governor", "turbo")


def provenance_section(held: Holdings) -> Section:
    """Return the section of all that the figures depend on."""
    return Section(
        name="provenance",
        title="Where the figures come from",
        about="What to know, and what to type, to get them again.",
        parts=(_made(held), *_machines(held), _commands(held), _test_reads(held)),
    )


def _made(held: Holdings) -> Table:
    record, space = held.record, held.space
    rows: list[tuple[Cell, ...]] = [
        ("space", f"{held.run.settings.space} ({space.hash}), {held.status.architectures:,} networks"),
        ("data", held.run.settings.data),
    ]
    if record is not None:
        seed = "imported" if record.config is None else f"seed {record.config.seed}"
        rows += [
            ("data content", record.data_hash),
            ("supernet", f"{record.supernet_hash}, {seed}, torch {record.torch_version}"),
        ]
        if record.config is not None and record.config.chosen:
            rows.append(("training settings other than the defaults", canonical_json(record.config.chosen)))
    rows += [("searches", f"{name}: seed {front.seed}") for name, front in held.fronts.items()]
    rows += [(f"{name}, now", _version(name)) for name in _PACKAGES]
    rows.append(("Python, now", platform.python_version()))
    return Table(name="provenance", title="What was used", columns=("what", "which"), rows=tuple(rows))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _machines(held: Holdings) -> list[Part]:
    parts: list[Part] = []
    for number, (device, latency) in enumerate(held.latencies.items()):
        table = latency.table
        rows: list[tuple[Cell, ...]] = [
            ("fingerprint", table.fingerprint_hash),
            ("measured", table.created),
            ("seed", table.seed),
            ("statistic", table.statistic),
            ("blocks exported by", table.exporter),
            *((name, _text(table.fingerprint[name])) for name in _SHOWN if table.fingerprint.get(name) is not None),
            *((name, _text(value)) for name, value in table.conditions.items() if value is not None),
        ]
        if table.tool_version:
            rows.append(("paretonas", table.tool_version))
        title = f"Device {device}, as it was measured"
        parts.append(
            Table(name=f"device-{number}", title=title, columns=("what", "which"), rows=tuple(rows), device=device)
        )
    return parts


def _text(value: object) -> str:
    return value if isinstance(value, str) else canonical_json(value)


def _commands(held: Holdings) -> Table:
    rows: list[tuple[Cell, ...]] = []
    if (record := held.record) is not None:
        rows.append(("accuracies, training", held.command(_training(held, record))))
    for device, latency in held.latencies.items():
        if "kit:" in device:
            made = f"nas build-lut --device kit --name {quote(device.partition('=')[2])} --out KIT.zip"
        else:
            made = f"nas build-lut --device {quote(device)} --seed {latency.table.seed}"
            rows.append(
                (f"the table of {device}, tried on new networks", held.command(f"nas lut check --device {device}"))
            )
        source = latency.table.source
        made += f" --transfer-from {quote(source.device)}" if source else ""
        rows.append((f"latencies on {device}", held.command(made)))
    rows += [(f"the front on {name}", held.command(search_options(front))) for name, front in held.fronts.items()]
    if held.baselines:
        rows.append(("hand-made networks", held.command("nas baseline")))
    exports = held.run.path / "exports"
    rows += [(f"export {name}", held.command(f"nas verify {quote(str(exports / name))}")) for name in held.exports]
    rows += [(f"layers of {name}", held.command(f"nas analyze {name.partition(' ')[0]}")) for name in held.analyses]
    rows.append(("this report", held.command("nas report")))
    return Table(
        name="commands", title="The command for every figure", columns=("figures", "command"), rows=tuple(rows)
    )


def _training(held: Holdings, record: TrainingRecord) -> str:
    """Return the command of the training; settings that have no option stand in the table of what was used."""
    settings, config = held.run.settings, record.config
    if config is None:
        return f"nas import-ofa {quote(record.imported_from)}"
    given = f"--steps {config.steps} --batch-size {config.batch_size} --seed {config.seed}"
    return f"nas train --space {quote(settings.space)} --data {quote(settings.data)} {given}"


def _test_reads(held: Holdings) -> Line:
    return Line(
        text=f"The test split has been read {counted(held.test_reads, 'time')} in this run; no search sees "
        "it, and every figure above is of the search-validation split, but where an export says test."
    )
