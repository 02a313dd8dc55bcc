"""What each column of the features is, in words."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import torch

from pretrain.data.schema import Schema
from pretrain.transforms.features import Features
from pretrain.transforms.interaction import GROUPS, Interaction


def feature_names(features: Features) -> list[str]:
    """The names of the columns of :meth:`Features.raw`, in order, each with its group and unit.

    "Forward" and "sideways" are along and across the heading of an animal's body; "log" is the
    logarithm of 1 + the size in pixels, with its sign. Lengths of the groups ``interaction``,
    ``social`` and ``social_roles`` are in body lengths.
    """
    schema = features.schema
    names: list[str] = []
    for group, columns in features.columns.items():
        if group == "external":
            names += [
                f"external: {name} {d}"
                for name, dim in features.external.items()
                for d in range(dim)
            ]
        elif group in GROUPS:
            names += [f"{group}: {name}" for name in _interaction(schema, group)]
        elif group != "visible":
            named = list(_names(group, schema, features.lags))
            numbers = map(str, range(columns.stop - columns.start))
            names += [f"{group}: {name}" for name in named or numbers]
    return names


def _names(group: str, schema: Schema, lags: Sequence[int]) -> Iterator[str]:
    """Of the columns of a group; none for one that is not known here."""
    animals, points = schema.animals, list(itertools.product(schema.animals, schema.keypoints))
    dims = len(schema.coordinates)
    ways = ("forward", "sideways", "up")[:dims]
    match group:
        case "posture" | "scene":
            unit = "px" if group == "posture" else f"px from {animals[0]}"
            yield from (f"{m} {k} {way} ({unit})" for m, k in points for way in ways)
        case "motion":
            for over in (f"over {lag} frames" for lag in lags):
                yield from (f"{m} {way} {over} (log px)" for m in animals for way in ways)
                yield from (f"{m} turn {over} ({part})" for part in ("sin", "cos") for m in animals)
                yield from (f"{m} {k} {over} (log px)" for m, k in points)
        case "relation":
            for me, other in itertools.permutations(animals, 2):
                pair = f"{other} seen by {me}"
                yield from (f"{pair} {way} (direction)" for way in ways)
                yield f"{pair} distance (log px)"
                yield from (f"{pair} heading ({part})" for part in ("cos", "sin"))
                yield from (f"{pair} distance over {lag} frames (log px)" for lag in lags)
        case "distances":
            for one, other in itertools.combinations(animals, 2):
                for mine, theirs in itertools.product(schema.keypoints, repeat=2):
                    yield f"{one} {mine} to {other} {theirs} (log px)"
        case "all_distances":
            for (m, k), (n, j) in itertools.combinations(points, 2):
                yield f"{m} {k} to {n} {j} (log px)"
        case "place":
            sides = (("left", "top", "floor"), ("right", "bottom", "ceiling"))
            for walls, m in itertools.product(sides, animals):
                yield from (f"{m} to the {wall} wall (share of the image)" for wall in walls[:dims])
        case "confidence":
            yield from (f"{m} {k} (0 to 1)" for m, k in points)


def _interaction(schema: Schema, group: str) -> Iterable[str]:
    animals, keypoints, _ = schema.shape
    position = torch.zeros(animals, keypoints, 2, 1, 1)
    confidence = torch.ones(animals, keypoints, 1, 1)
    roles = group == "social_roles"
    features = Interaction(position, confidence, schema, torch.ones(()), roles=roles)
    return features.compute() if group == "interaction" else features.compute_social()
