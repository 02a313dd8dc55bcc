"""Tracker files into tracks.

paths = find_tracks("FOLDER")              # or a pattern
names = read_all_names(paths)              # headers only: cheap, and enough to see whether
check_agreement(names)                     # recordings fit each other (pretrain/readers/tracks.py)
tracks = read_tracks(names[0].path, name=names[0].name)
"""

from __future__ import annotations

import glob
import hashlib
import logging
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from pretrain.errors import BadInput, refuse
from pretrain.readers.detect import (
    describe_start,
    descriptions,
    label_format,
    suffixes,
    track_format,
    track_formats,
)
from pretrain.readers.recording_names import natural_order, unique_names
from pretrain.readers.safe_files import npz
from pretrain.readers.safe_files.zip import ZIP_ERRORS, leaves_folder, refuse_bomb
from pretrain.readers.tracks import Tracks

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

    Each gets a name that is its own among them.

    Raises:
        BadInput: If a file is damaged, or two are of one recording.
    """
    recordings = [read_tracks(path, names_only=True) for path in paths]
    names = unique_names([(tracks.path, tracks.name) for tracks in recordings])
    return [replace(tracks, name=name) for tracks, name in zip(recordings, names, strict=True)]


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
