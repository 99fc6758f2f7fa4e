"""Checkpoints of a training: two generations, tied to what is being trained; nothing in them is executed."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from nas.files import write_atomic
from search_spaces.errors import InputError


class Stateful(Protocol):
    """What a checkpoint keeps: a module, an optimiser, an average of weights."""

    def state_dict(self) -> dict[str, Any]:
        """Return what it is."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> object:
        """Become what it was."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The file to write and to go on from, and the one before it.

    Attributes:
        path: the newest; ``NAME.previous.pt`` beside it is the one before.
        identity: a text that is equal for trainings that may resume each other.
        parts: what is kept, by name.
    """

    path: Path
    identity: str
    parts: Mapping[str, Stateful]

    def save(self, step: int, seconds: float) -> None:
        """Write a checkpoint from which `step` is the next to run; raises `MachineError` if it cannot be stored."""
        content = {"identity": self.identity, "step": step, "seconds": seconds}
        buffer = io.BytesIO()
        torch.save(content | {name: part.state_dict() for name, part in self.parts.items()}, buffer)
        if self.path.exists():
            self.path.replace(_previous(self.path))
        write_atomic(self.path, buffer.getvalue())

    def load(self, notice: Callable[[str], None]) -> tuple[int, float]:
        """Restore the newest checkpoint that is whole; returns the next step to run and the seconds spent so far.

        Args:
            notice: told if that is not the newest one.

        Raises:
            InputError: there are checkpoints, but none is whole, or it belongs to another training.
        """
        present = [path for path in (self.path, _previous(self.path)) if path.exists()]
        damaged: list[InputError] = []
        for path in present:
            try:
                found = self._restore(path)
            except _DamagedError as error:
                damaged.append(error)
            else:
                if damaged:
                    notice(
                        f"{self.path} is damaged; training goes on from the checkpoint before it, at step {found[0]}"
                    )
                return found
        if damaged:
            raise damaged[0]
        return 0, 0.0

    def _restore(self, path: Path) -> tuple[int, float]:
        try:
            # torch writes check sums into its archive, but does not look at them.
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is not None:
                    raise ValueError("a check sum is wrong")
            content = torch.load(path, map_location="cpu", weights_only=True)
            identity, step, seconds = content["identity"], int(content["step"]), float(content["seconds"])
            if identity == self.identity:
                for name, part in self.parts.items():
                    part.load_state_dict(content[name])
        except Exception as error:  # noqa: BLE001 - torch documents no error type for damaged files
            raise _DamagedError(
                f"{path} is not a readable checkpoint ({type(error).__name__}); delete it to start over"
            ) from None
        if identity != self.identity:
            raise InputError(
                f"{path} belongs to a training with other settings{_differences(identity, self.identity)}; use the "
                "same ones, or delete it to start over"
            )
        return step, seconds


def _differences(there: str, here: str) -> str:
    """Return in words which settings differ between two identities, as far as they tell."""
    try:
        one, other = (json.loads(text)["settings"] for text in (there, here))
        keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
    told = [f"{key} {one.get(key, 'by default')} there, {other.get(key, 'by default')} here" for key in keys]
    return f" ({'; '.join(told)})" if told else ""


class _DamagedError(InputError):
    """A checkpoint is not whole; the one before may be."""


def remove_checkpoints(path: Path) -> None:
    """Delete both generations, once what was trained is written."""
    for each in (path, _previous(path)):
        each.unlink(missing_ok=True)


def _previous(path: Path) -> Path:
    return path.with_suffix(f".previous{path.suffix}")
