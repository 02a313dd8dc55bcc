"""Figures of the real CalMS21 that the arena imitates. Constants only; nothing here is drawn or
fitted at run time.

Where they come from: bout lengths, transitions and sequence lengths were counted on the complete
Task 1 frame labels (70 train and 19 test sequences); shapes, distances and steps on some 1,980
windows of real poses; frame counts are those of the published test results, from which they can be
derived exactly. Lengths are frames at 30 frames/s, distances pixels of the 1024 x 570 image.
"""

from __future__ import annotations

CLASSES = ("attack", "investigation", "mount", "other")
"""Task 1 and 2, in the order of the official vocabulary."""

BEHAVIOURS = (
    "approach",
    "disengaged",
    "groom",
    "intromission",
    "mount_attempt",
    "sniff_face",
    "whiterearing",
)
"""Task 3: seven binary problems, one after the other."""

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""Probabilities at which lengths are given below."""

BOUT_FRAMES = {
    "train": {
        "attack": (1.0, 7.0, 18.2, 46.0, 98.0, 219.7, 669.0),
        "investigation": (1.0, 7.0, 15.0, 34.0, 82.0, 321.5, 1335.0),
        "mount": (2.0, 16.1, 38.2, 61.0, 102.8, 310.9, 1123.0),
        "other": (1.0, 7.0, 39.0, 100.0, 237.8, 617.1, 2049.0),
    },
    "test": {
        "attack": (3.0, 6.0, 17.0, 34.5, 68.0, 138.9, 277.0),
        "investigation": (1.0, 5.0, 13.0, 24.0, 57.2, 228.0, 1335.0),
        "mount": (5.0, 10.7, 35.5, 74.0, 159.0, 530.3, 3654.0),
        "other": (1.0, 9.0, 34.0, 93.0, 213.0, 594.8, 2605.0),
    },
}
"""Quantiles of bout length."""

TRANSITIONS = {
    "train": ((0, 55, 3, 132), (143, 0, 265, 1394), (4, 149, 0, 122), (47, 1607, 14, 0)),
    "test": ((0, 87, 0, 171), (240, 0, 193, 630), (1, 107, 0, 85), (17, 874, 2, 0)),
}
"""How often a bout of the row's class was followed by one of the column's, both in the order of
``CLASSES``."""

SEQUENCE_FRAMES = {
    "train": (96.0, 1130.0, 3032.0, 5568.0, 9826.5, 18208.3, 21364.0),
    "test": (4881.0, 4926.9, 7866.0, 17483.0, 19031.5, 20120.0, 23810.0),
}
"""Quantiles of sequence length."""

SEQUENCES_WITH = {
    "train": {"attack": 18 / 70, "mount": 41 / 70},
    "test": {"attack": 5 / 19, "mount": 14 / 19},
}
"""Share of sequences in which a class occurs at all: a resident fights or courts, seldom both."""

CLASS_FRAMES = {
    ("", "train"): (14_043, 146_623, 28_622, 318_450),
    ("", "test"): (12_630, 61_280, 31_850, 156_347),
    ("1", "train"): (4_517, 28_628, 22_537, 83_440),
    ("2", "train"): (7_153, 35_013, 4_609, 88_848),
    ("3", "train"): (8_691, 14_496, 10_210, 74_023),
    ("4", "train"): (9_412, 12_591, 4_827, 81_495),
    ("5", "train"): (2_795, 24_403, 949, 64_236),
    ("1", "test"): (9_933, 67_800, 36_431, 172_646),
    ("2", "test"): (4_173, 39_708, 719, 106_319),
    ("3", "test"): (4_061, 16_114, 7_235, 49_669),
    ("4", "test"): (8_809, 18_337, 11_506, 37_522),
    ("5", "test"): (11_486, 81_834, 530, 270_157),
}
"""Frames of each class, by Task 2's annotator ("" stands for Task 1) and split."""

BEHAVIOUR_FRAMES = {
    ("approach", "train"): (670, 20_624),
    ("approach", "test"): (3_824, 126_468),
    ("disengaged", "train"): (524, 35_751),
    ("disengaged", "test"): (228, 19_088),
    ("groom", "train"): (6_319, 45_174),
    ("groom", "test"): (8_540, 156_664),
    ("intromission", "train"): (3_697, 19_200),
    ("intromission", "test"): (7_396, 55_218),
    ("mount_attempt", "train"): (423, 46_847),
    ("mount_attempt", "test"): (473, 85_836),
    ("sniff_face", "train"): (913, 19_244),
    ("sniff_face", "test"): (15_057, 251_793),
    ("whiterearing", "train"): (3_363, 36_181),
    ("whiterearing", "test"): (2_638, 17_939),
}
"""Task 3: (frames of the behaviour, all frames)."""

SEQUENCES = {("1", "train"): 70, ("1", "test"): 19}
"""Sequences of Task 1; those of Tasks 2 and 3 were not published."""

UNLABELLED_VIDEOS, UNLABELLED_PARTS = 282, 4

SHAPE_PX = {
    "resident": (
        59.5 + 0.7j,
        13.6 + 27.0j,
        14.3 - 26.2j,
        0j,
        -72.2 + 38.1j,
        -72.4 - 39.0j,
        -125.7 + 0j,
    ),
    "intruder": (
        52.0 + 3.8j,
        11.7 + 23.8j,
        14.6 - 22.4j,
        0j,
        -61.8 + 33.2j,
        -60.8 - 35.3j,
        -106.6 + 0j,
    ),
}
"""Mean place of each keypoint in the frame of the body, x + iy: the neck is 0 and x runs from tail
base to neck."""
