"""The contract of block families. A family in `FAMILIES` joins by itself, at every size at which `tiny` uses it.

A family that `tiny` does not use, or sizes that it does not use, are added to `MORE_SIZES`.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import search_spaces
from search_spaces.blocks import (
    FAMILIES,
    AttentionSpec,
    ConvNeXtSpec,
    FusedMBConvSpec,
    HeadSpec,
    MBConvSpec,
    PatchifySpec,
    SingleHeadSpec,
    StemSpec,
    build_module,
)
from search_spaces.blocks.layers import Block, copy_slices
from search_spaces.spec import BlockSpec, block_fields, block_key, largest_spec
from search_spaces.tiny import tiny
from tests.source_tree import source_files
from tests.test_imports import newly_imported


def _mbconv(kind: type[MBConvSpec] | type[FusedMBConvSpec], **more: Any) -> tuple[BlockSpec, ...]:
    sizes = ((8, 3, 2), (8, 5, 3), (16, 5, 2), (24, 5, 4))
    return tuple(
        kind(in_channels=width, out_channels=24, resolution=9, kernel=kernel, expansion=expansion, **more)
        for width, kernel, expansion in sizes
    )


# Sizes that stand in one slot, as in a space: the largest contains the others.
MORE_SIZES: tuple[tuple[BlockSpec, ...], ...] = (
    tuple(
        MBConvSpec(in_channels=width, out_channels=24, resolution=9, stride=2, kernel=kernel, expansion=expansion)
        for width, kernel, expansion in ((8, 3, 1), (8, 7, 3), (16, 5, 1), (24, 7, 6))
    ),
    _mbconv(MBConvSpec, squeeze="hidden", activation="hard-swish"),
    _mbconv(MBConvSpec, squeeze="input", activation="silu", stride=2),
    _mbconv(FusedMBConvSpec, activation="relu6"),
    _mbconv(FusedMBConvSpec, squeeze="hidden", stride=2),
    tuple(StemSpec(in_channels=1, out_channels=c, resolution=9, kernel=5, stride=2) for c in (8, 12)),
    tuple(PatchifySpec(in_channels=3, out_channels=c, resolution=8, patch=4) for c in (8, 12)),
    tuple(
        ConvNeXtSpec(channels=c, resolution=8, kernel=k, expansion=e, norm="batch")
        for c, k, e in ((8, 3, 3), (16, 7, 4))
    ),
    tuple(
        AttentionSpec(channels=c, resolution=5, head_channels=8, heads=heads, expansion=2)
        for c, heads in ((16, 1), (24, 3), (32, 2), (32, 3))
    ),
    tuple(
        SingleHeadSpec(channels=c, resolution=6, attended=attended, expansion=e)
        for c, attended, e in ((16, 0, 1), (16, 8, 2), (24, 8, 1), (32, 16, 2))
    ),
    tuple(
        HeadSpec(in_channels=c, resolution=4, expanded=24, features=12, classes=5, activation="hard-swish")
        for c in (8, 16)
    ),
    tuple(HeadSpec(in_channels=c, resolution=4, features=0, classes=5) for c in (8, 16)),
)
GRADIENT_RESOLUTION = 8
"""At which every tap of the largest kernel meets a pixel: on smaller images outer taps see padding alone."""


def slots() -> list[tuple[BlockSpec, ...]]:
    """Return the blocks of one family that may stand in one place, for every kind of place."""
    families = tiny(3, 10).slot_families().values()
    places = [tuple(blocks) for slot in families for blocks in slot.values()]
    return list(dict.fromkeys([*places, *MORE_SIZES]))


SLOTS = slots()
CASES = [(spec, largest_spec(slot)) for slot in SLOTS for spec in slot]
each_case = pytest.mark.parametrize(
    ("spec", "largest"), CASES, ids=["-".join(str(value) for value in block_fields(spec).values()) for spec, _ in CASES]
)


def random_block(spec: BlockSpec) -> nn.Module:
    """Build a block in which no two channels are alike, norms and running statistics included."""
    block = build_module(spec).eval()
    generator = torch.Generator().manual_seed(0)
    for tensor in block.state_dict().values():
        if tensor.dim() == 1:
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.dim() > 1:
            tensor.normal_(std=tensor[0].numel() ** -0.5, generator=generator)
    return block


def extracted(elastic: nn.Module, spec: BlockSpec) -> nn.Module:
    block = build_module(spec).eval()
    copy_slices(elastic, block)
    return block


def images(spec: BlockSpec) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, spec.in_channels, spec.resolution, spec.resolution, generator=generator)


def origins(elastic: nn.Module, spec: BlockSpec) -> dict[str, Tensor]:
    """Return per parameter of the block extracted at a spec the places in the elastic block that it was copied from."""
    places = copy.deepcopy(elastic)
    with torch.no_grad():
        for parameter in places.parameters():
            parameter.copy_(torch.arange(parameter.numel()).reshape(parameter.shape))
    return {name: parameter.detach().long() for name, parameter in extracted(places, spec).named_parameters()}


class Cuts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the operations that take a part of a module's parameters or buffers."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []
        self._whole = {t.untyped_storage().data_ptr(): t.numel() for t in module.state_dict().values()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            whole = self._whole.get(result.untyped_storage().data_ptr())
            if whole is not None and result.numel() < whole:
                self.names.append(str(func))
        return result


def test_every_folder_is_a_registered_family() -> None:
    folders = {path.parent.name for path in (Path(search_spaces.__path__[0]) / "blocks").glob("*/*.py")}
    assert folders == set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_describes_itself(family: str) -> None:
    kind = FAMILIES[family]
    assert kind.family == family
    assert kind.__module__ == f"search_spaces.blocks.{family}.spec"
    specs = {spec for spec, _ in CASES if spec.family == family}
    assert specs, f"tiny does not use {family}: add sizes of it to MORE_SIZES"
    for spec in specs:
        fields = json.loads(block_key(spec))
        assert fields.pop("family") == family
        assert kind(**fields) == spec
        with pytest.raises(dataclasses.FrozenInstanceError):
            spec.resolution = 1  # type: ignore[misc]
    assert len({block_key(spec) for spec in specs}) == len(specs)


def test_specs_and_spaces_load_no_torch() -> None:
    torch_files = {"module.py", "layers.py"}
    files = [file.path for file in source_files("search_spaces") if file.path.split("/")[-1] not in torch_files]
    names = [path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in files]
    assert {f"search_spaces.blocks.{family}.spec" for family in FAMILIES} <= set(names)
    assert newly_imported(*names) & {"torch", "onnxruntime"} == set()


@each_case
def test_macs_and_parameters_are_those_of_the_module(spec: BlockSpec, largest: BlockSpec) -> None:
    block = build_module(spec).eval()
    # The counter knows attention's matrix products, not the CPU's fused kernel.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        block(images(spec)[:1])
    assert spec.macs() == counter.get_total_flops() / 2
    assert spec.params() == sum(parameter.numel() for parameter in block.parameters())


@each_case
def test_the_output_has_the_shape_that_the_spec_says(spec: BlockSpec, largest: BlockSpec) -> None:
    with torch.no_grad():
        out = build_module(spec).eval()(images(spec))
    assert out.shape[:2] == (2, spec.out_channels)
    assert out.shape[2:] in {(spec.out_resolution,) * 2, (1,) * 0 if spec.out_resolution == 1 else None}


@each_case
def test_elastic_equals_extracted(spec: BlockSpec, largest: BlockSpec) -> None:
    elastic = random_block(largest)
    standalone, x = extracted(elastic, spec), images(spec)
    with torch.no_grad():
        out = elastic(x, spec)
        torch.testing.assert_close(out, standalone(x), rtol=0, atol=1e-5)
        # A block of constants would pass.
        assert (out.std(dim=0) > 0).float().mean() > 0.5
        assert out.abs().max() < 100


@each_case
def test_training_an_elastic_block_is_training_its_slices(spec: BlockSpec, largest: BlockSpec) -> None:
    spec, largest = (dataclasses.replace(s, resolution=GRADIENT_RESOLUTION) for s in (spec, largest))
    elastic = random_block(largest).train()
    before = copy.deepcopy(elastic.state_dict())
    standalone, x = extracted(elastic, spec).train(), images(spec)
    for block, arguments in ((elastic, (x, spec)), (standalone, (x,))):
        out = block(*arguments)
        (out * torch.arange(out.numel(), dtype=out.dtype).reshape(out.shape).cos()).sum().backward()
    places, whole = origins(elastic, spec), dict(elastic.named_parameters())
    for name, parameter in standalone.named_parameters():
        grad, used = whole[name].grad, places[name].ravel()
        assert grad is not None
        assert parameter.grad is not None
        rounding = 1e-5 * float(parameter.grad.abs().max() + 1)
        torch.testing.assert_close(grad.ravel()[used], parameter.grad.ravel(), rtol=0, atol=rounding)
        # A ReLU behind pooled channels may be off for both images.
        assert (parameter.grad != 0).float().mean() > 0.6, f"{name} is hardly used"
        assert len(set(used.tolist())) == len(used)
        unused = torch.ones(grad.numel(), dtype=torch.bool)
        unused[used] = False
        assert not grad.ravel()[unused].any(), f"{name} is touched outside its slice"
    for name in whole.keys() - places.keys():
        assert whole[name].grad is None, f"{name} is not part of the extracted block"
    for name, buffer in standalone.named_buffers():
        if buffer.dim():
            learned = elastic.state_dict()[name]
            torch.testing.assert_close(learned[: len(buffer)], buffer)
            assert torch.equal(learned[len(buffer) :], before[name][len(buffer) :])


@each_case
def test_a_standalone_block_uses_its_own_tensors_whole(spec: BlockSpec, largest: BlockSpec) -> None:
    block, x = build_module(spec).eval(), images(spec)
    for arguments in ((x,), (x, spec)):
        with torch.no_grad(), Cuts(block) as cuts:
            block(*arguments)
        assert cuts.names == []


INNER = dict.fromkeys(("mbconv", "fused_mbconv", "convnext", "single_head"), "project") | {"attention": "out"}
"""The layer that reads a family's inner channels, which are sorted."""


