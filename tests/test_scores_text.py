"""``scores.txt``: what postprocessing did or did not do, and the notes without which a number is
misread."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from test_postprocess import unsure

from finetune.fit.fit import score_problems
from finetune.fit.frames import Frames
from finetune.metrics.frame_metrics import frame_f1, over_seeds
from finetune.postprocess.held_out import HeldOutPredictions
from finetune.postprocess.learn import choose_steps
from finetune.report.extended_scores import extended_scores
from finetune.report.scores_text import scores_text

CLASSES = ("attack", "mount", "other")


def result_of(
    train: HeldOutPredictions, *, seeds: int = 2, timid: bool = False
) -> tuple[str, dict[str, Any]]:
    """The text and result.json's entries of a run whose test videos are others of the same kind."""
    asked, held_out = unsure(noise=2.0, seed=9)
    asked = replace(asked, train=train.labels, test=held_out.labels)
    learned = {seed: [choose_steps(asked, train, timid=timid)] for seed in range(seeds)}
    probabilities = {seed: [held_out.probabilities] for seed in range(seeds)}
    budgets = {seed: [asked] for seed in range(seeds)}
    frames = Frames(spans={}, arrays={})
    more, decided = extended_scores(budgets, probabilities, learned, frames, fps=30)
    by_seed = {seed: score_problems([asked], probabilities[seed], [asked.test]) for seed in budgets}
    assert set(decided) == set(budgets)
    return scores_text(over_seeds(by_seed), more), more


def test_what_helped_is_named_with_f1_and_the_map_of_its_scores() -> None:
    _, train = unsure(noise=2.0)
    text, more = result_of(train)
    name = more["after"]["learned"][0]["p"]["name"]
    assert f"after postprocessing (chosen on held-out training videos: {name}): macro F1" in text
    assert "bouts after postprocessing" in text
    steps = choose_steps(unsure(noise=2.0)[0], train).postprocessing
    asked, new = unsure(noise=2.0, seed=9)
    chosen = {video: steps.decide(p) for video, p in new.probabilities.items()}
    assert more["after"]["macro_f1"] == pytest.approx(
        frame_f1(labels=new.labels, predicted=chosen, classes=CLASSES)
    )
    smoothed = {video: steps.scores(p) for video, p in new.probabilities.items()}
    expected = score_problems([asked], [smoothed], [new.labels])
    assert more["after"]["map"] == pytest.approx(expected.map)
    raw = score_problems([asked], [new.probabilities], [new.labels])
    assert more["after"]["map"] > raw.map + 0.05


def test_with_one_labelled_video_the_text_says_that_nothing_was_fitted() -> None:
    _, train = unsure(noise=2.0, videos=1)
    neutral, _ = result_of(train)
    assert "postprocessing: none, for none helped" in neutral
    text, more = result_of(train, timid=True)
    assert "after postprocessing (not judged: prior correction where bouts are few)" in text
    assert "note: p: no two labelled training videos were held out" in text
    assert "after calibration" not in text
    asked, new = unsure(noise=2.0, seed=9)
    steps = choose_steps(replace(asked, train=train.labels), train, timid=True).postprocessing
    sooner = {video: steps.decide(p) for video, p in new.probabilities.items()}
    assert more["after"]["macro_f1"] == pytest.approx(
        frame_f1(labels=new.labels, predicted=sooner, classes=CLASSES)
    )
    assert np.isclose(more["after"]["calibration_error"], more["calibration_error"])


def test_seeds_may_choose_differently() -> None:
    text, more = result_of(unsure(noise=2.0)[1], seeds=3)
    after = more["after"]
    after["learned"][2]["p"]["name"] = "thresholds"
    name = after["learned"][0]["p"]["name"]
    asked, new = unsure(noise=2.0, seed=9)
    scores = over_seeds({0: score_problems([asked], [new.probabilities], [new.labels])})
    assert f"{name} (2 of 3); thresholds (1 of 3)" in scores_text(scores, more)
    assert "(2 of 3)" not in text
