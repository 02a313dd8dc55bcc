"""A bidirectional LSTM (Hochreiter and Schmidhuber 1997; Graves and Schmidhuber 2005) over frames
read a few times a second: on good hand-made features of many videos the strongest head there is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finetune.heads._window_networks import WindowNetwork, WindowNetworks
from pretrain.components import Count, Positive, ShareBelow1


class Recurrent(WindowNetworks):
    """LSTMs over windows of a fixed number of frames, each half of a window after the one before: a
    frame's logits are the mean of its two windows', weighed by how far it lies from their edges. So
    a recording of any length is read as the windows were that the networks learned from, and in
    parts as at once.

    Args:
        hz: Frames a second that are read; scores of the frames between are interpolated.
        columns: At most so many leading columns of an embedding are read: the encoder ``handmade``
            puts features before their long means, which a network that remembers needs not.
        width: Channels of each direction.
        layers: LSTMs one after the other.
        steps: Optimiser steps; 0: 200, and 300 from 20 labelled videos on.
        crop: Frames (as read) of a window, an even number: 400 are 80 s at 5 Hz.
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
        layers: Count = 1,
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
            lambda read, number: _Network(read, number, width, layers, dropout, crop),
            networks=networks,
            hz=hz,
            columns=columns,
            steps=steps,
            crop=crop,
            noise=noise,
            label_smoothing=label_smoothing,
            class_weight=class_weight,
        )
        self.context = crop


class _Network(WindowNetwork):
    def __init__(
        self, dim: int, classes: int, width: int, layers: int, dropout: float, window: int
    ) -> None:
        super().__init__()
        self.hop = -(-window // 2)
        self.drop = nn.Dropout1d(2 * dropout / 3)
        self.enter = nn.Linear(dim, width)
        self.blocks = nn.ModuleList(_Block(width, dropout) for _ in range(layers))
        self.leave = nn.Linear(width, classes)

    def forward(self, x_BTD: Tensor, first: int = 0) -> Tensor:
        """In windows that lie at multiples of their half, counted from the recording's beginning;
        while fitting the frames are one window."""
        if self.training:
            return self._scores(x_BTD)
        hop, before = self.hop, first % self.hop
        batch, frames, dim = x_BTD.shape
        halves = (before + frames - 1) // hop + 3  # with one before and one after
        padding = (0, 0, hop + before, (halves - 1) * hop - before - frames)
        blocks = F.pad(x_BTD, padding).reshape(batch, halves, hop, dim)
        windows = torch.cat([blocks[:, :-1], blocks[:, 1:]], 2)
        scores = self._scores(windows.reshape(batch * (halves - 1), 2 * hop, dim))
        scores = scores.reshape(batch, halves - 1, 2 * hop, -1)
        rising = ((torch.arange(hop, device=x_BTD.device) + 0.5) / hop).unsqueeze(-1)
        both = scores[:, 1:, :hop] * rising + scores[:, :-1, hop:] * (1 - rising)
        return both.reshape(batch, (halves - 2) * hop, -1)[:, before : before + frames]

    def _scores(self, x_BTD: Tensor) -> Tensor:
        h_BTW = self.enter(self.drop(x_BTD.transpose(1, 2)).transpose(1, 2))
        for block in self.blocks:
            h_BTW = block(h_BTW)
        out: Tensor = self.leave(F.gelu(h_BTW))
        return out


class _Block(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.lstm = nn.LSTM(width, width, batch_first=True, bidirectional=True)
        self.out = nn.Linear(2 * width, width)
        self.drop = nn.Dropout1d(dropout)

    def forward(self, x_BTW: Tensor) -> Tensor:
        h_BTW = self.lstm(self.norm(x_BTW))[0]
        dropped = self.drop(h_BTW.transpose(1, 2)).transpose(1, 2)
        out: Tensor = x_BTW + self.out(dropped)
        return out
