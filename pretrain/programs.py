"""Task programming's programs: what an expert would measure, one small function each, for every frame at once.

A program reads an animal's keypoints by name and returns a number a frame; thresholds cut the number into classes. To add
one, write a function here and decorate it: it is found by being here, for every animal or pair of animals of any skeleton.

Inside, tensors are planes, ``(A, X, B, T)`` with ``A`` animals or pairs: each coordinate of each point lies in one piece, so
that all programs run at the speed of memory. Anything that needs a missing point is NaN.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.pose.landmarks import Landmarks
from pretrain.pose.schema import Schema

SPAN = 2
"""Frames before and after a frame between which movement is measured."""

Of = Literal["animal", "towards", "pair", "first"]


@dataclass(frozen=True, kw_only=True)
class Program:
    """One program, as :func:`program` makes it."""

    name: str
    measure: Callable[..., Tensor]
    of: Of
    """``animal``: of each; ``towards``: of each towards each other; ``pair``: of each two; ``first``: of the first towards each other."""
    unit: str
    thresholds: tuple[float, ...]
    """Published cuts, rising; a frame's class is the number of thresholds below its value."""

    def applies_to(self, animals: int) -> list[tuple[int, ...]]:
        """The animals, or pairs of animals, it is measured on."""
        if self.of == "animal":
            return [(one,) for one in range(animals)]
        pairs = list(itertools.permutations(range(animals), 2))
        return [(a, b) for a, b in pairs if self.of == "towards" or (self.of == "pair" and a < b) or (self.of == "first" and a == 0)]


def program(*, of: Of, unit: str, thresholds: tuple[float, ...]) -> Callable[[Callable[..., Tensor]], Program]:
    """Makes a function of one animal, or of one and another, a program of that function's name."""
    assert list(thresholds) == sorted(thresholds), "thresholds must rise"

    def made(measure: Callable[..., Tensor]) -> Program:
        return Program(name=measure.__name__, measure=measure, of=of, unit=unit, thresholds=thresholds)

    return made


@program(of="animal", unit="px in 4 frames", thresholds=(10.0, 20.0))
def speed(me: Animal) -> Tensor:
    """How far the body moved."""
    return _length(me.moved)


@program(of="towards", unit="rad", thresholds=(0.5, 1.5))
def facing(me: Animal, other: Animal) -> Tensor:
    """Angle between the body axis and the way to the other's centre, 0 (facing it) to pi."""
    return _angle(me.axis, other.centre - me.centre).abs()


@program(of="animal", unit="px in 4 frames", thresholds=(5.0, 8.0))
def nose_movement(me: Animal) -> Tensor:
    """How far the nose moved beyond what the body did."""
    return _length(_moved(me.nose) - me.moved)


@program(of="pair", unit="px", thresholds=(60.0, 200.0))
def nose_to_nose(me: Animal, other: Animal) -> Tensor:
    """Distance between noses."""
    return _length(other.nose - me.nose)


@program(of="first", unit="px", thresholds=(60.0, 200.0))
def nose_to_tail(me: Animal, other: Animal) -> Tensor:
    """Distance from the nose to the other's tail base."""
    return _length(other.tail_base - me.nose)


@program(of="animal", unit="rad", thresholds=(-0.5, 0.5))
def head_to_body(me: Animal) -> Tensor:
    """Signed angle at the neck from the body axis to the head; positive where the head points to the animal's right."""
    return _angle(me.axis, me.nose - me.neck)


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
        return _moved(self._whole_centre) if not self._gaps else _moved(self._planes).nanmean(1)

    @cached_property
    def _whole_centre(self) -> Tensor:
        return self._planes.mean(1)

    @cached_property
    def _gaps(self) -> bool:
        # Means over seen points cost three times as much. Asking would halt a GPU, which can afford them.
        return torch.compiler.is_compiling() or self._planes.device.type != "cpu" or bool(self._whole_centre.sum().isnan())


def all_programs() -> tuple[Program, ...]:
    """Every program of this file, in order."""
    return tuple(value for value in globals().values() if isinstance(value, Program))


def names(schema: Schema) -> list[str]:
    """Name of each column that :func:`measure` returns: program and animals."""
    return ["_".join([one.name, *(schema.animals[place] for place in who)]) for one, who in _columns(schema)]


def thresholds(schema: Schema) -> Tensor:
    """Published thresholds of each column, (P, H); infinite where a program has fewer than others."""
    cuts = [one.thresholds for one, _ in _columns(schema)]
    most = max(map(len, cuts), default=0)
    return torch.tensor([[*cut, *[torch.inf] * (most - len(cut))] for cut in cuts])


def quantile_thresholds(value_BTP: Tensor, quantiles: Sequence[float]) -> Tensor:
    """Thresholds taken from data, (P, H): so that each class holds the share of frames that lies between the quantiles.

    Args:
        value_BTP: What :func:`measure` found on a sample; a program that is never known keeps infinite thresholds.
        quantiles: Rising shares, (0.5, 0.9) say.
    """
    at = torch.tensor(list(quantiles), dtype=value_BTP.dtype, device=value_BTP.device)
    return value_BTP.flatten(0, 1).nanquantile(at, dim=0).T.nan_to_num(nan=torch.inf).contiguous()


