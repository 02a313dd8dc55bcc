"""Meta-learning: initial weights from which a behaviour is learned from few windows, learned on
other behaviours.

Each behaviour of each label set, against the rest of its frames, is one small task. An episode fits
it in a few steps of gradient descent on windows of one video and measures the loss on windows of
another; what is learned is the weights from which these steps lead to the lowest (MAML, Finn et al.
2017). ANIL (Raghu et al. 2020) leaves the encoder as it is and learns only the head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call

from finetune.fit.episodes import Episodes
from finetune.fit.fit import Model
from finetune.fit.frames import Frames
from finetune.fit.problem_loss import ProblemLoss
from finetune.fit.window_sampler import Batch, WindowSampler
from finetune.heads import AbstractHead
from finetune.labels.frame_labels import UNLABELLED
from finetune.labels.problems import Problem
from finetune.settings import Tuning
from pretrain.encoders import Embedder
from pretrain.errors import BadInput

Weights = Mapping[str, Tensor]


def other_behaviours(
    every: Iterable[Problem], target: Iterable[Problem], *, behaviours: Iterable[str] = ()
) -> list[Problem]:
    """One problem, ("rest", behaviour), for each behaviour and annotator of a store that is not a
    target: none of ``behaviours`` of the target, or of all it has, if they are left out.

    Only training labels are used, of videos on which the target is not tested.

    Raises:
        BadInput: If ``behaviours`` names one that the target does not have, or no other behaviour
            remains.
    """
    target = list(target)
    have = {name for problem in target for name in problem.classes if name != problem.rest}
    if unknown := sorted(set(behaviours) - have):
        raise BadInput(
            f"the task has no behaviour {', '.join(unknown)}; it has: {', '.join(sorted(have))}"
        )
    excluded = set(behaviours) or have
    tested = {video for problem in target for video in problem.test}
    others = [
        replace(
            problem,
            name=f"{name} ({problem.name})",
            classes=("rest", name),
            overlapping=False,
            train={
                video: _against_rest(labels, c)
                for video, labels in problem.train.items()
                if video not in tested
            },
            test={},
        )
        for problem in every
        for c, name in enumerate(problem.classes)
        if name != problem.rest and name not in excluded
    ]
    others = [problem for problem in others if len(_parts(problem)) > 1]
    if not others:
        raise BadInput(
            f"nothing to learn from: apart from {', '.join(sorted(excluded))} the store has no "
            "behaviour that is labelled in two training videos (or in both halves of one)"
        )
    return others


def _against_rest(labels: npt.NDArray[np.int8], c: int) -> npt.NDArray[np.int8]:
    """1 in frames of class c, 0 in others."""
    own = labels[:, c] if labels.ndim == 2 else labels
    positive = own == (1 if labels.ndim == 2 else c)
    return np.where(own == UNLABELLED, UNLABELLED, positive).astype(np.int8)


def _parts(problem: Problem) -> list[Problem]:
    """The problem on one video each, or on either half of a single one; those that show both
    classes."""
    train = problem.train
    if len(train) == 1:
        ((name, labels),) = train.items()
        early = np.arange(len(labels)) < len(labels) // 2
        halves = [
            np.where(early == first, labels, UNLABELLED).astype(np.int8) for first in (True, False)
        ]
        parts = [replace(problem, train={name: half}) for half in halves]
    else:
        parts = [problem.only([name]) for name in sorted(train)]
    return [
        part
        for part in parts
        if all((labels == c).any() for labels in part.train.values() for c in (0, 1))
    ]


class Network(nn.Module):
    """Encoder and head as one, so that both can be given other weights for a call."""

    def __init__(self, head: AbstractHead, embedder: Embedder | None) -> None:
        super().__init__()
        self.head, self.embedder = head, embedder

    def forward(self, batch: Batch) -> Tensor:
        """(B, T, 2) logits."""
        logits: list[Tensor] = self.head(batch.embeddings(self.embedder), batch.valid_BT)
        return logits[0]


def adapted(
    loss_of: Callable[[Weights], Tensor],
    initial: Weights,
    *,
    lr: float | Tensor,
    steps: int,
    first_order: bool,
) -> Weights:
    """Weights after a few steps of gradient descent from initial ones, which gradients reach
    through them. With ``first_order`` the steps count as constants: the gradient at the end is then
    taken as that of the initial weights.

    Gradients longer than 1 are shortened to 1, as in a fit.
    """
    weights = dict(initial)
    for _ in range(steps):
        gradients = torch.autograd.grad(
            loss_of(weights), list(weights.values()), create_graph=not first_order
        )
        norm = torch.stack([(g.detach() ** 2).sum() for g in gradients]).sum().sqrt()
        step = lr / norm.clamp(min=1.0)
        weights = {
            name: x - step * g for (name, x), g in zip(weights.items(), gradients, strict=True)
        }
    return weights


def meta_learn(
    model: Model,
    frames: Frames,
    behaviours: Sequence[Problem],
    tuning: Tuning,
    episodes: Episodes,
    *,
    seed: int,
    on_progress: Callable[[float], object] = lambda loss: None,
) -> tuple[list[float], float]:
    """Learns, in place, the weights of a model that a behaviour is fitted from, and how long the
    steps should be. The model is a head with one problem of two classes, and the encoder if it is
    to be learned too; ``frames`` are then poses, else embeddings. ``window`` and the loss of
    ``tuning`` are used, but not its class weights. ``on_progress`` is called after every step with
    its loss.

    Returns:
        Loss on the measured windows after adapting, of each step; step length learned.

    Raises:
        BadInput: If it diverges.
    """
    rng = np.random.default_rng([seed, 5])
    samplers = [
        [WindowSampler(frames, [part], tuning.window, balance=1.0) for part in _parts(problem)]
        for problem in behaviours
    ]
    # Windows are drawn around either class equally often, so neither needs a weight.
    unweighted = replace(tuning, class_weight=0.0, class_weights={})
    losses = [ProblemLoss.of(problem, unweighted) for problem in behaviours]
    # Dropout and batch statistics would blur what the steps do.
    network = Network(model.head, model.embedder).eval()
    some = [parts[0].draw(rng, episodes.windows) for parts in samplers]
    with torch.no_grad():
        model.head.standardise(
            torch.cat([batch.embeddings(model.embedder)[batch.valid_BT] for batch in some])
        )
    weights = dict(network.named_parameters())
    log_lr = torch.tensor(math.log(episodes.inner_lr), requires_grad=True)
    optimiser = torch.optim.Adam([*weights.values(), log_lr], lr=episodes.outer_lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, episodes.meta_steps)

    def episode_loss(b: int) -> Tensor:
        """Loss of one behaviour on windows of one video after fitting windows of another."""
        fitted, measured = (
            samplers[b][v].draw(rng, episodes.windows)
            for v in rng.choice(len(samplers[b]), 2, replace=False)
        )

        def loss_on(batch: Batch, at: Weights) -> Tensor:
            logits = functional_call(network, dict(at), (batch,))
            total, number = losses[b](logits, batch.labels[0][2])
            return total / number.clamp(min=1)

        then = adapted(
            lambda at: loss_on(fitted, at),
            weights,
            lr=log_lr.exp(),
            steps=episodes.inner_steps,
            first_order=episodes.first_order,
        )
        return loss_on(measured, then)

    history = []
    for _ in range(episodes.meta_steps):
        chosen = rng.choice(len(behaviours), episodes.behaviours)
        loss = torch.stack([episode_loss(b) for b in chosen]).mean()
        if not loss.isfinite():
            raise BadInput(
                f"meta-learning has diverged: try a smaller inner_lr than {episodes.inner_lr} or a "
                f"smaller outer_lr than {episodes.outer_lr}"
            )
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(weights.values(), 1.0)
        optimiser.step()
        schedule.step()
        history.append(loss.item())
        on_progress(history[-1])
    return history, log_lr.exp().item()
