"""New recordings as a model reads them: from tracker files or a store, with the model's names,
order, scale and frame rate."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finetune.inference.model import as_tensors
from finetune.labels.frame_labels import Reals
from pretrain.data.schema import Schema
from pretrain.data.store import Store
from pretrain.errors import BadInput, refuse
from pretrain.quality.join_tracks import joined
from pretrain.readers import find_tracks, tracks
from pretrain.readers.harmonise import NameMapping, TrackConversion, parse_size
from pretrain.readers.tracks import Tracks
from pretrain.runs import paths
from pretrain.transforms.features import Features
from pretrain.transforms.units import pixel

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One recording whose names are known to fit; :meth:`read` reads it."""

    name: str
    fps: float
    """Of the recording, not of the model."""
    schema: Schema
    """The model's."""
    external: Mapping[str, int]
    convert: TrackConversion
    in_body_lengths: Features | None = None
    """Of the model, where they are in body lengths."""
    header: Tracks | None = None
    """What its file says without its frames; None: it is in ``store``."""
    store: Store | None = None

    def read(self) -> tuple[dict[str, Tensor], int]:
        """Tensors at the model's rate, and the frames of the recording at its own.

        Raises:
            BadInput: If the file is damaged.
        """
        raw = self._raw()
        converted = self.convert.apply(raw, like=_without_frames(self.schema, "the model"))
        if self.in_body_lengths is not None:
            body = torch.from_numpy(converted.position_TMKX)
            factor = pixel(self.in_body_lengths, px_per_cm=None, body=body, where=self.name)
            converted = tracks.scale(converted, factor)
        arrays = {
            "position": converted.position_TMKX,
            "confidence": converted.confidence_TMK.astype(np.float32),
        }
        if self.external:
            assert self.store is not None
            features = self.store.read_video(self.name, features=tuple(self.external)).features
            values = [
                tracks.resample_values(features[name], old_fps=self.fps, fps=self.schema.fps)
                for name in self.external
            ]
            arrays["extra"] = np.concatenate(values, axis=1)
        return as_tensors(arrays), raw.frames

    def read_tracks(self) -> Tracks:
        """The poses at the recording's own rate, with the names and in the scale of its file;
        pieces of tracks are joined.

        Raises:
            BadInput: If the file is damaged.
        """
        pieces = self.convert.join_tracks
        return joined(self._raw(), pieces) if pieces else self._raw()

    def _raw(self) -> Tracks:
        if self.store is None:
            assert self.header is not None
            raw = find_tracks.read_recording(self.header)
        else:
            video = self.store.read_video(self.name, features=())
            seen = video.confidence_TMK > 0
            raw = replace(
                _without_frames(self.store.schema, self.store.uri),
                name=self.name,
                confidence_TMK=video.confidence_TMK,
                position_TMKX=np.where(seen[..., None], video.position_TMKX, np.float32(np.nan)),
            )
        if not raw.frames:
            raise BadInput(f"{raw.path}: {self.name!r} has no frames")
        return self.convert.trimmed(raw)

    def in_own_pixels(self) -> Tracks:
        """A file's poses at the recording's scale and rate, in the model's order."""
        (renamed,) = self.convert.renamed([self.read_tracks()])
        return tracks.conform(renamed, animals=self.schema.animals, keypoints=self.schema.keypoints)

    def at_own_rate(self, values_T: Reals, length: int) -> Reals:
        """Values of the model's frames for each frame of the recording: the nearest one's."""
        nearest = np.rint(np.arange(length) * (self.schema.fps / self.fps)).astype(np.int64)
        return np.asarray(values_T[np.minimum(nearest, len(values_T) - 1)])


@contextmanager
def recordings(
    args: argparse.Namespace,
    schema: Schema,
    external: Mapping[str, int],
    features: Features | None = None,
) -> Iterator[list[Recording]]:
    """The recordings that ``--poses`` means, checked by their names; no frames are read.

    Args:
        args: The options.
        schema: The model's.
        external: Features that the model reads with the poses.
        features: The model's, where they may be in cm or body lengths.

    Zips stay unpacked for as long as the block lasts.

    Raises:
        BadInput: If there are none, a file is no tracks file, or skeletons do not fit; shows both.
    """
    common: dict[str, Any] = {
        "store_fps": schema.fps,
        "scale": args.scale,
        "px_per_cm": args.px_per_cm,
        "store_px_per_cm": schema.px_per_cm,
        "join_tracks": args.join_tracks,
        "first_frame": args.first_frame,
        "image_px": parse_size(args.image, option="--image") if args.image else None,
        "scale_to": parse_size(args.scale_to, option="--scale-to") if args.scale_to else None,
    }
    opened: list[Recording] = []
    with ExitStack() as stack:
        stores = [
            word
            for word in args.poses
            if "://" in word or (Path(paths.absolute_address(word)) / "store.json").is_file()
        ]
        files: list[Path] = []
        for word in (word for word in args.poses if word not in stores):
            files += find_tracks.find_tracks(stack.enter_context(find_tracks.unpacked(word)))
        headers = find_tracks.read_all_names(list(dict.fromkeys(files))) if files else []
        if headers and features is not None and features.units == "cm" and not args.scale:
            pixel(features, px_per_cm=args.px_per_cm, body=None, where="the recordings")
        if headers and external:
            raise BadInput(
                f"the model reads external features ({', '.join(external)}), which track files do "
                "not hold: prepare a store with ethoray prepare tracks --features and give that as "
                "--poses"
            )
        if args.join_tracks:
            headers = [joined(header, args.join_tracks) for header in headers]
        naming = _naming(args, headers, schema)
        _refuse_unlike(
            TrackConversion(fps=schema.fps, store_fps=schema.fps, **naming).renamed(headers), schema
        )
        for header in headers:
            rate = args.fps or header.fps or schema.fps
            opened.append(
                Recording(
                    name=header.name,
                    fps=rate,
                    schema=schema,
                    external=external,
                    header=header,
                    convert=TrackConversion(fps=rate, **common, **naming),
                )
            )
        if headers and not args.fps and not all(header.fps for header in headers):
            log.warning(
                "no --fps, and the files do not tell it: they are taken to have %g frames/s, as "
                "the model's recordings",
                schema.fps,
            )
        for word in stores:
            stored = Store(paths.absolute_address(word))
            if features is not None and features.units == "cm" and not args.px_per_cm:
                known = stored.schema.px_per_cm
                pixel(features, px_per_cm=known, body=None, where=stored.uri)
                options = common | {"px_per_cm": known}
            else:
                options = common
            opened += _of_store(stored, args, schema, external, options)
        if features is not None and features.units == "body":
            opened = [replace(one, in_body_lengths=features) for one in opened]
        names = [one.name for one in opened]
        twice = sorted({name for name in names if names.count(name) > 1})
        refuse([f"two recordings are named {name!r}" for name in twice[:20]], about="--poses")
        yield opened


