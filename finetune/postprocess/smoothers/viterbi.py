"""The most probable sequence of bouts, given the frames' probabilities: a hidden Markov model
decoded with Viterbi's recursion."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

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
from pretrain.errors import refuse

WEIGHTS = (1.0, 0.3, 0.1, 0.03)


@dataclass(frozen=True, kw_only=True)
class Viterbi(AbstractSmoother):
    """States are classes, and a class is left at the rate of its bouts in the labels.

    The network's posterior divided by the prior it was trained under is a scaled likelihood
    (Bourlard and Morgan 1994), so emission = weight * (log p - log prior). Overlapping behaviours
    are C chains of two states each.
    Axes: N chains (1 where classes are exclusive), S states.
    """

    initial: tuple[tuple[float, ...], ...]
    """(N, S)."""
    transition: tuple[tuple[tuple[float, ...], ...], ...]
    """(N, S from, S to)."""
    prior: tuple[tuple[float, ...], ...]
    """(N, S)."""
    weight: float = 1.0
    """Below 1: neighbouring frames repeat each other, so each counts for less than a whole
    observation."""
    overlapping: bool = False

    @classmethod
    def candidates(
        cls, *, probabilities: ByVideo, labels: ByVideo, classes: Sequence[str], rest: str | None
    ) -> dict[str, Self]:
        """Several weights of the frames against the transitions."""
        if len(classes) < 2 and not are_overlapping(labels):
            return {}
        return {
            f"viterbi, weight {weight:g}": cls.fit(
                probabilities=probabilities, labels=labels, classes=classes, weight=weight
            )
            for weight in WEIGHTS
        }

    @classmethod
    def fit(
        cls, *, probabilities: ByVideo, labels: ByVideo, classes: Sequence[str], weight: float = 1.0
    ) -> Self:
        """Counts bouts and their successions in the labels.

        A bout that the end of a video or an unlabelled frame cuts short is not counted as left. One
        pseudo-frame at the common rate and one pseudo-succession, spread evenly, keep everything
        possible. The prior is the network's mean probability on the labelled frames: training with
        class weights moves it away from the classes' shares, and it is the network's that divides.

        Args:
            probabilities: (T, C) for each video.
            labels: (T,) or (T, C) for each of them.
            classes: Names, in the order of axis C; at least two where they are exclusive.
            weight: Above 0.

        Raises:
            BadInput: If videos or shapes disagree, no frame is labelled or a setting is out of
                range.
        """
        examine_videos(labels=labels, classes=classes, probabilities=probabilities)
        overlapping = are_overlapping(labels)
        errors = [] if weight > 0 else [f"weight is {weight}; it must be above 0"]
        if not overlapping and len(classes) < 2:
            errors.append(f"there is one exclusive class, {classes[0]!r}; it needs two or more")
        refuse(errors, about="Viterbi decoding")
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
            prior.append(_tuple(np.maximum(prior_S, 1e-6)))
        return cls(
            initial=tuple(initial),
            transition=tuple(transition),
            prior=tuple(prior),
            weight=weight,
            overlapping=overlapping,
        )

    def apply(self, probabilities_TC: Reals) -> Ints:
        """Decodes one video."""
        examine_video(
            probabilities_TC=probabilities_TC,
            n_classes=len(self.initial if self.overlapping else self.initial[0]),
        )
        if self.overlapping:  # of two states only the difference counts
            odds_TC = log_odds(probabilities_TC)
            log_p_TNS = np.stack([np.zeros_like(odds_TC), odds_TC], axis=2)
        else:
            log_p_TNS = log_probability(probabilities_TC)[:, None, :]
        path_TN = decode(
            emission_TNS=self.weight * (log_p_TNS - np.log(self.prior)),
            initial_NS=np.log(self.initial),
            transition_NSS=np.log(self.transition),
        )
        return path_TN if self.overlapping else path_TN[:, 0]


def decode(*, emission_TNS: Reals, initial_NS: Reals, transition_NSS: Reals) -> Ints:
    """Viterbi's recursion in logarithms, for N independent chains at once.

    About sqrt(T) blocks of as many frames are decoded in parallel: first from every state a block
    may be entered in, then, when it is known what entering costs, once more with the way back. One
    frame after the other takes ten times as long.

    Args:
        emission_TNS: Log-likelihood of each frame in each state.
        initial_NS: Log-probability of the first state.
        transition_NSS: Log-probability of each step, from and to.

    Returns:
        (T, N) states.
    """
    n_frames, n_chains, n_states = emission_TNS.shape
    steps = n_frames - 1
    if steps < 1:
        return np.asarray((initial_NS + emission_TNS).argmax(axis=2))
    length = math.isqrt(steps)
    blocks = -(-steps // length)
    spare = blocks * length - steps  # frames that the last block lacks
    padded = np.concatenate([emission_TNS[1:], np.zeros((spare, n_chains, n_states))])
    emission = padded.reshape(blocks, length, n_chains, n_states).swapaxes(0, 1)
    into = transition_NSS.swapaxes(1, 2)  # to, from
    states = np.arange(n_states)

    gain = np.broadcast_to(  # entered in, now in
        np.where(np.eye(n_states), 0.0, -np.inf), (blocks, n_chains, n_states, n_states)
    )
    for frame in emission:
        gain = (gain[..., None, :] + into[:, None]).max(axis=-1) + frame[:, :, None]
    entry = np.empty((blocks, n_chains, n_states))
    entry[0] = initial_NS + emission_TNS[0]
    for block in range(1, blocks):  # the last block's gain, spare frames and all, is not used
        entry[block] = (entry[block - 1][:, :, None] + gain[block - 1]).max(axis=1)

    came_from = np.empty((length, blocks, n_chains, n_states), np.int16)
    best = entry
    for step, frame in enumerate(emission):
        options = best[:, :, None, :] + into
        came_from[step], reached = options.argmax(axis=-1), options.max(axis=-1) + frame
        if step >= length - spare:
            came_from[step, -1], reached[-1] = states, best[-1]
        best = reached

    state = np.broadcast_to(states.astype(np.int16), (blocks, n_chains, n_states))
    # The state at this frame, for each state that the block may be left in.
    through = np.empty_like(came_from)
    for step in range(length - 1, -1, -1):
        through[step] = state
        state = np.take_along_axis(came_from[step], state, axis=2)
    chains = np.arange(n_chains)
    left_in = np.empty((blocks, n_chains), np.int64)
    left_in[-1] = best[-1].argmax(axis=1)
    for block in range(blocks - 1, 0, -1):
        left_in[block - 1] = state[block, chains, left_in[block]]
    path = np.take_along_axis(through, left_in[None, :, :, None], axis=3)[..., 0]
    first = state[0, chains, left_in[0]]
    return np.concatenate([first[None], path.swapaxes(0, 1).reshape(-1, n_chains)[:steps]]).astype(
        np.int64
    )


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
