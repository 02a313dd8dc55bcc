"""Fits a head, and the encoder under it where it is not frozen. Plain torch."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finetune.frames import UNLABELLED
from finetune.heads import AbstractHead, build_head
from finetune.labels import Labelled, Problem
from finetune.material import Material, as_pose, embed_video
from finetune.metrics import Scores, mean_over_problems, score
from finetune.settings import Tuning
from pretrain.encoders import Embedder

Probabilities = Mapping[str, npt.NDArray[np.float32]]
"""Video to (T, C)."""


@dataclass
class Model:
    """A fitted head, and its encoder unless embeddings are handed to it."""

    head: AbstractHead
    embedder: Embedder | None

    @torch.no_grad()
    def logits(self, material: Material, video: str) -> list[Tensor]:
        """(T, C) of a whole video for each problem."""
        frames = material.video(video)
        z_TD = frames["z"] if self.embedder is None else embed_video(self.embedder.eval(), frames)
        self.head.eval()
        every = torch.ones((1, len(z_TD)), dtype=torch.bool)
        return [out[0] for out in self.head(z_TD.unsqueeze(0), every)]

    def predict(self, material: Material, problems: Sequence[Problem], videos: Sequence[Iterable[str]]) -> Sequence[Probabilities]:
        """Probabilities for the given videos of each problem; a video shared by problems passes the network once."""
        wanted = {name: [p for p, held in enumerate(map(set, videos)) if name in held] for name in sorted(set().union(*videos))}
        found: list[dict[str, npt.NDArray[np.float32]]] = [{} for _ in problems]
        for name, places in wanted.items():
            logits = self.logits(material, name)
            for p in places:
                squash = torch.sigmoid(logits[p]) if problems[p].overlapping else torch.softmax(logits[p], -1)
                found[p][name] = squash.numpy()
        return found


def score_problems(problems: Sequence[Problem], probabilities: Sequence[Probabilities], truth: Sequence[Labelled]) -> Scores:
    """Scores pooled over the videos of each problem, then the mean over problems."""
    each = {}
    for problem, found, labels in zip(problems, probabilities, truth, strict=True):
        names = sorted(labels)
        each[problem.name] = score(
            probabilities_TC=np.concatenate([found[name] for name in names]),
            labels=np.concatenate([labels[name] for name in names]), classes=problem.classes, rest=problem.rest or "",
        )  # fmt: skip
    return next(iter(each.values())) if len(each) == 1 else mean_over_problems(each)


def one_number(scores: Scores) -> float:
    """What the search maximises on validation: the mean of macro F1 and MAP; 0 where nothing could be scored."""
    known = [value for value in (scores.macro_f1, scores.map) if not math.isnan(value)]
    return sum(known) / len(known) if known else 0.0


def fit(
    material: Material, problems: Sequence[Problem], tuning: Tuning, *, embedder: Embedder | None, seed: int, stops: Sequence[int]
) -> Iterator[tuple[int, float, Model]]:
    """Fits on the training labels of all problems together.

    Args:
        material: Embeddings, or poses where ``embedder`` is given.
        problems: Their ``train`` labels are used, nothing else of them.
        tuning: How.
        embedder: Encoder to train along; a copy of it is trained.
        seed: Of the weights and the windows drawn.
        stops: Steps after which the model is handed out; the last ends it.

    Yields:
        Step, training loss since the last stop, the model as it is then.
    """
    torch.manual_seed(seed)
    draw = np.random.default_rng([seed, 3])
    model = Model(None, copy.deepcopy(embedder))  # type: ignore[arg-type]
    dim = embedder.dim if embedder is not None else material.arrays["z"].shape[1]
    model.head = build_head(tuning.head, dim, [len(problem.classes) for problem in problems])
    windows = _WindowDraw(material, problems, tuning.window, model.embedder.overlap if model.embedder is not None else model.head.context)
    model.head.standardise(_some_embeddings(material, model, windows, draw))
    weights = [class_weights(problem, tuning.class_weight) for problem in problems]
    groups = [{"params": list(model.head.parameters()), "lr": tuning.lr}]
    if model.embedder is not None:
        groups.append({"params": list(model.embedder.parameters()), "lr": tuning.lr * tuning.encoder_lr_share})
    optimiser = torch.optim.AdamW(groups, weight_decay=tuning.weight_decay)
    peak = [group["lr"] for group in optimiser.param_groups]
    losses: list[float] = []
    for step in range(1, max(stops) + 1):
        for group, rate in zip(optimiser.param_groups, peak, strict=True):
            # One-cycle over the longest a trial may take, so that a search may compare what it stopped on the way.
            group["lr"] = rate * min(1.0, step / 20) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / (tuning.steps + 1))))
        model.head.train()
        if model.embedder is not None:
            model.embedder.train()
        loss = _loss(model, windows.draw(draw, tuning.batch), problems, weights, tuning.label_smoothing)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([p for group in optimiser.param_groups for p in group["params"]], 1.0)
        optimiser.step()
        losses.append(loss.item())
        if step in stops:
            yield step, float(np.mean(losses)), model
            losses = []


def class_weights(problem: Problem, power: float) -> Tensor:
    """Weights of the loss: (share of a class) to the power -``power``, with a mean of 1 over labelled frames; 0 for a class never seen.

    Overlapping behaviours: the weight of a positive frame of each, (share of its negatives / positives) to the power.
    """
    counts = np.zeros(len(problem.classes))
    total = 0
    for labels in problem.train.values():
        known = labels != UNLABELLED
        if problem.overlapping:
            counts += (labels == 1).sum(0)
            total += int(known[:, 0].sum())
        else:
            counts += np.bincount(labels[known], minlength=len(counts))
    if problem.overlapping:
        return torch.from_numpy(np.maximum((total - counts) / np.maximum(counts, 1), 1e-6) ** power).float()
    share = counts / max(counts.sum(), 1)
    weight = np.where(share > 0, np.maximum(share, 1e-9) ** -power, 0.0)
    return torch.from_numpy(weight / max((weight * share).sum(), 1e-9)).float()


@dataclass
class _Batch:
    stretch: dict[str, Tensor]
    valid_BT: Tensor
    labels: list[tuple[int, Tensor, Tensor]]
    """Problem, its rows, their labels."""


class _WindowDraw:
    """Draws windows around labelled frames: every labelled frame of every problem is as likely as any other to be at the heart of one."""

    def __init__(self, material: Material, problems: Sequence[Problem], window: int, context: int) -> None:
        self._material, self._problems, self._window = material, problems, window
        self._context = context
        self._frames = [self._labelled(problem) for problem in problems]
        sizes = np.array([len(frames) for frames, _, _ in self._frames], float)
        self._share = sizes**0.5 / (sizes**0.5).sum()
        self._labels = [self._laid_out(problem) for problem in problems]

    def _labelled(self, problem: Problem) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Labelled frames as places in the arrays, with first and end of their video."""
        frames, first, end = [], [], []
        for name, labels in problem.train.items():
            begin, stop = self._material.place[name]
            known = np.flatnonzero((labels if labels.ndim == 1 else labels[:, 0]) != UNLABELLED)
            frames.append(begin + known)
            first.append(np.full(len(known), begin))
            end.append(np.full(len(known), stop))
        return np.concatenate(frames), np.concatenate(first), np.concatenate(end)

    def _laid_out(self, problem: Problem) -> npt.NDArray[np.int8]:
        total = max(end for _, end in self._material.place.values())
        shape = (total, len(problem.classes)) if problem.overlapping else (total,)
        laid = np.full(shape, UNLABELLED, np.int8)
        for name, labels in problem.train.items():
            first, end = self._material.place[name]
            laid[first:end] = labels
        return laid

    def draw(self, draw: np.random.Generator, number: int) -> _Batch:
        """A batch of windows; frames beyond the video are not valid, their labels unlabelled."""
        whose = np.sort(draw.choice(len(self._problems), number, p=self._share))
        begin, low, high = np.empty(number, np.int64), np.empty(number, np.int64), np.empty(number, np.int64)
        for p in np.unique(whose):
            frames, first, end = self._frames[p]
            rows = whose == p
            pick = draw.integers(len(frames), size=int(rows.sum()))
            begin[rows] = frames[pick] - draw.integers(self._window, size=len(pick))
            low[rows], high[rows] = first[pick], end[pick]
        # A window hangs over the end of its video only where the video is shorter than the window.
        begin = np.maximum(np.minimum(begin, high - self._window), low)
        places = begin[:, None] + np.arange(self._window)
        valid = places < high[:, None]
        safe = np.minimum(places, high[:, None] - 1)
        labels = []
        for p in np.unique(whose):
            rows = np.flatnonzero(whose == p)
            held = self._labels[p][safe[rows]].copy()
            held[~valid[rows]] = UNLABELLED
            labels.append((int(p), torch.from_numpy(rows), torch.from_numpy(held)))
        stretch = self._material.windows(begin, self._window)
        return _Batch(stretch, torch.from_numpy(valid), labels)


