"""Brings recordings of different trackers to one form: names, order, scale and frame rate, as the
options of a command say them. Pure functions."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pretrain.errors import BadInput, refuse
from pretrain.quality.join_tracks import joined, warn_of_pieces
from pretrain.readers import tracks
from pretrain.readers.tracks import Tracks

_SHORT = 1000  # frames; of so few nobody minds that most are missing
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NameMapping:
    """Which names a store has, in which order, and what recordings call them.

    Recordings may differ in that: ``snout=nose,nose`` takes either.
    """

    old_names: tuple[tuple[str, tuple[str, ...]], ...]
    """(name in the store, names in the recordings)."""

    @classmethod
    def parse(cls, text: str, *, option: str) -> NameMapping:
        """Reads ``old=new,old=new,keep``.

        Raises:
            BadInput: If a name is empty, or listed twice.
        """
        old_names: dict[str, tuple[str, ...]] = {}
        for word in text.split(","):
            old, equals, new = (part.strip() for part in word.partition("="))
            new = new if equals else old
            if not old or not new:
                raise BadInput(
                    f"{option} {text}: {word!r} names nothing; write old=new,old=new,keep with "
                    "commas between"
                )
            if old in old_names.get(new, ()):
                raise BadInput(f"{option} {text}: {word!r} is there twice")
            old_names[new] = (*old_names.get(new, ()), old)
        return cls(tuple(old_names.items()))

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the store, in order."""
        return tuple(new for new, _ in self.old_names)

    def errors(self, names: Sequence[str], *, kind: str) -> list[str]:
        """Sentences on what the names of a recording lack; none where each is there once."""
        errors = []
        for new, old_names in self.old_names:
            present = [old for old in old_names if old in names]
            if not present:
                called = " or ".join(map(repr, old_names))
                errors.append(f"there is no {kind} {called}; there are {', '.join(names)}")
            elif len(present) > 1:
                errors.append(
                    f"{' and '.join(map(repr, present))} are both there, and both are to be {new!r}"
                )
        return errors

    def old_order(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those names of a recording that the store takes, in the store's order."""
        return tuple(old for _, olds in self.old_names for old in olds if old in names)

    def old_to_new(self, names: Sequence[str]) -> dict[str, str]:
        """Old name to new name, of a recording with these names."""
        return {old: new for new, olds in self.old_names for old in olds if old in names}


@dataclass(frozen=True, kw_only=True)
class TrackConversion:
    """From a recording as its file has it to one that fits a store."""

    fps: float
    """Frames per second of the recordings."""
    store_fps: float
    keypoints: NameMapping | None = None
    animals: NameMapping | None = None
    image_px: tuple[float, ...] | None = None
    """Extent of the recordings' image, where their files do not say it (or say it wrong)."""
    scale: float | None = None
    """Pixels of the store in a pixel of the recording."""
    scale_to: tuple[float, ...] | None = None
    """Extent of the store's image, instead of ``scale``."""
    px_per_cm: float | None = None
    """Pixels of the recordings in a centimetre."""
    store_px_per_cm: float | None = None
    """Pixels of the store in a centimetre; with ``px_per_cm`` it says the scale."""
    join_tracks: int | None = None
    """Into how many animals pieces of tracks are joined."""
    first_frame: int | None = None
    """Of the file; the recording begins there and ends with the last frame that shows an animal."""

    def __post_init__(self) -> None:
        errors = [
            f"{option} is {rate}; it must be a positive number of frames per second"
            for option, rate in (("--fps", self.fps), ("--store-fps", self.store_fps))
            if not _positive(rate)
        ]
        if self.scale is not None and self.scale_to is not None:
            errors.append("--scale and --scale-to say the same thing: give one")
        if self.scale is not None and not _positive(self.scale):
            errors.append(
                f"--scale is {self.scale}; it must be a positive number (pixels of the store in a "
                "pixel of the recording)"
            )
        if self.px_per_cm is not None:
            errors += self._errors_of_cm(self.px_per_cm)
        if self.join_tracks is not None and self.join_tracks < 1:
            errors.append(f"--join-tracks is {self.join_tracks}; it is the number of animals")
        refuse(errors, about="the recordings cannot be converted")

    def _errors_of_cm(self, px_per_cm: float) -> list[str]:
        if not _positive(px_per_cm):
            return [f"--px-per-cm is {px_per_cm}; it must be a positive number"]
        if self.store_px_per_cm is None:
            return ["--px-per-cm: the store does not say how many pixels a cm has: use --scale"]
        factor = self.store_px_per_cm / px_per_cm
        if self.scale_to is not None or abs((self.scale or factor) - factor) > 1e-6 * factor:
            return [f"--px-per-cm says a scale of {factor:g}: give no --scale or --scale-to"]
        return []

    def renamed(self, recordings: Iterable[Tracks]) -> list[Tracks]:
        """Applies the names to recordings of which only the names were read.

        Raises:
            BadInput: Listing every recording that lacks a name, with the names that it has.
        """
        recordings = [self._joined(recording) for recording in recordings]
        errors = [
            f"{recording.path}: {error}"
            for recording in recordings
            for mapping, names, kind in (
                (self.keypoints, recording.keypoints, "keypoint"),
                (self.animals, recording.animals, "animal"),
            )
            if mapping
            for error in mapping.errors(names, kind=kind)
        ]
        refuse(errors, about="--keypoints and --animals do not fit the recordings")
        return [self._renamed(recording) for recording in recordings]

    def _joined(self, recording: Tracks) -> Tracks:
        return joined(recording, self.join_tracks) if self.join_tracks else recording

    def trimmed(self, recording: Tracks) -> Tracks:
        """From ``first_frame`` on. Where none is given and most of a recording lies before and
        after the only frames that show an animal, a warning says so.

        Raises:
            BadInput: If the file counts its frames from another than 0 and none is given, or none
                is left.
        """
        seen = np.flatnonzero(recording.confidence_TMK.any((1, 2))) + recording.counted_from
        first, last = (int(seen[0]), int(seen[-1])) if len(seen) else (0, -1)
        if self.first_frame is None:
            if recording.counted_from:
                raise BadInput(
                    f"{recording.path}: its first frame is {recording.counted_from}, not 0: "
                    f"--first-frame {recording.counted_from} begins there, --first-frame 0 puts "
                    "missing frames before it"
                )
            if 0 <= last - first < recording.frames / 2 and recording.frames > _SHORT:
                _log.warning(
                    "%s: of %d frames only %d to %d show an animal (--first-frame %d leaves out "
                    "those before and after)",
                    *(recording.path, recording.frames, first, last, first),
                )
            return recording
        if self.first_frame > last:
            raise BadInput(
                f"{recording.path}: no animal is seen from frame {self.first_frame} on "
                f"(--first-frame); frames {first} to {last} show one"
            )
        before = max(0, recording.counted_from - self.first_frame)
        rows = slice(
            max(0, self.first_frame - recording.counted_from), last + 1 - recording.counted_from
        )
        space = [(before, 0), (0, 0), (0, 0)]
        return replace(
            recording,
            counted_from=0,
            confidence_TMK=np.pad(recording.confidence_TMK[rows], space),
            position_TMKX=np.pad(
                recording.position_TMKX[rows], [*space, (0, 0)], constant_values=np.nan
            ),
        )

    def apply(self, recording: Tracks, *, like: Tracks) -> Tracks:
        """The recording with names, order, scale and rate of the store.

        Args:
            recording: As read.
            like: Has the names of the store, in its order.

        Raises:
            BadInput: If it cannot be scaled as asked for.
        """
        if self.join_tracks is None:
            warn_of_pieces(recording)
        converted = tracks.conform(
            self._renamed(self._joined(recording)), animals=like.animals, keypoints=like.keypoints
        )
        if self.image_px is not None:
            if len(self.image_px) != len(converted.coordinates):
                raise BadInput(
                    f"--image gives {len(self.image_px)} extents; {converted.path} has coordinates "
                    f"{', '.join(converted.coordinates)}"
                )
            converted = replace(converted, image_px=self.image_px)
        converted = tracks.scale(converted, self._factor(converted))
        if self.scale_to is not None:
            converted = replace(converted, image_px=self.scale_to)
        return tracks.resample(replace(converted, fps=self.fps), self.store_fps)

    def _renamed(self, recording: Tracks) -> Tracks:
        for kind, mapping in (("keypoints", self.keypoints), ("animals", self.animals)):
            if mapping:
                names = getattr(recording, kind)
                order = {"animals": recording.animals, "keypoints": recording.keypoints}
                order[kind] = mapping.old_order(names)
                recording = tracks.conform(recording, **order)
                recording = tracks.rename(recording, mapping.old_to_new(names), of=kind)
        return recording

    def _factor(self, recording: Tracks) -> float:
        if self.px_per_cm and self.store_px_per_cm:
            return self.store_px_per_cm / self.px_per_cm
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


def parse_size(text: str, *, option: str) -> tuple[float, ...]:
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
