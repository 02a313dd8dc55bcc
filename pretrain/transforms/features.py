"""Poses to what an encoder reads, in batch and on the device.

A missing point is NaN, and so is every feature that needs it, which arithmetic sees to. At the very
end features are standardised, the missing ones set to 0 (their mean), and the visibility of every
keypoint appended, so that an encoder can tell "average" from "unknown".

Every animal has a body frame: the rigid motion that lays its visible points on the store's mean
body (Kabsch 1976, in the plane). It needs two visible points, not any particular one. Hence the
features are unchanged by moving or rotating the scene (all but ``place``), and a mirror changes
signs of sideways ones only. Of poses in space z is the height: bodies turn about the vertical, and
every group but ``interaction``, which is of the plane, reads the height, too.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pretrain.data.schema import Schema
from pretrain.data.windows import Pose
from pretrain.errors import BadInput, error_if, refuse
from pretrain.transforms.feature_groups import Bodies, all_groups, norm
from pretrain.transforms.geometry import frames_last, rotate

_CLIP = 6.0  # standard deviations; a tracker's jump is not worth more


class Features(nn.Module):
    """Poses to standardised features.

    Args:
        schema: Skeleton of the poses.
        groups: Which features: functions of pretrain/transforms/feature_groups.py.
        lags: Frames over which motion is measured, centred on the frame.
        external: External features that the store holds for each frame (name to D), taken as they
            are: whether they change when the scene is moved, turned or mirrored is theirs to say.
        units: What keeps its length where poses of another store are read: a pixel, a centimetre,
            or a body (pretrain/transforms/units.py).

    Attributes:
        columns: Which columns of axis F are each group's (the external ones as ``external``), and
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
        units: Literal["px", "body", "cm"] = "px",
    ) -> None:
        super().__init__()
        allowed = ", ".join(all_groups())
        refuse(
            [
                f"unknown group {group!r}; allowed: {allowed}"
                for group in groups
                if group not in all_groups()
            ]
            + [
                f"lag {lag} is not a positive even number of frames"
                for lag in lags
                if lag < 1 or lag % 2
            ]
            + error_if(not groups and not external, "no groups")
            + [
                f"external features {name!r} have dimension {dim}; it must be the whole number "
                "that `ethoray prepare check` shows"
                for name, dim in (external or {}).items()
                if not isinstance(dim, int) or dim < 1
            ]
            + error_if(
                units == "cm" and schema.px_per_cm is None,
                "units are cm, and the store does not say how many pixels a cm has: prepare it "
                "with --px-per-cm",
            )
            + error_if(
                schema.coordinates not in (("x", "y"), ("x", "y", "z")),
                f"poses have coordinates {schema.coordinates}; allowed: x, y and perhaps z",
            ),
            about="features",
        )
        self.schema, self.groups, self.lags = schema, tuple(groups), tuple(lags)
        self.external = dict(external or {})
        self.units = units
        animals, keypoints, coordinates = schema.shape
        self.register_buffer("image_X", torch.tensor(schema.image_px))
        self.register_buffer("body_KX", torch.zeros(keypoints, coordinates))
        back, front = schema.keypoint(schema.axis[0]), schema.keypoint(schema.axis[1])
        self._axis = back, front
        # Until fitted, bodies are laid on their axis alone.
        self.body_KX[front, 0], self.body_KX[back, 0] = 1.0, -1.0
        example = self._example()
        sizes = {
            group: sum(len(column.flatten(0, -3)) for column in columns)
            for group, columns in self._columns(
                example, frames_last(example.position_BTMKX)
            ).items()
        }
        ends = list(itertools.accumulate(sizes.values()))
        width = ends[-1]
        if not width:
            raise BadInput(f"features: with {animals} animal, {', '.join(groups)} hold nothing")
        self.columns = {
            group: slice(end - sizes[group], end) for group, end in zip(sizes, ends, strict=True)
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
        """Frames to each side that the features of a frame depend on."""
        groups = all_groups()
        return max(
            (groups[name].reach(self.lags, self.schema.fps) for name in self.groups), default=0
        )

    @torch.no_grad()
    def fit(self, pose: Pose) -> None:
        """Takes the mean body, means and standard deviations from a sample of unlabelled poses.

        Raises:
            BadInput: If no animal is ever seen well enough to tell where its body points.
        """
        position = pose.position_BTMKX.flatten(0, 2)
        back, front = self._axis
        forward = nn.functional.normalize((position[:, front] - position[:, back])[:, :2], dim=-1)
        sideways = torch.stack([-forward[:, 1], forward[:, 0]], -1)
        centre = position.nanmean(1, keepdim=True)
        offset = position - centre
        plane = [(offset[..., :2] * axis.unsqueeze(1)).sum(-1) for axis in (forward, sideways)]
        own = torch.stack([*plane, *offset[..., 2:].unbind(-1)], -1)
        known_NK = own.isfinite().all(-1)
        body = own[known_NK.any(-1)].nanmean(0)
        refuse(
            [
                f"keypoint {name!r} is never seen together with {self.schema.axis[0]!r} and "
                f"{self.schema.axis[1]!r}"
                for name, known in zip(self.schema.keypoints, known_NK.any(0).tolist(), strict=True)
                if not known
            ],
            about="the poses show no whole body to measure the others against",
        )
        self.body_KX.copy_(body - body.mean(0, keepdim=True))
        raw_FBT = torch.cat(self._raw(pose, frames_last(pose.position_BTMKX)))
        mean, scale = mean_and_scale(raw_FBT.flatten(1).t())
        self.mean_F.copy_(mean)
        self.scale_F.copy_(scale)

    def forward(self, pose: Pose) -> Tensor:
        """Returns (B, T, F): features with unit spread, 0 where unknown, then visibility (0 or 1)
        of each keypoint.

        In memory frames come last: layers that multiply read them so, and turning them would take
        longer than most layers.
        """
        position = frames_last(pose.position_BTMKX)
        all_FN = torch.cat(
            [*self._raw(pose, position), _visible(position[:, :, :1]).flatten(0, 1)]
        ).flatten(1)
        standardised = all_FN[: len(self.mean_F)]  # the rest is visibility
        standardised.sub_(self.mean_F.unsqueeze(1)).mul_(self.scale_F.unsqueeze(1)).clamp_(
            -_CLIP, _CLIP
        ).nan_to_num_(0.0)
        return all_FN.view(-1, *pose.position_BTMKX.shape[:2]).permute(1, 2, 0)

    def raw(self, pose: Pose) -> Tensor:
        """Returns (B, T, F) before they are standardised, without visibility; NaN where unknown."""
        return torch.cat(self._raw(pose, frames_last(pose.position_BTMKX))).permute(1, 2, 0)

    def body_frames(self, pose: Pose) -> tuple[Tensor, Tensor]:
        """The frame of each animal's body: its origin, (B, T, M, X) px, and its heading as (cos,
        sin), (B, T, M, 2)."""
        origin, heading = self._body_frames(frames_last(pose.position_BTMKX))
        return origin.permute(2, 3, 0, 1), heading.permute(2, 3, 0, 1)

    @property
    def body_length_px(self) -> float:
        """From the back to the front of a body, in the poses fitted on."""
        return float(self._body_px())

    # From here on the frames come last, (…, X, B, T), so that arithmetic runs at the speed of
    # memory.

    def _body_frames(self, position_MKXBT: Tensor) -> tuple[Tensor, Tensor]:
        """Origin (M, X, B, T) and heading (M, 2, B, T)."""
        visible = _visible(position_MKXBT)
        count = visible.sum(1, keepdim=True).clamp(min=1)
        visible, body = visible.unsqueeze(2), self.body_KX[:, :, None, None]
        position = position_MKXBT.nan_to_num(0.0, 0.0, 0.0) * visible
        centre = _sum_of_points(position) / count
        # From the centre offsets add up to 0, so that it does not matter where the body's own
        # centre lies.
        offset_x, offset_y, *_ = ((position - centre.unsqueeze(1)) * visible).unbind(2)
        cos = _sum_of_points(body[:, 0] * offset_x + body[:, 1] * offset_y)
        sin = _sum_of_points(body[:, 0] * offset_y - body[:, 1] * offset_x)
        length = norm(cos, sin).unsqueeze(1)
        # One visible point, or points on top of each other, tell no direction.
        heading = torch.where(length > 1e-6, torch.stack([cos, sin], 1) / length, torch.nan)
        return centre - rotate(_sum_of_points(body * visible) / count, heading, axis=-3), heading

    def _raw(self, pose: Pose, position_MKXBT: Tensor) -> list[Tensor]:
        """(F, B, T) in pieces, not standardised; NaN where unknown."""
        return [
            column.flatten(0, -3)
            for columns in self._columns(pose, position_MKXBT).values()
            for column in columns
        ]

    def _columns(self, pose: Pose, position_MKXBT: Tensor) -> dict[str, list[Tensor]]:
        origin, heading = self._body_frames(position_MKXBT)
        bodies = Bodies(
            position_MKXBT=position_MKXBT,
            confidence_MKBT=pose.confidence_BTMK.permute(2, 3, 0, 1),
            origin_MXBT=origin,
            heading_MXBT=heading,
            lags=self.lags,
            image_X=self.image_X,
            body_px=self._body_px(),
            schema=self.schema,
        )
        columns = {group: all_groups()[group].compute(bodies) for group in self.groups}
        if self.external:
            assert pose.extra_BTE is not None, f"poses without the features {list(self.external)}"
            # What heads alone read comes behind.
            columns["external"] = [
                pose.extra_BTE[..., : sum(self.external.values())].permute(2, 0, 1)
            ]
        return columns

    def _body_px(self) -> Tensor:
        """From the back to the front of a body; a twentieth of the image where animals are points,
        which have no length."""
        length = norm(*(self.body_KX[self._axis[1]] - self.body_KX[self._axis[0]]))
        return torch.where(length > 0, length, self.image_X.amax() / 20)

    def _example(self) -> Pose:
        animals, keypoints, coordinates = self.schema.shape
        extra = torch.zeros(1, 2, sum(self.external.values())) if self.external else None
        return Pose(
            torch.zeros(1, 2, animals, keypoints, coordinates),
            torch.ones(1, 2, animals, keypoints),
            extra,
        )


def mean_and_scale(values: Tensor) -> tuple[Tensor, Tensor]:
    """What standardises values: the mean over the first axis of those that are known, and 1 /
    spread, 0 where there is none."""
    known = values.isfinite()
    count = known.sum(0).clamp(min=1)
    mean = values.nan_to_num(0.0).sum(0) / count
    spread = (torch.where(known, values - mean, 0.0).square().sum(0) / count).sqrt()
    return mean, torch.where(spread > 1e-6, 1 / spread.clamp(min=1e-6), 0.0)


def _visible(position_MKXBT: Tensor) -> Tensor:
    """(M, K, B, T): 1 where all coordinates of a point are known, else 0."""
    # Numbers rather than truth values, which a processor takes several times as long to make.
    zero_or_nan = (position_MKXBT.detach() * 0).sum(2)
    return zero_or_nan.clone().eq_(zero_or_nan)


def _sum_of_points(x_MK: Tensor) -> Tensor:
    """Over axis 1. torch's sum adds the last frames of a batch in another order than the same
    frames of a larger one."""
    return functools.reduce(torch.add, x_MK.unbind(1))
