"""Caltech/Bento annotation: bouts of each behaviour, in frames."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from finetune.inference.prediction_formats import AbstractPredictionFormat
from pretrain.readers.label_formats.bento import escaped
from pretrain.readers.score_sheets import CLIP

if TYPE_CHECKING:
    from finetune.inference.ethograms import Ethogram


class CaltechAnnotation(AbstractPredictionFormat):
    """One channel, which bears the task's name."""

    ending = ".annot"

    def write(self, path: Path, ethogram: Ethogram) -> None:
        """Frames count from 1, both ends inclusive."""
        problem, events = ethogram.problem, ethogram.marks()
        names = [name for name in problem.classes if name != problem.rest]
        names += [CLIP] * any(name == CLIP for *_, name in events)
        channel = escaped(problem.task).rstrip("-") or "Ch1"
        lines = [
            "Bento annotation file",
            "Movie file(s):",
            "",
            "Stimulus name:",
            "Annotation start frame: 1",
            f"Annotation stop frame: {len(ethogram.labels)}",
            f"Annotation framerate: {ethogram.fps:.6f}",
            "",
            "List of channels:",
            channel,
            "",
            "List of annotations:",
            *map(escaped, names),
            "",
            f"{channel}----------",
        ]
        for name in names:
            lines += [f">{escaped(name)}", "Start\tStop\tDuration"]
            lines += [
                f"{start + 1}\t{stop}\t{stop - start}"
                for start, stop, behaviour in events
                if behaviour == name
            ]
            lines.append("")
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
