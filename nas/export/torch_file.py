"""A network as files of torch: an exported program (pt2), and weights beside a description (safetensors)."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from nas.onnx_export import quiet_exporter
from nas.supernet import Network
from search_spaces.documents import pretty_json
from search_spaces.errors import InputError, first_line
from search_spaces.network_file import network_json, read_network

CONFIG_FORMAT = 1


def program(network: Network) -> tuple[bytes, Callable[[Tensor], Tensor]]:
    """Return a network as the content of a ``.pt2`` file for any number of images, and what that computes when loaded.

    The loader of such files unpickles: load none that came from elsewhere. This one has just been written.
    """
    network = copy.deepcopy(network).cpu().to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    # More than one image: torch takes sizes of 0 and 1 for constants.
    example = torch.zeros(2, *network.spec.input_shape)
    with quiet_exporter():
        exported = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
        for node in exported.graph.nodes:
            node.meta.pop("stack_trace", None)  # paths of this machine
        file = io.BytesIO()
        torch.export.save(exported, file)
        content = file.getvalue()
        loaded: Any = torch.export.load(io.BytesIO(content)).module()
    return content, loaded


def weights(network: Network, metadata: dict[str, str]) -> bytes:
    """Return a network's weights, batch norm's statistics included, as the content of a ``.safetensors`` file."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
    content: bytes = save_tensors(tensors, metadata=metadata)
    return content


def config(network: Network, about: dict[str, object]) -> str:
    """Return the description of a network that its weights need, and more about it, as JSON."""
    described = json.loads(network_json(network.spec))
    return pretty_json({"format_version": CONFIG_FORMAT, **about, "network": described})


def rebuilt(described: str, content: bytes, *, shape: tuple[int, int, int], classes: int, source: str) -> Network:
    """Return the network of a description and of weights, neither of which is trusted, in evaluation mode.

    Args:
        described: text of ``config.json``.
        content: of the file of weights.
        shape: channels, height and width of the images that the network takes.
        classes: how many it tells apart.
        source: of the description, for messages.

    Raises:
        InputError: they are not valid, or do not fit each other.
    """
    try:
        found = json.loads(described)
        network_text = json.dumps(found["network"], allow_nan=False)
        versioned = found["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{source}: no description of an exported network") from None
    if versioned != CONFIG_FORMAT:
        raise InputError(f"{source} has format_version {versioned!r}; this release reads version {CONFIG_FORMAT}")
    spec = read_network(network_text, source=source)
    if 4 * spec.params() > len(content):  # before memory is taken for it
        raise InputError(f"{source}: the network has {spec.params():,} parameters, more than the file of weights holds")
    if (spec.input_shape, spec.blocks[-1].block.out_channels) != (shape, classes):
        raise InputError(f"{source}: the network is not for {classes} classes of images of {shape}")
    try:
        network = Network(spec)
        network.load_state_dict(load_tensors(content))
    except (SafetensorError, RuntimeError, KeyError, ValueError) as error:
        raise InputError(f"{source}: the weights do not fit the network: {first_line(error)}") from None
    return network.eval()
