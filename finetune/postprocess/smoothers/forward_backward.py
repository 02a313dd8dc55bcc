"""The probability of each class in each frame, given the whole video: forward-backward smoothing
over a Markov chain of the classes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from finetune.labels.frame_labels import Ints, Reals, decide
from finetune.postprocess.smoothers._class_chain import ClassChain


@dataclass(frozen=True, kw_only=True)
class ForwardBackward(ClassChain):
    """The posterior of each class serves as decision and as score."""

    title: ClassVar[str] = "forward-backward"
    weights: ClassVar[tuple[float, ...]] = (1.0, 0.3, 0.1, 0.03)
    prior_powers: ClassVar[tuple[float, ...]] = (0.5, 1.0)

    def scores(self, probabilities_TC: Reals) -> Reals:
        """Posteriors of one video."""
        posterior_TNS = posteriors(
            emission_TNS=self.emission(probabilities_TC),
            initial_NS=np.array(self.initial),
            transition_NSS=np.array(self.transition),
        )
        return posterior_TNS[:, :, 1] if self.overlapping else posterior_TNS[:, 0]

    def apply(self, probabilities_TC: Reals) -> Ints:
        """Decides from the posteriors."""
        return decide(probabilities_TC=self.scores(probabilities_TC), overlapping=self.overlapping)


def posteriors(*, emission_TNS: Reals, initial_NS: Reals, transition_NSS: Reals) -> Reals:
    """The forward-backward recursion, for N independent chains at once.

    About sqrt(T) blocks of as many frames are computed in parallel: first what each block does to
    any state that it may be entered in, a matrix; then, when it is known what enters it from
    before and from behind, once forwards and once backwards. A million frames take seconds.

    Args:
        emission_TNS: Log-likelihood of each frame in each state.
        initial_NS: Probability of the first state.
        transition_NSS: Probability of each step, from and to.

    Returns:
        (T, N, S), summing to one over S.
    """
    n_frames, n_chains, n_states = emission_TNS.shape
    if not n_frames:
        return np.zeros(emission_TNS.shape)
    likelihood_TNS = np.exp(emission_TNS - emission_TNS.max(axis=2, keepdims=True))
    first_NS = _normalised(initial_NS * likelihood_TNS[0])
    steps = n_frames - 1
    length = max(math.isqrt(steps), 1)
    blocks = max(-(-steps // length), 1)
    # Frames that tell nothing fill the last block: they change nothing before them.
    spare = np.ones((blocks * length - steps, n_chains, n_states))
    by_block = np.concatenate([likelihood_TNS[1:], spare]).reshape(
        blocks, length, n_chains, 1, n_states
    )
    frames = by_block.swapaxes(0, 1)  # (frame of a block, block, chain, 1, state)
    backwards_NSS = transition_NSS.swapaxes(1, 2)

    through = np.broadcast_to(  # entered in, now in
        np.eye(n_states), (blocks, n_chains, n_states, n_states)
    )
    for frame in frames:
        through = (through @ transition_NSS) * frame
        through = through / through.sum(axis=(2, 3), keepdims=True)
    before = np.empty((blocks, n_chains, 1, n_states))
    behind = np.empty((blocks, n_chains, 1, n_states))
    before[0], behind[-1] = first_NS[:, None], 1 / n_states
    for block in range(1, blocks):
        before[block] = _normalised(before[block - 1] @ through[block - 1])
    for block in range(blocks - 1, 0, -1):
        behind[block - 1] = _normalised(behind[block] @ through[block].swapaxes(1, 2))

    posterior = np.empty(frames.shape)
    forward = before
    for step, frame in enumerate(frames):
        forward = _normalised((forward @ transition_NSS) * frame)
        posterior[step] = forward
    backward = behind
    for step in range(length - 1, -1, -1):
        posterior[step] *= backward
        backward = _normalised((backward * frames[step]) @ backwards_NSS)
    rest = posterior.swapaxes(0, 1).reshape(-1, n_chains, n_states)[:steps]
    return _normalised(np.concatenate([(first_NS * backward[0, :, 0])[None], rest]))


def _normalised(values: Reals) -> Reals:
    return np.asarray(values / values.sum(axis=-1, keepdims=True))
