"""New recordings as a model takes them: from tracker files or a store, with the model's names,
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
from torch import Tensor

from finetune.inference.model import as_tensors
from finetune.labels.frame_labels import Reals
from pretrain.data.schema import Schema
from pretrain.data.store import Store
from pretrain.errors import BadInput, refuse
from pretrain.readers import find_tracks, tracks
from pretrain.readers.harmonise import NameMapping, TrackConversion, parse_size
from pretrain.readers.tracks import Tracks
from pretrain.runs import paths

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One recording whose names are known to fit; :meth:`frames` reads it."""

    name: str
    fps: float
    """Of the recording, not of the model."""
    schema: Schema
    """The model's."""
    external: Mapping[str, int]
    convert: TrackConversion
    path: Path | None = None
    store: Store | None = None

    def frames(self) -> tuple[dict[str, Tensor], int]:
        """Tensors at the model's rate, and the frames of the recording at its own.

        Raises:
            BadInput: If the file is damaged.
        """
        beside = {}
        if self.store is not None:
            video = self.store.read_video(self.name, features=tuple(self.external))
            seen = video.confidence_TMK > 0
            raw = replace(
                _like(self.store.schema, self.store.uri),
                name=self.name,
                confidence_TMK=video.confidence_TMK,
                position_TMKX=np.where(seen[..., None], video.position_TMKX, np.float32(np.nan)),
            )
            beside = dict(video.features)
        else:
            assert self.path is not None
            raw = find_tracks.read_tracks(self.path, name=self.name)
        if not raw.frames:
            raise BadInput(f"{raw.path}: {self.name!r} has no frames")
        made = self.convert.apply(raw, like=_like(self.schema, "the model"))
        arrays = {
            "position": made.position_TMKX,
            "confidence": made.confidence_TMK.astype(np.float32),
        }
        if self.external:
            values = [
                tracks.resample_values(beside[name], old_fps=self.fps, fps=self.schema.fps)
                for name in self.external
            ]
            arrays["extra"] = np.concatenate(values, axis=1)
        return as_tensors(arrays), raw.frames

    def at_own_rate(self, values_T: Reals, length: int) -> Reals:
        """Values of the model's frames for each frame of the recording: the nearest one's."""
        place = np.rint(np.arange(length) * (self.schema.fps / self.fps)).astype(np.int64)
        return np.asarray(values_T[np.minimum(place, len(values_T) - 1)])


