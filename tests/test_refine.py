"""A label set that tells the kinds of a class of another one: fitted on frames of that class,
multiplied by its probability, and never shown what it is scored on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from recompute import recomputed
from test_fit import world
from worlds import wander_store

import finetune.run
from finetune.fit.fit import fit, score_problems
from finetune.fit.frames import Frames
from finetune.inference.model import as_tensors, open_model
from finetune.labels.frame_labels import UNLABELLED
from finetune.labels.problems import Problem
from finetune.labels.refine import (
    given_parent,
    times_parent,
    with_parent,
    with_videos_of_children,
    without_scored_frames,
)
from finetune.postprocess.cross_fit import cross_fit
from finetune.settings import Tuning
from pretrain.data.store_writer import StoreWriter
from pretrain.errors import BadInput
from pretrain.readers.annotations import Labels, write_labels

ACTS = ("base", "bite", "chase")
PARENT = Problem(
    name="S1",
    task="S1",
    classes=("social", "aggression"),
    annotator="",
    overlapping=False,
    train={},
    test={},
)
CHILD = replace(PARENT, name="S2", task="S2", classes=ACTS)


def family(videos: int = 6) -> tuple[Frames, Problem, Problem]:
    """Embeddings, an act of two in a third of the frames, and aggression in just those."""
    frames, shown = world(videos=videos, frames=400)
    acts = {name: labels.astype(np.int8) for name, labels in shown.items()}
    fights = {name: (labels > 0).astype(np.int8) for name, labels in acts.items()}
    test = list(acts)[-2:]

    def split(labels: dict[str, np.ndarray], problem: Problem) -> Problem:
        train = {name: frames for name, frames in labels.items() if name not in test}
        return replace(problem, train=train, test={name: labels[name] for name in test})

    return frames, split(acts, CHILD), split(fights, PARENT)


def both(children: list[Problem], parent: Problem, word: str = "S1:aggression") -> list[Problem]:
    return with_parent(children, word, lambda task: [parent])


def test_the_product_by_hand() -> None:
    child, parent = both(
        [replace(CHILD, train={"v": np.zeros(2, np.int8)})],
        replace(PARENT, train={"v": np.zeros(2, np.int8)}),
    )
    outputs = [
        np.array([[0.1, 0.6, 0.3], [0.0, 1.0, 0.0]]),
        np.array([[0.8, 0.2], [0.0, 1.0]]),
    ]
    product = times_parent([child, parent], outputs, 0)
    np.testing.assert_allclose(product, [[0.82, 0.12, 0.06], [0.0, 1.0, 0.0]])
    assert times_parent([child, parent], outputs, 1) is outputs[1]
    marks = replace(child, overlapping=True, classes=("bite", "chase"))
    several = [np.array([[0.5, 0.4], [1.0, 0.0]]), outputs[1]]
    np.testing.assert_allclose(times_parent([marks, parent], several, 0), [[0.1, 0.08], [1.0, 0.0]])


def test_a_child_is_fitted_on_frames_of_the_parent_class() -> None:
    acts = np.array([0, 1, 2, 0, 1, UNLABELLED], np.int8)
    fights = np.array([0, 1, 1, 1, 0, 1], np.int8)
    child, parent = both(
        [replace(CHILD, train={"v": acts, "other": acts})], replace(PARENT, train={"v": fights})
    )
    given, same = given_parent([child, parent])
    assert given.train["v"].tolist() == [-1, 1, 2, 0, -1, -1]
    assert given.train["other"].tolist() == [-1, 1, 2, -1, 1, -1], "no parent: frames with acts"
    assert same is parent
    assert acts.tolist() == [0, 1, 2, 0, 1, -1], "labels are shared and stay"


def test_what_a_child_is_scored_on_is_kept_from_the_parent() -> None:
    _, child, parent = family()
    child, parent = both([child], replace(parent, train={**parent.train, **child.test}, test={}))
    assert not set(parent.train) & set(child.test)
    half = child.train["v0"].copy()
    half[200:] = UNLABELLED
    scored = {"v0": child.train["v0"], "v1": child.train["v1"]}
    fitted = child.only(["v2"])
    fitted = replace(fitted, train={**fitted.train, "v0": half})
    _, apart = without_scored_frames([fitted, parent], [scored, {}])
    assert "v1" not in apart.train
    assert (apart.train["v0"][200:] == UNLABELLED).all()
    assert np.array_equal(apart.train["v0"][:200], parent.train["v0"][:200])
    assert np.array_equal(apart.train["v3"], parent.train["v3"])
    frames, *_ = family()
    tuning = Tuning(head={"name": "linear"}, steps=5, window=64, batch=4, postprocess_folds=2)
    held_out, of_parent = cross_fit(frames, [child, parent], tuning, None, seed=0, stop=5).held_out
    assert set(held_out.probabilities) == set(of_parent.probabilities) == set(child.train)


def test_a_budget_of_videos_counts_for_both() -> None:
    _, child, parent = family()
    whole = both([child], parent)
    drawn = with_videos_of_children([whole[0].only(["v1"]), whole[1]])
    assert [set(problem.train) for problem in drawn] == [{"v1"}, {"v1"}]
    with pytest.raises(BadInput, match="S1 is labelled on none of the videos drawn: v1"):
        with_videos_of_children([whole[0].only(["v1"]), whole[1].only(["v2"])])


def test_it_is_fitted_together_and_only_the_child_is_scored() -> None:
    frames, child, parent = family()
    asked = both([child], parent)
    tuning = Tuning(head={"name": "linear"}, steps=120, window=64, batch=8, lr=0.01)
    ((_, _, model),) = fit(frames, asked, tuning, embedder=None, seed=0, stops=[120])
    test = [problem.test for problem in asked]
    predicted = model.predict(frames, asked, test)
    assert predicted[1] == {}
    np.testing.assert_allclose(predicted[0]["v5"].sum(1), 1, rtol=1e-5)
    scores = score_problems(asked, predicted, test)
    assert scores.macro_f1 > 0.9
    assert scores.map > 0.97
    assert scores.counted == ("bite", "chase")


@pytest.mark.parametrize(
    ("word", "change", "complaint"),
    [
        ("aggression", {}, "give LABELSET:CLASS"),
        ("S1:fight", {}, "S1 has no class 'fight'; it has: social, aggression"),
        ("S1:aggression", {"train": {}}, "has no training video"),
        ("S1:aggression", {"task": "S2"}, "cannot refine itself"),
        ("S1:base", {"classes": ("base", "aggression")}, "is the rest class"),
    ],
)
def test_families_that_cannot_be_are_refused_in_words(
    word: str, change: dict[str, object], complaint: str
) -> None:
    _, child, parent = family()
    with pytest.raises(BadInput, match=complaint):
        both([child], replace(parent, **change), word)  # type: ignore[arg-type]


def test_without_a_rest_class_or_with_several_parents_it_is_refused() -> None:
    _, child, parent = family()
    with pytest.raises(BadInput, match="S2 has no rest class"):
        both([replace(child, classes=("a", "b", "c"))], parent)
    with pytest.raises(BadInput, match="has several problems"):
        with_parent([child], "S1:aggression", lambda task: [parent, replace(parent, name="x")])


@pytest.mark.ray
def test_a_run_is_scored_saved_and_predicts(ray_here: None, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    store = wander_store(tmp_path / "store", [240] * 6)
    labels = []
    for number, video in enumerate(store.videos):
        acts = np.repeat(draw.integers(3, size=12), 20).astype(np.int8)
        side = "test" if number > 3 else "train"
        for task, classes, shown in (
            ("S1", PARENT.classes, (acts > 0).astype(np.int8)),
            ("S2", ACTS, acts),
        ):
            labels.append(
                Labels(video=video["name"], task=task, classes=classes, frames=shown, split=side)
            )
    with StoreWriter(store.uri, store.schema, origin=store.origin, append=True) as writer:
        write_labels(writer, labels)
    out = tmp_path / "run"
    words = ["--encoder", "handmade", "--task", "S2", "--refines", "S1:aggression"]
    words += ["--data", store.uri, "--out", str(out), "--trials", "2", "--seeds", "1"]
    words += ["--set", "steps=4", "--set", "window=64", "--set", "postprocess_folds=2"]
    finetune.run.main([*words, "--videos", "3"])
    result = json.loads((out / "result.json").read_text())
    assert result["refines"] == "S1:aggression"
    assert set(result["per_class"]) == set(ACTS)
    assert recomputed(out / "predictions")["macro_f1"] == pytest.approx(result["macro_f1"])
    model = open_model(str(out))
    assert [problem.name for problem in model.problems] == ["S2", "S1"]
    assert model.problems[0].refines == ("S1", "aggression")
    video = store.read_video(store.videos[5]["name"])
    acts, fights = model.predict(
        as_tensors({"position": video.position_TMKX, "confidence": video.confidence_TMK})
    )
    (again,) = open_model(str(out), labels_of="S2").predict(
        as_tensors({"position": video.position_TMKX, "confidence": video.confidence_TMK})
    )
    assert np.array_equal(again.probabilities_TC, acts.probabilities_TC)
    assert acts.probabilities_TC.shape == (240, 3)
    assert fights.probabilities_TC.shape == (240, 2)
