"""A dense temporal convolution network: residual blocks of dilated convolutions that see past and
future alike."""

from __future__ import annotations

from torch import Tensor, nn

from pretrain.components import Count, Whole
from pretrain.encoders import AbstractEncoder
from pretrain.encoders._over_time import over_time, zero_invalid
from pretrain.transforms.features import Features


class TCN(AbstractEncoder):
    """Residual blocks whose reach doubles (Bai et al. 2018, made non-causal; pre-norm).

    Args:
        width: Channels, and D.
        layers: Blocks; the reach to either side is ``2**layers - 1`` frames (kernel 3).
    """

    def __init__(self, features: Features, *, width: Count = 96, layers: Whole = 6) -> None:
        super().__init__()
        self.dim = width
        self.context = (2**layers - 1, 2**layers - 1)
        self.enter = nn.Linear(features.width, width)
        self.blocks = nn.ModuleList(Block(width, dilation=2**layer) for layer in range(layers))
        self.leave = nn.LayerNorm(width)

    def forward(self, x_BTF: Tensor, valid_BT: Tensor) -> Tensor:
        """(B, T, F) to (B, T, D)."""
        h_BTD = zero_invalid(self.enter(x_BTF), valid_BT)
        # Multiplied by, in every block, rather than asked about: in bf16 half the time, the
        # gradient counted.
        ones_BTD = valid_BT.unsqueeze(-1).to(h_BTD.dtype).expand_as(h_BTD).contiguous()
        for block in self.blocks:
            h_BTD = block(h_BTD, ones_BTD)
        out: Tensor = self.leave(h_BTD)
        return out


class Block(nn.Module):
    """h + W gelu(k * LayerNorm(h)), with a dilated kernel k of three frames; (B, T, D) to (B, T,
    D)."""

    def __init__(self, width: int, *, dilation: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.mix = nn.Linear(width, width)
        nn.init.zeros_(self.mix.bias)

    def forward(self, h_BTD: Tensor, ones_BTD: Tensor) -> Tensor:
        """Frames that are not valid reach no other."""
        x_BTD = over_time(self.conv, self.norm(h_BTD) * ones_BTD)
        out: Tensor = h_BTD + self.mix(nn.functional.gelu(x_BTD))
        return out
