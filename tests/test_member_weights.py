"""What the members of a stack count is learned on videos that they were not fitted on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from test_fit import problem, world

from finetune.heads import LabelledVideo, build_head
from finetune.heads.stack import Stack
from finetune.postprocess.cross_fit import cross_fit
from finetune.postprocess.member_weights import MOST_WEIGHTS, _weights, learn_weights
from finetune.search.final_fits import FinalFit, run_fits
from finetune.search.space import only_choice
from finetune.settings import TASKS, Tuning
from pretrain.config import SCALES, Scale, read
from pretrain.errors import BadInput

HEAD: dict[str, Any] = {
    "name": "stack",
    "members": [
        {"name": "logistic", "ridge": 0.003},
        {"name": "boosted", "trees": 1, "seeds": 1, "time": False},
    ],
    "weights": [0.5, 0.5],
    "cross_fitted": True,
    "hz": 30.0,
}
TUNING = Tuning(head=HEAD)


def member_that_knows(right: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Probabilities of a member that knows the class of so many frames and guesses the others."""
    draw = np.random.default_rng(seed)
    shown = np.where(draw.random(len(right)) < share, right, draw.integers(3, size=len(right)))
    p_TC = np.full((len(right), 3), 0.1, np.float32)
    p_TC[np.arange(len(right)), shown] = 0.8
    return p_TC


def test_weights_are_all_those_of_a_grid_and_not_too_many() -> None:
    two = list(_weights(2))
    assert len(two) == 11
    assert (0.3, 0.7) in [tuple(np.round(one, 6)) for one in two]
    for members in range(1, 12):
        grid = np.array(list(_weights(members)))
        assert len(grid) == len(np.unique(grid, axis=0)) <= MOST_WEIGHTS
        assert np.allclose(grid.sum(1), 1)
        assert (grid >= 0).all()
        assert all((grid == unit).all(1).any() for unit in np.eye(members)), "each alone"


def test_the_member_that_is_right_counts_and_equals_count_alike() -> None:
    _, labels = world(videos=2, frames=3000)
    asked = problem(labels, test=())
    known, guessed = (
        {
            v: [member_that_knows(y, share, seed=9 * i + k)]
            for k, (v, y) in enumerate(labels.items())
        }
        for i, share in enumerate((0.9, 0.05))
    )
    alike = [0.5, 0.5]
    right = learn_weights([asked], [guessed, known], [labels], given=alike)
    assert right[1] > 0.65
    assert sum(right) == pytest.approx(1, abs=0.002)
    for given in (alike, [0.2, 0.8]):
        assert learn_weights([asked], [known, known], [labels], given=given) == given
    _, few = world(videos=4, frames=400)
    one, other = ({v: [member_that_knows(y, 0.6, seed)] for v, y in few.items()} for seed in (1, 2))
    assert learn_weights([asked], [one, other], [few], given=alike) == alike, "may be chance"


def test_labels_of_a_parent_do_not_count() -> None:
    _, labels = world(videos=1, frames=3000)
    y = labels["v0"]
    parent = replace(problem(labels, test=()), name="P", task="P")
    child = replace(
        parent, name="K", task="K", classes=("other", "b", "c"), refines=("P", parent.classes[1])
    )
    for_child, for_parent = member_that_knows(y, 0.9, 0), member_that_knows(y, 0.05, 1)
    one = {"v0": [for_child, for_parent]}
    other = {"v0": [member_that_knows(y, 0.05, 2), member_that_knows(y, 0.9, 3)]}
    of_child, of_both = (
        learn_weights([child, parent], [one, other], [{"v0": y}, parents], given=[0.5, 0.5])
        for parents in ({}, {"v0": y})
    )
    assert of_child == of_both != [0.5, 0.5]


def test_a_cross_fit_weighs_by_predictions_of_its_folds_alone() -> None:
    frames, labels = world(videos=8, frames=1000, noise=1.5)
    asked = problem(labels)
    lies = replace(asked, test={v: (y + 1) % 3 for v, y in asked.test.items()})
    one, other = (cross_fit(frames, [p], TUNING, None, seed=0, stop=5) for p in (asked, lies))
    assert one.weights is not None
    assert one.weights == other.weights, "test labels are not looked at"
    assert set(one.held_out[0].probabilities) == set(asked.train)
    as_given = replace(TUNING, head={**HEAD, "cross_fitted": False})
    plain = cross_fit(frames, [asked], as_given, None, seed=0, stop=5)
    assert plain.weights is None
    given = replace(TUNING, head={**HEAD, "cross_fitted": False, "weights": one.weights})
    by_hand = cross_fit(frames, [asked], given, None, seed=0, stop=5)
    for video, p in one.held_out[0].probabilities.items():
        assert np.allclose(p, by_hand.held_out[0].probabilities[video], atol=1e-5)
    assert cross_fit(frames, [asked.only(["v0"])], TUNING, None, seed=0, stop=5).weights is None


