"""Weights of the members of a stack, learned on videos that they were not fitted on: stacked
generalisation (Wolpert 1992), with weights that are not negative and sum to 1 (Breiman 1996)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from finetune.fit.fit import Outputs, mean_of_members, score_problems, validation_score
from finetune.labels.frame_labels import decide, looked_at
from finetune.labels.problems import Labelled, Problem
from finetune.labels.refine import is_parent
from finetune.postprocess.one_standard_error import within_one_standard_error

MOST_WEIGHTS = 300
SCORED_FRAMES = 20_000
"""Neighbouring frames repeat each other: more of them cost time and change nothing."""
AS_GOOD = 0.003
"""Of a score: weights whose scores differ by less are alike."""


def learn_weights(
    problems: Sequence[Problem],
    members: Sequence[Outputs],
    truth: Sequence[Labelled],
    *,
    given: Sequence[float],
) -> list[float]:
    """The mean of all weights that do as well as the best of a grid, by the score that a search
    maximises (the best alone may be so by chance); those that are ``given`` where it does not beat
    them by more than a standard error of macro F1 in any problem, or does worse in one.

    Args:
        problems: With what each may refine.
        members: What each member gives for the videos held out.
        truth: Their labels, of each problem; those of a parent do not count.
        given: A weight for each member.

    Returns:
        A weight for each member; their sum is 1.
    """
    scored: list[Labelled] = [
        {} if is_parent(problems, problem) else labels
        for problem, labels in zip(problems, truth, strict=True)
    ]
    frames = sum(int(looked_at(y).sum()) for labels in scored for y in labels.values())
    every = max(1, -(-frames // SCORED_FRAMES))
    scored = [{video: y[::every] for video, y in labels.items()} for labels in scored]
    thinned = [
        {video: [p_TC[::every] for p_TC in each] for video, each in member.items()}
        for member in members
    ]
    grid = list(_weights(len(members)))
    scores = np.array(
        [
            validation_score(
                score_problems(problems, mean_of_members(problems, thinned, one, scored), scored)
            )
            for one in grid
        ]
    )
    as_good = scores >= scores.max() - AS_GOOD
    learned = [float(round(weight, 3)) for weight in np.array(grid)[as_good].mean(0)]
    each = {
        name: mean_of_members(problems, thinned, weights, scored)
        for name, weights in (("given", given), ("learned", learned))
    }
    as_good_as_the_best = [
        within_one_standard_error(
            labels=labels,
            decisions={
                name: {
                    v: decide(probabilities_TC=q, overlapping=problem.overlapping)
                    for v, q in of[p].items()
                }
                for name, of in each.items()
            },
            classes=problem.classes,
            rest=problem.rest,
        )
        for p, (problem, labels) in enumerate(zip(problems, scored, strict=True))
        if labels
    ]
    helps = ["learned"] in as_good_as_the_best
    return learned if helps and all("learned" in one for one in as_good_as_the_best) else [*given]


def _weights(members: int) -> Iterator[tuple[float, ...]]:
    """All weights of so many members in the smallest equal steps of which there are not too
    many."""
    for parts in (10, 5, 4, 3, 2, 1):
        divided = itertools.combinations(range(parts + members - 1), members - 1)
        points = [(-1, *bars, parts + members - 1) for bars in divided]
        if len(points) <= MOST_WEIGHTS or parts == 1:
            yield from (
                tuple((b - a - 1) / parts for a, b in itertools.pairwise(one)) for one in points
            )
            return
