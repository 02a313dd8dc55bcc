"""A dense network that keeps every frame and looks around at a lower rate."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.components import Count
from pretrain.encoders import AbstractEncoder
from pretrain.encoders._over_time import zero_invalid
from pretrain.encoders.tcn import Block
from pretrain.transforms.features import Features


class TwoRate(AbstractEncoder):
    r"""A narrow path at the frame rate and a wide one at a fraction of it, joined at every frame.

    Behaviour is slow compared with 30 frames a second: what surrounds a frame needs no matrix
    product for each frame. The narrow path projects every frame; ``stride`` frames, concatenated,
    enter the wide path as one, pass residual dilated convolutions there, and are split into frames
    again, where both paths are mixed. The division of labour is that of SlowFast (Feichtenhofer et
    al. 2019); for the same parameters it multiplies about a third as much as ``tcn``.

    Patches are counted from the first frame of a window: see :attr:`grid`.

    Args:
        width: Channels of the wide path.
        narrow: Channels of the narrow path.
        stride: Frames of a patch.
        layers: Blocks of the wide path; the reach to either side is ``2**layers - 1`` patches
            and the frame's own.
        dim: D.
    """

    def __init__(
        self,
        features: Features,
        *,
        width: Count = 128,
        narrow: Count = 48,
        stride: Count = 4,
        layers: Count = 4,
        dim: Count = 96,
    ) -> None:
        super().__init__()
        self.dim, self.grid = dim, stride
        self.context = ((2**layers - 1) * stride + stride - 1,) * 2
        self.enter = nn.Linear(features.width, narrow)
        self.fold = nn.Linear(stride * narrow, width)
        self.blocks = nn.ModuleList(Block(width, dilation=2**layer) for layer in range(layers))
        self.norm = nn.LayerNorm(width)
        self.unfold = nn.Linear(width, stride * narrow)
        self.join = nn.Linear(2 * narrow, dim)
        self.leave = nn.LayerNorm(dim)

    def forward(self, x_BTF: Tensor, valid_BT: Tensor) -> Tensor:
        """(B, T, F) to (B, T, D)."""
        batch, frames = valid_BT.shape
        missing = -frames % self.grid
        h_BTN = F.pad(zero_invalid(F.gelu(self.enter(x_BTF)), valid_BT), (0, 0, 0, missing))
        valid_BS1 = F.pad(valid_BT, (0, missing)).view(batch, -1, self.grid).any(-1, keepdim=True)
        s_BSW = self.fold(h_BTN.reshape(batch, -1, self.grid * h_BTN.shape[-1]))
        for block in self.blocks:
            s_BSW = block(s_BSW, valid_BS1)
        around_BTN = F.gelu(self.unfold(self.norm(s_BSW))).view_as(h_BTN)
        out: Tensor = self.leave(self.join(torch.cat([h_BTN, around_BTN], -1)[:, :frames]))
        return out
