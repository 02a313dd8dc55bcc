"""The benchmark paper's LSTM, made dense: every frame reads the steps around it and keeps the last
state."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pretrain.components import Count, Counts, Whole
from pretrain.encoders import AbstractEncoder
from pretrain.encoders._batch_norm import BatchNorm
from pretrain.encoders._over_time import zero_padded
from pretrain.transforms.features import Features

# Numbers of a state over the steps of the windows that are computed at once: 64 MB.
_STATES = 1 << 24


class LSTM(AbstractEncoder):
    """A window's last LSTM state, then linear, batch norm, ReLU, twice, and one linear layer
    (CalMS21, Sun et al. 2021).

    At every frame this is that network on the window around it, with ``dim`` outputs for classes. A
    state that ran on through the whole recording would reach back without end; a window's does not,
    and costs as many steps a frame as it has. What the windows share, the input's product with the
    weights, is computed once. States are computed again for the gradient rather than kept. Frames
    that do not exist are frames of zeros, as the paper pads.

    Args:
        width: Of the state.
        widths: Of the hidden layers after it.
        past: Steps before the frame in its window.
        future: Steps after it.
        skip: Frames in a step.
        dim: D.
    """

    def __init__(
        self,
        features: Features,
        *,
        width: Count = 256,
        widths: Counts = (256, 128),
        past: Whole = 5,
        future: Whole = 5,
        skip: Count = 10,
        dim: Count = 96,
    ) -> None:
        super().__init__()
        self.dim, self.width, self.skip, self.steps = dim, width, skip, past + 1 + future
        self.context = (past * skip, future * skip)
        self.norm = BatchNorm(features.width)
        self.enter = nn.Linear(features.width, 4 * width)
        self.recur = nn.Linear(width, 4 * width, bias=False)
        nn.init.orthogonal_(self.recur.weight)
        with torch.no_grad():  # remember at first (Gers et al. 2000), as the paper's framework does
            self.enter.bias.zero_()[width : 2 * width] = 1.0
        self.layers = nn.ModuleList(
            nn.Linear(a, b) for a, b in zip([width, *widths[:-1]], widths, strict=True)
        )
        self.norms = nn.ModuleList(BatchNorm(size) for size in widths)
        self.leave = nn.Linear(widths[-1], dim)

    def forward(self, x_BTF: Tensor, valid_BT: Tensor) -> Tensor:
        """(B, T, F) to (B, T, D)."""
        past, future = self.context
        x, exists = zero_padded(x_BTF, valid_BT, past=past, future=future)
        inputs_BLG = self.enter(self.norm(x, exists))
        at_once = max(1, _STATES // (x_BTF.shape[1] * self.steps * self.width))
        last_state = self._last_state
        if torch.is_grad_enabled():
            last_state = partial(checkpoint, self._last_state, use_reentrant=False)
        h_BTC = torch.cat([last_state(part) for part in inputs_BLG.split(at_once)])
        for layer, norm in zip(self.layers, self.norms, strict=True):
            h_BTC = F.relu(norm(layer(h_BTC), valid_BT))
        out: Tensor = self.leave(h_BTC)
        return out

    def _last_state(self, inputs_BLG: Tensor) -> Tensor:
        """(B, past + T + future, gates) to (B, T, C)."""
        frames = inputs_BLG.shape[1] - sum(self.context)
        h: Tensor | None = None
        c: Tensor | None = None
        for step in range(self.steps):
            gates = inputs_BLG[:, step * self.skip :][:, :frames].float()
            gates = gates if h is None else gates + self.recur(h)  # the states stay float32
            enter, keep, new, output = gates.chunk(4, -1)
            entered = enter.sigmoid() * new.tanh()
            c = entered if c is None else torch.addcmul(entered, keep.sigmoid(), c)
            h = output.sigmoid() * c.tanh()
        assert h is not None
        return h
