"""Poses to what an encoder reads, in batch and on the device.

A missing point is NaN, and so is every feature that needs it: arithmetic keeps the account. Only at
the very end are features standardised, the missing ones set to 0 (their mean) and the visibility of
every keypoint handed over beside them, so that an encoder can tell "average" from "unknown".

Every animal gets a frame of its own: the rigid motion that lays its visible points on the store's
mean body (Kabsch 1976, in the plane). It needs two visible points, not any particular one. Hence
the features are unchanged by moving or rotating the scene (all but ``place``), and a mirror changes
signs of sideways ones only.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pretrain.data.schema import Schema
from pretrain.data.windows import Pose
from pretrain.errors import refuse
from pretrain.transforms.planes import planes

GROUPS = ("posture", "motion", "relation", "distances", "scene", "place", "confidence")
_CLIP = 6.0  # standard deviations; a tracker's jump is not worth more


class Features(nn.Module):
    """(position, confidence) to standardised features.

    Args:
        schema: Skeleton of the poses.
        groups: Which features: ``posture`` (own points in the own frame), ``motion`` (displacement,
            turn and speed of every point over each lag), ``relation`` (where each other animal is,
            its heading, closing speed), ``distances`` (log of all distances between points of two
            animals), ``scene`` (every point of all animals in the frame of the first, for encoders
            that read points: (M, K, X) in that order), ``place`` (distance to the four walls; not
            invariant to moving the scene), ``confidence`` (of every point).
        lags: Frames over which motion is measured, centred on the frame.
        external: Features from elsewhere that the store holds beside the poses (name to D), taken
            as they are: whether they change when the scene is moved, turned or mirrored is theirs
            to say.

    Attributes:
        columns: Where each group lies on axis F (those from elsewhere as ``external``), and
            ``visible``, the visibility (M, K) that always comes last.

    Shapes:
        Input: :class:`Pose` of (B, T, M, K, X) px and (B, T, M, K). Output: (B, T, F).
    """

    mean_F: Tensor
    scale_F: Tensor
    body_KX: Tensor
    image_X: Tensor

    def __init__(
        self,
        schema: Schema,
        *,
        groups: Sequence[str] = ("posture", "motion", "relation", "distances", "confidence"),
        lags: Sequence[int] = (2, 8, 24),
        external: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        unknown = [group for group in groups if group not in GROUPS]
        refuse(
            [f"unknown group {group!r}; allowed: {', '.join(GROUPS)}" for group in unknown]
            + [
                f"lag {lag} is not a positive even number of frames"
                for lag in lags
                if lag < 1 or lag % 2
            ]
            + (["no groups"] if not groups and not external else [])
            + [
                f"external features {name!r} have dimension {dim}; wanted the whole number that "
                "`prepare.py check` shows"
                for name, dim in (external or {}).items()
                if not isinstance(dim, int) or dim < 1
            ]
            + (
                [f"poses have coordinates {schema.coordinates}; these features are for x, y"]
                if len(schema.coordinates) != 2
                else []
            ),
            about="features",
        )
        self.schema, self.groups, self.lags, self.external = (
            schema,
            tuple(groups),
            tuple(lags),
            dict(external or {}),
        )
        animals, keypoints, _ = schema.shape
        self.register_buffer("image_X", torch.tensor(schema.image_px))
        self.register_buffer("body_KX", torch.zeros(keypoints, 2))
        back, front = schema.keypoint(schema.axis[0]), schema.keypoint(schema.axis[1])
        self._axis = back, front
        # Until fitted, bodies are laid on their axis alone.
        self.body_KX[front, 0], self.body_KX[back, 0] = 1.0, -1.0
        example = self._example()
        columns = self._columns(example, planes(example.position_BTMKX))
        parts = {
            group: sum(len(column.flatten(0, -3)) for column in found)
            for group, found in columns.items()
        }
        ends = list(itertools.accumulate(parts.values()))
        width = ends[-1]
        self.columns = {
            group: slice(end - parts[group], end) for group, end in zip(parts, ends, strict=True)
        }
        self.columns["visible"] = slice(width, width + animals * keypoints)
        self.register_buffer("mean_F", torch.zeros(width))
        self.register_buffer("scale_F", torch.ones(width))

    @property
    def width(self) -> int:
        """F: standardised features and the visibility of every keypoint."""
        return len(self.mean_F) + self.schema.shape[0] * self.schema.shape[1]

    @property
    def context(self) -> int:
        """Frames to each side that the features of a frame look at."""
        return max(self.lags, default=0) // 2 if {"motion", "relation"} & set(self.groups) else 0

    @torch.no_grad()
    def fit(self, pose: Pose) -> None:
        """Takes the mean body, means and standard deviations from a sample of unlabelled poses.

        Raises:
            BadInput: If no animal is ever seen well enough to tell where its body points.
        """
        position = pose.position_BTMKX.flatten(0, 2)
        back, front = self._axis
        forward = nn.functional.normalize(position[:, front] - position[:, back], dim=-1)
        sideways = torch.stack([-forward[:, 1], forward[:, 0]], -1)
        centre = position.nanmean(1, keepdim=True)
        own = torch.stack(
            [((position - centre) * axis.unsqueeze(1)).sum(-1) for axis in (forward, sideways)], -1
        )
        body = own[own.isfinite().all(-1).any(-1)].nanmean(0) if len(own) else own
        seen = (
            own.isfinite().all(-1).any(0)
            if len(own)
            else torch.zeros(len(self.body_KX), dtype=torch.bool)
        )
        refuse(
            [
                f"keypoint {name!r} is never seen together with {self.schema.axis[0]!r} and "
                f"{self.schema.axis[1]!r}"
                for name, ok in zip(self.schema.keypoints, seen.tolist(), strict=True)
                if not ok
            ],
            about="the poses show no whole body to measure the others against",
        )
        self.body_KX.copy_(body - body.mean(0, keepdim=True))
        mean, scale = standard(
            torch.cat(self._raw(pose, planes(pose.position_BTMKX))).flatten(1).t()
        )
        self.mean_F.copy_(mean)
        self.scale_F.copy_(scale)

    def forward(self, pose: Pose) -> Tensor:
        """Returns (B, T, F): features with unit spread, 0 where unknown, then visibility (0 or 1)
        of each keypoint.

        In memory frames come last: layers that multiply read them so, and turning them would take
        longer than most layers.
        """
        position = planes(pose.position_BTMKX)
        whole_FN = torch.cat(
            [*self._raw(pose, position), _seen(position[:, :, :1]).flatten(0, 1)]
        ).flatten(1)
        known = whole_FN[: len(self.mean_F)]  # the rest says what is visible
        known.sub_(self.mean_F.unsqueeze(1)).mul_(self.scale_F.unsqueeze(1)).clamp_(
            -_CLIP, _CLIP
        ).nan_to_num_(0.0)
        return whole_FN.view(-1, *pose.position_BTMKX.shape[:2]).permute(1, 2, 0)

    def raw(self, pose: Pose) -> Tensor:
        """Returns (B, T, F) before they are standardised, without visibility; NaN where unknown."""
        return torch.cat(self._raw(pose, planes(pose.position_BTMKX))).permute(1, 2, 0)

    def frames(self, pose: Pose) -> tuple[Tensor, Tensor]:
        """Each animal's own frame: where it is, (B, T, M, X) px, and its heading as (cos, sin), (B,
        T, M, 2)."""
        place, heading = self._frames(planes(pose.position_BTMKX))
        return place.permute(2, 3, 0, 1), heading.permute(2, 3, 0, 1)

    # From here on the frames come last, (…, X, B, T): each number of a frame lies in one piece with
    # those of other frames, so that arithmetic runs at the speed of memory.

    def _frames(self, position_MKXBT: Tensor) -> tuple[Tensor, Tensor]:
        """Place (M, X, B, T) and heading (M, 2, B, T)."""
        seen = _seen(position_MKXBT)
        count = seen.sum(1, keepdim=True).clamp(min=1)
        seen, body = seen.unsqueeze(2), self.body_KX[:, :, None, None]
        found = position_MKXBT.nan_to_num(0.0, 0.0, 0.0) * seen
        centre = _total(found) / count
        # From the centre offsets add up to 0, so that it does not matter where the body's own
        # centre lies.
        offset_x, offset_y = ((found - centre.unsqueeze(1)) * seen).unbind(2)
        cos = _total(body[:, 0] * offset_x + body[:, 1] * offset_y)
        sin = _total(body[:, 0] * offset_y - body[:, 1] * offset_x)
        length = _length(cos, sin).unsqueeze(1)
        # One visible point, or points on top of each other, tell no direction.
        heading = torch.where(length > 1e-6, torch.stack([cos, sin], 1) / length, torch.nan)
        return centre - _turn(_total(body * seen) / count, heading), heading

    def _raw(self, pose: Pose, position_MKXBT: Tensor) -> list[Tensor]:
        """(F, B, T) in pieces, in px, angles as cosine and sine; NaN where unknown."""
        return [
            column.flatten(0, -3)
            for found in self._columns(pose, position_MKXBT).values()
            for column in found
        ]

    def _columns(self, pose: Pose, position: Tensor) -> dict[str, list[Tensor]]:
        place, heading = self._frames(position)
        bodies = _Bodies(pose, position, place, heading)
        columns: dict[str, list[Tensor]] = {
            group: getattr(self, f"_{group}")(bodies) for group in self.groups
        }
        if self.external:
            assert pose.extra_BTE is not None, f"poses without the features {list(self.external)}"
            # What heads alone read comes behind.
            columns["external"] = [
                pose.extra_BTE[..., : sum(self.external.values())].permute(2, 0, 1)
            ]
        return columns

    def _example(self) -> Pose:
        animals, keypoints, coordinates = self.schema.shape
        extra = torch.zeros(1, 2, sum(self.external.values())) if self.external else None
        return Pose(
            torch.zeros(1, 2, animals, keypoints, coordinates),
            torch.ones(1, 2, animals, keypoints),
            extra,
        )

    def _posture(self, bodies: _Bodies) -> list[Tensor]:
        return [_unturn(bodies.position - bodies.place.unsqueeze(1), bodies.heading.unsqueeze(1))]

    def _motion(self, bodies: _Bodies) -> list[Tensor]:
        columns = []
        for lag in self.lags:
            columns.append(_squash(_unturn(_difference(bodies.place, lag), bodies.heading)))
            past_x, past_y = _shift(bodies.heading, -(lag // 2)).unbind(1)
            future_x, future_y = _shift(bodies.heading, lag // 2).unbind(1)
            columns += [
                past_x * future_y - past_y * future_x,
                past_x * future_x + past_y * future_y,
            ]
            columns.append(torch.log1p(_length(*_difference(bodies.position, lag).unbind(2))))
        return columns

    def _relation(self, bodies: _Bodies) -> list[Tensor]:
        columns = []
        for me, other in itertools.permutations(range(len(self.schema.animals)), 2):
            towards, mine = bodies.place[other] - bodies.place[me], bodies.heading[me]
            distance = _length(*towards.unbind(0)).unsqueeze(0)
            columns += [
                _unturn(towards, mine) / (1 + distance),
                torch.log1p(distance),
                _unturn(bodies.heading[other], mine),
            ]
            columns += [_squash(_difference(distance, lag)) for lag in self.lags]
        return columns

    def _distances(self, bodies: _Bodies) -> list[Tensor]:
        x, y = bodies.position.unbind(2)
        return [
            torch.log1p(
                _length(
                    x[a].unsqueeze(1) - x[b].unsqueeze(0), y[a].unsqueeze(1) - y[b].unsqueeze(0)
                )
            )
            for a, b in itertools.combinations(range(len(self.schema.animals)), 2)
        ]

    def _scene(self, bodies: _Bodies) -> list[Tensor]:
        return [
            _unturn(
                bodies.position - bodies.place[:1].unsqueeze(1), bodies.heading[:1].unsqueeze(1)
            )
        ]

    def _place(self, bodies: _Bodies) -> list[Tensor]:
        share = bodies.place / self.image_X[:, None, None]
        return [share, 1 - share]

    def _confidence(self, bodies: _Bodies) -> list[Tensor]:
        return [bodies.pose.confidence_BTMK.permute(2, 3, 0, 1)]


class _Bodies(NamedTuple):
    """What features are made of."""

    pose: Pose
    position: Tensor
    """(M, K, X, B, T)."""
    place: Tensor
    """(M, X, B, T)."""
    heading: Tensor
    """(M, 2, B, T)."""


def standard(values: Tensor) -> tuple[Tensor, Tensor]:
    """What standardises values: the mean over the first axis of those that are known, and 1 /
    spread, 0 where there is none."""
    known = values.isfinite()
    count = known.sum(0).clamp(min=1)
    mean = values.nan_to_num(0.0).sum(0) / count
    spread = (torch.where(known, values - mean, 0.0).square().sum(0) / count).sqrt()
    return mean, torch.where(spread > 1e-6, 1 / spread.clamp(min=1e-6), 0.0)


def _seen(position_MKXBT: Tensor) -> Tensor:
    """(M, K, B, T): 1 where all coordinates of a point are known, else 0."""
    # Numbers rather than truth values, which a processor takes several times as long to make.
    none = (position_MKXBT.detach() * 0).sum(2)
    return none.clone().eq_(none)


def _total(x_MK: Tensor) -> Tensor:
    """Over the points, axis 1. torch's sum adds the last frames of a batch in another order than
    the same frames of a larger one."""
    return functools.reduce(torch.add, x_MK.unbind(1))


def _length(x: Tensor, y: Tensor) -> Tensor:
    return (x * x).addcmul_(y, y).sqrt_()


def _turn(vector: Tensor, heading: Tensor) -> Tensor:
    x, y = vector.unbind(-3)
    cos, sin = heading.unbind(-3)
    return torch.stack([cos * x - sin * y, sin * x + cos * y], -3)


def _unturn(vector: Tensor, heading: Tensor) -> Tensor:
    x, y = vector.unbind(-3)
    cos, sin = heading.unbind(-3)
    return torch.stack([cos * x + sin * y, cos * y - sin * x], -3)


def _squash(px: Tensor) -> Tensor:
    """Signed logarithm: resolves a creep and a dash alike."""
    return px.sign() * torch.log1p(px.abs())


def _shift(x: Tensor, frames: int) -> Tensor:
    """The value ``frames`` later; NaN beyond the window."""
    if frames == 0:
        return x
    gap = x.new_full((*x.shape[:-1], min(abs(frames), x.shape[-1])), torch.nan)
    return (
        torch.cat([x[..., frames:], gap], -1)
        if frames > 0
        else torch.cat([gap, x[..., :frames]], -1)
    )


def _difference(x: Tensor, lag: int) -> Tensor:
    """Change over ``lag`` frames centred on each; NaN where the window ends first."""
    if x.shape[-1] <= lag:
        return torch.full_like(x, torch.nan)
    gap = x.new_full((*x.shape[:-1], lag // 2), torch.nan)
    return torch.cat([gap, x[..., lag:] - x[..., :-lag], gap], -1)
