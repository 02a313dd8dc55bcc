"""Poses to what an encoder reads, in batch and on the device.

A missing point is NaN, and so is every feature that needs it: arithmetic keeps the account. Only at the very end are
features standardised, the missing ones set to 0 (their mean) and the visibility of every keypoint handed over beside
them, so that an encoder can tell "average" from "unknown".

Every animal gets a frame of its own: the rigid motion that lays its visible points on the store's mean body
(Kabsch 1976, in the plane). It needs two visible points, not any particular one. Hence the features are unchanged by
moving or rotating the scene (all but ``place``), and a mirror changes signs of sideways ones only.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pretrain.errors import refuse
from pretrain.pose.schema import Schema
from pretrain.pose.windows import Pose

GROUPS = ("posture", "motion", "relation", "distances", "scene", "place", "confidence")
_CLIP = 6.0  # standard deviations; a tracker's jump is not worth more


class Features(nn.Module):
    """(position, confidence) to standardised features.

    Args:
        schema: Skeleton of the poses.
        groups: Which features: ``posture`` (own points in the own frame), ``motion`` (displacement, turn and speed of
            every point over each lag), ``relation`` (where each other animal is, its heading, closing speed),
            ``distances`` (log of all distances between points of two animals), ``scene`` (every point of all animals in the
            frame of the first, for encoders that read points: (M, K, X) in that order), ``place`` (distance to the four
            walls; not invariant to moving the scene), ``confidence`` (of every point).
        lags: Frames over which motion is measured, centred on the frame.
        external: Features from elsewhere that the store holds beside the poses (name to D), taken as they are: whether they
            change when the scene is moved, turned or mirrored is theirs to say.

    Attributes:
        columns: Where each group lies on axis F (those from elsewhere as ``external``), and ``visible``, the visibility (M, K) that
            always comes last.

    Shapes:
        Input: :class:`Pose` of (B, T, M, K, X) px and (B, T, M, K). Output: (B, T, F).
    """

    mean_F: Tensor
    scale_F: Tensor
    body_KX: Tensor
    image_X: Tensor

    def __init__(
        self, schema: Schema, *, groups: Sequence[str] = ("posture", "motion", "relation", "distances", "confidence"),
        lags: Sequence[int] = (2, 8, 24), external: Mapping[str, int] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        unknown = [group for group in groups if group not in GROUPS]
        refuse(
            [f"unknown group {group!r}; allowed: {', '.join(GROUPS)}" for group in unknown]
            + [f"lag {lag} is not a positive even number of frames" for lag in lags if lag < 1 or lag % 2]
            + (["no groups"] if not groups and not external else [])
            + [
                f"external features {name!r} have dimension {dim}; wanted the whole number that `prepare.py check` shows"
                for name, dim in (external or {}).items()
                if not isinstance(dim, int) or dim < 1
            ]
            + ([f"poses have coordinates {schema.coordinates}; these features are for x, y"] if len(schema.coordinates) != 2 else []),
            about="features",
        )
        self.schema, self.groups, self.lags, self.external = schema, tuple(groups), tuple(lags), dict(external or {})
        animals, keypoints, _ = schema.shape
        self.register_buffer("image_X", torch.tensor(schema.image_px))
        self.register_buffer("body_KX", torch.zeros(keypoints, 2))
        back, front = schema.keypoint(schema.axis[0]), schema.keypoint(schema.axis[1])
        self._axis = back, front
        # Until fitted, bodies are laid on their axis alone.
        self.body_KX[front, 0], self.body_KX[back, 0] = 1.0, -1.0
        parts = {group: sum(column.flatten(2).shape[-1] for column in found) for group, found in self._columns(self._example()).items()}
        ends = list(itertools.accumulate(parts.values()))
        width = ends[-1]
        self.columns = {group: slice(end - parts[group], end) for group, end in zip(parts, ends, strict=True)}
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
        own = torch.stack([((position - centre) * axis.unsqueeze(1)).sum(-1) for axis in (forward, sideways)], -1)
        body = own[own.isfinite().all(-1).any(-1)].nanmean(0) if len(own) else own
        seen = own.isfinite().all(-1).any(0) if len(own) else torch.zeros(len(self.body_KX), dtype=torch.bool)
        refuse(
            [f"keypoint {name!r} is never seen together with {self.schema.axis[0]!r} and {self.schema.axis[1]!r}"
             for name, ok in zip(self.schema.keypoints, seen.tolist(), strict=True) if not ok],
            about="the poses show no whole body to measure the others against",
        )  # fmt: skip
        self.body_KX.copy_(body - body.mean(0, keepdim=True))
        mean, scale = standard(self._raw(pose).flatten(0, 1))
        self.mean_F.copy_(mean)
        self.scale_F.copy_(scale)

    def forward(self, pose: Pose) -> Tensor:
        """Returns (B, T, F): features with unit spread, 0 where unknown, then visibility (0 or 1) of each keypoint."""
        raw = self._raw(pose)
        known = ((raw - self.mean_F) * self.scale_F).clamp_(-_CLIP, _CLIP).nan_to_num_(0.0)
        visible = pose.position_BTMKX[..., 0].isfinite().flatten(2).to(known.dtype)
        return torch.cat([known, visible], -1)

    def frames(self, pose: Pose) -> tuple[Tensor, Tensor]:
        """Each animal's own frame: where it is, (B, T, M, X) px, and its heading as (cos, sin), (B, T, M, 2)."""
        position = pose.position_BTMKX
        seen = position.isfinite().all(-1, keepdim=True)
        count = seen.sum(-2).clamp(min=1)
        reference = torch.where(seen, self.body_KX, 0.0)
        centre = torch.where(seen, position, 0.0).sum(-2) / count
        reference_centre = reference.sum(-2) / count
        offset = torch.where(seen, position - centre.unsqueeze(-2), 0.0)
        against = torch.where(seen, self.body_KX - reference_centre.unsqueeze(-2), 0.0)
        cos = (against * offset).sum((-1, -2))
        sin = (against[..., 0] * offset[..., 1] - against[..., 1] * offset[..., 0]).sum(-1)
        length = torch.hypot(cos, sin)
        heading = torch.stack([cos, sin], -1) / length.unsqueeze(-1)
        # One visible point, or points on top of each other, tell no direction.
        heading = torch.where((length > 1e-6).unsqueeze(-1), heading, torch.nan)
        return centre - _turn(reference_centre, heading), heading

    def _raw(self, pose: Pose) -> Tensor:
        """(B, T, F) in px, angles as cosine and sine; NaN where unknown."""
        return torch.cat([column.flatten(2) for found in self._columns(pose).values() for column in found], -1)

    def _columns(self, pose: Pose) -> dict[str, list[Tensor]]:
        position = pose.position_BTMKX
        place, heading = self.frames(pose)
        own = _unturn(position - place.unsqueeze(-2), heading.unsqueeze(-2))
        columns: dict[str, list[Tensor]] = {group: getattr(self, f"_{group}")(pose, place, heading, own) for group in self.groups}
        if self.external:
            assert pose.extra_BTE is not None, f"poses without the features {list(self.external)}"
            columns["external"] = [pose.extra_BTE[..., : sum(self.external.values())]]  # what heads alone read comes behind
        return columns

    def _example(self) -> Pose:
        animals, keypoints, coordinates = self.schema.shape
        extra = torch.zeros(1, 2, sum(self.external.values())) if self.external else None
        return Pose(torch.zeros(1, 2, animals, keypoints, coordinates), torch.ones(1, 2, animals, keypoints), extra)

    def _posture(self, pose: Pose, place: Tensor, heading: Tensor, own: Tensor) -> list[Tensor]:
        return [own]

    def _motion(self, pose: Pose, place: Tensor, heading: Tensor, own: Tensor) -> list[Tensor]:
        columns = []
        for lag in self.lags:
            columns.append(_squash(_unturn(_difference(place, lag), heading)))
            past, future = _shift(heading, -(lag // 2)), _shift(heading, lag // 2)
            columns.append(past[..., 0] * future[..., 1] - past[..., 1] * future[..., 0])
            columns.append((past * future).sum(-1))
            columns.append(torch.log1p(_difference(pose.position_BTMKX, lag).norm(dim=-1)))
        return columns

    def _relation(self, pose: Pose, place: Tensor, heading: Tensor, own: Tensor) -> list[Tensor]:
        columns = []
        for me, other in itertools.permutations(range(len(self.schema.animals)), 2):
            towards = place[:, :, other] - place[:, :, me]
            distance = towards.norm(dim=-1, keepdim=True)
            mine = heading[:, :, me]
            columns += [_unturn(towards, mine) / (1 + distance), torch.log1p(distance), _unturn(heading[:, :, other], mine)]
            columns += [_squash(_difference(distance, lag)) for lag in self.lags]
        return columns

    def _distances(self, pose: Pose, place: Tensor, heading: Tensor, own: Tensor) -> list[Tensor]:
        position = pose.position_BTMKX
        return [
            torch.log1p((position[:, :, a].unsqueeze(-2) - position[:, :, b].unsqueeze(-3)).norm(dim=-1))
            for a, b in itertools.combinations(range(len(self.schema.animals)), 2)
        ]

    def _scene(self, pose: Pose, place: Tensor, heading: Tensor, own: Tensor) -> list[Tensor]:
        return [_unturn(pose.position_BTMKX - place[:, :, :1].unsqueeze(-2), heading[:, :, :1].unsqueeze(-2))]

    def _place(self, pose: Pose, place: Tensor, heading: Tensor, own: Tensor) -> list[Tensor]:
        return [place / self.image_X, 1 - place / self.image_X]

    def _confidence(self, pose: Pose, place: Tensor, heading: Tensor, own: Tensor) -> list[Tensor]:
        return [pose.confidence_BTMK]


def standard(values: Tensor) -> tuple[Tensor, Tensor]:
    """What standardises values: the mean over the first axis of those that are known, and 1 / spread, 0 where there is none."""
    known = values.isfinite()
    count = known.sum(0).clamp(min=1)
    mean = values.nan_to_num(0.0).sum(0) / count
    spread = (torch.where(known, values - mean, 0.0).square().sum(0) / count).sqrt()
    return mean, torch.where(spread > 1e-6, 1 / spread.clamp(min=1e-6), 0.0)


def _turn(vector: Tensor, heading: Tensor) -> Tensor:
    x, y = vector.unbind(-1)
    cos, sin = heading.unbind(-1)
    return torch.stack([cos * x - sin * y, sin * x + cos * y], -1)


def _unturn(vector: Tensor, heading: Tensor) -> Tensor:
    x, y = vector.unbind(-1)
    cos, sin = heading.unbind(-1)
    return torch.stack([cos * x + sin * y, cos * y - sin * x], -1)


def _squash(px: Tensor) -> Tensor:
    """Signed logarithm: resolves a creep and a dash alike."""
    return px.sign() * torch.log1p(px.abs())


def _shift(x: Tensor, frames: int) -> Tensor:
    """The value ``frames`` later; NaN beyond the window."""
    if frames == 0:
        return x
    gap = x.new_full((x.shape[0], min(abs(frames), x.shape[1]), *x.shape[2:]), torch.nan)
    return torch.cat([x[:, frames:], gap], 1) if frames > 0 else torch.cat([gap, x[:, :frames]], 1)


def _difference(x: Tensor, lag: int) -> Tensor:
    """Change over ``lag`` frames centred on each; NaN where the window ends first."""
    if x.shape[1] <= lag:
        return torch.full_like(x, torch.nan)
    gap = x.new_full((x.shape[0], lag // 2, *x.shape[2:]), torch.nan)
    return torch.cat([gap, x[:, lag:] - x[:, :-lag], gap], 1)
