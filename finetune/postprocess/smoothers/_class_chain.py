"""A Markov chain over the classes, learned from labels: what Viterbi decoding and forward-backward
smoothing share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from finetune.labels.frame_labels import (
    UNLABELLED,
    ByVideo,
    Ints,
    Reals,
    examine_video,
    examine_videos,
    log_odds,
    log_probability,
)
from finetune.metrics.bouts import bouts
from finetune.postprocess.smoothers import AbstractSmoother, are_overlapping


@dataclass(frozen=True, kw_only=True)
class ClassChain(AbstractSmoother):
    """States are classes, and a class is left at the rate of its bouts in the labels.

    The network's posterior divided by the prior it was trained under is a scaled likelihood
    (Bourlard and Morgan 1994), so emission = weight * (log p - log prior). Overlapping behaviours
    are C chains of two states each.
    Axes: N chains (1 where classes are exclusive), S states.
    """

    least_videos: ClassVar[int] = 4
    title: ClassVar[str]
    """What candidates are called."""
    weights: ClassVar[tuple[float, ...]]
    """Those that are tried, each with each of ``prior_powers``."""
    prior_powers: ClassVar[tuple[float, ...]]

    initial: tuple[tuple[float, ...], ...]
    """(N, S)."""
    transition: tuple[tuple[tuple[float, ...], ...], ...]
    """(N, S from, S to), for one frame at the rate of the labels."""
    prior: tuple[tuple[float, ...], ...]
    """(N, S), raised to the power that it counts with."""
    weight: float = 1.0
    """Below 1: neighbouring frames repeat each other, so each counts for less than a whole
    observation."""
    overlapping: bool = False

    @classmethod
    def candidates(
        cls, *, probabilities: ByVideo, labels: ByVideo, classes: Sequence[str], rest: str | None
    ) -> dict[str, Self]:
        """Several weights of the frames against the transitions, and powers of the prior."""
        if len(classes) < 2 and not are_overlapping(labels):
            return {}
        return {
            f"{cls.title}, weight {weight:g}, prior {power:g}": cls.fit(
                probabilities=probabilities,
                labels=labels,
                classes=classes,
                weight=weight,
                prior_power=power,
            )
            for weight in cls.weights
            for power in cls.prior_powers
        }

    @classmethod
    def fit(
        cls,
        *,
        probabilities: ByVideo,
        labels: ByVideo,
        classes: Sequence[str],
        weight: float = 1.0,
        prior_power: float = 1.0,
    ) -> Self:
        """Counts bouts and their successions in the labels.

        A bout that the end of a video or an unlabelled frame cuts short is not counted as left. One
        pseudo-frame at the common rate and one pseudo-succession, spread evenly, keep everything
        possible. The prior is the network's mean probability on the labelled frames: training with
        class weights moves it away from the classes' shares, and it is the network's that divides.
        With a ``prior_power`` below 1 rare classes are favoured less: a long stretch of frames that
        repeat each other divides by the prior again and again.

        Raises:
            BadInput: If videos or shapes disagree or no frame is labelled.
        """
        examine_videos(labels=labels, classes=classes, probabilities=probabilities)
        overlapping = are_overlapping(labels)
        columns: list[Any] = list(range(len(classes))) if overlapping else [slice(None)]
        pooled_TC = np.concatenate([np.asarray(probabilities[name], np.float64) for name in labels])
        initial, transition, prior = [], [], []
        for column in columns:
            sequences = [values[:, column] if overlapping else values for values in labels.values()]
            initial_S, transition_SS = _chain(sequences, states=2 if overlapping else len(classes))
            known = np.concatenate(sequences) != UNLABELLED
            prior_S = initial_S
            if known.any():
                mean = pooled_TC[known].mean(axis=0)
                prior_S = (
                    np.array([1 - mean[column], mean[column]]) if overlapping else mean / mean.sum()
                )
            initial.append(_tuple(initial_S))
            transition.append(tuple(map(_tuple, transition_SS)))
            prior.append(_tuple(np.maximum(prior_S, 1e-6) ** prior_power))
        return cls(
            initial=tuple(initial),
            transition=tuple(transition),
            prior=tuple(prior),
            weight=weight,
            overlapping=overlapping,
        )

    def emission(self, probabilities_TC: Reals) -> Reals:
        """(T, N, S): weighted log-likelihood of each frame of a video in each state."""
        examine_video(
            probabilities_TC=probabilities_TC,
            n_classes=len(self.initial if self.overlapping else self.initial[0]),
        )
        if self.overlapping:  # of two states only the difference counts
            odds_TC = log_odds(probabilities_TC)
            log_p_TNS = np.stack([np.zeros_like(odds_TC), odds_TC], axis=2)
        else:
            log_p_TNS = log_probability(probabilities_TC)[:, None, :]
        return np.asarray(self.weight * (log_p_TNS - np.log(self.prior)))


def _chain(sequences: Iterable[Ints], *, states: int) -> tuple[Reals, Reals]:
    """Initial (S,) and transition (S, S) probabilities of label sequences."""
    frames, cut_short, left = np.zeros(states), np.zeros(states), np.zeros((states, states))
    for sequence in sequences:
        rows = bouts(sequence)
        np.add.at(frames, rows[:, 2], rows[:, 1] - rows[:, 0])
        follows = np.append(rows[1:, 0] == rows[:-1, 1], np.zeros(min(len(rows), 1), bool))
        np.add.at(left, (rows[:-1][follows[:-1], 2], rows[1:][follows[:-1], 2]), 1)
        np.add.at(cut_short, rows[~follows, 2], 1)
    steps = frames - cut_short  # the last frame before a cut shows no step
    common = (left.sum() + 1) / (frames.sum() + 1)
    rate = (left.sum(axis=1) + common) / (steps + 1)
    spread = (1 - np.eye(states)) / (states - 1)
    onward = (left + spread) / (left.sum(axis=1, keepdims=True) + 1)
    return (frames + 1) / (frames.sum() + states), np.diag(1 - rate) + rate[:, None] * onward


def _tuple(values: Reals) -> tuple[float, ...]:
    return tuple(values.tolist())
