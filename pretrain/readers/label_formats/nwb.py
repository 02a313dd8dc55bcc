"""NWB as ``ethoray predict`` writes it: bouts in the table ``ethogram`` of the behavior module.

Its description names the label set. A frame in no bout is "other", up to the end of the series
``probabilities``; invalid times, in which no pose was seen, are unlabelled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pretrain.errors import BadInput, refuse
from pretrain.readers.detect import UnknownFile
from pretrain.readers.label_formats import AbstractLabelFormat
from pretrain.readers.safe_files.hdf5 import array, node, open_hdf5, text, texts
from pretrain.readers.score_sheets import LABEL_SET, Bout, ScoreSheet

_ETHOGRAM = "processing/behavior/ethogram"
_SERIES = "processing/behavior/probabilities"
_INVALID = "intervals/invalid_times"
_MAX_S = 1e7


class NwbEthogram(AbstractLabelFormat):
    """Times are seconds."""

    description = "NWB of ethoray predict"
    suffixes = (".nwb",)

    def recognise(self, file: UnknownFile) -> bool:
        """By the table of bouts."""
        return _ETHOGRAM in file.hdf5

    def read(self, path: Path) -> list[ScoreSheet]:
        """One sheet; errors number the bouts from 0."""
        with open_hdf5(path) as file:
            names = texts(file, f"{_ETHOGRAM}/behavior", path)
            spans = _spans(file, _ETHOGRAM, path)
            about = text(file[_ETHOGRAM].attrs.get("description", ""), "the description", path)
            invalid = _spans(file, _INVALID, path) if node(file, _INVALID, path) else []
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
        clips = _between(invalid, length) if invalid and length else ()
        return [
            ScoreSheet(
                path=path,
                recording=(),
                stream=about.partition(LABEL_SET)[2].strip(),
                stream_is_task=LABEL_SET in about,
                bouts=tuple(Bout(*span, name) for span, name in zip(spans, names, strict=True)),
                in_seconds=True,
                behaviours=tuple(dict.fromkeys(names)),
                observed=None if length is None else (0.0, length),
                clips=clips,
                rest_is_other=bool(clips) or not invalid,
                fps=rate,
            )
        ]


def _spans(file: Any, table: str, path: Path) -> list[tuple[float, float]]:
    start, stop = (
        np.asarray(array(file, f"{table}/{end}_time", path, ndim=1), float)
        for end in ("start", "stop")
    )
    if len(start) != len(stop) or not np.isfinite([start, stop]).all():
        raise BadInput(f"{path}: start and stop times of {table} do not fit each other")
    return list(zip(start.tolist(), stop.tolist(), strict=True))


def _between(invalid: list[tuple[float, float]], length: float) -> tuple[tuple[float, float], ...]:
    """What of the recording lies in no invalid time; an empty clip where nothing does."""
    ends = [0.0, *(end for span in sorted(invalid) for end in span), length]
    return tuple((a, b) for a, b in zip(ends[::2], ends[1::2], strict=True) if b > a)
