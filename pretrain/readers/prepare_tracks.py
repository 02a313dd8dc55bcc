"""A lab's own recordings into a store: new or added to one, with labels and features from elsewhere
or without."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pretrain.data.schema import Float
from pretrain.data.store import Store
from pretrain.data.store_writer import StoreWriter
from pretrain.errors import BadInput, refuse
from pretrain.readers import find_tracks, tracks
from pretrain.readers.add_labels import add_labels
from pretrain.readers.feature_files import FeatureFiles, find_features
from pretrain.readers.harmonise import Conversion, Naming, parsed_size
from pretrain.readers.tracks import Tracks
from pretrain.runs import paths

log = logging.getLogger(__name__)

APART = 1.01
"""Extents and rates that differ less are taken for equal."""


def prepare_tracks(args: argparse.Namespace) -> None:
    """Reads recordings and writes or extends a store.

    Raises:
        BadInput: If they do not fit each other or the store; nothing is then written.
    """
    out = paths.absolute_address(args.out)
    there = Store(out) if args.append else None
    convert = _conversion(args, there)
    with find_tracks.unpacked(args.poses) as poses:
        held = convert.named(find_tracks.read_all_names(find_tracks.find_tracks(poses)))
        like = _agreed(held, there)
        _warn_of_other_rates(held, args.fps)
        features = [find_features(given, [one.name for one in held]) for given in args.features]
        refuse(_named_twice(features), about="--features")
        schema = (
            there.schema
            if there
            else tracks.schema_of(
                like, fps=convert.store_fps, extents=[(10.0,) * len(like.coordinates)]
            )
        )
        with StoreWriter(
            out, schema, origin=f"tracks from {args.poses}", append=args.append
        ) as writer:
            read = _add_recordings(held, writer, convert, like, features)
            if there is None:
                writer.schema = tracks.schema_of(
                    like, fps=convert.store_fps, extents=[one.extent_px for one in read]
                )
            else:
                _warn_of_other_extents(read, there)
            if args.labels:
                with find_tracks.unpacked(args.labels) as folder:
                    add_labels(
                        writer,
                        folder,
                        {one.name: one.frames for one in read},
                        fps=args.fps,
                        there=there,
                        test_share=args.test_share,
                        seed=args.seed,
                    )


@dataclass(frozen=True, kw_only=True)
class _Read:
    """What must be remembered of a recording whose frames were written."""

    name: str
    frames: int
    """At the rate of its file."""
    extent_px: tuple[float, ...]


def _conversion(args: argparse.Namespace, there: Store | None) -> Conversion:
    rate = there.schema.fps if there else args.store_fps or args.fps
    if there and args.store_fps not in (None, rate):
        raise BadInput(
            f"--store-fps is {args.store_fps:g}; the store {there.uri} has {rate:g} frames/s, and "
            "that stays"
        )
    return Conversion(
        fps=args.fps,
        store_fps=rate,
        scale=args.scale,
        keypoints=Naming.parsed(args.keypoints, option="--keypoints") if args.keypoints else None,
        animals=Naming.parsed(args.animals, option="--animals") if args.animals else None,
        image_px=parsed_size(args.image, option="--image") if args.image else None,
        scale_to=parsed_size(args.scale_to, option="--scale-to") if args.scale_to else None,
    )


def _agreed(held: Sequence[Tracks], there: Store | None) -> Tracks:
    """The names that all recordings have, in the order of the store."""
    tracks.check_agreement(held)
    if there is None:
        return held[0]
    taken = {video["name"] for video in there.videos}
    again = [f"{one.name!r} ({one.path}) is in it already" for one in held if one.name in taken]
    refuse(
        again[:20] + ([f"and {len(again) - 20} more"] if len(again) > 20 else []),
        about=f"the store {there.uri} has such videos: pass a pattern that leaves them out",
    )
    position, confidence = tracks.no_frames(*there.schema.shape)
    store = Tracks(
        name="",
        animals=there.schema.animals,
        keypoints=there.schema.keypoints,
        coordinates=there.schema.coordinates,
        position_TMKX=position,
        confidence_TMK=confidence,
        path=Path(there.uri),
    )
    tracks.check_agreement([store, *held])
    return store


def _named_twice(features: Sequence[FeatureFiles]) -> list[str]:
    names = [held.name for held in features]
    return [f"{name!r} is given twice" for name in dict.fromkeys(names) if names.count(name) > 1]


def _add_recordings(
    held: Sequence[Tracks],
    writer: StoreWriter,
    convert: Conversion,
    like: Tracks,
    features: Sequence[FeatureFiles],
) -> list[_Read]:
    read, notes = [], []
    for one in tqdm(held, desc="reading tracks", unit="video"):
        raw = find_tracks.read_tracks(one.path, name=one.name)
        beside: dict[str, Float] = {}
        for files in features:
            values, note = files.read(one.name, frames=raw.frames)
            notes += [note] if note else []
            if values is not None:
                beside[files.name] = tracks.resample_values(
                    values, old_fps=convert.fps, fps=convert.store_fps
                )
        made = convert.apply(raw, like=like)
        writer.add(replace(made.video(), features=beside))
        read.append(_Read(name=one.name, frames=raw.frames, extent_px=tracks.extent_px(made)))
    for files in features:
        without = [one.name for one in held if one.name not in files.files]
        if without:
            some = ", ".join(without[:5]) + ("…" if len(without) > 5 else "")
            notes.append(
                f"features {files.name}: {len(without)} of {len(held)} recordings have no file, "
                f"theirs are unknown: {some}"
            )
    for note in notes:
        log.warning("%s", note)
    return read


def _warn_of_other_rates(held: Sequence[Tracks], fps: float) -> None:
    said = [one for one in held if one.fps is not None and _ratio(one.fps, fps) > APART]
    if said:
        log.warning(
            "%s says %g frames/s (%d such files); --fps %g is taken",
            said[0].path,
            said[0].fps,
            len(said),
            fps,
        )


def _warn_of_other_extents(read: Sequence[_Read], there: Store) -> None:
    """Tells of positions that lie far outside the store's image, for which the rest of the store
    has no scale."""
    reach = np.max([one.extent_px for one in read], axis=0)
    image: Any = there.schema.image_px
    if (reach > np.array(image) * 1.1).any():
        size, have = ("x".join(f"{value:g}" for value in extent) for extent in (reach, image))
        log.warning(
            "the new recordings reach %s px, the store's image has %s px: if their scale differs, "
            "pass --scale or --scale-to",
            size,
            have,
        )


def _ratio(a: float, b: float) -> float:
    return max(a, b) / min(a, b)
