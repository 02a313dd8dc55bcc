"""The benchmark paper's own networks, one window a frame: supervised baselines without pretraining
(CalMS21, Sun et al. 2021).

Networks are theirs, and so are the initial weights and batch norm of their framework, Keras;
widths, windows and training settings are in ``networks/``. ``windows.py`` cuts what they read,
``fit.py`` trains them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.components import Count, Counts, Positive, ShareBelow1, TwoOrMore, Whole, field_errors
from pretrain.config import read
from pretrain.errors import BadInput, refuse

NETWORKS = Path(__file__).parent / "networks"


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """One network of the paper and how it was trained on Task 1."""

    network: Literal["conv1d", "lstm", "self_attention", "fully_connected"]
    widths: Counts
    past: Whole
    """Steps before the frame in its window."""
    future: Whole
    """Steps after it."""
    skip: Count
    """Frames in a step."""
    lr: Positive
    """Of Adam, constant."""
    dropout: ShareBelow1
    epochs: Count
    augment: bool = False
    batch: TwoOrMore = 128
    """Windows a step."""
    kernel: Count = 5
    """Taps of conv1d."""
    state: Count = 256
    """Width of the LSTM's state."""

    def __post_init__(self) -> None:
        refuse(field_errors(self), about="a network of the paper")

    @property
    def window(self) -> int:
        """Steps of a window, W."""
        return self.past + 1 + self.future


def published_network(name: str, changed: Mapping[str, Any] | None = None) -> Baseline:
    """A published network's settings, with some keys changed: a file of
    ``finetune/paper/networks/``, or a path. ``conv1d`` is "the baseline", ``conv1d_augmented``
    where Tasks 2 and 3 start from.

    Raises:
        BadInput: If there is none of that name, or its settings are wrong.
    """
    return read(Baseline, name, NETWORKS, changed or {})


def build_baseline(settings: Baseline, *, inputs: int, classes: int) -> nn.Module:
    """The network, (B, W, F) to (B, C) logits; F is 28 for CalMS21's coordinates, 60 with the 32
    task-programming features.

    Raises:
        BadInput: If the window is too short for the network's poolings.
    """

    def stack(layer: Callable[[int, int, Baseline], nn.Module], width: int) -> list[nn.Module]:
        return [layer(a, b, settings) for a, b in itertools.pairwise((width, *settings.widths))]

    steps = 1  # that are left before the last layer
    layers: list[nn.Module]
    if settings.network in ("conv1d", "self_attention"):
        layer = _Convolution if settings.network == "conv1d" else _Attention
        steps = settings.window
        for _ in settings.widths:
            steps = (steps - (settings.kernel - 1 if layer is _Convolution else 0)) // 2
        if steps < 1:
            raise BadInput(
                f"the baseline: a window of {settings.window} steps is too short for "
                f"{len(settings.widths)} layers of {settings.network}"
            )
        layers = [_InputNorm(inputs), *stack(layer, inputs), nn.Flatten()]
    elif settings.network == "lstm":
        state = settings.state
        layers = [_InputNorm(inputs), _LastState(inputs, state), *stack(_Dense, state)]
    else:
        flat = settings.window * inputs
        layers = [nn.Flatten(), _norm(flat), *stack(_Dense, flat)]
    layers.append(nn.Linear(steps * settings.widths[-1], classes))
    network = nn.Sequential(*layers)
    network.apply(_as_keras)
    return network


