"""Objectives: one file each. What an encoder learns from poses that nobody labelled."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from pretrain.data.window_rng import WindowRNG
from pretrain.data.windows import Pose, Windows


class View(NamedTuple):
    """One augmented view of the windows, embedded."""

    pose: Pose
    """The view as augmented, with the points that the objective masked for the encoder."""
    z_BTD: Tensor
    """float32."""
    exact: Pose | None = None
    """The view before noise and dropped points; None: ``pose`` is without either."""


class Loss(NamedTuple):
    """What an objective returns."""

    total: Tensor
    """Scalar to descend: this worker's share, whose mean over the workers is the loss of the joined
    batch."""
    parts: Mapping[str, Tensor]
    """Scalars to log, by name, without gradient; averaged over the workers."""


class AbstractObjective(nn.Module, ABC):
    """A loss on embedded views. The name of its file is its name in a recipe, its arguments its
    settings.

    Subclasses take ``dim`` (D of the encoder), ``schema`` and keyword settings. Their parameters
    (projection heads, decoders) are trained along and not kept.
    """

    views: int = 1
    """How many views of each window it needs."""
    shares_views: bool = True
    """Whether other objectives can use its views as well; not where it masks long stretches of
    them."""

    def fit(self, pose: Pose) -> None:
        """Takes scales, ranges or thresholds from a sample of unlabelled poses, once, before
        training. Nothing by default."""
        del pose

    def mask(self, pose: Pose, windows: Windows, rng: WindowRNG, *, view: int) -> Pose:
        """What the encoder is given of a view. A masked point is a missing one: NaN with
        confidence 0.

        Args:
            pose: The augmented view.
            windows: The windows as they were recorded, and which frames exist.
            rng: Random draws that belong to the windows.
            view: Which view, from 0.

        Returns:
            The pose itself by default.
        """
        del windows, rng, view
        return pose

    @abstractmethod
    def forward(self, views: tuple[View, ...], windows: Windows, rng: WindowRNG) -> Loss:
        """The loss of this worker's rows.

        Args:
            views: As many as ``views``, embedded in one pass.
            windows: The windows as they were recorded, and which frames exist.
            rng: Random draws that belong to the windows.
        """
