"""Features of one, two or more animals that do not ask which of them is called the first.

What is measured of each animal, or of each of a pair, enters as the smaller and the larger value
(of three and more, as the least, the mean and the greatest), so that exchanging animals, or a
tracker's exchanging them, changes nothing. Two animals with roles, a resident and an intruder, may
have columns of their own instead (:func:`have_roles`). Gaps of up to :data:`GAP_S` are bridged in a
straight line; what is unknown beyond is NaN. Lengths are in body lengths (from tail base to neck),
times in seconds: another rig's numbers mean the same.

Two or three animals whose identities a tracker exchanges are matched again over every lag, by where
they were.

At most five points of a skeleton are looked at: nose, neck, tail base, then the midpoints of
mirrored pairs, then the other keypoints. So the number of columns does not depend on the skeleton,
and not on how many animals there are beyond three.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from pretrain.data.schema import Schema
from pretrain.transforms.geometry import later
from pretrain.transforms.landmarks import Landmarks

GAP_S = 2.0
"""Seconds to either side within which a missing point is bridged."""
SPEED_S = (0.07, 0.17, 0.5, 1.5)
"""Seconds to either side over which the speed of the body is measured."""
REACH_S = GAP_S + max(SPEED_S)
"""Seconds to either side that the features of a frame depend on."""
MAX_POINTS = 5
GROUPS = ("interaction", "social", "social_roles")
"""Feature groups made of these: all of them, those of :meth:`Interaction.compute_social`, and the
same of two animals with roles."""
_MATCHED = 3  # animals at most that are told apart again after a tracker exchanged them
_ONLY_COUNTED = {"one", "two", "first", "second"}
_SHORT, _TURN, _LONG, _JERK = 0.1, 0.17, 0.5, 0.13


@functools.lru_cache(maxsize=32)
def points_of(schema: Schema) -> dict[str, tuple[int, ...]]:
    """The points that are looked at: name to the keypoints whose midpoint it is, the landmarks
    first."""
    marks = Landmarks.of(schema)
    landmarks = dict.fromkeys((marks.nose, marks.neck, marks.tail_base))
    points: dict[str, tuple[int, ...]] = {schema.keypoints[k]: (k,) for k in landmarks}
    taken = set(landmarks)
    for pair in schema.mirror_pairs:
        left, right = (schema.keypoint(name) for name in pair)
        if not {left, right} & taken:
            points[f"{pair[0]}/{pair[1]}"] = (left, right)
            taken |= {left, right}
    points |= {name: (k,) for k, name in enumerate(schema.keypoints) if k not in taken}
    return dict(itertools.islice(points.items(), MAX_POINTS))


def have_roles(schema: Schema) -> bool:
    """Whether there are two animals whose names are roles (resident and intruder, adult and
    juvenile) and do not merely number them (rat1 and rat2, a and b, one and two)."""
    names = [re.sub(r"[\d\W_]+", "", name).lower() for name in schema.animals]
    if len(names) != 2 or {*names} & _ONLY_COUNTED or min(map(len, names)) < 2:
        return False
    return names[0][:-1] != names[1][:-1] and names[0] != names[1]


@dataclass
class Interaction:
    """The features of some frames, as named columns.

    Args:
        position_MKXBT: px; NaN where missing.
        confidence_MKBT: The tracker's.
        schema: Skeleton, frame rate, image.
        body_px: Length of a body.
        roles: Of two animals: a column for each, in the place of the smaller and the larger value;
            identities are those of the tracker.
    """

    position_MKXBT: Tensor
    confidence_MKBT: Tensor
    schema: Schema
    body_px: Tensor
    roles: bool = False
    columns: dict[str, Tensor] = field(default_factory=dict)
    _exchanges: dict[int, list[tuple[list[int], Tensor]]] = field(default_factory=dict)

    def compute(self) -> dict[str, Tensor]:
        """Every column by its name, (B, T) each."""
        self._of_each_animal()
        self._of_arena_position()
        self._of_tracking()
        self._of_pairs()
        return self.columns

    def compute_social(self) -> dict[str, Tensor]:
        """The same without the position in the arena and what the tracker saw."""
        self._of_each_animal()
        self._of_pairs()
        return self.columns

    # -- pieces ----------------------------------------------------------------------------------

    @cached_property
    def _names(self) -> list[str]:
        return list(points_of(self.schema))

    @cached_property
    def _known_MPBT(self) -> Tensor:
        """1 where a point is seen, else 0."""
        x = self.position_MKXBT[:, :, 0]
        known = (x == x).to(x.dtype)
        return torch.stack([known[:, list(k)].amin(1) for k in points_of(self.schema).values()], 1)

    @cached_property
    def _gaps(self) -> tuple[Tensor, Tensor]:
        """Frames since and until each point is seen, (M, P, B, T)."""
        known = self._known_MPBT
        index = torch.arange(known.shape[-1], device=known.device, dtype=known.dtype)
        far = torch.full_like(index[:1], 1e9)
        last = torch.where(known > 0, index, -far).cummax(-1).values
        following = torch.where(known > 0, index, far).flip(-1).cummin(-1).values.flip(-1)
        return index - last, following - index

    @cached_property
    def _point_MPXBT(self) -> Tensor:
        """Points in body lengths, gaps bridged."""
        groups = points_of(self.schema).values()
        point = torch.stack([self.position_MKXBT[:, list(k)].mean(1) for k in groups], 1)
        point = point / self.body_px
        if bool((self._known_MPBT > 0).all()):
            return point
        since, until = self._gaps
        frames, reach = point.shape[-1], self._half(GAP_S)
        index = torch.arange(frames, device=point.device)
        before, after = since <= reach, until <= reach
        at_last = (index - torch.where(before, since, 0).long()).unsqueeze(2).expand_as(point)
        at_next = (index + torch.where(after, until, 0).long()).unsqueeze(2).expand_as(point)
        last, following = point.gather(-1, at_last), point.gather(-1, at_next)
        share = (since / (since + until).clamp(min=1)).unsqueeze(2)
        before, after = before.unsqueeze(2), after.unsqueeze(2)
        both = torch.lerp(last, following, share)
        one = torch.where(before, last, torch.where(after, following, torch.nan))
        return torch.where(before & after, both, one)

    @cached_property
    def _body_MXBT(self) -> Tensor:
        """Where the neck is: what stands for the whole animal."""
        return self._point_MPXBT[:, min(1, len(self._names) - 1)]

    def _half(self, seconds: float) -> int:
        return max(1, round(seconds * self.schema.fps))

    def _exchanged(self, frames: int) -> list[tuple[list[int], Tensor]]:
        """Of two or three animals: other orders of them, and where (B, T) they lie, in that order
        and so many frames later, nearer to where they were; of two orders the latter counts. An
        animal that is missing stays itself."""
        if self.roles or not 2 <= len(self._body_MXBT) <= _MATCHED:
            return []
        if frames not in self._exchanges:
            now, then = self._body_MXBT, later(self._body_MXBT, frames)
            animals = range(len(now))
            apart = {(a, b): _between(now[a], then[b]) for a in animals for b in animals}
            least = _total([apart[a, a].nan_to_num(0.0) for a in animals])
            exchanges = self._exchanges[frames] = []
            for order in list(itertools.permutations(animals))[1:]:
                moved = [
                    apart[a, b] if a != b else apart[a, b].nan_to_num(0.0)
                    for a, b in enumerate(order)
                ]
                total = _total(moved)
                nearer = total < least
                exchanges.append((list(order), nearer))
                if len(animals) > 2:
                    least = torch.where(nearer, total, least)
        return self._exchanges[frames]

    def _at(self, x_MXBT: Tensor, frames: int) -> Tensor:
        """What it was, or will be, so many frames later, of the same animal."""
        x_MXBT = then = later(x_MXBT, frames)
        for order, nearer in self._exchanged(frames):
            x_MXBT = torch.where(nearer, then[order], x_MXBT)
        return x_MXBT

    def _moved(self, x_MXBT: Tensor, half: int) -> Tensor:
        return self._at(x_MXBT, half) - self._at(x_MXBT, -half)

    def _speed(self, x_MXBT: Tensor, seconds: float) -> Tensor:
        """Logarithm of body lengths a second, (M, B, T)."""
        half = self._half(seconds)
        return torch.log1p(5 * _length(self._moved(x_MXBT, half)) * self.schema.fps / (2 * half))

    def _add(self, name: str, values_ABT: Tensor) -> None:
        """Columns of what each animal, or pair, or one of a pair has; whichever is known."""
        if len(values_ABT) == 1:
            self.columns[name] = values_ABT[0]
            return
        if self.roles:
            for animal, values_BT in zip(self.schema.animals, values_ABT, strict=True):
                self.columns[f"{name}, {animal}"] = values_BT
            return
        self.columns[f"{name}, least"] = functools.reduce(torch.fmin, values_ABT.unbind(0))
        if len(values_ABT) > 2:
            # In double precision the order of the animals is rounded away.
            self.columns[f"{name}, mean"] = values_ABT.double().nanmean(0).to(values_ABT.dtype)
        self.columns[f"{name}, greatest"] = functools.reduce(torch.fmax, values_ABT.unbind(0))

    # -- groups of columns -----------------------------------------------------------------------

    @cached_property
    def _heading_MXBT(self) -> Tensor:
        """From the tail base to the nose, of length 1."""
        point = self._point_MPXBT
        along = point[:, 0] - point[:, min(2, point.shape[1] - 1)]
        return along / _length(along).unsqueeze(1).clamp(min=1e-6)

    def _of_each_animal(self) -> None:
        point, names = self._point_MPXBT, self._names
        for seconds in SPEED_S:
            self._add(f"speed over {2 * seconds:g} s", self._speed(self._body_MXBT, seconds))
        for p, name in enumerate(names):
            if p not in (1, 4):
                self._add(f"speed of {name}", self._speed(point[:, p], _SHORT))
        half = self._half(_JERK)
        bend = self._moved_twice(self._body_MXBT, half)
        self._add("acceleration", torch.log1p(_length(bend) * (self.schema.fps / half) ** 2 / 9))
        chain = [(0, 2), (0, 1), (1, 2), (2, 3), (3, 4)]
        for p, q in ((p, q) for p, q in chain if q < len(names)):
            self._add(f"length {names[p]}-{names[q]}", _length(point[:, p] - point[:, q]))
        if len(names) > 2:
            self._add("bend", _cosine(point[:, 0] - point[:, 1], point[:, 1] - point[:, 2]))
            half, heading = self._half(_TURN), self._heading_MXBT
            turned = _dot(self._at(heading, half), self._at(heading, -half))
            self._add("turn", torch.acos(turned.clamp(-1 + 1e-6, 1 - 1e-6)))

    def _of_arena_position(self) -> None:
        walls, centre = [], []
        for x, extent in enumerate(self.schema.image_px[:2]):
            place = self._body_MXBT[:, x] * self.body_px
            walls.append(torch.minimum(place, extent - place))
            centre.append((place / extent - 0.5).square())
        self._add("wall", functools.reduce(torch.minimum, walls) / self.body_px)
        self._add("from the centre", sum(centre[1:], centre[0]).sqrt())

    def _moved_twice(self, x_MXBT: Tensor, half: int) -> Tensor:
        return self._at(x_MXBT, half) - 2 * x_MXBT + self._at(x_MXBT, -half)

    def _of_tracking(self) -> None:
        """What the tracker saw: that a point is missing says something too."""
        known, names = self._known_MPBT, self._names
        self._add("points seen", known.sum(1))
        for p, name in enumerate(names):
            self._add(f"{name} seen", known[:, p])
        x = self.position_MKXBT[:, :, 0]
        visible = (x == x).to(x.dtype)
        total = (self.confidence_MKBT * visible).sum(1)
        self._add("confidence", total / visible.sum(1).clamp(min=1))
        since, until = self._gaps
        gap = torch.minimum(since, until)[:, :3].amin(1).clamp(max=self._half(GAP_S))
        self._add("unseen for", torch.log1p(10 * gap / self.schema.fps))
        if exchanged := self._exchanged(1):
            anyhow = functools.reduce(torch.logical_or, (nearer for _, nearer in exchanged))
            self.columns["exchanged"] = anyhow.to(x.dtype)

    def _pairs(self) -> Iterator[tuple[int, int]]:
        return itertools.combinations(range(len(self.position_MKXBT)), 2)

    def _of_pairs(self) -> None:
        if len(self.position_MKXBT) < 2:
            return
        point, names = self._point_MPXBT, self._names
        one, other = (list(side) for side in zip(*self._pairs(), strict=True))
        near: Tensor | None = None
        for p, q in itertools.combinations_with_replacement(range(min(4, len(names))), 2):
            if p > 2 or (p == q and p == 3):
                continue
            distance = _length(point[one, p] - point[other, q])
            if p != q:
                distance = torch.cat([distance, _length(point[one, q] - point[other, p])])
            if q < 3:
                least = functools.reduce(torch.fmin, distance.unbind(0))
                near = least if near is None else torch.fmin(near, least)
            self._add(f"distance {names[p]}-{names[q]}", torch.log1p(distance))
        assert near is not None
        self.columns["distance, of any two points"] = torch.log1p(near)
        body, heading = self._body_MXBT, self._heading_MXBT
        apart = _length(body[one] - body[other])
        for seconds in (_SHORT, _LONG):
            half = self._half(seconds)
            change = later(apart, half) - later(apart, -half)
            self._add(f"distance's change over {2 * seconds:g} s", change * self.schema.fps / half)
        if len(names) > 1:
            cosine = _dot(heading[one], heading[other])
            self._add("headings, cosine", cosine)
            self._add("headings, |sine|", (1 - cosine.square()).clamp(min=0).sqrt())
        half = self._half(_TURN)
        velocity = self._moved(body, half) * (self.schema.fps / (2 * half))
        self._add("velocities, product", _squash(_dot(velocity[one], velocity[other])))
        self._add(
            "velocities, difference", torch.log1p(5 * _length(velocity[one] - velocity[other]))
        )
        towards = (body[other] - body[one]) / apart.unsqueeze(1).clamp(min=1e-6)
        if len(names) > 1:
            facing = [_dot(heading[one], towards), -_dot(heading[other], towards)]
            self._add("facing the other", torch.cat(facing))
        approach = [_dot(velocity[one], towards), -_dot(velocity[other], towards)]
        self._add("towards the other", _squash(torch.cat(approach)))


def _length(v_AXBT: Tensor) -> Tensor:
    return _dot(v_AXBT, v_AXBT).sqrt()


def _between(a_XBT: Tensor, b_XBT: Tensor) -> Tensor:
    return _length(a_XBT - b_XBT)


def _dot(a_AXBT: Tensor, b_AXBT: Tensor) -> Tensor:
    axis = -3
    return _total([x * y for x, y in zip(a_AXBT.unbind(axis), b_AXBT.unbind(axis), strict=True)])


def _total(terms: list[Tensor]) -> Tensor:
    return functools.reduce(torch.add, terms)


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return _dot(a, b) / (_length(a) * _length(b)).clamp(min=1e-6)


def _squash(x: Tensor) -> Tensor:
    return x.sign() * torch.log1p(5 * x.abs())
