"""What makes unlike recordings alike: names, order, scale and frame rate, as the options of a
command say them. Pure functions."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pretrain.errors import BadInput, refuse
from pretrain.readers import tracks
from pretrain.readers.tracks import Tracks


@dataclass(frozen=True)
class Naming:
    """Which names are kept, in which order, and what they are called in the recordings.

    A name may have been called differently in different recordings: ``snout=nose,nose`` takes
    either.
    """

    olds: tuple[tuple[str, tuple[str, ...]], ...]
    """(name in the store, names in the recordings)."""

    @classmethod
    def parsed(cls, text: str, *, option: str) -> Naming:
        """Reads ``old=new,old=new,keep``.

        Raises:
            BadInput: If a name is empty, or listed twice.
        """
        found: dict[str, tuple[str, ...]] = {}
        for word in text.split(","):
            old, equals, new = (part.strip() for part in word.partition("="))
            new = new if equals else old
            if not old or not new:
                raise BadInput(
                    f"{option} {text}: {word!r} names nothing; write old=new,old=new,keep with "
                    "commas between"
                )
            if old in found.get(new, ()):
                raise BadInput(f"{option} {text}: {word!r} is there twice")
            found[new] = (*found.get(new, ()), old)
        return cls(tuple(found.items()))

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the store, in order."""
        return tuple(new for new, _ in self.olds)

    def problems(self, have: Sequence[str], *, kind: str) -> list[str]:
        """Sentences on what these names lack; empty where every wanted name is there once."""
        said = []
        for new, olds in self.olds:
            there = [old for old in olds if old in have]
            called = " or ".join(repr(old) for old in olds)
            if not there:
                said.append(f"there is no {kind} {called}; there are {', '.join(have)}")
            elif len(there) > 1:
                said.append(
                    f"{' and '.join(map(repr, there))} are both there, and both are to be {new!r}"
                )
        return said

    def old_to_new(self, have: Sequence[str]) -> dict[str, str]:
        """Of those names that are there."""
        return {old: new for new, olds in self.olds for old in olds if old in have}


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """From a recording as its file has it to one that fits the store."""

    fps: float
    """Frames per second of the recordings."""
    store_fps: float
    keypoints: Naming | None = None
    animals: Naming | None = None
    image_px: tuple[float, ...] | None = None
    """Extent of the recordings' image, where their files do not say it (or say it wrong)."""
    scale: float | None = None
    """Pixels of the store in a pixel of the recording."""
    scale_to: tuple[float, ...] | None = None
    """Extent of the store's image, instead of ``scale``."""

    def __post_init__(self) -> None:
        problems = [
            f"{option} is {rate}; it must be a positive number of frames per second"
            for option, rate in (("--fps", self.fps), ("--store-fps", self.store_fps))
            if not _positive(rate)
        ]
        if self.scale is not None and self.scale_to is not None:
            problems.append("--scale and --scale-to say the same thing: give one")
        if self.scale is not None and not _positive(self.scale):
            problems.append(
                f"--scale is {self.scale}; it must be a positive number (pixels of the store in a "
                "pixel of the recording)"
            )
        refuse(problems, about="the recordings cannot be converted")

    def named(self, recordings: Iterable[Tracks]) -> list[Tracks]:
        """Applies the names to recordings of which only the names were read.

        Raises:
            BadInput: Listing every recording that lacks a name, with the names that it has.
        """
        held, problems = [], []
        for one in recordings:
            said = [
                sentence
                for naming, have, kind in (
                    (self.keypoints, one.keypoints, "keypoint"),
                    (self.animals, one.animals, "animal"),
                )
                if naming
                for sentence in naming.problems(have, kind=kind)
            ]
            problems += [f"{one.path}: {sentence}" for sentence in said]
            if not said:
                held.append(self._names(one))
        if len(problems) > 20:
            problems = [*problems[:20], f"and {len(problems) - 20} more"]
        refuse(problems, about="--keypoints and --animals do not fit the recordings")
        return held

    def apply(self, recording: Tracks, *, like: Tracks) -> Tracks:
        """The recording with names, order, scale and rate of the store.

        Args:
            recording: As read.
            like: Has the names of the store, in its order.

        Raises:
            BadInput: If it cannot be scaled as asked for.
        """
        found = tracks.conform(
            self._names(recording), animals=like.animals, keypoints=like.keypoints
        )
        if self.image_px is not None:
            if len(self.image_px) != len(found.coordinates):
                raise BadInput(
                    f"--image gives {len(self.image_px)} extents; {found.path} has coordinates "
                    f"{', '.join(found.coordinates)}"
                )
            found = replace(found, image_px=self.image_px)
        found = tracks.scale(found, self._factor(found))
        if self.scale_to is not None:
            found = replace(found, image_px=self.scale_to)
        return tracks.resample(replace(found, fps=self.fps), self.store_fps)

    def _names(self, recording: Tracks) -> Tracks:
        for kind, naming in (("keypoints", self.keypoints), ("animals", self.animals)):
            if naming:
                have = getattr(recording, kind)
                kept = [next(old for old in olds if old in have) for _, olds in naming.olds]
                order = {"animals": recording.animals, "keypoints": recording.keypoints} | {
                    kind: tuple(kept)
                }
                recording = tracks.rename(
                    tracks.conform(recording, **order), naming.old_to_new(have), of=kind
                )
        return recording

    def _factor(self, recording: Tracks) -> float:
        if self.scale_to is None:
            return self.scale or 1.0
        if recording.image_px is None:
            raise BadInput(
                f"{recording.path} does not say how large its image is, so --scale-to cannot be "
                "used: add --image WIDTHxHEIGHT"
            )
        if len(self.scale_to) != len(recording.image_px):
            raise BadInput(
                f"--scale-to gives {len(self.scale_to)} extents; the image of {recording.path} has "
                f"{len(recording.image_px)}"
            )
        factors = [new / old for new, old in zip(self.scale_to, recording.image_px, strict=True)]
        if max(factors) > 1.02 * min(factors):
            raise BadInput(
                f"{recording.path}: an image of {_size(recording.image_px)} cannot become "
                f"{_size(self.scale_to)} without being stretched "
                f"({', '.join(f'{factor:.3g}' for factor in factors)} times): use --scale"
            )
        return sum(factors) / len(factors)


def parsed_size(text: str, *, option: str) -> tuple[float, ...]:
    """Reads ``WIDTHxHEIGHT``.

    Raises:
        BadInput: If it is something else.
    """
    words = re.split(r"[x×X]", text.strip())
    try:
        sizes = tuple(float(word) for word in words)
    except ValueError:
        sizes = ()
    if len(sizes) not in (2, 3) or not all(map(_positive, sizes)):
        raise BadInput(f"{option} is {text!r}; write WIDTHxHEIGHT in pixels, such as 1024x570")
    return sizes


def _size(extent: Iterable[float]) -> str:
    return "x".join(f"{value:g}" for value in extent)


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0
