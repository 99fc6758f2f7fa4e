"""Published Once-for-All weights: read from the layout of the public code, which is written out here once more."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nas.ofa_weights import read_weights
from search_spaces.catalogue import find_space
from search_spaces.errors import InputError
from search_spaces.language import NetworkSpace

Weights = dict[str, Tensor]
STAGES = (
    # Channels at width 1, stride, hard-swish, squeeze-and-excite.
    (24, 2, False, False),
    (40, 2, False, True),
    (80, 2, True, False),
    (112, 1, True, True),
    (160, 2, True, True),
)


def published(classes: int = 7) -> Weights:
    """Return random weights with the names and shapes of the public code at width 1, in its older generation."""
    generator = torch.Generator().manual_seed(0)
    weights: Weights = {}

    def conv(name: str, *shape: int) -> None:
        fan_in = torch.Size(shape[1:]).numel()
        weights[name] = torch.randn(*shape, generator=generator) * (2.0 / fan_in) ** 0.5

    def norm(name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            low = 0.5 if part in {"weight", "running_var"} else -0.2
            weights[f"{name}.{part}"] = torch.rand(channels, generator=generator) + low
        weights[f"{name}.num_batches_tracked"] = torch.tensor(100)

    conv("first_conv.conv.weight", 16, 3, 3, 3)
    norm("first_conv.bn", 16)
    first = "blocks.0.mobile_inverted_conv"
    conv(f"{first}.depth_conv.conv.weight", 16, 1, 3, 3)
    norm(f"{first}.depth_conv.bn", 16)
    conv(f"{first}.point_linear.conv.weight", 16, 16, 1, 1)
    norm(f"{first}.point_linear.bn", 16)
    number, channels = 1, 16
    for width, _, _, squeeze in STAGES:
        for _ in range(4):
            name, hidden = f"blocks.{number}.mobile_inverted_conv", 6 * channels
            conv(f"{name}.inverted_bottleneck.conv.conv.weight", hidden, channels, 1, 1)
            norm(f"{name}.inverted_bottleneck.bn.bn", hidden)
            conv(f"{name}.depth_conv.conv.conv.weight", hidden, 1, 7, 7)
            for matrix, side in (("7to5", 25), ("5to3", 9)):
                noise = torch.randn(side, side, generator=generator)
                weights[f"{name}.depth_conv.conv.{matrix}_matrix"] = torch.eye(side) + 0.05 * noise
            norm(f"{name}.depth_conv.bn.bn", hidden)
            if squeeze:
                inner = _divisible(hidden // 4)
                for layer, shape in (("reduce", (inner, hidden)), ("expand", (hidden, inner))):
                    conv(f"{name}.depth_conv.se.fc.{layer}.weight", *shape, 1, 1)
                    weights[f"{name}.depth_conv.se.fc.{layer}.bias"] = torch.rand(shape[0], generator=generator)
            conv(f"{name}.point_linear.conv.conv.weight", width, hidden, 1, 1)
            norm(f"{name}.point_linear.bn.bn", width)
            number, channels = number + 1, width
    conv("final_expand_layer.conv.weight", 960, 160, 1, 1)
    norm("final_expand_layer.bn", 960)
    conv("feature_mix_layer.conv.weight", 1280, 960, 1, 1)
    conv("classifier.linear.weight", classes, 1280)
    weights["classifier.linear.bias"] = torch.rand(classes, generator=generator)
    return weights


def _divisible(channels: int) -> int:
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def logits(w: Weights, x: Tensor, depths: list[int], kernels: list[int], expansions: list[int]) -> Tensor:
    """Compute a subnet from the published names, step by step; kernels and expansions of all 20 blocks."""

    def norm(name: str, x: Tensor) -> Tensor:
        n = x.shape[1]
        mean, var, scale, shift = (w[f"{name}.{p}"][:n] for p in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, scale, shift, eps=1e-5)

    x = F.hardswish(norm("first_conv.bn", F.conv2d(x, w["first_conv.conv.weight"], None, 2, 1)))
    name = "blocks.0.mobile_inverted_conv"
    inner = F.relu(
        norm(f"{name}.depth_conv.bn", F.conv2d(x, w[f"{name}.depth_conv.conv.weight"], None, 1, 1, groups=16))
    )
    x = x + norm(f"{name}.point_linear.bn", F.conv2d(inner, w[f"{name}.point_linear.conv.weight"]))
    for stage, (_, stride, swish, squeeze) in enumerate(STAGES):
        activation: Any = F.hardswish if swish else F.relu
        for block in range(depths[stage]):
            number = 4 * stage + block
            name, channels = f"blocks.{number + 1}.mobile_inverted_conv", x.shape[1]
            hidden = channels * expansions[number]
            inner = F.conv2d(x, w[f"{name}.inverted_bottleneck.conv.conv.weight"][:hidden])
            inner = activation(norm(f"{name}.inverted_bottleneck.bn.bn", inner))
            kernel = w[f"{name}.depth_conv.conv.conv.weight"][:hidden]
            if kernels[number] < 7:
                middle = kernel[:, :, 1:6, 1:6].reshape(hidden, 25)
                kernel = F.linear(middle, w[f"{name}.depth_conv.conv.7to5_matrix"]).view(hidden, 1, 5, 5)
            if kernels[number] < 5:
                middle = kernel[:, :, 1:4, 1:4].reshape(hidden, 9)
                kernel = F.linear(middle, w[f"{name}.depth_conv.conv.5to3_matrix"]).view(hidden, 1, 3, 3)
            own = stride if block == 0 else 1
            inner = F.conv2d(inner, kernel, None, own, kernels[number] // 2, groups=hidden)
            inner = activation(norm(f"{name}.depth_conv.bn.bn", inner))
            if squeeze:
                fc, small = f"{name}.depth_conv.se.fc", _divisible(hidden // 4)
                gate = inner.mean((2, 3), keepdim=True)
                gate = F.relu(F.conv2d(gate, w[f"{fc}.reduce.weight"][:small, :hidden], w[f"{fc}.reduce.bias"][:small]))
                gate = F.conv2d(gate, w[f"{fc}.expand.weight"][:hidden, :small], w[f"{fc}.expand.bias"][:hidden])
                inner = inner * F.hardsigmoid(gate)
            out = F.conv2d(inner, w[f"{name}.point_linear.conv.conv.weight"][:, :hidden])
            out = norm(f"{name}.point_linear.bn.bn", out)
            x = x + out if own == 1 and channels == out.shape[1] else out
    x = F.hardswish(norm("final_expand_layer.bn", F.conv2d(x, w["final_expand_layer.conv.weight"])))
    x = F.hardswish(F.conv2d(x.mean((2, 3), keepdim=True), w["feature_mix_layer.conv.weight"])).flatten(1)
    return F.linear(x, w["classifier.linear.weight"], w["classifier.linear.bias"])


@pytest.fixture(scope="module")
def space() -> NetworkSpace:
    return find_space("ofa-mbv3:width=1.0,resolution=64", channels=3, classes=7)


def saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def renamed(weights: Weights) -> Weights:
    """Return the weights under the names of the newer public code, as a parallel training saves them."""
    return {f"module.{name}".replace(".mobile_inverted_conv.", ".conv."): value for name, value in weights.items()}


@pytest.mark.parametrize("generation", ["older", "newer"])
def test_subnets_compute_what_the_published_network_computes(
    space: NetworkSpace, generation: str, tmp_path: Path
) -> None:
    weights = published()
    content = {"state_dict": weights} if generation == "older" else renamed(weights)
    supernet = read_weights(space, saved(content, tmp_path / "ofa.pth")).eval()
    rng = np.random.default_rng(0)
    drawn = space.sample(4, rng)
    genomes = np.concatenate([drawn, *(space.resize(drawn[:1], largest=largest) for largest in (True, False))])
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    outputs = []
    for genome in genomes:
        chosen = space.decode(genome)
        depths = [int(chosen[f"stage{n}.depth"]) for n in range(2, 7)]
        places = [f"stage{n}.block{block}.mbconv" for n in range(2, 7) for block in range(1, 5)]
        kernels = [int(chosen.get(f"{place}.kernel", 7)) for place in places]
        expansions = [int(chosen.get(f"{place}.expansion", 6)) for place in places]
        with torch.no_grad():
            outputs.append(supernet(x, space.lower(genome)))
            expected = logits(weights, x, depths, kernels, expansions)
        torch.testing.assert_close(outputs[-1], expected, rtol=1e-4, atol=1e-4)
    assert torch.stack(outputs).std(0).min() > 1e-2, "the subnets are all alike"


def test_what_does_not_fit_is_named(space: NetworkSpace, tmp_path: Path) -> None:
    weights = published()
    value = weights.pop("blocks.3.mobile_inverted_conv.depth_conv.conv.conv.weight")
    weights["blocks.3.mobile_inverted_conv.depth_conv.conv.weights"] = value
    weights["first_conv.conv.weight"] = torch.zeros(24, 3, 3, 3)
    with pytest.raises(InputError) as caught:
        read_weights(space, saved(weights, tmp_path / "ofa.pth"))
    message = str(caught.value)
    assert "1 missing (blocks.3.conv.depth_conv.conv.weight)" in message
    assert "1 unknown (blocks.3.conv.depth_conv.conv.weights)" in message
    assert "1 of another shape (first_conv.conv.weight is (24, 3, 3, 3), not (16, 3, 3, 3))" in message


def test_a_classifier_of_other_classes_is_left_out_only_when_asked(space: NetworkSpace, tmp_path: Path) -> None:
    file = saved(published(classes=1000), tmp_path / "ofa.pth")
    with pytest.raises(InputError, match=r"weight is \(1000, 1280\), not \(7, 1280\).*--new-classifier"):
        read_weights(space, file)
    supernet = read_weights(space, file, new_classifier=True)
    stem = supernet.state_dict()["slots.stem.stem.conv.weight"]
    assert torch.equal(stem, published()["first_conv.conv.weight"])


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("never").touch, ())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds no state dict"),
        ({"state_dict": {"a": "text"}}, "holds no state dict"),
        ({"epoch": 3}, "holds no state dict"),
        ({"weights": Payload()}, "is no checkpoint of tensors alone"),
        ({"first_conv.conv.weight": torch.zeros(1)}, "does not fit ofa-mbv3: tensors .* missing"),
    ],
)
def test_other_files_are_refused(space: NetworkSpace, content: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_weights(space, saved(content, tmp_path / "ofa.pth"))
    assert not Path("never").exists()


def test_files_that_torch_did_not_write_are_refused(space: NetworkSpace, tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("not a checkpoint")
    (tmp_path / "empty.pth").touch()
    for name in ("text", "empty"):
        with pytest.raises(InputError, match="is no checkpoint of tensors alone"):
            read_weights(space, tmp_path / f"{name}.pth")
    with pytest.raises(InputError, match="there is no file"):
        read_weights(space, tmp_path / "absent.pth")
    assert not Path("never").exists()


def test_values_that_are_not_finite_are_refused(space: NetworkSpace, tmp_path: Path) -> None:
    weights = published()
    weights["first_conv.bn.bias"][3] = torch.nan
    with pytest.raises(InputError, match=r"first_conv.bn.bias holds values that are not finite"):
        read_weights(space, saved(weights, tmp_path / "ofa.pth"))


def test_other_spaces_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fit the space ofa-mbv3; this run's is tiny"):
        read_weights(find_space("tiny", channels=3, classes=7), tmp_path / "ofa.pth")
    # Another space may have the name.
    layout = find_space("tiny", channels=3, classes=7).layout
    with pytest.raises(InputError, match="fit the space ofa-mbv3"):
        read_weights(NetworkSpace(dataclasses.replace(layout, name="ofa-mbv3")), tmp_path / "ofa.pth")


@pytest.mark.parametrize("channels", [1, 3])
def test_tensors_of_another_shape_or_kind_are_refused(channels: int, tmp_path: Path) -> None:
    space = find_space("ofa-mbv3:width=1.0,resolution=64", channels=channels, classes=7)
    for name, value, message in (
        ("classifier.linear.weight", torch.zeros(1280, 7), r"\(1280, 7\), not \(7, 1280\)"),
        ("first_conv.conv.weight", torch.zeros(()), r"first_conv.conv.weight is \(\), not \(16, 3, 3, 3\)"),
        ("first_conv.conv.weight", torch.zeros(1).expand(16, 10**9, 3, 3), "of another shape"),
        ("first_conv.bn.bias", torch.zeros(16).to_sparse(), "holds no state dict"),
        ("feature_mix_layer.conv.weight", torch.zeros(1280, 960), r"not \(1280, 960, 1, 1\)"),
    ):
        file = saved(published() | {name: value}, tmp_path / "ofa.pth")
        with pytest.raises(InputError, match=message):
            read_weights(space, file)
