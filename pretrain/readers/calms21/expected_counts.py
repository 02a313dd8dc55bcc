"""How many frames of each class the released CalMS21 holds, and how a copy of it differs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import yaml

from pretrain.readers.annotations import Labels

CLASSIC = "classic_classification"
STYLES = "annotation_style_transfer"
BEHAVIORS = "new_behaviors"
CLASSES = ("attack", "investigation", "mount", "other")

_COUNTS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))
CLASS_FRAMES: dict[tuple[str, str, str], tuple[int, ...]] = {
    (task, annotator, split): tuple(frames)
    for task, annotator, split, *frames in _COUNTS["classes"]
}
"""Of Tasks 1 and 2, by task, annotator and split: frames of attack, investigation, mount, other."""
BEHAVIOR_FRAMES: dict[tuple[str, str], tuple[int, int]] = {
    (behavior, split): (shown, frames) for behavior, split, shown, frames in _COUNTS["behaviors"]
}
"""Of Task 3, by behaviour and split: frames of the behaviour, all frames."""
NEW_BEHAVIORS = tuple(dict.fromkeys(behavior for behavior, _ in BEHAVIOR_FRAMES))

EXPECTED_FRAMES: dict[tuple[str, str, str], dict[str, int]] = {
    key: dict(zip(CLASSES, frames, strict=True)) for key, frames in CLASS_FRAMES.items()
} | {
    (BEHAVIORS, behavior, split): {"other": total - count, behavior: count}
    for (behavior, split), (count, total) in BEHAVIOR_FRAMES.items()
}
"""(task, annotator or behaviour, split) to class to frames."""


def label_set(labels: Labels) -> tuple[str, str, str]:
    """Which of the release's label sets these belong to: task, annotator (Task 3: behaviour),
    split."""
    behavior = next((name for name in labels.classes if name != "other"), "")
    return labels.task, behavior if labels.task == BEHAVIORS else labels.annotator, labels.split


def count_differences(labels: Iterable[Labels]) -> list[str]:
    """A sentence for each label set whose frames per class differ from the release; label sets of
    which nothing was read are not mentioned."""
    counts_of: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
    for each in labels:
        for index, name in enumerate(each.classes):
            counts_of[label_set(each)][name] += int(np.count_nonzero(each.frames == index))
    sentences = []
    for (task, annotator, split), counts in counts_of.items():
        title = f"{task}, {'behaviour' if task == BEHAVIORS else 'annotator'} {annotator}, {split}"
        expected = EXPECTED_FRAMES.get((task, annotator, split))
        if expected is None:
            sentences.append(f"{title}: the release has no such label set")
        elif differing := [
            f"{name} {counts[name]:,} instead of {n:,}"
            for name, n in expected.items()
            if counts[name] != n
        ]:
            sentences.append(f"{title}: frames differ from the release: {'; '.join(differing)}")
    return sentences
