"""Which recording a file belongs to, told from its name: trackers and annotation tools add endings of their own."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from pretrain.errors import refuse

_EXTENSION = re.compile(
    r"\.(csv|tsv|txt|annot|npz|h5|hdf5|slp|nwb|analysis|predictions|mp4|avi|mov|mkv|mpg|mpeg|wmv|webm|seq|mts)$", re.IGNORECASE
)
_TOOL = re.compile(
    r"(?<=.)[_\-. ](annot|annotations?|boris|bento|labels?|behaviou?rs?|events|dlc|deeplabcut|sleap|jabs|poses?|tracks?|tracking|keypoints"
    r"|analysis|predictions?|filtered|pose_est(_v\d+)?)$",
    re.IGNORECASE,
)
_DEEPLABCUT = re.compile(r"(?<=.)[_\-]?DLC_.*shuffle\d.*$")


def natural_order(text: str) -> list[tuple[int, int, str]]:
    """A sorting key under which 2 comes before 10."""
    return [(0, int(piece), "") if piece.isdecimal() else (1, 0, piece) for piece in re.split(r"(\d+)", text) if piece]


def recording_stem(path: Path | str) -> str:
    """A file's name without extensions and without what the usual tools add: ``1DLC_resnet50_…shuffle1_…`` and ``1_annot`` are ``1``."""
    stem = file_stem(path)
    stem = _DEEPLABCUT.sub("", stem) or stem
    while (shorter := strip_extensions(_TOOL.sub("", stem))) != stem:
        stem = shorter
    return stem


def file_stem(path: Path | str) -> str:
    """A file's name without folders (of whatever system) and extensions: ``videos/m1.mp4`` is ``m1``."""
    return strip_extensions(str(path).replace("\\", "/").rstrip("/").rsplit("/", 1)[-1])


def strip_extensions(name: str) -> str:
    """``m1.mp4.predictions.slp`` is ``m1``."""
    while (shorter := _EXTENSION.sub("", name)) and shorter != name:
        name = shorter
    return name


def unique_names(found: Sequence[tuple[Path, str]]) -> list[str]:
    """One name for each recording.

    Recordings of one name in different folders are told apart by their folders (``monday/1``, ``tuesday/1``).

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
            f"choose with a pattern, such as {str(folder / ('*' + held[0].suffix))!r}, or move one away"
            for folder, held in folders.items()
            if len(held) > 1
        ]
    refuse(problems[:20], about="more than one file for a recording")
    return [name if len(by_name[name]) == 1 else _qualified(path, name, by_name[name]) for path, name in found]


def _qualified(path: Path, name: str, rivals: Sequence[Path]) -> str:
    for depth in range(1, len(path.parts)):
        tails = {rival.parent.parts[-depth:] for rival in rivals}
        if len(tails) == len(rivals):
            return "/".join((*path.parent.parts[-depth:], name)).lstrip("/")
    return str(path)


def candidates(label_name: str, videos: Mapping[str, object], *, folder: str = "") -> list[str]:
    """The recordings that a label file of this name could belong to; more than one is for a person to settle.

    An equal name wins; else the longest recording name that begins the label's (``1`` begins ``1_final``, but not ``12``).
    Among recordings told apart by their folders, the one of the label's own folder wins.

    Args:
        label_name: The label file's name, extension or not.
        videos: By name.
        folder: Name of the folder that holds the label file.
    """
    full, stem = strip_extensions(label_name), recording_stem(label_name)
    last = {video: video.rsplit("/", 1)[-1] for video in videos}
    for key in (full, stem):
        exact = [video for video in videos if video == key] or [video for video in videos if last[video] == key]
        if exact:
            return _in_folder(exact, folder)
    begins = [video for video in videos if full.startswith(last[video]) and not full[len(last[video]) :][:1].isalnum()]
    longest = max((len(last[video]) for video in begins), default=0)
    return _in_folder([video for video in begins if len(last[video]) == longest], folder)


def _in_folder(videos: list[str], folder: str) -> list[str]:
    near = [video for video in videos if folder and folder in video.split("/")[:-1]]
    return near or videos