def _of_store(
    store: Store,
    args: argparse.Namespace,
    schema: Schema,
    external: Mapping[str, int],
    options: Mapping[str, Any],
) -> list[Recording]:
    if args.fps and args.fps != store.schema.fps:
        raise BadInput(
            f"--fps is {args.fps:g}; the store {store.uri} has {store.schema.fps:g} frames/s: "
            "leave --fps out"
        )
    header = _without_frames(store.schema, store.uri)
    convert = TrackConversion(fps=store.schema.fps, **options, **_naming(args, [header], schema))
    _refuse_unlike(convert.renamed([header]), schema)
    refuse(
        [
            f"{name} has dimension {store.feature(name)['dim']} in the store, {dim} in the model"
            for name, dim in external.items()
            if store.feature(name)["dim"] != dim
        ],
        about=f"external features do not fit the store {store.uri}",
    )
    return [
        Recording(
            name=video["name"],
            fps=store.schema.fps,
            schema=schema,
            external=external,
            convert=convert,
            store=store,
        )
        for video in store.videos
    ]


def _naming(args: argparse.Namespace, headers: Sequence[Tracks], schema: Schema) -> dict[str, Any]:
    """``--keypoints`` and ``--animals``; names of the model that they leave out stay what they
    are."""
    naming: dict[str, Any] = {}
    for kind in ("keypoints", "animals"):
        if not (text := getattr(args, kind)):
            naming[kind] = None
            continue
        stated = NameMapping.parse(text, option=f"--{kind}")
        same = [
            name
            for name in getattr(schema, kind)
            if name not in stated.names and all(name in getattr(one, kind) for one in headers)
        ]
        naming[kind] = NameMapping((*stated.old_names, *((name, (name,)) for name in same)))
    return naming


def _refuse_unlike(headers: Sequence[Tracks], schema: Schema) -> None:
    """Every name of the model must be there; further keypoints are ignored."""
    errors, ignored = [], []
    for header in headers:
        for axis in ("keypoints", "animals"):
            mine, theirs = getattr(header, axis), getattr(schema, axis)
            if missing := [name for name in theirs if name not in mine]:
                hint = " or join pieces of tracks with --join-tracks"
                if axis == "keypoints":
                    found = tracks.counterparts(missing, mine)
                    words = ",".join(f"{old}={new}" for new, old in found.items())
                    hint = f". Perhaps --keypoints {words}" * (len(found) == len(missing))
                errors.append(
                    f"{header.path} has {axis} {', '.join(mine)}; the model was trained with "
                    f"{', '.join(theirs)}. Missing: {', '.join(missing)}; name them with --{axis} "
                    f"old=new,…{hint}"
                )
            elif more := sorted(set(mine) - set(theirs)):
                ignored.append(f"{header.path}: {axis} {', '.join(more)}")
        if header.coordinates != schema.coordinates:
            errors.append(
                f"{header.path} has coordinates {', '.join(header.coordinates)}; the model "
                f"{', '.join(schema.coordinates)}"
            )
    refuse(
        errors[:20] + ([f"and {len(errors) - 20} more"] if len(errors) > 20 else []),
        about="the recordings do not fit the model",
    )
    if ignored:
        log.warning(
            "ignored, since the model does not know them: %s%s",
            ignored[0],
            f" (and in {len(ignored) - 1} more)" * (len(ignored) > 1),
        )


def _without_frames(schema: Schema, path: str) -> Tracks:
    position, confidence = tracks.no_frames(*schema.shape)
    return Tracks(
        name="",
        animals=schema.animals,
        keypoints=schema.keypoints,
        coordinates=schema.coordinates,
        fps=schema.fps,
        image_px=schema.image_px,
        edges=schema.edges,
        position_TMKX=position,
        confidence_TMK=confidence,
        path=Path(path),
    )
