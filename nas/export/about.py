"""What exported files say about themselves, and the model card beside them."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

from nas.devices import parse_device
from nas.export.record import FORMATS, ExportedFile, ExportedModel
from nas.lut import STATISTIC
from nas.onnx_format import exporter_name
from nas.wording import counted
from search_spaces.documents import canonical_json
from search_spaces.language import NetworkSpace
from search_spaces.spec import NetworkSpec, chosen_sizes

LICENCE = "made with paretonas (Apache-2.0); the weights come under the terms of the training data"


def metadata(record: ExportedModel, file: ExportedFile, space: NetworkSpace) -> dict[str, str]:
    """Return what a file says about itself, as `facts` does, as JSON texts by key."""
    said = facts(record, file, space)
    return {key: value if isinstance(value, str) else canonical_json(value) for key, value in said.items()}


def facts(record: ExportedModel, file: ExportedFile, space: NetworkSpace) -> dict[str, object]:
    """Return what is to be known of a file, by key.

    Args:
        record: of which all but the files' hashes and sizes is known.
        file: the same.
        space: of the network.
    """
    genome = space.check([record.candidate.genes])[0]
    return {
        "architecture": {"id": record.candidate.id, "genes": space.decode(genome)},
        "space": {"name": record.space, "hash": record.space_hash},
        "weights": {"hash": record.weights_hash, "finetuned": record.finetuned},
        "accuracy": {
            "data": record.data.name,
            "precision": file.precision,
            "validation": file.validation_accuracy,
            "validation_standard_error": file.validation_standard_error,
            "test": file.test_accuracy,
            "test_standard_error": file.test_standard_error,
        },
        "latency_ms": {
            "predicted": record.candidate.predicted_latency_ms if file.format == record.main.format else None,
            "measured": file.latency_ms,
            "budget": record.budget_ms if file.format == record.main.format else None,
            "statistic": statistic(record),
            "batch": parse_device(record.device).batch,
        },
        "device": {"name": record.device, "fingerprint_hash": record.fingerprint and record.fingerprint.hash},
        "cost": {"params": record.candidate.params, "macs": record.candidate.macs},
        "preprocessing": record.preprocessing if FORMATS[file.format].is_onnx else record.preprocessing.in_floats,
        "class_names": list(record.class_names),
        "versions": {**versions(), "opset": record.opset},
        "created": record.created,
        "licence": LICENCE,
    }


def versions() -> dict[str, str]:
    """Return the releases that make an export."""
    return {"paretonas": version("paretonas"), "exporter": exporter_name(), "torch": version("torch")}


def statistic(record: ExportedModel) -> str:
    """Return in words which figure of running the latencies are."""
    return STATISTIC if record.budget_at == "min" else f"{record.budget_at} of running back to back"


def resizing(prepared: int, taken: int) -> str:
    """Return how images come to the side that the network takes, as those did that its accuracy is of."""
    steps = f"shorter side to {prepared}, bilinear with antialiasing; then the centre square"
    return steps if taken == prepared else f"{steps}; then to {taken}, bilinear with antialiasing"


def without_folders(data: str) -> str:
    """Return a data set's name for others to read: where its images lie on this machine is nobody's business."""
    source, _, path = data.partition(":")
    return f"{source}:{Path(path).name}" if path else source


def model_card(record: ExportedModel, spec: NetworkSpec) -> str:
    """Return the model card, in Markdown."""
    candidate = record.candidate
    weights = "fine-tuned after extraction" if record.finetuned else "inherited from the supernet"
    images = f"{record.data.validation_images:,} search-validation and {record.data.test_images:,} test images"
    parts = [
        f"# Network {candidate.id}",
        f"An image classifier of {len(record.class_names)} classes from the search space {record.space} "
        f"({record.space_hash}): {candidate.params:,} parameters, {candidate.macs:,} multiply-accumulates an image. "
        f"Weights {record.weights_hash}, {weights}.",
        "## Files",
        _files(record),
        f"Accuracies are of {images} of {_code(record.data.name)} (content {record.data.content_hash[:16]}), ± one "
        f"standard error; the test split has been read {counted(record.test_reads, 'time')} with these weights. A file "
        "in floats gives the network's logits within *parity*; *agreement* is the share of search-validation images to "
        f"which it gives the network's class. {_latency(record)}",
        *_kept_in_floats(record),
        "## Use",
        _use(record),
        "## Preprocessing",
        _preprocessing(record),
        "## Architecture",
        _architecture(spec),
        "## Provenance",
        _provenance(record),
        "## Licence",
        f"{LICENCE[0].upper()}{LICENCE[1:]}.",
    ]
    return "\n\n".join(parts) + "\n"


def _files(record: ExportedModel) -> str:
    head = ["file", "", "MB", "validation", "test", "ms", "parity", "agreement"]
    rows = [
        [
            _code(each.file),
            FORMATS[each.format].about,
            f"{each.size_bytes / 1e6:.2f}",
            _accuracy(each.validation_accuracy, each.validation_standard_error),
            _accuracy(each.test_accuracy, each.test_standard_error),
            "" if each.latency_ms is None else f"{each.latency_ms:.4g}",
            f"{each.parity:.1e}",
            f"{100 * each.agreement:.1f} %",
        ]
        for each in record.files
    ]
    return _table(head, rows)


def _accuracy(value: float, error: float) -> str:
    return f"{100 * value:.1f} ± {100 * error:.1f} %"


def _latency(record: ExportedModel) -> str:
    if record.latency_ms is None:
        return f"Latency was not measured: {record.device} is another machine."
    budget = "" if record.budget_ms is None else f", inside a budget of {record.budget_ms:.4g} ms"
    if record.budget_ms is not None and not record.latency_ms <= record.budget_ms:
        budget = f", OUTSIDE the budget of {record.budget_ms:.4g} ms"
    others = "".join(f" On {each.device}: {each.latency_ms:.4g} ms." for each in record.others)
    return f"Milliseconds are the {statistic(record)} on {record.device}{budget}.{others}"


def _kept_in_floats(record: ExportedModel) -> list[str]:
    kept = [name for each in record.files for name in each.in_floats]
    return [f"Of the 8-bit file these stayed in floats: {', '.join(map(_code, kept))}."] if kept else []


def _use(record: ExportedModel) -> str:
    batch, file = record.batch or 1, next(each for each in record.files if FORMATS[each.format].is_onnx)
    floats = [
        'images = ((pixels / np.float32(255) - steps["mean"]) / steps["std"]).astype(np.float32)',
        'logits = session.run(None, {"input": images.transpose(0, 3, 1, 2)})[0]',
    ]
    lines = [
        "import json, numpy as np, onnxruntime",
        f'session = onnxruntime.InferenceSession("{file.file}", providers=["CPUExecutionProvider"])',
        "about = session.get_modelmeta().custom_metadata_map",
        'steps, names = json.loads(about["paretonas.preprocessing"]), json.loads(about["paretonas.class_names"])',
        f'pixels = np.zeros(({batch}, *steps["size"], len(steps["mean"])), np.uint8)  # your images, 0 to 255',
        *(['logits = session.run(None, {"input": pixels})[0]'] if record.preprocessing.in_graph else floats),
        "print([names[best] for best in logits.argmax(axis=1)])",
    ]
    return "\n".join(["```python", *lines, "```"])


def _preprocessing(record: ExportedModel) -> str:
    steps = record.preprocessing
    batch = "any number of" if record.batch is None else str(record.batch)
    taken = f"{batch} images, `{steps.dtype}`, {steps.layout}, {steps.size[0]} x {steps.size[1]} pixels, {steps.colour}"
    inside = "the ONNX files do the rest" if steps.in_graph else "then `(x * scale - mean) / std`"
    values = {"scale": steps.scale, "mean": list(steps.mean), "std": list(steps.std)}
    return (
        f"The ONNX files take {taken}. Resize: {steps.resize}. Transparency: {steps.transparency}. From bytes, 0 to "
        f"255, {inside}: {_code(canonical_json(values))}. Classes, in the order of the logits:\n\n"
        f"```json\n{json.dumps(list(record.class_names))}\n```"
    )


def _architecture(spec: NetworkSpec) -> str:
    rows = []
    for placed in spec:
        block = placed.block
        sizes = chosen_sizes(block)
        rows.append(
            [
                placed.slot,
                block.family,
                ", ".join(f"{name} {value}" for name, value in sizes.items()),
                f"{block.in_channels} → {block.out_channels}",
                f"{block.resolution} → {block.out_resolution}",
                f"{block.params():,}",
                f"{block.macs():,}",
            ]
        )
    rows.append(["", "all", "", "", "", f"{spec.params():,}", f"{spec.macs():,}"])
    return _table(["slot", "block", "sizes", "channels", "pixels", "parameters", "MACs"], rows)


def _provenance(record: ExportedModel) -> str:
    made: dict[str, object] = {"made": record.created, **versions(), "opset": record.opset}
    if record.fingerprint is not None:
        shown = record.fingerprint
        made |= {
            "measured on": f"{shown.cpu_model}, {shown.threads} thread(s), {shown.system} {shown.kernel}",
            "with": f"onnxruntime {shown.onnxruntime}, {shown.provider}",
            "fingerprint": shown.hash,
        }
    return "\n".join(f"- {name}: {value}" for name, value in made.items())


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines: list[list[str]] = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _code(text: str) -> str:
    """Return a text that may come from a user as Markdown shows it unchanged."""
    printable = "".join(each if each.isprintable() else " " for each in text)
    fence = "`" * (max((len(run) for run in _runs(printable)), default=0) + 1)
    edge = " " if printable.startswith("`") or printable.endswith("`") else ""
    return f"{fence}{edge}{printable}{edge}{fence}"


def _runs(text: str) -> list[str]:
    """Return the runs of backticks in a text."""
    return ["`" * len(part) for part in "".join(each if each == "`" else " " for each in text).split()]