def measure(position_BTMKX: Tensor, schema: Schema) -> Tensor:
    """All programs at every frame, differentiable with respect to the positions.

    Args:
        position_BTMKX: px; NaN where missing.
        schema: The skeleton; its animals decide how many columns there are (10 for two).

    Returns:
        (B, T, P) in each program's unit; NaN where a point it needs is missing and at the edges of a window, where movement
        cannot be measured.
    """
    return torch.cat(list(_each(position_BTMKX, schema))).movedim(0, -1)


def measure_recording(position_TMKX: Tensor, schema: Schema, *, block: int = 32_768) -> Tensor:
    """All programs over one long recording, block by block so that the work stays in the processor's cache.

    Args:
        position_TMKX: px; any number of frames.
        schema: The skeleton.
        block: Frames worked on at a time.

    Returns:
        (T, P), as :func:`measure` returns for one window of all frames; stored program by program.
    """
    total = len(position_TMKX)
    out_PT = position_TMKX.new_empty(len(_columns(schema)), total)
    with torch.inference_mode():
        for first in range(0, total, block):
            begin, end, last = max(0, first - SPAN), min(total, first + block + SPAN), min(total, first + block)
            column = 0
            for value_ABT in _each(position_TMKX[None, begin:end], schema):
                rows = slice(column, column := column + len(value_ABT))
                out_PT[rows, first:last] = value_ABT[:, 0, first - begin : last - begin]
    return out_PT.T


def classes(value_BTP: Tensor, threshold_PH: Tensor) -> Tensor:
    """Hard labels: the number of thresholds strictly below the value, -1 where it is unknown. (B, T, P), int64."""
    above = (value_BTP.unsqueeze(-1) > threshold_PH).sum(-1)
    return above.masked_fill(value_BTP.isnan(), -1)


def soft_classes(value_BTP: Tensor, threshold_PH: Tensor, *, softness: float = 0.1) -> Tensor:
    """Soft labels: a probability for each class, differentiable with respect to the value.

    A threshold t becomes a logistic step of width ``softness`` times the distance between a program's thresholds (times
    its size where there is one only); the classes' probabilities are the differences between successive steps. As the
    softness goes to 0 they become :func:`classes`.

    Args:
        value_BTP: What :func:`measure` found.
        threshold_PH: Rising thresholds of each program.
        softness: Above 0.

    Returns:
        (B, T, P, H + 1), sum 1; NaN where the value is unknown.
    """
    finite = threshold_PH.isfinite()
    least = threshold_PH.masked_fill(~finite, torch.inf).amin(-1, keepdim=True)
    most = threshold_PH.masked_fill(~finite, -torch.inf).amax(-1, keepdim=True)
    gap = torch.where(most > least, most - least, least.abs()).clamp(min=1e-6)
    gap = gap.masked_fill(~gap.isfinite(), 1.0)
    above = torch.sigmoid((value_BTP.unsqueeze(-1) - threshold_PH) / (softness * gap))
    steps = F.pad(F.pad(above, (1, 0), value=1.0), (0, 1), value=0.0)
    share = steps[..., :-1] - steps[..., 1:]
    return share.masked_fill(value_BTP.isnan().unsqueeze(-1), torch.nan)


def _each(position_BTMKX: Tensor, schema: Schema) -> Iterator[Tensor]:
    """The columns of one program after the other, (A, B, T)."""
    batch, frames, animals, keypoints, coordinates = position_BTMKX.shape
    assert (animals, keypoints, coordinates) == schema.shape, "poses of another skeleton"
    planes = position_BTMKX.reshape(batch * frames, -1).t().contiguous()
    planes_MKXBT = planes.view(animals, keypoints, coordinates, batch, frames)
    marks = Landmarks.of(schema)
    everyone = Animal(planes_MKXBT, marks)
    sides: dict[tuple[int, ...], Animal] = {}
    for one in all_programs():
        who = one.applies_to(animals)
        if who:
            roles = list(zip(*who, strict=True))
            for role in roles:
                sides.setdefault(role, Animal(planes_MKXBT, marks, list(role), everyone))
            yield one.measure(*([everyone] if one.of == "animal" else [sides[role] for role in roles]))


def _columns(schema: Schema) -> list[tuple[Program, tuple[int, ...]]]:
    return [(one, who) for one in all_programs() for who in one.applies_to(len(schema.animals))]


def _moved(point: Tensor) -> Tensor:
    """Displacement over 2 * SPAN frames, centred; NaN at the edges."""
    if point.shape[-1] <= 2 * SPAN:
        return torch.full_like(point, torch.nan)
    return F.pad(point[..., 2 * SPAN :] - point[..., : -2 * SPAN], (SPAN, SPAN), value=torch.nan)


def _length(v: Tensor) -> Tensor:
    """(A, X, B, T) to (A, B, T); the gradient of standing still is 0."""
    x, y = v.unbind(1)
    if v.requires_grad:
        still = (x == 0) & (y == 0)
        x = torch.where(still, x.detach() + 1e-6, x)
    return torch.hypot(x, y)


def _angle(a: Tensor, b: Tensor) -> Tensor:
    """Signed angle from a to b; NaN where one of them has no length."""
    (ax, ay), (bx, by) = a.unbind(1), b.unbind(1)
    cross, dot = torch.addcmul(ax * by, ay, bx, value=-1), torch.addcmul(ax * bx, ay, by)
    if cross.device.type == "cpu" and not cross.requires_grad and bool(cross.all()):  # nobody points exactly along b: nothing to guard
        return torch.atan2(cross, dot)
    none = (cross == 0) & (dot == 0)
    return torch.atan2(cross, dot.masked_fill(none, 1.0)).masked_fill(none, torch.nan)
