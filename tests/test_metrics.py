"""Frame scores against hand-worked cases, scikit-learn, and the figures published for CalMS21."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics as reference

from finetune.labels.frame_labels import UNLABELLED, decide, rest_class
from finetune.metrics.frame_metrics import (
    ClassScores,
    Scores,
    frame_f1,
    mean_over_problems,
    over_seeds,
    score,
)
from pretrain.errors import BadInput
from pretrain.readers import annotations

MICE = ("attack", "investigation", "mount", "other")


def random_problem(
    seed: int, *, frames: int = 500, classes: int = 4
) -> tuple[np.ndarray, np.ndarray]:
    """Coarsely rounded probabilities, so that many are tied."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, frames)
    p = draw.random((frames, classes)) + np.eye(classes)[labels] * 0.3
    return np.round(p / p.sum(axis=1, keepdims=True), 1), labels


def one_score(f1: float, ap: float, *, name: str = "attack", frames: int = 10) -> Scores:
    scores = ClassScores(
        f1=f1,
        ap=ap,
        precision=f1,
        recall=f1,
        prevalence=0.1,
        frames=frames,
        predicted_frames=frames,
    )
    return Scores(
        classes=("other", name),
        counted=(name,),
        macro_f1=f1,
        map=ap,
        chance_map=0.1,
        per_class={"other": scores, name: scores},
        frames=100,
    )


def slow_ap(truth: np.ndarray, scores: np.ndarray) -> float:
    """Sum over distinct thresholds of the gain in recall times the precision there."""
    total, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        chosen = scores >= threshold
        recall = (chosen & truth).sum() / truth.sum()
        total += (recall - recall_before) * (chosen & truth).sum() / chosen.sum()
        recall_before = recall
    return total


def test_a_hand_worked_case() -> None:
    #        truth    a    a    i    i    m    o    o    o
    #        chosen   a    o    i    a    m    o    o    i
    labels = np.array([0, 0, 1, 1, 2, 3, 3, 3])
    p = np.array(
        [
            [0.7, 0.1, 0.1, 0.1],
            [0.3, 0.1, 0.1, 0.5],
            [0.1, 0.6, 0.1, 0.2],
            [0.5, 0.4, 0.05, 0.05],
            [0.1, 0.1, 0.7, 0.1],
            [0.2, 0.1, 0.1, 0.6],
            [0.0, 0.1, 0.2, 0.7],
            [0.1, 0.5, 0.1, 0.3],
        ]
    )
    scores = score(probabilities_TC=p, labels=labels, classes=MICE)
    attack, investigation, mount, other = (scores.per_class[name] for name in MICE)
    assert (attack.precision, attack.recall, attack.f1) == (0.5, 0.5, 0.5)
    assert attack.ap == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)  # ranked: right, wrong, right
    assert investigation.f1 == 0.5
    assert investigation.ap == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert mount.f1 == mount.ap == 1
    assert other.f1 == pytest.approx(2 / 3)
    assert (attack.prevalence, attack.frames, attack.predicted_frames) == (0.25, 2, 2)
    assert scores.macro_f1 == pytest.approx(2 / 3)
    assert scores.map == pytest.approx((5 / 6 + 5 / 6 + 1) / 3)
    assert scores.chance_map == pytest.approx((0.25 + 0.25 + 0.125) / 3)
    assert scores.confusion is not None
    assert scores.confusion.tolist() == [[1, 0, 0, 1], [1, 1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 2]]
    assert scores.notes == ()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_agrees_with_scikit_learn(seed: int, dtype: type) -> None:
    p, labels = random_problem(seed)
    p, chosen = p.astype(dtype), p.argmax(axis=1)
    scores = score(probabilities_TC=p, labels=labels, classes=MICE)
    precision, recall, f1, support = reference.precision_recall_fscore_support(labels, chosen)
    per_class = [scores.per_class[name] for name in MICE]
    np.testing.assert_allclose([one.f1 for one in per_class], f1, atol=1e-12)
    np.testing.assert_allclose([one.precision for one in per_class], precision, atol=1e-12)
    np.testing.assert_allclose([one.recall for one in per_class], recall, atol=1e-12)
    assert [one.frames for one in per_class] == support.tolist()
    assert np.array_equal(scores.confusion, reference.confusion_matrix(labels, chosen))
    for c, one in enumerate(per_class):
        assert one.ap == pytest.approx(
            reference.average_precision_score(labels == c, p[:, c]), abs=1e-12
        )
        assert one.ap == pytest.approx(slow_ap(labels == c, p[:, c]), abs=1e-12)
    assert scores.macro_f1 == pytest.approx(f1[:3].mean(), abs=1e-12)
    assert frame_f1(labels=labels, predicted=chosen, classes=MICE) == pytest.approx(
        scores.macro_f1, abs=1e-12
    )


