"""Fits a head, and the encoder under it where it is not frozen. Plain torch."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from finetune.fit.frames import Frames
from finetune.fit.initial_weights import load_initial_weights
from finetune.fit.problem_loss import ProblemLoss, refuse_loss
from finetune.fit.window_sampler import Batch, WindowSampler
from finetune.heads import AbstractHead, LabelledVideo, build_head
from finetune.labels.frame_labels import UNLABELLED
from finetune.labels.problems import Labelled, Problem
from finetune.labels.refine import given_parent, times_parent
from finetune.metrics.frame_metrics import Scores, mean_over_problems, score
from finetune.settings import Tuning
from pretrain.encoders import Embedder
from pretrain.errors import BadInput
from pretrain.train.embed_video import embed_video

Probabilities = Mapping[str, npt.NDArray[np.float32]]
"""Video to (T, C)."""
Outputs = Mapping[str, Sequence[npt.NDArray[np.float32]]]
"""Video to the probabilities (T, C) of each problem as a head gives them: those of a problem that
refines another are not times its parent's."""
WARMUP_STEPS = 20
STANDARDISING_WINDOWS = 32
ROWS_AT_ONCE = 1024
"""Embeddings that heads are handed when a video's come in parts."""


@dataclass
class Model:
    """A fitted head, and its encoder unless embeddings are handed to it."""

    head: AbstractHead
    embedder: Embedder | None

    @property
    def parts(self) -> list[nn.Module]:
        """Head, and encoder where there is one."""
        return [self.head] if self.embedder is None else [self.head, self.embedder]

    def to(self, device: torch.device | str) -> Model:
        """Moves it."""
        for part in self.parts:
            part.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.head.mean_D.device

    @torch.no_grad()
    def read_embeddings(self, frames: Frames, video: str) -> Tensor:
        """(T / stride, D): of the frames that the head reads, where the model is."""
        if self.embedder is None:
            z_TD = frames.video(video)["z"].to(self.device)
            return z_TD if frames.stride > 1 else z_TD[:: self.head.stride]
        arrays = frames.video(video)
        device, stride = str(self.device), self.head.stride
        return embed_video(self.embedder.eval(), arrays, device=device, stride=stride)

    def logits(self, frames: Frames, video: str) -> list[Tensor]:
        """(T, C) of a whole video for each problem, on the CPU."""
        z_SD = self.read_embeddings(frames, video)
        (logits,) = logits_of([self.head], [z_SD], frames.length(video))
        return logits

    def predict(
        self, frames: Frames, problems: Sequence[Problem], videos: Sequence[Iterable[str]]
    ) -> Sequence[Probabilities]:
        """Probabilities for some videos of each problem; a video shared by problems passes the
        network once."""
        own = self._outputs([self.head], frames, problems, videos)
        return mean_of_members(problems, own, [1.0], videos)

    def predict_members(
        self, frames: Frames, problems: Sequence[Problem], videos: Sequence[Iterable[str]]
    ) -> list[Outputs]:
        """The same of each member of a stack whose weights are learned on such predictions; of any
        other head its own alone."""
        heads = self.head.heads if self.head.cross_fitted else [self.head]
        return self._outputs(heads, frames, problems, videos)

    def _outputs(
        self,
        heads: Sequence[AbstractHead],
        frames: Frames,
        problems: Sequence[Problem],
        videos: Sequence[Iterable[str]],
    ) -> list[Outputs]:
        outputs: list[dict[str, list[npt.NDArray[np.float32]]]] = [{} for _ in heads]
        for video in sorted({name for names in videos for name in names}):
            z_SD = self.read_embeddings(frames, video)
            each = logits_of(heads, [z_SD], frames.length(video))
            for own, logits in zip(outputs, each, strict=True):
                own[video] = [p_TC.numpy() for p_TC in _of_outputs(problems, logits)]
        return [*outputs]


