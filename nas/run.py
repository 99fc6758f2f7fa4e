"""A run: the directory that holds one piece of work, resumable at every step."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from nas import defaults
from nas.data import ImageData, describe_data, load_data, resolved
from nas.devices import Device, Fingerprint, KitDevice, Precision, parse_device
from nas.export.record import read_export
from nas.files import exclusive_lock, make_folder, read_document, write_atomic
from nas.front import Front, Fronts
from nas.ledger import Genes, accuracy_evaluator
from nas.ledger_place import move_ledger, run_ledger
from nas.onnx_format import exporter_name
from nas.progress import Progress, no_progress
from nas.training_record import TrainingRecord, find_record
from predictors.latency import LatencyTable
from search_spaces.catalogue import find_space
from search_spaces.documents import canonical_json, decode, document, pretty_json
from search_spaces.errors import InputError, MachineError, unknown_name
from search_spaces.language import NetworkSpace
from search_spaces.space_file import parse_space, read_space_file

if TYPE_CHECKING:
    from nas.block_cache import BlockCache
    from nas.evaluate import SubnetEvaluator

# The splits belong to the run, not to a command: had every command's --seed its own, a search could be validated on
# images that the supernet was trained on.
SPLIT_SEED = 0


@document
@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """What a run's first command fixes: the space, and the data that gives it its channels and classes.

    A space that came from a file is kept as text, so that the run does not depend on the file.
    """

    CURRENT_VERSION: ClassVar[int] = 1

    format_version: int
    space: str
    space_hash: str
    data: str
    channels: int
    class_names: tuple[str, ...]
    space_text: str = ""


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
        self.ledger = run_ledger(path)
        self.space = _build_space(settings)
        if self.space.hash != settings.space_hash:
            raise InputError(
                f"{path} was made with another definition of space {settings.space!r} "
                f"({settings.space_hash}, this release has {self.space.hash}); use another --run"
            )

    @classmethod
    def open(cls, path: Path, *, space: str | None = None, data: str | None = None) -> Run:
        """Open a run, or start one where there is none yet; it is on disk from `fix` on.

        Args:
            path: the run directory.
            space: name of the space; None takes the run's, or the default for a new one.
            data: the data set, as `nas.data.load_data` reads it; None likewise.

        Raises:
            InputError: the run exists and was made with another space or other data.
            MachineError: the directory cannot be written.
        """
        if not cls._exists(path):
            return cls(path, _new_settings(space or defaults.SPACE, data or defaults.DATA))
        settings = read_document(path / "space.json", RunSettings)
        run = cls(path, settings)
        channels, classes = settings.channels, len(settings.class_names)
        same_space = space is None or find_space(space, channels=channels, classes=classes).hash == run.space.hash
        same_data = data is None or resolved(data) == settings.data
        if not same_space and space == settings.space:
            raise InputError(f"{space} has changed since {path} was made with it; use another --run for what it is now")
        for name, same, given, fixed in (
            ("--space", same_space, space, settings.space),
            ("--data", same_data, data, settings.data),
        ):
            if not same:
                raise InputError(f"{path} was made with {name} {fixed}, not {given}; use another --run for it")
        return run

    @classmethod
    def existing(cls, path: Path, *, first: str) -> Run:
        """Open a run that must exist; `first` is the command to name if it does not."""
        if not cls._exists(path):
            raise InputError(f"there is no run in {path}; run `{first}{run_option(path)}` first")
        return cls.open(path)

    @classmethod
    def holding(cls, path: Path, folder: Path, space_hash: str) -> Run | None:
        """Return the run in a directory if a folder is in it, and the run is of a space; else None."""
        if not folder.resolve().is_relative_to(path.resolve()) or not cls._exists(path):
            return None
        run = cls.open(path)
        return run if run.space.hash == space_hash else None

    @staticmethod
    def _exists(path: Path) -> bool:
        try:
            return (path / "space.json").exists()
        except OSError as error:
            raise MachineError(f"cannot look into {path}: {error.strerror}") from None

    def lock(self) -> AbstractContextManager[None]:
        """Hold the run for this process alone; raises `InputError` naming the process that has it."""
        make_folder(self.path)
        return exclusive_lock(self.path / ".lock")

    def fix(self) -> None:
        """Write what the first command decides, once its input has proved good; call it under the lock.

        Raises:
            InputError: another command has fixed something else meanwhile.
        """
        file = self.path / "space.json"
        if not self._exists(self.path):
            write_atomic(file, pretty_json(self.settings))
        elif read_document(file, RunSettings) != self.settings:
            raise InputError(f"another command has just made {self.path} with other settings; use another --run")

    def load_data(self, progress: Progress = no_progress) -> ImageData:
        """Read the run's images, split as in every other command of the run."""
        resolution = self.space.layout.input.resolution
        images = load_data(self.settings.data, resolution=resolution, seed=SPLIT_SEED, progress=progress)
        if (images.channels, images.class_names) != (self.settings.channels, self.settings.class_names):
            raise InputError(f"{self.settings.data} has changed its channels or classes since {self.path} was made")
        return images

    def move_ledger(self, url: str) -> None:
        """Keep true evaluations in the database of a URL from now on; call it under the lock, as `move_ledger`."""
        self.ledger = move_ledger(self.path, url)

    def require_supernet(self) -> TrainingRecord:
        """Return how the supernet was trained; raises `InputError` naming the command to run if it is not yet."""
        record = find_record(self.supernet_dir)
        if record is None:
            raise InputError(f"{self.path} has no trained supernet; run `nas train{run_option(self.path)}` first")
        return record

    def known_accuracies(self, precision: Precision = "fp32") -> dict[Genes, float]:
        """Return the search-validation accuracy of every network that was evaluated with these weights, by genome."""
        name = accuracy_evaluator(self.require_supernet().supernet_hash, "validation", precision)
        return self.ledger.values(name, self.space.hash)

    def evaluator(
        self, data: ImageData | None = None, *, workers: int | None = None, precision: Precision = "fp32"
    ) -> SubnetEvaluator:
        """Return what evaluates the run's subnets; loads torch, the supernet, and the images if they are not given."""
        from nas.evaluate import SubnetEvaluator
        from nas.training import load_supernet

        supernet, record = load_supernet(self.space, self.supernet_dir)
        data = data or self.load_data()
        require_same_images(data, record)
        return SubnetEvaluator(
            self.space, supernet, record.supernet_hash, data, self.ledger, workers=workers, precision=precision
        )

    @property
    def supernet_dir(self) -> Path:
        """Weights and training record."""
        return self.path / "supernet"

    def block_cache(self, batch: int = 1, precision: Precision = "fp32") -> BlockCache:
        """Return the exported blocks for batches of a size, shared by all devices."""
        from nas.block_cache import BlockCache

        return BlockCache(self.path / "blocks", batch, precision)

    def lut_path(self, device: Device) -> Path:
        """Return where a device's latency table is or will be."""
        return self.path / "luts" / f"{device.slug}.json"

    def kit_path(self, device: Device, manifest_hash: str) -> Path:
        """Return where it is kept what one measurement kit for a device holds."""
        return self.path / "luts" / f"{device.slug}-{manifest_hash[:8]}.kit.json"

    def kits(self) -> list[Path]:
        """Return what is kept of all kits that were made."""
        return sorted((self.path / "luts").glob("*.kit.json"))

    def latency_table(self, device: Device) -> LatencyTable:
        """Read a device's table; raises `InputError` naming the command that makes it, also if it is of another."""
        path, command = self.lut_path(device), self._build_lut(device)
        try:
            table = read_document(path, LatencyTable, next_step=f"run `{command}` first")
        except InputError as error:
            raise (InputError(f"{error}; run `{command}` again") if path.exists() else error) from None
        if table.device != device.name:
            raise InputError(f"{path} is the table of device {table.device}, not of {device.name}; run `{command}`")
        if table.space_hash != self.space.hash:
            raise InputError(
                f"{path} was measured for another space ({table.space_hash}, this run's is {self.space.hash}); run "
                f"`{command}`"
            )
        return table

    def _build_lut(self, device: Device) -> str:
        return f"nas build-lut --device {device.name}{run_option(self.path)}"

    def require_this_exporter(self, table: LatencyTable) -> None:
        """Raise `InputError` if a table's blocks were made by another exporter than the one here."""
        if table.exporter != exporter_name():
            raise InputError(
                f"the table of device {table.device} is of blocks made by another exporter ({table.exporter}, here "
                f"{exporter_name()}); run `{self._build_lut(parse_device(table.device))}` again"
            )

    def require_this_machine(self, device: Device, table: LatencyTable, *, allow_mismatch: bool = False) -> str:
        """Return a warning, empty if there is none, of a table that was measured on another machine or other software.

        Raises:
            InputError: it was, and that is not allowed, naming what differs; or its blocks come from another exporter.
        """
        self.require_this_exporter(table)
        measured_on = decode(Fingerprint, canonical_json(table.fingerprint), source=str(self.lut_path(device)))
        differing = device.fingerprint().differences(measured_on)
        if not differing:
            return ""
        told = f"the table of device {device.name} was measured under other conditions ({', '.join(differing)} differ)"
        if not allow_mismatch:
            raise InputError(f"{told}; run `{self._build_lut(device)}` again here, or take it with --allow-mismatch")
        return f"{told}; what it predicts was true there"

    @property
    def front_path(self) -> Path:
        """The last front of each device."""
        return self.path / "front.json"

    @property
    def pending_path(self) -> Path:
        """What searches have begun and not ended."""
        return self.path / "search.json"

    def fronts(self) -> Fronts:
        """Read the last front of each device; raises `InputError` naming the command that makes one."""
        command = f"nas search --budget-ms 50%{run_option(self.path)}"
        kept = read_document(self.front_path, Fronts, next_step=f"run `{command}` first")
        for front in kept.fronts.values():
            for candidate in front.candidates:
                genome = self.space.check([candidate.genes])[0]
                if front.space_hash != self.space.hash or candidate.id != self.space.architecture(genome).id:
                    raise InputError(
                        f"{self.front_path}: network {candidate.id} is not of this space; run `{command}` again"
                    )
        return kept

    def front(self, device: str | None = None) -> Front:
        """Return the last front of a device, or that of the last search; raises as `fronts` and `Fronts.pick`."""
        return self.fronts().pick(device)

    def keep_fronts(self, found: Sequence[Front], before: Fronts | None) -> None:
        """Write the fronts of a search, and those that were there of other devices."""
        fronts = (before.fronts if before else {}) | {front.name: front for front in found}
        kept = Fronts(format_version=Fronts.CURRENT_VERSION, last=tuple(front.name for front in found), fronts=fronts)
        write_atomic(self.front_path, pretty_json(kept))

    def exports(self) -> list[Path]:
        """Return the folders of all exports."""
        folders = sorted(path.parent for path in self.path.glob("exports/*/export.json"))
        return [each for each in folders if not each.name.startswith(".")]  # what a writer that was killed has left

    def exported_models(self) -> list[Path]:
        """Return the ONNX files of all exports; raises `InputError` naming the command that makes one."""
        models = [path for folder in self.exports() for path in sorted(folder.glob("*.onnx"))]
        if not models:
            command = f"nas export{run_option(self.path)}"
            raise InputError(f"{self.path} has no exported network; run `{command}` first, or name ONNX files")
        return models

    def exported_model(self, name: str) -> Path:
        """Return the ONNX file of one export, that of its device; raises `InputError` naming those there are."""
        models = {path.parent.name: path.parent for path in self.exported_models()}
        if name not in models:
            raise unknown_name("exported network", name, models)
        return models[name] / read_export(models[name]).main.file

    def export_dir(self, architecture_id: str, device: Device, *, finetuned: bool = False) -> Path:
        """Return the folder of one exported network, in the precision and the batches of a device.

        Raises:
            InputError: a link leads out of the run.
        """
        return self._own("exports", export_name(architecture_id, device, finetuned=finetuned))

    def analysis_path(self, export: str, device: Device) -> Path:
        """Return where it is kept what the layers of one export take; raises `InputError` as `export_dir`."""
        return self._own("analyses", f"{export}-{device.slug}.json")

    def tuned_dir(self, architecture_id: str) -> Path:
        """Return the folder of a network that is trained further; raises `InputError` as `export_dir`."""
        return self._own("finetuned", architecture_id)

    def _own(self, *parts: str) -> Path:
        """Return a path in the run; raises `InputError` if a link leads out of it."""
        path = self.path.joinpath(*parts)
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise InputError(f"{path} leads out of the run, to {path.resolve()}; remove the link")
        return path


