"""Transformer block over pixels as a torch module."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from search_spaces.blocks.attention.spec import AttentionSpec
from search_spaces.blocks.layers import Block, ElasticConv2d, ElasticLayerNorm, ElasticLinear, descending


class Attention(Block[AttentionSpec]):
    """Elastic in channels, heads and MLP width."""

    def __init__(self, spec: AttentionSpec) -> None:
        super().__init__(spec)
        channels, attended = spec.channels, spec.attended_channels
        self.position = ElasticConv2d(channels, channels, spec.position_kernel, groups=channels, bias=True)
        self.attention_norm = ElasticLayerNorm(channels)
        self.query_key_value = ElasticLinear(channels, 3 * attended, sections=3)
        self.out = ElasticLinear(attended, channels)
        self.mlp_norm = ElasticLayerNorm(channels)
        self.expand = ElasticLinear(channels, spec.hidden_channels)
        self.project = ElasticLinear(spec.hidden_channels, channels)

    def forward(self, x: Tensor, spec: AttentionSpec | None = None) -> Tensor:
        """Return a tensor of the shape of `x`, ``float[n, channels, resolution, resolution]``."""
        spec = spec or self.spec
        batch, channels, tokens = x.shape[0], spec.channels, spec.resolution**2
        attended = spec.attended_channels
        x = x + self.position(x, channels)
        flat: Tensor = x.flatten(2).transpose(1, 2)  # [batch, tokens, channels]
        sections = self.query_key_value(self.attention_norm(flat), 3 * attended)
        heads = sections.view(batch, tokens, 3, spec.n_heads, spec.head_channels).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(heads[0], heads[1], heads[2])
        flat = flat + self.out(mixed.transpose(1, 2).reshape(batch, tokens, attended), channels)
        hidden = F.gelu(self.expand(self.mlp_norm(flat), spec.hidden_channels))
        flat = flat + self.project(hidden, channels)
        return flat.transpose(1, 2).reshape(batch, channels, spec.resolution, spec.resolution)

    def input_importance(self) -> Tensor:
        """Return how much each channel that the block is given is used."""
        return self.query_key_value.importance() + self.expand.importance()

    def reorder_inputs(self, order: Tensor) -> None:
        """Expect channels in another order."""
        self.position.reorder(outputs=order)
        self.attention_norm.reorder(order)
        self.query_key_value.reorder(inputs=order)
        self.mlp_norm.reorder(order)
        self.expand.reorder(inputs=order)

    def reorder_outputs(self, order: Tensor) -> None:
        """Give channels in another order."""
        self.out.reorder(outputs=order)
        self.project.reorder(outputs=order)

    @torch.no_grad()
    def sort_channels(self) -> None:
        """Sort the heads, and the MLP's features."""
        heads = descending(self.out.importance().view(-1, self.spec.head_channels).sum(1))
        within = torch.arange(self.spec.head_channels, device=heads.device)
        channels = (heads[:, None] * self.spec.head_channels + within).flatten()
        self.query_key_value.reorder(outputs=channels)
        self.out.reorder(inputs=channels)
        features = descending(self.project.importance())
        self.expand.reorder(outputs=features)
        self.project.reorder(inputs=features)
