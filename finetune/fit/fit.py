"""Fits a head, and the encoder under it where it is not frozen. Plain torch."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from finetune.fit.frames import Frames
from finetune.fit.initial_weights import begin_from
from finetune.fit.losses import Loss, refuse_weights
from finetune.fit.window_sampler import Batch, WindowDraw
from finetune.heads import AbstractHead, build_head
from finetune.heads.prototype import Prototype
from finetune.labels.frame_labels import UNLABELLED
from finetune.labels.problems import Labelled, Problem
from finetune.metrics.frame_metrics import Scores, mean_over_problems, score
from finetune.settings import Tuning
from pretrain.encoders import Embedder
from pretrain.errors import BadInput
from pretrain.train.embed_video import embed_video

Probabilities = Mapping[str, npt.NDArray[np.float32]]
"""Video to (T, C)."""


@dataclass
class Model:
    """A fitted head, and its encoder unless embeddings are handed to it."""

    head: AbstractHead
    embedder: Embedder | None

    def to(self, device: torch.device | str) -> Model:
        """Moves it."""
        self.head.to(device)
        if self.embedder is not None:
            self.embedder.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.head.mean_D.device

    @torch.no_grad()
    def embeddings(self, material: Frames, video: str) -> Tensor:
        """(T, D) of a whole video, where the model is."""
        frames = material.video(video)
        if self.embedder is None:
            return frames["z"].to(self.device)
        return embed_video(self.embedder.eval(), frames, device=str(self.device))

    @torch.no_grad()
    def logits(self, material: Frames, video: str) -> list[Tensor]:
        """(T, C) of a whole video for each problem, on the CPU."""
        z_TD = self.embeddings(material, video)
        self.head.eval()
        every = torch.ones((1, len(z_TD)), dtype=torch.bool, device=self.device)
        return [out[0].cpu() for out in self.head(z_TD.unsqueeze(0), every)]

    def predict(
        self, material: Frames, problems: Sequence[Problem], videos: Sequence[Iterable[str]]
    ) -> Sequence[Probabilities]:
        """Probabilities for the given videos of each problem; a video shared by problems passes the
        network once."""
        wanted = {
            name: [p for p, held in enumerate(map(set, videos)) if name in held]
            for name in sorted(set().union(*videos))
        }
        found: list[dict[str, npt.NDArray[np.float32]]] = [{} for _ in problems]
        for name, places in wanted.items():
            logits = self.logits(material, name)
            for p in places:
                squash = (
                    torch.sigmoid(logits[p])
                    if problems[p].overlapping
                    else torch.softmax(logits[p], -1)
                )
                found[p][name] = squash.numpy()
        return found


def score_problems(
    problems: Sequence[Problem], probabilities: Sequence[Probabilities], truth: Sequence[Labelled]
) -> Scores:
    """Scores pooled over the videos of each problem, then the mean over the problems that have
    any."""
    each = {}
    for problem, found, labels in zip(problems, probabilities, truth, strict=True):
        names = sorted(labels)
        if names:
            each[problem.name] = score(
                probabilities_TC=np.concatenate([found[name] for name in names]),
                labels=np.concatenate([labels[name] for name in names]),
                classes=problem.classes,
                rest=problem.rest or "",
            )
    return next(iter(each.values())) if len(each) == 1 else mean_over_problems(each)


def one_number(scores: Scores) -> float:
    """What the search maximises on validation: the mean of macro F1 and MAP; 0 where nothing could
    be scored."""
    known = [value for value in (scores.macro_f1, scores.map) if not math.isnan(value)]
    return sum(known) / len(known) if known else 0.0


def head_for(problems: Sequence[Problem], tuning: Tuning, dim: int) -> AbstractHead:
    """The head that the settings ask for, with its weights as a fit starts from them.

    Args:
        problems: What it is to answer.
        tuning: ``head``, ``start`` and the loss are looked at.
        dim: D.

    Raises:
        BadInput: If the head, the loss or where it starts from do not fit the problems: one is
            enough to refuse a run before it begins.
    """
    refuse_weights(problems, tuning)
    head = build_head(tuning.head, dim, [len(problem.classes) for problem in problems])
    if head.annotators is not None:
        if len({problem.classes for problem in problems}) > 1 or len(
            {problem.annotator for problem in problems}
        ) < len(problems):
            raise BadInput(
                "head: annotator: embedding is for the same classes labelled by several "
                "annotators; the problems of this task "
                f"are {', '.join(problem.name for problem in problems)}: leave annotator: apart"
            )
        head.annotators.known_P.copy_(torch.tensor([bool(problem.train) for problem in problems]))
    if tuning.start:
        begin_from(tuning.start, head, tuning.head, problems)
    return head


def fit(
    material: Frames,
    problems: Sequence[Problem],
    tuning: Tuning,
    *,
    embedder: Embedder | None,
    seed: int,
    stops: Sequence[int],
) -> Iterator[tuple[int, float, Model]]:
    """Fits on the training labels of all problems together, on the GPU where this process has one.

    Args:
        material: Embeddings, or poses where ``embedder`` is given.
        problems: Their ``train`` labels are used, nothing else of them.
        tuning: How.
        embedder: Encoder to train along; a copy of it is trained.
        seed: Of the weights and the windows drawn.
        stops: Steps after which the model is handed out; the last ends it.

    Yields:
        Step, training loss since the last stop, the model as it is then. A head that needs no steps
        is handed out at every stop.
    """
    torch.manual_seed(seed)
    draw = np.random.default_rng([seed, 3])
    dim = embedder.dim if embedder is not None else material.arrays["z"].shape[1]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = Model(head_for(problems, tuning, dim), copy.deepcopy(embedder)).to(device)
    windows = WindowDraw(material, problems, tuning.window, balance=tuning.balanced_sampling)
    if not tuning.start:
        model.head.standardise(_some_embeddings(model, windows.draw(draw, 32).to(device)))
    losses_of = [Loss.of(problem, tuning).to(device) for problem in problems]
    if not model.head.by_steps:
        remember(model, material, problems)
        with torch.no_grad():
            missed = loss_of(model, windows.draw(draw, tuning.batch).to(device), losses_of).item()
        yield from ((step, missed, model) for step in stops)
        return
    groups = [{"params": list(model.head.parameters()), "lr": tuning.lr}]
    if model.embedder is not None:
        groups.append(
            {"params": list(model.embedder.parameters()), "lr": tuning.lr * tuning.encoder_lr_share}
        )
    optimiser = _optimiser(groups, tuning)
    peak = [group["lr"] for group in optimiser.param_groups]
    losses: list[float] = []
    for step in range(1, max(stops) + 1):
        for group, rate in zip(optimiser.param_groups, peak, strict=True):
            group["lr"] = rate * _rate(step, tuning)
        model.head.train()
        if model.embedder is not None:
            model.embedder.train()
        loss = loss_of(model, windows.draw(draw, tuning.batch).to(device), losses_of)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(
            [p for group in optimiser.param_groups for p in group["params"]], 1.0
        )
        optimiser.step()
        losses.append(loss.item())
        if step in stops:
            yield step, float(np.mean(losses)), model
            losses = []


def _optimiser(groups: list[dict[str, Any]], tuning: Tuning) -> torch.optim.Optimizer:
    if tuning.optimiser == "sgd":
        return torch.optim.SGD(groups, weight_decay=tuning.weight_decay)
    return torch.optim.AdamW(groups, weight_decay=tuning.weight_decay, fused=True)


def _rate(step: int, tuning: Tuning) -> float:
    """Share of the peak learning rate at a step, counted from 1."""
    if tuning.optimiser == "sgd":
        return 1.0
    # One-cycle over the longest a trial may take, so that a search may compare what it stopped on
    # the way.
    return min(1.0, step / 20) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / (tuning.steps + 1))))


def loss_of(model: Model, batch: Batch, losses: Sequence[Loss]) -> Tensor:
    """Mean over the labelled frames of a batch."""
    logits = model.head(batch.embeddings(model.embedder), batch.valid_BT, batch.problem_B)
    sums, numbers = zip(
        *(losses[p](logits[p][rows], labels) for p, rows, labels in batch.labels), strict=True
    )
    return torch.stack(sums).sum() / torch.stack(numbers).sum().clamp(min=1)


@torch.no_grad()
def remember(model: Model, material: Frames, problems: Sequence[Problem]) -> None:
    """Gives prototypes every labelled training frame of every problem."""
    head = model.head
    assert isinstance(head, Prototype)
    for p, problem in enumerate(problems):
        z_ND = torch.cat([model.embeddings(material, name) for name in sorted(problem.train)])
        labels = torch.from_numpy(
            np.concatenate([problem.train[name] for name in sorted(problem.train)])
        ).to(model.device)
        if problem.overlapping:
            known_NC, held_NC = labels != UNLABELLED, labels == 1
        else:
            known_NC = (labels != UNLABELLED).unsqueeze(1).expand(-1, len(problem.classes))
            held_NC = labels.unsqueeze(1) == torch.arange(len(problem.classes), device=model.device)
        head.remember(p, z_ND, known_NC, held_NC, overlapping=problem.overlapping)


@torch.no_grad()
def _some_embeddings(model: Model, batch: Batch) -> Tensor:
    """(N, D), in the state that an encoder embeds in."""
    if model.embedder is not None:
        model.embedder.eval()
    return batch.embeddings(model.embedder)[batch.valid_BT]