def _loss(model: Model, batch: _Batch, problems: Sequence[Problem], weights: Sequence[Tensor], smoothing: float) -> Tensor:
    z_BTD = batch.stretch["z"] if model.embedder is None else model.embedder(_masked(batch), batch.valid_BT).float()
    logits = model.head(z_BTD, batch.valid_BT)
    terms, count = [], 0
    for p, rows, labels in batch.labels:
        out = logits[p][rows]
        if problems[p].overlapping:
            known = labels != UNLABELLED
            target = labels.clamp(min=0).float() * (1 - smoothing) + smoothing / 2
            each = F.binary_cross_entropy_with_logits(out, target, pos_weight=weights[p], reduction="none")
            terms.append((each * known).sum() / out.shape[-1])
            count += int(known[..., 0].sum())
        else:
            terms.append(F.cross_entropy(out.flatten(0, 1), labels.flatten().long(), weight=weights[p], ignore_index=UNLABELLED,
                                         label_smoothing=smoothing, reduction="sum"))  # fmt: skip
            count += int((labels != UNLABELLED).sum())
    return torch.stack(terms).sum() / max(count, 1)


def _masked(batch: _Batch):  # type: ignore[no-untyped-def]
    pose = as_pose(batch.stretch)
    beyond = ~batch.valid_BT
    return pose._replace(
        position_BTMKX=pose.position_BTMKX.masked_fill(beyond[:, :, None, None, None], torch.nan),
        confidence_BTMK=pose.confidence_BTMK.masked_fill(beyond[:, :, None, None], 0.0),
    )


@torch.no_grad()
def _some_embeddings(material: Material, model: Model, windows: _WindowDraw, draw: np.random.Generator) -> Tensor:
    batch = windows.draw(draw, 32)
    z_BTD = batch.stretch["z"] if model.embedder is None else model.embedder.eval()(_masked(batch), batch.valid_BT).float()
    return z_BTD[batch.valid_BT]
