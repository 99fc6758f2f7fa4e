"""Patchify stem: non-overlapping patches of the image become pixels, as in ViT and ConvNeXt (arXiv:2201.03545)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from search_spaces.counting import Layer, conv
from search_spaces.errors import InputError
from search_spaces.spec import Counted, check_sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchifySpec(Counted):
    """Convolution whose kernel and stride are the side of a patch, batch norm. Patches must tile the image."""

    family: ClassVar[str] = "patchify"
    role: ClassVar[str] = "stem"

    in_channels: int
    out_channels: int
    resolution: int
    patch: int

    def __post_init__(self) -> None:
        check_sizes(self)
        if self.resolution % self.patch:
            raise InputError(f"patchify: patches of {self.patch} pixels do not tile an image of {self.resolution}")

    @property
    def out_resolution(self) -> int:
        """Side of the output, pixels."""
        return self.resolution // self.patch

    def layers(self) -> tuple[Layer, ...]:
        """Return the convolution."""
        return (conv(self.in_channels, self.out_channels, self.resolution, self.patch, stride=self.patch),)
