"""A dilated convolution over half a minute of frames read a few times a second (after Lea et al.
2017)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finetune.heads._window_networks import WindowNetwork, WindowNetworks
from pretrain.components import Count, Positive, ShareBelow1


class TemporalWide(WindowNetworks):
    """Residual blocks of dilation 1, 2, 4, …; the mean of several networks, each a running mean of
    its weights over the last two thirds of its steps.

    Args:
        hz: Frames a second that are read; scores of the frames between are interpolated.
        columns: At most so many leading columns of an embedding are read: the encoder ``handmade``
            puts features before their long means, which a network that sees half a minute needs
            not.
        width: Channels.
        blocks: With 7 at 5 Hz a score depends on 25 s to either side.
        steps: Optimiser steps; 0: 200, and 300 from 20 labelled videos on.
        crop: Frames (as read) of a window, or as many as the longest recording has.
        dropout: Share of the channels set to 0 while fitting.
        noise: Standard deviation of the noise added to inputs of unit spread.
        label_smoothing: Share of the target spread evenly.
        class_weight: Power of the inverse class frequency that weighs a frame.
        networks: Networks whose probabilities are averaged.
    """

    def __init__(
        self,
        dim: int,
        classes: list[int],
        *,
        hz: Positive = 5.0,
        columns: Count = 160,
        width: Count = 64,
        blocks: Count = 7,
        steps: int = 0,
        crop: Count = 400,
        dropout: ShareBelow1 = 0.3,
        noise: float = 0.1,
        label_smoothing: float = 0.05,
        class_weight: float = 0.5,
        networks: Count = 2,
    ) -> None:
        super().__init__(
            dim,
            classes,
            lambda read, number: _Network(read, number, width, blocks, dropout),
            networks=networks,
            hz=hz,
            columns=columns,
            steps=steps,
            crop=crop,
            noise=noise,
            label_smoothing=label_smoothing,
            class_weight=class_weight,
        )
        self.context = 2**blocks - 1


class _Network(WindowNetwork):
    def __init__(self, dim: int, classes: int, width: int, blocks: int, dropout: float) -> None:
        super().__init__()
        self.drop = nn.Dropout1d(2 * dropout / 3)
        self.enter = nn.Linear(dim, width)
        self.blocks = nn.ModuleList(_Block(width, 2**b, dropout) for b in range(blocks))
        self.leave = nn.Linear(width, classes)

    def forward(self, x_BTD: Tensor, first: int = 0) -> Tensor:
        """The same wherever the frames lie."""
        h_BTW = self.enter(self.drop(x_BTD.transpose(1, 2)).transpose(1, 2))
        for block in self.blocks:
            h_BTW = block(h_BTW)
        out: Tensor = self.leave(F.gelu(h_BTW))
        return out


class _Block(nn.Module):
    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.dilation = dilation
        self.norm = nn.LayerNorm(width)
        self.around = nn.Linear(3 * width, width)
        self.out = nn.Linear(width, width)
        self.drop = nn.Dropout1d(dropout)

    def forward(self, x_BTW: Tensor) -> Tensor:
        step, frames = self.dilation, x_BTW.shape[1]
        h = F.pad(self.norm(x_BTW), (0, 0, step, step))
        h = torch.cat([h[:, :frames], h[:, step : step + frames], h[:, 2 * step :]], -1)
        h = self.out(F.gelu(self.around(h)))
        dropped: Tensor = self.drop(h.transpose(1, 2)).transpose(1, 2)
        return x_BTW + dropped
