"""What is in the files of predictions; and every score of ``result.json`` from them alone, with
pandas and scikit-learn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from sklearn.metrics import average_precision_score, f1_score

REST = ("none", "background", "base", "other")


Arrays = dict[str, np.ndarray]


def predictions(path: Path) -> Iterator[tuple[dict[str, Any], Arrays, Arrays, Arrays | None]]:
    """Each problem of a file: what it says of the problem, and by video labels, raw scores and what
    was decided."""
    table = pq.read_table(path)
    rows = table.to_pandas()
    for about in json.loads(table.schema.metadata[b"ethoray.problems"]):
        each = dict(iter(rows[rows["problem"] == about["name"]].groupby("video", observed=True)))
        labels, decided = (
            {name: _numbers(held[of], **about) for name, held in each.items()}
            for of in ("label", "decided")
        )
        scores = {
            name: held[[f"p_{c}" for c in about["classes"]]].to_numpy()
            for name, held in each.items()
        }
        yield (
            about,
            labels,
            scores,
            decided if any(held["decided"].notna().any() for held in each.values()) else None,
        )


def _numbers(texts: pd.Series, *, classes: list[str], overlapping: bool, **_: str) -> np.ndarray:
    if overlapping:
        return np.array(
            [
                [-1 if pd.isna(text) else int(c in text.split("+")) for c in classes]
                for text in texts
            ],
            np.int8,
        )
    return np.array([-1 if pd.isna(text) else classes.index(text) for text in texts], np.int8)


def recomputed(folder: Path) -> dict[str, float]:
    """``macro_f1``, ``map``, their population standard deviations, and ``after`` (macro F1 of the
    column ``decided``, NaN without)."""
    seeds = [_seed(pd.read_parquet(path)) for path in sorted(folder.glob("seed-*.parquet"))]
    names = ("macro_f1", "map", "after")
    found = {name: float(np.mean([seed[i] for seed in seeds])) for i, name in enumerate(names)}
    return found | {
        f"{name}_std": float(np.std([seed[i] for seed in seeds])) for i, name in enumerate(names)
    }


def _seed(table: pd.DataFrame) -> tuple[float, ...]:
    each = [_problem(held) for _, held in table.groupby("problem", observed=True)]
    return tuple(float(np.mean([scores[i] for scores in each])) for i in range(3))


def _problem(table: pd.DataFrame) -> tuple[float, float, float]:
    columns = [
        name for name in table.columns if name.startswith("p_") and table[name].notna().all()
    ]
    classes = [name[2:] for name in columns]
    known = table[table["label"].notna()]
    p = known[columns].to_numpy()
    overlapping = bool((~known["label"].isin(classes)).any())
    f1s, aps, afters = [], [], []
    for c, name in enumerate(classes):
        if name in REST and not overlapping:
            continue
        if overlapping:
            truth, chosen, after = (
                _shows(known["label"], name),
                p[:, c] > 0.5,
                None if known["decided"].isna().all() else _shows(known["decided"], name),
            )
        else:
            truth, chosen = (known["label"] == name).to_numpy(), p.argmax(1) == c
            after = None if known["decided"].isna().all() else (known["decided"] == name).to_numpy()
        if truth.any():
            f1s.append(f1_score(truth, chosen))
            aps.append(average_precision_score(truth, p[:, c]))
            afters.append(np.nan if after is None else f1_score(truth, after))
    return float(np.mean(f1s)), float(np.mean(aps)), float(np.mean(afters))


def _shows(column: pd.Series, name: str) -> np.ndarray:
    return np.array([name in text.split("+") for text in column])