@pytest.mark.parametrize("largest", [largest_spec(slot) for slot in SLOTS], ids=block_key)
def test_sorting_channels_keeps_the_function_and_puts_first_what_matters_most(largest: BlockSpec) -> None:
    block, x = random_block(largest), images(largest)
    with torch.no_grad():
        before = block(x)
        weights = {name: tensor.clone() for name, tensor in block.state_dict().items()}
        assert isinstance(block, Block)
        block.sort_channels()
        torch.testing.assert_close(block(x), before, rtol=0, atol=1e-5)
    moved = [name for name, tensor in block.state_dict().items() if not torch.equal(tensor, weights[name])]
    has_inner = largest.family in INNER
    assert bool(moved) == has_inner
    if has_inner:
        reader: Any = block.get_submodule(INNER[largest.family])
        importance = reader.importance()
        if isinstance(largest, AttentionSpec):
            importance = importance.view(-1, largest.head_channels).sum(1)
        assert (importance.diff() <= 0).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_exported_graph_of_a_standalone_block_has_no_slices(family: str) -> None:
    spec = next(spec for spec, _ in CASES if spec.family == family)
    program = torch.export.export(build_module(spec).eval(), (images(spec),))
    operations = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert operations
    assert [name for name in operations if any(word in name for word in ("slice", "narrow", "index"))] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_slices_are_noticed(family: str) -> None:
    taken: dict[bool, list[str]] = defaultdict(list)
    for spec, largest in CASES:
        if spec.family == family:
            block = build_module(largest).eval()
            with torch.no_grad(), Cuts(block) as cuts:
                block(images(spec), spec)
            smaller = spec.params() < largest.params()
            taken[smaller] += cuts.names
    assert taken[True]
    assert not taken[False]
