"""Animals by their points' names, for programs.

Tensors are ``(A, X, B, T)`` with ``A`` animals or pairs of animals: frames come last, so that
arithmetic over millions of them runs at the speed of memory. What needs a missing point is NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.transforms.landmarks import Landmarks

SPAN = 2
"""Frames before and after a frame between which movement is measured."""


class Animal:
    """Several animals at once (all of them, or one side of all pairs), their points by name.

    Args:
        position_AKXBT: Positions of all animals (px).
        landmarks: Which keypoints are nose, neck and tail base.
        indices: Which of the animals; all where None.
        everyone: All of the animals, where this is some of them: what is known of them is not
            computed again.
    """

    def __init__(
        self,
        position_AKXBT: Tensor,
        landmarks: Landmarks,
        indices: list[int] | None = None,
        everyone: Animal | None = None,
    ) -> None:
        self._position, self._landmarks = position_AKXBT, landmarks
        self._indices, self._everyone = indices, everyone

    def _point(self, keypoint: int) -> Tensor:
        return self._select(self._position[:, keypoint])

    def _select(self, x: Tensor) -> Tensor:
        indices = self._indices
        if indices is None or indices == list(range(len(x))):
            return x
        if indices == list(range(len(x)))[::-1]:
            return x.flip(0)
        return x[indices[0] : indices[0] + 1] if len(indices) == 1 else x[indices]

    @cached_property
    def nose(self) -> Tensor:
        """(A, X, B, T) px, as all points."""
        return self._point(self._landmarks.nose)

    @cached_property
    def neck(self) -> Tensor:
        """Where head and body meet."""
        return self._point(self._landmarks.neck)

    @cached_property
    def tail_base(self) -> Tensor:
        """Rear end of the body."""
        return self._point(self._landmarks.tail_base)

    @cached_property
    def axis(self) -> Tensor:
        """From the tail base to the neck."""
        return self.neck - self.tail_base

    @cached_property
    def centre(self) -> Tensor:
        """Mean of the visible points."""
        if self._everyone is not None and self._indices is not None:
            return self._select(self._everyone.centre)
        return visible_mean(self._position) if self._has_gaps else self._mean_of_all

    @cached_property
    def moved(self) -> Tensor:
        """Displacement of the centre: mean over the points that are visible at both times."""
        if self._everyone is not None:
            return self._select(self._everyone.moved)
        if self._has_gaps:
            return displacement(self._position, visible_mean)
        return displacement(self._mean_of_all)

    @cached_property
    def _mean_of_all(self) -> Tensor:
        return self._position.mean(1)

    @cached_property
    def _has_gaps(self) -> bool:
        # Means over visible points cost three times as much. Asking would halt a GPU, which can
        # afford them.
        return self._position.device.type != "cpu" or bool(self._mean_of_all.sum().isnan())


def visible_mean(points_AKXBT: Tensor) -> Tensor:
    """Mean over the visible points, (A, X, B, T); NaN where none is."""
    if not points_AKXBT.requires_grad and points_AKXBT.device.type == "cpu":
        # On a processor torch takes seven times as long for a comparison that gives truth values as
        # for one that gives numbers.
        return (
            points_AKXBT.nan_to_num(0.0).sum(1).div_(points_AKXBT.clone().eq_(points_AKXBT).sum(1))
        )
    visible = points_AKXBT == points_AKXBT
    return torch.where(visible, points_AKXBT, 0.0).sum(1) / visible.to(points_AKXBT.dtype).sum(1)


def displacement(point: Tensor, reduce: Callable[[Tensor], Tensor] = lambda x: x) -> Tensor:
    """Displacement over 2 * SPAN frames, centred, and reduced; NaN at the edges."""
    if point.shape[-1] <= 2 * SPAN:
        return torch.full_like(reduce(point), torch.nan)
    moved = reduce(point[..., 2 * SPAN :] - point[..., : -2 * SPAN])
    return F.pad(moved, (SPAN, SPAN), value=torch.nan)


def length(v: Tensor) -> Tensor:
    """(A, X, B, T) to (A, B, T); the gradient of standing still is 0."""
    x, y = v.unbind(1)
    if not v.requires_grad:
        return (x * x).addcmul_(y, y).sqrt_()
    unknown, still = x.isnan() | y.isnan(), (x == 0) & (y == 0)
    known = torch.hypot(x.masked_fill(unknown | still, 1.0), y.masked_fill(unknown, 1.0))
    return known.masked_fill(still, 0.0).masked_fill(unknown, torch.nan)


def angle(a: Tensor, b: Tensor) -> Tensor:
    """Signed angle from a to b; NaN where one of them has no length."""
    unknown = None
    if a.requires_grad or b.requires_grad:  # else a gradient of 0 times NaN would be NaN
        unknown = (a.isnan() | b.isnan()).any(1)
        a, b = a.masked_fill(unknown.unsqueeze(1), 1.0), b.masked_fill(unknown.unsqueeze(1), 1.0)
    (ax, ay), (bx, by) = a.unbind(1), b.unbind(1)
    cross, dot = torch.addcmul(ax * by, ay, bx, value=-1), torch.addcmul(ax * bx, ay, by)
    if unknown is None:
        return torch.atan2(cross, dot).addcdiv_(
            dot.new_zeros(()), cross.abs().add_(dot.abs())
        )  # 0 / 0 is NaN, where both are 0
    no_length = (cross == 0) & (dot == 0)
    return torch.atan2(cross, dot.masked_fill(no_length, 1.0)).masked_fill(
        no_length | unknown, torch.nan
    )
