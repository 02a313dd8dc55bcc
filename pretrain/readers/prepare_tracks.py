"""A lab's own recordings into a store, a new one or one that grows, with labels and external
features or without."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pretrain.data.schema import Float
from pretrain.data.store import Store
from pretrain.data.store_writer import StoreWriter
from pretrain.errors import BadInput, refuse
from pretrain.readers import find_tracks, tracks
from pretrain.readers.add_labels import LabelOptions, add_labels, label_again
from pretrain.readers.feature_files import FeatureFiles, find_features, named_twice
from pretrain.readers.harmonise import NameMapping, TrackConversion, parse_size
from pretrain.readers.tracks import Tracks
from pretrain.runs import paths

log = logging.getLogger(__name__)

_EQUAL_WITHIN = 1.01
"""Rates that differ less count as equal."""


def prepare_tracks(args: argparse.Namespace) -> None:
    """Reads recordings and writes or extends a store.

    Raises:
        BadInput: If they do not fit each other or the store; nothing is then written.
    """
    _refuse(args)
    options = LabelOptions(
        test_share=args.test_share,
        seed=args.seed,
        test_videos=_listed(args.test_videos) if args.test_videos else None,
        unscored=args.unscored,
        unscored_margins=args.unscored_margins,
        scored=args.scored,
        annotator=args.annotator,
        first_frame=args.labels_from,
        task=args.task,
        rest=args.rest,
    )
    out = paths.absolute_address(args.out)
    existing = Store(out) if args.append else None
    if not args.poses:
        assert existing is not None
        if args.fps not in (None, existing.schema.fps):
            raise BadInput(
                f"--fps is {args.fps:g}; labels of recordings that the store has are read at its "
                f"rate, {existing.schema.fps:g}: leave it out"
            )
        with find_tracks.unpacked(args.labels) as folder:
            label_again(existing, folder, options)
        return
    conversion = _conversion(args, existing)
    with find_tracks.unpacked(args.poses) as poses:
        recordings = conversion.renamed(find_tracks.read_all_names(find_tracks.find_tracks(poses)))
        like = _agreed_names(recordings, existing)
        _warn_of_other_rates(recordings, args.fps)
        features = [
            find_features(option, [recording.name for recording in recordings])
            for option in args.features
        ]
        refuse(named_twice(features), about="--features")
        schema = (
            existing.schema
            if existing
            else tracks.schema_of(
                like, fps=conversion.store_fps, extents=[(10.0,) * len(like.coordinates)]
            )
        )
        with StoreWriter(
            out, schema, origin=f"tracks from {args.poses}", append=args.append
        ) as writer:
            added = _add_recordings(recordings, writer, conversion, like, features)
            extents = [each.extent_px for each in added]
            if existing is None:
                schema = tracks.schema_of(like, fps=conversion.store_fps, extents=extents)
                writer.schema = replace(schema, px_per_cm=conversion.store_px_per_cm)
            else:
                _warn_of_other_extents(extents, existing)
            if args.labels:
                with find_tracks.unpacked(args.labels) as folder:
                    add_labels(
                        writer,
                        folder,
                        {each.name: each.frames for each in added},
                        options,
                        fps=args.fps,
                        existing=existing,
                    )


def _refuse(args: argparse.Namespace) -> None:
    about_labels = {
        "--scored": args.scored,
        "--unscored": args.unscored,
        "--unscored-margins": args.unscored_margins,
        "--test-videos": args.test_videos,
        "--task": args.task,
        "--rest": args.rest,
    }
    given = [option for option, value in about_labels.items() if value]
    errors = []
    if given and not args.labels:
        errors.append(f"{' and '.join(given)} are about labels: pass --labels FOLDER")
    if args.poses and args.fps is None:
        errors.append("--poses needs --fps, the frames per second of the recordings")
    if not args.poses and not (args.append and args.labels):
        errors.append(
            "pass --poses FOLDER, or --append and --labels FOLDER for labels of recordings that "
            "the store has"
        )
    if not args.poses and args.features:
        errors.append("--features go with --poses")
    refuse(errors, about="prepare tracks")


def _listed(file: str) -> list[str]:
    """Names in a text file, one a line."""
    try:
        lines = Path(file).expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"--test-videos {file} cannot be read ({error}); give a text file with the name of a "
            "recording on each line"
        ) from error
    return [line.strip() for line in lines if line.strip()]


@dataclass(frozen=True, kw_only=True)
class _Added:
    """What is needed later of a recording whose frames are in the store."""

    name: str
    frames: int
    """At the rate of its file."""
    extent_px: tuple[float, ...]


def _conversion(args: argparse.Namespace, existing: Store | None) -> TrackConversion:
    fps = existing.schema.fps if existing else args.store_fps or args.fps
    if existing and args.store_fps not in (None, fps):
        raise BadInput(
            f"--store-fps is {args.store_fps:g}; the store {existing.uri} has {fps:g} frames/s, "
            "and that stays"
        )

    px_per_cm = args.px_per_cm and args.px_per_cm * (args.scale or 1)

    def mapping(option: str, value: str | None) -> NameMapping | None:
        return NameMapping.parse(value, option=option) if value else None

    def size(option: str, value: str | None) -> tuple[float, ...] | None:
        return parse_size(value, option=option) if value else None

    return TrackConversion(
        fps=args.fps,
        store_fps=fps,
        scale=args.scale,
        keypoints=mapping("--keypoints", args.keypoints),
        animals=mapping("--animals", args.animals),
        image_px=size("--image", args.image),
        scale_to=size("--scale-to", args.scale_to),
        px_per_cm=args.px_per_cm,
        store_px_per_cm=existing.schema.px_per_cm if existing else px_per_cm,
        join_tracks=args.join_tracks,
        first_frame=args.first_frame,
    )


def _agreed_names(recordings: Sequence[Tracks], existing: Store | None) -> Tracks:
    """The names that all recordings have, in the order of the store."""
    if existing is None:
        tracks.check_agreement(recordings)
        return recordings[0]
    videos = {video["name"] for video in existing.videos}
    refuse(
        [
            f"{recording.name!r} ({recording.path}) is in it already"
            for recording in recordings
            if recording.name in videos
        ],
        about=f"the store {existing.uri} has such videos: pass a pattern that leaves them out; for "
        "their labels alone, leave out --poses",
    )
    position, confidence = tracks.no_frames(*existing.schema.shape)
    store = Tracks(
        name="",
        animals=existing.schema.animals,
        keypoints=existing.schema.keypoints,
        coordinates=existing.schema.coordinates,
        position_TMKX=position,
        confidence_TMK=confidence,
        path=Path(existing.address),
    )
    tracks.check_agreement([store, *recordings])
    return store


def _add_recordings(
    recordings: Sequence[Tracks],
    writer: StoreWriter,
    conversion: TrackConversion,
    like: Tracks,
    features: Sequence[FeatureFiles],
) -> list[_Added]:
    added, notes = [], []
    for recording in tqdm(recordings, desc="reading tracks", unit="video"):
        raw = conversion.trimmed(find_tracks.read_recording(recording))
        external: dict[str, Float] = {}
        for files in features:
            values, note = files.read(recording.name, frames=raw.frames)
            notes += [note] if note else []
            if values is not None:
                external[files.name] = tracks.resample_values(
                    values, old_fps=conversion.fps, fps=conversion.store_fps
                )
        converted = conversion.apply(raw, like=like)
        writer.add(replace(converted.video(), features=external))
        added.append(
            _Added(name=recording.name, frames=raw.frames, extent_px=tracks.extent_px(converted))
        )
    for files in features:
        without = [each.name for each in recordings if each.name not in files.files]
        if without:
            some = ", ".join(without[:5]) + ("…" if len(without) > 5 else "")
            notes.append(
                f"features {files.name}: {len(without)} of {len(recordings)} recordings have no "
                f"file, theirs are unknown: {some}"
            )
    for note in notes:
        log.warning("%s", note)
    return added


def _warn_of_other_rates(recordings: Sequence[Tracks], fps: float) -> None:
    others = [
        each
        for each in recordings
        if each.fps is not None and max(each.fps, fps) / min(each.fps, fps) > _EQUAL_WITHIN
    ]
    if others:
        log.warning(
            "%s says %g frames/s (%d such files); --fps %g is taken",
            others[0].path,
            others[0].fps,
            len(others),
            fps,
        )


def _warn_of_other_extents(extents: Sequence[tuple[float, ...]], existing: Store) -> None:
    """Tells of positions that lie far outside the store's image, for which the rest of the store
    has no scale."""
    reach, image = np.max(extents, axis=0), np.array(existing.schema.image_px)
    if (reach > image * 1.1).any():
        size, store_size = ("x".join(f"{px:g}" for px in extent) for extent in (reach, image))
        log.warning(
            "the new recordings reach %s px, the store's image has %s px: if their scale differs, "
            "pass --scale or --scale-to",
            size,
            store_size,
        )
