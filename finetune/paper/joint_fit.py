"""Fits one model for several label sets: contrastive predictive coding on all windows,
cross-entropy on the labelled ones.

Plain torch. A network is fitted on part of the labelled training videos; the others choose the
epoch of each output layer. Test labels are not used, and test poses only for predictions, unless
the unlabelled videos passed in are test videos.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from finetune.fit.fit import Probabilities
from finetune.fit.frames import Frames, recordings
from finetune.fit.problem_loss import balanced, class_counts
from finetune.labels.frame_labels import UNLABELLED
from finetune.labels.hold_out import hold_out
from finetune.labels.problems import Labelled, Problem
from finetune.paper.joint_model import (
    JointModel,
    JointSettings,
    head_inputs,
    smoothed_cross_entropy,
    validation_f1,
)
from pretrain.components import build
from pretrain.data.schema import Schema
from pretrain.data.window_rng import WindowRNG
from pretrain.data.windows import Windows
from pretrain.encoders import build_embedder
from pretrain.errors import BadInput, refuse
from pretrain.objectives import View
from pretrain.objectives.cpc import CPC
from pretrain.train.embed_video import as_pose, embed_video
from pretrain.train.torch_setup import matmul_precision

_FRAMES_FOR_MOMENTS = 65_536  # for mean and standard deviation of the features


@dataclass(frozen=True, kw_only=True)
class OutputLayer:
    """An output layer, shared by the problems that have its classes."""

    classes: tuple[str, ...]
    problems: tuple[int, ...]
    """Their indices."""
    weight: float
    """Of its loss."""


def output_layers(problems: Sequence[Problem], settings: JointSettings) -> list[OutputLayer]:
    """One output layer for each set of classes; Tasks 1 and 2 share theirs.

    Raises:
        BadInput: If behaviours overlap.
    """
    refuse(
        [f"{p.name}: its behaviours overlap" for p in problems if p.overlapping],
        about="the joint model is for classes that exclude each other",
    )
    by_classes: dict[tuple[str, ...], list[int]] = {}
    for index, problem in enumerate(problems):
        by_classes.setdefault(problem.classes, []).append(index)
    return [
        OutputLayer(
            classes=classes,
            problems=tuple(indices),
            weight=settings.task_weight.get(problems[indices[0]].task, 1.0),
        )
        for classes, indices in by_classes.items()
    ]


def annotator_indices(problems: Sequence[Problem]) -> list[int]:
    """Index of each problem's annotator; problems without one count as the first annotator's, as
    the entry counts Task 3."""
    names = list(dict.fromkeys(p.annotator for p in problems if p.annotator))
    return [names.index(p.annotator) if p.annotator else 0 for p in problems]


def unlabelled_videos(
    videos: Sequence[str], problems: Sequence[Problem], *, transductive: bool
) -> list[str]:
    """Videos to learn from without labels: those that have none, and the test videos if
    ``transductive``; never a training video."""
    train = {name for p in problems for name in p.train}
    test = {name for p in problems for name in p.test}
    return [name for name in videos if name not in train and (transductive or name not in test)]


def with_head_inputs(poses: Frames, settings: JointSettings, schema: Schema) -> Frames:
    """The same poses with :func:`head_inputs`."""
    rows = [
        head_inputs(torch.tensor(poses.arrays["position"][first:end]), settings, schema).numpy()
        for first, end in poses.spans.values()
    ]
    return Frames(spans=poses.spans, arrays={**poses.arrays, "head_inputs": np.concatenate(rows)})


def epoch_steps(settings: JointSettings, layers: int, frames: int) -> int:
    """Batches of an epoch over so many labelled and unlabelled training frames."""
    return max(1, round(frames / settings.advance / _windows_a_batch(settings, layers)))


def label_steps(settings: JointSettings, layers: int, frames: int) -> float:
    """The optimiser steps that take as long as labelling so many frames: a step goes through the
    network three times, twice of it backwards."""
    return frames / (3 * settings.window * _windows_a_batch(settings, layers))


def _windows_a_batch(settings: JointSettings, layers: int) -> int:
    return settings.labelled + layers * settings.each_layer + settings.unlabelled


def fit_member(
    frames: Frames,
    problems: Sequence[Problem],
    unlabelled: Sequence[str],
    settings: JointSettings,
    schema: Schema,
    *,
    seed: int,
    member: int,
    epochs_share: float = 1.0,
    device: str = "cpu",
    on_progress: Callable[[float], object] = lambda steps: None,
) -> tuple[list[Probabilities], dict[str, Any]]:
    """Fits one network of an ensemble, of index ``member``, and labels the test videos. Seed and
    index decide the split, weights and batches.

    It learns from frames with :func:`with_head_inputs` of all problems of all tasks, and from
    videos without labels; if there are none, from the training videos in their place.
    ``on_progress`` is told the steps made, or, for labelling, steps that take as long
    (:func:`label_steps`).

    Returns:
        Probabilities of the test videos for each problem; and the chosen epoch and validation score
        of each output layer.
    """
    torch.manual_seed(seed * 1000 + member)
    layers, annotators = output_layers(problems, settings), annotator_indices(problems)
    parts = hold_out(
        problems, share=settings.validation, seed=seed * 1000 + member, recording=recordings(frames)
    )
    embedder = build_embedder(schema, features=settings.features, encoder=settings.encoder)
    sampler = _BatchSampler(
        frames,
        [part for part, _ in parts],
        unlabelled,
        layers,
        settings,
        np.random.default_rng([seed, member, 5]),
    )
    embedder.features.fit(as_pose(sampler.frames(_FRAMES_FOR_MOMENTS)))
    model = JointModel(
        embedder,
        classes=[len(layer.classes) for layer in layers],
        annotators=max(annotators) + 1,
        annotator_width=settings.annotator_width,
        head_inputs=frames.arrays["head_inputs"].shape[1],
    ).to(device)
    spec = {**settings.cpc, "name": "cpc"}
    cpc: CPC = build("pretrain.objectives", spec, CPC, embedder.dim, schema).to(device)
    if cpc.views != 1:
        raise BadInput("the joint model's cpc reads one view: set past_only: false")
    total = max(1, round(sampler.steps * settings.epochs * epochs_share))
    evaluations = min(total, max(1, round(settings.epochs * epochs_share)))
    weights = [*model.parameters(), *cpc.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=settings.lr, weight_decay=settings.weight_decay)
    epoch_at = {round(total * n / evaluations): n for n in range(1, evaluations + 1)}
    best: list[tuple[float, int, dict[str, Tensor]]] = [(-1.0, 0, {})] * len(layers)
    for step in range(1, total + 1):
        for group in optimiser.param_groups:
            group["lr"] = settings.lr * 0.5 * (1 + math.cos(math.pi * (step - 1) / total))
        model.train()
        loss = _loss(model, cpc, sampler, annotators, settings, device)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        on_progress(1)
        if step in epoch_at:
            state = {name: x.detach().cpu().clone() for name, x in model.state_dict().items()}
            for i, layer in enumerate(layers):
                judges = [
                    p for p in layer.problems if annotators[p] == 0 and parts[p][1]
                ] or layer.problems
                truth = [parts[p][1] for p in judges]
                predicted = [
                    _label(model, frames, labels, i, annotators[p], settings, device)
                    for p, labels in zip(judges, truth, strict=True)
                ]
                score = validation_f1([problems[p] for p in judges], predicted, truth)
                if score >= best[i][0]:
                    best[i] = (score, epoch_at[step], state)
    probabilities: list[Probabilities] = [{} for _ in problems]
    for i, layer in enumerate(layers):
        model.load_state_dict(best[i][2])
        for p in layer.problems:
            probabilities[p] = _label(
                model, frames, problems[p].test, i, annotators[p], settings, device, on_progress
            )
    about = {
        " / ".join(layer.classes): {"epoch": epoch, "validation_f1": score}
        for layer, (score, epoch, _) in zip(layers, best, strict=True)
    }
    return probabilities, about


@torch.no_grad()
def _label(
    model: JointModel,
    frames: Frames,
    videos: Labelled,
    layer: int,
    annotator: int,
    settings: JointSettings,
    device: str,
    on_progress: Callable[[float], object] = lambda steps: None,
) -> dict[str, npt.NDArray[np.float32]]:
    model.eval()
    probabilities = {}
    annotator_B = torch.tensor([annotator], device=device)
    for name in sorted(videos):
        video = frames.video(name)
        extra_BTE = video.pop("head_inputs").to(device).unsqueeze(0)
        with matmul_precision(settings.precision, device):
            z_TD = embed_video(model.embedder, video, device=device)
            logits_TC = model.label(z_TD.unsqueeze(0), extra_BTE, annotator_B, layer)[0].float()
        probabilities[name] = logits_TC.softmax(-1).cpu().numpy()
        on_progress(label_steps(settings, len(model.out), len(z_TD)))
    return probabilities


@dataclass
class _Batch:
    frames: dict[str, Tensor]
    valid_BT: Tensor
    key_B: Tensor
    labels_BT: Tensor
    """UNLABELLED in windows of unlabelled videos."""
    problem_B: npt.NDArray[np.int64]
    """Index of the labels' problem; -1 for none."""


