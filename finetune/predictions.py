"""The file of a seed's predictions, from which anyone can compute every score again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from finetune.fit import Probabilities
from finetune.labels import Problem
from finetune.scores.frames import Ints, looked_at
from pretrain.errors import BadInput

_ABOUT = "ethoray.problems"
_TEXTS = ("video", "task", "problem", "annotator", "label", "decided")

Decisions = Mapping[str, Ints]
"""Video to what was decided after the network: (T,), or (T, C)."""


def write_predictions(
    folder: Path, problems: Sequence[Problem], probabilities: Sequence[Probabilities], *, seed: int,
    decided: Sequence[Decisions] | None = None,
) -> Path:  # fmt: skip
    """Writes ``seed-42.parquet``: every frame of every test video, the problems of the task one after the other.

    Columns: video, frame, task, problem, annotator; label (name of the class; null where nobody looked; overlapping behaviours
    joined by ``+``, empty where none is shown); decided (likewise, after thresholds and smoothing; null where nothing comes after
    the network); ``p_<class>`` for each class of any problem, the raw score of the network, null where the problem has no
    such class.

    Args:
        folder: Made if it is not there.
        problems: With the labels of the test videos.
        probabilities: For each problem.
        seed: Names the file.
        decided: For each problem.
    """
    folder.mkdir(parents=True, exist_ok=True)
    classes = list(dict.fromkeys(name for problem in problems for name in problem.classes))
    tables = []
    for p, (problem, found) in enumerate(zip(problems, probabilities, strict=True)):
        for video in sorted(found):
            labels, scores = problem.test[video], found[video]
            after = None if decided is None else names_of(problem, decided[p][video], known=np.ones(len(labels), bool))
            columns: dict[str, Any] = {
                "video": _same(video, len(labels)),
                "frame": pa.array(np.arange(len(labels), dtype=np.int32)),
                "task": _same(problem.task, len(labels)),
                "problem": _same(problem.name, len(labels)),
                "annotator": _same(problem.annotator, len(labels)),
                "label": _text(names_of(problem, labels, known=looked_at(labels))),
                "decided": _text([None] * len(labels) if after is None else after),
            }
            for name in classes:
                held = name in problem.classes
                columns[f"p_{name}"] = (
                    pa.array(scores[:, problem.classes.index(name)].astype(np.float32)) if held else pa.nulls(len(labels), pa.float32())
                )
            tables.append(pa.table(columns))
    table = pa.concat_tables(tables).unify_dictionaries()
    about = [{"name": p.name, "classes": list(p.classes), "overlapping": p.overlapping} for p in problems]
    path = folder / f"seed-{seed}.parquet"
    pq.write_table(table.replace_schema_metadata({_ABOUT: json.dumps(about)}), path, compression="zstd")
    return path


def read_predictions(path: Path) -> Iterator[tuple[Problem, Probabilities, Decisions | None]]:
    """Each problem of a file of predictions: with the test labels, the raw scores, and what was decided after the network.

    Raises:
        BadInput: If it is no such file.
    """
    try:
        table = pq.ParquetFile(path).read(use_threads=False)
        about = json.loads((table.schema.metadata or {})[_ABOUT.encode()])
        columns = {name: np.array(table[name].to_pylist(), object) for name in _TEXTS}
        scores = {name[2:]: table[name].to_numpy() for name in table.column_names if name.startswith("p_")}
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise BadInput(f"{path} is no file of predictions, or damaged: {error!r}") from error
    for held in about:
        classes, overlapping = tuple(held["classes"]), bool(held["overlapping"])
        rows = np.flatnonzero(columns["problem"] == held["name"])
        labels, found, decided = {}, {}, {}
        for video in dict.fromkeys(columns["video"][rows]):
            mine = rows[columns["video"][rows] == video]
            labels[video], decided[video] = (
                _places(columns[name][mine], classes, overlapping=overlapping) for name in ("label", "decided")
            )
            found[video] = np.stack([scores[c][mine] for c in classes], axis=1).astype(np.float32)
        task, annotator = (columns[name][rows[0]] if len(rows) else "" for name in ("task", "annotator"))
        problem = Problem(
            name=held["name"], task=task, classes=classes, annotator=annotator, overlapping=overlapping, train={}, test=labels
        )
        yield problem, found, decided if any(text is not None for text in columns["decided"][rows]) else None


def names_of(problem: Problem, labels: Ints, *, known: npt.NDArray[np.bool_]) -> list[str | None]:
    """Labels or decisions as text; None where not ``known``."""
    if problem.overlapping:
        kinds, which = np.unique(labels == 1, axis=0, return_inverse=True)
        texts = ["+".join(name for name, shown in zip(problem.classes, kind, strict=True) if shown) for kind in kinds]
        return [texts[k] if seen else None for k, seen in zip(which.reshape(-1), known, strict=True)]
    return [problem.classes[label] if seen else None for label, seen in zip(labels.tolist(), known, strict=True)]


def _places(texts: npt.NDArray[Any], classes: Sequence[str], *, overlapping: bool) -> npt.NDArray[np.int8]:
    place = {name: c for c, name in enumerate(classes)}
    if not overlapping:
        return np.array([-1 if text is None else place[text] for text in texts], np.int8)
    rows = np.full((len(texts), len(classes)), -1, np.int8)
    for row, text in zip(rows, texts, strict=True):
        if text is not None:
            row[:] = 0
            row[[place[name] for name in ([text] if text in place else text.split("+")) if name]] = 1
    return rows


def _same(text: str, frames: int) -> Any:
    return pa.DictionaryArray.from_arrays(np.zeros(frames, np.int32), pa.array([text]))


def _text(values: Sequence[str | None]) -> Any:
    return pa.array(values, pa.string()).dictionary_encode()