def add_options(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """The options that say where the recordings are and how they differ from the model's."""
    parser.add_argument(
        "--poses",
        nargs="+",
        required=required,
        metavar="FILE",
        help=(
            "track files, folders, patterns or zips of any tracker that prepare.py reads; or "
            "a pose store"
        ),
    )
    parser.add_argument(
        "--fps",
        type=float,
        help="frames per second of the recordings, where their files do not say it",
    )
    parser.add_argument(
        "--keypoints",
        metavar="OLD=NEW,…",
        help="what the recordings call the model's keypoints: snout=nose,rump=tail_base",
    )
    parser.add_argument("--animals", metavar="OLD=NEW,…", help="the same for animals")
    parser.add_argument(
        "--image",
        metavar="WIDTHxHEIGHT",
        help="extent of the recordings' image, where their files do not say it",
    )
    parser.add_argument(
        "--scale",
        type=float,
        metavar="FACTOR",
        help="pixels of the model's recordings in a pixel of these",
    )
    parser.add_argument(
        "--scale-to", metavar="WIDTHxHEIGHT", help="the same, by the extent of the model's image"
    )


@contextmanager
def recordings(
    args: argparse.Namespace, schema: Schema, external: Mapping[str, int]
) -> Iterator[list[Recording]]:
    """The recordings that ``--poses`` means, checked by their names alone; nothing long is read.

    Zips stay unpacked for as long as the block lasts.

    Raises:
        BadInput: If there are none, a file is no tracks file, or skeletons do not fit; shows both.
    """
    common: dict[str, Any] = {
        "store_fps": schema.fps,
        "scale": args.scale,
        "image_px": parse_size(args.image, option="--image") if args.image else None,
        "scale_to": parse_size(args.scale_to, option="--scale-to") if args.scale_to else None,
    }
    found: list[Recording] = []
    with ExitStack() as stack:
        stores = [
            word
            for word in args.poses
            if "://" in word or (Path(paths.open_address(word)) / "store.json").is_file()
        ]
        files: list[Path] = []
        for word in (word for word in args.poses if word not in stores):
            files += find_tracks.find_tracks(stack.enter_context(find_tracks.unpacked(word)))
        held = find_tracks.read_all_names(list(dict.fromkeys(files))) if files else []
        if held and external:
            raise BadInput(
                f"the model reads features from elsewhere ({', '.join(external)}), which track "
                "files do not hold: "
                "prepare a store with prepare.py tracks --features and give that as --poses"
            )
        naming = _naming(args, held, schema)
        _refuse_unlike(
            TrackConversion(fps=schema.fps, store_fps=schema.fps, **naming).renamed(held), schema
        )
        for one in held:
            rate = args.fps or one.fps or schema.fps
            found.append(
                Recording(
                    name=one.name,
                    fps=rate,
                    schema=schema,
                    external=external,
                    path=one.path,
                    convert=TrackConversion(fps=rate, **common, **naming),
                )
            )
        if held and not args.fps and not all(one.fps for one in held):
            log.warning(
                "no --fps, and the files do not say it: they are taken to have %g frames/s, as the "
                "model's recordings",
                schema.fps,
            )
        for word in stores:
            found += _of_store(Store(paths.open_address(word)), args, schema, external, common)
        names = [one.name for one in found]
        twice = sorted({name for name in names if names.count(name) > 1})
        refuse([f"two recordings are named {name!r}" for name in twice[:20]], about="--poses")
        yield found


def _of_store(
    store: Store,
    args: argparse.Namespace,
    schema: Schema,
    external: Mapping[str, int],
    options: Mapping[str, Any],
) -> list[Recording]:
    if args.fps and args.fps != store.schema.fps:
        raise BadInput(
            f"--fps is {args.fps:g}; the store {store.uri} says it has {store.schema.fps:g} "
            "frames/s: leave --fps out"
        )
    names = [_like(store.schema, store.uri)]
    convert = TrackConversion(fps=store.schema.fps, **options, **_naming(args, names, schema))
    _refuse_unlike(convert.renamed(names), schema)
    refuse(
        [
            f"{name} has dimension {store.feature(name)['dim']} in the store, {dim} in the model"
            for name, dim in external.items()
            if store.feature(name)["dim"] != dim
        ],
        about=f"features from elsewhere do not fit the store {store.uri}",
    )
    return [
        Recording(
            name=held["name"],
            fps=store.schema.fps,
            schema=schema,
            external=external,
            convert=convert,
            store=store,
        )
        for held in store.videos
    ]


def _naming(args: argparse.Namespace, held: Sequence[Tracks], schema: Schema) -> dict[str, Any]:
    """``--keypoints`` and ``--animals``; names of the model that they leave out stay what they
    are."""
    found: dict[str, Any] = {}
    for kind in ("keypoints", "animals"):
        if not (text := getattr(args, kind)):
            found[kind] = None
            continue
        said = NameMapping.parse(text, option=f"--{kind}")
        kept = [
            name
            for name in getattr(schema, kind)
            if name not in said.names and all(name in getattr(one, kind) for one in held)
        ]
        found[kind] = NameMapping((*said.old_names, *((name, (name,)) for name in kept)))
    return found


def _refuse_unlike(held: Sequence[Tracks], schema: Schema) -> None:
    """Every name of the model must be there; what is there beyond the keypoints is passed over."""
    problems, spare = [], []
    for one in held:
        for axis in ("keypoints", "animals"):
            mine, theirs = getattr(one, axis), getattr(schema, axis)
            if missing := [name for name in theirs if name not in mine]:
                problems.append(
                    f"{one.path} has {axis} {', '.join(mine)}; the model was trained with "
                    f"{', '.join(theirs)}. "
                    f"Missing: {', '.join(missing)}; say what they are called with --{axis} "
                    "old=new,…"
                )
            elif set(mine) - set(theirs):
                spare.append(f"{one.path}: {axis} {', '.join(sorted(set(mine) - set(theirs)))}")
        if one.coordinates != schema.coordinates:
            problems.append(
                f"{one.path} has coordinates {', '.join(one.coordinates)}; the model "
                f"{', '.join(schema.coordinates)}"
            )
    refuse(
        problems[:20] + ([f"and {len(problems) - 20} more"] if len(problems) > 20 else []),
        about="the recordings do not fit the model",
    )
    if spare:
        log.warning(
            "passed over, since the model does not know them: %s%s",
            spare[0],
            f" (and in {len(spare) - 1} more)" * (len(spare) > 1),
        )


def _like(schema: Schema, called: str) -> Tracks:
    position, confidence = tracks.no_frames(*schema.shape)
    return Tracks(
        name="",
        animals=schema.animals,
        keypoints=schema.keypoints,
        coordinates=schema.coordinates,
        fps=schema.fps,
        image_px=schema.image_px,
        position_TMKX=position,
        confidence_TMK=confidence,
        path=Path(called),
    )
