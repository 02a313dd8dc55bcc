"""JABS' annotations (``VIDEO.json``): for each identity and behaviour, blocks of frames in which it
was seen, or was seen not to be.

Frames count from 0, both ends inclusive. A frame in no block of a behaviour is unlabelled, whatever
was said of other behaviours; hence each behaviour is a label set of its own, and each identity too
where the file has several: ``Grooming_animal2`` is that of the second animal of JABS' poses.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from pretrain.errors import BadInput
from pretrain.readers.annotations import UNLABELLED
from pretrain.readers.detect import UnknownFile
from pretrain.readers.label_formats import AbstractLabelFormat
from pretrain.readers.label_formats._text import MAX_FRAME, read_lines
from pretrain.readers.recording_names import file_stem
from pretrain.readers.score_sheets import OTHER, ScoreSheet


class JabsLabels(AbstractLabelFormat):
    """Labels of one behaviour at a time."""

    description = "JABS annotations"
    suffixes = (".json",)

    def recognise(self, file: UnknownFile) -> bool:
        """By its keys."""
        start = file.head.lstrip()
        return start.startswith(b"{") and b'"num_frames"' in start and b'"labels"' in start

    def read(self, path: Path) -> list[ScoreSheet]:
        """A sheet for each identity and behaviour."""
        try:
            project = json.loads("\n".join(read_lines(path)))
            frames, labels = project["num_frames"], project["labels"]
            video = file_stem(str(project.get("file") or path.name))
            several = set(labels) != {"0"}
            if type(frames) is not int or not 0 < frames <= MAX_FRAME:
                raise BadInput(f"{path}, line 1: num_frames is {frames!r}")
            return [
                ScoreSheet(
                    path=path,
                    recording=tuple(dict.fromkeys((video, file_stem(path)))),
                    stream=f"{behaviour}_animal{int(identity) + 1}" if several else behaviour,
                    stream_is_task=True,
                    exact=True,
                    behaviours=(OTHER, behaviour),
                    marks=_marks(blocks, frames, f"{path}, identity {identity}, {behaviour}"),
                )
                for identity, behaviours in labels.items()
                for behaviour, blocks in behaviours.items()
                if blocks and behaviour and behaviour != OTHER
            ]
        except json.JSONDecodeError as error:
            raise BadInput(f"{path}, line {error.lineno}: damaged JSON ({error.msg})") from error
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput(
                f"{path}, line 1: no annotations of JABS, or damaged ({error!r})"
            ) from error


def _marks(blocks: Any, frames: int, where: str) -> Any:
    """(frames, 2) of 0, 1 or UNLABELLED: not seen, seen."""
    marks = np.full((frames, 2), UNLABELLED, np.int8)
    for number, block in enumerate(blocks, start=1):
        start, end, present = block["start"], block["end"], block["present"]
        if type(start) is not int or type(end) is not int or not 0 <= start <= end < frames:
            raise BadInput(f"{where}, block {number}: frames {start} to {end} of {frames}")
        marks[start : end + 1] = [not present, bool(present)]
    return marks
