"""A device that is measured by a kit: files that go there, and results that come back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nas.devices.base import Fingerprint, MeasurementRun, Precision, slug_of, spell
from nas.devices.local import require_counts
from nas.measure import ModelFile
from nas.progress import Progress, no_progress
from nas.runtime import PROVIDERS
from search_spaces.errors import InputError, unknown_name


@dataclass(frozen=True)
class KitDevice:
    """Another machine, known by a name that its owner gives it.

    Attributes:
        target: that name: letters and digits.
        provider: execution provider there, a key of `nas.runtime.PROVIDERS`.
        threads: threads inside an operator.
        precision: arithmetic of the networks of its table.
        batch: images that those take at a time.

    Raises:
        InputError: an option is not allowed.
    """

    target: str = ""
    provider: str = "cpu"
    threads: int = 1
    precision: Precision = "fp32"
    batch: int = 1

    def __post_init__(self) -> None:
        require_counts(self.threads, self.batch)
        # No hyphens, so that the file of one device is never that of another with other options.
        if not re.fullmatch(r"[A-Za-z0-9]{0,64}", self.target):
            raise InputError(f"the name of a device is up to 64 letters and digits, got {self.target!r}")
        if self.provider not in PROVIDERS:
            raise unknown_name("provider", self.provider, PROVIDERS)

    @property
    def name(self) -> str:
        """See `nas.devices.Device`."""
        return spell("kit", self)

    @property
    def slug(self) -> str:
        """See `nas.devices.Device`."""
        return slug_of(self.name)

    @property
    def obstacle(self) -> str:
        """See `nas.devices.Device`."""
        return "another machine: `nas build-lut --device kit --name NAME --out kit.zip` makes what is measured there"

    def fingerprint(self) -> Fingerprint:
        """Raise `InputError`: that device is not here."""
        raise InputError(f"device {self.name} is {self.obstacle}")

    def measure(
        self,
        models: Sequence[ModelFile],
        *,
        rounds: int = 12,
        spread_s: float = 0.0,
        seed: int = 0,
        work_dir: Path,
        progress: Progress = no_progress,
    ) -> MeasurementRun:
        """Raise `InputError`: that device is not here."""
        del models, rounds, spread_s, seed, work_dir, progress
        raise InputError(f"device {self.name} is {self.obstacle}")
