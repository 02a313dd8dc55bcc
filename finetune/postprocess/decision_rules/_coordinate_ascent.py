"""Coordinate ascent on macro F1: what is added to the scores of each class before the argmax."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from finetune.labels.frame_labels import Ints, Reals

SWEEPS = 20
"""Passes over the classes at most; it stops when one gains nothing."""


def best_moves(raw_NC: Reals, truth: Ints, *, counted: npt.NDArray[np.bool_]) -> Reals:
    """Moves (C,) that maximise the mean F1 of the ``counted`` classes (C,) that occur, each step an
    exact search over all breakpoints. They are added to the scores of N labelled frames before the
    argmax."""
    totals = np.bincount(truth.astype(np.int64), minlength=raw_NC.shape[1])
    scored, moves = counted & (totals > 0), np.zeros(raw_NC.shape[1])
    for _ in range(SWEEPS if scored.any() else 0):
        before = moves.copy()
        for c in np.flatnonzero(scored | ~counted):
            moves[c] = _best_move(
                raw_NC, truth, moves=moves, c=int(c), totals=totals, scored=scored
            )
        if (moves == before).all():
            break
    return moves


def _best_move(
    raw_NC: Reals, truth: Ints, *, moves: Reals, c: int, totals: Ints, scored: npt.NDArray[np.bool_]
) -> float:
    """The move of class c that is best while the others stay: every breakpoint is tried."""
    others = raw_NC + moves
    others[:, c] = -np.inf
    rival = others.argmax(axis=1)
    needed = others[np.arange(len(others)), rival] - raw_NC[:, c]
    order = np.argsort(needed)  # frames change to c in this order
    needed, rival, truth = needed[order], rival[order], truth[order]
    f1 = np.zeros(len(needed) + 1)  # after the first 0, 1, … N frames changed
    for j in np.flatnonzero(scored):
        if j == c:
            hit, chosen = _running(truth == c), np.arange(len(f1))
        else:
            own = rival == j
            lost_hit, lost = _running(own & (truth == j)), _running(own)
            hit, chosen = lost_hit[-1] - lost_hit, lost[-1] - lost
        f1 += 2 * hit / (totals[j] + chosen) / scored.sum()
    edges = np.concatenate([needed[:1] - 1, needed, needed[-1:] + 1])
    f1[edges[1:] <= edges[:-1]] = -1  # frames of equal need change together
    now = np.searchsorted(needed, moves[c])
    if f1.max() <= f1[now] + 1e-12:
        return float(moves[c])
    cuts = (edges[1:] + edges[:-1]) / 2
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(cuts[best[np.abs(cuts[best] - moves[c]).argmin()]])


def _running(flags: Ints) -> Ints:
    return np.concatenate([[0], np.cumsum(flags)])
