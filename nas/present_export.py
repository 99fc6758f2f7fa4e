"""What the commands print that export networks, verify them or train them further."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from nas.export.record import ExportedFile, ExportedModel
from nas.export.verify import Verification
from nas.run import Run, run_option
from nas.terminal import print_json, print_table, say, warn
from nas.wording import accuracy_text, counted, ms_text

if TYPE_CHECKING:
    from nas.finetune import FinetuneRecord


def exported(run: Run, record: ExportedModel, directory: Path, *, as_json: bool) -> None:
    """Print what was exported and how it was checked."""
    if as_json:
        print_json({"path": str(directory / record.main.file), "folder": str(directory)} | dataclasses.asdict(record))
        return
    floats = [each.parity for each in record.files if each.precision == "fp32"]
    same = "extracted = supernet" if not record.finetuned else "extracted and fine-tuned"
    within = f" = files in floats within {max(floats):.1e}" if floats else ""
    say(f"Exported {record.candidate.id}: {same}{within} on real images; onnx.checker's full check passed.")
    if len(record.files) > 1 or record.main.precision == "int8":
        _files(record)
    at = "" if record.budget_at == "min" else f" ({record.budget_at} of running back to back)"
    for device, latency_ms, budget_ms in (
        (record.device, record.latency_ms, record.budget_ms),
        *((each.device, each.latency_ms, each.budget_ms) for each in record.others),
    ):
        if latency_ms is None:
            say(f"{device} is another machine: measure the file there.")
            continue
        verdict = "inside" if budget_ms is None or latency_ms <= budget_ms else "OUTSIDE"
        budget = "" if budget_ms is None else f", {verdict} the budget of {ms_text(budget_ms)} ms"
        say(f"The file itself runs in {ms_text(latency_ms)} ms on {device}{at}{budget}.")
    say(
        f"Test accuracy of the file: {accuracy_text(record.main.test_accuracy, record.main.test_standard_error)} "
        f"({record.data.test_images} images; the test split has been read {counted(record.test_reads, 'time')})"
    )
    for file in record.files:
        say(str(directory / file.file))
    say(f"Next: nas verify {quote(str(directory))}{run_option(run.path)}")


def _files(record: ExportedModel) -> None:
    print_table(
        ["file", "MB", "validation", "test", "ms", "parity", "agreement"],
        [_row(each) for each in record.files],
        title=f"Files, for {'any number of' if record.batch is None else record.batch} images at a time",
        whole=1,
    )
    for each in record.files:
        if each.in_floats:
            say(f"{each.file} keeps in floats: {', '.join(each.in_floats)}")


def _row(file: ExportedFile) -> list[str]:
    return [
        file.file,
        f"{file.size_bytes / 1e6:.2f}",
        f"{100 * file.validation_accuracy:.1f} %",
        f"{100 * file.test_accuracy:.1f} %",
        "-" if file.latency_ms is None else ms_text(file.latency_ms),
        f"{file.parity:.1e}",
        f"{100 * file.agreement:.1f} %",
    ]


def verified(found: Verification, record: ExportedModel, *, as_json: bool) -> None:
    """Print what was checked of an exported network."""
    if as_json:
        print_json(
            {
                "folder": found.folder,
                "network": record.candidate.id,
                "passed": not found.failed,
                "checks": [dataclasses.asdict(each) for each in found.checks],
            }
        )
        return
    verdicts = {True: "ok", False: "FAILED", None: "-"}
    print_table(
        ["check", "file", "", "found"],
        [[each.name, each.file, verdicts[each.passed], each.found] for each in found.checks],
        title=f"Network {record.candidate.id} of {record.created[:10]}, for {record.device}",
        left=4,
        whole=3,
    )
    say("All that could be checked holds." if not found.failed else f"{len(found.failed)} checks FAILED.")


def finetuned(run: Run, record: FinetuneRecord, directory: Path, *, as_json: bool) -> None:
    """Print what training a network further has brought."""
    if as_json:
        print_json({"folder": str(directory)} | dataclasses.asdict(record))
        return
    in_precision = "" if record.settings.precision == "fp32" else " in 8 bits"
    say(
        f"{record.id}, {record.images_seen:,} images and {record.seconds:.0f} s of training further: search-validation "
        f"accuracy{in_precision} {100 * record.before:.1f} % before, "
        f"{accuracy_text(record.after, record.standard_error)} after ({record.validation_images} images)"
    )
    if in_precision:
        say(f"In floats it has {100 * record.after_in_floats:.1f} % after.")
    if record.after < record.before:
        warn("it has become worse; more --steps or another --learning-rate may help")
    say(f"Next: nas export --pick {record.id} --finetuned{run_option(run.path)}")
