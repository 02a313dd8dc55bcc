"""Decision rules: exact by hand, better on other frames, read back as they were."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from test_postprocess import unsure

from finetune.metrics.frame_metrics import frame_f1
from finetune.postprocess.as_json import from_json
from finetune.postprocess.decision_rules import AbstractDecisionRule, candidates, decision_rules
from finetune.postprocess.decision_rules.excess import Excess
from finetune.postprocess.decision_rules.prior_correction import PriorCorrection
from finetune.postprocess.learn import choose_steps
from pretrain.components import names

CLASSES = ("attack", "mount", "other")


def rare(seed: int, *, frames: int = 6000) -> tuple[np.ndarray, np.ndarray]:
    """Posteriors of a network that hears three classes of unlike frequency through noise."""
    draw = np.random.default_rng(seed)
    prior = np.array([0.05, 0.15, 0.8])
    labels = draw.choice(3, size=frames, p=prior).astype(np.int8)
    heard = 2 * np.eye(3)[labels] + draw.normal(0, 1.5, (frames, 3))
    p = np.exp(2 * heard / 1.5**2) * prior
    return p / p.sum(1, keepdims=True), labels


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("kind", decision_rules(), ids=names("finetune.postprocess.decision_rules"))
def test_a_rule_gives_probabilities_helps_on_other_frames_and_is_read_back(
    kind: type[AbstractDecisionRule], overlap: bool
) -> None:
    (p, labels), (new, truth) = rare(0), rare(1)
    if overlap:
        labels, truth = (np.eye(3, dtype=np.int8)[shown] for shown in (labels, truth))
    offered = kind.candidates(probabilities_TC=p, labels=labels, classes=CLASSES, rest="other")
    assert offered or (overlap and kind is Excess)
    neutral = (new > 0.5).astype(int) if overlap else new.argmax(1)

    def f1(chosen: np.ndarray) -> float:
        return frame_f1(labels=truth, predicted=chosen, classes=CLASSES, rest="other")

    for rule in offered.values():
        assert rule.overlapping == overlap
        again = from_json(json.loads(json.dumps(rule.to_dict())), "step", decision_rules())
        assert again == rule
        assert hash(again) == hash(rule)
        applied = again.apply(new)
        assert ((applied >= 0) & (applied <= 1)).all()
        if not overlap:
            np.testing.assert_allclose(applied.sum(axis=1), 1)
        assert rule.apply(p[:0]).shape == (0, 3)
    if offered:
        assert max(f1(rule.decide(new)) for rule in offered.values()) > f1(neutral) + 0.03


def test_rules_by_hand() -> None:
    p = np.array([[0.2, 0.3, 0.5], [0.05, 0.25, 0.7]])
    excess = Excess(thresholds=(0.0, 0.2, 0.4))
    assert excess.decide(p).tolist() == (p - [0.0, 0.2, 0.4]).argmax(1).tolist() == [0, 2]
    halved = PriorCorrection(prior=(0.04, 0.25, 0.64), power=0.5)
    expected = p / np.sqrt([0.04, 0.25, 0.64])
    np.testing.assert_allclose(halved.apply(p), expected / expected.sum(1, keepdims=True))
    labels = {"v": np.repeat([0, 2, 0, 2, 0], [9, 1, 9, 1, 9])}
    few = PriorCorrection.by_bouts(prior=(0.93, 0.0, 0.07), labels=labels)
    assert few.power == pytest.approx((0.5 * 30 / 33, 0.0, 0.5 * 30 / 32))
    by_hand = p / np.array([0.93, 1.0, 0.07]) ** few.power
    np.testing.assert_allclose(few.apply(p), by_hand / by_hand.sum(1, keepdims=True))
    odds = PriorCorrection(prior=(0.2,), power=1.0, overlapping=True)
    np.testing.assert_allclose(odds.apply(np.array([[0.2], [0.5]]))[:, 0], [0.5, 0.8])


def test_all_rules_compete_and_the_best_is_smoothed_too() -> None:
    asked, held_out = unsure(noise=2.0)
    offered = candidates(
        probabilities_TC=held_out.probabilities["v0"],
        labels=held_out.labels["v0"],
        classes=CLASSES,
        rest="other",
    )
    found = choose_steps(asked, held_out)
    assert set(offered) < set(found.scores)
    combined = [name for name in found.scores if " + " in name]
    assert combined
    assert len({name.split(" + ")[0] for name in combined}) == 1
    shifted = {name: np.roll(p, 1, axis=1) for name, p in held_out.probabilities.items()}
    assert choose_steps(asked, replace(held_out, probabilities=shifted)).scores != found.scores
