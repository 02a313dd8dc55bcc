"""Label sets that refine a class of another one: which act an aggression was.

P(act) = P(aggression) x P(act | aggression). The parent label set becomes a problem of its own,
fitted together with the child's. The child's output learns from frames of the parent class alone,
where its acts are not rare, and is multiplied by the parent's probability.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from finetune.labels.frame_labels import UNLABELLED, looked_at
from finetune.labels.problems import Labelled, Problem
from pretrain.errors import BadInput, refuse

Array = TypeVar("Array", npt.NDArray[Any], Tensor)


def with_parent(
    children: Sequence[Problem], word: str, problems_of: Callable[[str], Sequence[Problem]]
) -> list[Problem]:
    """The children, and after them the parent, which is fitted but not scored.

    Args:
        children: The problems of the task.
        word: ``LABELSET:CLASS``.
        problems_of: The problems of a label set.

    Raises:
        BadInput: If there is no such label set or class, or the two cannot be parent and child.
    """
    about = f"--refines {word}"
    task, _, name = word.rpartition(":")
    if not task or not name:
        raise BadInput(f"{about}: give LABELSET:CLASS, S1:aggression say")
    parents = problems_of(task)
    parent = parents[0]
    if len(parents) > 1:
        names = ", ".join(each.name for each in parents)
        raise BadInput(f"{about}: {task} has several problems ({names}); a parent has one")
    errors = []
    if parent.task in {child.task for child in children}:
        errors.append(f"{task} cannot refine itself")
    if name not in parent.classes:
        errors.append(f"{task} has no class {name!r}; it has: {', '.join(parent.classes)}")
    elif name == parent.rest:
        errors.append(f"{name!r} is the rest class of {task}; refine a behaviour")
    if not parent.train:
        errors.append(f"{task} has no training video")
    errors += [
        f"{child.name} has no rest class (none, background, base or other) for the frames that "
        f"are not {name}"
        for child in children
        if child.rest is None and not child.overlapping
    ]
    refuse(errors, about=about)
    refining = [replace(child, refines=(parent.name, name)) for child in children]
    whole = [*refining, replace(parent, test={})]
    apart = without_scored_frames(whole, [problem.test for problem in whole])
    if not apart[-1].train:
        raise BadInput(f"{about}: {task} is labelled only on videos that the task is scored on")
    return apart


def parent_index(problems: Sequence[Problem], problem: Problem) -> int | None:
    """Index of the problem that it refines a class of; None where it refines none."""
    if problem.refines is None:
        return None
    return [other.name for other in problems].index(problem.refines[0])


def is_parent(problems: Sequence[Problem], problem: Problem) -> bool:
    """Whether another problem refines a class of it."""
    return any(other.refines and other.refines[0] == problem.name for other in problems)


def without_scored_frames(problems: Sequence[Problem], scored: Sequence[Labelled]) -> list[Problem]:
    """Takes from the parents' training labels the frames that their children are scored on.

    Args:
        problems: To fit on.
        scored: Of each, labels it is scored on. Of a video that a child is also fitted on, the
            parent keeps the frames that are labelled there.
    """
    result = list(problems)
    for problem, labels in zip(problems, scored, strict=True):
        p = parent_index(problems, problem)
        if p is None:
            continue
        train = dict(result[p].train)
        for video in labels.keys() & train.keys():
            if video in problem.train:
                train[video] = train[video].copy()
                train[video][~looked_at(problem.train[video])] = UNLABELLED
            else:
                del train[video]
        result[p] = replace(result[p], train=train)
    return result


def with_videos_of_children(problems: Sequence[Problem]) -> list[Problem]:
    """Parents with the training videos of their children alone: a budget of labelled videos counts
    for both.

    Raises:
        BadInput: If a parent is labelled on none of them.
    """
    result = []
    for problem in problems:
        if is_parent(problems, problem):
            names = {
                video
                for child in problems
                if child.refines and child.refines[0] == problem.name
                for video in child.train
            }
            problem = problem.only([video for video in problem.train if video in names])
            if not problem.train:
                raise BadInput(
                    f"--videos: {problem.name} is labelled on none of the videos drawn: "
                    f"{', '.join(sorted(names))}"
                )
        result.append(problem)
    return result


def given_parent(problems: Sequence[Problem]) -> list[Problem]:
    """What each problem is fitted on: a child on the frames of the parent class; where the parent
    is not labelled, on those that show an act."""
    return [
        problem if (p := parent_index(problems, problem)) is None else _given(problem, problems[p])
        for problem in problems
    ]


def _given(child: Problem, parent: Problem) -> Problem:
    assert child.refines is not None
    c = parent.classes.index(child.refines[1])
    rest = None if child.rest is None else child.classes.index(child.rest)
    train = {}
    for video, labels in child.train.items():
        if child.overlapping:
            shows_act = (labels == 1).any(axis=1)
        else:
            shows_act = (labels != UNLABELLED) & (labels != rest)
        inside = shows_act
        if video in parent.train:
            of_parent = parent.train[video]
            shown = of_parent[:, c] == 1 if parent.overlapping else of_parent == c
            inside = np.where(looked_at(of_parent), shown, shows_act)
        train[video] = labels.copy()
        train[video][~inside] = UNLABELLED
    return replace(child, train=train)


def times_parent(problems: Sequence[Problem], probabilities: Sequence[Array], p: int) -> Array:
    """(T, C) probabilities of a problem: of a child P(class | parent class) x P(parent class), and
    what remains is its rest class.

    Args:
        problems: All.
        probabilities: (T, C) of each output; a child's are given the parent class.
        p: Index of the problem.
    """
    problem = problems[p]
    parent = parent_index(problems, problem)
    if parent is None:
        return probabilities[p]
    assert problem.refines is not None
    column = problems[parent].classes.index(problem.refines[1])
    of_class_T1 = probabilities[parent][:, column : column + 1]
    product_TC: Array = probabilities[p] * of_class_T1
    if not problem.overlapping:
        assert problem.rest is not None
        product_TC[:, problem.classes.index(problem.rest)] += 1 - of_class_T1[:, 0]
    return product_TC
