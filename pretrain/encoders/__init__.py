"""Encoders: one file each, one embedding for every frame."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from pretrain.components import build, check_settings
from pretrain.pose.features import Features
from pretrain.pose.schema import Schema
from pretrain.pose.windows import Pose, Windows


class AbstractEncoder(nn.Module, ABC):
    """(B, T, F) to (B, T, D), frame by frame. The name of its file is its name in a recipe, its arguments its settings.

    Subclasses take ``features`` (the fitted or unfitted :class:`Features`, which give ``width`` and ``schema``) and
    keyword settings, and set ``dim`` (D) and ``context``.
    """

    dim: int
    """D, numbers in an embedding."""
    context: tuple[int, int]
    """Frames before and after a frame that its embedding depends on at most, features apart."""
    grid: int = 1
    """Frames of the patches it reads as one, counted from the first frame of a window: a video embedded in pieces is embedded as in
    one if the pieces begin on them."""

    @abstractmethod
    def forward(self, x_BTF: Tensor, valid_BT: Tensor) -> Tensor:
        """Embeds every frame.

        Args:
            x_BTF: What :class:`Features` returns.
            valid_BT: bool, False in frames that do not exist; they must not reach any other frame.

        Returns:
            (B, T, D).
        """


class Embedder(nn.Module):
    """Features and encoder together: poses in, one embedding a frame out. :func:`build_embedder` makes it.

    Attributes:
        made_of: The settings it was built from: ``features`` and ``encoder``.
    """

    def __init__(self, features: Features, encoder: AbstractEncoder, *, made_of: Mapping[str, Any]) -> None:
        super().__init__()
        self.features, self.encoder, self.made_of = features, encoder, made_of

    @property
    def dim(self) -> int:
        """D."""
        return self.encoder.dim

    @property
    def overlap(self) -> int:
        """Frames of context on either side that an embedding may depend on, in whole patches of the encoder."""
        reach = max(self.encoder.context) + self.features.context
        return -(-reach // self.encoder.grid) * self.encoder.grid

    def forward(self, pose: Pose, valid_BT: Tensor) -> Tensor:
        """(B, T, D) in the type the encoder computes in."""
        z_BTD: Tensor = self.encoder(self.features(pose), valid_BT)
        return z_BTD

    def embed(self, windows: Windows) -> Tensor:
        """As calling it, on :class:`Windows`."""
        z_BTD: Tensor = self(windows.pose, windows.valid_BT)
        return z_BTD


def build_embedder(schema: Schema, *, features: Mapping[str, Any], encoder: Mapping[str, Any]) -> Embedder:
    """Features and encoder from their settings, untrained and unfitted.

    Raises:
        BadInput: If a name or a setting is unknown or of the wrong type, or does not fit the skeleton.
    """
    check_settings(Features, features, about="features")
    read = Features(schema, **features)
    made_of = {"features": dict(features), "encoder": dict(encoder)}
    return Embedder(read, build(__name__, encoder, AbstractEncoder, read), made_of=made_of)
