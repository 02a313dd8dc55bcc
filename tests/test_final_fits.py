"""Which fits share the postprocessing: those that learn from the same labels in the same way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from finetune.labels.problems import Problem
from finetune.search.final_fits import FinalFit
from finetune.settings import Tuning


def test_fits_that_learn_the_same_share_what_is_learned_on_held_out_videos() -> None:
    labels = np.zeros(40, np.int64)
    problem = Problem(
        name="S1",
        task="S1",
        classes=("a", "b"),
        annotator="",
        overlapping=False,
        train={"v": labels, "w": labels + 1},
        test={},
    )
    fit = FinalFit(problems=[problem], tuning=Tuning(), steps=10)
    turned = {"w": labels + 1, "v": labels.copy()}
    tested = replace(problem, train=turned, test={"x": labels})
    assert replace(fit, problems=[tested]).fingerprint == fit.fingerprint, "test labels count not"
    others = [
        replace(fit, steps=11),
        replace(fit, tuning=Tuning(lr=0.5)),
        replace(fit, problems=[replace(problem, train={"v": labels})]),
        replace(fit, problems=[replace(problem, train={"v": labels, "u": labels + 1})]),
        replace(fit, problems=[replace(problem, classes=("a", "c"))]),
    ]
    assert len({one.fingerprint for one in [fit, *others]}) == len(others) + 1
    bout = labels.copy()
    bout[5:9] = 1
    one, two = (
        replace(fit, problems=[replace(problem, train={"v": y})]) for y in (bout, np.roll(bout, 3))
    )
    assert one.fingerprint != two.fingerprint, "permuted labels"
