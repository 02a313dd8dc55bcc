"""The benchmark paper's fully connected network, made dense: the frames around each frame,
concatenated, into a perceptron."""

from __future__ import annotations

import itertools

import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.components import Count, Counts, Whole
from pretrain.encoders import AbstractEncoder
from pretrain.encoders._batch_norm import BatchNorm
from pretrain.encoders._over_time import over_time, zero_padded
from pretrain.transforms.features import Features


class FullyConnected(AbstractEncoder):
    """A window laid flat, then linear, batch norm, ReLU, three times, and one linear layer
    (CalMS21, Sun et al. 2021).

    At every frame this is that network on the window around it, with ``dim`` outputs for classes.
    The layer that reads the flat window is a convolution over all of its steps. Frames that do not
    exist are frames of zeros, as the paper pads.

    Args:
        widths: Of the hidden layers.
        past: Steps before the frame in its window; 0 with ``future`` 0 is the paper's single frame.
        future: Steps after it.
        skip: Frames in a step.
        dim: D.
    """

    def __init__(
        self,
        features: Features,
        *,
        widths: Counts = (512, 256, 128),
        past: Whole = 5,
        future: Whole = 5,
        skip: Count = 10,
        dim: Count = 96,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.context = (past * skip, future * skip)
        self.norm = BatchNorm(features.width)
        self.enter = nn.Conv1d(features.width, widths[0], past + 1 + future, dilation=skip)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.norms = nn.ModuleList(BatchNorm(width) for width in widths)
        self.leave = nn.Linear(widths[-1], dim)

    def forward(self, x_BTF: Tensor, valid_BT: Tensor) -> Tensor:
        """(B, T, F) to (B, T, D)."""
        past, future = self.context
        x, exists = zero_padded(x_BTF, valid_BT, past=past, future=future)
        h = F.relu(self.norms[0](over_time(self.enter, self.norm(x, exists)), valid_BT))
        for layer, norm in zip(self.layers, list(self.norms)[1:], strict=True):
            h = F.relu(norm(layer(h), valid_BT))
        out: Tensor = self.leave(h)
        return out
