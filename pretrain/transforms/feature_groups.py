"""The groups of features that a recipe can ask for, a function each.

To add one, write a function here and mark it with :func:`feature_group`: it is found by being here,
and its name is its name in a recipe's ``features.groups``. It returns tensors that end in (B, T),
px and radians resolved to numbers whose spread makes sense; they are standardised afterwards. What
needs a missing point is NaN, which arithmetic sees to.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pretrain.data.schema import Schema
from pretrain.transforms.geometry import difference, later, rotate_back
from pretrain.transforms.identities import MEMORY_S, correct_identity_swaps
from pretrain.transforms.interaction import REACH_S, Interaction

_PLANE = -3  # the axis of coordinates, before (B, T)


@dataclass(frozen=True, kw_only=True)
class Bodies:
    """What groups are computed from. Frames come last, so that arithmetic is fast."""

    position_MKXBT: Tensor
    """px; NaN where missing."""
    confidence_MKBT: Tensor
    origin_MXBT: Tensor
    """Where the frame of each animal's body lies (px)."""
    heading_MXBT: Tensor
    """Where it points: cosine and sine."""
    lags: Sequence[int]
    """Even numbers of frames over which motion is measured."""
    image_X: Tensor
    """Size of the image (px)."""
    body_px: Tensor
    """Length of a body (px)."""
    schema: Schema


@dataclass(frozen=True)
class FeatureGroup:
    """One group, as :func:`feature_group` makes it."""

    compute: Callable[[Bodies], list[Tensor]]
    uses_lags: bool
    """Whether it reads frames up to half of the greatest lag away."""
    reach_s: float
    """Seconds to either side that it reads besides."""

    def reach(self, lags: Sequence[int], fps: float) -> int:
        """Frames to either side that it reads."""
        of_lags = max(lags, default=0) // 2 if self.uses_lags else 0
        return max(of_lags, round(self.reach_s * fps) + (2 if self.reach_s else 0))


def feature_group(
    *, uses_lags: bool = False, reach_s: float = 0.0
) -> Callable[[Callable[[Bodies], list[Tensor]]], FeatureGroup]:
    """Makes a function the feature group of its name."""
    return partial(FeatureGroup, uses_lags=uses_lags, reach_s=reach_s)


@feature_group()
def posture(bodies: Bodies) -> list[Tensor]:
    """Each animal's points in the frame of its body."""
    offset = bodies.position_MKXBT - bodies.origin_MXBT.unsqueeze(1)
    return [rotate_back(offset, bodies.heading_MXBT.unsqueeze(1), axis=_PLANE)]


