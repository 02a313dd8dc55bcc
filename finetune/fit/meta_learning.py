"""Learning to learn a behaviour from few windows: where to start, found on behaviours that are not
the one asked for.

Each behaviour of each label set, against the rest of its frames, is one small task. An episode fits
it in a few steps of gradient descent on windows of one video and measures it on windows of another;
what is learned is the weights from which these steps lead furthest (MAML, Finn et al. 2017). ANIL
(Raghu et al. 2020) leaves the encoder as it is and learns the head alone.
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
from finetune.fit.losses import Loss
from finetune.fit.window_sampler import Batch, WindowDraw
from finetune.heads import AbstractHead
from finetune.labels.frame_labels import UNLABELLED
from finetune.labels.problems import Problem
from finetune.settings import Tuning
from pretrain.encoders import Embedder
from pretrain.errors import BadInput

Weights = Mapping[str, Tensor]


def other_behaviours(
    every: Iterable[Problem], target: Iterable[Problem], *, asked: Iterable[str] = ()
) -> list[Problem]:
    """One problem, ("rest", behaviour), for each behaviour and annotator of a store that is not
    asked for.

    Only training labels are used, of videos on which the target is not tested.

    Args:
        every: All problems of all label sets of the store.
        target: Problems that the start is for.
        asked: Behaviours of them that it is for; all of them, if left out.

    Raises:
        BadInput: If ``asked`` names a behaviour that the target does not have, or no other
            behaviour is left.
    """
    target = list(target)
    have = {name for problem in target for name in problem.classes if name != problem.rest}
    if unknown := sorted(set(asked) - have):
        raise BadInput(
            f"the task has no behaviour {', '.join(unknown)}; it has: {', '.join(sorted(have))}"
        )
    kept_out = set(asked) or have
    tested = {video for problem in target for video in problem.test}
    found = []
    for problem in every:
        for c, name in enumerate(problem.classes):
            if name == problem.rest or name in kept_out:
                continue
            train = {
                video: _against_rest(labels, c)
                for video, labels in problem.train.items()
                if video not in tested
            }
            found.append(
                replace(
                    problem,
                    name=f"{name} ({problem.name})",
                    classes=("rest", name),
                    overlapping=False,
                    train=train,
                    test={},
                )
            )
    found = [problem for problem in found if len(_parts(problem)) > 1]
    if not found:
        raise BadInput(
            f"nothing to learn from: beside {', '.join(sorted(kept_out))} the store has no "
            "behaviour that is labelled in two "
            "training videos (or in both halves of one)"
        )
    return found


def _against_rest(labels: npt.NDArray[np.int8], c: int) -> npt.NDArray[np.int8]:
    held = labels[:, c] if labels.ndim == 2 else labels
    positive = held == (1 if labels.ndim == 2 else c)
    return np.where(held == UNLABELLED, UNLABELLED, positive).astype(np.int8)


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
    start: Weights,
    *,
    lr: float | Tensor,
    steps: int,
    first_order: bool,
) -> Weights:
    """Weights after a few steps of gradient descent; gradients reach the start through them.

    Slopes longer than 1 are shortened to 1, as in a fit.

    Args:
        loss_of: Of weights.
        start: Where to begin.
        lr: Step length.
        steps: Steps.
        first_order: Whether the steps count as constants: the gradient at the end is then taken as
            the one at the start.
    """
    weights = dict(start)
    for _ in range(steps):
        slopes = torch.autograd.grad(
            loss_of(weights), list(weights.values()), create_graph=not first_order
        )
        length = torch.stack([(slope.detach() ** 2).sum() for slope in slopes]).sum().sqrt()
        step = lr / length.clamp(min=1.0)
        weights = {
            name: x - step * slope for (name, x), slope in zip(weights.items(), slopes, strict=True)
        }
    return weights


def meta_learn(
    model: Model,
    material: Frames,
    behaviours: Sequence[Problem],
    tuning: Tuning,
    episodes: Episodes,
    *,
    seed: int,
    on_progress: Callable[[float], object] = lambda loss: None,
) -> tuple[list[float], float]:
    """Learns the weights that a behaviour is fitted from, and how long the steps should be.

    Args:
        model: Head with one problem of two classes, and the encoder if it is to be learned too;
            changed in place.
        material: Embeddings, or poses where the model has an encoder.
        behaviours: As :func:`other_behaviours` gives them.
        tuning: ``window`` and the loss are used, but not its class weights.
        episodes: How.
        seed: Of the windows drawn.
        on_progress: Called after every step with its loss.

    Returns:
        Loss on the measured windows after adapting, of each step; step length learned.

    Raises:
        BadInput: If it diverges.
    """
    draw = np.random.default_rng([seed, 5])
    drawn = [
        [WindowDraw(material, [part], tuning.window, balance=1.0) for part in _parts(problem)]
        for problem in behaviours
    ]
    unweighted = replace(
        tuning, class_weight=0.0, class_weights={}
    )  # windows are drawn around either class equally often
    losses = [Loss.of(problem, unweighted) for problem in behaviours]
    network = Network(
        model.head, model.embedder
    ).eval()  # dropout and batch statistics would blur what the steps do
    some = [parts[0].draw(draw, episodes.windows) for parts in drawn]
    with torch.no_grad():
        model.head.standardise(
            torch.cat([batch.embeddings(model.embedder)[batch.valid_BT] for batch in some])
        )
    weights = dict(network.named_parameters())
    log_lr = torch.tensor(math.log(episodes.inner_lr), requires_grad=True)
    optimiser = torch.optim.Adam([*weights.values(), log_lr], lr=episodes.outer_lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, episodes.meta_steps)
    found = []
    for _ in range(episodes.meta_steps):
        total = torch.zeros(())
        for b in draw.choice(len(behaviours), episodes.behaviours):
            fitted, measured = (
                drawn[b][v].draw(draw, episodes.windows)
                for v in draw.choice(len(drawn[b]), 2, replace=False)
            )

            def loss_on(batch: Batch, held: Weights, loss: Loss = losses[b]) -> Tensor:
                total, number = loss(
                    functional_call(network, dict(held), (batch,)), batch.labels[0][2]
                )
                return total / number.clamp(min=1)

            then = adapted(
                lambda held, batch=fitted, of=loss_on: of(batch, held),  # type: ignore[misc]
                weights,
                lr=log_lr.exp(),
                steps=episodes.inner_steps,
                first_order=episodes.first_order,
            )
            total = total + loss_on(measured, then) / episodes.behaviours
        if not total.isfinite():
            raise BadInput(
                f"learning the start has diverged: try a smaller inner_lr than {episodes.inner_lr} "
                "or a smaller outer_lr than "
                f"{episodes.outer_lr}"
            )
        optimiser.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(weights.values(), 1.0)
        optimiser.step()
        schedule.step()
        found.append(total.item())
        on_progress(found[-1])
    return found, log_lr.exp().item()
