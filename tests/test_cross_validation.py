"""Cross-validation over recordings: every label is scored once, by fits that never saw it, and the
model learns from all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import average_precision_score, f1_score
from test_hold_out import noise
from test_refine import family

import finetune.run
import finetune.search.final_fits
from finetune.fit.frames import recordings
from finetune.labels.folds import all_in_training, cross_validated_in_words, cross_validation
from finetune.labels.problems import Problem
from finetune.labels.refine import with_parent
from finetune.postprocess.learn import LearnedPostprocessing
from finetune.postprocess.postprocessing import Postprocessing
from finetune.postprocess.smoothers.moving import Moving
from pretrain.arena.plan import recordings as arena_recordings
from pretrain.arena.write import write_arena
from pretrain.data.store import Store
from pretrain.data.store_writer import StoreWriter
from pretrain.errors import BadInput
from pretrain.readers.annotations import Labels, labels_by_video, write_labels

TASK = "classic_classification"


# -- folds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("renamed", [False, True])
def test_every_label_is_on_test_once_and_its_recording_in_no_fit(renamed: bool) -> None:
    frames, problems = noise(renamed=renamed)
    recording = recordings(frames)
    folds = cross_validation(problems, folds=3, share=0.3, seed=0, recording=recording)
    assert len(folds) == 3
    for fold in folds:
        fitted = {recording(name) for problem in fold for name in problem.train}
        assert not fitted & {recording(name) for problem in fold for name in problem.test}
    for p, problem in enumerate(problems):
        tested = [name for fold in folds for name in fold[p].test]
        assert sorted(tested) == sorted(problem.train)


def test_folds_do_not_depend_on_the_encoder() -> None:
    frames, problems = noise(renamed=True)
    other = replace(frames, arrays={key: array * 2 + 1 for key, array in frames.arrays.items()})
    both = [
        cross_validation(problems, folds=3, share=0.3, seed=0, recording=recordings(each))
        for each in (frames, other)
    ]
    first, second = ([sorted(fold[0].test) for fold in folds] for folds in both)
    assert first == second


def test_more_folds_than_recordings_are_refused() -> None:
    frames, problems = noise(renamed=True)
    with pytest.raises(BadInput, match="--folds 11: there are 10 labelled recordings"):
        cross_validation(problems, folds=11, share=0.3, seed=0, recording=recordings(frames))


def test_a_parent_is_not_fitted_on_what_its_children_are_scored_on() -> None:
    frames, child, parent = family()
    children = all_in_training([child])
    (parent,) = all_in_training([parent])
    both = with_parent(children, "S1:aggression", lambda task: [parent])
    for fold in cross_validation(both, folds=3, share=0.3, seed=0, recording=recordings(frames)):
        acts, fights = fold
        assert len(acts.test) == 2
        assert not fights.test
        assert fights.train.keys() == acts.train.keys()
        assert not fights.train.keys() & acts.test.keys()


# -- runs ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arena") / "store"
    write_arena(str(folder), plan=arena_recordings(20_000, 0))
    return folder


def all_train(mice: Path, out: Path, change: Callable[[Labels], Labels] = lambda one: one) -> str:
    """The six training videos of Task 1 in a store of their own, none of them on test."""
    store = Store(mice)
    labels = [
        change(one)
        for of_video in labels_by_video(store).values()
        for one in of_video
        if one.task == TASK and one.split == "train"
    ]
    with StoreWriter(out, store.schema, origin="simulated mice") as writer:
        for one in labels:
            writer.add(store.read_video(one.video))
        write_labels(writer, labels)
    return str(out)


def run(store: str, out: Path, *words: str) -> dict[str, Any]:
    settings = ["--set", "head={name: logistic}", "--set", "trials=2", "--seeds", "1"]
    settings += ["--set", "search={head: [{name: logistic, ridge: [1.0, 30.0]}]}"]
    settings += ["--set", "search_from=2", "--set", "postprocess_folds=2"]
    finetune.run.main(["--task", TASK, "--data", store, "--out", str(out), *settings, *words])
    return dict(json.loads((out / "result.json").read_text()))


def test_a_store_without_test_videos_is_refused_with_the_way_out(
    mice: Path, tmp_path: Path
) -> None:
    store = all_train(mice, tmp_path / "store")
    with pytest.raises(BadInput, match=r"no test video .*--folds"):
        run(store, tmp_path / "run")
    with pytest.raises(BadInput, match="leave out --test-data"):
        run(store, tmp_path / "run", "--folds", "3", "--test-data", store)
    with pytest.raises(BadInput, match="at least 2 folds"):
        run(store, tmp_path / "run", "--folds", "1")
    assert not (tmp_path / "run").exists()


@pytest.mark.ray
@pytest.mark.slow
def test_scores_are_of_predictions_that_a_videos_own_labels_never_touch(
    ray_here: None, mice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what postprocessing decides is looked at in the second run
    words = ["--folds", "2", "--set", "postprocess_folds=0"]
    result = run(all_train(mice, tmp_path / "true"), tmp_path / "first", *words)
    folds = {fold: one["videos"][TASK] for fold, one in result["folds"].items()}
    assert sorted(name for videos in folds.values() for name in videos) == sorted(
        video["name"] for video in Store(tmp_path / "true").videos
    )
    table = pq.read_table(tmp_path / "first/predictions/seed-42.parquet").to_pandas()
    classes = [name[2:] for name in table.columns if name.startswith("p_")]
    chosen = np.array(classes)[table[[f"p_{name}" for name in classes]].to_numpy().argmax(1)]
    counted = [name for name in classes if name != "other"]
    f1 = [f1_score(table["label"] == name, chosen == name) for name in counted]
    ap = [average_precision_score(table["label"] == name, table[f"p_{name}"]) for name in counted]
    assert result["macro_f1"] == pytest.approx(np.mean(f1), abs=1e-6)
    assert result["map"] == pytest.approx(np.mean(ap), abs=1e-6)
    assert result["macro_f1"] > 0.3
    for name in ("confusion.png", "ethogram.png", "model/seed-42/head.json"):
        assert (tmp_path / "first" / name).stat().st_size > 100
    assert any("the saved model learned from all labels" in note for note in result["notes"])

    # Other labels of one fold change what is predicted for the others, and nothing for itself.
    def rolled(one: Labels) -> Labels:
        return replace(one, frames=np.roll(one.frames, 150)) if one.video in folds["2"] else one

    def by_number(problems: list[Problem], **others: object) -> list[LearnedPostprocessing]:
        """Another smoother where all six videos are in training."""
        frames = 301 if len(problems[0].train) == 6 else 31
        steps = Postprocessing(smoother=Moving(frames=frames))
        return [
            LearnedPostprocessing(postprocessing=steps, name="x", scores={}, videos=1, frames=1)
        ]

    monkeypatch.setattr(finetune.search.final_fits, "choose_postprocessing", by_number)
    store = all_train(mice, tmp_path / "changed", rolled)
    again = run(store, tmp_path / "second", "--folds", "2")
    assert {fold: one["videos"][TASK] for fold, one in again["folds"].items()} == folds
    assert again["folds"]["2"]["search"] == result["folds"]["2"]["search"]
    other = pq.read_table(tmp_path / "second/predictions/seed-42.parquet").to_pandas()
    inside = table["video"].isin(folds["2"]).to_numpy()
    predicted = [f"p_{name}" for name in classes]
    assert table[inside][predicted].equals(other[inside][predicted])
    assert not table[~inside][predicted].equals(other[~inside][predicted])
    for _, rows in other.groupby("video"):
        decided = Postprocessing(smoother=Moving(frames=31)).decide(rows[predicted].to_numpy())
        assert rows["decided"].tolist() == [classes[c] for c in decided]


def test_it_says_what_saw_the_poses_of_the_fold() -> None:
    assert "standardised on the poses" in cross_validated_in_words(3, pretrained=False)
    assert "standardised" not in cross_validated_in_words(3, pretrained=True)
