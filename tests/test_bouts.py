"""Bouts against hand-worked cases, a slow matcher, and the bout counts of CalMS21's own labels."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from finetune.labels.frame_labels import UNLABELLED
from finetune.metrics.bouts import bouts, match, score_bouts
from pretrain.errors import BadInput

MICE = ("attack", "investigation", "mount", "other")


def frames(*runs: tuple[int, int]) -> np.ndarray:
    """Labels from (class, length) pairs."""
    return np.repeat([c for c, _ in runs], [n for _, n in runs])


def greedy(
    true: list[tuple[int, int]], predicted: list[tuple[int, int]], threshold: float
) -> set[tuple[int, int]]:
    """The slow reference: take the best pair of those that reach the threshold until none is
    left."""

    def overlap(a: tuple[int, int], b: tuple[int, int]) -> float:
        shared = len(set(range(*a)) & set(range(*b)))
        return shared / len(set(range(*a)) | set(range(*b)))

    left_t, left_p, matched = set(range(len(true))), set(range(len(predicted))), set()
    while True:
        pairs = [(-overlap(true[t], predicted[p]), p, t) for t in left_t for p in left_p]
        pairs = [pair for pair in pairs if -pair[0] >= threshold and pair[0] < 0]
        if not pairs:
            return matched
        _, p, t = min(pairs)
        left_t.discard(t)
        left_p.discard(p)
        matched.add((t, p))


def test_cuts_a_video_into_bouts() -> None:
    labels = frames((3, 2), (0, 3), (UNLABELLED, 2), (0, 1), (1, 4))
    assert bouts(labels).tolist() == [[0, 2, 3], [2, 5, 0], [7, 8, 0], [8, 12, 1]]
    assert bouts(np.zeros(0, np.int8)).shape == (0, 3)
    assert bouts(np.full(4, UNLABELLED, np.int8)).shape == (0, 3)


def test_cuts_overlapping_behaviours_apart() -> None:
    labels = np.array([[1, 0], [1, 1], [0, 1], [UNLABELLED, 1], [1, 0]], np.int8)
    assert bouts(labels).tolist() == [[0, 2, 0], [1, 4, 1], [4, 5, 0]]


@pytest.mark.parametrize("seed", range(5))
def test_bouts_hold_every_labelled_frame_once(seed: int) -> None:
    labels = np.random.default_rng(seed).integers(-1, 3, 300)
    rebuilt = np.full(300, UNLABELLED)
    for start, stop, c in bouts(labels):
        assert (rebuilt[start:stop] == UNLABELLED).all()
        rebuilt[start:stop] = c
    assert np.array_equal(rebuilt, labels)


@pytest.mark.parametrize("seed", range(30))
def test_matching_equals_the_slow_greedy_matcher_at_every_threshold(seed: int) -> None:
    draw = np.random.default_rng(seed)
    true, predicted = (
        [
            (s, e)
            for s, e, c in bouts(
                np.repeat(draw.integers(0, 2, 25), draw.integers(1, 5, 25))
            ).tolist()
            if c == 1
        ]
        for _ in range(2)
    )
    pairs, overlap = match(
        true=np.array(true).reshape(-1, 2), predicted=np.array(predicted).reshape(-1, 2)
    )
    assert (overlap > 0).all()
    for threshold in (1e-9, 0.1, 0.25, 0.5, 1.0):
        assert {tuple(pair) for pair in pairs[overlap >= threshold].tolist()} == greedy(
            true, predicted, threshold
        )


def test_a_bout_cut_in_two_is_one_hit_and_one_false_bout() -> None:
    labels = frames((3, 10), (0, 20), (3, 10))
    chosen = frames((3, 10), (0, 12), (3, 2), (0, 6), (3, 10))
    scores = score_bouts(labels={"v": labels}, predicted={"v": chosen}, classes=MICE, fps=10)
    attack = scores.per_class["attack"]
    assert (attack.true_bouts, attack.predicted_bouts, attack.matched_bouts) == (1, 2, 1)
    assert attack.f1 == pytest.approx(
        {"0.1": 2 / 3, "0.25": 2 / 3, "0.5": 2 / 3}
    )  # the greater part covers 12 of 20 frames
    assert attack.precision["0.5"] == 0.5
    assert attack.recall["0.5"] == 1
    assert (attack.onset_median_frames, attack.offset_median_frames) == (0, -8)
    # 40 frames at 10 a second: a fifteenth of a minute
    assert attack.true_bouts_per_minute == pytest.approx(15)
    assert attack.predicted_bouts_per_minute == pytest.approx(30)
    strict = score_bouts(
        labels={"v": labels}, predicted={"v": chosen}, classes=MICE, fps=10, overlaps=(0.6, 0.61)
    )
    assert [strict.per_class["attack"].f1[k] for k in ("0.6", "0.61")] == pytest.approx([2 / 3, 0])


def test_flicker_costs_bouts_that_frames_do_not_show() -> None:
    labels = frames((3, 100), (0, 100))
    chosen = labels.copy()
    chosen[102:198:4] = 3
    scores = score_bouts(labels={"v": labels}, predicted={"v": chosen}, classes=MICE, fps=30)
    assert (chosen == labels).mean() > 0.85
    assert scores.macro_f1["0.1"] == 0


def test_onset_and_offset_errors_are_signed_in_frames() -> None:
    labels = frames((3, 50), (1, 40), (3, 50), (1, 40), (3, 50), (1, 40), (3, 50))
    late = frames(
        (3, 53), (1, 36), (3, 54), (1, 36), (3, 59), (1, 32), (3, 50)
    )  # onsets +3 +3 +8, offsets -1 -1 0
    scores = score_bouts(
        labels={"v": labels}, predicted={"v": late}, classes=MICE, fps=30
    ).per_class["investigation"]
    assert (scores.onset_median_frames, scores.offset_median_frames) == (3, -1)
    assert scores.onset_mean_abs_frames == pytest.approx(14 / 3)
    assert scores.offset_mean_abs_frames == pytest.approx(2 / 3)
    back = score_bouts(labels={"v": late}, predicted={"v": labels}, classes=MICE, fps=30).per_class[
        "investigation"
    ]
    assert (back.onset_median_frames, back.offset_median_frames) == (-3, 1)
    assert back.f1 == scores.f1


def test_errors_are_those_of_all_matches_not_of_good_ones_alone() -> None:
    labels, late = (
        frames((3, 20), (0, 20), (3, 20)),
        frames((3, 32), (0, 20), (3, 8)),
    )  # 8 frames of 32 in common
    scores = score_bouts(
        labels={"v": labels}, predicted={"v": late}, classes=MICE, fps=30
    ).per_class["attack"]
    assert scores.f1 == {"0.1": 1, "0.25": 1, "0.5": 0}
    assert (scores.matched_bouts, scores.onset_median_frames) == (1, 12)


def test_bouts_never_merge_across_videos() -> None:
    labels = {"a": frames((3, 10), (0, 10)), "b": frames((0, 10), (3, 10))}
    scores = score_bouts(labels=labels, predicted=labels, classes=MICE, fps=30)
    assert scores.per_class["attack"].true_bouts == 2
    assert scores.macro_f1["0.5"] == 1
    chosen = {"a": frames((3, 20)), "b": frames((0, 10), (3, 10))}
    assert (
        score_bouts(labels=labels, predicted=chosen, classes=MICE, fps=30)
        .per_class["attack"]
        .matched_bouts
        == 1
    )


def test_the_order_of_videos_does_not_matter() -> None:
    draw = np.random.default_rng(0)
    labels, chosen = ({k: np.repeat(draw.integers(0, 4, 40), 5) for k in "abc"} for _ in range(2))
    forward = score_bouts(labels=labels, predicted=chosen, classes=MICE, fps=30)
    assert (
        score_bouts(labels=dict(reversed(labels.items())), predicted=chosen, classes=MICE, fps=30)
        == forward
    )


def test_predictions_where_nobody_looked_do_not_count() -> None:
    labels = frames((UNLABELLED, 30), (0, 10), (3, 20))
    chosen = frames((1, 10), (0, 30), (3, 20))
    scores = score_bouts(labels={"v": labels}, predicted={"v": chosen}, classes=MICE, fps=30)
    assert scores.per_class["investigation"].predicted_bouts == 0
    assert scores.per_class["attack"].f1["0.5"] == 1
    assert scores.minutes == pytest.approx(30 / 30 / 60)


def test_overlapping_behaviours_are_scored_each_on_its_own() -> None:
    labels = {"v": np.stack([frames((0, 5), (1, 10), (0, 5)), frames((1, 20))], axis=1)}
    chosen = {"v": np.stack([frames((0, 5), (1, 10), (0, 5)), frames((0, 20))], axis=1)}
    scores = score_bouts(labels=labels, predicted=chosen, classes=("sniff", "groom"), fps=30)
    assert [scores.per_class[name].f1["0.5"] for name in ("sniff", "groom")] == [1, 0]
    assert scores.macro_f1["0.5"] == 0.5


def test_a_class_without_a_bout_leaves_the_mean_and_is_named() -> None:
    labels, chosen = {"v": frames((3, 10), (0, 10))}, {"v": frames((1, 10), (0, 10))}
    scores = score_bouts(labels=labels, predicted=chosen, classes=MICE, fps=30)
    assert math.isnan(scores.per_class["investigation"].f1["0.5"])
    assert scores.macro_f1["0.5"] == 1
    assert len(scores.notes) == 2
    assert (
        json.loads(json.dumps(scores.to_dict(), allow_nan=False))["per_class"]["mount"][
            "onset_median_frames"
        ]
        is None
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predicted": {"w": np.zeros(4, int)}}, "labelled videos are ['v']"),
        ({"predicted": {"v": np.zeros(3, int)}}, "v: predictions have shape (3,)"),
        ({"labels": {}, "predicted": {}}, "labelled videos are []"),
        ({"labels": {"v": np.full(4, UNLABELLED)}}, "none of the 4 frames"),
        ({"fps": 0.0}, "positive number"),
        ({"overlaps": (0.0,)}, "above 0"),
        ({"overlaps": ()}, "above 0"),
        ({"predicted": {"v": np.full(4, 9)}}, "outside 0…3"),
        (
            {
                "labels": {"v": np.zeros(4, int), "w": np.zeros((4, 4), int)},
                "predicted": {"v": np.zeros(4, int), "w": np.zeros((4, 4), int)},
            },
            "mixed",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused_in_words(change: dict[str, object], message: str) -> None:
    arguments = {
        "labels": {"v": np.array([0, 0, 3, 3])},
        "predicted": {"v": np.zeros(4, int)},
        "classes": MICE,
        "fps": 30.0,
    } | change
    with pytest.raises(BadInput) as refused:
        score_bouts(**arguments)  # type: ignore[arg-type]
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("split", "frames_in_all", "expected"), [("train", 507_738, 2_287), ("test", 262_107, 1_521)]
)
def test_calms21_has_the_bouts_that_others_counted(
    split: str, frames_in_all: int, expected: int, real_data: Path
) -> None:
    file = real_data / "calms21_labels" / f"mice_{split}_annotations.csv"
    rows = [
        row for row in csv.DictReader(file.read_text().splitlines()) if row["actor"] == "resident"
    ]
    index = {name: c for c, name in enumerate(MICE)} | {"none": 3}
    labels = {
        video: np.full(
            max(int(row["stop"]) for row in rows if row["group"] == video) + 1, UNLABELLED
        )
        for video in {row["group"] for row in rows}
    }
    for row in rows:
        labels[row["group"]][int(row["start"]) : int(row["stop"]) + 1] = index[row["category"]]
    scores = score_bouts(labels=labels, predicted=labels, classes=MICE, fps=30)
    assert scores.minutes == pytest.approx(frames_in_all / 30 / 60)
    assert sum(scores.per_class[name].true_bouts for name in scores.counted) == expected
    assert scores.macro_f1 == {"0.1": 1, "0.25": 1, "0.5": 1}