def test_overlapping_behaviours_agree_with_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    labels, p = draw.integers(0, 2, (400, 3)), np.round(draw.random((400, 3)), 1)
    scores = score(probabilities_TC=p, labels=labels, classes=("sniff", "groom", "chase"))
    f1 = reference.f1_score(labels, p > 0.5, average=None)
    assert [one.f1 for one in scores.per_class.values()] == pytest.approx(f1.tolist(), abs=1e-12)
    ap = reference.average_precision_score(labels, p, average=None)
    assert [one.ap for one in scores.per_class.values()] == pytest.approx(ap.tolist(), abs=1e-12)
    assert np.array_equal(scores.confusion, reference.multilabel_confusion_matrix(labels, p > 0.5))
    assert scores.macro_f1 == pytest.approx(f1.mean())


def test_each_overlapping_behaviour_is_scored_on_its_own_labelled_frames() -> None:
    labels, p = (
        np.array([[1, UNLABELLED], [0, 1], [UNLABELLED, 0]]),
        np.array([[0.9, 0.9], [0.1, 0.8], [0.9, 0.1]]),
    )
    scores = score(probabilities_TC=p, labels=labels, classes=("sniff", "groom"))
    assert scores.macro_f1 == scores.map == 1
    assert [one.prevalence for one in scores.per_class.values()] == [0.5, 0.5]
    assert scores.frames == 3


def test_the_rest_class_counts_in_the_argmax_but_not_in_the_mean() -> None:
    labels = np.array([0, 0, 1, 1])
    p = np.array([[0.4, 0.6], [0.9, 0.1], [0.2, 0.8], [0.2, 0.8]])
    names = score(probabilities_TC=p, labels=labels, classes=("attack", "Other"))
    assert names.counted == ("attack",)
    assert names.macro_f1 == pytest.approx(2 / 3)  # the frame that went to the rest is a miss
    everything = score(probabilities_TC=p, labels=labels, classes=("attack", "Other"), rest="")
    assert everything.macro_f1 == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert score(
        probabilities_TC=p, labels=labels, classes=("attack", "Other"), rest="attack"
    ).macro_f1 == pytest.approx(4 / 5)


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (MICE, "other"),
        (("base", "chase"), "base"),
        (("Background", "x"), "Background"),
        (("a", "b"), None),
        (("other", "none", "x"), "none"),
    ],
)
def test_the_rest_class_is_found_by_name(classes: tuple[str, ...], expected: str | None) -> None:
    assert rest_class(classes=classes) == expected


def test_a_binary_problem_is_scored_on_its_positive_class_above_one_half() -> None:
    labels, positive = np.array([1, 1, 0, 0, 1]), np.array([0.9, 0.5, 0.5, 0.2, 0.51])
    scores = score(
        probabilities_TC=np.stack([1 - positive, positive], axis=1),
        labels=labels,
        classes=("other", "groom"),
    )
    assert (
        scores.macro_f1
        == pytest.approx(reference.f1_score(labels, positive > 0.5))
        == pytest.approx(0.8)
    )
    assert scores.map == pytest.approx(
        reference.average_precision_score(labels, positive), abs=1e-12
    )


def test_unlabelled_frames_change_nothing() -> None:
    p, labels = random_problem(1)
    alone = score(probabilities_TC=p, labels=labels, classes=MICE)
    junk = np.full((50, 4), np.nan)
    beside = score(
        probabilities_TC=np.concatenate([junk, p]),
        labels=np.append(np.full(50, UNLABELLED), labels),
        classes=MICE,
    )
    assert beside == alone
    assert UNLABELLED == annotations.UNLABELLED


