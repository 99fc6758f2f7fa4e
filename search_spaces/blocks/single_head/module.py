"""Single-head partial attention as a torch module."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from search_spaces.blocks.layers import Block, ElasticBatchNorm2d, ElasticConv2d, ElasticImageNorm, descending
from search_spaces.blocks.single_head.spec import SingleHeadSpec


class SingleHead(Block[SingleHeadSpec]):
    """Elastic in channels, attended channels and MLP width."""

    def __init__(self, spec: SingleHeadSpec) -> None:
        super().__init__(spec)
        channels = spec.channels
        self.position = ElasticConv2d(channels, channels, spec.kernel, groups=channels)
        self.position_norm = ElasticBatchNorm2d(channels)
        if spec.attended:
            self.attention_norm = ElasticImageNorm(spec.attended)
            # Rows of queries and keys come first, so that fewer attended channels are a prefix.
            rows = 2 * spec.query_channels + spec.attended
            self.query_key_value = ElasticConv2d(spec.attended, rows)
            self.query_key_value_norm = ElasticBatchNorm2d(rows)
            self.out = ElasticConv2d(channels, channels)
            self.out_norm = ElasticBatchNorm2d(channels)
        self.expand = ElasticConv2d(channels, spec.hidden_channels)
        self.expand_norm = ElasticBatchNorm2d(spec.hidden_channels)
        self.project = ElasticConv2d(spec.hidden_channels, channels)
        self.project_norm = ElasticBatchNorm2d(channels)

    def forward(self, x: Tensor, spec: SingleHeadSpec | None = None) -> Tensor:
        """Return a tensor of the shape of `x`, ``float[n, channels, resolution, resolution]``."""
        spec = spec or self.spec
        x = x + self.position_norm(self.position(x, spec.channels))
        if spec.attended:
            x = x + self._attention(x, spec)
        hidden = F.relu(self.expand_norm(self.expand(x, spec.hidden_channels)))
        out: Tensor = x + self.project_norm(self.project(hidden, spec.channels))
        return out

    def _attention(self, x: Tensor, spec: SingleHeadSpec) -> Tensor:
        attended, rest = torch.split(x, [spec.attended, spec.channels - spec.attended], dim=1)
        rows = self.query_key_value(self.attention_norm(attended), 2 * spec.query_channels + spec.attended)
        flat = self.query_key_value_norm(rows).flatten(2)  # [batch, rows, tokens]
        query, key, value = torch.split(flat, [spec.query_channels, spec.query_channels, spec.attended], dim=1)
        weights = (query.transpose(1, 2) @ key * spec.query_channels**-0.5).softmax(dim=-1)
        mixed = (value @ weights.transpose(1, 2)).view_as(attended)
        out: Tensor = self.out_norm(self.out(F.relu(torch.cat([mixed, rest], dim=1)), spec.channels))
        return out

    @property
    def fixes_order(self) -> bool:
        """Whether the order of the channels means something: the first ones are attended."""
        return self.spec.attended > 0

    def input_importance(self) -> Tensor:
        """Return how much each channel that the block is given is used."""
        return self.expand.importance()

    def reorder_inputs(self, order: Tensor) -> None:
        """Expect channels in another order; only where none is attended."""
        assert not self.fixes_order
        self.position.reorder(outputs=order)
        self.position_norm.reorder(order)
        self.expand.reorder(inputs=order)

    def reorder_outputs(self, order: Tensor) -> None:
        """Give channels in another order."""
        self.project.reorder(outputs=order)
        self.project_norm.reorder(order)

    @torch.no_grad()
    def sort_channels(self) -> None:
        """Sort the MLP's features; attended channels are those of the residual stream, and stay."""
        order = descending(self.project.importance())
        self.expand.reorder(outputs=order)
        self.expand_norm.reorder(order)
        self.project.reorder(inputs=order)