def export_name(architecture_id: str, device: Device, *, finetuned: bool = False) -> str:
    """Return what the folder of one exported network is called, in the precision and the batches of a device."""
    parts: list[str] = [device.precision] if device.precision != "fp32" else []
    parts += [f"batch{device.batch}"] if device.batch != 1 else []
    return "-".join([architecture_id, *parts, *(["finetuned"] if finetuned else [])])


def is_here(device: Device) -> bool:
    """Return whether a device is this machine, which can measure on it."""
    return not isinstance(device, KitDevice)


def require_here(device: Device) -> None:
    """Raise `InputError` for a device of another machine where something has to be measured."""
    if not is_here(device):
        raise InputError(f"this is measured on devices of this machine, not on {device.name}")


def require_usable(device: Device) -> None:
    """Raise `InputError` for a device of this machine that cannot measure, before anything is done for it."""
    if is_here(device) and device.obstacle:
        raise InputError(f"device {device.name} cannot be measured on here: {device.obstacle}")


def require_plain(device: Device) -> None:
    """Raise `InputError` for a device whose networks hand-made ones are not made for: in floats, one image, here."""
    require_here(device)
    if (device.precision, device.batch) != ("fp32", 1):
        raise InputError(f"hand-made networks are for devices of precision=fp32 and batch=1, not for {device.name}")


