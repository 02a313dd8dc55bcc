"""Finds the CalMS21 files of a folder, in their archives or unpacked, and opens them."""

from __future__ import annotations

import hashlib
import logging
import re
import stat
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from pretrain.errors import BadInput, refuse
from pretrain.readers.calms21.json_stream import Bytes
from pretrain.readers.safe_files.zip import ZIP_ERRORS, leaves_folder

logger = logging.getLogger(__name__)

ORIGIN_FILE = "ORIGIN.txt"
"""Beside files in the release's form that are not the release."""

_POSES = re.compile(
    r"calms21_(task[123]_(?:train|test)|unlabeled_videos(?:_part\d+)?)(_features)?\.(json|npy)"
)
_FEATURES = re.compile(
    r"taskprog_features_(task[123]_(?:train|test)|unlabeled_videos(?:_part\d+)?)\.json"
)
# Deflate makes at most 1,032 bytes of one. Numbers of real animals shrink 3 to 10 times, indented
# ones 30 times.
_MAX_INFLATION = 250
_INFLATION_MATTERS_BYTES = 2**26


@dataclass(frozen=True, kw_only=True)
class Source:
    """One file of poses: unpacked, or a member of an archive that stays packed."""

    path: Path
    """The file, or the archive that holds it."""
    member: str = ""
    """Name within the archive; empty for an unpacked file."""
    part: str
    """task1_train, unlabeled_videos_part2…"""
    kind: Literal["json", "npy"] = "json"
    bytes: int
    """Unpacked."""
    features: Source | None = None
    """The task-programming features that belong to it, if they are there."""

    @property
    def task(self) -> int:
        """1, 2 or 3; 0 for recordings without labels."""
        return int(self.part[4]) if self.part.startswith("task") else 0

    @property
    def split(self) -> str:
        """Train or test; recordings without labels belong to train."""
        return "test" if self.part.endswith("_test") else "train"

    @property
    def where(self) -> str:
        """The file in words, for messages."""
        return f"{self.path}: {self.member}" if self.member else str(self.path)


def total_bytes(sources: Iterable[Source]) -> int:
    """Bytes that reading these will report to a progress bar."""
    return sum(
        source.bytes + (source.features.bytes if source.features else 0) for source in sources
    )


def find_sources(folder: str | Path) -> list[Source]:
    """The CalMS21 files in a folder and its subfolders (the four archives, or what they unpack to),
    or one such file; each part once: unpacked JSON before archives before npy.

    Raises:
        BadInput: If there is none, or an archive is damaged or holds members that would leave its
            folder.
    """
    top = Path(folder).expanduser()
    if not top.exists():
        raise BadInput(
            f"there is no {top}. Give the folder that holds the CalMS21 files, or pass --download "
            "to fetch them into it"
        )
    files = sorted(path for path in top.rglob("*") if path.is_file()) if top.is_dir() else [top]
    every = [
        *_unpacked(files),
        *(source for path in files if path.suffix == ".zip" for source in _packed(path)),
    ]
    poses: dict[str, Source] = {}
    for source in sorted((s for s in every if _POSES.fullmatch(_base(s))), key=_preference):
        if source.part in poses:
            logger.info("%s: not read, %s is the same part", source.where, poses[source.part].where)
        poses.setdefault(source.part, source)
    if not poses:
        raise BadInput(_nothing_found(top, files))
    features = {
        source.part: source for source in reversed(every) if _FEATURES.fullmatch(_base(source))
    }
    joined = [
        replace(s, features=features.get(s.part)) if "_features." not in _base(s) else s
        for s in poses.values()
    ]
    return sorted(joined, key=lambda source: (source.task == 0, source.part.replace("_test", "_z")))


def _base(source: Source) -> str:
    return PurePosixPath(source.member).name if source.member else source.path.name


def _preference(source: Source) -> tuple[bool, bool, bool, str]:
    # Of two npy releases of one part the one with features holds more.
    without_features = "_features." not in _base(source)
    return source.kind == "npy", bool(source.member), without_features, source.where


def _unpacked(files: Iterable[Path]) -> Iterator[Source]:
    for path in files:
        if match := _match(path.name):
            yield Source(
                path=path,
                part=match[1],
                kind="npy" if path.suffix == ".npy" else "json",
                bytes=path.stat().st_size,
            )


