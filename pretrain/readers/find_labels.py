"""Label files into labels.

The file itself says which recording it belongs to, or its name does: ``1_annot.txt`` belongs to
``1``. What remains unclear is refused with both sides named.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from pretrain.errors import BadInput, refuse
from pretrain.readers.annotations import Labels
from pretrain.readers.detect import (
    descriptions,
    label_format,
    label_formats,
    suffixes,
    track_format,
)
from pretrain.readers.recording_names import (
    assignment_error,
    candidates,
    common_ending,
    file_stem,
    natural_order,
)
from pretrain.readers.score_sheets import AssignedSheet, LengthMismatch, ScoreSheet, labels_of

_log = logging.getLogger(__name__)
BY_FOLDER = "folder"
_TRACK_ENDINGS = (".h5", ".hdf5", ".slp", ".nwb", ".mp4", ".avi", ".mov", ".png", ".jpg")


def read_sheets(path: Path) -> list[ScoreSheet]:
    """What one label file says.

    Raises:
        BadInput: If it is of no known format, or damaged; with the line or frame.
    """
    fmt = label_format(path)
    if fmt is None:
        raise BadInput(f"{path} is not a label file; read are: {descriptions(label_formats())}")
    try:
        return fmt.read(path)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}") from error


def read_label_files(
    labels: str | Path,
    videos: Mapping[str, int],
    fps: float | Mapping[str, float],
    *,
    annotator: str | None = None,
    task: str | None = None,
    expected: Collection[str] | None = None,
    first_frame: int | None = None,
) -> tuple[list[Labels], list[LengthMismatch]]:
    """Labels of the recordings in ``videos``, at the rate of their tracks.

    Args:
        labels: A folder (with all folders in it) or one file. Tracker files and files of other
            kinds in it are passed over.
        videos: Frames of each recording's track, by name.
        fps: Frames per second of the tracks, for formats that count seconds; one for all, or by
            name.
        annotator: Who labelled, where the files do not say: a name, or ``folder``: the name of the
            folder that each file lies in.
        task: The label set that all labels are of, whatever the files say.
        expected: Recordings that a warning names if they have no labels; None: all.
        first_frame: 0 or 1, from where frames are counted in files that leave it open; None: from 1
            where nothing else can be.

    Returns:
        Labels, each as long as its track (what the file does not cover is unlabelled); and where
        labels and track differ in length.

    Raises:
        BadInput: If no labels are found, a file is damaged, belongs to no recording or could belong
            to several, or two are of one recording and task.
    """
    rates = fps if isinstance(fps, Mapping) else dict.fromkeys(videos, fps)
    address = Path(labels).expanduser()
    paths = _find(address, videos)
    ending = common_ending(paths)
    assigned, errors = [], []
    for path in paths:
        try:
            sheets = read_sheets(path)
        except BadInput as error:
            errors.append(str(error).replace("\n", "\n  "))
            continue
        if not sheets:
            _log.warning("%s is a label file in which nothing was scored", path)
        who = path.parent.name if annotator == BY_FOLDER else annotator
        if annotator == BY_FOLDER and path.parent == address:
            errors.append(f"{path}: --annotator folder: it lies in no folder of an annotator's")
        for sheet in sheets:
            if who and not sheet.annotator:
                sheet = replace(sheet, annotator=who)
            if task:
                sheet = replace(sheet, stream=task, stream_is_task=True)
            names = _recordings_of(sheet, videos, ending)
            if len(names) == 1:
                assigned.append(AssignedSheet(sheet, names[0]))
            elif not sheet.alternative:
                errors.append(assignment_error(path, names, videos, called=sheet.recording))
        if (
            sheets
            and all(sheet.alternative for sheet in sheets)
            and not any(each.sheet.path == path for each in assigned)
        ):
            called = ", ".join(dict.fromkeys(name for s in sheets for name in s.recording))
            errors.append(f"{path} belongs to no recording: none is named like {called}")
    refuse(errors, about=f"labels in {address}")
    assigned = [_from_zero(each, videos[each.video], first_frame) for each in assigned]
    expected = videos if expected is None else expected
    without = sorted(set(expected) - {each.video for each in assigned})
    if without:
        _log.warning(
            "%d of %d recordings have no labels at all: %s",
            len(without),
            len(expected),
            ", ".join(without[:10]) + ("…" if len(without) > 10 else ""),
        )
    return labels_of(assigned, frames=videos, fps=rates)


def _from_zero(assigned: AssignedSheet, frames: int, first_frame: int | None) -> AssignedSheet:
    """The sheet with its frames counted from 0: where none is 0 and the last is as high as the
    recording has frames, they were counted from 1."""
    sheet = assigned.sheet
    if not sheet.may_count_from_1 or not sheet.bouts or first_frame == 0:
        return assigned
    first = min(bout.start for bout in sheet.bouts)
    last = max(bout.stop for bout in sheet.bouts)
    if first_frame is None:
        if first < 1 or last != frames + 1:
            return assigned
        _log.warning(
            "%s: frames 1 to %d of a recording of %d: they are counted from 1, and are read so "
            "(--labels-from 0 reads them otherwise)",
            *(sheet.path, frames, frames),
        )
    elif first < 1:
        raise BadInput(f"{sheet.path} has a frame 0: its frames are not counted from 1")
    bouts = tuple(replace(b, start=b.start - 1, stop=b.stop - 1) for b in sheet.bouts)
    return replace(assigned, sheet=replace(sheet, bouts=bouts))


def _find(address: Path, videos: Mapping[str, int]) -> list[Path]:
    if address.is_file():
        return [address]
    if not address.is_dir():
        raise BadInput(f"there is no folder or file {address} to read labels from")
    files = sorted(
        (p for p in address.rglob("*") if p.is_file() and not p.name.startswith(".")),
        key=lambda p: natural_order(str(p)),
    )
    endings, looked_for = suffixes(label_formats()), descriptions(label_formats())
    unmistakable = {suffix for fmt in label_formats() for suffix in fmt.unmistakable}
    paths, errors = [], []
    for path in files:
        suffix = path.suffix.lower()
        if suffix not in endings:
            continue
        if label_format(path) is not None:
            paths.append(path)
        # other tools keep settings in JSON
        elif (suffix != ".json" and track_format(path) is None) and (
            suffix in unmistakable or candidates(path.name, videos, folder=path.parent.name)
        ):
            errors.append(
                f"{path} is named like labels of a recording, but is of no format known "
                f"({looked_for}), or empty"
            )
    refuse(errors, about=f"labels in {address}")
    unread = [
        path
        for path in files
        if path not in paths
        and path.suffix.lower() not in _TRACK_ENDINGS
        and candidates(path.stem, videos, folder=path.parent.name)
        and track_format(path) is None
    ]
    if unread and paths:
        _log.warning(
            "%d files that are named like recordings are of no format of labels that is read: %s",
            len(unread),
            ", ".join(path.name for path in unread[:10]) + ("…" if len(unread) > 10 else ""),
        )
    if not paths:
        kinds = ", ".join(sorted({p.suffix or "no extension" for p in files})) or "nothing"
        raise BadInput(
            f"found 0 label files in {address}: looked for {looked_for} in files "
            f"{', '.join(sorted(endings))}; found {len(files)} other files ({kinds})"
        )
    return paths


def _recordings_of(sheet: ScoreSheet, videos: Mapping[str, int], ending: str) -> list[str]:
    """The recordings it could belong to: what its surest name says, or else its next."""
    ambiguous: list[str] = []
    for name in sheet.recording or (file_stem(sheet.path),):
        names = candidates(name, videos, folder=sheet.path.parent.name, ending=ending)
        if len(names) == 1:
            return names
        ambiguous = ambiguous or names
    return ambiguous
