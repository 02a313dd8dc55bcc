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
from finetune.labels.frame_labels import Ints, looked_at
from finetune.labels.problems import Problem

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
