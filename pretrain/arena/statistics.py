"""Figures of the real CalMS21 that the arena imitates. Constants only; nothing here is drawn or
fitted at run time.

Where they come from: bout lengths, transitions and sequence lengths were counted on the complete
Task 1 frame labels (70 train and 19 test sequences); shapes, distances and steps on some 1,980
windows of real poses. Frame counts are in ``readers/calms21/expected_counts.py``. Lengths are
frames at 30 frames/s, distances pixels of the 1024 x 570 image.
"""

from __future__ import annotations

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""Probabilities of the lengths below."""

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
``expected_counts.CLASSES``."""

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

SEQUENCES = {("1", "train"): 70, ("1", "test"): 19}
"""Sequences of Task 1; those of Tasks 2 and 3 were not published."""

UNLABELLED_VIDEOS = 282

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
"""Mean position of each keypoint in the frame of the body, x + iy: the neck is 0 and x runs from
tail base to neck."""
