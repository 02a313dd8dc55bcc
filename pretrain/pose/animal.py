"""Animals by their points' names, laid out so that arithmetic over millions of frames runs at the speed of memory.

Tensors are planes, ``(A, X, B, T)`` with ``A`` animals or pairs of animals: each coordinate of each point lies in one piece.
Anything that needs a missing point is NaN.
"""

from __future__ import annotations

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.pose.landmarks import Landmarks

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

    def __init__(self, planes_AKXBT: Tensor, marks: Landmarks, chosen: list[int] | None = None, whole: Animal | None = None) -> None:
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
        return self._whole_centre if not self._gaps else self._planes.nanmean(1)

    @cached_property
    def moved(self) -> Tensor:
        """Displacement of the centre: mean over the points that are seen at both times."""
        if self._whole is not None:
            return self._choose(self._whole.moved)
        return displacement(self._whole_centre) if not self._gaps else displacement(self._planes).nanmean(1)

    @cached_property
    def _whole_centre(self) -> Tensor:
        return self._planes.mean(1)

    @cached_property
    def _gaps(self) -> bool:
        # Means over seen points cost three times as much. Asking would halt a GPU, which can afford them.
        return torch.compiler.is_compiling() or self._planes.device.type != "cpu" or bool(self._whole_centre.sum().isnan())


def displacement(point: Tensor) -> Tensor:
    """Displacement over 2 * SPAN frames, centred; NaN at the edges."""
    if point.shape[-1] <= 2 * SPAN:
        return torch.full_like(point, torch.nan)
    return F.pad(point[..., 2 * SPAN :] - point[..., : -2 * SPAN], (SPAN, SPAN), value=torch.nan)


def length(v: Tensor) -> Tensor:
    """(A, X, B, T) to (A, B, T); the gradient of standing still is 0."""
    x, y = v.unbind(1)
    if not v.requires_grad:
        return torch.hypot(x, y)
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
    if unknown is None and cross.device.type == "cpu" and bool(cross.all()):  # nobody points exactly along b: nothing to guard
        return torch.atan2(cross, dot)
    none = (cross == 0) & (dot == 0)
    found = torch.atan2(cross, dot.masked_fill(none, 1.0)).masked_fill(none, torch.nan)
    return found if unknown is None else found.masked_fill(unknown, torch.nan)
