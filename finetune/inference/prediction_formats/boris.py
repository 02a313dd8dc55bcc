"""A BORIS project with the bouts, which BORIS opens to correct them.

Keys are those that BORIS 8 and 9 write (format 7.0). BORIS imports the observations of such a
project into another one, too.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.inference.prediction_formats import AbstractPredictionFormat
from finetune.inference.prediction_formats.boris_events import Events, medium
from pretrain.readers.score_sheets import CLIP, LABEL_SET

if TYPE_CHECKING:
    from finetune.inference.ethograms import Ethogram

_PLAYERS = 8
_KEYS = string.digits[1:] + string.ascii_lowercase


class Project(AbstractPredictionFormat):
    """A project of one observation."""

    ending = ".boris"

    def write(self, path: Path, ethogram: Ethogram) -> None:
        """The bouts of all behaviours but the rest."""
        problem = ethogram.problem
        write_project(
            path,
            {ethogram.video: (ethogram.marks(), len(ethogram.labels), ethogram.fps)},
            task=problem.task,
            behaviours=[name for name in problem.classes if name != problem.rest],
        )


def write_project(
    path: Path,
    videos: Mapping[str, tuple[Events, int, float]],
    *,
    task: str,
    behaviours: Sequence[str],
) -> None:
    """Writes a project with an observation for each video.

    Args:
        path: ``NAME.boris``.
        videos: Name to events, frames and frames per second. The medium is called like the video;
            where that is no file next to the project, BORIS asks for one.
        task: The label set, which the observations name; may be empty.
        behaviours: State events of the ethogram, after that of clips.
    """
    names = list(dict.fromkeys([CLIP, *behaviours]))
    project = {
        "time_format": "s",
        "project_date": "",
        "project_name": path.stem,
        "project_description": "",
        "project_format_version": "7.0",
        "subjects_conf": {},
        "behaviors_conf": {
            str(n): {
                "type": "State event",
                "key": _KEYS[n] if n < len(_KEYS) else "",
                "code": name,
                "description": "looked at, from start to stop" if name == CLIP else "",
                "color": "",
                "category": "",
                "modifiers": {},
                "excluded": "",
                "coding map": "",
            }
            for n, name in enumerate(names)
        },
        "observations": {name: _observation(name, *of, task=task) for name, of in videos.items()},
        "behavioral_categories": [],
        "independent_variables": {},
        "coding_map": {},
        "behaviors_coding_map": [],
        "converters": {},
    }
    path.write_text(json.dumps(project, indent=1), encoding="utf-8")


def _observation(
    video: str, events: Events, frames: int, fps: float, *, task: str
) -> dict[str, Any]:
    marks = [(start, 1, name) for start, _, name in events]
    marks += [(stop, 0, name) for _, stop, name in events]
    file = medium(video)
    return {
        "type": "MEDIA",
        "date": "1970-01-01T00:00:00",
        "description": f"{LABEL_SET}{task}" if task else "",
        "file": {str(n + 1): [file] * (n == 0) for n in range(_PLAYERS)},
        "time offset": 0.0,
        "observation time interval": [0, 0],
        "independent_variables": {},
        "visualize_spectrogram": False,
        "visualize_waveform": False,
        "media_creation_date_as_offset": False,
        "media_scan_sampling_duration": 0,
        "image_display_duration": 1,
        "close_behaviors_between_videos": False,
        "media_info": {
            "length": {file: round(frames / fps, 4)},
            "fps": {file: fps},
            "hasVideo": {file: True},
            "hasAudio": {file: False},
            "offset": {"1": 0.0},
        },
        "events": [
            [round(frame / fps, 4), "", name, "", "", frame] for frame, _, name in sorted(marks)
        ],
    }
