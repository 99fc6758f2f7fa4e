"""Where a model's time goes, as a value that a run keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from search_spaces.documents import document

_Positive = Annotated[float, Field(gt=0)]
_Count = Annotated[int, Field(ge=0)]


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """What a machine does at best on one thread.

    Attributes:
        gmacs_per_s: multiply-accumulates of 32-bit floats, billions per second.
        int8_gmacs_per_s: of 8-bit integers.
        copy_gb_per_s: bytes read and written, billions per second, by how many bytes a copy touches.
    """

    gmacs_per_s: _Positive
    int8_gmacs_per_s: _Positive
    copy_gb_per_s: Annotated[dict[int, _Positive], Field(min_length=1)]

    def bound_ms(self, macs: int, size_bytes: int, *, int8: bool) -> tuple[float, float]:
        """Return the least times that so many multiply-accumulates and so many bytes can take."""
        rate = self.int8_gmacs_per_s if int8 else self.gmacs_per_s
        # Smaller copies are faster, so the rate of one that is no larger than the bytes is not exceeded.
        sizes = [size for size in self.copy_gb_per_s if size <= size_bytes] or [min(self.copy_gb_per_s)]
        return macs / rate / 1e6, size_bytes / max(self.copy_gb_per_s[each] for each in sizes[-2:]) / 1e6


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTime:
    """One node of the model as ONNX Runtime runs it.

    Attributes:
        name: of the node, after the runtime's own optimisation.
        operator: what it computes.
        latency_ms: its share of the model's latency.
        macs: multiply-accumulates.
        size_bytes: weights, inputs and outputs.
        compute_ms: the least time that the multiply-accumulates take here.
        memory_ms: the least time that the bytes take here.
    """

    name: str
    operator: str
    latency_ms: float
    macs: _Count
    size_bytes: _Count
    compute_ms: float
    memory_ms: float

    @property
    def bound_ms(self) -> float:
        """The least time that the layer can take here."""
        return max(self.compute_ms, self.memory_ms)


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """Where a model's time goes.

    Attributes:
        file: the model.
        sha256: of it.
        device: what it was measured on.
        latency_ms: of the whole model, without the profiler.
        peaks: what the machine can do.
        layers: in the order in which they run.
    """

    CURRENT_VERSION: ClassVar[int] = 1

    format_version: int
    file: str
    sha256: str
    device: str
    latency_ms: _Positive
    peaks: Peaks
    layers: Annotated[tuple[LayerTime, ...], Field(min_length=1)]

    def __post_init__(self) -> None:
        if not self.bound_ms > 0.0:
            raise ValueError("no layer takes any time at all")

    @property
    def bound_ms(self) -> float:
        """The least time that the layers can take here, one after the other."""
        return sum(layer.bound_ms for layer in self.layers)

    @property
    def efficiency(self) -> float:
        """The share of the latency in which the multiply-accumulates could have been done at peak rate."""
        return sum(layer.compute_ms for layer in self.layers) / self.latency_ms

    @property
    def attainable_efficiency(self) -> float:
        """The same if every layer took no longer than its bound: what memory leaves of the peak."""
        return sum(layer.compute_ms for layer in self.layers) / self.bound_ms

    @property
    def memory_bound_share(self) -> float:
        """The share of the bound that is waiting for memory."""
        return sum(layer.bound_ms for layer in self.layers if layer.memory_ms > layer.compute_ms) / self.bound_ms
