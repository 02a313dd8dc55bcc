"""Encoders: one file each, one embedding for every frame."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pretrain.components import build, find, setting_errors, settings_of
from pretrain.data.schema import Schema
from pretrain.data.windows import Pose, Windows
from pretrain.errors import refuse
from pretrain.transforms.features import Features, mean_and_scale


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
    """Groups of features that it cannot do without; :func:`build_embedder` adds them."""

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
        settings: What it was built from: ``features``, ``encoder``, and ``extra_features`` where
            there are any.
        extra_features: External features that are appended to every embedding (name to dimension),
            standardised, 0 where unknown. They are for heads; the encoder does not read them.
    """

    extra_mean_E: Tensor
    extra_scale_E: Tensor

    def __init__(
        self,
        features: Features,
        encoder: AbstractEncoder,
        *,
        settings: Mapping[str, Any],
        extra_features: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.features, self.encoder, self.settings = features, encoder, settings
        self.extra_features = dict(extra_features or {})
        if self.extra_features:
            width = sum(self.extra_features.values())
            self.register_buffer("extra_mean_E", torch.zeros(width))
            self.register_buffer("extra_scale_E", torch.ones(width))

    @property
    def external(self) -> dict[str, int]:
        """External features that poses must bring (:attr:`Pose.extra_BTE`), in this order: name to
        dimension."""
        return {**self.features.external, **self.extra_features}

    @property
    def dim(self) -> int:
        """D."""
        return self.encoder.dim + sum(self.extra_features.values())

    @property
    def overlap(self) -> int:
        """Frames of context on either side that an embedding may depend on, in whole patches of the
        encoder."""
        reach = max(self.encoder.context) + self.features.context
        return -(-reach // self.encoder.grid) * self.encoder.grid

    def forward(self, pose: Pose, valid_BT: Tensor) -> Tensor:
        """(B, T, D) in the type the encoder computes in."""
        z_BTD: Tensor = self.encoder(self.features(pose), valid_BT)
        if not self.extra_features:
            return z_BTD
        extra_BTE = ((self._extra(pose) - self.extra_mean_E) * self.extra_scale_E).nan_to_num(0.0)
        return torch.cat([z_BTD, extra_BTE.to(z_BTD.dtype)], -1)

    @torch.no_grad()
    def fit_extra_features(self, pose: Pose) -> None:
        """Takes mean and spread of the extra features from a sample."""
        mean_E, scale_E = mean_and_scale(self._extra(pose).flatten(0, 1))
        self.extra_mean_E.copy_(mean_E)
        self.extra_scale_E.copy_(scale_E)

    def _extra(self, pose: Pose) -> Tensor:
        """(B, T, E), the extra features as they are in the store."""
        assert pose.extra_BTE is not None, f"poses without the features {list(self.external)}"
        parts = torch.split(pose.extra_BTE, list(self.external.values()), -1)
        by_name = dict(zip(self.external, parts, strict=True))
        return torch.cat([by_name[name] for name in self.extra_features], -1)

    def embed(self, windows: Windows) -> Tensor:
        """As calling it, on :class:`Windows`."""
        out: Tensor = self(windows.pose, windows.valid_BT)
        return out


def build_embedder(
    schema: Schema,
    *,
    features: Mapping[str, Any],
    encoder: Mapping[str, Any],
    extra_features: Mapping[str, int] | None = None,
) -> Embedder:
    """Features and encoder from their settings, untrained and unfitted.

    Raises:
        BadInput: If a name or a setting is unknown or of the wrong type, or does not fit the
            skeleton.
    """
    refuse(setting_errors(settings_of(Features), features), about="features")
    features = with_needed_groups(features, encoder)
    inputs = Features(schema, **features)
    settings: dict[str, Any] = {"features": features, "encoder": dict(encoder)}
    if extra_features:
        settings["extra_features"] = dict(extra_features)
    return Embedder(
        inputs,
        build(__name__, encoder, AbstractEncoder, inputs),
        settings=settings,
        extra_features=extra_features,
    )


def with_needed_groups(features: Mapping[str, Any], encoder: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the features, with the groups added that an encoder cannot do without.

    Raises:
        BadInput: If there is no such encoder.
    """
    kind: type[AbstractEncoder] = find(__name__, encoder.get("name"), AbstractEncoder)
    groups = features.get("groups", settings_of(Features)["groups"].default)
    if not isinstance(groups, list | tuple):
        return dict(features)  # which :func:`build_embedder` refuses
    missing = [group for group in kind.groups if group not in groups]
    return {**features, "groups": [*groups, *missing]} if missing else dict(features)
