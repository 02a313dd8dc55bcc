"""The embedder and contexter of the MABe 2021 entry by B. Wild: a moment from both sides, then its
past."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.components import Count, Whole
from pretrain.encoders import AbstractEncoder
from pretrain.encoders._over_time import over_time, zero_padded
from pretrain.transforms.features import Features


class EmbedderContexter(AbstractEncoder):
    """A non-causal convolutional embedder under a causal convolutional contexter, pre-activation
    residual blocks throughout.

    With the defaults an embedding sees 40 frames of the past (6 and 34) and 6 of the future.
    Convolutions are not padded; the window is, with zeros, and frames that do not exist are zeros
    too. The layer norm that opens the entry's head closes this encoder. Convolutions start
    Kaiming-normal (He et al. 2015) with biases 0.

    Args:
        width: Channels of the embedder.
        context_width: Channels of the contexter, and D.
        pointwise: Residual blocks of kernel 1 in the embedder.
        embedder: Residual blocks of kernel 3 in the embedder; each sees 2 frames further to either
            side.
        contexter: Residual blocks of kernel 3 in the contexter; each sees 4 frames further back,
            the layer before them 2.
    """

    def __init__(
        self,
        features: Features,
        *,
        width: Count = 128,
        context_width: Count = 512,
        pointwise: Whole = 2,
        embedder: Whole = 3,
        contexter: Whole = 8,
    ) -> None:
        super().__init__()
        self.dim = context_width
        self.context = (2 * embedder + 2 + 4 * contexter, 2 * embedder)
        self.embed = nn.Sequential(
            _Convolution(features.width, width, 1),
            *(_Residual(width, 1, causal=False) for _ in range(pointwise)),
            *(_Residual(width, 3, causal=False) for _ in range(embedder)),
        )
        self.relate = nn.Sequential(
            _Convolution(width, context_width, 3),
            *(_Residual(context_width, 3, causal=True) for _ in range(contexter)),
        )
        self.leave = nn.LayerNorm(context_width)

    def forward(self, x_BTF: Tensor, valid_BT: Tensor) -> Tensor:
        """(B, T, F) to (B, T, D)."""
        past, future = self.context
        x, _ = zero_padded(x_BTF, valid_BT, past=past, future=future)
        out: Tensor = self.leave(self.relate(self.embed(x)))
        return out


class _Convolution(nn.Module):
    """(B, T, C) to (B, T - kernel + 1, C)."""

    def __init__(self, inputs: int, width: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, width, kernel)
        nn.init.kaiming_normal_(self.conv.weight, a=0.01, nonlinearity="leaky_relu")
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x_BTC: Tensor) -> Tensor:
        return over_time(self.conv, x_BTC)


class _Residual(nn.Module):
    """Layer norm, leaky ReLU, convolution, twice, plus a skip cropped to the frames that are left
    (at the start alone, if causal)."""

    def __init__(self, width: int, kernel: int, *, causal: bool) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.convs = nn.ModuleList(_Convolution(width, width, kernel) for _ in range(2))
        cropped = 2 * (kernel - 1)
        self.first, self.last = (cropped, 0) if causal else (cropped // 2, cropped // 2)

    def forward(self, x_BTC: Tensor) -> Tensor:
        h = x_BTC
        for norm, conv in zip(self.norms, self.convs, strict=True):
            h = conv(F.leaky_relu(norm(h)))
        return torch.add(x_BTC[:, self.first : x_BTC.shape[1] - self.last], h)
