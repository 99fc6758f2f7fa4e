"""How fast exported files are, by the protocol of the latency table."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnx

from nas.bench import sustained_s
from nas.budget import Statistic, measured_ms
from nas.devices import Device, Fingerprint, ModelFile
from nas.export.record import FORMATS, Format
from nas.files import sha256_file, write_atomic
from nas.lut_plan import whole_network

_SPREAD_S = 2.0


def measure_models(
    models: Mapping[Format, onnx.ModelProto], device: Device, at: Statistic, seed: int
) -> tuple[dict[Format, float], Fingerprint]:
    """Return the latency of each model by a statistic, all of them interleaved, and what they were measured on.

    Models for any number of images are measured with as many as the device takes at a time.

    Raises:
        InputError, MachineError: as ``device.measure``.
    """
    with tempfile.TemporaryDirectory(prefix="nas-export-") as folder:
        files = []
        for name, model in models.items():
            path = Path(folder) / FORMATS[name].file
            write_atomic(path, _for_batch(model, device.batch).SerializeToString())
            files.append(whole_network(ModelFile(name, path, sha256_file(path), sustained_s=sustained_s(at))))
        run = device.measure(files, spread_s=_SPREAD_S, seed=seed, work_dir=Path(folder) / "measuring")
    return {name: measured_ms(each, at) for name, each in zip(models, run.measurements, strict=True)}, run.fingerprint


def _for_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    dimension = model.graph.input[0].type.tensor_type.shape.dim[0]
    if not dimension.dim_param:
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    result.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    return result