@torch.no_grad()
def logits_of(
    heads: Sequence[AbstractHead], parts: Iterable[Tensor], frames: int
) -> list[list[Tensor]]:
    """Logits of a whole video of so many frames by heads of one stride. ``parts`` are consecutive
    rows of the (T / stride, D) embeddings that they read, where the heads are; a stretch of them is
    held at a time.

    Returns:
        (T, C) of each head for each problem, on the CPU.
    """
    stride = heads[0].stride
    total, margin = -(-frames // stride), max(head.context for head in heads)
    pieces: list[list[list[Tensor]]] = [[] for _ in heads]
    for first, z_SD, inside in _stretches(parts, total, margin):
        valid_BS = torch.ones((1, len(z_SD)), dtype=torch.bool, device=z_SD.device)
        for head, of_head in zip(heads, pieces, strict=True):
            head.is_given((first, total))
            of_head.append([x[0, inside].cpu() for x in head.eval()(z_SD.unsqueeze(0), valid_BS)])
            head.is_given(None)
    return [
        [between(torch.cat(scores), stride, frames) for scores in zip(*of_head, strict=True)]
        for of_head in pieces
    ]


def _stretches(
    parts: Iterable[Tensor], total: int, margin: int
) -> Iterator[tuple[int, Tensor, slice]]:
    """Rows that come in parts, in stretches of :data:`ROWS_AT_ONCE` with ``margin`` more to either
    side, or all at once where they come so: the index of the first, the rows, and which of them no
    other stretch has inside."""
    buffer, begin, have, done = list[Tensor](), 0, 0, 0
    for part in parts:
        rows = total if len(part) == total else ROWS_AT_ONCE
        buffer.append(part)
        have += len(part)
        while done < have and (have == total or have >= done + rows + margin):
            z_SD = torch.cat(buffer) if len(buffer) > 1 else buffer[0]
            stop = min(done + rows, total)
            yield begin, z_SD[: stop + margin - begin], slice(done - begin, stop - begin)
            first = max(begin, stop - margin)
            buffer, begin, done = [z_SD[first - begin :]], first, stop


def as_probabilities(
    problems: Sequence[Problem], logits: Sequence[Tensor]
) -> list[npt.NDArray[np.float32]]:
    """As :func:`probabilities_of`, for numpy."""
    return [p_TC.numpy() for p_TC in probabilities_of(problems, logits)]


def probabilities_of(problems: Sequence[Problem], logits: Sequence[Tensor]) -> list[Tensor]:
    """(T, C) of each problem; of one that refines another, times its parent's."""
    each = _of_outputs(problems, logits)
    return [times_parent(problems, each, p) for p in range(len(problems))]


def _of_outputs(problems: Sequence[Problem], logits: Sequence[Tensor]) -> list[Tensor]:
    return [
        x_TC.sigmoid() if problem.overlapping else x_TC.softmax(-1)
        for problem, x_TC in zip(problems, logits, strict=True)
    ]


def mean_of_members(
    problems: Sequence[Problem],
    members: Sequence[Outputs],
    weights: Sequence[float],
    videos: Sequence[Iterable[str]],
) -> list[Probabilities]:
    """Probabilities for some videos of each problem: the weighted mean of what the members of a
    stack give; of a problem that refines another, times its parent's."""
    asked = [set(names) for names in videos]
    predicted: list[dict[str, npt.NDArray[np.float32]]] = [{} for _ in problems]
    for video in sorted(set().union(*asked)):
        each = [
            sum(weight * p_TC for weight, p_TC in zip(weights, of_problem, strict=True))
            for of_problem in zip(*(member[video] for member in members), strict=True)
        ]
        for p in range(len(problems)):
            if video in asked[p]:
                predicted[p][video] = times_parent(problems, each, p)
    return [*predicted]


def between(scores_SC: Tensor, stride: int, frames: int) -> Tensor:
    """Scores of every frame, in a straight line between those of every ``stride``-th: (T, C)."""
    if stride == 1:
        return scores_SC
    at_T = torch.arange(frames) / stride
    last = scores_SC.shape[0] - 1
    low_T = at_T.long().clamp(max=last)
    high_T = (low_T + 1).clamp(max=last)
    return torch.lerp(scores_SC[low_T], scores_SC[high_T], (at_T - low_T).unsqueeze(1).clamp(max=1))


def score_problems(
    problems: Sequence[Problem], probabilities: Sequence[Probabilities], truth: Sequence[Labelled]
) -> Scores:
    """Scores pooled over the videos of each problem, then the mean over the problems that have
    any."""
    each = {}
    for problem, predicted, labels in zip(problems, probabilities, truth, strict=True):
        names = sorted(labels)
        if names:
            each[problem.name] = score(
                probabilities_TC=np.concatenate([predicted[name] for name in names]),
                labels=np.concatenate([labels[name] for name in names]),
                classes=problem.classes,
                rest=problem.rest or "",
            )
    return next(iter(each.values())) if len(each) == 1 else mean_over_problems(each)


def validation_score(scores: Scores) -> float:
    """What the search maximises: the mean of macro F1 and MAP; 0 where nothing could be scored."""
    known = [value for value in (scores.macro_f1, scores.map) if not math.isnan(value)]
    return sum(known) / len(known) if known else 0.0


def initial_head(
    problems: Sequence[Problem], tuning: Tuning, dim: int, *, fps: float = 30.0
) -> AbstractHead:
    """The head that the settings ask for, with its weights as a fit starts from them; ``head``,
    ``start`` and the loss of ``tuning`` are looked at.

    Raises:
        BadInput: If the head, its initial weights or the loss do not fit the problems. Making one
            is enough to refuse a run before it begins.
    """
    refuse_loss(problems, tuning)
    head = build_head(tuning.head, dim, [len(problem.classes) for problem in problems], fps=fps)
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
        load_initial_weights(tuning.start, head, tuning.head, problems)
    return head


def fit(
    frames: Frames,
    problems: Sequence[Problem],
    tuning: Tuning,
    *,
    embedder: Embedder | None,
    seed: int,
    stops: Sequence[int],
) -> Iterator[tuple[int, float, Model]]:
    """Fits on the training labels of all problems together, on the GPU where this process has one.

    Args:
        frames: Embeddings, or poses where ``embedder`` is given.
        problems: Their ``train`` labels are used, nothing else of them.
        tuning: How.
        embedder: Encoder to train along; a copy of it is trained.
        seed: Of the weights and the windows drawn.
        stops: Steps after which the model is yielded; the last ends the fit.

    Yields:
        Step, training loss since the last stop, the model as it is then. A head that is not fitted
        by gradient steps is yielded at every stop, with the loss NaN.
    """
    problems = given_parent(problems)
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 3])
    dim = embedder.dim if embedder is not None else frames.arrays["z"].shape[1]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    head = initial_head(problems, tuning, dim, fps=frames.fps)
    model = Model(head, copy.deepcopy(embedder)).to(device)
    if not head.by_gradient:
        _fit_videos(model, frames, problems, seed=seed)
        yield from ((step, math.nan, model) for step in stops)
        return
    windows = WindowSampler(frames, problems, tuning.window, balance=tuning.balanced_sampling)
    losses = [ProblemLoss.of(problem, tuning).to(device) for problem in problems]
    if not tuning.start:
        _standardise(model, windows.draw(rng, STANDARDISING_WINDOWS).to(device))

    def next_loss() -> Tensor:
        return batch_loss(model, windows.draw(rng, tuning.batch).to(device), losses)

    optimiser = _optimiser(model, tuning)
    since_stop: list[float] = []
    for step in range(1, max(stops) + 1):
        for group in optimiser.param_groups:
            group["lr"] = group["peak_lr"] * _rate(step, tuning)
        for part in model.parts:
            part.train()
        loss = next_loss()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([p for part in model.parts for p in part.parameters()], 1.0)
        optimiser.step()
        since_stop.append(loss.item())
        if step in stops:
            yield step, float(np.mean(since_stop)), model
            since_stop = []


