"""How many frames of each class the released CalMS21 holds, and how a copy of it differs."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pretrain.readers.annotations import Labels

CLASSIC = "classic_classification"
STYLES = "annotation_style_transfer"
BEHAVIORS = "new_behaviors"
CLASSES = ("attack", "investigation", "mount", "other")
NEW_BEHAVIORS = (
    "approach",
    "disengaged",
    "groom",
    "intromission",
    "mount_attempt",
    "sniff_face",
    "whiterearing",
)

CLASS_FRAMES = {
    (CLASSIC, "0", "train"): (14_043, 146_623, 28_622, 318_450),
    (CLASSIC, "0", "test"): (12_630, 61_280, 31_850, 156_347),
    (STYLES, "1", "train"): (4_517, 28_628, 22_537, 83_440),
    (STYLES, "2", "train"): (7_153, 35_013, 4_609, 88_848),
    (STYLES, "3", "train"): (8_691, 14_496, 10_210, 74_023),
    (STYLES, "4", "train"): (9_412, 12_591, 4_827, 81_495),
    (STYLES, "5", "train"): (2_795, 24_403, 949, 64_236),
    (STYLES, "1", "test"): (9_933, 67_800, 36_431, 172_646),
    (STYLES, "2", "test"): (4_173, 39_708, 719, 106_319),
    (STYLES, "3", "test"): (4_061, 16_114, 7_235, 49_669),
    (STYLES, "4", "test"): (8_809, 18_337, 11_506, 37_522),
    (STYLES, "5", "test"): (11_486, 81_834, 530, 270_157),
}
"""Of Tasks 1 and 2, by task, annotator and split: frames of attack, investigation, mount, other."""
BEHAVIOR_FRAMES = {
    ("approach", "train"): (670, 20_624),
    ("disengaged", "train"): (524, 35_751),
    ("groom", "train"): (6_319, 45_174),
    ("intromission", "train"): (3_697, 19_200),
    ("mount_attempt", "train"): (423, 46_847),
    ("sniff_face", "train"): (913, 19_244),
    ("whiterearing", "train"): (3_363, 36_181),
    ("approach", "test"): (3_824, 126_468),
    ("disengaged", "test"): (228, 19_088),
    ("groom", "test"): (8_540, 156_664),
    ("intromission", "test"): (7_396, 55_218),
    ("mount_attempt", "test"): (473, 85_836),
    ("sniff_face", "test"): (15_057, 251_793),
    ("whiterearing", "test"): (2_638, 17_939),
}
"""Of Task 3, by behaviour and split: frames of the behaviour, all frames."""

EXPECTED_FRAMES: dict[tuple[str, str, str], dict[str, int]] = {
    key: dict(zip(CLASSES, frames, strict=True)) for key, frames in CLASS_FRAMES.items()
} | {
    (BEHAVIORS, behavior, split): {"other": total - count, behavior: count}
    for (behavior, split), (count, total) in BEHAVIOR_FRAMES.items()
}
"""(task, annotator or behaviour, split) to class to frames.

Recovered from the benchmark's published results: a class's recall is a fraction of its frame count,
so the printed recalls of several runs give the count; precision and recall of all classes then add
up without remainder.
"""


def label_set(labels: Labels) -> tuple[str, str, str]:
    """Which of the release's label sets these belong to: task, annotator (Task 3: behaviour),
    split."""
    behavior = next((name for name in labels.classes if name != "other"), "")
    return labels.task, behavior if labels.task == BEHAVIORS else labels.annotator, labels.split


def count_differences(labels: Iterable[Labels]) -> list[str]:
    """Compares frames per class with the release.

    Args:
        labels: All that were read; label sets of which nothing was read are not mentioned.

    Returns:
        A sentence for each label set that differs; empty where all agree.
    """
    counts_of: dict[tuple[str, str, str], dict[str, int]] = {}
    for each in labels:
        counts = counts_of.setdefault(label_set(each), {})
        for index, name in enumerate(each.classes):
            counts[name] = counts.get(name, 0) + int(np.count_nonzero(each.frames == index))
    sentences = []
    for key, counts in counts_of.items():
        title = (
            f"{key[0]}, {'behaviour' if key[0] == BEHAVIORS else 'annotator'} {key[1]}, {key[2]}"
        )
        expected = EXPECTED_FRAMES.get(key)
        if expected is None:
            sentences.append(f"{title}: the release has no such label set")
            continue
        differing = [
            f"{name} {counts.get(name, 0):,} instead of {n:,}"
            for name, n in expected.items()
            if counts.get(name, 0) != n
        ]
        if differing:
            sentences.append(f"{title}: frames differ from the release: {'; '.join(differing)}")
    return sentences
