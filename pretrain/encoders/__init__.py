"""Encoders: one file each, one embedding for every frame."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pretrain.components import build, check_settings
from pretrain.data.schema import Schema
from pretrain.data.windows import Pose, Windows
from pretrain.transforms.features import Features, standard


class AbstractEncoder(nn.Module, ABC):
    """(B, T, F) to (B, T, D), frame by frame. The name of its file is its name in a recipe, its
    arguments its settings.

    Subclasses take ``features`` (the fitted or unfitted :class:`Features`, which give ``width`` and
    ``schema``) and keyword settings, and set ``dim`` (D) and ``context``.
    """

    dim: int
    """D, numbers in an embedding."""
    context: tuple[int, int]
    """Frames before and after a frame that its embedding depends on at most, features apart."""
    grid: int = 1
    """Frames of the patches it reads as one, counted from the first frame of a window: a video
    embedded in pieces is embedded as in one if the pieces begin on them."""
    groups: tuple[str, ...] = ()
    """Groups of features that it cannot do without."""

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
    """Features and encoder together: poses in, one embedding a frame out. :func:`build_embedder`
    makes it.

    Attributes:
        made_of: The settings it was built from: ``features``, ``encoder``, and ``beside`` where
            there is some.
        beside: Features from elsewhere that stand in every embedding behind what the encoder makes
            (name to dimension), standardised, 0 where unknown. They are for heads; the encoder does
            not read them.
    """

    beside_mean_E: Tensor
    beside_scale_E: Tensor

    def __init__(
        self,
        features: Features,
        encoder: AbstractEncoder,
        *,
        made_of: Mapping[str, Any],
        beside: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.features, self.encoder, self.made_of, self.beside = (
            features,
            encoder,
            made_of,
            dict(beside or {}),
        )
        if self.beside:
            self.register_buffer("beside_mean_E", torch.zeros(sum(self.beside.values())))
            self.register_buffer("beside_scale_E", torch.ones(sum(self.beside.values())))

    @property
    def external(self) -> dict[str, int]:
        """Features from elsewhere that poses must bring (:attr:`Pose.extra_BTE`), in this order:
        name to dimension."""
        return {**self.features.external, **self.beside}

    @property
    def dim(self) -> int:
        """D."""
        return self.encoder.dim + sum(self.beside.values())

    @property
    def overlap(self) -> int:
        """Frames of context on either side that an embedding may depend on, in whole patches of the
        encoder."""
        reach = max(self.encoder.context) + self.features.context
        return -(-reach // self.encoder.grid) * self.encoder.grid

    def forward(self, pose: Pose, valid_BT: Tensor) -> Tensor:
        """(B, T, D) in the type the encoder computes in."""
        z_BTD: Tensor = self.encoder(self.features(pose), valid_BT)
        if not self.beside:
            return z_BTD
        beside_BTE = ((self._beside(pose) - self.beside_mean_E) * self.beside_scale_E).nan_to_num(
            0.0
        )
        return torch.cat([z_BTD, beside_BTE.to(z_BTD.dtype)], -1)

    @torch.no_grad()
    def fit_beside(self, pose: Pose) -> None:
        """Takes mean and spread of the features beside the embedding from a sample."""
        mean_E, scale_E = standard(self._beside(pose).flatten(0, 1))
        self.beside_mean_E.copy_(mean_E)
        self.beside_scale_E.copy_(scale_E)

    def _beside(self, pose: Pose) -> Tensor:
        """(B, T, E) as they came."""
        assert pose.extra_BTE is not None, f"poses without the features {list(self.external)}"
        held = dict(
            zip(
                self.external,
                torch.split(pose.extra_BTE, list(self.external.values()), -1),
                strict=True,
            )
        )
        return torch.cat([held[name] for name in self.beside], -1)

    def embed(self, windows: Windows) -> Tensor:
        """As calling it, on :class:`Windows`."""
        z_BTD: Tensor = self(windows.pose, windows.valid_BT)
        return z_BTD


def build_embedder(
    schema: Schema,
    *,
    features: Mapping[str, Any],
    encoder: Mapping[str, Any],
    beside: Mapping[str, int] | None = None,
) -> Embedder:
    """Features and encoder from their settings, untrained and unfitted.

    Raises:
        BadInput: If a name or a setting is unknown or of the wrong type, or does not fit the
            skeleton.
    """
    check_settings(Features, features, about="features")
    read = Features(schema, **features)
    made_of = {
        "features": dict(features),
        "encoder": dict(encoder),
        **({"beside": dict(beside)} if beside else {}),
    }
    return Embedder(
        read, build(__name__, encoder, AbstractEncoder, read), made_of=made_of, beside=beside
    )