def _optimiser(model: Model, tuning: Tuning) -> torch.optim.Optimizer:
    """Over head and encoder, each with its peak learning rate."""
    rates = [tuning.lr, tuning.lr * tuning.encoder_lr_share]
    groups = [
        {"params": list(part.parameters()), "lr": lr, "peak_lr": lr}
        for part, lr in zip(model.parts, rates, strict=False)
    ]
    if tuning.optimiser == "sgd":
        return torch.optim.SGD(groups, weight_decay=tuning.weight_decay)
    return torch.optim.AdamW(groups, weight_decay=tuning.weight_decay, fused=True)


def _rate(step: int, tuning: Tuning) -> float:
    """Share of the peak learning rate at a step, counted from 1."""
    if tuning.optimiser == "sgd":
        return 1.0
    # One cycle over the longest that a trial may take, so that trials stopped early can be
    # compared.
    warmup = min(1.0, step / WARMUP_STEPS)
    return warmup * 0.5 * (1 + math.cos(math.pi * min(1.0, step / (tuning.steps + 1))))


def batch_loss(model: Model, batch: Batch, losses: Sequence[ProblemLoss]) -> Tensor:
    """Mean over the labelled frames of a batch."""
    logits = model.head(batch.embeddings(model.embedder), batch.valid_BT, batch.problem_B)
    sums, numbers = zip(
        *(losses[p](logits[p][rows], labels) for p, rows, labels in batch.labels), strict=True
    )
    return torch.stack(sums).sum() / torch.stack(numbers).sum().clamp(min=1)


def _fit_videos(model: Model, frames: Frames, problems: Sequence[Problem], *, seed: int) -> None:
    """Gives the head every training video of every problem, at the frames that it reads."""
    for p, problem in enumerate(problems):
        videos = []
        for name, labels in sorted(problem.train.items()):
            shown = labels[:: model.head.stride]
            if not problem.overlapping:
                own = shown[:, None] == np.arange(len(problem.classes))
                shown = np.where(shown[:, None] == UNLABELLED, UNLABELLED, own).astype(np.int8)
            z_TD = model.read_embeddings(frames, name)
            videos.append(LabelledVideo(z_TD, torch.from_numpy(np.ascontiguousarray(shown))))
        model.head.fit_videos(p, videos, overlapping=problem.overlapping, seed=seed)


@torch.no_grad()
def _standardise(model: Model, batch: Batch) -> None:
    """Fits the head's mean and spread to embeddings as the encoder gives them in evaluation."""
    if model.embedder is not None:
        model.embedder.eval()
    model.head.standardise(batch.embeddings(model.embedder)[batch.valid_BT])
