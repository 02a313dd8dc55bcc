"""Heads: embeddings to class scores, one output for each problem of a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pretrain.components import check_settings
from pretrain.errors import BadInput


class AbstractHead(nn.Module, ABC):
    """(B, T, D) to one (B, T, C) a problem.

    Subclasses take ``dim`` (D), ``classes`` (C of each problem) and keyword settings, and set ``context``.
    """

    context: int = 0
    """Frames to either side that a score depends on."""
    mean_D: Tensor
    scale_D: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean_D", torch.zeros(dim))
        self.register_buffer("scale_D", torch.ones(dim))

    @torch.no_grad()
    def standardise(self, z_ND: Tensor) -> None:
        """Takes mean and spread of each dimension from training embeddings; inputs are brought to unit spread from then on."""
        spread = z_ND.std(0)
        self.mean_D.copy_(z_ND.mean(0))
        self.scale_D.copy_(torch.where(spread > 1e-6, 1 / spread.clamp(min=1e-6), 0.0))

    @abstractmethod
    def forward(self, z_BTD: Tensor, valid_BT: Tensor) -> list[Tensor]:
        """Logits of every problem; frames that are not valid must not reach the others."""


class Linear(AbstractHead):
    """One linear layer on each frame's embedding: what the encoder already tells apart.

    Args:
        dim: D.
        classes: C of each problem.
        dropout: Share of the embedding hidden while fitting.
    """

    def __init__(self, dim: int, classes: list[int], *, dropout: float = 0.0) -> None:
        super().__init__(dim)
        self.drop = nn.Dropout(dropout)
        self.out = nn.ModuleList(nn.Linear(dim, number) for number in classes)

    def forward(self, z_BTD: Tensor, valid_BT: Tensor) -> list[Tensor]:
        """(B, T, D) to (B, T, C) for each problem."""
        z_BTD = self.drop((z_BTD - self.mean_D) * self.scale_D)
        return [out(z_BTD) for out in self.out]


class Temporal(AbstractHead):
    """Two dilated convolutions over time, then a linear layer.

    Args:
        dim: D.
        classes: C of each problem.
        width: Channels.
        dilation: Step of the second convolution; the reach is ``2 * (1 + dilation)`` frames to either side.
        dropout: Share of the channels hidden while fitting.
    """

    def __init__(self, dim: int, classes: list[int], *, width: int = 64, dilation: int = 4, dropout: float = 0.3) -> None:
        super().__init__(dim)
        self.enter = nn.Conv1d(dim, width, 5, padding=2)
        self.wider = nn.Conv1d(width, width, 5, padding=2 * dilation, dilation=dilation)
        self.drop = nn.Dropout(dropout)
        self.out = nn.ModuleList(nn.Linear(width, number) for number in classes)
        self.context = 2 * (1 + dilation)

    def forward(self, z_BTD: Tensor, valid_BT: Tensor) -> list[Tensor]:
        """(B, T, D) to (B, T, C) for each problem."""
        valid_B1T = valid_BT.unsqueeze(1)
        h_BDT = torch.where(valid_B1T, ((z_BTD - self.mean_D) * self.scale_D).transpose(1, 2), 0.0)
        h_BDT = torch.where(valid_B1T, nn.functional.gelu(self.enter(self.drop(h_BDT))), 0.0)
        h_BDT = h_BDT + nn.functional.gelu(self.wider(self.drop(h_BDT)))
        h_BTD = self.drop(h_BDT).transpose(1, 2)
        return [out(h_BTD) for out in self.out]


HEADS: Mapping[str, type[AbstractHead]] = {"linear": Linear, "temporal": Temporal}


def build_head(spec: Mapping[str, Any], dim: int, classes: list[int]) -> AbstractHead:
    """A head from ``{"name": …, setting: value}``.

    Raises:
        BadInput: If the name or a setting is unknown.
    """
    name = str(spec.get("name"))
    if name not in HEADS:
        raise BadInput(f"head: there is no {name!r}; there are: {', '.join(HEADS)}")
    settings = {key: value for key, value in spec.items() if key != "name"}
    check_settings(HEADS[name], settings, about=f"head: {name}")
    head: AbstractHead = HEADS[name](dim, classes, **settings)  # type: ignore[call-arg]
    return head
