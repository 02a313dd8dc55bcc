"""Postprocessing: learned on held-out videos alone, used only where it helps, read back as it
was."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import f1_score
from test_fit import problem, world

from finetune.fit.fit import fit
from finetune.fit.frames import Frames
from finetune.labels.folds import split_folds
from finetune.labels.frame_labels import UNLABELLED, decide
from finetune.labels.problems import Problem
from finetune.metrics.bouts import bouts
from finetune.metrics.frame_metrics import frame_f1
from finetune.postprocess.calibrations.temperature import Temperature
from finetune.postprocess.cross_fit import choose_postprocessing, cross_fit
from finetune.postprocess.decision_rules.prior_correction import BY_BOUTS
from finetune.postprocess.decision_rules.thresholds import Thresholds
from finetune.postprocess.held_out import HeldOutPredictions
from finetune.postprocess.learn import (
    NO_STEPS,
    LearnedPostprocessing,
    best_calibration,
    choose_steps,
)
from finetune.postprocess.one_standard_error import BLOCK, within_one_standard_error
from finetune.postprocess.postprocessing import Postprocessing
from finetune.postprocess.smoothers.moving import Moving
from finetune.settings import Tuning
from pretrain.errors import BadInput

CLASSES = ("attack", "mount", "other")
TUNING = Tuning(head={"name": "linear"}, steps=40, window=64, batch=8, lr=0.01, postprocess_folds=3)


def learned(
    frames: Frames, asked: Problem, tuning: Tuning, *, stop: int = 5
) -> LearnedPostprocessing:
    """What comes after the network, as a run learns it."""
    crossed = cross_fit(frames, [asked], tuning, None, seed=0, stop=stop)
    (one,) = choose_postprocessing([asked], crossed.held_out, tuning)
    return one


def unsure(
    *, videos: int = 6, frames: int = 1500, noise: float, seed: int = 0, doubled: float = 1.0
) -> tuple[Problem, HeldOutPredictions]:
    """Bouts of 25 frames, and the probabilities of a network that hears each frame's class through
    noise, ``doubled`` too sure of it."""
    draw = np.random.default_rng(seed)
    labels = {
        f"v{i}": np.repeat(draw.integers(3, size=frames // 25), 25).astype(np.int8)
        for i in range(videos)
    }
    found = {}
    for name, shown in labels.items():
        scores = 2 * np.eye(3)[shown] + draw.normal(0, noise, (frames, 3))
        exact = np.exp(2 * scores / noise**2 if noise else 20 * scores) ** doubled
        found[name] = (exact / exact.sum(1, keepdims=True)).astype(np.float32)
    asked = Problem(
        name="p", task="t", classes=CLASSES, annotator="", overlapping=False, train=labels, test={}
    )
    return asked, HeldOutPredictions(
        probabilities=found, labels=labels, fold={f"v{i}": i % 3 for i in range(videos)}, fps=25.0
    )


def test_smoothing_is_learned_where_neighbours_tell_more_and_helps_on_other_videos() -> None:
    asked, held_out = unsure(noise=2.0, doubled=3.0)
    found = choose_steps(asked, held_out)
    assert found.name != NO_STEPS
    assert found.postprocessing.smoother is not None
    assert isinstance(found.postprocessing.calibration, Temperature)
    assert found.postprocessing.calibration.temperature == pytest.approx(3, rel=0.05)
    assert found.notes == ()
    assert (found.videos, found.frames) == (6, 9000)
    fresh, new = unsure(noise=2.0, doubled=3.0, seed=1)

    def score(decided: dict[str, np.ndarray]) -> float:
        return frame_f1(labels=fresh.train, predicted=decided, classes=CLASSES)

    raw = score({name: decide(probabilities_TC=p) for name, p in new.probabilities.items()})
    tuned = score({name: found.postprocessing.decide(p) for name, p in new.probabilities.items()})
    assert tuned > raw + 0.1
    assert tuned == pytest.approx(found.scores[found.name]["macro_f1"], abs=0.05), (
        "scored on folds it was not fitted on"
    )


def test_where_nothing_helps_nothing_is_done() -> None:
    asked, held_out = unsure(noise=0.0, videos=12)
    found = choose_steps(asked, held_out, timid=True)
    assert found.name == NO_STEPS
    assert BY_BOUTS not in found.scores, "of every class enough bouts are labelled"
    assert found.postprocessing.decision_rule is None
    assert found.postprocessing.smoother is None


def test_where_bouts_are_few_what_helps_must_help_more_than_deciding_sooner() -> None:
    """A network that gives a behaviour of 32 bouts no more than 0.45 whenever it is shown."""
    draw = np.random.default_rng(0)
    labels = {f"v{i}": np.tile(np.repeat([2, 0], [110, 15]), 8).astype(np.int8) for i in range(4)}
    timid = {}
    for name, shown in labels.items():
        p = np.where(shown == 0, 0.43, 0.05) + draw.uniform(-0.02, 0.02, len(shown))
        timid[name] = np.stack([p, np.full(len(p), 0.001), 0.999 - p], 1).astype(np.float32)
    asked = replace(unsure(noise=0.0)[0], train=labels)
    held_out = HeldOutPredictions(
        probabilities=timid,
        labels=labels,
        fold={name: i for i, name in enumerate(labels)},
        fps=25.0,
    )
    found = choose_steps(asked, held_out, timid=True)
    assert found.scores[NO_STEPS]["macro_f1"] < 0.1
    assert found.scores[BY_BOUTS]["macro_f1"] > 0.4, "of two classes, one is never shown"
    assert found.name == BY_BOUTS, "nothing is better than what follows from the labels alone"
    assert BY_BOUTS not in choose_steps(asked, held_out).scores, "it is for timid heads"


def test_what_gains_by_chance_alone_is_not_used() -> None:
    """Exact posteriors of frames that tell nothing of their neighbours, all classes alike."""
    for seed in (3, 6, 9):
        asked, held_out = unsure(noise=2.0, videos=6, frames=50 * 25, seed=seed)
        draw = np.random.default_rng(seed)
        labels, probabilities = {}, {}
        for name, shown in held_out.labels.items():
            order = draw.permutation(len(shown))
            labels[name] = shown[order]
            probabilities[name] = held_out.probabilities[name][order]
        asked = replace(asked, classes=("attack", "mount", "rear"))
        found = choose_steps(asked, replace(held_out, labels=labels, probabilities=probabilities))
        f1 = {name: one["macro_f1"] for name, one in found.scores.items()}
        assert max(f1.values()) > f1[NO_STEPS]
        assert found.name == NO_STEPS, found.name


def test_steps_are_judged_on_videos_that_they_were_not_fitted_on() -> None:
    asked, held_out = unsure(noise=2.0, videos=2)
    one = choose_steps(asked, replace(held_out, fold=dict.fromkeys(held_out.fold, 0)))
    assert one.scores == choose_steps(asked, replace(held_out, fold={"v0": 0, "v1": 1})).scores
    assert any("learned on 2 videos" in note for note in one.notes)


def test_with_one_video_nothing_is_fitted_on_what_it_is_judged_on() -> None:
    asked, held_out = unsure(noise=2.0, videos=1)
    neutral = choose_steps(asked, held_out)
    assert (neutral.name, neutral.postprocessing) == (NO_STEPS, Postprocessing())
    one = choose_steps(asked, held_out, timid=True)
    labels, p = held_out.labels["v0"], held_out.probabilities["v0"]
    share = np.bincount(labels, minlength=3) / len(labels)
    number = np.bincount(bouts(labels)[:, 2], minlength=3)
    assert one.name == BY_BOUTS
    assert one.postprocessing.calibration is one.postprocessing.smoother is None
    sooner = p / share ** (0.5 * 30 / (30 + number))
    assert np.array_equal(one.postprocessing.decide(p), sooner.argmax(1))
    assert any("no two labelled training videos" in note for note in one.notes)
    lies = replace(held_out, probabilities={"v0": np.roll(p, 1, axis=1)})
    assert choose_steps(asked, lies, timid=True).postprocessing == one.postprocessing, (
        "of the labels alone"
    )
    frames, labels = world(videos=2, frames=200)
    single = problem(labels, test=()).only(["v0"])
    nothing = learned(frames, single, TUNING)
    assert nothing.postprocessing == Postprocessing()
    trees = replace(TUNING, head={"name": "stack", "members": [{"name": "boosted"}]})
    sooner_too = learned(frames, single, trees)
    assert sooner_too.name == BY_BOUTS
    assert sooner_too.notes == one.notes or "no two labelled" in sooner_too.notes[0]
    blank = {name: np.full_like(labels, UNLABELLED) for name, labels in held_out.labels.items()}
    assert choose_steps(asked, replace(held_out, labels=blank)).frames == 0


def test_a_calibration_that_makes_probabilities_worse_on_other_videos_is_left_out() -> None:
    """Two videos, on one of which the network is too sure and on the other not sure enough."""
    asked, sure = unsure(noise=2.0, videos=2, doubled=6.0)
    _, shy = unsure(noise=2.0, videos=2, doubled=0.5)
    mixed = {"v0": sure.probabilities["v0"], "v1": shy.probabilities["v1"]}
    assert best_calibration(asked, sure) is Temperature
    assert best_calibration(asked, replace(sure, probabilities=mixed)) is None


def test_steps_survive_json_and_damage_is_refused() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(3), 200)
    several = Postprocessing(
        calibration=Temperature(temperature=2.5),
        decision_rule=Thresholds(values=(1.0, 0.2, 0.7)),
        smoother=Moving(frames=5),
    )
    for after in (Postprocessing(), Postprocessing(overlapping=True), several):
        again = Postprocessing.from_dict(json.loads(json.dumps(after.to_dict())))
        assert again == after
        assert np.array_equal(again.decide(p), after.decide(p))
    for broken in (
        {},
        several.to_dict() | {"thresholds": several.to_dict()["temperature"]},
        several.to_dict() | {"smoother": {}},
    ):
        with pytest.raises(BadInput):
            Postprocessing.from_dict(broken)


def test_models_saved_before_are_read() -> None:
    saved = {
        "temperature": {"step": "Temperature", "temperature": 2.5, "overlapping": False},
        "thresholds": {"step": "Thresholds", "values": [1.0, 0.2, 0.7], "overlapping": False},
        "smoother": {"smoother": "Moving", "frames": 5, "kind": "mean", "overlapping": False},
        "overlapping": False,
    }
    steps = Postprocessing(
        calibration=Temperature(temperature=2.5),
        decision_rule=Thresholds(values=(1.0, 0.2, 0.7)),
        smoother=Moving(frames=5),
    )
    assert Postprocessing.from_dict(saved) == steps
    assert steps.to_dict() == {**saved, "context": None}


@pytest.mark.parametrize("good", [True, False])
def test_a_calibration_is_a_file_and_is_used_where_it_loses_less(
    good: bool, add_component: Callable[[str, str, str], None]
) -> None:
    """A network that is sure of the wrong one of two classes: no temperature helps, their exchange
    does."""
    add_component(
        "finetune.postprocess.calibrations",
        "exchange",
        f"""
