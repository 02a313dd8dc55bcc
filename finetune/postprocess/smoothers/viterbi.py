"""The most probable sequence of bouts, given the frames' probabilities: a hidden Markov model
decoded with Viterbi's recursion."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from finetune.labels.frame_labels import Ints, Reals
from finetune.postprocess.smoothers._class_chain import ClassChain


@dataclass(frozen=True, kw_only=True)
class Viterbi(ClassChain):
    """The best of all sequences of classes."""

    title: ClassVar[str] = "viterbi"
    weights: ClassVar[tuple[float, ...]] = (1.0, 0.3, 0.1)
    prior_powers: ClassVar[tuple[float, ...]] = (0.5, 1.0)

    def apply(self, probabilities_TC: Reals) -> Ints:
        """Decodes one video."""
        path_TN = decode(
            emission_TNS=self.emission(probabilities_TC),
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
