"""Tracker files into tracks.

paths = find_tracks("FOLDER")              # or a pattern
names = read_all_names(paths)              # headers only: cheap, and enough to see whether
check_agreement(names)                     # recordings fit each other (pretrain/readers/tracks.py)
tracks = read_recording(names[0])
"""

from __future__ import annotations

import glob
import hashlib
import logging
import re
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from pretrain.errors import BadInput, refuse
from pretrain.readers.detect import (
    describe_start,
    descriptions,
    label_format,
    suffixes,
    track_format,
    track_formats,
)
from pretrain.readers.recording_names import natural_order, recording_stem, unique_names
from pretrain.readers.safe_files import npz
from pretrain.readers.safe_files.zip import ZIP_ERRORS, leaves_folder, refuse_bomb
from pretrain.readers.tracks import Tracks, conform, rename

_log = logging.getLogger(__name__)
_SIDE_FILE = re.compile(r"_(temporal_norm|pca_\w+_error|pixel_error)\.csv$", re.IGNORECASE)
"""Lightning Pose's measures of its own tracks, which it writes next to them."""


def find_tracks(poses: str) -> list[Path]:
    """The tracker files that an address means, in natural order (2 before 10).

    Args:
        poses: A folder (with all folders in it), a pattern (``exp*/*.csv``, ``**`` for any depth)
            or one file.

    Label files among them are passed over. Any other file in a folder with a tracker's extension
    that is no tracker's file is refused rather than passed over, so that no damaged recording is
    lost without a word.

    Raises:
        BadInput: If there are none (with what is there instead), or a file is neither tracks nor
            labels.
    """
    folder = Path(poses).expanduser()
    if folder.is_dir():
        files = [
            path
            for path in folder.rglob("*")
            if path.is_file() and not _hidden(path.relative_to(folder)) and not _of_store(path)
        ]
        endings = suffixes(track_formats())
        candidates = [path for path in files if path.suffix.lower() in endings]
    else:
        files = [
            Path(name) for name in glob.glob(str(folder), recursive=True) if Path(name).is_file()
        ]
        files += [folder] if not files and folder.is_file() else []
        candidates = files
    aside = [path for path in candidates if _SIDE_FILE.search(path.name)]
    if aside and len(aside) < len(candidates):
        _log.info(
            "%d files of a tracker's own diagnostics are passed over (%s)",
            len(aside),
            aside[0].name,
        )
        candidates = [path for path in candidates if path not in aside]
    tracks, labels, errors = [], [], []
    for path in sorted(candidates, key=lambda p: natural_order(str(p))):
        try:
            if track_format(path) is not None:
                tracks.append(path)
            elif label_format(path) is not None:
                labels.append(path)
            else:
                errors.append(f"{path} is neither tracks nor labels ({describe_start(path)})")
        except BadInput as error:
            errors.append(str(error))
    pattern = str(folder / "*DLC*.csv") if folder.is_dir() else "FOLDER/*DLC*.csv"
    refuse(
        errors,
        about=f"{len(errors)} of {len(candidates)} files in {poses} cannot be read as tracks. Move "
        f"them away, or pass a pattern that leaves them out, such as {pattern!r}",
    )
    if not tracks:
        raise BadInput(_nothing_found(poses, folder, files, labels))
    if labels:
        _log.info("%d label files in %s passed over: they are no tracks", len(labels), poses)
    return tracks


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def _of_store(path: Path) -> bool:
    """Whether it is a part of a pose store."""
    return path.suffix == ".parquet" and any(
        (folder / "store.json").is_file() for folder in path.parents[1:3]
    )


def _nothing_found(poses: str, folder: Path, files: Sequence[Path], labels: Sequence[Path]) -> str:
    if not folder.is_dir() and not files:
        hint = ""
        if folder.parent.is_dir():
            there = ", ".join(sorted(path.name for path in folder.parent.iterdir())[:8])
            hint = f"; {folder.parent} holds {there or 'nothing'}"
        return f"found 0 track files: nothing matches {poses}{hint}"
    kinds = Counter(path.suffix or "no extension" for path in files)
    others = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "nothing"
    among = f" ({len(labels)} of them labels, not tracks)" if labels else ""
    formats = track_formats()
    return (
        f"found 0 track files in {poses}: looked for {descriptions(formats)} in files "
        f"{', '.join(sorted(suffixes(formats)))}; found {len(files)} other files: {others}{among}"
    )


def read_tracks(path: Path, *, name: str = "", names_only: bool = False) -> Tracks:
    """Reads one tracker file.

    Args:
        path: The file.
        name: What to call the recording; left out, the file says it, or its name.
        names_only: Read animals, keypoints and rate, and no frames.

    Raises:
        BadInput: If the file is of no known format, or damaged; with line or frame.
    """
    path = Path(path)
    fmt = track_format(path)
    if fmt is None:
        raise BadInput(
            f"{path} is not a tracks file ({describe_start(path)}); read are: "
            f"{descriptions(track_formats())}"
        )
    try:
        tracks = fmt.read(path, names_only=names_only)
        digest = ""
        if not names_only:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error}") from error
    # a file's name may hold bytes that are no text
    called = (name or tracks.name).encode(errors="replace").decode()
    return replace(tracks, name=called, path=path, source_sha256=digest)


