"""Which recording a file belongs to, told from its name: trackers and annotation tools add endings
of their own."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from pretrain.errors import refuse

_EXTENSION = re.compile(
    r"\.(csv|tsv|txt|annot|npy|npz|h5|hdf5|slp|nwb|analysis|predictions|mp4|avi|mov|mkv|mpg|mpeg|wmv|webm|seq|mts)$",
    re.IGNORECASE,
)
_TOOL = re.compile(
    r"(?<=.)[_\-. "
    r"](annot|annotations?|boris|bento|labels?|behaviou?rs?|events|dlc|deeplabcut|sleap|jabs|poses?|tracks?|tracking|keypoints"
    r"|analysis|predictions?|filtered|pose_est(_v\d+)?|features?|embeddings?)$",
    re.IGNORECASE,
)
_DEEPLABCUT = re.compile(r"(?<=.)[_\-]?DLC_.*shuffle\d.*$")


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
    stem = file_stem(path)
    stem = _DEEPLABCUT.sub("", stem) or stem
    while (shorter := strip_extensions(_TOOL.sub("", stem))) != stem:
        stem = shorter
    return stem


def file_stem(path: Path | str) -> str:
    """A file's name without folders (of whatever system) and extensions: ``videos/m1.mp4`` is
    ``m1``."""
    return strip_extensions(str(path).replace("\\", "/").rstrip("/").rsplit("/", 1)[-1])


def strip_extensions(name: str) -> str:
    """``m1.mp4.predictions.slp`` is ``m1``."""
    while (shorter := _EXTENSION.sub("", name)) and shorter != name:
        name = shorter
    return name


def unique_names(found: Sequence[tuple[Path, str]]) -> list[str]:
    """One name for each recording.

    Recordings of one name in different folders are told apart by their folders (``monday/1``,
    ``tuesday/1``).

    Args:
        found: (file, name) of each.

    Raises:
        BadInput: If two files in one folder are of one recording.
    """
    by_name: dict[str, list[Path]] = defaultdict(list)
    for path, name in found:
        by_name[name].append(path)
    problems = []
    for name, paths in by_name.items():
        folders: dict[Path, list[Path]] = defaultdict(list)
        for path in paths:
            folders[path.parent].append(path)
        problems += [
            f"{' and '.join(p.name for p in held)} in {folder} are both tracks of {name!r}: "
            f"choose with a pattern, such as {str(folder / _pattern(held))!r}, or move one away"
            for folder, held in folders.items()
            if len(held) > 1
        ]
    refuse(problems[:20], about="more than one file for a recording")
    return [
        name if len(by_name[name]) == 1 else _qualified(path, name, by_name[name])
        for path, name in found
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
    label_name: str, videos: Iterable[str], *, folder: str = "", ending: str = ""
) -> list[str]:
    """The recordings that a label file of this name could belong to; more than one is for a person
    to configure_torch.

    The name must be the recording's, as it is, or without what the usual tools add, or without the
    ending that all label files of the set share. That it begins with a recording's name is not
    enough: ``m1_day2`` is not ``m1``. Among recordings told apart by their folders, the one of the
        label's own folder wins.

    Args:
        label_name: The label file's name, extension or not.
        videos: Names of the recordings.
        folder: Name of the folder that holds the label file.
        ending: Of all label files of the set (:func:`common_ending`).
    """
    last = {video: video.rsplit("/", 1)[-1] for video in videos}
    if label_name in last:
        return [label_name]
    full = file_stem(label_name)
    for key in dict.fromkeys((full, recording_stem(label_name), full.removesuffix(ending))):
        found = [video for video in last if video == key] or [
            video for video in last if last[video] == key
        ]
        if found:
            return _in_folder(found, folder)
    return []


def common_ending(paths: Sequence[Path]) -> str:
    """What the names of two files or more end in, from a delimiter on: ``_by_ann`` of
    ``1_by_ann.txt`` and ``2_by_ann.txt``."""
    stems = [file_stem(path) for path in paths]
    if len(set(stems)) < 2:
        return ""
    shared = _shared_beginning([stem[::-1] for stem in stems])[::-1]
    found = re.search(r"[_\-. ].*$", shared)
    return found[0] if found else ""


def _shared_beginning(names: Sequence[str]) -> str:
    """Character by character."""
    first, last = min(names), max(names)
    same = (place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return first[: next(same, min(len(first), len(last)))]


def nearest(name: str, videos: Iterable[str]) -> str:
    """The recording whose name begins this one, to suggest it; empty where there is none."""
    stem = file_stem(name)
    return max(
        (video for video in videos if stem.startswith(video.rsplit("/", 1)[-1])),
        key=len,
        default="",
    )


def _in_folder(videos: list[str], folder: str) -> list[str]:
    near = [video for video in videos if folder and folder in video.split("/")[:-1]]
    return near or videos
