"""Losses of heads, frame by frame. One file each, found by being here; its name is its name in a
task (``loss: focal``), its constructor's keyword arguments are its settings (``loss: {name: focal,
gamma: 1}``)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pretrain.components import build


class AbstractLoss(ABC):
    """The loss of each of N frames, for exclusive classes and for overlapping behaviours.

    Subclasses are frozen dataclasses whose fields are settings. Targets are shares of the classes:
    0 and 1, or between them where labels are smoothed.
    """

    @abstractmethod
    def exclusive(self, logits_NC: Tensor, target_NC: Tensor, weight_C: Tensor) -> Tensor:
        """(N,): every class's share of a frame's loss times its weight."""

    @abstractmethod
    def overlapping(self, logits_NC: Tensor, target_NC: Tensor, weight_C: Tensor) -> Tensor:
        """(N, C): each behaviour by itself; its positive frames have the weight, its negative ones
        1."""


def build_loss(spec: str | Mapping[str, Any]) -> AbstractLoss:
    """The loss from its name, or from ``{"name": …, setting: value}``.

    Raises:
        BadInput: If the name or a setting is unknown or a value is not allowed.
    """
    settings = {"name": spec} if isinstance(spec, str) else spec
    out: AbstractLoss = build(__name__, settings, AbstractLoss)
    return out
