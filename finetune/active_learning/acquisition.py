"""Which stretches of unlabelled video a person should label next: uncertain ones, and unlike each
other.

**Uncertain** is a small margin between the two likeliest classes (Scheffer et al. 2001; Settles
2009, Active Learning Literature Survey). Entropy would count the likes of a third and fourth class
too, which a person's answer does not configure_torch, and grows with the number of classes; least
confidence cannot tell a tie of two from a tie of many. For one behaviour against the rest all three
rank alike.

**Unlike** is the greedy k-centre rule of Sener & Savarese (2018, Active Learning for Convolutional
Neural Networks: A Core-Set Approach): take what lies farthest from everything labelled or taken
already, in the encoder's embedding. By itself that rule seeks out tracking errors, so it works
within the most uncertain stretches, and distances are weighed by uncertainty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from finetune.labels.frame_labels import UNLABELLED, Ints, Reals
from finetune.labels.problems import Problem
from finetune.metrics.bouts import bouts

POOL = 8
"""Stretches among which unlikeness decides, for each that is wanted."""


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """A part of one video that is labelled at one go."""

    video: str
    start: int
    stop: int
    """Frame after the last."""
    guess: str
    """Behaviour with the highest mean probability."""
    rival: str
    """The one after it; for overlapping behaviours the least certain."""
    chances: tuple[float, float]
    """Mean probabilities of the two."""
    uncertainty: float
    """0 to 1: one minus the margin, the mean over its frames."""
    z_D: npt.NDArray[np.float32]
    """Mean embedding."""

    @property
    def why(self) -> str:
        """In words."""
        return f"{self.guess} {self.chances[0]:.2f}, {self.rival} {self.chances[1]:.2f}"


def uncertainty(probabilities_TC: Reals, *, overlapping: bool) -> Reals:
    """(T,): one minus the margin between the two likeliest classes; of overlapping behaviours that
    of the least certain one."""
    if overlapping or probabilities_TC.shape[1] == 1:
        return np.asarray(1 - np.abs(2 * probabilities_TC - 1).min(axis=1))
    two = np.partition(probabilities_TC, -2, axis=1)[:, -2:]
    return np.asarray(1 - (two[:, 1] - two[:, 0]))


def cut(
    video: str,
    problem: Problem,
    labels: Ints,
    probabilities_TC: Reals,
    z_TD: npt.NDArray[np.float32],
    *,
    shortest: int,
    longest: int,
    free_T: npt.NDArray[np.bool_] | None = None,
) -> list[Stretch]:
    """Cuts one video into predicted bouts; flickers are put together and long bouts parted.

    Args:
        video: Its name.
        problem: Names the classes.
        labels: What was decided: (T,) classes, or (T, C) of 0 and 1.
        probabilities_TC: Calibrated, if possible.
        z_TD: Embeddings.
        shortest: Frames below which bouts are put together with what follows.
        longest: Frames above which a bout is parted evenly.
        free_T: Where nobody has labelled yet; None: everywhere.
    """
    kinds = (
        np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)
        if labels.ndim == 2
        else labels
    )
    runs = bouts(kinds if free_T is None else np.where(free_T, kinds, UNLABELLED))
    doubt = uncertainty(probabilities_TC, overlapping=problem.overlapping)
    found = []
    for start, stop in _parted(_joined(runs[:, :2].tolist(), shortest), longest):
        mean = probabilities_TC[start:stop].mean(axis=0)
        order = np.argsort(-mean, kind="stable")
        first, second = int(order[0]), int(order[min(1, len(order) - 1)])
        if problem.overlapping:
            second = int(np.abs(2 * mean - 1).argmin())
        found.append(
            Stretch(
                video=video,
                start=start,
                stop=stop,
                guess=problem.classes[first],
                rival=problem.classes[second],
                chances=(float(mean[first]), float(mean[second])),
                uncertainty=float(doubt[start:stop].mean()),
                z_D=z_TD[start:stop].mean(axis=0),
            )
        )
    return found


def _joined(runs: Sequence[Sequence[int]], shortest: int) -> list[tuple[int, int]]:
    """Short runs with what follows, and the last with what went before; a gap between two keeps
    them apart."""
    found: list[tuple[int, int]] = []
    for start, stop in runs:
        if found and found[-1][1] == start and found[-1][1] - found[-1][0] < shortest:
            found[-1] = (found[-1][0], stop)
        else:
            found.append((start, stop))
    whole: list[tuple[int, int]] = []
    for start, stop in found:
        if whole and whole[-1][1] == start and stop - start < shortest:
            whole[-1] = (whole[-1][0], stop)
        else:
            whole.append((start, stop))
    return whole


def _parted(runs: Sequence[tuple[int, int]], longest: int) -> list[tuple[int, int]]:
    found = []
    for start, stop in runs:
        edges = (
            np.linspace(start, stop, -(-(stop - start) // longest) + 1).round().astype(int).tolist()
        )
        found += list(pairwise(edges))
    return found


def rank(
    stretches: Sequence[Stretch], *, number: int, labelled_ND: npt.NDArray[np.float32] | None = None
) -> list[Stretch]:
    """So many stretches, the most wanted first.

    Args:
        stretches: All there are.
        number: How many to take.
        labelled_ND: Mean embeddings of what is labelled already.
    """
    pool = sorted(stretches, key=lambda held: -held.uncertainty)[: POOL * number]
    if not pool:
        return []
    z_ND = np.stack([held.z_D for held in pool]).astype(np.float64)
    spread = np.std([held.z_D for held in stretches], axis=0) + 1e-6
    doubt = np.array([held.uncertainty for held in pool]) + 1e-9
    if labelled_ND is None or not len(labelled_ND):
        distance = np.full(len(pool), np.inf)
    else:
        distance = np.min(
            [np.linalg.norm((z_ND - held) / spread, axis=1) for held in labelled_ND], axis=0
        )
    taken: list[int] = []
    for _ in range(min(number, len(pool))):
        # Nothing is labelled: the most uncertain comes first.
        wanted = doubt if np.isinf(distance).all() else distance * doubt
        wanted = np.where(np.isin(np.arange(len(pool)), taken), -1.0, wanted)
        best = int(wanted.argmax())
        taken.append(best)
        distance = np.minimum(distance, np.linalg.norm((z_ND - z_ND[best]) / spread, axis=1))
    return [pool[place] for place in taken]


def labelled_embeddings(labels: Ints, z_TD: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(N, D): the mean embedding of every labelled bout of one video."""
    found = [z_TD[start:stop].mean(axis=0) for start, stop, _ in bouts(labels)]
    return np.stack(found) if found else np.empty((0, z_TD.shape[1]), np.float32)
