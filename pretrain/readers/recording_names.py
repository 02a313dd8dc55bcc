"""Which recording a file belongs to, by its name; trackers and annotation tools add endings to
it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from pretrain.data.recording_file import file_name
from pretrain.errors import refuse
from pretrain.readers.detect import label_formats, suffixes, track_formats

_OTHER_EXTENSIONS = (
    *(".npy", ".analysis", ".predictions"),
    *(".mp4", ".avi", ".mov", ".mkv", ".mpg", ".mpeg", ".wmv", ".webm", ".seq", ".mts"),
)
"""Beside those of the formats: of features, of videos, and within names that trackers make."""
_NAME_ENDINGS = (
    *("annot", "annotations?", "labels?", "behaviou?rs?", "events"),
    *("poses?", "tracks?", "tracking", "keypoints", "predictions?", "analysis", "filtered"),
    *("features?", "embeddings?"),
)
"""Beside those that formats state."""
_DEEPLABCUT = re.compile(r"(?<=.)[_\-]?(?:DLC|DeepCut)_.*shuffle\d.*$")


def natural_order(text: str) -> list[tuple[int, int, str]]:
    """A sorting key under which 2 comes before 10."""
    return [
        (0, int(piece), "") if piece.isdecimal() else (1, 0, piece)
        for piece in re.split(r"(\d+)", text)
        if piece
    ]


def recording_stem(path: Path | str) -> str:
    """A file's name without extensions and without what the usual tools add:
    ``1DLC_resnet50_…shuffle1_…`` and ``1_annot`` are ``1``."""
    formats = (*track_formats(), *label_formats())
    endings = "|".join((*_NAME_ENDINGS, *(e for fmt in formats for e in fmt.name_endings)))
    stem = file_stem(path)
    stem = _DEEPLABCUT.sub("", stem) or stem
    while (shorter := _without_end(stem, rf"(?<=.)[_\-. ]({endings})")) != stem:
        stem = _strip_extensions(shorter)
    return stem


def file_stem(path: Path | str) -> str:
    """A file's name without folders (of whatever system) and extensions: ``videos/m1.mp4`` is
    ``m1``."""
    return _strip_extensions(str(path).replace("\\", "/").rstrip("/").rsplit("/", 1)[-1])


def _strip_extensions(name: str) -> str:
    """``m1.mp4.predictions.slp`` is ``m1``."""
    extensions = suffixes((*track_formats(), *label_formats())).union(_OTHER_EXTENSIONS)
    pattern = "|".join(map(re.escape, sorted(extensions)))
    while (shorter := _without_end(name, pattern)) and shorter != name:
        name = shorter
    return name


def _without_end(text: str, pattern: str) -> str:
    return re.sub(f"({pattern})$", "", text, flags=re.IGNORECASE)


def unique_names(recordings: Sequence[tuple[Path, str]]) -> list[str]:
    """One name for each recording.

    Recordings of one name in different folders are distinguished by their folders (``monday/1``,
    ``tuesday/1``).

    Args:
        recordings: (file, name) of each.

    Raises:
        BadInput: If two files in one folder are of one recording.
    """
    by_name: dict[str, list[Path]] = defaultdict(list)
    for path, name in recordings:
        by_name[name].append(path)
    errors = []
    for name, paths in by_name.items():
        folders: dict[Path, list[Path]] = defaultdict(list)
        for path in paths:
            folders[path.parent].append(path)
        errors += [
            f"{' and '.join(p.name for p in rivals)} in {folder} are both tracks of {name!r}: "
            f"choose with a pattern, such as {str(folder / _pattern(rivals))!r}, or move one away"
            for folder, rivals in folders.items()
            if len(rivals) > 1
        ]
    refuse(errors, about="more than one file for a recording")
    return [
        name if len(by_name[name]) == 1 else _qualified(path, name, by_name[name])
        for path, name in recordings
    ]


def _pattern(rivals: Sequence[Path]) -> str:
    """A pattern that one of them fits and the others do not, if endings tell them apart."""
    names = sorted((path.name for path in rivals), key=len)
    tail = names[-1][len(_shared_beginning(names)) :]
    return f"*{tail}" if "." in tail else f"*{rivals[0].suffix}"


def _qualified(path: Path, name: str, rivals: Sequence[Path]) -> str:
    for depth in range(1, len(path.parts)):
        tails = {rival.parent.parts[-depth:] for rival in rivals}
        if len(tails) == len(rivals):
            return "/".join((*path.parent.parts[-depth:], name)).lstrip("/")
    return str(path)


def candidates(
    called: str, videos: Iterable[str], *, folder: str = "", ending: str = ""
) -> list[str]:
    """The recordings that a file of this name could belong to; of several, a person must choose.

    The name must be the recording's, as it is, or without what the usual tools add, or without the
    ending that all files of the set share. That it begins with a recording's name is not enough:
    ``m1_day2`` is not ``m1``. Among recordings that differ by their folders, the one of the file's
    own folder wins.

    Args:
        called: What the label (or feature) file is called, extension or not.
        videos: Names of the recordings.
        folder: Name of the folder that holds the file.
        ending: Of all files of the set (:func:`common_ending`).
    """
    last_part = {video: video.rsplit("/", 1)[-1] for video in videos}
    if called in last_part:
        return [called]
    full = file_stem(called)
    for name in dict.fromkeys((full, recording_stem(called), full.removesuffix(ending))):
        matches = [video for video in last_part if video == name] or [
            video for video in last_part if name in (last_part[video], file_name(last_part[video]))
        ]
        if matches:
            nearby = [v for v in matches if folder and folder in v.split("/")[:-1]]
            return nearby or matches
    return []


def common_ending(paths: Sequence[Path]) -> str:
    """What the names of two files or more end in, from a delimiter on: ``_by_ann`` of
    ``1_by_ann.txt`` and ``2_by_ann.txt``."""
    stems = [file_stem(path) for path in paths]
    if len(set(stems)) < 2:
        return ""
    shared = _shared_beginning([stem[::-1] for stem in stems])[::-1]
    ending = re.search(r"[_\-. ].*$", shared)
    return ending[0] if ending else ""


def _shared_beginning(names: Sequence[str]) -> str:
    """Character by character."""
    first, last = min(names), max(names)
    same = (index for index, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return first[: next(same, min(len(first), len(last)))]


def assignment_error(
    path: Path, found: Sequence[str], videos: Iterable[str], *, called: Sequence[str] = ()
) -> str:
    """A sentence on a file that belongs to no recording, or to several.

    Args:
        path: The file.
        found: The recordings it could belong to.
        videos: All recordings.
        called: What the file itself calls its recording.
    """
    file = f"{path} (recording {', '.join(called)})" if called else str(path)
    if found:
        return f"{file} could belong to several recordings: {', '.join(found)}. Name it after one"
    names = list(videos)
    listed = ", ".join(names[:8]) + (f"… ({len(names)} in all)" if len(names) > 8 else "")
    similar = next(filter(None, (_beginning_of(name, names) for name in (*called, path.name))), "")
    hint = f". If it is {similar}, name it so" if similar else ""
    return f"{file} belongs to no known recording; recordings: {listed}{hint}"


def _beginning_of(name: str, videos: Iterable[str]) -> str:
    """The recording whose name begins this one; empty where there is none."""
    stem = file_stem(name)
    return max(
        (video for video in videos if stem.startswith(video.rsplit("/", 1)[-1])),
        key=len,
        default="",
    )
