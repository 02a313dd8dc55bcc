"""Bouts in NWB: an EthogramBouts table of ndx-ethogram in a processing module, which may have poses
beside it, or the table ``ethogram`` that earlier versions of ``ethoray predict`` wrote.

Its description names the label set, where ``ethoray`` wrote it. A frame in no bout is "other", up
to the end of the series ``probabilities`` where there is one; what lies in no observed interval
(in earlier files: in an invalid time) is unlabelled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pretrain.errors import BadInput, refuse
from pretrain.readers.detect import UnknownFile
from pretrain.readers.label_formats import AbstractLabelFormat
from pretrain.readers.safe_files.hdf5 import array, kind, node, open_hdf5, text, texts
from pretrain.readers.score_sheets import LABEL_SET, Bout, ScoreSheet

_OLD_TABLE = "processing/behavior/ethogram"
_SERIES = "processing/behavior/probabilities"
_INVALID = "intervals/invalid_times"
_MAX_S = 1e7


class NwbEthogram(AbstractLabelFormat):
    """Times are seconds."""

    description = "NWB (ndx-ethogram, ethoray predict)"
    suffixes = (".nwb",)
    beside_poses = True

    def recognise(self, file: UnknownFile) -> bool:
        """By a table of bouts."""
        return bool(file.hdf5 and _tables(file.hdf5, file.path))

    def read(self, path: Path) -> list[ScoreSheet]:
        """A sheet for each table; errors number the bouts from 0."""
        with open_hdf5(path) as file:
            tables = _tables(file, path)
            return [_sheet(file, table, path, only=len(tables) == 1) for table in tables]


def _tables(file: Any, path: Path) -> list[Any]:
    found = []
    for module in node(file, "processing", path) or ():
        group = node(file, f"processing/{module}", path)
        for name in group if hasattr(group, "keys") else ():
            if kind(thing := node(group, name, path)) == "EthogramBouts":
                found.append(thing)
    old = node(file, _OLD_TABLE, path)
    return found or [old] * (old is not None)


def _sheet(file: Any, table: Any, path: Path, *, only: bool) -> ScoreSheet:
    is_old = node(table, "label", path) is None
    names = texts(table, "behavior" if is_old else "label", path)
    spans = _spans(table, path)
    about, annotator = (
        text(table.attrs.get(key, ""), f"the {key}", path) for key in ("description", "annotator")
    )
    observed, invalid = (
        _spans(intervals, path) if intervals is not None else None
        for intervals in (
            node(table, "observation_intervals", path),
            node(file, _INVALID, path) if is_old else None,
        )
    )
    length = rate = None
    if node(file, _SERIES, path):
        rate = float(file[f"{_SERIES}/starting_time"].attrs["rate"])
        if not rate > 0:
            raise BadInput(f"{path}: the rate of the probabilities is {rate:g}")
        length = len(file[f"{_SERIES}/data"]) / rate
    if len(names) != len(spans):
        raise BadInput(f"{path}: {len(spans)} bouts have {len(names)} behaviours")
    refuse(
        (
            f"bout {n}: {name!r} from {start:g} to {stop:g} s"
            for n, (name, (start, stop)) in enumerate(zip(names, spans, strict=True))
            if not (name and 0 <= start <= stop < _MAX_S)
        ),
        about=str(path),
    )
    clips = tuple(observed or ()) or (_between(invalid, length) if invalid and length else ())
    task = about.partition(LABEL_SET)[2].strip() or ("" if only else Path(table.name).name)
    return ScoreSheet(
        path=path,
        recording=(),
        stream=task,
        stream_is_task=bool(task),
        annotator=annotator,
        bouts=tuple(Bout(*span, name) for span, name in zip(spans, names, strict=True)),
        in_seconds=True,
        behaviours=tuple(dict.fromkeys(names)),
        observed=None if length is None else (0.0, length),
        clips=clips,
        rest_is_other=bool(clips) or not (invalid or observed is not None),
        fps=rate,
    )


def _spans(table: Any, path: Path) -> list[tuple[float, float]]:
    start, stop = (
        np.asarray(array(table, f"{end}_time", path, ndim=1), float) for end in ("start", "stop")
    )
    if len(start) != len(stop) or not np.isfinite([start, stop]).all():
        raise BadInput(f"{path}: start and stop times of {table.name} do not fit each other")
    return list(zip(start.tolist(), stop.tolist(), strict=True))


def _between(invalid: list[tuple[float, float]], length: float) -> tuple[tuple[float, float], ...]:
    """What of the recording lies in no invalid time; an empty clip where nothing does."""
    ends = [0.0, *(end for span in sorted(invalid) for end in span), length]
    return tuple((a, b) for a, b in zip(ends[::2], ends[1::2], strict=True) if b > a)
