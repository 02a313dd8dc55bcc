"""The benchmark paper's 1D convolution network, made dense: pooling's stride becomes dilation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.components import Count, Counts, Whole
from pretrain.encoders import AbstractEncoder
from pretrain.encoders._batch_norm import BatchNorm
from pretrain.encoders._over_time import over_time, zero_padded
from pretrain.errors import BadInput
from pretrain.transforms.features import Features


class Conv1d(AbstractEncoder):
    """Convolution, batch norm, ReLU, pooling of pairs, three times; then one linear layer (CalMS21,
    Sun et al. 2021).

    At every frame this is that network on the window centred there, with ``dim`` outputs for
    classes. What windows share is computed once (à trous, Holschneider et al. 1989): after a
    pooling that halved the window, taps lie twice as far apart. Frames that do not exist are frames
    of zeros, as the paper pads.

    Args:
        widths: Channels of each convolution.
        kernel: Taps of each convolution.
        past: Steps before the frame in its window.
        future: Steps after it.
        skip: Frames in a step.
        dim: D.
    """

    def __init__(
        self,
        features: Features,
        *,
        widths: Counts = (128, 64, 32),
        kernel: Count = 5,
        past: Whole = 50,
        future: Whole = 50,
        skip: Count = 1,
        dim: Count = 96,
    ) -> None:
        super().__init__()
        taps = past + 1 + future
        for _ in widths:
            taps = (taps - kernel + 1) // 2
        if taps < 1:
            raise BadInput(
                f"encoder conv1d: a window of {past} + 1 + {future} steps is too short for "
                f"{len(widths)} convolutions of {kernel} with pooling"
            )
        self.dim, self.kernel = dim, kernel
        self.steps = [skip * 2**layer for layer in range(len(widths))]
        self.past, self.spacing = past * skip, skip * 2 ** len(widths)
        # Frames from the first to the last one that a tap sees.
        self.span = sum(kernel * step for step in self.steps)
        self.beyond = (taps - 1) * self.spacing - self.past  # of the last tap, from the frame on
        self.context = (self.past, max(0, self.beyond + self.span))

        self.norm = BatchNorm(features.width)
        inputs = [features.width, *widths[:-1]]
        self.convs = nn.ModuleList(
            nn.Conv1d(a, b, kernel, dilation=step)
            for a, b, step in zip(inputs, widths, self.steps, strict=True)
        )
        self.norms = nn.ModuleList(BatchNorm(width) for width in widths)
        self.leave = nn.Conv1d(widths[-1], dim, taps, dilation=self.spacing)

    def forward(self, x_BTF: Tensor, valid_BT: Tensor) -> Tensor:
        """(B, T, F) to (B, T, D)."""
        # A tap that sees nothing but padding has one and the same value everywhere: compute it
        # once, repeat it outwards.
        before, after = min(self.past, self.span + 1), min(self.beyond, 1)
        x, exists = zero_padded(x_BTF, valid_BT, past=before, future=max(0, after + self.span))
        h = self.norm(x, exists)
        spanned = 0
        for conv, norm, step in zip(self.convs, self.norms, self.steps, strict=True):
            h = over_time(conv, h)
            spanned += (self.kernel - 1) * step
            # A tap counts where the frame in the middle of what it sees exists.
            h = F.relu(norm(h, exists[:, spanned // 2 :][:, : h.shape[1]]))
            h = torch.maximum(h[:, :-step], h[:, step:])
            spanned += step
        h = h[:, : before + x_BTF.shape[1] + after]
        h = F.pad(
            h.transpose(1, 2), (self.past - before, max(0, self.beyond - after)), mode="replicate"
        ).transpose(1, 2)
        return over_time(self.leave, h.contiguous())