def require_same_images(data: ImageData, record: TrainingRecord) -> None:
    """Raise `InputError` if the supernet was trained on other images."""
    if data.content_hash != record.data_hash:
        raise InputError(f"the images of {data.name} have changed since the supernet was trained; use another --run")


def run_option(path: Path) -> str:
    """Return what to add to a command that is shown to the user, so that it means this run."""
    return "" if path == defaults.RUN else f" --run {path}"


def device_option(name: str) -> str:
    """Return what to add to a command that is shown to the user, so that it means this device."""
    return "" if name == defaults.DEVICE else f" --device {name}"


def _new_settings(space: str, data: str) -> RunSettings:
    data = resolved(data)
    description = describe_data(data)
    built = find_space(space, channels=description.channels, classes=len(description.class_names))
    return RunSettings(
        format_version=RunSettings.CURRENT_VERSION,
        space=space,
        space_hash=built.hash,
        data=data,
        channels=description.channels,
        class_names=description.class_names,
        space_text=read_space_file(Path(space)) if space.endswith(".toml") else "",
    )


def _build_space(settings: RunSettings) -> NetworkSpace:
    """Return a run's space, from the run alone."""
    channels, classes = settings.channels, len(settings.class_names)
    if settings.space_text:
        return parse_space(settings.space_text, source=settings.space, channels=channels, classes=classes)
    return find_space(settings.space, channels=channels, classes=classes)
