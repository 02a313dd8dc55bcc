"""What each column of the features is, in words."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import torch

from pretrain.data.schema import Schema
from pretrain.transforms.features import Features
from pretrain.transforms.interaction import Interaction


def feature_names(features: Features) -> list[str]:
    """The names of the columns of :meth:`Features.raw`, in order, each with its group and unit.

    "Forward" and "sideways" are along and across the heading of an animal's body; "log" is the
    logarithm of 1 + the size in pixels, with its sign. Lengths of the group ``interaction`` are in
    body lengths.
    """
    schema, lags = features.schema, features.lags
    names = []
    for group, columns in features.columns.items():
        if group == "external":
            names += [
                f"external: {name} {d}"
                for name, dim in features.external.items()
                for d in range(dim)
            ]
        elif group in _NAMES:
            names += [f"{group}: {name}" for name in _NAMES[group](schema, lags)]
        elif group != "visible":
            names += [f"{group}: {number}" for number in range(columns.stop - columns.start)]
    return names


def _ways(schema: Schema) -> tuple[str, ...]:
    return ("forward", "sideways", "up")[: len(schema.coordinates)]


def _points(schema: Schema, unit: str) -> Iterable[str]:
    for animal, keypoint in itertools.product(schema.animals, schema.keypoints):
        yield from (f"{animal} {keypoint} {way} ({unit})" for way in _ways(schema))


def _posture(schema: Schema, lags: Sequence[int]) -> Iterable[str]:
    return _points(schema, "px")


def _motion(schema: Schema, lags: Sequence[int]) -> Iterable[str]:
    for lag in lags:
        over = f"over {lag} frames"
        for animal in schema.animals:
            yield from (f"{animal} {way} {over} (log px)" for way in _ways(schema))
        yield from (f"{animal} turn {over} (sin)" for animal in schema.animals)
        yield from (f"{animal} turn {over} (cos)" for animal in schema.animals)
        for animal, keypoint in itertools.product(schema.animals, schema.keypoints):
            yield f"{animal} {keypoint} {over} (log px)"


def _relation(schema: Schema, lags: Sequence[int]) -> Iterable[str]:
    for me, other in itertools.permutations(schema.animals, 2):
        pair = f"{other} seen by {me}"
        yield from (f"{pair} {way} (direction)" for way in _ways(schema))
        yield f"{pair} distance (log px)"
        yield from (f"{pair} heading ({part})" for part in ("cos", "sin"))
        yield from (f"{pair} distance over {lag} frames (log px)" for lag in lags)


def _distances(schema: Schema, lags: Sequence[int]) -> Iterable[str]:
    for one, other in itertools.combinations(schema.animals, 2):
        for mine, theirs in itertools.product(schema.keypoints, repeat=2):
            yield f"{one} {mine} to {other} {theirs} (log px)"


def _scene(schema: Schema, lags: Sequence[int]) -> Iterable[str]:
    return _points(schema, f"px from {schema.animals[0]}")


def _place(schema: Schema, lags: Sequence[int]) -> Iterable[str]:
    walls = (("left", "top", "floor"), ("right", "bottom", "ceiling"))
    for side, animal in itertools.product(walls, schema.animals):
        for wall in side[: len(schema.coordinates)]:
            yield f"{animal} to the {wall} wall (share of the image)"


def _interaction(schema: Schema, lags: Sequence[int]) -> Iterable[str]:
    animals, keypoints, _ = schema.shape
    position = torch.zeros(animals, keypoints, 2, 1, 1)
    confidence = torch.ones(animals, keypoints, 1, 1)
    return Interaction(position, confidence, schema, torch.ones(())).compute()


def _confidence(schema: Schema, lags: Sequence[int]) -> Iterable[str]:
    return (f"{m} {k} (0 to 1)" for m, k in itertools.product(schema.animals, schema.keypoints))


_NAMES = {
    "posture": _posture,
    "motion": _motion,
    "relation": _relation,
    "distances": _distances,
    "scene": _scene,
    "place": _place,
    "interaction": _interaction,
    "confidence": _confidence,
}
