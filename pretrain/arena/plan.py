"""Which recordings an arena has: names, lengths, seeds and what each is for. No frame is simulated
here."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pretrain.arena.noise import MISSING
from pretrain.arena.statistics import SEQUENCE_FRAMES, SEQUENCES, SEQUENCES_WITH, UNLABELLED_VIDEOS
from pretrain.arena.timeline import draw_lengths
from pretrain.errors import error_if, refuse
from pretrain.readers.calms21.expected_counts import (
    BEHAVIOR_FRAMES,
    BEHAVIORS,
    CLASS_FRAMES,
    CLASSIC,
    NEW_BEHAVIORS,
    STYLES,
)

SMALLEST_ARENA = 15_000
"""Below this the labelled recordings are too short to hold every class."""
TASK_SHARES = (0.18, 0.12, 0.13)
"""Tasks 1 to 3's of the frames of :func:`recordings`; the rest is unlabelled."""
SHORT_FRAMES = 3_000
"""A shorter recording shows both attack and mount; in longer ones a resident does one, both or
neither, as in CalMS21."""
MOST_OF_A_CLASS = 0.6


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One recording before it is simulated: everything about it follows from these fields."""

    name: str
    """Official style: task1/train/mouse001_task1_annotator1."""
    frames: int
    seed: int
    task: str = ""
    """Label set: classic_classification, annotation_style_transfer, new_behaviors; empty if nobody
    labelled it."""
    annotator: str = ""
    """Of Tasks 1 ("0") and 2 ("1" to "5")."""
    split: str = "train"
    """train or test; it also decides whose bout lengths and transitions rule."""
    behaviour: str = ""
    """Task 3: the one behaviour that is labelled."""
    attack: float = 0.0277
    """Share of frames with attack that these animals tend to; 0 = they never fight."""
    mount: float = 0.0564
    """The same for mount."""
    missing: float = MISSING
    """Share of points the tracker loses."""


def recordings(frames: int = 60_000, seed: int = 0) -> list[Recording]:
    """Plans an arena of so many frames: over half unlabelled, the rest shared out to Tasks 1 to 3,
    each with train and test. Another seed gives other animals.

    Every class is in train and test of every task, at least two bouts of it where they fit. In a
    small arena that makes rare actions more frequent than they are in CalMS21, and Tasks 2 and 3
    have only one or two recordings for each part.

    Raises:
        BadInput: If there are too few frames for every class, or ``seed`` is negative.
    """
    too_short = (
        f"{frames:,} frames are too few to hold every class of Tasks 1-3; ask for "
        f"{SMALLEST_ARENA:,} or more"
    )
    _refuse(error_if(frames < SMALLEST_ARENA, too_short), seed)
    task1, task2, task3 = (
        max(int(frames * share), need)
        for share, need in zip(TASK_SHARES, (2_400, 4_200, 3_200), strict=True)
    )
    rest = frames - task1 - task2 - task3
    plan = _unlabelled(rest, seed, max(2, min(4, rest // 3_000), round(rest / 21_000)))
    test = task1 // 3
    count = _count(task1 * 2 // 3, "train", most=8, shortest=400)
    plan += _task1(task1 - test, seed, "train", count)
    plan += _task1(test, seed, "test", _count(test, "test", most=4, shortest=400))
    for annotator, length in enumerate(_apportioned(np.ones(5), task2), start=1):
        for split, size, most in _halves(length):
            count = _count(size, split, most=most, shortest=350)
            plan += _task2(size, seed, str(annotator), split, count)
    # The rarer an action, the longer one must watch to see it twice.
    rarity = np.array(
        [(1 / min(_share(name, "train"), _share(name, "test"))) ** 0.5 for name in NEW_BEHAVIORS]
    )
    for name, length in zip(NEW_BEHAVIORS, _apportioned(rarity, task3), strict=True):
        for split, size, most in _halves(length):
            count = _count(size, split, most=most, shortest=180)
            plan += _task3(size, seed, name, split, count)
    return plan


def official_recordings(unlabelled_frames: int = 6_000_000, seed: int = 0) -> list[Recording]:
    """Plans an arena with the frame counts of CalMS21: Tasks 1 to 3 as published, 282 unlabelled
    videos in four parts (or none, with 0 unlabelled frames), no missing points.

    The numbers of sequences of Tasks 2 and 3 were not published; theirs are as long as those of
    Task 1.

    Raises:
        BadInput: If there are fewer unlabelled frames than videos, or ``seed`` is negative.
    """
    too_few = (
        f"{unlabelled_frames} unlabelled frames do not fill {UNLABELLED_VIDEOS} videos; ask "
        "for 0 or at least that many"
    )
    _refuse(error_if(0 < unlabelled_frames < UNLABELLED_VIDEOS, too_few), seed)
    plan: list[Recording] = []
    for (task, annotator, split), counts in CLASS_FRAMES.items():
        if task == CLASSIC:
            plan += _task1(sum(counts), seed, split, SEQUENCES[split])
        else:
            count = round(sum(counts) / _usual_length(split))
            plan += _task2(sum(counts), seed, annotator, split, count)
    for behaviour in NEW_BEHAVIORS:
        for split in ("train", "test"):
            total = BEHAVIOR_FRAMES[behaviour, split][1]
            count = max(1, round(total / _usual_length(split)))
            plan += _task3(total, seed, behaviour, split, count)
    if unlabelled_frames:
        plan += _unlabelled(unlabelled_frames, seed, UNLABELLED_VIDEOS)
    return [replace(recording, missing=0.0) for recording in plan]


def _halves(length: int) -> tuple[tuple[str, int, int], tuple[str, int, int]]:
    """Split, frames and the most recordings of both halves."""
    return ("train", length - length // 2, 2), ("test", length // 2, 1)


def _unlabelled(frames: int, seed: int, count: int) -> list[Recording]:
    return _recordings("unlabeled_videos", "unlabeled", count, frames, seed)


def _task1(frames: int, seed: int, split: str, count: int) -> list[Recording]:
    return _recordings(
        f"task1/{split}",
        "task1_annotator1",
        count,
        frames,
        seed,
        first=1 if split == "train" else SEQUENCES["train"] + 1,
        task=CLASSIC,
        annotator="0",
        split=split,
    )


def _task2(frames: int, seed: int, annotator: str, split: str, count: int) -> list[Recording]:
    folder, suffix = f"task2/annotator{annotator}/{split}", f"task2_annotator{annotator}"
    return _recordings(
        folder, suffix, count, frames, seed, task=STYLES, annotator=annotator, split=split
    )


def _task3(frames: int, seed: int, behaviour: str, split: str, count: int) -> list[Recording]:
    folder, suffix = f"task3/{behaviour}/{split}", f"task3_{behaviour}"
    plan = _recordings(
        folder, suffix, count, frames, seed, task=BEHAVIORS, split=split, behaviour=behaviour
    )
    if behaviour == "intromission":  # it is part of a mount, so there must be enough of those
        plan = [replace(each, mount=_share(behaviour, split) / 0.6) for each in plan]
    return plan


def _recordings(
    folder: str,
    suffix: str,
    count: int,
    frames: int,
    seed: int,
    *,
    first: int = 1,
    task: str = "",
    annotator: str = "",
    split: str = "train",
    behaviour: str = "",
) -> list[Recording]:
    names = [f"{folder}/mouse{number:03d}_{suffix}" for number in range(first, first + count)]
    rng = np.random.default_rng([seed, zlib.crc32(names[0].encode()), count, frames])
    lengths = _lengths(rng, frames, count, split)
    counts = CLASS_FRAMES.get((task, annotator, split), CLASS_FRAMES[CLASSIC, "0", split])
    # Which temper a real resident has decides what its recording shows; the class shares of all
    # together stay. Short recordings show both attack and mount if there are few of them, and
    # at least one bout.
    short = max(lengths) < SHORT_FRAMES
    order = rng.permutation(count)
    shares = {}
    for name, index in (("attack", 0), ("mount", 2)):
        having = max(1, round(SEQUENCES_WITH[split][name] / SEQUENCES[split] * count))
        if behaviour or (short and count <= 2):
            having = count
        elif short:
            having = round((0.5 if name == "attack" else 0.75) * count)
        chosen = order[:having] if name == "attack" else order[count - having :]
        weight = np.zeros(count)
        weight[chosen] = rng.lognormal(0.0, 0.5, having)
        scale = max(float(weight @ np.array(lengths)), 1e-9)
        share = weight * counts[index] / sum(counts) * frames / scale
        if short and not behaviour:
            share = np.where(weight > 0, np.maximum(share, 60 / np.array(lengths)), 0)
        shares[name] = np.clip(share, 0, MOST_OF_A_CLASS / 2 if short else MOST_OF_A_CLASS)
    return [
        Recording(
            name=name,
            frames=length,
            seed=_seed(seed, name),
            task=task,
            annotator=annotator,
            split=split,
            behaviour=behaviour,
            attack=round(float(attack), 4),
            mount=round(float(mount), 4),
        )
        for name, length, attack, mount in zip(
            names, lengths, shares["attack"], shares["mount"], strict=True
        )
    ]


def _lengths(rng: np.random.Generator, frames: int, count: int, split: str) -> list[int]:
    """Lengths that add up: as long as real ones if they may be, else of about one size."""
    drawn = draw_lengths(rng, SEQUENCE_FRAMES[split], count)
    if not 0.6 < frames / count / _usual_length(split) < 1.7:
        drawn = rng.uniform(0.85, 1.15, count)
    return _apportioned(drawn, frames)


def _apportioned(weights: npt.NDArray[np.float64], total: int) -> list[int]:
    """Whole numbers in proportion to the weights, at least 1 each, that add up to the total."""
    ends = np.rint(np.cumsum(weights) / weights.sum() * (total - len(weights))).astype(np.int64)
    return [int(size) + 1 for size in np.diff(ends, prepend=0)]


def _count(frames: int, split: str, *, most: int, shortest: int) -> int:
    """Into how many recordings to divide: real ones in length if that gives enough, else short
    ones."""
    return max(1, min(most, frames // shortest), round(frames / _usual_length(split)))


def _usual_length(split: str) -> float:
    return sum(CLASS_FRAMES[CLASSIC, "0", split]) / SEQUENCES[split]


def _share(behaviour: str, split: str) -> float:
    shown, frames = BEHAVIOR_FRAMES[behaviour, split]
    return shown / frames


def _seed(seed: int, name: str) -> int:
    return int(np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(1)[0])


def _refuse(errors: list[str], seed: int) -> None:
    refuse(
        errors + error_if(seed < 0, f"seed is {seed}; it must be at least 0"),
        about="the arena cannot be made",
    )
