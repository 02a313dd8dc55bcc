"""The benchmark paper's self-attention network, made dense: each frame attends to the frames around
it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.components import Count, Counts
from pretrain.encoders import AbstractEncoder
from pretrain.encoders._batch_norm import BatchNorm
from pretrain.encoders._over_time import zero_invalid
from pretrain.errors import BadInput
from pretrain.transforms.features import Features


class SelfAttention(AbstractEncoder):
    """Attention, linear, batch norm, ReLU, pooling of pairs, three times, then one linear layer
    (CalMS21, Sun et al. 2021).

    Attention is the paper's: one head, keys equal to values, no scaling, no positions. There it
    runs over a whole window, and no two windows share a result; here each frame attends to those
    within ``reach`` frames of it, in steps of what pooling would have left (every frame, every
    second, every fourth), and pooling takes the greater of a frame and the one a step on. The
    linear layer at the end reads the frame alone. Frames that do not exist are not attended to.

    Args:
        widths: Channels of each attention.
        reach: Frames to either side.
        dim: D.
    """

    def __init__(
        self,
        features: Features,
        *,
        widths: Counts = (128, 64, 32),
        reach: int = 16,
        dim: Count = 96,
    ) -> None:
        super().__init__()
        steps = [2**layer for layer in range(len(widths))]
        if reach < steps[-1]:
            raise BadInput(
                f"encoder self_attention: reach is {reach}; with {len(steps)} layers it must be "
                f"at least {steps[-1]}"
            )
        self.dim, self.reach = dim, reach
        reached = sum(reach // step * step for step in steps)
        self.context = (reached, reached + sum(steps))
        self.norm = BatchNorm(features.width)
        inputs = [features.width, *widths[:-1]]
        self.blocks = nn.ModuleList(
            _Block(a, b, reach=reach, step=step)
            for a, b, step in zip(inputs, widths, steps, strict=True)
        )
        self.leave = nn.Linear(widths[-1], dim)

    def forward(self, x_BTF: Tensor, valid_BT: Tensor) -> Tensor:
        """(B, T, F) to (B, T, D)."""
        h_BTC = self.norm(zero_invalid(x_BTF, valid_BT), valid_BT)
        for block in self.blocks:
            h_BTC = block(h_BTC, valid_BT)
        out: Tensor = self.leave(h_BTC)
        return out


class _Block(nn.Module):
    def __init__(self, inputs: int, width: int, *, reach: int, step: int) -> None:
        super().__init__()
        self.reach, self.step = reach, step
        self.query, self.value = nn.Linear(inputs, width), nn.Linear(inputs, width)
        self.mix = nn.Linear(width, width)
        self.norm = BatchNorm(width)

    def forward(self, h_BTC: Tensor, valid_BT: Tensor) -> Tensor:
        attended = attend_nearby(
            self.query(h_BTC), self.value(h_BTC), valid_BT, reach=self.reach, step=self.step
        )
        h_BTC = zero_invalid(F.relu(self.norm(self.mix(attended), valid_BT)), valid_BT)
        # Nothing is below zero, so that zeros beyond the end never win.
        return torch.maximum(h_BTC, F.pad(h_BTC, (0, 0, 0, self.step))[:, self.step :])


def attend_nearby(
    query_BTC: Tensor, value_BTC: Tensor, valid_BT: Tensor, *, reach: int, step: int
) -> Tensor:
    """Unscaled dot-product attention of every frame to the existing ones within ``reach``, a
    multiple of ``step`` frames away.

    Frames go in blocks of ``reach``, each against itself and its two neighbours: linear in the
    length of the window.

    Returns:
        (B, T, C); a frame that does not exist gets its own value.
    """
    frames, width = query_BTC.shape[1:]
    spare = -frames % reach
    query = F.pad(query_BTC, (0, 0, 0, spare)).reshape(len(query_BTC), -1, reach, width)
    # (B, blocks, 3 reach, C)
    value = (
        F.pad(value_BTC, (0, 0, reach, reach + spare)).unfold(1, 3 * reach, reach).transpose(2, 3)
    )
    exists = F.pad(valid_BT, (reach, reach + spare)).unfold(1, 3 * reach, reach).unsqueeze(2)
    index = torch.arange(-reach, 2 * reach, device=query.device)
    ahead = index - index[reach : 2 * reach].unsqueeze(1)
    near = (ahead.abs() <= reach) & (ahead % step == 0)
    # A softmax over nothing is no number, even where nobody looks at it: let every frame see
    # itself.
    allowed = (near & exists) | (ahead == 0)
    out = F.scaled_dot_product_attention(query, value, value, attn_mask=allowed, scale=1.0)
    return out.flatten(1, 2)[:, :frames]