@feature_group(uses_lags=True)
def motion(bodies: Bodies) -> list[Tensor]:
    """Displacement, turn and speed of every point over each lag."""
    columns = []
    for lag in bodies.lags:
        moved = difference(bodies.origin_MXBT, lag)
        columns.append(squash(rotate_back(moved, bodies.heading_MXBT, axis=_PLANE)))
        past_x, past_y = later(bodies.heading_MXBT, -(lag // 2)).unbind(1)
        future_x, future_y = later(bodies.heading_MXBT, lag // 2).unbind(1)
        columns += [past_x * future_y - past_y * future_x, past_x * future_x + past_y * future_y]
        columns.append(torch.log1p(norm(*difference(bodies.position_MKXBT, lag).unbind(2))))
    return columns


@feature_group(uses_lags=True)
def relation(bodies: Bodies) -> list[Tensor]:
    """For each animal where each other one is, how far, its heading, and how fast they close in."""
    columns = []
    for me, other in itertools.permutations(range(len(bodies.origin_MXBT)), 2):
        towards = bodies.origin_MXBT[other] - bodies.origin_MXBT[me]
        heading = bodies.heading_MXBT[me]
        distance = norm(*towards.unbind(0)).unsqueeze(0)
        columns += [
            rotate_back(towards, heading, axis=_PLANE) / (1 + distance),
            torch.log1p(distance),
            rotate_back(bodies.heading_MXBT[other], heading, axis=_PLANE),
        ]
        columns += [squash(difference(distance, lag)) for lag in bodies.lags]
    return columns


@feature_group()
def distances(bodies: Bodies) -> list[Tensor]:
    """Logarithm of all distances between points of two animals."""
    coordinates = bodies.position_MKXBT.unbind(2)
    return [
        torch.log1p(norm(*(x[a].unsqueeze(1) - x[b].unsqueeze(0) for x in coordinates)))
        for a, b in itertools.combinations(range(len(bodies.position_MKXBT)), 2)
    ]


@feature_group()
def all_distances(bodies: Bodies) -> list[Tensor]:
    """Logarithm of the distances between any two points, be they of one animal or of two."""
    points = bodies.position_MKXBT.flatten(0, 1)
    one, other = torch.triu_indices(len(points), len(points), 1)
    return [torch.log1p(norm(*(points[one] - points[other]).unbind(1)))]


@feature_group()
def scene(bodies: Bodies) -> list[Tensor]:
    """Every point of all animals in the frame of the first one's body, in the order (M, K, X): for
    encoders that read points."""
    offset = bodies.position_MKXBT - bodies.origin_MXBT[:1].unsqueeze(1)
    return [rotate_back(offset, bodies.heading_MXBT[:1].unsqueeze(1), axis=_PLANE)]


@feature_group()
def place(bodies: Bodies) -> list[Tensor]:
    """Distance to the walls of the image. It changes where the scene is moved or turned."""
    share = bodies.origin_MXBT / bodies.image_X[:, None, None]
    return [share, 1 - share]


@feature_group(reach_s=REACH_S)
def interaction(bodies: Bodies) -> list[Tensor]:
    """What hand-made classifiers of behaviour live on, whoever is called the first animal, in the
    plane of x and y: pretrain/transforms/interaction.py."""
    plane = bodies.position_MKXBT[:, :, :2]
    return [torch.stack(list(_interaction(bodies, plane).compute().values()))]


@feature_group(reach_s=REACH_S + MEMORY_S)
def social(bodies: Bodies) -> list[Tensor]:
    """The group ``interaction`` without the position in the arena and what the tracker saw: these
    tell recordings apart rather than behaviours of several animals. A tracker's
    identity swaps are corrected first."""
    position_MKXBT = correct_identity_swaps(
        bodies.position_MKXBT[:, :, :2], bodies.schema, bodies.body_px
    )
    return [torch.stack(list(_interaction(bodies, position_MKXBT).compute_social().values()))]


@feature_group(reach_s=REACH_S)
def social_roles(bodies: Bodies) -> list[Tensor]:
    """The group ``social`` of two animals with roles, a resident and an intruder: a column for each
    of them. Nothing of other numbers of animals."""
    if len(bodies.position_MKXBT) != 2:
        return []
    plane = bodies.position_MKXBT[:, :, :2]
    columns = _interaction(bodies, plane, roles=True).compute_social()
    return [torch.stack(list(columns.values()))]


def _interaction(bodies: Bodies, position_MKXBT: Tensor, *, roles: bool = False) -> Interaction:
    return Interaction(
        position_MKXBT, bodies.confidence_MKBT, bodies.schema, bodies.body_px, roles=roles
    )


@feature_group()
def confidence(bodies: Bodies) -> list[Tensor]:
    """The tracker's confidence in every point."""
    return [bodies.confidence_MKBT]


def all_groups() -> dict[str, FeatureGroup]:
    """Every group of this file by its name, in order."""
    return {name: value for name, value in globals().items() if isinstance(value, FeatureGroup)}


def norm(x: Tensor, *others: Tensor) -> Tensor:
    """Length of vectors given by their coordinates."""
    square = x * x
    for y in others:
        square.addcmul_(y, y)
    return square.sqrt_()


def squash(px: Tensor) -> Tensor:
    """Signed logarithm: resolves a creep and a dash alike."""
    return px.sign() * torch.log1p(px.abs())
