"""No network at all: the hand-made features and their means over time. The control that a learned
encoder must beat."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.encoders import AbstractEncoder
from pretrain.encoders._over_time import zero_invalid
from pretrain.transforms.features import Features


class Handmade(AbstractEncoder):
    """Features of a frame and their means over centred stretches of frames; nothing is learned.

    Args:
        features: What it passes on.
        means: Frames to either side of each mean.
    """

    def __init__(self, features: Features, *, means: Sequence[int] = (15, 60)) -> None:
        super().__init__()
        self.means = tuple(means)
        self.dim = features.width * (1 + len(self.means))
        self.context = (max(self.means, default=0), max(self.means, default=0))

    def forward(self, x_BTF: Tensor, valid_BT: Tensor) -> Tensor:
        """(B, T, F) to (B, T, D); a mean is over the frames that exist."""
        exists_B1T = valid_BT.unsqueeze(1).to(x_BTF.dtype)
        x_BFT = zero_invalid(x_BTF, valid_BT).transpose(1, 2)
        columns = [x_BTF]
        for reach in self.means:
            width = 2 * reach + 1
            total = F.avg_pool1d(x_BFT, width, stride=1, padding=reach)
            share = F.avg_pool1d(exists_B1T, width, stride=1, padding=reach)
            columns.append((total / share.clamp(min=1e-6)).transpose(1, 2))
        return torch.cat(columns, -1)
