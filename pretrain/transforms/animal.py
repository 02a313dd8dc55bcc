"""Animals by their points' names, laid out so that arithmetic over millions of frames runs at the
speed of memory.

Tensors are planes, ``(A, X, B, T)`` with ``A`` animals or pairs of animals: each coordinate of each
point lies in one piece. Anything that needs a missing point is NaN.
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
    """Some animals at once (all of them, or one side of all pairs), their points by name.

    Args:
        planes_AKXBT: Positions of the animals (px).
        marks: Which keypoints play nose, neck and tail base.
        chosen: Which animals, by place; all where None.
        whole: The animals this is a choice of, where it is one.
    """

    def __init__(
        self,
        planes_AKXBT: Tensor,
        marks: Landmarks,
        chosen: list[int] | None = None,
        whole: Animal | None = None,
    ) -> None:
        self._planes, self._marks, self._chosen, self._whole = planes_AKXBT, marks, chosen, whole

    def _point(self, place: int) -> Tensor:
        return self._choose(self._planes[:, place])

    def _choose(self, x: Tensor) -> Tensor:
        chosen = self._chosen
        if chosen is None or chosen == list(range(len(x))):
            return x
        if chosen == list(range(len(x)))[::-1]:
            return x.flip(0)
        return x[chosen[0] : chosen[0] + 1] if len(chosen) == 1 else x[chosen]

    @cached_property
    def nose(self) -> Tensor:
        """(A, X, B, T) px, as all points."""
        return self._point(self._marks.nose)

    @cached_property
    def neck(self) -> Tensor:
        """Where head and body meet."""
        return self._point(self._marks.neck)

    @cached_property
    def tail_base(self) -> Tensor:
        """Rear end of the body."""
        return self._point(self._marks.tail_base)

    @cached_property
    def axis(self) -> Tensor:
        """From the tail base to the neck."""
        return self.neck - self.tail_base

    @cached_property
    def centre(self) -> Tensor:
        """Mean of the points that are seen."""
        if self._whole is not None and self._chosen is not None:
            return self._choose(self._whole.centre)
        return self._whole_centre if not self._gaps else seen_mean(self._planes)

    @cached_property
    def moved(self) -> Tensor:
        """Displacement of the centre: mean over the points that are seen at both times."""
        if self._whole is not None:
            return self._choose(self._whole.moved)
        return (
            displacement(self._whole_centre)
            if not self._gaps
            else displacement(self._planes, seen_mean)
        )

    @cached_property
    def _whole_centre(self) -> Tensor:
        return self._planes.mean(1)

    @cached_property
    def _gaps(self) -> bool:
        # Means over seen points cost three times as much. Asking would halt a GPU, which can afford
        # them.
        return self._planes.device.type != "cpu" or bool(self._whole_centre.sum().isnan())


def seen_mean(points_AKXBT: Tensor) -> Tensor:
    """Mean over the points that are seen, (A, X, B, T); NaN where none is."""
    if not points_AKXBT.requires_grad and points_AKXBT.device.type == "cpu":
        # On a processor torch takes seven times as long for a comparison that gives truth values as
        # for one that gives numbers.
        return (
            points_AKXBT.nan_to_num(0.0).sum(1).div_(points_AKXBT.clone().eq_(points_AKXBT).sum(1))
        )
    seen = points_AKXBT == points_AKXBT
    return torch.where(seen, points_AKXBT, 0.0).sum(1) / seen.to(points_AKXBT.dtype).sum(1)


def displacement(point: Tensor, of: Callable[[Tensor], Tensor] = lambda x: x) -> Tensor:
    """Displacement over 2 * SPAN frames, centred, and what ``of`` makes of it; NaN at the edges."""
    if point.shape[-1] <= 2 * SPAN:
        return torch.full_like(of(point), torch.nan)
    return F.pad(
        of(point[..., 2 * SPAN :] - point[..., : -2 * SPAN]), (SPAN, SPAN), value=torch.nan
    )


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
    none = (cross == 0) & (dot == 0)
    return torch.atan2(cross, dot.masked_fill(none, 1.0)).masked_fill(none | unknown, torch.nan)
