"""Task programming's programs: what an expert would measure, one small function each, for every
frame at once.

A program reads an animal's keypoints by name and returns a number a frame; thresholds cut the
number into classes. To add one, write a function here and decorate it: it is found by being here,
for every animal or pair of animals of any skeleton.

Programs that only repeat a release, ``of_release``, are not used unless a recipe names them.

A program is given :class:`pretrain.transforms.animal.Animal`: its nose, neck, tail base, axis,
centre, and how the centre moved. What needs a missing point is NaN.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.data.schema import Schema
from pretrain.errors import refuse
from pretrain.transforms.animal import Animal, angle, displacement, length
from pretrain.transforms.geometry import frames_last
from pretrain.transforms.landmarks import Landmarks

Of = Literal["animal", "towards", "pair", "first"]


@dataclass(frozen=True)
class Program:
    """One program, as :func:`program` makes it."""

    measure: Callable[..., Tensor]
    of: Of
    """``animal``: of each; ``towards``: of each towards each other; ``pair``: of each two;
    ``first``: of the first towards each other."""
    unit: str
    thresholds: tuple[float, ...]
    """Published cuts, rising; a frame's class is the number of thresholds below its value."""
    of_release: bool = False
    """Whether it is here only to repeat published features."""

    @property
    def name(self) -> str:
        """Of the function."""
        return self.measure.__name__

    def applies_to(self, animals: int) -> list[tuple[int, ...]]:
        """The animals, or pairs of animals, it is measured on."""
        if self.of == "animal":
            return [(one,) for one in range(animals)]
        return [
            (a, b)
            for a, b in itertools.permutations(range(animals), 2)
            if {"towards": True, "pair": a < b, "first": a == 0}[self.of]
        ]


def program(**about: Any) -> Callable[[Callable[..., Tensor]], Program]:
    """Makes a function of one animal, or of one and another, a program: with fields of
    :class:`Program`."""
    return partial(Program, **about)


@program(of="animal", unit="px in 4 frames", thresholds=(10.0, 20.0))
def speed(me: Animal) -> Tensor:
    """How far the body moved."""
    return length(me.moved)


@program(of="towards", unit="rad", thresholds=(0.5, 1.5))
def facing(me: Animal, other: Animal) -> Tensor:
    """Angle between the body axis and the way to the other's centre, 0 (facing it) to pi."""
    return angle(me.axis, other.centre - me.centre).abs()


@program(of="towards", unit="rad", thresholds=(0.5, 1.5), of_release=True)
def facing_released(me: Animal, other: Animal) -> Tensor:
    """What the released task programming computes as the facing angle, 0 to pi.

    There the way leads from the other to oneself, the body axis is mirrored (its y is turned
    round), and the way's angle is first taken modulo 2 and then multiplied by pi, as ``(x + 2 pi) %
    2 * pi`` reads. Kept to repeat features that were published.
    """
    way = torch.remainder(_bearing(me.centre - other.centre) + 2 * math.pi, 2.0) * math.pi
    apart = torch.remainder(way + _bearing(me.axis), 2 * math.pi)
    nearest = torch.minimum(apart, 2 * math.pi - apart)
    # Where one of the two angles is unknown, the other must not get a gradient that is NaN.
    return nearest.masked_fill(nearest.isnan(), torch.nan)


def _bearing(v: Tensor) -> Tensor:
    """Angle of a vector from +x towards +y."""
    return angle(v.new_tensor([1.0, 0.0])[:, None, None].expand_as(v), v)


@program(of="animal", unit="px in 4 frames", thresholds=(5.0, 8.0))
def nose_movement(me: Animal) -> Tensor:
    """How far the nose moved beyond what the body did."""
    return length(displacement(me.nose) - me.moved)


@program(of="pair", unit="px", thresholds=(60.0, 200.0))
def nose_to_nose(me: Animal, other: Animal) -> Tensor:
    """Distance between noses."""
    return length(other.nose - me.nose)


@program(of="first", unit="px", thresholds=(60.0, 200.0))
def nose_to_tail(me: Animal, other: Animal) -> Tensor:
    """Distance from the nose to the other's tail base."""
    return length(other.tail_base - me.nose)


@program(of="animal", unit="rad", thresholds=(-0.5, 0.5))
def head_to_body(me: Animal) -> Tensor:
    """Signed angle at the neck from the head to the body axis; positive where the head points to
    the animal's left, as the released task programming has it."""
    return angle(me.nose - me.neck, me.axis)


def all_programs() -> tuple[Program, ...]:
    """Every program of this file, in order."""
    return tuple(value for value in globals().values() if isinstance(value, Program))


def programs_named(which: Sequence[str] = ()) -> tuple[Program, ...]:
    """The programs of these names, in the order of the file; without names all but those that are
    here only to repeat a release.

    Raises:
        BadInput: If there is no such program, or one is named twice.
    """
    valid = [one.name for one in all_programs()]
    refuse(
        [f"{name!r} is none of the programs {valid}" for name in which if name not in valid]
        + [f"{name!r} is named twice" for name in valid if list(which).count(name) > 1],
        about="programs",
    )
    return tuple(
        one for one in all_programs() if (one.name in which if which else not one.of_release)
    )