@pytest.mark.ray
def test_the_model_that_is_saved_has_the_weights_and_says_what_was_scored(ray_here: None) -> None:
    import ray

    frames, labels = world(videos=8, frames=1000, noise=1.5)
    asked = problem(labels)
    scale = read(Scale, "laptop", SCALES, {})
    fits = {
        (42, None): FinalFit(problems=[asked], tuning=TUNING, steps=1),
        (43, None): FinalFit(problems=[asked], tuning=TUNING, steps=1),
        (44, None): FinalFit(
            problems=[asked], tuning=replace(TUNING, postprocess_folds=0), steps=1
        ),
    }
    fitted = run_fits(ray.put(frames), frames, fits, embedder=None, scale=scale)
    learned = cross_fit(frames, [asked], TUNING, None, seed=42, stop=1).weights
    for seed, weights in ((42, learned), (43, learned), (44, [0.5, 0.5])):
        one = fitted[seed, None]
        assert one.tuning.head["weights"] == weights
        assert isinstance(one.model.head, Stack)
        assert one.model.head.weights == weights
        rebuilt = build_head(one.tuning.head, 8, [3])
        assert isinstance(rebuilt, Stack)
        assert np.allclose(rebuilt.weights, weights, atol=1e-3)
        again = one.model.predict(frames, [asked], [asked.test])[0]
        for video, p in one.probabilities[0].items():
            assert np.allclose(p, again[video], atol=1e-5)
    assert learned != [0.5, 0.5]


def test_a_grid_of_one_combination_needs_no_trial() -> None:
    default = read(Tuning, "default", TASKS, {})
    choice = only_choice(default)
    assert choice is not None
    assert choice["head"]["weights"] == [0.5, 0.2, 0.3]
    assert [one["name"] for one in choice["head"]["members"]] == [
        "boosted",
        "logistic",
        "recurrent",
    ]
    assert default.with_choice(choice).head == choice["head"]
    searched = replace(default, search={"lr": [0.1, 0.2]})
    assert only_choice(searched) is None
    assert only_choice(replace(default, searcher="random")) is None
    assert only_choice(replace(default, search={})) is None


def test_other_weights_count_where_many_frames_are_labelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {**HEAD, "cross_fitted": False, "weights_for_many_labels": [1, 3]}
    z_TD = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    shown_TC = (z_TD[:, :1] > 0) == torch.tensor([True, False])
    video = LabelledVideo(z_TD, shown_TC.to(torch.int8))
    monkeypatch.setattr("finetune.heads.MANY_FRAMES", 400)
    for videos, weights in (([video], [0.5, 0.5]), ([video, video], [0.25, 0.75])):
        head = build_head(settings, 4, [2])
        head.fit_videos(0, videos, overlapping=False, seed=0)
        assert isinstance(head, Stack)
        assert head.weights == weights
    with pytest.raises(BadInput, match="choose one"):
        build_head({**settings, "cross_fitted": True}, 4, [2])
    with pytest.raises(BadInput, match=r"\[1, 1, 1\] for 2 members"):
        build_head({**settings, "weights_for_many_labels": [1, 1, 1]}, 4, [2])


@pytest.mark.ray
def test_the_model_that_is_saved_has_the_weights_of_many_frames(ray_here: None) -> None:
    import ray

    frames, labels = world(videos=8, frames=4000, noise=1.5)
    asked = problem(labels)
    head = {**HEAD, "cross_fitted": False, "weights_for_many_labels": [1, 3]}
    tuning = replace(TUNING, head=head, postprocess_folds=0)
    scale = read(Scale, "laptop", SCALES, {})
    fits = {(42, None): FinalFit(problems=[asked], tuning=tuning, steps=1)}
    saved = run_fits(ray.put(frames), frames, fits, embedder=None, scale=scale)[42, None]
    rebuilt = build_head(saved.tuning.head, 8, [3])
    assert isinstance(rebuilt, Stack)
    assert rebuilt.weights == [0.25, 0.75]
