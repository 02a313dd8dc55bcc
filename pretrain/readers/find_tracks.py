"""Tracker files into tracks. The format is found by content, never by name; a format is a module in
``track_formats/``.

paths = find_tracks("FOLDER")              # or a pattern
names = read_all_names(paths)              # headers alone: cheap, and enough to see whether they
fit each other check_agreement(names)                     # pretrain/readers/tracks.py, with all
that makes unlike recordings alike tracks = read_tracks(names[0].path, name=names[0].name)
"""

from __future__ import annotations

import glob
import logging
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from types import ModuleType

from pretrain.errors import BadInput
from pretrain.readers import safe_npz
from pretrain.readers.recording_names import natural_order, unique_names
from pretrain.readers.track_formats import deeplabcut as tracker_deeplabcut
from pretrain.readers.track_formats import deeplabcut_h5 as tracker_deeplabcut_h5
from pretrain.readers.track_formats import hdf5 as tracker_hdf5
from pretrain.readers.track_formats import jabs as tracker_jabs
from pretrain.readers.track_formats import npz as tracker_npz
from pretrain.readers.track_formats import nwb as tracker_nwb
from pretrain.readers.track_formats import sleap as tracker_sleap
from pretrain.readers.track_formats import sleap_project as tracker_sleap_project
from pretrain.readers.tracks import Tracks

HDF5 = (tracker_jabs, tracker_nwb, tracker_sleap, tracker_sleap_project, tracker_deeplabcut_h5)
FORMATS = ", ".join(module.NAME for module in (tracker_deeplabcut, *reversed(HDF5), tracker_npz))
_SUFFIXES = frozenset((".csv", ".h5", ".hdf5", ".slp", ".nwb", ".npz"))
_UNPACKED_MAX = 2**40
_log = logging.getLogger(__name__)


def find_tracks(poses: str) -> list[Path]:
    """The tracker files that an address means, in natural order (2 before 10).

    Args:
        poses: A folder (searched through and through), a pattern (``exp*/*.csv``, ``**`` for any
            depth) or one file.

    Label files among them are passed over. Any other file in a folder with a tracker's extension
    that is no tracker's file is refused rather than passed over, so that no damaged recording is
    lost without a word.

    Raises:
        BadInput: If there are none (with what was found instead), or a file is neither tracks nor
            labels.
    """
    from pretrain.readers.find_labels import recognise_labels

    folder = Path(poses).expanduser()
    if folder.is_dir():
        found = [
            path
            for path in folder.rglob("*")
            if path.is_file() and not _hidden(path.relative_to(folder))
        ]
        candidates = [path for path in found if path.suffix.lower() in _SUFFIXES]
    else:
        found = [
            Path(name) for name in glob.glob(str(folder), recursive=True) if Path(name).is_file()
        ]
        found += [folder] if not found and folder.is_file() else []
        candidates = found
    tracks, labels, problems = [], [], []
    for path in sorted(candidates, key=lambda p: natural_order(str(p))):
        try:
            if _module_of(path) is not None:
                tracks.append(path)
            elif recognise_labels(path) is not None:
                labels.append(path)
            else:
                problems.append(f"{path} is neither tracks nor labels ({_beginning(path)})")
        except BadInput as error:
            problems.append(str(error))
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems[:20])
        more = f"\n  - and {len(problems) - 20} more" if len(problems) > 20 else ""
        pattern = str(folder / "*DLC*.csv") if folder.is_dir() else "FOLDER/*DLC*.csv"
        raise BadInput(
            f"{len(problems)} of {len(candidates)} files in {poses} cannot be read as tracks. Move "
            "them away, or pass a pattern that "
            f"leaves them out, such as {pattern!r}:\n{listed}{more}"
        )
    if not tracks:
        raise BadInput(_found_none(poses, folder, found, labels))
    if labels:
        _log.info("%d label files in %s passed over: they are no tracks", len(labels), poses)
    return tracks


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def _found_none(poses: str, folder: Path, found: Sequence[Path], labels: Sequence[Path]) -> str:
    if not folder.is_dir() and not found:
        near = folder.parent if folder.parent.is_dir() else None
        hint = (
            f"; {near} holds {', '.join(sorted(p.name for p in near.iterdir())[:8]) or 'nothing'}"
            if near
            else ""
        )
        return f"found 0 track files: nothing matches {poses}{hint}"
    kinds: dict[str, int] = {}
    for path in found:
        kinds[path.suffix or "no extension"] = kinds.get(path.suffix or "no extension", 0) + 1
    others = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "nothing"
    told = f" ({len(labels)} of them labels, not tracks)" if labels else ""
    looked = f"looked for {FORMATS} in files {', '.join(sorted(_SUFFIXES))}"
    return (
        f"found 0 track files in {poses}: {looked}; found {len(found)} other files: {others}{told}"
    )


