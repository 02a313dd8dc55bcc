"""The vocabulary of pose data. Everything that enters the project passes through this file.

Axes, in every file of the project: ``B`` windows, ``T`` frames, ``M`` animals, ``K`` keypoints,
``X`` coordinates, ``F`` features, ``D`` embedding, ``P`` programs, ``C`` classes. Arrays end in
them: ``position_TMKX``. Positions are pixels, x to the right, y down. A missing point is NaN with
confidence 0, never a zero coordinate.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from pretrain.errors import BadInput, refuse

Float = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Schema:
    """What one frame of a store holds."""

    animals: tuple[str, ...]
    """Names, in the order of axis M. In CalMS21: resident, intruder."""
    keypoints: tuple[str, ...]
    """Names, in the order of axis K."""
    fps: float
    """Frames per second."""
    image_px: tuple[float, ...]
    """Extent of the image along each coordinate: width, height (px)."""
    coordinates: tuple[str, ...] = ("x", "y")
    """Names, in the order of axis X."""
    edges: tuple[tuple[str, str], ...] = ()
    """Bones, as pairs of keypoints."""
    mirror_pairs: tuple[tuple[str, str], ...] = ()
    """Keypoints that a mirror exchanges, (left, right)."""
    axis: tuple[str, str] = ("", "")
    """(back, front): the keypoints that give the direction of the body; CalMS21: tail base to
    neck."""
    px_per_cm: float | None = None
    """Pixels in a centimetre of the arena, where it is known."""

    def __post_init__(self) -> None:
        errors = [
            f"{name} has an empty or repeated name: {list(names)}"
            for name, names in (
                ("animals", self.animals),
                ("keypoints", self.keypoints),
                ("coordinates", self.coordinates),
            )
            if not names or len(set(names)) != len(names) or not all(names)
        ]
        if not (math.isfinite(self.fps) and self.fps > 0):
            errors.append(f"fps is {self.fps}; it must be a positive number")
        if len(self.image_px) != len(self.coordinates) or not all(
            math.isfinite(v) and v > 0 for v in self.image_px
        ):
            errors.append(
                f"image_px is {self.image_px}; it must give a positive extent for each of "
                f"{self.coordinates}"
            )
        if self.px_per_cm is not None and not (
            math.isfinite(self.px_per_cm) and self.px_per_cm > 0
        ):
            errors.append(f"px_per_cm is {self.px_per_cm}; it must be a positive number")
        known = set(self.keypoints)
        for name, pairs in (
            ("edges", self.edges),
            ("mirror_pairs", self.mirror_pairs),
            ("axis", (self.axis,)),
        ):
            errors += [
                f"{name} names {point!r}, which is not a keypoint; keypoints: "
                f"{', '.join(self.keypoints)}"
                for pair in pairs
                for point in pair
                if point not in known
            ]
        refuse(errors, about="the pose schema")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(M, K, X)."""
        return len(self.animals), len(self.keypoints), len(self.coordinates)

    def keypoint(self, name: str) -> int:
        """Index of a keypoint on axis K."""
        return self.keypoints.index(name)

    def mirrored(self) -> list[int]:
        """For each keypoint the index of its mirror partner (its own where it has none)."""
        partner = {left: right for left, right in self.mirror_pairs} | {
            right: left for left, right in self.mirror_pairs
        }
        return [self.keypoint(partner.get(name, name)) for name in self.keypoints]

    def differences(self, other: Schema) -> list[str]:
        """Sentences on how the skeleton of another schema differs; empty where poses can be
        exchanged."""
        return [
            f"{name} differ: {', '.join(mine)} (here) against {', '.join(theirs)} (there)"
            for name, mine, theirs in (
                ("animals", self.animals, other.animals),
                ("keypoints", self.keypoints, other.keypoints),
                ("coordinates", self.coordinates, other.coordinates),
            )
            if mine != theirs
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; what is not known is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Schema:
        """The inverse of :meth:`to_dict`.

        Raises:
            BadInput: If a field is missing, unknown or of the wrong kind.
        """
        try:
            return cls(
                animals=tuple(map(str, values["animals"])),
                keypoints=tuple(map(str, values["keypoints"])),
                fps=float(values["fps"]),
                image_px=tuple(map(float, values["image_px"])),
                coordinates=tuple(map(str, values["coordinates"])),
                edges=tuple((str(a), str(b)) for a, b in values["edges"]),
                mirror_pairs=tuple((str(a), str(b)) for a, b in values["mirror_pairs"]),
                axis=(str(values["axis"][0]), str(values["axis"][1])),
                px_per_cm=float(values["px_per_cm"]) if "px_per_cm" in values else None,
            )
        except BadInput:
            raise
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise BadInput(f"the pose schema is damaged: {error!r}") from error

    @classmethod
    def from_names(
        cls,
        *,
        animals: Iterable[str],
        keypoints: Iterable[str],
        fps: float,
        image_px: Iterable[float],
    ) -> Schema:
        """A schema for tracks that bring names only: bones, sides and body axis are read off the
        names.

        Left/right pairs are names that differ by "left"/"right" (or a leading or trailing l/r)
        alone. The body axis runs from the first name that sounds like a rump (tail base, tail,
        rump, hip, back) to the first that sounds like a head (neck, head, nose, snout, top); else
        from the last keypoint to the first. Bones join the CalMS21 mouse as drawn there, and any
        other animal in the order of its keypoints.
        """
        names = tuple(keypoints)
        if not names:
            raise BadInput("the pose schema: no keypoints")
        return cls(
            animals=tuple(animals),
            keypoints=names,
            fps=float(fps),
            image_px=tuple(float(v) for v in image_px),
            edges=_bones(names),
            mirror_pairs=_mirror_pairs(names),
            axis=_body_axis(names),
        )


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _mirror_pairs(names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((left, right) for left in names for right in names if _is_other_side(left, right))


def _is_other_side(left: str, right: str) -> bool:
    swapped = {
        left.lower().replace("left", "right"),
        re.sub(r"(?:^l(?=[_\W])|(?<=[_\W])l$)", "r", left.lower()),
    }
    # earL and LEar part their words by capitals; "barrel" ends in l and means nothing by it.
    capitals = {re.sub(r"(?:^L(?=[A-Z])|(?<=[a-z0-9])L$)", "R", left)}
    return right.lower() in swapped - {left.lower()} or right in capitals - {left}


_REAR = ("tailbase", "basetail", "tail", "rump", "hip", "back")
_HEAD = ("neck", "head", "nose", "snout", "top", "implant")


def _body_axis(names: tuple[str, ...]) -> tuple[str, str]:
    sides = {name for pair in _mirror_pairs(names) for name in pair}
    central = [name for name in names if name not in sides] or list(names)

    def first(sounds: tuple[str, ...], otherwise: str) -> str:
        exact = [n for s in sounds for n in central if _plain(n) == s]
        loose = [n for s in sounds for n in central if s in _plain(n)]
        return (exact + loose + [otherwise])[0]

    back, front = first(_REAR, names[-1]), first(_HEAD, names[0])
    return (back, front) if back != front else (names[-1], names[0])


_MOUSE_BONES = (
    ("nose", "leftear"),
    ("nose", "rightear"),
    ("leftear", "neck"),
    ("rightear", "neck"),
    ("neck", "lefthip"),
    ("neck", "righthip"),
    ("lefthip", "tailbase"),
    ("righthip", "tailbase"),
)


def _bones(names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    by_plain = {_plain(name): name for name in names}
    by_plain.setdefault("tailbase", by_plain.get("tail", ""))
    if all(by_plain.get(end) for bone in _MOUSE_BONES for end in bone):
        return tuple((by_plain[a], by_plain[b]) for a, b in _MOUSE_BONES)
    return tuple(pairwise(names))


CALMS21 = Schema.from_names(
    animals=("resident", "intruder"),
    keypoints=("nose", "left_ear", "right_ear", "neck", "left_hip", "right_hip", "tail_base"),
    fps=30.0,
    image_px=(1024.0, 570.0),
)


@dataclass(frozen=True, kw_only=True)
class Video:
    """The tracks of one recording, as a reader hands them to the store."""

    name: str
    """Unique in its store."""
    position_TMKX: Float
    """Pixels; NaN where a point was not found."""
    confidence_TMK: Float
    """0 to 1; 0 = missing."""
    source: str = ""
    """File it came from."""
    source_sha256: str = ""
    """Checksum of that file."""
    features: Mapping[str, Float] = field(default_factory=dict)
    """External features, per frame, by name, each (T, D)."""

    def __post_init__(self) -> None:
        position, confidence = self.position_TMKX, self.confidence_TMK
        errors = []
        if position.ndim != 4 or position.shape[:3] != confidence.shape:
            errors.append(
                f"positions have shape {position.shape}, confidence {confidence.shape}; they must "
                "be (T, M, K, X) and (T, M, K)"
            )
        elif not len(position):
            errors.append("it has no frames")
        elif np.isinf(position).any():
            errors.append(
                f"a position is infinite at frame {int(np.argwhere(np.isinf(position))[0, 0])}"
            )
        for name, values in self.features.items():
            if values.ndim != 2 or len(values) != len(position):
                errors.append(
                    f"features {name!r} have shape {values.shape}; it must be ({len(position)}, D)"
                )
        refuse(errors, about=f"video {self.name!r} ({self.source or 'no file'})")
