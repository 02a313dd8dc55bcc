"""Calibration and thresholds: worlds whose temperature or best threshold is known."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.metrics import f1_score, log_loss

from finetune.labels.frame_labels import UNLABELLED, decide
from finetune.metrics.calibration_error import expected_calibration_error
from finetune.metrics.frame_metrics import frame_f1, score
from finetune.postprocess.as_json import from_json
from finetune.postprocess.calibrations import AbstractCalibration, calibrations
from finetune.postprocess.calibrations.temperature import Temperature
from finetune.postprocess.decision_rules.thresholds import Thresholds
from pretrain.components import names
from pretrain.errors import BadInput

MICE = ("attack", "investigation", "mount", "other")


def overconfident(
    seed: int, *, frames: int = 20_000, factor: float = 2.5
) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from the true probabilities of a network whose logits are ``factor`` times too
    great."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=(frames, 4)) * 1.5
    labels = (softmax(logits, axis=1).cumsum(axis=1) > draw.random((frames, 1))).argmax(axis=1)
    return softmax(logits * factor, axis=1).astype(np.float32), labels


def rare(
    seed: int, *, frames: int = 20_000, weight: float = 30.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A rare behaviour as a network sees it that was trained with a heavy class weight; also the
    true probability."""
    draw = np.random.default_rng(seed)
    logit = draw.normal(size=frames) * 1.5 - 4.5
    labels = (draw.random(frames) < expit(logit)).astype(int)
    positive = expit(logit + np.log(weight))
    return np.stack([1 - positive, positive], axis=1), labels, expit(logit)


def test_the_temperature_of_an_overconfident_network_is_found_and_helps_on_other_frames() -> None:
    p, labels = overconfident(0)
    fitted = Temperature.fit(probabilities_TC=p, labels=labels, classes=MICE)
    assert fitted.temperature == pytest.approx(2.5, rel=0.05)
    other_p, other_labels = overconfident(1)
    moved = fitted.apply(other_p)
    before, after = (log_loss(other_labels, values) for values in (other_p, moved))
    assert after < 0.8 * before
    errors = [
        expected_calibration_error(probabilities_TC=values, labels=other_labels)
        for values in (other_p, moved)
    ]
    assert errors[0] > 0.1
    assert errors[1] < 0.02
    np.testing.assert_allclose(moved.sum(axis=1), 1)
    assert np.array_equal(moved.argmax(axis=1), other_p.argmax(axis=1))


@pytest.mark.parametrize("factor", [0.4, 1.0, 4.0])
def test_no_temperature_of_a_grid_is_better(factor: float) -> None:
    p, labels = overconfident(2, frames=2_000, factor=factor)
    fitted = Temperature.fit(probabilities_TC=p, labels=labels, classes=MICE)
    best = log_loss(labels, fitted.apply(p))
    for t in np.geomspace(0.1, 10, 60):
        assert best <= log_loss(labels, Temperature(temperature=t).apply(p)) + 1e-7


def test_the_temperature_of_overlapping_behaviours() -> None:
    draw = np.random.default_rng(4)
    logits = draw.normal(size=(8_000, 3)) * 1.5
    labels = (draw.random(logits.shape) < expit(logits)).astype(int)
    labels[draw.random(logits.shape) < 0.2] = UNLABELLED
    fitted = Temperature.fit(
        probabilities_TC=expit(logits * 3), labels=labels, classes=("sniff", "chase", "groom")
    )
    assert fitted.temperature == pytest.approx(3, rel=0.06)
    np.testing.assert_allclose(
        fitted.apply(expit(logits * 3)), expit(logits * 3 / fitted.temperature), atol=1e-9
    )


def test_saturated_probabilities_stay_finite() -> None:
    labels = np.array([0, 1, 2, 3] * 10)
    p = np.eye(4, dtype=np.float32)[labels]
    sure = Temperature.fit(probabilities_TC=p, labels=labels, classes=MICE)
    assert 0.05 <= sure.temperature <= 20
    assert np.isfinite(sure.apply(p)).all()
    wrong = Temperature.fit(probabilities_TC=p, labels=(labels + 1) % 4, classes=MICE)
    assert wrong.temperature == pytest.approx(20)
    assert np.isfinite(wrong.apply(p)).all()


