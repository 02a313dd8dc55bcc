"""Label budgets in minutes: clips spread over videos, the same for all who draw with one seed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import finetune.run
from finetune.labels.clips import draw_minutes, labelled_minutes, parse_minutes
from finetune.labels.frame_labels import UNLABELLED, looked_at
from finetune.labels.hold_out import hold_out
from finetune.labels.problems import Problem
from finetune.metrics.bouts import bouts
from pretrain.errors import BadInput
from pretrain.runs import paths

FPS = 10.0


def whole(videos: int = 8, frames: int = 3_000) -> Problem:
    """Five minutes a video; of the first, half is unlabelled."""
    rng = np.random.default_rng(0)
    train = {
        f"v{n}": np.repeat(rng.integers(0, 3, frames // 30), 30).astype(np.int8)
        for n in range(videos)
    }
    train["v0"][: frames // 2] = UNLABELLED
    return Problem(
        name="t",
        task="t",
        classes=("a", "b", "other"),
        annotator="",
        overlapping=False,
        train=train,
        test={},
    )


@pytest.mark.parametrize(
    ("text", "minutes"), [("10min", 10), ("90s", 1.5), ("1.5h", 90), (" .5 min", 0.5)]
)
def test_times_are_read(text: str, minutes: float) -> None:
    assert parse_minutes(text) == pytest.approx(minutes)


@pytest.mark.parametrize("text", ["10", "0min", "-3min", "ten min", "3 days", "10minutes"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="such as 10min, 90s or"):
        parse_minutes(text)


def test_a_budget_is_spent_on_short_stretches_of_many_videos() -> None:
    asked = whole()
    (drawn,) = draw_minutes([asked], minutes=4, fps=FPS, seed=3)
    assert labelled_minutes(drawn.train, FPS) == 4
    assert len(drawn.train) == 8
    for video, labels in drawn.train.items():
        known = looked_at(labels)
        assert np.array_equal(labels[known], asked.train[video][known])
        lengths = [b - a for a, b, _ in bouts(np.where(known, 0, UNLABELLED)).tolist()]
        assert all(length % 170 == 0 or length < 170 for length in lengths)
    parts = hold_out([drawn], share=0.25, seed=0)
    ((fitted, held),) = parts
    assert len(held) == 2
    assert not held.keys() & fitted.train.keys()


def test_budgets_are_nested_and_alike_for_equal_problems() -> None:
    asked = whole()
    small, large, other = (
        draw_minutes([asked, replace(asked, name="u")], minutes=minutes, fps=FPS, seed=seed)
        for minutes, seed in ((2, 0), (5, 0), (2, 1))
    )
    for video, labels in small[0].train.items():
        assert np.array_equal(labels, small[1].train[video])
        assert not (looked_at(labels) & ~looked_at(large[0].train[video])).any()
    first, second = (
        {video: looked_at(labels).tobytes() for video, labels in drawn[0].train.items()}
        for drawn in (small, other)
    )
    assert first != second
    (every,) = draw_minutes([asked], minutes=1e4, fps=FPS, seed=0)
    assert labelled_minutes(every.train, FPS) == labelled_minutes(asked.train, FPS)


def test_a_parent_has_the_clips_of_its_children() -> None:
    parent = whole()
    child = replace(whole(videos=3), name="acts", refines=("t", "a"))
    acts, drawn = draw_minutes([child, parent], minutes=2, fps=FPS, seed=0)
    assert acts.train.keys() == drawn.train.keys()
    for video, labels in acts.train.items():
        both = looked_at(parent.train[video]) & looked_at(labels)
        assert np.array_equal(looked_at(drawn.train[video]), both)


def test_permuted_labels_are_permuted_before_they_are_cut() -> None:
    asked = whole()
    (true,), (permuted,) = (
        draw_minutes([asked], minutes=4, fps=FPS, seed=0, permute=permute)
        for permute in (False, True)
    )
    same = total = 0
    for video, labels in true.train.items():
        known = looked_at(labels)
        assert np.array_equal(looked_at(permuted.train[video]), known)
        same += int((permuted.train[video] == labels)[known].sum())
        total += int(known.sum())
    assert same < 0.5 * total


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_with_a_budget_says_so(ray_here: None, tmp_path: Path) -> None:
    words = ["--task", "classic_classification", "--data", paths.default_store()]
    words += ["--set", "head={name: logistic}", "--set", "postprocess_folds=0", "--trials", "1"]
    with pytest.raises(SystemExit):
        finetune.run.main([*words, "--budget", "1min", "--videos", "2"])
    out = tmp_path / "run"
    finetune.run.main([*words, "--seeds", "2", "--budget", "45s", "--out", str(out)])
    result = json.loads((out / "result.json").read_text())
    assert result["budget"] == {
        "videos": None,
        "minutes": 0.75,
        "clip_s": 17.0,
        "labelled_minutes": {seed: {"classic_classification": 0.75} for seed in ("42", "43")},
    }
    assert all(len(of["classic_classification"]) >= 3 for of in result["videos_drawn"].values())
