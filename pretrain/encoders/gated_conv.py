"""A modern dense network over time: depthwise convolutions behind gates."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.components import Count, Counts, OddCount
from pretrain.encoders import AbstractEncoder
from pretrain.encoders._over_time import each_channel_over_time, zero_invalid
from pretrain.transforms.features import Features


class GatedConv(AbstractEncoder):
    r"""Residual blocks in which one half of the channels, moved over time, is let through by the
    other half.

    .. math:: h \leftarrow h + W_o\,(\mathrm{SiLU}(W_g n) \odot (k * W_v n)), \quad n =
    \mathrm{LayerNorm}(h)

    The gated convolution of Dauphin et al. 2017 with a depthwise kernel k, as in the block that Yu
    & Wang 2024 (MambaOut) found to do without Mamba's recurrence. What a frame takes from its
    neighbours depends on what it is, which no fixed kernel can do; and a depthwise kernel costs
    next to nothing, so that it can be wide: matrices multiply frame by frame.

    Args:
        width: Channels, and D.
        inner: Channels behind each gate.
        kernel: Taps of a kernel, odd.
        dilations: Frames between the taps, block after block; the reach to either side is their sum
            times ``kernel // 2``.
    """

    def __init__(
        self,
        features: Features,
        *,
        width: Count = 96,
        inner: Count = 80,
        kernel: OddCount = 7,
        dilations: Counts = (1, 2, 4, 8, 4, 2),
    ) -> None:
        super().__init__()
        self.dim = width
        self.context = (kernel // 2 * sum(dilations),) * 2
        self.enter = nn.Linear(features.width, width)
        self.blocks = nn.ModuleList(_Block(width, inner, kernel, step) for step in dilations)
        self.leave = nn.LayerNorm(width)

    def forward(self, x_BTF: Tensor, valid_BT: Tensor) -> Tensor:
        """(B, T, F) to (B, T, D)."""
        h_BTD = self.enter(x_BTF)
        for block in self.blocks:
            h_BTD = block(h_BTD, valid_BT)
        out: Tensor = self.leave(h_BTD)
        return out


class _Block(nn.Module):
    def __init__(self, width: int, inner: int, kernel: int, step: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gate, self.value = nn.Linear(width, inner), nn.Linear(width, inner)
        reach = kernel // 2 * step
        self.move = nn.Conv1d(
            inner, inner, kernel, padding=reach, dilation=step, groups=inner, bias=False
        )
        self.mix = nn.Linear(inner, width)
        nn.init.zeros_(self.mix.bias)

    def forward(self, h_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        n_BTD = self.norm(h_BTD)
        moved = each_channel_over_time(self.move, zero_invalid(self.value(n_BTD), valid_BT))
        out: Tensor = h_BTD + self.mix(F.silu(self.gate(n_BTD)) * moved)
        return out
