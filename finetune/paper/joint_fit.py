"""Fits one model for several label sets: contrastive predictive coding on all windows,
cross-entropy on the labelled ones.

Plain torch. A network is fitted on part of the labelled training videos; on the rest each output
layer chooses its epoch. Test labels are looked at by nobody here, test poses only while they are
labelled, unless the unlabelled videos handed in are test videos.
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

from finetune.fit.fit import Probabilities, score_problems
from finetune.fit.frames import Frames
from finetune.labels.frame_labels import UNLABELLED
from finetune.labels.problems import Labelled, Problem, hold_out
from finetune.paper.joint_model import JointModel, JointSettings, beside, smoothed_cross_entropy
from pretrain.data.schema import Schema
from pretrain.data.window_rng import WindowRNG
from pretrain.data.windows import Windows
from pretrain.encoders import build_embedder
from pretrain.errors import BadInput, refuse
from pretrain.objectives import View
from pretrain.objectives.cpc import CPC
from pretrain.train.embed_video import as_pose, embed_video
from pretrain.train.precision import products

_FITTED_ON = 65_536  # frames that means and spreads of features are taken from


@dataclass(frozen=True, kw_only=True)
class Layer:
    """An output layer: the problems that share its classes."""

    classes: tuple[str, ...]
    problems: tuple[int, ...]
    weight: float


def layers_of(problems: Sequence[Problem], settings: JointSettings) -> list[Layer]:
    """One output layer for each set of classes; Tasks 1 and 2 share theirs.

    Raises:
        BadInput: If behaviours overlap.
    """
    refuse(
        [f"{p.name}: its behaviours overlap" for p in problems if p.overlapping],
        about="the joint model tells exclusive classes apart",
    )
    found: dict[tuple[str, ...], list[int]] = {}
    for place, problem in enumerate(problems):
        found.setdefault(problem.classes, []).append(place)
    return [
        Layer(
            classes=classes,
            problems=tuple(places),
            weight=settings.task_weight.get(problems[places[0]].task, 1.0),
        )
        for classes, places in found.items()
    ]


def annotators_of(problems: Sequence[Problem]) -> list[int]:
    """The annotator of each problem by place; what nobody is named for counts as the first one's,
    as the entry counts Task 3."""
    names = list(dict.fromkeys(p.annotator for p in problems if p.annotator))
    return [names.index(p.annotator) if p.annotator else 0 for p in problems]


def unlabelled_videos(
    videos: Sequence[str], problems: Sequence[Problem], *, transductive: bool
) -> list[str]:
    """Videos to learn from without their labels: those nobody labelled, and the test videos if
    ``transductive``; never a training video."""
    train = {name for p in problems for name in p.train}
    test = {name for p in problems for name in p.test}
    return [name for name in videos if name not in train and (transductive or name not in test)]


def footage(poses: Frames, settings: JointSettings, image_px: Sequence[float]) -> Frames:
    """Poses with what only the head sees beside them."""
    rows = [
        beside(torch.tensor(poses.arrays["position"][first:end]), settings, image_px).numpy()
        for first, end in poses.place.values()
    ]
    return Frames(place=poses.place, arrays={**poses.arrays, "beside": np.concatenate(rows)})


def epoch_steps(settings: JointSettings, layers: int, frames: int) -> int:
    """Batches of an epoch over so many labelled and unlabelled training frames."""
    return max(1, round(frames / settings.advance / _windows(settings, layers)))


def label_steps(settings: JointSettings, layers: int, frames: int) -> float:
    """What labelling so many frames takes, in optimiser steps: a step goes through the network
    three times, twice of it backwards."""
    return frames / (3 * settings.window * _windows(settings, layers))


def _windows(settings: JointSettings, layers: int) -> int:
    """Of a batch."""
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
    """Fits one network of an ensemble and labels the test videos.

    Args:
        frames: :func:`footage` of training, test and unlabelled videos.
        problems: All problems of all tasks.
        unlabelled: Videos to learn from without labels; where there are none, the training videos.
        settings: How.
        schema: Of the skeleton.
        seed: Of the ensemble.
        member: Which of its networks; decides the split, the weights and the draws.
        epochs_share: Train for this share of the epochs.
        device: Where.
        on_progress: Called with the number of steps done, while the test videos are labelled with
            what that is in steps (:func:`label_steps`).

    Returns:
        Probabilities of the test videos for each problem; and the chosen epoch and validation score
        of each output layer.
    """
    torch.manual_seed(seed * 1000 + member)
    draw = np.random.default_rng([seed, member, 5])
    layers, annotators = layers_of(problems, settings), annotators_of(problems)
    parts: list[tuple[Problem, Labelled]] = [
        hold_out(p, share=settings.validation, seed=seed * 1000 + member) for p in problems
    ]
    embedder = build_embedder(schema, features=settings.features, encoder=settings.encoder)
    supply = _Supply(frames, [part for part, _ in parts], unlabelled, layers, settings, draw)
    embedder.features.fit(as_pose(supply.some(_FITTED_ON)))
    model = JointModel(
        embedder,
        classes=[len(layer.classes) for layer in layers],
        annotators=max(annotators) + 1,
        annotator_width=settings.annotator_width,
        beside=frames.arrays["beside"].shape[1],
    ).to(device)
    cpc = CPC(embedder.dim, schema, **settings.cpc).to(device)
    if cpc.views != 1:
        raise BadInput("the joint model's cpc reads one view: set past_only: false")
    total = max(1, round(supply.steps * settings.epochs * epochs_share))
    looks = min(total, max(1, round(settings.epochs * epochs_share)))
    weights = [*model.parameters(), *cpc.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=settings.lr, weight_decay=settings.weight_decay)
    stops = {round(total * look / looks): look for look in range(1, looks + 1)}
    kept: list[tuple[float, int, dict[str, Tensor]]] = [(-1.0, 0, {})] * len(layers)
    for step in range(1, total + 1):
        for group in optimiser.param_groups:
            group["lr"] = settings.lr * 0.5 * (1 + math.cos(math.pi * (step - 1) / total))
        model.train()
        loss = _loss(model, cpc, supply, annotators, settings, device)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        on_progress(1)
        if step in stops:
            state = {name: held.detach().cpu().clone() for name, held in model.state_dict().items()}
            for place, layer in enumerate(layers):
                truth = [parts[p][1] for p in layer.problems]
                found = [
                    _label(model, frames, truth[at], place, annotators[p], settings, device)
                    for at, p in enumerate(layer.problems)
                ]
                score = score_problems([problems[p] for p in layer.problems], found, truth).macro_f1
                if (0.0 if math.isnan(score) else score) >= kept[place][0]:
                    kept[place] = (0.0 if math.isnan(score) else score, stops[step], state)
    probabilities: list[Probabilities] = [{} for _ in problems]
    for place, layer in enumerate(layers):
        model.load_state_dict(kept[place][2])
        for p in layer.problems:
            probabilities[p] = _label(
                model, frames, problems[p].test, place, annotators[p], settings, device, on_progress
            )
    about = {
        " / ".join(layer.classes): {"epoch": kept[i][1], "validation_f1": kept[i][0]}
        for i, layer in enumerate(layers)
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
    found = {}
    who_B = torch.tensor([annotator], device=device)
    for name in sorted(videos):
        held = frames.video(name)
        alone = held.pop("beside").to(device).unsqueeze(0)
        with products(settings.precision, device):
            z_TD = embed_video(model.embedder, held, device=device)
            logits_TC = model.label(z_TD.unsqueeze(0), alone, who_B, layer)[0].float()
        found[name] = logits_TC.softmax(-1).cpu().numpy()
        on_progress(label_steps(settings, len(model.out), len(z_TD)))
    return found


@dataclass
class _Batch:
    stretch: dict[str, Tensor]
    valid_BT: Tensor
    key_B: Tensor
    labels_BT: Tensor
    """UNLABELLED in windows of unlabelled videos."""
    problem_B: npt.NDArray[np.int64]
    """Whose labels; -1 for none."""


class _Supply:
    """Draws batches: labelled windows by length, some of each output layer, and unlabelled
    ones."""

    def __init__(
        self,
        frames: Frames,
        problems: Sequence[Problem],
        unlabelled: Sequence[str],
        layers: Sequence[Layer],
        settings: JointSettings,
        draw: np.random.Generator,
    ) -> None:
        self._frames, self._problems, self._settings, self._draw = frames, problems, settings, draw
        self.layers = layers
        pairs = [(p, name) for p, problem in enumerate(problems) for name in sorted(problem.train)]
        alone = [(-1, name) for name in unlabelled] or [
            (-1, name) for name in dict.fromkeys(name for _, name in pairs)
        ]
        self._pools = [
            (pairs, settings.labelled),
            *(
                ([pair for pair in pairs if pair[0] in layer.problems], settings.each_layer)
                for layer in layers
            ),
            (alone, settings.unlabelled),
        ]
        self._shares = [
            np.cumsum([self._length(name) for _, name in pool], dtype=float)
            for pool, _ in self._pools
        ]
        seen = {name for _, name in pairs} | set(unlabelled)
        self.steps = epoch_steps(settings, len(layers), sum(self._length(name) for name in seen))
        counts = [
            np.sum([_counts(problems[p]) for p in layer.problems], axis=0) for layer in layers
        ]
        self.prior_C = [torch.from_numpy(held / held.sum()).float() for held in counts]
        self.weight_C = [
            torch.from_numpy(_weights(held, settings.class_weight)).float() for held in counts
        ]

    def _length(self, name: str) -> int:
        first, end = self._frames.place[name]
        return end - first

    def some(self, frames: int) -> dict[str, Tensor]:
        """Windows from everything that is learned from, about so many frames."""
        made = [
            self.batch()
            for _ in range(
                max(1, frames // self._settings.window // sum(number for _, number in self._pools))
            )
        ]
        joined = {
            name: torch.cat([held.stretch[name] for held in made])
            for name in ("position", "confidence")
        }
        beyond = ~torch.cat([held.valid_BT for held in made])
        joined["position"][beyond] = torch.nan
        joined["confidence"][beyond] = 0
        return joined

    def batch(self) -> _Batch:
        """A batch; frames beyond the end of a video are not valid."""
        window = self._settings.window
        chosen = []
        for (pool, number), share in zip(self._pools, self._shares, strict=True):
            chosen += [
                pool[int(place)]
                for place in np.searchsorted(
                    share, self._draw.random(number) * share[-1], side="right"
                )
            ]
        begin, frames = np.empty(len(chosen), np.int64), np.empty(len(chosen), np.int64)
        labels = np.full((len(chosen), window), UNLABELLED, np.int64)
        for row, (p, name) in enumerate(chosen):
            first, length = self._frames.place[name][0], self._length(name)
            start = int(self._draw.integers(max(1, length - window + 1)))
            begin[row], frames[row] = first + start, min(window, length)
            if p >= 0:
                labels[row, : frames[row]] = self._problems[p].train[name][start : start + window]
        valid = np.arange(window) < frames[:, None]
        key = self._draw.integers(-(2**63), 2**63 - 1, len(chosen))
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
    supply: _Supply,
    annotators: Sequence[int],
    settings: JointSettings,
    device: str,
) -> Tensor:
    batch = supply.batch()
    stretch = {name: held.to(device) for name, held in batch.stretch.items()}
    valid_BT, labels_BT = batch.valid_BT.to(device), batch.labels_BT.to(device)
    pose = as_pose(stretch)
    pose = pose.hidden((~valid_BT)[:, :, None, None].expand(pose.confidence_BTMK.shape))
    windows = Windows(pose, valid_BT, batch.key_B.to(device))
    half = products(settings.precision, device)
    with half:
        z_BTD = model.embedder(pose, valid_BT).float()
        total: Tensor = cpc((View(pose, z_BTD),), windows, WindowRNG(windows.key_B)).total
    for place, layer in enumerate(supply.layers):
        rows = np.flatnonzero(np.isin(batch.problem_B, layer.problems))
        who_B = torch.tensor([annotators[p] for p in batch.problem_B[rows]], device=device)
        chosen = torch.from_numpy(rows).to(device)
        with half:
            logits_BTC = model.label(z_BTD[chosen], stretch["beside"][chosen], who_B, place).float()
        total = total + layer.weight * smoothed_cross_entropy(
            logits_BTC.flatten(0, 1),
            labels_BT[chosen].flatten(),
            prior_C=supply.prior_C[place].to(device),
            weight_C=supply.weight_C[place].to(device),
            smoothing=settings.smoothing,
        )
    return total


def _counts(problem: Problem) -> npt.NDArray[np.float64]:
    labels = np.concatenate(list(problem.train.values()))
    return np.bincount(labels[labels != UNLABELLED], minlength=len(problem.classes)).astype(float)


def _weights(counts: npt.NDArray[np.float64], power: float) -> npt.NDArray[np.float64]:
    share = counts / counts.sum()
    weight = np.where(share > 0, np.maximum(share, 1e-9) ** -power, 0.0)
    return np.asarray(weight / (weight * share).sum())
