"""How fast exported files are, by the protocol of the latency table."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from nas.bench import sustained_s
from nas.budget import Statistic, measured_ms
from nas.devices import Device, Fingerprint, ModelFile
from nas.export.record import Format
from nas.files import sha256_file
from nas.lut_plan import whole_network

_SPREAD_S = 2.0


def measure_files(
    files: Mapping[Format, Path], device: Device, at: Statistic, seed: int
) -> tuple[dict[Format, float], Fingerprint]:
    """Return the latency of each file by a statistic, all of them interleaved, and what they were measured on.

    Raises:
        InputError, MachineError: as ``device.measure``.
    """
    models = [
        whole_network(ModelFile(name, path, sha256_file(path), sustained_s=sustained_s(at)))
        for name, path in files.items()
    ]
    with tempfile.TemporaryDirectory(prefix="nas-export-") as folder:
        run = device.measure(models, spread_s=_SPREAD_S, seed=seed, work_dir=Path(folder))
    return {name: measured_ms(each, at) for name, each in zip(files, run.measurements, strict=True)}, run.fingerprint
