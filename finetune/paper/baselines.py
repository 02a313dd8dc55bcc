"""The benchmark paper's own networks, one window a frame: supervised baselines without pretraining
(CalMS21, Sun et al. 2021).

Networks are theirs, and so are the initial weights and batch norm of their framework, Keras;
widths, windows and training settings are in ``networks/``. ``windows.py`` cuts what they read,
``fit.py`` trains them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.config import read
from pretrain.errors import refuse

NETWORKS = Path(__file__).parent / "networks"


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """One network of the paper and how it was trained on Task 1."""

    network: Literal["conv1d", "lstm", "self_attention", "fully_connected"]
    widths: Sequence[int]
    past: int
    """Steps before the frame in its window."""
    future: int
    """Steps after it."""
    skip: int
    """Frames in a step."""
    lr: float
    """Of Adam, constant."""
    dropout: float
    epochs: int
    augment: bool = False
    batch: int = 128
    """Windows a step."""
    kernel: int = 5
    """Taps of conv1d."""
    state: int = 256
    """Width of the LSTM's state."""

    def __post_init__(self) -> None:
        least = {
            "past": 0,
            "future": 0,
            "skip": 1,
            "epochs": 1,
            "batch": 2,
            "kernel": 1,
            "state": 1,
        }
        problems = [
            f"{name} is {getattr(self, name)}; it must be at least {low}"
            for name, low in least.items()
            if getattr(self, name) < low
        ]
        problems += (
            [f"widths are {list(self.widths)}; give at least one, each at least 1"]
            if min(self.widths, default=0) < 1
            else []
        )
        problems += [f"lr is {self.lr}; it must be above 0"] if not self.lr > 0 else []
        problems += (
            [f"dropout is {self.dropout}; it must be at least 0 and below 1"]
            if not 0 <= self.dropout < 1
            else []
        )
        refuse(problems, about="a network of the paper")

    @property
    def window(self) -> int:
        """Steps of a window, W."""
        return self.past + 1 + self.future


def published_network(name: str, changed: Mapping[str, Any] | None = None) -> Baseline:
    """A published network's settings: ``conv1d`` is "the baseline", ``conv1d_augmented`` where
    Tasks 2 and 3 start from.

    Args:
        name: A file of ``finetune/paper/networks/``, or a path.
        changed: Keys to other values.

    Raises:
        BadInput: If there is none of that name, or its settings are wrong.
    """
    return read(Baseline, name, NETWORKS, changed or {})


def build_baseline(settings: Baseline, *, inputs: int, classes: int) -> nn.Module:
    """The network, (B, W, F) to (B, C) logits.

    Args:
        settings: Which, and its widths.
        inputs: F, 28 for CalMS21's coordinates, 60 with the 32 task-programming features.
        classes: C.

    Raises:
        BadInput: If the window is too short for the network's poolings.
    """
    size = settings.window
    shrink = {"conv1d": settings.kernel - 1, "self_attention": 0}
    if settings.network in shrink:
        for _ in settings.widths:
            size = (size - shrink[settings.network]) // 2
    too_short = (
        f"a window of {settings.window} steps is too short for {len(settings.widths)} layers "
        f"of {settings.network}"
    )
    refuse([too_short] if size < 1 else [], about="the baseline")
    if settings.network == "conv1d":
        pairs = itertools.pairwise((inputs, *settings.widths))
        body: list[nn.Module] = [_Convolution(a, b, settings) for a, b in pairs]
        network = nn.Sequential(
            _InputNorm(inputs), *body, nn.Flatten(), nn.Linear(size * settings.widths[-1], classes)
        )
    elif settings.network == "self_attention":
        body = [
            _Attention(a, b, settings) for a, b in itertools.pairwise((inputs, *settings.widths))
        ]
        network = nn.Sequential(
            _InputNorm(inputs), *body, nn.Flatten(), nn.Linear(size * settings.widths[-1], classes)
        )
    elif settings.network == "lstm":
        body = [
            _Dense(a, b, settings)
            for a, b in itertools.pairwise((settings.state, *settings.widths))
        ]
        network = nn.Sequential(
            _InputNorm(inputs),
            _LastState(inputs, settings.state),
            *body,
            nn.Linear(settings.widths[-1], classes),
        )
    else:
        flat = settings.window * inputs
        body = [_Dense(a, b, settings) for a, b in itertools.pairwise((flat, *settings.widths))]
        network = nn.Sequential(
            nn.Flatten(), _norm(flat), *body, nn.Linear(settings.widths[-1], classes)
        )
    network.apply(_as_keras)
    return network


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


class _Attention(nn.Module):
    """Single head, keys equal to values, not scaled."""

    def __init__(self, inputs: int, width: int, settings: Baseline) -> None:
        super().__init__()
        self.query, self.value, self.mix = (
            nn.Linear(inputs, width),
            nn.Linear(inputs, width),
            nn.Linear(width, width),
        )
        self.norm, self.drop = _norm(width), nn.Dropout(settings.dropout)

    def forward(self, x_BWC: Tensor) -> Tensor:
        value = self.value(x_BWC)
        met = F.scaled_dot_product_attention(self.query(x_BWC), value, value, scale=1.0)
        x_BCW = F.max_pool1d(F.relu(self.norm(self.mix(met).transpose(1, 2))), 2)
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
        self.linear, self.norm, self.drop = (
            nn.Linear(inputs, width),
            _norm(width),
            nn.Dropout(settings.dropout),
        )

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
        enter, recur, bias, second_bias = module.parameters()
        nn.init.xavier_uniform_(enter)
        nn.init.orthogonal_(recur)
        nn.init.zeros_(bias)
        nn.init.zeros_(second_bias).requires_grad_(False)  # theirs has one
        with torch.no_grad():
            bias[module.hidden_size : 2 * module.hidden_size] = 1.0
