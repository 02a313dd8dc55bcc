"""Predictions for training videos by networks that were not fitted on them: the only frames that
what comes after may learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from finetune.fit.fit import fit
from finetune.fit.frames import Frames
from finetune.labels.frame_labels import UNLABELLED
from finetune.labels.problems import Labelled, Problem, hold_out
from finetune.postprocess.learn import HeldOut, Learned, learn
from finetune.settings import Tuning
from pretrain.encoders import Embedder

DEALS = 20


def learn_after(
    material: Frames,
    problems: Sequence[Problem],
    tuning: Tuning,
    embedder: Embedder | None,
    *,
    seed: int,
    stop: int,
) -> list[Learned]:
    """What comes after the network, for each problem; learned on training videos of the budget
    alone.

    Args:
        material: Frames of the training videos.
        problems: Their ``train`` labels are used, nothing else of them.
        tuning: The settings the network is fitted with, and ``after``.
        embedder: To train along, or None where ``material`` holds embeddings.
        seed: Of the deal, the weights and the windows.
        stop: Steps to fit for.
    """
    return [
        learn(problem, held)
        for problem, held in zip(
            problems,
            held_out(material, problems, tuning, embedder, seed=seed, stop=stop),
            strict=True,
        )
    ]


def held_out(
    material: Frames,
    problems: Sequence[Problem],
    tuning: Tuning,
    embedder: Embedder | None,
    *,
    seed: int,
    stop: int,
) -> list[HeldOut]:
    """Fits once a part on the videos of the other parts, and predicts those of this one."""
    assert tuning.after > 0, "nothing is to come after the network"
    probabilities: list[dict[str, np.ndarray]] = [{} for _ in problems]
    labels: list[dict[str, np.ndarray]] = [{} for _ in problems]
    part: list[dict[str, int]] = [{} for _ in problems]
    for number, sides in enumerate(
        deal(problems, parts=tuning.after, share=tuning.validation, seed=seed)
    ):
        ((_, _, model),) = fit(
            material,
            [inside for inside, _ in sides],
            tuning,
            embedder=embedder,
            seed=seed,
            stops=[stop],
        )
        for p, found in enumerate(
            model.predict(material, problems, [outside for _, outside in sides])
        ):
            probabilities[p] |= found
            labels[p] |= sides[p][1]
            part[p] |= dict.fromkeys(found, number)
    return [
        HeldOut(probabilities=a, labels=b, part=c)
        for a, b, c in zip(probabilities, labels, part, strict=True)
    ]


def deal(
    problems: Sequence[Problem], *, parts: int, share: float, seed: int
) -> list[list[tuple[Problem, Labelled]]]:
    """For each part and problem: the problem to fit on, and the labels of the videos held out with
    that part.

    A video is held out of all problems at once, for two problems may share it. A problem whose
    videos all fall to one part (it has one video, say) keeps some of its labels for fitting, as
    :func:`finetune.labels.problems.hold_out` divides them.
    """
    if parts == 1:
        return [
            [
                hold_out(problem, share=share, seed=seed) if problem.train else (problem, {})
                for problem in problems
            ]
        ]
    place = _places(
        problems, parts=min(parts, max(len(problem.train) for problem in problems)), seed=seed
    )
    dealt = []
    for part in sorted(set(place.values())):
        sides: list[tuple[Problem, Labelled]] = []
        for problem in problems:
            inside = [name for name in problem.train if place[name] != part]
            outside = {
                name: labels for name, labels in problem.train.items() if place[name] == part
            }
            every = bool(inside) or not problem.train
            sides.append(
                (problem.only(inside), outside)
                if every
                else hold_out(problem, share=share, seed=seed)
            )
        dealt.append(sides)
    return dealt


def _places(problems: Sequence[Problem], *, parts: int, seed: int) -> Mapping[str, int]:
    """Video to part: of some random deals the one in which the fewest classes are missing where a
    network is fitted."""
    holders = [
        {name: _classes(labels) for name, labels in problem.train.items()} for problem in problems
    ]
    names = sorted(set().union(*holders))
    best: tuple[int, dict[str, int]] | None = None
    for attempt in range(DEALS):
        order = np.random.default_rng([seed, 4, attempt]).permutation(len(names))
        place = _dealt([names[n] for n in order], holders, parts=parts)
        missing = 0
        for held in holders:
            every = set().union(*held.values())
            missing += sum(
                len(every - set().union(*(c for name, c in held.items() if place[name] != part)))
                for part in range(parts)
            )
        if best is None or missing < best[0]:
            best = missing, place
    assert best is not None
    return best[1]


def _dealt(
    names: Sequence[str], holders: Sequence[Mapping[str, set[int]]], *, parts: int
) -> dict[str, int]:
    """Each problem's videos as evenly as can be, those with the fewest first: they have the least
    choice."""
    place: dict[str, int] = {}
    total = [0] * parts
    for held in sorted(holders, key=len):
        mine = [name for name in names if name in held]
        count = [sum(place.get(name) == part for name in mine) for part in range(parts)]
        for name in mine:
            if name not in place:
                place[name] = min(range(parts), key=lambda part: (count[part], total[part], part))
                count[place[name]] += 1
                total[place[name]] += 1
    return place


def _classes(labels: np.ndarray) -> set[int]:
    if labels.ndim == 2:
        return set(np.flatnonzero((labels == 1).any(axis=0)).tolist())
    return set(np.unique(labels[labels != UNLABELLED]).tolist())