def test_a_threshold_wins_back_the_f1_that_one_half_costs_a_rare_behaviour() -> None:
    classes = ("other", "groom")
    p, labels, _ = rare(3)
    fitted = Thresholds.fit(probabilities_TC=p, labels=labels, classes=classes)
    new_p, new_labels, _ = rare(4)
    plain, tuned = (
        frame_f1(labels=new_labels, predicted=values, classes=classes)
        for values in (decide(probabilities_TC=new_p), fitted.decide(new_p))
    )
    assert tuned > plain + 0.05
    moved = fitted.apply(new_p)
    raw, after = (
        score(probabilities_TC=values, labels=new_labels, classes=classes).map
        for values in (new_p, moved)
    )
    assert after == pytest.approx(raw, abs=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_no_threshold_at_all_is_better_for_a_binary_problem(seed: int) -> None:
    draw = np.random.default_rng(seed)
    positive, labels = np.round(draw.random(60), 1 + seed % 2), draw.integers(0, 2, 60)
    p = np.stack([1 - positive, positive], axis=1)
    best = max(f1_score(labels, positive >= t) for t in positive)
    fitted = Thresholds.fit(probabilities_TC=p, labels=labels, classes=("other", "groom"))
    assert f1_score(labels, fitted.decide(p)) == pytest.approx(
        max(best, f1_score(labels, positive > 0.5)), abs=1e-12
    )
    several = Thresholds.fit(probabilities_TC=p[:, 1:], labels=labels[:, None], classes=("groom",))
    assert f1_score(labels, several.decide(p[:, 1:])[:, 0]) == pytest.approx(best, abs=1e-12)
    assert np.array_equal(
        several.decide(p[:, 1:])[:, 0],
        np.maximum(positive, np.finfo(np.float32).tiny) > several.values[0],
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_thresholds_part_saturated_probabilities(dtype: type) -> None:
    positive = np.array([1, 1, 1 - 1e-6, 1 - 1e-6, 0.999, 1e-30, 0, 0], dtype)
    for first_wrong in (2, 4, 5, 6):
        labels = (np.arange(8) < first_wrong).astype(int)
        fitted = Thresholds.fit(
            probabilities_TC=positive[:, None], labels=labels[:, None], classes=("groom",)
        )
        assert np.array_equal(fitted.decide(positive[:, None])[:, 0], labels)


@pytest.mark.parametrize("seed", range(4))
def test_weights_come_near_the_best_of_a_grid(seed: int) -> None:
    draw = np.random.default_rng(seed)
    labels = draw.choice(4, 300, p=[0.1, 0.3, 0.1, 0.5])
    p = softmax(
        draw.normal(size=(300, 4)) + np.eye(4)[labels] + np.array([1.0, 0.0, 0.5, -0.5]), axis=1
    )
    fitted = Thresholds.fit(probabilities_TC=p, labels=labels, classes=MICE)
    reached = frame_f1(labels=labels, predicted=fitted.decide(p), classes=MICE)
    grid = np.geomspace(0.1, 10, 13)
    best = max(
        frame_f1(labels=labels, predicted=(p * [*w, 1]).argmax(1), classes=MICE)
        for w in itertools.product(grid, repeat=3)
    )
    assert reached >= best - 0.01
    assert reached > frame_f1(labels=labels, predicted=p.argmax(axis=1), classes=MICE)


@pytest.mark.parametrize("seed", range(10))
def test_thresholds_are_never_worse_where_they_were_fitted(seed: int) -> None:
    draw = np.random.default_rng(seed)
    labels = draw.integers(UNLABELLED, 4, 80)
    p = np.round(draw.dirichlet(np.ones(4) / 3, 80), 2)
    fitted = Thresholds.fit(probabilities_TC=p, labels=labels, classes=MICE)
    tuned, plain = (
        frame_f1(labels=labels, predicted=values, classes=MICE)
        for values in (fitted.decide(p), p.argmax(axis=1))
    )
    assert tuned >= plain


def test_neutral_thresholds_change_nothing_even_among_ties() -> None:
    p = np.round(np.random.default_rng(0).dirichlet(np.ones(4), 500), 1)
    assert np.array_equal(Thresholds(values=(1.0,) * 4).decide(p), p.argmax(axis=1))
    assert np.array_equal(
        Thresholds(values=(0.5,) * 4, overlapping=True).decide(p), (p > 0.5).astype(int)
    )
    labels = p.argmax(axis=1)
    assert Thresholds.fit(probabilities_TC=p, labels=labels, classes=MICE).values == (1, 1, 1, 1)


def test_classes_without_a_positive_validation_frame_keep_one_half() -> None:
    labels = np.array([[1, 0], [0, 0], [1, UNLABELLED]])
    p = np.array([[0.3, 0.9], [0.1, 0.2], [0.2, 0.7]])
    fitted = Thresholds.fit(probabilities_TC=p, labels=labels, classes=("sniff", "groom"))
    assert 0.1 < fitted.values[0] < 0.2
    assert fitted.values[1] == 0.5
    rest_only = Thresholds.fit(
        probabilities_TC=np.full((5, 4), 0.25), labels=np.full(5, 3), classes=MICE
    )
    assert rest_only.values == (1, 1, 1, 1)


def test_steps_chain() -> None:
    p, labels = overconfident(5, frames=3_000)
    temperature = Temperature.fit(probabilities_TC=p, labels=labels, classes=MICE)
    thresholds = Thresholds.fit(probabilities_TC=temperature.apply(p), labels=labels, classes=MICE)
    chained = thresholds.apply(temperature.apply(p))
    assert np.array_equal(decide(probabilities_TC=chained), thresholds.decide(temperature.apply(p)))
    np.testing.assert_allclose(chained.sum(axis=1), 1)


def test_the_calibration_error_of_a_hand_worked_case() -> None:
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.4, 0.6]])
    error = expected_calibration_error(
        probabilities_TC=p, labels=np.array([0, 1, 0, 1, UNLABELLED]), bins=5
    )
    assert error == pytest.approx(
        (0.4 + 0.2 + 2 * 0.4) / 4
    )  # 0.6 belongs to 0.4…0.6, 0.8 to 0.6…0.8
    several = expected_calibration_error(
        probabilities_TC=p[:2], labels=np.array([[1, 0], [0, UNLABELLED]]), bins=5
    )
    assert several == pytest.approx((2 * (0.9 - 0.5) + (0.1 - 0)) / 3)