def test_a_class_absent_from_test_leaves_the_mean_and_is_named() -> None:
    p, labels = random_problem(2)
    labels = np.where(labels == 2, 1, labels)
    scores = score(probabilities_TC=p, labels=labels, classes=MICE)
    mount = scores.per_class["mount"]
    assert math.isnan(mount.f1)
    assert math.isnan(mount.ap)
    assert mount.predicted_frames > 0
    assert scores.macro_f1 == pytest.approx(
        (scores.per_class["attack"].f1 + scores.per_class["investigation"].f1) / 2
    )
    assert scores.macro_f1 > reference.f1_score(
        labels, p.argmax(axis=1), labels=[0, 1, 2], average="macro", zero_division=0
    )
    assert len(scores.notes) == 1
    assert "'mount'" in scores.notes[0]
    written = json.dumps(scores.to_dict(), allow_nan=False)
    assert json.loads(written)["per_class"]["mount"]["f1"] is None


def test_a_class_never_predicted_has_f1_zero_and_no_precision() -> None:
    p, labels = random_problem(3)
    p[:, 0] = 0
    attack = score(probabilities_TC=p, labels=labels, classes=MICE).per_class["attack"]
    assert (attack.f1, attack.recall) == (0, 0)
    assert math.isnan(attack.precision)


def test_frames_of_one_class_only_are_scored_with_a_note() -> None:
    p, _ = random_problem(4)
    rest_only = score(probabilities_TC=p, labels=np.full(500, 3), classes=MICE)
    assert math.isnan(rest_only.macro_f1)
    assert math.isnan(rest_only.map)
    assert len(rest_only.notes) == 3
    attack_only = score(probabilities_TC=p, labels=np.zeros(500, int), classes=MICE)
    assert attack_only.map == 1
    assert any("whatever the scores" in note for note in attack_only.notes)


def test_order_of_frames_and_of_classes_and_the_scale_of_scores_do_not_matter() -> None:
    p, labels = random_problem(5)
    scores = score(probabilities_TC=p, labels=labels, classes=MICE)
    shuffled = np.random.default_rng(0).permutation(len(labels))
    assert score(probabilities_TC=p[shuffled], labels=labels[shuffled], classes=MICE) == scores
    turned = score(
        probabilities_TC=p[:, ::-1],
        labels=3 - labels,
        classes=MICE[::-1],
        predicted=3 - p.argmax(1),
    )
    assert turned.per_class == scores.per_class
    assert score(probabilities_TC=np.log(p + 1), labels=labels, classes=MICE) == scores


def test_given_decisions_change_f1_and_never_average_precision() -> None:
    p, labels = random_problem(6)
    raw, perfect = (
        score(probabilities_TC=p, labels=labels, classes=MICE, predicted=predicted)
        for predicted in (None, labels)
    )
    assert perfect.macro_f1 == 1 > raw.macro_f1
    assert perfect.map == raw.map


def test_macro_f1_pools_videos() -> None:
    p, labels = random_problem(7)
    chosen = decide(probabilities_TC=p)
    by_video = [{"a": frames[:100], "b": frames[100:]} for frames in (labels, chosen)]
    assert frame_f1(labels=by_video[0], predicted=by_video[1], classes=MICE) == frame_f1(
        labels=labels, predicted=chosen, classes=MICE
    )


def test_the_published_baseline_over_seeds_is_mean_and_population_deviation() -> None:
    f1, ap = (0.7944, 0.7941, 0.8065, 0.7973, 0.7719), (0.8440, 0.8595, 0.8612, 0.8694, 0.8444)
    seeds = over_seeds(
        {
            seed: one_score(*pair)
            for seed, pair in zip(range(42, 47), zip(f1, ap, strict=True), strict=True)
        }
    )
    assert (round(seeds.macro_f1, 4), round(seeds.macro_f1_std, 4)) == (0.7928, 0.0114)
    assert (round(seeds.map, 4), round(seeds.map_std, 4)) == (0.8557, 0.0100)
    assert [entry["seed"] for entry in seeds.per_seed] == [42, 43, 44, 45, 46]
    assert seeds.per_class["attack"]["f1_std"] == pytest.approx(seeds.macro_f1_std)
    assert "one seed" in over_seeds({42: one_score(0.5, 0.5)}).notes[-1]


def test_the_published_task_3_baseline_is_the_mean_over_behaviours() -> None:
    table = {
        "approach": (0.339, 0.282),
        "disengaged": (0.195, 0.237),
        "groom": (0.289, 0.260),
        "intromission": (0.721, 0.746),
        "mount_attempt": (0.034, 0.015),
        "sniff_face": (0.358, 0.322),
        "whiterearing": (0.430, 0.355),
    }
    task = mean_over_problems({name: one_score(*pair, name=name) for name, pair in table.items()})
    assert (round(task.macro_f1, 3), round(task.map, 3)) == (0.338, 0.317)
    assert task.per_class["groom"].f1 == 0.289
    assert task.counted == tuple(table)
    assert task.confusion is None
    assert over_seeds({42: task}).counted == tuple(table)


