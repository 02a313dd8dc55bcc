"""The stretches of video that a classifier is explained on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from finetune.fit.frames import gather_poses
from finetune.inference.model import LoadedModel
from finetune.labels.frame_labels import UNLABELLED, Ints
from finetune.labels.problems import ELSEWHERE, Labelled, Problem, labels_like
from finetune.report.predictions import read_predictions
from pretrain.data.store import Store
from pretrain.errors import BadInput, refuse
from pretrain.runs import paths

SHORTEST_S = 30.0
"""Seconds of a stretch at least, whatever the number of videos; shorter videos are taken whole."""


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Consecutive frames of a video, taken as a recording of their own."""

    video: str
    start: int
    arrays: Mapping[str, Tensor]
    """As :meth:`LoadedModel.predict` takes them."""
    labels: Sequence[Ints]
    """Of each problem: (T,) or (T, C); UNLABELLED where nobody looked."""

    def __len__(self) -> int:
        return len(self.arrays["position"])

    @cached_property
    def filled(self) -> Tensor:
        """Its positions with no point missing."""
        return filled(self.arrays["position"])


def stretches_of(
    run: Path, model: LoadedModel, *, data: str | None, minutes: float
) -> list[Stretch]:
    """Stretches of the videos that show most behaviour, rare behaviours counting as much as common
    ones, about ``minutes`` together.

    Args:
        run: A run of finetune.
        model: Its model.
        data: Store whose videos they are; None: the videos that the run was scored on.
        minutes: Of all stretches together.

    Raises:
        BadInput: If there is no such run or store, or it does not fit the model.
    """
    files = sorted((run / "predictions").glob("seed-*.parquet"))
    if not files or not (run / "result.json").is_file():
        raise BadInput(f"{run} is no finished run of ethoray finetune: give its --out folder")
    if data is None:
        store, labels = _scored(run, files[0], model.problems)
    else:
        store = Store(paths.absolute_address(data))
        labels = [labels_like(store, problem) for problem in model.problems]
    refuse(model.schema.differences(store.schema), about=f"{store.uri} does not fit the model")
    names = sorted({name for one in labels for name in one}) or [v["name"] for v in store.videos]
    fps = model.schema.fps
    # short videos leave room for more of others, but not much: nobody counts frames here
    longest = round(max(SHORTEST_S, 60 * minutes / len(names)) * fps)
    number = max(1, round(60 * minutes * fps / longest))
    best = _most_shown(names, model.problems, labels, number=number, longest=longest)
    stretches = []
    for name, start in sorted(
        (best or dict.fromkeys(names[:: -(-len(names) // number)], 0)).items()
    ):
        poses = gather_poses(
            store, [name], features=tuple(model.external), scaled_to=model.features
        ).video(name)
        frames = len(poses["position"])
        shape = [
            (frames, len(problem.classes)) if problem.overlapping else (frames,)
            for problem in model.problems
        ]
        of_problem = [
            np.asarray(one.get(name, np.full(size, UNLABELLED, np.int8)))
            for one, size in zip(labels, shape, strict=True)
        ]
        part = slice(start, start + longest)
        stretches.append(
            Stretch(
                video=name,
                start=start,
                arrays={key: values[part] for key, values in poses.items()},
                labels=[shown[part] for shown in of_problem],
            )
        )
    return stretches


def _most_shown(
    names: Sequence[str],
    problems: Sequence[Problem],
    labels: Sequence[Labelled],
    *,
    number: int,
    longest: int,
) -> dict[str, int]:
    """Video to the first frame of its stretch: behaviours in turn get the video, of those that are
    left, that shows most of them within ``longest`` frames; the rest class gets none."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for problem, of_video in zip(problems, labels, strict=True):
        for c, behaviour in enumerate(problem.classes):
            if behaviour == problem.rest:
                continue
            own = found[f"{problem.name} {behaviour}"] = {}
            for name in of_video.keys() & set(names):
                shown = of_video[name][:, c] == 1 if problem.overlapping else of_video[name] == c
                sums = np.concatenate([[0], np.cumsum(shown)])
                length = min(longest, len(shown))
                within = sums[length:] - sums[: len(sums) - length]
                if within.max(initial=0):
                    own[name] = (int(within.max()), int(within.argmax()))
    best: dict[str, int] = {}
    while len(best) < number and any(found.values()):
        for own in found.values():
            left = {name: most for name, most in own.items() if name not in best}
            own.clear()
            if left and len(best) < number:
                name = max(left, key=lambda one: (left[one][0], one))
                best[name] = left.pop(name)[1]
                own.update(left)
    return best


def _scored(
    run: Path, predictions: Path, problems: Sequence[Problem]
) -> tuple[Store, list[Labelled]]:
    """The store of a run's test videos, and their labels."""
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    tested = {problem.name: problem.test for problem in read_predictions(predictions)[0]}
    labels: list[Labelled] = [
        {name.removesuffix(ELSEWHERE): shown for name, shown in tested[problem.name].items()}
        for problem in problems
    ]
    return Store(result["test_data"] or result["data"]), labels


def filled(position_TMKX: Tensor) -> Tensor:
    """Missing points in a straight line between those before and after; 0 where there are none."""
    flat = pd.DataFrame(position_TMKX.flatten(1).numpy()).interpolate(limit_direction="both")
    return torch.from_numpy(flat.fillna(0.0).to_numpy(np.float32, copy=True)).view(
        position_TMKX.shape
    )


def shown_of(problem: Problem, labels: Ints, decided: Ints) -> np.ndarray:
    """(T, C): whether a frame shows a class, as labelled; where nobody looked, as predicted."""
    merged = np.where(labels == UNLABELLED, decided, labels)
    if problem.overlapping:
        return np.asarray(merged == 1)
    return np.asarray(merged[:, None] == np.arange(len(problem.classes)))