def names(schema: Schema, programs: Sequence[Program] = ()) -> list[str]:
    """Name of each column that :func:`measure` returns: program and animals."""
    return [
        "_".join([one.name, *(schema.animals[index] for index in animals)])
        for one, animals in _columns(schema, programs)
    ]


def thresholds(schema: Schema, programs: Sequence[Program] = ()) -> Tensor:
    """Published thresholds of each column, (P, H); infinite where a program has fewer than
    others."""
    rows = [one.thresholds for one, _ in _columns(schema, programs)]
    longest = max(map(len, rows), default=0)
    return torch.tensor([[*row, *[torch.inf] * (longest - len(row))] for row in rows])


def quantile_thresholds(value_BTP: Tensor, quantiles: Sequence[float]) -> Tensor:
    """Thresholds taken from what :func:`measure` returned for a sample, (P, H): so that each class
    holds the share of frames that lies between the quantiles, rising shares. A program that is
    never known keeps infinite thresholds."""
    shares = torch.tensor(list(quantiles), dtype=value_BTP.dtype, device=value_BTP.device)
    cuts_PH = value_BTP.flatten(0, 1).nanquantile(shares, dim=0).T
    return cuts_PH.nan_to_num(nan=torch.inf).contiguous()


def measure(position_BTMKX: Tensor, schema: Schema, programs: Sequence[Program] = ()) -> Tensor:
    """Programs at every frame, differentiable with respect to the positions (px; NaN where
    missing); without any those of :func:`programs_named` without names. For two animals they are
    10.

    Returns:
        (B, T, P) in each program's unit; NaN where a point it needs is missing and at the edges of
        a window, where movement cannot be measured.
    """
    columns = measure_each(frames_last(position_BTMKX), schema, programs)
    return torch.cat(list(columns)).movedim(0, -1)


def measure_each(
    position_MKXBT: Tensor, schema: Schema, programs: Sequence[Program] = ()
) -> Iterator[Tensor]:
    """The columns of one program after the other, (A, B, T), of positions as :func:`frames_last`
    lays them out; as :func:`measure`."""
    animals = len(position_MKXBT)
    assert position_MKXBT.shape[:3] == schema.shape, "poses of another skeleton"
    position_MKXBT = position_MKXBT[:, :, :2]  # of the plane, as they were published
    landmarks = Landmarks.of(schema)
    everyone = Animal(position_MKXBT, landmarks)
    sides: dict[tuple[int, ...], Animal] = {}
    for one in programs or programs_named():
        columns = one.applies_to(animals)
        if columns:
            roles = list(zip(*columns, strict=True))
            for role in roles:
                sides.setdefault(role, Animal(position_MKXBT, landmarks, list(role), everyone))
            given = [everyone] if one.of == "animal" else [sides[role] for role in roles]
            yield one.measure(*given)


def classes(value_BTP: Tensor, threshold_PH: Tensor) -> Tensor:
    """Hard labels: the number of thresholds strictly below the value, -1 where it is unknown. (B,
    T, P), int64."""
    above = (value_BTP.unsqueeze(-1) > threshold_PH).sum(-1)
    return above.masked_fill(value_BTP.isnan(), -1)


def log_soft_classes(value_BTP: Tensor, threshold_PH: Tensor, *, softness: float = 0.1) -> Tensor:
    r"""Soft labels: the log-probability of each class, differentiable with respect to the value
    however far it lies from a threshold.

    A threshold t becomes a logistic step :math:`\sigma((v - t) / s)`, where s is ``softness`` times
    the distance between a program's thresholds (times its size where there is one only); the
    classes' probabilities are the differences between successive steps. As the softness goes to 0
    they become :func:`classes`.

    Args:
        value_BTP: What :func:`measure` returned.
        threshold_PH: Rising thresholds of each program, infinite ones last.
        softness: Above 0.

    Returns:
        (B, T, P, H + 1); NaN where the value is unknown.
    """
    finite = threshold_PH.isfinite()
    lowest = threshold_PH.masked_fill(~finite, torch.inf).amin(-1, keepdim=True)
    highest = threshold_PH.masked_fill(~finite, -torch.inf).amax(-1, keepdim=True)
    gap = torch.where(highest > lowest, highest - lowest, lowest.abs()).clamp(min=1e-6)
    width = softness * gap.masked_fill(~gap.isfinite(), 1.0)
    step = (value_BTP.unsqueeze(-1) - threshold_PH) / width
    above, below = F.logsigmoid(step), F.logsigmoid(-step)
    # sigma(a) - sigma(b) = sigma(a) sigma(-b) (1 - exp(b - a)), which no rounding spoils; b - a
    # does not depend on the value.
    distance = (threshold_PH.masked_fill(~finite, 0.0).diff() / width).masked_fill(
        ~finite[:, 1:], torch.inf
    )
    between = above[..., :-1] + below[..., 1:] + torch.log1p(-torch.exp(-distance))
    impossible = torch.cat([torch.zeros_like(finite[:, :1]), ~finite], -1)
    return torch.cat([below[..., :1], between, above[..., -1:]], -1).masked_fill(
        impossible, -torch.inf
    )


def _columns(schema: Schema, programs: Sequence[Program]) -> list[tuple[Program, tuple[int, ...]]]:
    animals = len(schema.animals)
    return [
        (one, columns)
        for one in programs or programs_named()
        for columns in one.applies_to(animals)
    ]