def test_annotators_are_averaged_after_their_macro_means_and_the_deviation_is_of_averages() -> None:
    by_seed = {}
    for seed in (42, 43):
        annotators = {}
        for k, frames in enumerate((100, 900)):
            p, labels = random_problem(10 * seed + k, frames=frames)
            annotators[f"annotator {k}"] = score(probabilities_TC=p, labels=labels, classes=MICE)
        by_seed[seed] = mean_over_problems(annotators)
        expected = np.mean([scores.macro_f1 for scores in annotators.values()])
        assert by_seed[seed].macro_f1 == pytest.approx(expected)  # not weighted by frames
        assert by_seed[seed].frames == by_seed[seed].confusion.sum() == 1000
        assert by_seed[seed].per_class["mount"].frames == sum(
            scores.per_class["mount"].frames for scores in annotators.values()
        )
    seeds = over_seeds(by_seed)
    averages = [scores.macro_f1 for scores in by_seed.values()]
    assert seeds.macro_f1_std == pytest.approx(np.std(averages))
    first = seeds.problems["annotator 0"]
    assert first.macro_f1 == pytest.approx(
        np.mean([scores.problems["annotator 0"].macro_f1 for scores in by_seed.values()])
    )
    written = json.loads(json.dumps(seeds.to_dict(), allow_nan=False))
    assert {"macro_f1", "macro_f1_std", "map", "map_std", "per_class", "per_seed"} <= written.keys()


def test_a_problem_without_a_score_is_left_out_and_named() -> None:
    empty = replace(one_score(math.nan, math.nan, name="groom"), notes=("no labelled frame",))
    task = mean_over_problems({"groom": empty, "approach": one_score(0.4, 0.3, name="approach")})
    assert (task.macro_f1, task.map) == (0.4, 0.3)
    assert [note.split(":")[0] for note in task.notes] == ["groom", "groom"]


def test_chance_is_the_prevalence() -> None:
    labels = np.random.default_rng(0).choice(4, 40_000, p=[0.05, 0.25, 0.1, 0.6])
    blind = score(
        probabilities_TC=np.random.default_rng(1).random((len(labels), 4)),
        labels=labels,
        classes=MICE,
    )
    for c, p in enumerate((0.05, 0.25, 0.1)):
        scores = blind.per_class[MICE[c]]
        assert scores.ap == pytest.approx(scores.prevalence, abs=0.01)
        assert scores.f1 == pytest.approx(2 * p / (1 + 4 * p), abs=0.02)
    assert blind.map == pytest.approx(blind.chance_map, abs=0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.full(6, UNLABELLED)}, "none of the 6 frames is labelled"),
        (
            {"labels": np.zeros(0, int), "probabilities_TC": np.zeros((0, 4))},
            "none of the 0 frames",
        ),
        ({"labels": np.array([0, 1, 2, 3, 4, 0])}, "outside 0…3"),
        ({"labels": np.zeros(6)}, "allowed: integers"),
        ({"probabilities_TC": np.ones((6, 3))}, "(6, 4)"),
        (
            {"probabilities_TC": np.where(np.arange(24).reshape(6, 4) == 9, np.nan, 0.25)},
            "first at frame 2",
        ),
        ({"predicted": np.zeros(5, int)}, "predictions have shape"),
        ({"predicted": np.zeros(6)}, "allowed: integers"),
        ({"predicted": np.full(6, 7)}, "prediction lies outside"),
        ({"rest": "sleep"}, "allowed: attack"),
        ({"classes": ("attack", "attack", "mount", "other")}, "each once"),
        ({"labels": np.zeros((6, 4), int), "probabilities_TC": np.full((6, 4), 3.0)}, "not logits"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_words(change: dict[str, object], message: str) -> None:
    arguments = {
        "probabilities_TC": np.full((6, 4), 0.25),
        "labels": np.array([0, 1, 2, 3, 3, 3]),
        "classes": MICE,
    } | change
    with pytest.raises(BadInput) as refused:
        score(**arguments)  # type: ignore[arg-type]
    assert message in str(refused.value)


def test_only_a_rest_class_is_refused() -> None:
    with pytest.raises(BadInput, match="does not count"):
        rest_class(classes=("other",))
