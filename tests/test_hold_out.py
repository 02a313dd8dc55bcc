"""Problems that share recordings: what is held out of one is held out of all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from finetune.fit.fit import fit, score_problems
from finetune.fit.frames import Frames, recordings
from finetune.labels.folds import split_folds
from finetune.labels.frame_labels import UNLABELLED
from finetune.labels.hold_out import hold_out, in_training_and_test
from finetune.labels.problems import Problem
from finetune.settings import Tuning

CLASSES = ("attack", "mount", "other")
FRAMES, DIM = 24, 400


def noise(*, renamed: bool) -> tuple[Frames, list[Problem]]:
    """Two raters who agree on every frame of ten recordings, and labels that no frame explains.

    Args:
        renamed: Whether each rater's copy of a recording has a name of its own.
    """
    rng = np.random.default_rng(0)
    z = [rng.normal(size=(FRAMES, DIM)).astype(np.float32) for _ in range(10)]
    labels = [rng.integers(0, 3, FRAMES).astype(np.int8) for _ in z]
    raters = ("1", "2")
    names = [[f"r{r}-{n}" if renamed else f"v{n}" for n in range(10)] for r in raters]
    copies = {name: z[n] for of in names for n, name in enumerate(of)}
    spans = {name: (i * FRAMES, (i + 1) * FRAMES) for i, name in enumerate(copies)}
    frames = Frames(spans=spans, arrays={"z": np.concatenate(list(copies.values()))})
    problems = [
        Problem(
            name=f"annotator {rater}",
            task="t",
            classes=CLASSES,
            annotator=rater,
            overlapping=False,
            train=dict(zip(of, labels, strict=True)),
            test={},
        )
        for rater, of in zip(raters, names, strict=True)
    ]
    return frames, problems


def validation_f1(frames: Frames, parts: list[tuple[Problem, dict[str, np.ndarray]]]) -> float:
    head = {"name": "linear", "annotator": "embedding"}
    tuning = Tuning(head=head, steps=150, lr=0.01, window=FRAMES)
    inside, truth = [part for part, _ in parts], [labels for _, labels in parts]
    ((_, _, model),) = fit(frames, inside, tuning, embedder=None, seed=0, stops=[150])
    return score_problems(inside, model.predict(frames, inside, truth), truth).macro_f1


@pytest.mark.parametrize("renamed", [False, True])
def test_validation_on_noise_is_at_chance_where_raters_share_recordings(renamed: bool) -> None:
    frames, problems = noise(renamed=renamed)
    apart = [hold_out([p], share=0.3, seed=s)[0] for s, p in enumerate(problems)]
    assert validation_f1(frames, apart) > 0.6, "held out a problem at a time, the labels leak"
    together = hold_out(problems, share=0.3, seed=0, recording=recordings(frames))
    assert validation_f1(frames, together) < 0.45


@pytest.mark.parametrize("renamed", [False, True])
def test_no_fold_fits_on_a_recording_that_it_scores(renamed: bool) -> None:
    frames, problems = noise(renamed=renamed)
    problems[1] = problems[1].only(sorted(problems[1].train)[:4])
    recording = recordings(frames)
    for folds in (1, 3):
        for sides in split_folds(problems, folds=folds, share=0.3, seed=0, recording=recording):
            fitted = {recording(name) for part, _ in sides for name in part.train}
            assert all(part.train and held for part, held in sides)
            assert not fitted & {recording(name) for _, held in sides for name in held}


def test_a_recording_that_is_all_a_rater_has_is_cut_for_everybody() -> None:
    frames, (one, other) = noise(renamed=True)
    other = other.only(["r2-3"])
    parts = hold_out([one, other], share=0.25, seed=0, recording=recordings(frames))
    for part, held in parts:
        (name,) = {"r1-3", "r2-3"} & set(part.train)
        assert np.flatnonzero(part.train[name] != UNLABELLED).tolist() == list(range(18))
        assert np.flatnonzero(held[name] != UNLABELLED).tolist() == list(range(18, 24))
    assert len(parts[0][1]) == 3, "a quarter of ten recordings, and the part"


def test_recordings_in_training_and_test_are_named() -> None:
    frames, (one, other) = noise(renamed=True)
    halves = [
        replace(p, train=dict(list(p.train.items())[:6]), test=dict(list(p.train.items())[6:]))
        for p in (one, other)
    ]
    assert in_training_and_test(halves, recordings(frames)) == []
    halves[1] = replace(other, train={}, test=other.train)
    assert in_training_and_test(halves, recordings(frames)) == [f"r2-{n}" for n in range(6)]


@pytest.mark.parametrize("seed", range(4))
def test_a_rater_of_one_recording_gives_nothing_away_in_any_fold(seed: int) -> None:
    frames, problems = noise(renamed=True)
    problems = [problems[0], problems[1].only(["r2-3"])]
    recording = recordings(frames)
    for sides in split_folds(problems, folds=3, share=0.3, seed=seed, recording=recording):
        for part, _ in sides:
            for name, labels in part.train.items():
                fitted = labels != UNLABELLED
                for _, held in sides:
                    for other, truth in held.items():
                        if recording(other) == recording(name):
                            assert not (fitted & (truth != UNLABELLED)).any()
