"""Auto-context: trees that read probabilities around a frame, learned on held-out videos."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from test_postprocess import unsure

from finetune.labels.frame_labels import UNLABELLED, log_loss
from finetune.labels.problems import Problem
from finetune.metrics.frame_metrics import frame_f1
from finetune.postprocess.auto_context import AutoContext, context_harms, with_context
from finetune.postprocess.held_out import HeldOutPredictions
from finetune.postprocess.learn import NO_STEPS, choose_steps
from finetune.postprocess.postprocessing import Postprocessing


def pairs(*, videos: int, seed: int = 0) -> tuple[Problem, HeldOutPredictions]:
    """Two classes that look alike to the network, in phases that a third, which it knows well,
    announces: what lies 20 frames before tells which of the two it is."""
    draw = np.random.default_rng(seed)
    labels, found = {}, {}
    for i in range(videos):
        parts = []
        for first in draw.integers(2, size=25):
            parts += [2] * int(draw.integers(10, 14)) if first else [2] * int(draw.integers(30, 40))
            parts += [int(first)] * 25
        shown = np.array(parts, np.int8)
        p = np.full((len(shown), 3), 0.02)
        p[shown < 2, :2] = 0.48 + draw.normal(0, 0.03, (int((shown < 2).sum()), 2))
        p[shown == 2, 2] = 0.96
        labels[f"v{i}"] = shown
        found[f"v{i}"] = (p / p.sum(1, keepdims=True)).astype(np.float32)
    asked = replace(unsure(noise=0.0, videos=2)[0], train=labels)
    return asked, HeldOutPredictions(
        probabilities=found,
        labels=labels,
        fold={name: i % 3 for i, name in enumerate(labels)},
        fps=5.0,
    )


def test_what_lies_around_a_frame_tells_classes_apart_on_other_videos() -> None:
    asked, held_out = pairs(videos=12)
    found = choose_steps(asked, held_out, timid=True)
    assert found.name.startswith("auto-context")
    assert found.scores[NO_STEPS]["macro_f1"] < 0.6, "without any step"
    _, others = pairs(videos=4, seed=1)
    saved = json.loads(json.dumps(found.postprocessing.to_dict()))
    steps = Postprocessing.from_dict(saved)
    assert steps == found.postprocessing
    decided = {name: steps.decide(p) for name, p in others.probabilities.items()}
    named = {"classes": asked.classes, "rest": "other", "labels": others.labels}
    assert frame_f1(predicted=decided, **named) > 0.75
    plainly = {name: p.argmax(1) for name, p in others.probabilities.items()}
    assert frame_f1(predicted=plainly, **named) < 0.6


def test_no_fold_is_read_by_trees_of_its_own_labels() -> None:
    _, held_out = pairs(videos=12)
    around = with_context(held_out)
    exchanged = {
        name: 2 - values if held_out.fold[name] == 0 else values
        for name, values in held_out.labels.items()
    }
    again = with_context(replace(held_out, labels=exchanged))
    for name, fold in held_out.fold.items():
        same = np.array_equal(again.probabilities[name], around.probabilities[name])
        assert same == (fold == 0), name


@pytest.mark.parametrize(("videos", "timid"), [(9, True), (12, False)])
def test_few_videos_and_heads_that_are_not_timid_go_without(videos: int, timid: bool) -> None:
    asked, held_out = pairs(videos=videos)
    assert choose_steps(asked, held_out, timid=timid).postprocessing.context is None


def test_a_network_that_is_right_already_is_left_alone() -> None:
    asked, held_out = unsure(videos=12, noise=0.3)
    assert context_harms(held_out, with_context(held_out))
    assert choose_steps(asked, held_out, timid=True).postprocessing.context is None


def test_overlapping_behaviours_each_have_their_own_trees() -> None:
    _, held_out = pairs(videos=12)
    shown = {
        name: np.stack([values == 0, values == 2, np.zeros(len(values))], 1).astype(np.int8)
        for name, values in held_out.labels.items()
    }
    for values in shown.values():
        values[:50, 0] = UNLABELLED
    held_out = replace(held_out, labels=shown)
    step = AutoContext.fit(held_out)
    assert step.overlapping
    assert step.trees[2] == "", "never shown"
    before, after = (
        np.concatenate([each[name] for name in shown])
        for each in (held_out.probabilities, with_context(held_out).probabilities)
    )
    truth = np.concatenate(list(shown.values()))
    assert log_loss(after[:, :1], truth[:, :1]) < 0.9 * log_loss(before[:, :1], truth[:, :1])
    assert ((after >= 0) & (after <= 1)).all()


def test_frames_between_those_that_the_trees_read_are_interpolated() -> None:
    _, held_out = pairs(videos=10)
    dense = replace(
        held_out,
        probabilities={v: np.repeat(p, 6, axis=0) for v, p in held_out.probabilities.items()},
        labels={v: np.repeat(y, 6) for v, y in held_out.labels.items()},
        fps=30.0,
    )
    step = AutoContext.fit(dense)
    assert step.every == 6
    assert replace(step, every=1) == AutoContext.fit(held_out)
    p = dense.probabilities["v0"]
    assert step.apply(p).shape == p.shape
    np.testing.assert_allclose(step.apply(p).sum(1), 1, rtol=1e-5)
    nothing = np.zeros((0, 3), np.float32)
    assert step.apply(nothing).shape == nothing.shape