def read_all_names(paths: Sequence[Path]) -> list[Tracks]:
    """The names of every recording, without frames: one quick pass before anything long is read.

    Each gets a name that is its own among them. Files of one animal each are one recording of
    several where they lie in one folder, name the same video and are called alike but for the end,
    which is the animal that the file says it is of.

    Raises:
        BadInput: If a file is damaged, or two are of one recording.
    """
    together: dict[object, list[Tracks]] = defaultdict(list)
    for path in paths:
        header = read_tracks(path, names_only=True)
        together[_shared(header)].append(header)
    recordings, several = [], []
    for headers in together.values():
        animals = {header.individual for header in headers}
        if 1 < len(headers) == len(animals):
            recordings.append(_joined(headers))
            several.append(recordings[-1])
        else:
            recordings += headers
    if several:
        _log.info(
            "%d files of one animal each are joined, those of one video into one recording: %s%s",
            sum(len(one.animals) for one in several),
            "; ".join(f"{one.name} ({', '.join(one.animals)})" for one in several[:5]),
            f" and {len(several) - 5} more" * (len(several) > 5),
        )
    names = unique_names([(tracks.path, tracks.name) for tracks in recordings])
    return [replace(tracks, name=name) for tracks, name in zip(recordings, names, strict=True)]


def read_recording(header: Tracks) -> Tracks:
    """All frames of a recording whose names :func:`read_all_names` read.

    Raises:
        BadInput: If a file is damaged, or those of its animals disagree in rate, start or length.
    """
    first = read_tracks(header.path, name=header.name)
    if not header.more_paths:
        return first
    return _joined([first, *map(read_tracks, header.more_paths)], name=header.name)


def _shared(header: Tracks) -> object:
    """What the files of a recording have in common, each of one animal; else the file alone."""
    if not (header.individual and header.original_videos):
        return header.path
    own = _own_keypoints(header)
    return (
        header.path.parent,
        header.path.stem.removesuffix(f"_{header.individual}"),
        header.original_videos,
        frozenset(own.keypoints),
        own.coordinates,
    )


def _own_keypoints(tracks: Tracks) -> Tracks:
    """With the animal in the animal's name and not in those of its keypoints, ``ind1_snout``."""
    start = f"{tracks.individual}_"
    called = rename(tracks, {tracks.animals[0]: tracks.individual}, of="animals")
    if not all(keypoint.startswith(start) for keypoint in tracks.keypoints):
        return called
    return rename(called, {keypoint: keypoint.removeprefix(start) for keypoint in called.keypoints})


def _joined(parts: Sequence[Tracks], *, name: str = "") -> Tracks:
    """One recording of as many animals as there are parts.

    Raises:
        BadInput: If they disagree in rate, start or length, once their frames are read.
    """
    parts = sorted(map(_own_keypoints, parts), key=lambda one: natural_order(one.individual))
    errors = [
        f"{a.path.name} has {a.frames} frames from {a.start_s:g} s on at {a.fps or 1:g} a second, "
        f"{b.path.name} {b.frames} from {b.start_s:g} s on at {b.fps or 1:g}"
        for a, b in pairwise(parts if parts[0].source_sha256 else ())
        if a.frames != b.frames
        or abs((a.fps or 1) / (b.fps or 1) - 1) > 1e-3
        or abs(a.start_s - b.start_s) * (a.fps or 1) > 0.5
    ]
    about = (
        "they name one video and are called like animals of one recording, but their time differs"
    )
    refuse(errors, about=f"{parts[0].path.parent}: {about}; move away those that are of another")
    first, *others = [conform(p, animals=p.animals, keypoints=parts[0].keypoints) for p in parts]
    every = [first, *others]
    digests = "".join(part.source_sha256 for part in every)
    return replace(
        first,
        name=name or recording_stem(first.path.stem.removesuffix(f"_{first.individual}")),
        animals=tuple(part.individual for part in every),
        position_TMKX=np.concatenate([part.position_TMKX for part in every], 1),
        confidence_TMK=np.concatenate([part.confidence_TMK for part in every], 1),
        individual="",
        more_paths=tuple(part.path for part in others),
        source_sha256=digests and hashlib.sha256(digests.encode()).hexdigest(),
    )


@contextmanager
def unpacked(address: str) -> Iterator[str]:
    """A folder for an address: a zip of recordings is unpacked for as long as the block lasts,
    anything else stays what it is.

    Raises:
        BadInput: If the zip is damaged, a bomb, or holds a file that would leave the folder.
    """
    path = Path(address).expanduser()
    if not (path.is_file() and zipfile.is_zipfile(path)) or npz.members(path):
        yield address
        return
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / path.name  # so that messages and sources still name the zip
        folder.mkdir()
        try:
            with zipfile.ZipFile(path) as packed:
                refuse_bomb(packed, path, room_bytes=2**30)
                refuse(
                    [
                        f"{info.filename!r} would be written outside the folder"
                        for info in packed.infolist()
                        if leaves_folder(info.orig_filename)
                    ],
                    about=f"{path} is not unpacked",
                )
                packed.extractall(folder)
        except BadInput:
            raise
        except ZIP_ERRORS as error:
            raise BadInput(
                f"{path}: the zip is truncated or damaged ({error or type(error).__name__})"
            ) from error
        yield str(folder)
