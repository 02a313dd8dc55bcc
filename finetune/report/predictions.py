"""The file of a seed's predictions, from which anyone can compute every score again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from finetune.fit.fit import Probabilities
from finetune.labels.frame_labels import UNLABELLED, Ints, looked_at
from finetune.labels.problems import Problem
from pretrain.errors import BadInput

_METADATA = "ethoray.problems"

Decisions = Mapping[str, Ints]
"""Video to decisions: (T,) classes, or (T, C) of 0 and 1."""


def write_predictions(
    folder: Path,
    problems: Sequence[Problem],
    probabilities: Sequence[Probabilities],
    *,
    seed: int,
    decided: Sequence[Decisions] | None = None,
) -> Path:
    """Writes ``seed-42.parquet``: every frame of every test video, the problems of the task one
    after the other.

    Columns: video, frame, task, problem, annotator; label (name of the class, null where nobody
    looked; overlapping behaviours joined by ``+``, empty where none is shown); decided (likewise,
    after thresholds and smoothing; null where there is no postprocessing); ``p_<class>`` for each
    class of any problem, the raw score of the network, null where the problem has no such class.

    Args:
        folder: Made if it is not there.
        problems: With the labels of the test videos.
        probabilities: For each problem.
        seed: Names the file.
        decided: For each problem the decisions after postprocessing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    classes = list(dict.fromkeys(name for problem in problems for name in problem.classes))
    tables = []
    for p, problem in enumerate(problems):
        for video in sorted(probabilities[p]):
            labels, scores = problem.test[video], probabilities[p][video]
            frames = len(labels)
            decisions: list[str | None] = [None] * frames
            if decided is not None:
                decisions = names_of(problem, decided[p][video], known=np.ones(frames, bool))
            columns: dict[str, Any] = {
                "video": _constant(video, frames),
                "frame": pa.array(np.arange(frames, dtype=np.int32)),
                "task": _constant(problem.task, frames),
                "problem": _constant(problem.name, frames),
                "annotator": _constant(problem.annotator, frames),
                "label": _text(names_of(problem, labels, known=looked_at(labels))),
                "decided": _text(decisions),
            }
            for name in classes:
                columns[f"p_{name}"] = (
                    pa.array(scores[:, problem.classes.index(name)].astype(np.float32))
                    if name in problem.classes
                    else pa.nulls(frames, pa.float32())
                )
            tables.append(pa.table(columns))
    about = [
        {"name": p.name, "classes": list(p.classes), "overlapping": p.overlapping} for p in problems
    ]
    table = pa.concat_tables(tables).unify_dictionaries()
    table = table.replace_schema_metadata({_METADATA: json.dumps(about)})
    path = folder / f"seed-{seed}.parquet"
    pq.write_table(table, path, compression="zstd")
    return path


def read_predictions(path: Path) -> tuple[list[Problem], list[Probabilities], list[Decisions]]:
    """What :func:`write_predictions` wrote: problems with their test labels, probabilities, and
    decisions after postprocessing (empty where there was none).

    Raises:
        BadInput: If there is no such file, or it is damaged.
    """
    try:
        table = pq.read_table(path)
        about = json.loads(table.schema.metadata[_METADATA.encode()])
        rows = table.to_pandas()
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise BadInput(f"the predictions {path} cannot be read: {error}") from error
    problems, probabilities, decided = [], list[Probabilities](), list[Decisions]()
    for one in about:
        of_problem = rows[rows["problem"] == one["name"]]
        videos = {str(k): v for k, v in of_problem.groupby("video", observed=True) if len(v)}
        classes, overlapping = tuple(one["classes"]), one["overlapping"]

        def numbers(column: str, videos: Any = videos, one: Any = one) -> dict[str, Ints]:
            return {name: _numbers(held[column], **one) for name, held in videos.items()}

        first = next(iter(videos.values()), of_problem).iloc[:1]
        task, annotator = (str(next(iter(first[key]), "")) for key in ("task", "annotator"))
        problems.append(
            Problem(
                name=one["name"],
                task=task,
                classes=classes,
                annotator=annotator,
                overlapping=overlapping,
                train={},
                test=numbers("label"),
            )
        )
        columns = [f"p_{name}" for name in classes]
        probabilities.append({name: held[columns].to_numpy() for name, held in videos.items()})
        decided.append({} if of_problem["decided"].isna().all() else numbers("decided"))
    return problems, probabilities, decided


def _numbers(texts: Any, *, classes: list[str], overlapping: bool, name: str) -> Ints:
    """What :func:`names_of` made text of."""
    values = [text if isinstance(text, str) else None for text in texts]
    if overlapping:
        shown = [text if text is None else text.split("+") for text in values]
        rows = [[UNLABELLED if s is None else int(c in s) for c in classes] for s in shown]
        return np.array(rows, np.int8)
    index = {name: c for c, name in enumerate(classes)} | {None: UNLABELLED}
    return np.array([index[text] for text in values], np.int8)


def names_of(problem: Problem, labels: Ints, *, known: npt.NDArray[np.bool_]) -> list[str | None]:
    """Labels or decisions as text; None where not ``known``."""
    if problem.overlapping:
        combinations, index = np.unique(labels == 1, axis=0, return_inverse=True)
        texts = [
            "+".join(name for name, shown in zip(problem.classes, marks, strict=True) if shown)
            for marks in combinations
        ]
        return [
            texts[i] if seen else None for i, seen in zip(index.reshape(-1), known, strict=True)
        ]
    return [
        problem.classes[label] if seen else None
        for label, seen in zip(labels.tolist(), known, strict=True)
    ]


def _constant(text: str, frames: int) -> Any:
    return pa.DictionaryArray.from_arrays(np.zeros(frames, np.int32), pa.array([text]))


def _text(values: Sequence[str | None]) -> Any:
    return pa.array(values, pa.string()).dictionary_encode()