from dataclasses import dataclass
from finetune.postprocess.calibrations import AbstractCalibration

@dataclass(frozen=True, kw_only=True)
class Exchange(AbstractCalibration):
    overlapping: bool = False

    @classmethod
    def fit(cls, *, probabilities_TC, labels, classes):
        return cls()

    def rescale(self, probabilities_TC):
        return probabilities_TC[:, {[1, 0, 2] if good else [0, 1, 2]}]
""",
    )
    asked, held_out = unsure(noise=1.0)
    exchanged = {name: p[:, [1, 0, 2]] for name, p in held_out.probabilities.items()}
    held_out = replace(held_out, probabilities=exchanged)
    kind = best_calibration(asked, held_out)
    assert kind is not None
    assert kind.__name__ == ("Exchange" if good else "Temperature")
    found = choose_steps(asked, held_out).postprocessing
    again = Postprocessing.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again == found
    f1 = frame_f1(
        labels=held_out.labels,
        predicted={name: again.decide(p) for name, p in exchanged.items()},
        classes=CLASSES,
    )
    assert (f1 > 0.9) == good


def test_the_standard_error_rule_agrees_with_resampling_frame_by_frame() -> None:
    draw = np.random.default_rng(0)
    labels = {"a": draw.integers(3, size=6 * BLOCK), "b": draw.integers(3, size=6 * BLOCK)}
    wrong = {
        share: {
            name: np.where(draw.random(len(values)) < share, (values + 1) % 3, values)
            for name, values in labels.items()
        }
        for share in (0.1, 0.102, 0.2)
    }
    decided = {"much worse": wrong[0.2], "the same": wrong[0.102], "good": wrong[0.1]}
    assert within_one_standard_error(labels=labels, decisions=decided, classes=CLASSES) == [
        "the same",
        "good",
    ]
    blocks = [
        np.concatenate([values[at : at + BLOCK] for values in (one["a"], one["b"])])
        for one in (labels, wrong[0.1], wrong[0.2])
        for at in range(0, 6 * BLOCK, BLOCK)
    ]
    truth, good, bad = (blocks[6 * i : 6 * i + 6] for i in range(3))
    gaps = []
    for _ in range(50):
        picked = draw.integers(6, size=6)
        true, first, second = (
            np.concatenate([part[i] for i in picked]) for part in (truth, good, bad)
        )
        gaps.append(
            np.mean(
                [f1_score(true == c, first == c) - f1_score(true == c, second == c) for c in (0, 1)]
            )
        )
    assert np.mean(gaps) > 5 * np.std(gaps), "the slow way sees the difference as well"
    flat = {"first": wrong[0.2], "second": wrong[0.2]}
    assert within_one_standard_error(
        labels={name: np.full_like(values, 2) for name, values in labels.items()},
        decisions=flat,
        classes=CLASSES,
    ) == list(flat)


def test_every_video_is_held_out_once_and_of_all_problems_at_the_same_time() -> None:
    _, labels = world(videos=6, frames=100)
    names = list(labels)
    first = problem(labels, test=(), name="first")
    second = replace(first.only(names[2:]), name="second")
    single = replace(first.only(names[:1]), name="single")
    nobody = replace(first, train={}, name="nobody")
    asked = [first, second, single, nobody]
    dealt = split_folds(asked, folds=3, share=0.25, seed=0)
    assert len(dealt) == 3
    for p, whole in ((0, first), (1, second)):
        assert sorted(name for sides in dealt for name in sides[p][1]) == sorted(whole.train)
    for sides in dealt:
        out = set(sides[0][1])
        assert set(sides[0][0].train) == set(names) - out
        assert set(sides[1][0].train) == set(names[2:]) - out
        assert not sides[3][0].train
        assert not sides[3][1]
        if names[0] in out:  # the only video of a problem keeps its first part for fitting
            fitted, scored = sides[2][0].train[names[0]], sides[2][1][names[0]]
            assert not ((fitted != UNLABELLED) & (scored != UNLABELLED)).any()
            assert (scored != UNLABELLED).any()
        else:
            assert set(sides[2][0].train) == {names[0]}
    assert len(split_folds([first], folds=9, share=0.25, seed=0)) == 6
    assert len(split_folds([first], folds=1, share=0.25, seed=0)) == 1


def test_rare_classes_stay_where_networks_are_fitted() -> None:
    labels = {f"v{i}": np.full(50, 2, np.int8) for i in range(6)}
    for name in ("v1", "v4"):
        labels[name][:10] = 0
    for seed in range(5):
        for sides in split_folds([problem(labels, test=())], folds=3, share=0.25, seed=seed):
            assert any((shown == 0).any() for shown in sides[0][0].train.values())


def test_held_out_predictions_come_from_networks_that_did_not_see_the_video() -> None:
    frames, labels = world(videos=6, frames=200)
    asked = problem(labels, test=())
    (found,) = cross_fit(frames, [asked], TUNING, None, seed=0, stop=5).held_out
    assert set(found.probabilities) == set(asked.train)
    fold = found.fold["v0"]
    inside = asked.only([name for name in asked.train if found.fold[name] != fold])
    ((_, _, model),) = fit(frames, [inside], TUNING, embedder=None, seed=0, stops=[5])
    assert np.array_equal(
        model.predict(frames, [asked], [["v0"]])[0]["v0"], found.probabilities["v0"]
    )


def test_a_handful_of_bouts_judges_no_step() -> None:
    asked, held_out = unsure(noise=2.0, videos=3, frames=250, doubled=3.0)
    found = choose_steps(asked, held_out)
    assert (found.name, found.scores) == (NO_STEPS, {})
    assert choose_steps(asked, held_out, timid=True).name == BY_BOUTS
    assert "too few to judge" in found.notes[0]
    assert found.postprocessing.smoother is None
    assert isinstance(found.postprocessing.calibration, Temperature)


def test_nothing_is_learned_from_test_labels() -> None:
    frames, labels = world(videos=6, frames=600, noise=2.0)
    asked = problem(labels)
    lies = replace(
        asked, test={name: (shown + 1).astype(np.int8) % 3 for name, shown in asked.test.items()}
    )
    one, other = (learned(frames, p, TUNING, stop=20).to_dict() for p in (asked, lies))
    assert one == other


def test_overlapping_behaviours_get_thresholds_of_their_own() -> None:
    draw = np.random.default_rng(0)
    labels = {f"v{i}": (draw.random((2000, 2)) < (0.3, 0.03)).astype(np.int8) for i in range(4)}
    shy = {
        name: np.clip(0.2 * shown + draw.normal(0.1, 0.03, shown.shape), 0.01, 0.99)
        for name, shown in labels.items()
    }
    asked = Problem(
        name="p",
        task="t",
        classes=("sniff", "groom"),
        annotator="",
        overlapping=True,
        train=labels,
        test={},
    )
    found = choose_steps(
        asked,
        HeldOutPredictions(
            probabilities=shy,
            labels=labels,
            fold={name: i for i, name in enumerate(labels)},
            fps=25.0,
        ),
    )
    assert found.postprocessing.decision_rule is not None
    decided = {name: found.postprocessing.decide(p) for name, p in shy.items()}
    assert frame_f1(labels=labels, predicted=decided, classes=asked.classes) > 0.95
    assert found.scores[NO_STEPS]["macro_f1"] < 0.7


@pytest.mark.parametrize("videos", [3, 4])
def test_chains_of_classes_need_more_videos_than_windows_do(videos: int) -> None:
    asked, held_out = unsure(noise=2.0, videos=videos, frames=2000)
    offered = choose_steps(asked, held_out).scores
    chains = [name for name in offered if "viterbi" in name or "forward-backward" in name]
    assert bool(chains) == (videos >= 4)
    assert any("median" in name for name in offered)