def test_a_calibrated_network_has_no_calibration_error() -> None:
    p, labels = overconfident(6, factor=1.0, frames=100_000)
    assert expected_calibration_error(probabilities_TC=p, labels=labels) < 0.01
    assert (
        expected_calibration_error(probabilities_TC=np.eye(4), labels=np.arange(4)) == 0
    )  # 0 and 1 have a bin too


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("kind", calibrations(), ids=names("finetune.postprocess.calibrations"))
def test_a_calibration_gives_probabilities_lowers_the_loss_and_is_read_back(
    kind: type[AbstractCalibration], overlap: bool
) -> None:
    p, labels = overconfident(7, frames=4_000)
    if overlap:
        labels = np.eye(4, dtype=int)[labels]
    step = kind.fit(probabilities_TC=p, labels=labels, classes=MICE)
    assert step.overlapping == overlap
    again = from_json(json.loads(json.dumps(step.to_dict())), "step", calibrations())
    assert again == step
    assert hash(again) == hash(step)
    calibrated = again.apply(p)
    assert calibrated.shape == p.shape
    assert ((calibrated >= 0) & (calibrated <= 1)).all()
    if not overlap:
        np.testing.assert_allclose(calibrated.sum(axis=1), 1)

    def loss(found: np.ndarray) -> float:
        truth = labels == 1 if overlap else np.eye(4)[labels] == 1
        right = np.where(truth, found, 1 - found) if overlap else found[truth]
        return float(-np.log(right).mean())

    assert loss(calibrated) < loss(p)
    assert step.apply(p[:0]).shape == (0, 4)


def test_thresholds_are_read_back_and_what_is_no_step_is_refused() -> None:
    step = Thresholds(values=(0.1, 1.0, 0.4, 1.0))
    again = from_json(json.loads(json.dumps(step.to_dict())), "step", [Thresholds])
    assert again == step
    assert hash(again) == hash(step)
    for values in ({}, {"step": "Magic"}, {"step": "Temperature", "heat": 1}):
        with pytest.raises(BadInput, match=r"no step: .*; allowed: Temperature"):
            from_json(values, "step", calibrations())


@pytest.mark.parametrize("kind", [Temperature, Thresholds])
@pytest.mark.parametrize(
    ("labels", "p", "message"),
    [
        (np.full(4, UNLABELLED), np.full((4, 2), 0.5), "none of the 4 frames is labelled"),
        (np.zeros(0, int), np.zeros((0, 2)), "none of the 0 frames"),
        (np.array([0, 1]), np.array([[0.5, 0.5], [np.nan, 0.5]]), "not finite"),
        (np.array([0, 1]), np.full((3, 2), 0.5), "allowed: (2, 2)"),
    ],
)
def test_what_cannot_be_fitted_is_refused_in_words(
    kind: type, labels: np.ndarray, p: np.ndarray, message: str
) -> None:
    with pytest.raises(BadInput) as refused:
        kind.fit(probabilities_TC=p, labels=labels, classes=("other", "groom"))
    assert message in str(refused.value)
