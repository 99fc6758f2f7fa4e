"""Where the figures come from: versions, machines, seeds, hashes, commands, and how often the test split was read."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from nas.report.holdings import Holdings, search_options
from nas.report.parts import Cell, Line, Part, Section, Table
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
    if held.record is not None:
        made = "nas import-ofa …" if held.record.config is None else f"nas train --space {held.run.settings.space}"
        rows.append(("accuracies, training", held.command(f"{made} --data {held.run.settings.data}")))
    for device in held.latencies:
        rows.append((f"latencies on {device}", held.command(f"nas build-lut --device {device}")))
        rows.append((f"the table of {device}, tried on new networks", held.command(f"nas lut check --device {device}")))
    rows += [(f"the front on {name}", held.command(search_options(front))) for name, front in held.fronts.items()]
    rows += [(f"export {name}", held.command(f"nas verify exports/{name}")) for name in held.exports]
    rows.append(("this report", held.command("nas report")))
    return Table(
        name="commands", title="The command for every figure", columns=("figures", "command"), rows=tuple(rows)
    )


def _test_reads(held: Holdings) -> Line:
    reads = held.test_reads
    return Line(
        text=f"The test split has been read {reads} time{'' if reads == 1 else 's'} in this run; no search sees "
        "it, and every figure above is of the search-validation split, but where an export says test."
    )
