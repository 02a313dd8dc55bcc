"""Every score of ``result.json`` from the files of predictions alone, with pandas and scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, f1_score

REST = ("none", "background", "base", "other")


def recomputed(folder: Path) -> dict[str, float]:
    """``macro_f1``, ``map``, their population standard deviations, and ``after`` (macro F1 of the column ``decided``, NaN without)."""
    seeds = [_seed(pd.read_parquet(path)) for path in sorted(folder.glob("seed-*.parquet"))]
    names = ("macro_f1", "map", "after")
    found = {name: float(np.mean([seed[i] for seed in seeds])) for i, name in enumerate(names)}
    return found | {f"{name}_std": float(np.std([seed[i] for seed in seeds])) for i, name in enumerate(names)}


def _seed(table: pd.DataFrame) -> tuple[float, ...]:
    each = [_problem(held) for _, held in table.groupby("problem", observed=True)]
    return tuple(float(np.mean([scores[i] for scores in each])) for i in range(3))


def _problem(table: pd.DataFrame) -> tuple[float, float, float]:
    columns = [name for name in table.columns if name.startswith("p_") and table[name].notna().all()]
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
                _shows(known["label"], name), p[:, c] > 0.5, None if known["decided"].isna().all() else _shows(known["decided"], name)
            )  # fmt: skip
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