def _packed(path: Path) -> Iterator[Source]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except ZIP_ERRORS as error:
        raise BadInput(
            f"{path} is not a whole zip archive ({error}): download it again or take it out of the "
            "folder"
        ) from error
    chosen = [m for m in members if _is_poses(m.filename)]
    if chosen:
        refuse(_unsafe_members(members), about=f"the archive {path} cannot be used")
    for member in chosen:
        base = PurePosixPath(member.filename).name
        # Nobody releases npy in archives, and it would have to be unpacked.
        if (match := _match(base)) and not base.endswith(".npy"):
            yield Source(path=path, member=member.filename, part=match[1], bytes=member.file_size)


def _is_poses(member: str) -> bool:
    path = PurePosixPath(member.replace("\\", "/"))  # macOS adds a shadow of every file
    return "__MACOSX" not in path.parts and _match(path.name) is not None


def _match(name: str) -> re.Match[str] | None:
    return _POSES.fullmatch(name) or _FEATURES.fullmatch(name)


def _unsafe_members(members: Iterable[zipfile.ZipInfo]) -> Iterator[str]:
    """A sentence for each member that no honest archive of this data set has."""
    for member in members:
        if leaves_folder(member.orig_filename):
            yield f"its member {member.filename!r} would leave the folder"
        elif stat.S_ISLNK(member.external_attr >> 16):
            yield f"its member {member.filename!r} is a link"
        elif member.flag_bits & 1:
            yield f"its member {member.filename!r} is encrypted"
        elif member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            yield (
                f"its member {member.filename!r} is packed by method {member.compress_type}; "
                "allowed: stored, deflated"
            )
        elif member.file_size > max(
            _INFLATION_MATTERS_BYTES, _MAX_INFLATION * member.compress_size
        ):
            yield (
                f"its member {member.filename!r} grows from {member.compress_size:,} to "
                f"{member.file_size:,} bytes, as no pose file does"
            )


def unsafe_members(path: Path) -> list[str]:
    """Sentences on members of an archive that would leave its folder, are links or are made to
    exhaust the machine.

    Raises:
        BadInput: If the file is not a whole zip archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return list(_unsafe_members(archive.infolist()))
    except ZIP_ERRORS as error:
        raise BadInput(f"{path} is not a whole zip archive: {error}") from error


@contextmanager
def opened(source: Source) -> Iterator[Bytes]:
    """The bytes of a source, unpacked as they are read.

    Raises:
        BadInput: If it cannot be opened.
    """
    with ExitStack() as stack:
        stream: Bytes
        try:
            if source.member:
                archive = stack.enter_context(zipfile.ZipFile(source.path))
                stream = stack.enter_context(archive.open(source.member))
            else:
                stream = stack.enter_context(source.path.open("rb", buffering=0))
        except ZIP_ERRORS as error:
            raise BadInput(f"{source.where} cannot be opened: {error}") from error
        yield stream


def sha256(path: Path) -> str:
    """Checksum of a file (of an archive: as it is, packed)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def origin_of(folder: str | Path) -> str:
    """What a folder of official files holds: the release, unless it says otherwise."""
    note = Path(folder).expanduser() / ORIGIN_FILE
    if note.is_file():
        return note.read_text(encoding="utf-8").strip()
    return "CalMS21, doi 10.22002/D1.1991"


def _nothing_found(top: Path, files: list[Path]) -> str:
    there = ", ".join(path.name for path in files[:5]) + "…" * (len(files) > 5) or "nothing"
    return (
        f"no CalMS21 files in {top} (found there: {there}).\n"
        "  looked, in it and its subfolders, for calms21_task1_train.json, "
        "calms21_task1_test.json, the same of task2 and task3,\n"
        "  calms21_unlabeled_videos_part1.json to part4.json, the same names ending in "
        ".npy, and .zip archives that hold them\n"
        "  (task1_classic_classification.zip, task2_annotation_styles.zip, "
        "task3_new_behaviors.zip, unlabeled_videos.zip).\n"
        "  --download fetches the archives into this folder"
    )