@torch.no_grad()
def label_every_frame(network: nn.Module, x_TF: Tensor, settings: Baseline) -> Tensor:
    """Logits (T, C) of every frame of a video by a ``conv1d`` in evaluation mode, each frame
    computed once instead of once for every window it lies in.

    In a window, pooling keeps the maxima of steps 1 and 2, 3 and 4, and so on; all windows together
    have those of every two steps. So with convolutions whose taps lie twice as far apart after each
    pooling the sums are the same, for about a hundredth of the work (tests compare the two).
    """
    assert settings.network == "conv1d", "only the convolutional network has this form"
    assert not network.training, "batch norm would look at the video"
    layers: list[Any] = list(network.children())
    input_norm, *convolutions, _, last = layers
    step = settings.skip
    around = (settings.past * step, settings.future * step)
    h_1CN = input_norm(F.pad(x_TF, (0, 0, *around)).unsqueeze(0)).transpose(1, 2)
    for layer in convolutions:
        h_1CN = layer.every_window(h_1CN, step)
        step *= 2
    weight_CDW = last.weight.view(len(last.weight), -1, h_1CN.shape[1]).transpose(1, 2)
    logits_1CN = F.conv1d(h_1CN, weight_CDW, last.bias, dilation=step)
    return logits_1CN[0, :, : len(x_TF)].T


def _norm(channels: int) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(channels, eps=1e-3, momentum=0.01)  # the defaults of their framework


class _InputNorm(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.norm = _norm(inputs)

    def forward(self, x_BWF: Tensor) -> Tensor:
        out: Tensor = self.norm(x_BWF.flatten(0, 1)).view(x_BWF.shape)
        return out


class _Convolution(nn.Module):
    def __init__(self, inputs: int, width: int, settings: Baseline) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(inputs, width, settings.kernel), _norm(width)
        self.drop = nn.Dropout(settings.dropout)

    def forward(self, x_BWC: Tensor) -> Tensor:
        x_BCW = F.max_pool1d(F.relu(self.norm(self.conv(x_BWC.transpose(1, 2)))), 2)
        out: Tensor = self.drop(x_BCW.transpose(1, 2))
        return out

    def every_window(self, x_1CN: Tensor, step: int) -> Tensor:
        """The same for the windows around every frame; ``step`` frames lie between two of their
        steps."""
        h_1CN = F.conv1d(x_1CN, self.conv.weight, self.conv.bias, dilation=step)
        h_1CN = F.relu(self.norm(h_1CN))
        return torch.maximum(h_1CN[..., :-step], h_1CN[..., step:])


class _Attention(nn.Module):
    """Single head, keys equal to values, not scaled."""

    def __init__(self, inputs: int, width: int, settings: Baseline) -> None:
        super().__init__()
        self.query, self.value = nn.Linear(inputs, width), nn.Linear(inputs, width)
        self.mix = nn.Linear(width, width)
        self.norm, self.drop = _norm(width), nn.Dropout(settings.dropout)

    def forward(self, x_BWC: Tensor) -> Tensor:
        value = self.value(x_BWC)
        mixed = self.mix(F.scaled_dot_product_attention(self.query(x_BWC), value, value, scale=1.0))
        x_BCW = F.max_pool1d(F.relu(self.norm(mixed.transpose(1, 2))), 2)
        out: Tensor = self.drop(x_BCW.transpose(1, 2))
        return out


class _LastState(nn.Module):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, width, batch_first=True)

    def forward(self, x_BWF: Tensor) -> Tensor:
        out: Tensor = self.lstm(x_BWF)[1][0][0]
        return out


class _Dense(nn.Module):
    def __init__(self, inputs: int, width: int, settings: Baseline) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(inputs, width), _norm(width)
        self.drop = nn.Dropout(settings.dropout)

    def forward(self, x_BC: Tensor) -> Tensor:
        out: Tensor = self.drop(F.relu(self.norm(self.linear(x_BC))))
        return out


def _as_keras(module: nn.Module) -> None:
    """Initial weights of their framework: Glorot uniform, recurrent ones orthogonal, biases 0, the
    LSTM's forget bias 1."""
    if isinstance(module, nn.Linear | nn.Conv1d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, nn.LSTM):
        weight, recurrent, bias, second_bias = module.parameters()
        nn.init.xavier_uniform_(weight)
        nn.init.orthogonal_(recurrent)
        nn.init.zeros_(bias)
        nn.init.zeros_(second_bias).requires_grad_(False)  # Keras has only one
        with torch.no_grad():
            bias[module.hidden_size : 2 * module.hidden_size] = 1.0