class _BatchSampler:
    """Draws batches: windows of labelled videos by their lengths, some of each output layer, and
    windows of unlabelled videos."""

    def __init__(
        self,
        frames: Frames,
        problems: Sequence[Problem],
        unlabelled: Sequence[str],
        layers: Sequence[OutputLayer],
        settings: JointSettings,
        rng: np.random.Generator,
    ) -> None:
        self._frames, self._problems, self._settings, self._rng = frames, problems, settings, rng
        self.layers = layers
        pairs = [(p, name) for p, problem in enumerate(problems) for name in sorted(problem.train)]
        without_labels = unlabelled or list(dict.fromkeys(name for _, name in pairs))
        self._pools = [
            (pairs, settings.labelled),
            *(
                ([pair for pair in pairs if pair[0] in layer.problems], settings.each_layer)
                for layer in layers
            ),
            ([(-1, name) for name in without_labels], settings.unlabelled),
        ]
        self._ends = [
            np.cumsum([self._length(name) for _, name in pool], dtype=float)
            for pool, _ in self._pools
        ]
        videos = {name for _, name in pairs} | set(unlabelled)
        self.steps = epoch_steps(settings, len(layers), sum(map(self._length, videos)))
        each = [[class_counts(problems[p])[0] for p in layer.problems] for layer in layers]
        counts = [np.sum(of_layer, axis=0) for of_layer in each]
        shares = [count_C / count_C.sum() for count_C in counts]
        self.prior_C = [torch.from_numpy(share_C).float() for share_C in shares]
        self.weight_C = [balanced(share_C, settings.class_weight) for share_C in shares]

    def _length(self, name: str) -> int:
        first, end = self._frames.spans[name]
        return end - first

    def frames(self, number: int) -> dict[str, Tensor]:
        """Windows of some batches, about so many frames."""
        a_batch = self._settings.window * sum(windows for _, windows in self._pools)
        batches = [self.batch() for _ in range(max(1, number // a_batch))]
        joined = {
            name: torch.cat([batch.frames[name] for batch in batches])
            for name in ("position", "confidence")
        }
        invalid = ~torch.cat([batch.valid_BT for batch in batches])
        joined["position"][invalid] = torch.nan
        joined["confidence"][invalid] = 0
        return joined

    def batch(self) -> _Batch:
        """A batch; frames beyond the end of a video are not valid."""
        window = self._settings.window
        chosen = []
        for (pool, number), ends in zip(self._pools, self._ends, strict=True):
            drawn = self._rng.random(number) * ends[-1]
            chosen += [pool[int(index)] for index in np.searchsorted(ends, drawn, side="right")]
        begin, frames = np.empty(len(chosen), np.int64), np.empty(len(chosen), np.int64)
        labels = np.full((len(chosen), window), UNLABELLED, np.int64)
        for row, (p, name) in enumerate(chosen):
            first, length = self._frames.spans[name][0], self._length(name)
            start = int(self._rng.integers(max(1, length - window + 1)))
            begin[row], frames[row] = first + start, min(window, length)
            if p >= 0:
                labels[row, : frames[row]] = self._problems[p].train[name][start : start + window]
        valid = np.arange(window) < frames[:, None]
        key = self._rng.integers(-(2**63), 2**63 - 1, len(chosen))
        return _Batch(
            self._frames.windows(begin, window),
            torch.from_numpy(valid),
            torch.from_numpy(key),
            torch.from_numpy(labels),
            np.array([p for p, _ in chosen]),
        )


def _loss(
    model: JointModel,
    cpc: CPC,
    sampler: _BatchSampler,
    annotators: Sequence[int],
    settings: JointSettings,
    device: str,
) -> Tensor:
    batch = sampler.batch()
    frames = {name: x.to(device) for name, x in batch.frames.items()}
    valid_BT, labels_BT = batch.valid_BT.to(device), batch.labels_BT.to(device)
    pose = as_pose(frames)
    pose = pose.hidden((~valid_BT)[:, :, None, None].expand(pose.confidence_BTMK.shape))
    windows = Windows(pose, valid_BT, batch.key_B.to(device))
    half = matmul_precision(settings.precision, device)
    with half:
        z_BTD = model.embedder(pose, valid_BT).float()
        total: Tensor = cpc((View(pose, z_BTD),), windows, WindowRNG(windows.key_B)).total
    for i, layer in enumerate(sampler.layers):
        rows = np.flatnonzero(np.isin(batch.problem_B, layer.problems))
        annotator_B = torch.tensor([annotators[p] for p in batch.problem_B[rows]], device=device)
        chosen = torch.from_numpy(rows).to(device)
        with half:
            extra_BTE = frames["head_inputs"][chosen]
            logits_BTC = model.label(z_BTD[chosen], extra_BTE, annotator_B, i).float()
        total = total + layer.weight * smoothed_cross_entropy(
            logits_BTC.flatten(0, 1),
            labels_BT[chosen].flatten(),
            prior_C=sampler.prior_C[i].to(device),
            weight_C=sampler.weight_C[i].to(device),
            smoothing=settings.smoothing,
        )
    return total
