"""Label files into labels. The format is found by content, never by name; a format is a module in
``label_formats/``.

Which recording a file belongs to is told by what the file itself says, or by its name:
``1_annot.txt`` belongs to ``1``. What cannot be told is refused with both sides named.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from pretrain.errors import BadInput, refuse
from pretrain.readers import safe_npz
from pretrain.readers.annotations import Labels
from pretrain.readers.find_tracks import recognise
from pretrain.readers.label_formats import boris as label_boris
from pretrain.readers.label_formats import caltech as label_caltech
from pretrain.readers.label_formats import npz as label_npz
from pretrain.readers.label_formats import tables as label_tables
from pretrain.readers.label_formats.sheets import Mismatch, Placed, Sheet, labels_of
from pretrain.readers.label_formats.text import decoded
from pretrain.readers.recording_names import (
    candidates,
    common_ending,
    file_stem,
    natural_order,
    nearest,
)

MODULES = (label_caltech, label_boris, label_tables, label_npz)
FORMATS = ", ".join(module.NAME for module in MODULES)
_SUFFIXES = frozenset((".txt", ".csv", ".tsv", ".annot", ".npz"))
_HEAD_BYTES = 1 << 18
_log = logging.getLogger(__name__)


def recognise_labels(path: Path) -> str | None:
    """The name of a label file's format, or None where it is no label file."""
    module = _module_of(path)
    return None if module is None else str(module.NAME)


def _module_of(path: Path):  # type: ignore[no-untyped-def]
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith(b"PK"):
        return label_npz if label_npz.recognises(safe_npz.members(path)) else None
    if recognise(path) is not None:
        return None
    try:
        lines = decoded(
            head if len(head) < _HEAD_BYTES else head[: head.rfind(b"\n")], path
        ).splitlines()
    except BadInput:
        lines = head.decode("latin-1").splitlines()  # its reader will say which byte is wrong
    if not lines or not lines[0].strip() or "\0" in lines[0]:
        return None
    if label_caltech.recognises(lines[0]):
        return label_caltech
    return next(
        (module for module in (label_boris, label_tables) if module.recognises(lines)), None
    )


def read_sheets(path: Path) -> list[Sheet]:
    """What one label file says.

    Raises:
        BadInput: If it is of no known format, or damaged; with the place.
    """
    path = Path(path)
    try:
        module = _module_of(path)
        if module is None:
            raise BadInput(f"{path} is not a label file; read are: {FORMATS}")
        sheets: list[Sheet] = module.read(path)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}") from error
    return sheets


def read_label_files(
    labels: str | Path, videos: Mapping[str, int], fps: float | Mapping[str, float]
) -> tuple[list[Labels], list[Mismatch]]:
    """Labels of the recordings in ``videos``, at the rate of their tracks.

    Args:
        labels: A folder (searched through and through) or one file. Tracker files and files of
            other kinds in it are passed over.
        videos: Frames of each recording's track, by name.
        fps: Frames per second of the tracks, for formats that count seconds; one for all, or by
            name.

    Returns:
        Labels, each as long as its track (what the file does not cover is unlabelled); and where
        labels and track differ in length.

    Raises:
        BadInput: If no labels are found, a file is damaged, belongs to no recording or could belong
            to several, or two say the same of one.
    """
    rates = fps if isinstance(fps, Mapping) else dict.fromkeys(videos, fps)
    address = Path(labels).expanduser()
    found = _found(address, videos)
    ending = common_ending(found)
    placed, problems = [], []
    for path in found:
        try:
            sheets = read_sheets(path)
        except BadInput as error:
            problems.append(str(error).replace("\n", "\n  "))
            continue
        if not sheets:
            _log.warning("%s is a label file in which nothing was scored", path)
        for sheet in sheets:
            names = _belongs_to(sheet, videos, ending)
            if len(names) == 1:
                placed.append(Placed(sheet, names[0]))
            else:
                problems.append(_unplaced(sheet, names, videos))
    problems = list(dict.fromkeys(problems))
    refuse(
        problems[:20] + ([f"and {len(problems) - 20} more"] if len(problems) > 20 else []),
        about=f"labels in {address}",
    )
    return labels_of(placed, frames=videos, fps=rates)


def _found(address: Path, videos: Mapping[str, int]) -> list[Path]:
    if address.is_file():
        return [address]
    if not address.is_dir():
        raise BadInput(f"there is no folder or file {address} to read labels from")
    inside = sorted(
        (p for p in address.rglob("*") if p.is_file() and not p.name.startswith(".")),
        key=lambda p: natural_order(str(p)),
    )
    found, problems = [], []
    for path in inside:
        if path.suffix.lower() not in _SUFFIXES:
            continue
        if recognise_labels(path) is not None:
            found.append(path)
        elif recognise(path) is None and (
            path.suffix.lower() == ".annot"
            or candidates(path.name, videos, folder=path.parent.name)
        ):
            problems.append(
                f"{path} is named like labels of a recording, but is of no format known "
                f"({FORMATS}), or empty"
            )
    refuse(problems[:20], about=f"labels in {address}")
    if not found:
        kinds = ", ".join(sorted({p.suffix or "no extension" for p in inside})) or "nothing"
        raise BadInput(
            f"found 0 label files in {address}: looked for {FORMATS} in files "
            f"{', '.join(sorted(_SUFFIXES))}; "
            f"found {len(inside)} other files ({kinds})"
        )
    return found


def _belongs_to(sheet: Sheet, videos: Mapping[str, int], ending: str) -> list[str]:
    own = (file_stem(sheet.path),)
    fallback: list[str] = []
    for name in sheet.recording or own:
        names = candidates(name, videos, folder=sheet.path.parent.name, ending=ending)
        if len(names) == 1:
            return names
        fallback = fallback or names
    return fallback


def _unplaced(sheet: Sheet, names: list[str], videos: Mapping[str, int]) -> str:
    called = f" (recording {', '.join(sheet.recording)})" if sheet.recording else ""
    if names:
        return (
            f"{sheet.path}{called} could belong to several recordings: {', '.join(names)}. "
            "Name it after one"
        )
    listed = ", ".join(list(videos)[:8]) + (f"… ({len(videos)} in all)" if len(videos) > 8 else "")
    near = next(
        (
            found
            for name in (*sheet.recording, file_stem(sheet.path))
            if (found := nearest(name, videos))
        ),
        "",
    )
    hint = f". If it is {near}, name it so" if near else ""
    return f"{sheet.path}{called} belongs to no known recording; recordings: {listed}{hint}"
