"""What `accuracy.py` compares: its rows, one fit and its scores, and where errors lie."""

from __future__ import annotations

import inspect
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accuracy_ablation import ABLATIONS, LEADING, Ablation, without
from accuracy_split import Cell, Row, Split, digest, problems_of

from finetune.fit.fit import Probabilities, fit, score_problems
from finetune.fit.frames import Frames
from finetune.heads import AbstractHead
from finetune.heads.stack import Stack
from finetune.labels.clips import labelled_minutes
from finetune.labels.frame_labels import UNLABELLED, Ints, looked_at
from finetune.labels.problems import Problem
from finetune.metrics.bouts import bouts
from finetune.metrics.frame_metrics import Scores, frame_f1
from finetune.postprocess.cross_fit import choose_postprocessing, cross_fit
from finetune.search.space import only_choice
from finetune.settings import TASKS, Tuning
from pretrain.components import find
from pretrain.config import read

HZ = 5.0
BOUNDARY_S = 0.5
BOUT_S = (0.0, 1.0, 3.0, 10.0, 30.0, np.inf)
FEATURES, OLD_FEATURES, RANDOM = "features", "old features", "random weights"
ARENA_TRACKER = "features with arena position and tracker"
DEFAULT = read(Tuning, "default", TASKS, {})

Decisions = Mapping[str, Ints]
"""Video to the labels of its frames."""


def rows(encoders: Sequence[str], *, quick: bool, ablated: bool = False) -> list[Row]:
    """The rows of the table, the one that the others are compared with first.

    Args:
        encoders: Names of further embeddings, each as a row of its own and joined to the features.
        quick: Only those without which the others mean nothing.
        ablated: Trees on the features, the whole default head, and each again without each of its
            ingredients, the trees also with what does not help; no other row.
    """
    new = [Row(name="features, stack", inputs=(FEATURES,))]
    if ablated:
        trees = Row(name="features, boosted", inputs=(FEATURES,), head="boosted")
        more = replace(trees, name=f"{ARENA_TRACKER}, boosted", inputs=(ARENA_TRACKER,))
        return [trees, *new, more] + [
            replace(new[0] if ablation.member else trees, name=name, without=name)
            for name, ablation in ABLATIONS.items()
        ]
    new.append(replace(new[0], name="features, stack, postprocessed", postprocessed=True))
    heads = ("boosted",) if quick else ("boosted", "logistic", "temporal_wide", "recurrent")
    new += [Row(name=f"features, {head}", inputs=(FEATURES,), head=head) for head in heads]
    new.append(Row(name="old features, boosted", inputs=(OLD_FEATURES,), head="boosted"))
    for encoder in [*([] if quick else [RANDOM]), *encoders]:
        new.append(Row(name=f"{encoder}, stack", inputs=(encoder,)))
        new.append(Row(name=f"features + {encoder}, stack", inputs=(FEATURES, encoder)))
    return [*new, Row(name="permuted labels, stack", inputs=(FEATURES,), permuted=True)]


# -- a cell ----------------------------------------------------------------------------------------


def joined(inputs: Mapping[str, Frames], names: Sequence[str]) -> tuple[Frames, int]:
    """Embeddings joined column by column, and how many leading columns a temporal network reads:
    the others stand behind the leading columns of the first, before its long means."""
    first, *others = (inputs[name] for name in names)
    z = first.arrays["z"]
    if not others:
        return first, LEADING
    more = [other.arrays["z"] for other in others]
    arrays = {"z": np.concatenate([z[:, :LEADING], *more, z[:, LEADING:]], 1)}
    width = min(LEADING, z.shape[1]) + sum(one.shape[1] for one in more)
    return replace(first, arrays=arrays), width


def head_settings(
    head: str,
    budget: str,
    columns: int,
    changed: Mapping[str, Any] | None = None,
    *,
    dropped: str = "",
) -> dict[str, Any]:
    """Settings of a head; a stack is the default for the budget (finetune/tasks/default.yaml), that
    of many videos unless the budget is one or two of them. ``changed`` settings go to the
    heads that have them; ``columns`` to the networks. A stack goes without the member
    ``dropped``."""
    chosen: Mapping[str, Any] = {"name": head}
    if head == "stack":
        of_many = (only_choice(DEFAULT) or {})["head"]
        few = budget.isdigit() and int(budget) < DEFAULT.search_from
        chosen = DEFAULT.head if few else of_many

    def with_settings(one: Mapping[str, Any]) -> dict[str, Any]:
        known = inspect.signature(find("finetune.heads", one["name"], AbstractHead)).parameters
        own = {key: value for key, value in (changed or {}).items() if key in known}
        of_network = {"columns": columns} if "crop" in known else {}
        return {**one, **own, **of_network}

    if "members" not in chosen:
        return with_settings(chosen)
    kept = [n for n, member in enumerate(chosen["members"]) if member["name"] != dropped]
    members = [with_settings(chosen["members"][n]) for n in kept]
    weights = {
        key: [chosen[key][n] for n in kept]
        for key in ("weights", "weights_for_many_labels")
        if key in chosen
    }
    return {**chosen, "members": members, **weights}


