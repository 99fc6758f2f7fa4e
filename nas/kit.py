"""Measurement kits: one archive for a device that has only Python, numpy and ONNX Runtime, and its results back.

The archive holds the measuring core itself, a manifest and the models of a table. Their weights are tiled from a short
random pattern, so that the archive compresses; latency does not depend on the values of weights, as long as no two
tensors are equal.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
from onnx import numpy_helper

from nas import measure as core
from nas import runtime
from nas.block_cache import BlockCache
from nas.devices import KitDevice, MeasurementRun
from nas.devices.results import parse_results
from nas.files import read_document, write_atomic
from nas.lut import table_models
from nas.lut_plan import ROUNDS, TablePlan
from nas.measure import Manifest, ModelFile
from nas.progress import Progress, no_progress
from search_spaces.documents import document
from search_spaces.errors import InputError
from search_spaces.language import NetworkSpace

# Elements that weights repeat. Every tensor begins with a pattern of its own, so a long one fills the archive; a prime
# fits into no number of channels, so channels still differ.
_PATTERN = 251
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)  # equal contents give equal archives
_README = """\
Latency of neural networks on this device, measured with ONNX Runtime.

Needs Python >= 3.8 with numpy and onnxruntime >= {minimum} ({package}). No network is used.

    python measure.py

Close what else runs here. It takes at least {minutes} minutes and can be stopped and started again at any
time: it goes on where it stopped. Then send results.jsonl back to whoever gave you this.
"""


@document
@dataclass(frozen=True, slots=True)
class KitModel:
    """One model of a kit, as in the manifest."""

    id: str
    sha256: str
    visit_ms: float
    sustained_s: float
    group: int
    footprint: bool


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class KitRecord:
    """What a run keeps of a kit that it made: enough to turn results into a table.

    Attributes:
        plan: what the table is measured from.
        provider: execution provider to measure on.
        threads: threads inside an operator.
        rounds: of the protocol.
        models: in the order of the manifest.
    """

    CURRENT_VERSION: ClassVar[int] = 1

    format_version: int
    plan: TablePlan
    provider: str
    threads: int
    rounds: int
    models: tuple[KitModel, ...]

    @property
    def manifest(self) -> Manifest:
        """The manifest in the archive; models whose figures are repeated share a file."""
        return Manifest(
            models=tuple(
                ModelFile(path=Path(f"models/{each.sha256[:16]}.onnx"), **asdict(each)) for each in self.models
            ),
            provider=self.provider,
            threads=self.threads,
            rounds=self.rounds,
            seed=self.plan.seed,
            minimum_runtime=runtime.PROVIDERS[self.provider].minimum_runtime,
        )


def write_kit(
    plan: TablePlan,
    space: NetworkSpace,
    cache: BlockCache,
    device: KitDevice,
    out: Path,
    *,
    work_dir: Path,
    preparing: Progress = no_progress,
    progress: Progress = no_progress,
) -> KitRecord:
    """Write the archive that measures a table on another device.

    Args:
        plan: what the table is measured from.
        space: whose blocks; the cache holds them.
        cache: exported blocks.
        device: how to measure there.
        out: the archive.
        work_dir: for the models before they are packed.
        preparing: told of models made.
        progress: told of models packed.
    """
    files = table_models(plan, space, cache, work_dir, progress=preparing)
    archive = io.BytesIO()
    packed: dict[Path, str] = {}
    models = []
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as kit:
        for number, file in enumerate(files):
            if file.path not in packed:
                content = tiled(onnx.load(file.path)).SerializeToString()
                packed[file.path] = hashlib.sha256(content).hexdigest()
                _add(kit, f"models/{packed[file.path][:16]}.onnx", content)
            settings = {**vars(file), "sha256": packed[file.path]}
            del settings["path"]
            models.append(KitModel(**settings))
            progress(number + 1, len(files))
        record = KitRecord(
            format_version=KitRecord.CURRENT_VERSION,
            plan=plan,
            provider=device.provider,
            threads=device.threads,
            rounds=ROUNDS,
            models=tuple(models),
        )
        for script in (core, runtime):
            path = Path(str(script.__file__))
            _add(kit, path.name, path.read_bytes())
        _add(kit, "manifest.json", record.manifest.to_json().encode())
        minutes = max(1, round(sum(each.visit_ms for each in models) * ROUNDS / 60_000))
        provider = runtime.PROVIDERS[device.provider]
        _add(
            kit,
            "README.txt",
            _README.format(minimum=provider.minimum_runtime, package=provider.package, minutes=minutes).encode(),
        )
    write_atomic(out, archive.getvalue())
    return record


def kit_results(files: Sequence[Path], kits: Sequence[Path]) -> tuple[KitRecord, MeasurementRun]:
    """Merge results that came back, in any order, and find the kit that they are of.

    Args:
        files: results files of one kit, complete together.
        kits: the records of the kits that this run made.

    Raises:
        InputError: a file is damaged, they are not of one kit or one device, of none of this run's kits, or lack
            models.
    """
    merged = parse_results(files[0])
    for path in files[1:]:
        try:
            merged = merged.merged(parse_results(path))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
    names, unread = ", ".join(map(str, files)), ""
    for kit in kits:
        try:
            record = read_document(kit, KitRecord)
            manifest = record.manifest
        except (InputError, runtime.MeasureError, KeyError) as error:
            unread = f" (nor could one be read: {error})"
            continue
        if manifest.hash != merged.manifest_hash:
            continue
        found, wanted = merged.fingerprint, runtime.PROVIDERS[record.provider].name
        if (found.provider, found.threads) != (wanted, record.threads):
            raise InputError(
                f"{names}: measured with {found.provider} and {found.threads} threads, not as the kit says"
            )
        try:
            return record, merged.run(manifest)
        except InputError as error:
            raise InputError(f"{names}: {error}") from None
    raise InputError(f"{names}: not of a kit that this run made{unread}; give the --run that made the kit")


def tiled(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model whose large weights repeat their own first elements; shapes and types stay."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for tensor in result.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.size > _PATTERN:
            repeated = np.resize(values.ravel()[:_PATTERN], values.shape)
            tensor.CopyFrom(numpy_helper.from_array(repeated, tensor.name))
    return result


def _add(kit: zipfile.ZipFile, name: str, content: bytes) -> None:
    kit.writestr(zipfile.ZipInfo(name, _TIMESTAMP), content, compress_type=zipfile.ZIP_DEFLATED)