def recognise(path: Path) -> str | None:
    """The name of a file's format, or None where it is not a tracker's file.

    Raises:
        BadInput: If it cannot be opened, or is HDF5 but damaged.
    """
    module = _module_of(path)
    return None if module is None else str(module.NAME)


def _module_of(path: Path) -> ModuleType | None:
    head = _head(path)
    if head.startswith(tracker_hdf5.SIGNATURE):
        with tracker_hdf5.open_hdf5(path) as file:
            return next((module for module in HDF5 if module.recognises(file)), None)
    if head.startswith(b"PK"):
        return tracker_npz if tracker_npz.recognises(safe_npz.members(path)) else None
    return tracker_deeplabcut if tracker_deeplabcut.recognises(head) else None


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4096)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}") from error


def _beginning(path: Path) -> str:
    head = _head(path)
    if not head:
        return "it is empty"
    if head.startswith(tracker_hdf5.SIGNATURE):
        return "HDF5 of a layout not known"
    if head.startswith(b"PK"):
        return (
            f"a zip with {', '.join(safe_npz.members(path)[:5]) or 'no arrays that can be listed'}"
        )
    first = head.split(b"\n", 1)[0][:60].decode("utf-8", "replace")
    return f"line 1 begins {first!r}"


def read_tracks(path: Path, *, name: str = "", names_only: bool = False) -> Tracks:
    """Reads one tracker file.

    Args:
        path: The file.
        name: What to call the recording; left out, it is told from the file's name.
        names_only: Read animals, keypoints and rate, and no frames.

    Raises:
        BadInput: If the file is of no known format, or damaged; with the place.
    """
    path = Path(path)
    module = _module_of(path)
    if module is None:
        raise BadInput(f"{path} is not a tracks file ({_beginning(path)}); read are: {FORMATS}")
    try:
        tracks: Tracks = module.read(path, names_only=names_only)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error}") from error
    return replace(tracks, name=name) if name else tracks


def read_all_names(paths: Sequence[Path]) -> list[Tracks]:
    """The names of every recording, without frames: one quick pass before anything long is read.

    Each gets a name that is its own among them.

    Raises:
        BadInput: If a file is damaged, or two are of one recording.
    """
    found = [read_tracks(path, names_only=True) for path in paths]
    names = unique_names([(tracks.path, tracks.name) for tracks in found])
    return [replace(tracks, name=name) for tracks, name in zip(found, names, strict=True)]


@contextmanager
def unpacked(address: str) -> Iterator[str]:
    """A folder for an address: a zip of recordings is unpacked for as long as the block lasts,
    anything else stays what it is.

    Raises:
        BadInput: If the zip is damaged, a bomb, or holds a file that would leave the folder.
    """
    path = Path(address).expanduser()
    if not (path.is_file() and zipfile.is_zipfile(path)) or safe_npz.members(path):
        yield address
        return
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / path.name  # so that messages and sources still name the zip
        folder.mkdir()
        try:
            with zipfile.ZipFile(path) as packed:
                size = sum(info.file_size for info in packed.infolist())
                if size > min(_UNPACKED_MAX, max(2**30, 200 * path.stat().st_size)):
                    raise BadInput(
                        f"{path}: {size / 2**30:,.1f} GiB packed into "
                        f"{path.stat().st_size / 2**20:,.2f} MiB: refused as a zip bomb"
                    )
                for info in packed.infolist():
                    inside = PurePosixPath(info.filename.replace("\\", "/"))
                    if inside.is_absolute() or ".." in inside.parts or ":" in info.filename:
                        raise BadInput(
                            f"{path}: {info.filename!r} would be written outside the folder; "
                            "refused"
                        )
                packed.extractall(folder)
        except (
            zipfile.BadZipFile,
            zlib.error,
            OSError,
            RuntimeError,
            EOFError,
            ValueError,
            IndexError,
            struct.error,
        ) as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput(
                f"{path}: the zip is truncated or damaged ({error or type(error).__name__})"
            ) from error
        yield str(folder)
