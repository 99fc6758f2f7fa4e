"""A run: the directory that holds one piece of work, resumable at every step."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from nas import defaults
from nas.block_cache import BlockCache
from nas.data import ImageData, describe_data, load_data
from nas.devices import Device, Fingerprint
from nas.files import exclusive_lock, make_folder, read_document, write_atomic
from nas.front import Front
from nas.ledger import Ledger
from nas.progress import Progress, no_progress
from nas.training_record import find_record
from predictors.latency import LatencyTable
from search_spaces.catalogue import find_space
from search_spaces.documents import canonical_json, decode, document, pretty_json
from search_spaces.errors import InputError
from search_spaces.language import NetworkSpace

if TYPE_CHECKING:
    from nas.evaluate import SubnetEvaluator

# The splits belong to the run, not to a command: had every command's --seed its own, a search could be validated on
# images that the supernet was trained on.
SPLIT_SEED = 0


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """What a run's first command fixes: the space, and the data that gives it its channels and classes."""

    CURRENT_VERSION: ClassVar[int] = 1

    format_version: int
    space: str
    space_hash: str
    data: str
    channels: int
    class_names: tuple[str, ...]


class Run:
    """An existing run directory; what it holds is read when it is asked for.

    Attributes:
        path: the directory.
        settings: what the first command fixed.
        ledger: all true evaluations.
        space: what the run searches.
    """

    def __init__(self, path: Path, settings: RunSettings) -> None:
        self.path = path
        self.settings = settings
        self.ledger = Ledger(path / "ledger.db")
        self.space: NetworkSpace = find_space(settings.space).build(settings.channels, len(settings.class_names))
        if self.space.hash != settings.space_hash:
            raise InputError(
                f"{path} was made with another definition of space {settings.space!r} "
                f"({settings.space_hash}, this release has {self.space.hash}); use another --run"
            )

    @classmethod
    def open(cls, path: Path, *, space: str | None = None, data: str | None = None) -> Run:
        """Open a run, or make it where there is none yet.

        Args:
            path: the run directory.
            space: name of the space; None takes the run's, or the default for a new one.
            data: the data set, as `nas.data.load_data` reads it; None likewise.

        Raises:
            InputError: the run exists and was made with another space or other data.
            MachineError: the directory cannot be written.
        """
        file = path / "space.json"
        if not file.exists():
            make_folder(path)
            write_atomic(file, pretty_json(_new_settings(space or defaults.SPACE, data or defaults.DATA)))
        settings = read_document(file, RunSettings)
        for name, given, fixed in (("--space", space, settings.space), ("--data", data, settings.data)):
            if given is not None and _resolved(name, given) != fixed:
                raise InputError(f"{path} was made with {name} {fixed}, not {given}; use another --run for it")
        return cls(path, settings)

    @classmethod
    def existing(cls, path: Path, *, first: str) -> Run:
        """Open a run that must exist; `first` is the command to name if it does not."""
        if not (path / "space.json").exists():
            raise InputError(f"there is no run in {path}; run `{first}` first")
        return cls.open(path)

    def lock(self) -> AbstractContextManager[None]:
        """Hold the run for this process alone; raises `InputError` naming the process that has it."""
        return exclusive_lock(self.path / ".lock")

    def load_data(self, progress: Progress = no_progress) -> ImageData:
        """Read the run's images, split as in every other command of the run."""
        resolution = find_space(self.settings.space).resolution
        images = load_data(self.settings.data, resolution=resolution, seed=SPLIT_SEED, progress=progress)
        if (images.channels, images.class_names) != (self.settings.channels, self.settings.class_names):
            raise InputError(f"{self.settings.data} has changed its channels or classes since {self.path} was made")
        return images

    def require_supernet(self) -> None:
        """Raise `InputError` naming the command to run if nothing is trained yet."""
        if find_record(self.supernet_dir) is None:
            raise InputError(f"{self.path} has no trained supernet; run `nas train` first")

    def evaluator(self, data: ImageData | None = None) -> SubnetEvaluator:
        """Return what evaluates the run's subnets; loads torch, the supernet, and the images if they are not given."""
        from nas.evaluate import SubnetEvaluator
        from nas.training import load_supernet

        supernet, record = load_supernet(self.space, self.supernet_dir)
        data = data or self.load_data()
        if data.content_hash != record.data_hash:
            raise InputError(
                f"the images of {data.name} have changed since the supernet was trained; use another --run"
            )
        return SubnetEvaluator(self.space, supernet, record.supernet_hash, data, self.ledger)

    @property
    def supernet_dir(self) -> Path:
        """Weights and training record."""
        return self.path / "supernet"

    @property
    def block_cache(self) -> BlockCache:
        """Exported blocks, shared by all devices."""
        return BlockCache(self.space, self.path / "blocks")

    def lut_path(self, device: Device) -> Path:
        """Return where a device's latency table is or will be."""
        return self.path / "luts" / f"{device.slug}.json"

    def latency_table(self, device: Device) -> LatencyTable:
        """Read a device's table; raises `InputError` naming the command that makes it."""
        return read_document(
            self.lut_path(device), LatencyTable, next_step=f"run `nas build-lut --device {device.name}` first"
        )

    def require_this_machine(self, device: Device, table: LatencyTable) -> None:
        """Raise `InputError`, naming what differs, if a table was measured on another machine or other software."""
        measured_on = decode(Fingerprint, canonical_json(table.fingerprint), source=str(self.lut_path(device)))
        differing = device.fingerprint().differences(measured_on)
        if differing:
            raise InputError(
                f"the table of device {device.name} was measured under other conditions ({', '.join(differing)} "
                f"differ); run `nas build-lut --device {device.name}` again here"
            )

    @property
    def front_path(self) -> Path:
        """The last search's front."""
        return self.path / "front.json"

    def front(self) -> Front:
        """Read the last search's front; raises `InputError` naming the command that makes it."""
        return read_document(self.front_path, Front, next_step="run `nas search --budget-ms X` first")

    def exported_models(self) -> list[Path]:
        """Return the model files of all exports; raises `InputError` naming the command that makes one."""
        models = sorted(self.path.glob("exports/*/model.onnx"))
        if not models:
            raise InputError(f"{self.path} has no exported network; run `nas export` first, or name ONNX files")
        return models

    def export_dir(self, architecture_id: str) -> Path:
        """Return the folder of one exported network."""
        return self.path / "exports" / architecture_id


def _new_settings(space: str, data: str) -> RunSettings:
    entry = find_space(space)
    data = _resolved("--data", data)
    description = describe_data(data)
    built = entry.build(description.channels, len(description.class_names))
    return RunSettings(
        format_version=RunSettings.CURRENT_VERSION,
        space=space,
        space_hash=built.hash,
        data=data,
        channels=description.channels,
        class_names=description.class_names,
    )


def _resolved(name: str, value: str) -> str:
    """Return a data set's name with its path made absolute: a run must mean the same from every folder."""
    source, separator, path = value.partition(":")
    return f"{source}:{Path(path).expanduser().resolve()}" if name == "--data" and separator else value