def run_cell(
    cell: Cell,
    *,
    inputs: Mapping[str, Frames],
    problems: Sequence[Problem],
    split: Split,
    columns: Sequence[tuple[str, str]] = (),
) -> tuple[dict[str, Any], list[Probabilities], list[Decisions]]:
    """Fits a cell's head and scores it on the videos of its fold, at 5 Hz.

    Args:
        cell: Which.
        inputs: Embeddings by name.
        problems: With all labelled videos in ``train``.
        split: As :func:`draw_split` gives it.
        columns: Statistic and feature of each column of the features, for ablations.

    Returns:
        The result for its JSON, and the scores of each problem's test videos at 5 Hz; of a row with
        postprocessing their labels as well.
    """
    begin = time.process_time()
    torch.set_num_threads(1)
    own = problems_of(problems, split, cell)
    frames, read_columns = joined(inputs, cell.row.inputs)
    ablation = Ablation()
    if cell.row.without:
        frames, read_columns = without(frames, columns, cell.row.without)
        ablation = ABLATIONS[cell.row.without]
    tuning = replace(
        DEFAULT,
        head=head_settings(
            cell.row.head, cell.budget, read_columns, ablation.head, dropped=ablation.member
        ),
        search={},
        trials=1,
    )
    ((_, _, model),) = fit(frames, own, tuning, embedder=None, seed=cell.draw, stops=[1])
    crossed = None
    if cell.row.postprocessed:
        crossed = cross_fit(frames, own, tuning, None, seed=cell.draw, stop=1)
        if crossed.weights and isinstance(model.head, Stack):
            model.head.weights = crossed.weights
    every = model.predict(frames, own, [problem.test for problem in own])
    stride, decided, steps = frames.stride, [], []
    if crossed is not None:
        learned = choose_postprocessing(own, crossed.held_out, tuning)
        steps = [one.name for one in learned]
        after = [one.postprocessing for one in learned]
        decided = [
            {v: step.decide(p)[::stride].astype(np.int8) for v, p in one.items()}
            for step, one in zip(after, every, strict=True)
        ]
        every = [
            {v: step.scores(p).astype(np.float32) for v, p in one.items()}
            for step, one in zip(after, every, strict=True)
        ]
    predicted = [{v: p[::stride] for v, p in one.items()} for one in every]
    result = {
        "row": cell.row.name,
        "budget": cell.budget,
        "draw": cell.draw,
        "fold": split["draws"][cell.budget][cell.draw]["fold"],
        "split": digest(split),
        "head": tuning.head,
        "minutes": {p.name: labelled_minutes(p.train, frames.fps) for p in own},
        "postprocessing": steps,
        "scores": score_at(own, predicted, stride, decided).to_dict(),
        "core_seconds": round(time.process_time() - begin, 2),
    }
    return result, predicted, decided


def score_at(
    problems: Sequence[Problem],
    predicted: Sequence[Probabilities],
    step: int,
    decided: Sequence[Decisions] = (),
) -> Scores:
    """Scores of every ``step``-th labelled frame of the test videos there are predictions of; macro
    F1 of the labels where some were ``decided``, of the likeliest class else."""
    truth = [
        {v: problem.test[v][::step] for v in probabilities}
        for problem, probabilities in zip(problems, predicted, strict=True)
    ]
    scores = score_problems(problems, predicted, truth)
    if not decided:
        return scores
    f1 = [
        frame_f1(labels=labels, predicted=own, classes=problem.classes, rest=problem.rest or "")
        for problem, labels, own in zip(problems, truth, decided, strict=True)
        if labels
    ]
    return replace(scores, macro_f1=float(np.mean(f1)))


# -- where errors lie ------------------------------------------------------------------------------


def failures(
    problem: Problem,
    predicted: Probabilities,
    *,
    fps: float,
    step: int,
    unseen: Callable[[str], npt.NDArray[np.bool_]],
) -> list[dict[str, Any]]:
    """How often frames of one kind are wrong: by length of the bout they are in, by distance to
    the nearest change of class, and where an animal has no point.

    Args:
        problem: Of exclusive classes, all labels in ``train``.
        predicted: (T / step, C) of each video.
        fps: Frames a second of the labels.
        step: Frames from one prediction to the next.
        unseen: (T,) of a video: no point of some animal was found.
    """
    wrong, length, near, lost = [], [], [], []
    for video, probabilities in sorted(predicted.items()):
        labels = problem.train[video]
        bout_s, change = np.zeros(len(labels)), np.zeros(len(labels), bool)
        for start, stop, _ in bouts(labels).tolist():
            bout_s[start:stop] = (stop - start) / fps
            for edge in (start, stop):
                if 0 < edge < len(labels) and UNLABELLED not in labels[edge - 1 : edge + 1]:
                    reach = round(BOUNDARY_S * fps)
                    change[max(0, edge - reach) : edge + reach] = True
        known = looked_at(labels)[::step]
        wrong.append((probabilities.argmax(1) != labels[::step])[known])
        length.append(bout_s[::step][known])
        near.append(change[::step][known])
        lost.append(unseen(video)[::step][known])
    error, seconds, close, missing = map(np.concatenate, (wrong, length, near, lost))
    kinds = {"all frames": np.ones(len(error), bool)}
    for low, high in itertools.pairwise(BOUT_S):
        text = f"over {low:g} s" if np.isinf(high) else f"{low:g} to {high:g} s"
        kinds[f"in a bout of {text}"] = (seconds > low) & (seconds <= high)
    kinds[f"within {BOUNDARY_S:g} s of a change"] = close
    kinds["farther from any change"] = ~close
    kinds["every animal seen"], kinds["an animal unseen"] = ~missing, missing
    return [
        {
            "frames that are": kind,
            "share of frames": float(rows.mean()),
            "wrong": float(error[rows].mean()) if rows.any() else None,
            "share of errors": float(error[rows].sum() / max(error.sum(), 1)),
        }
        for kind, rows in kinds.items()
    ]
