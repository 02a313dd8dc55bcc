"""Trains the paper's networks and labels videos with them, by the paper's protocol (CalMS21, Sun et
al. 2021).

All labelled training frames, a fixed number of epochs, Adam at a constant rate, the last weights:
nothing is chosen on any score. A network may start from another's weights; then its last layer is
trained first (batch norms are never frozen), and then all of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finetune.fit.fit import Probabilities
from finetune.labels.problems import Problem
from finetune.paper.baselines import Baseline, build_baseline
from finetune.paper.dense import label_every_frame
from finetune.paper.windows import Samples, Windows, scaled, standardised
from pretrain.data.store import Store
from pretrain.errors import BadInput

Inputs = Mapping[str, npt.NDArray[np.float32]]
"""Video to (T, F), coordinates first."""
AT_ONCE = 512  # windows labelled together


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of training."""

    epochs: int = 0
    lr: float = 0.001


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where a network starts from."""

    weights: Mapping[str, npt.NDArray[np.float32]]
    classes: Sequence[str]
    """What its last layer tells apart; another problem's last layer starts anew."""


def gather_inputs(
    store: Store,
    videos: Sequence[str],
    *,
    features: str = "",
    moments_of: Sequence[str] = (),
    on_progress: Callable[[int], object] = lambda frames: None,
) -> dict[str, npt.NDArray[np.float32]]:
    """What the paper's networks read of some videos.

    Args:
        store: Of the poses.
        videos: Which.
        features: Features from elsewhere to lay beside the coordinates; none where empty.
        moments_of: Videos (of ``videos`` or not) whose mean and spread standardise the features.
        on_progress: Called with the number of frames read.

    Raises:
        BadInput: If a video has no such features.
    """
    mean_D, spread_D = (
        _moments(store, moments_of or videos, features)
        if features
        else (torch.zeros(0), torch.zeros(0))
    )
    found = {}
    for name in videos:
        video = store.read_video(name, features=[features] if features else [])
        missing = torch.from_numpy(~(video.confidence_TMK > 0)).unsqueeze(-1)
        x_TF = scaled(
            torch.tensor(video.position_TMKX).masked_fill(missing, torch.nan), store.schema.image_px
        )
        if features:
            x_TF = torch.cat(
                [
                    x_TF,
                    standardised(
                        _known(video.features[features], name, features), mean_D, spread_D
                    ),
                ],
                1,
            )
        found[name] = x_TF.numpy()
        on_progress(len(x_TF))
    return found


def _moments(store: Store, videos: Sequence[str], features: str) -> tuple[Tensor, Tensor]:
    held = torch.cat(
        [
            _known(store.read_video(name, features=[features]).features[features], name, features)
            for name in videos
        ]
    )
    return held.mean(0), held.std(0)


def _known(values_TD: npt.NDArray[np.float32], video: str, features: str) -> Tensor:
    if np.isnan(values_TD).any():
        raise BadInput(
            f"video {video!r} lacks the features {features!r} in "
            f"{int(np.isnan(values_TD).any(1).sum()):,} frames"
        )
    return torch.tensor(values_TD)


def train_network(
    inputs: Inputs,
    problem: Problem,
    settings: Baseline,
    phases: Sequence[tuple[Phase, bool]],
    *,
    seed: int,
    coordinates: int,
    start: Start | None = None,
    class_weight: Mapping[str, float] | None = None,
    epochs_share: float = 1.0,
    device: str = "cpu",
    on_progress: Callable[[float], object] = lambda steps: None,
) -> nn.Module:
    """Trains on all labelled training frames of a problem.

    Args:
        inputs: Of its training videos, at least.
        problem: Its training labels are looked at, nothing else.
        settings: Network, windows, batch.
        phases: What to train for how long, and whether the last layer alone (and the batch norms).
        seed: Of weights, dropout, order and augmentation.
        coordinates: How many of the inputs are coordinates.
        start: Weights to start from.
        class_weight: Class to weight in the loss; others weigh 1. The mean is over frames, not over
            weights.
        epochs_share: Train for this share of the epochs.
        device: Where.
        on_progress: Called with the number of steps done.

    Returns:
        The network, in evaluation mode.

    Raises:
        BadInput: If behaviours overlap, or the starting weights are of another network.
    """
    if problem.overlapping:
        raise BadInput(
            f"{problem.name}: its behaviours overlap; the paper's networks tell exclusive classes "
            "apart"
        )
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    names = sorted(problem.train)
    network = build_baseline(
        settings, inputs=inputs[names[0]].shape[1], classes=len(problem.classes)
    )
    if start is not None:
        _take(network, start, problem)
    network = network.to(device)
    held = [torch.tensor(inputs[name]).to(device) for name in names]
    samples = Samples(
        held,
        [torch.from_numpy(problem.train[name].copy()) for name in names],
        settings,
        coordinates=coordinates,
    )
    weight_C = torch.tensor(
        [(class_weight or {}).get(name, 1.0) for name in problem.classes],
        dtype=torch.float32,
        device=device,
    )
    for phase, last_alone in phases:
        if phase.epochs:
            steps = phase_steps(samples.steps, phase, epochs_share)
            _train(
                network,
                samples,
                generator,
                weight_C,
                steps=steps,
                lr=phase.lr,
                last_alone=last_alone,
                on_progress=on_progress,
            )
    return network.eval()


def phase_steps(steps_an_epoch: int, phase: Phase, epochs_share: float) -> int:
    """Optimiser steps of a phase."""
    return max(1, round(steps_an_epoch * phase.epochs * epochs_share)) if phase.epochs else 0


def label_videos(
    network: nn.Module,
    inputs: Inputs,
    videos: Sequence[str],
    settings: Baseline,
    *,
    device: str = "cpu",
    on_progress: Callable[[float], object] = lambda steps: None,
) -> Probabilities:
    """Probabilities of every frame of some videos, (T, C) each.

    Args:
        network: What :func:`train_network` returns.
        inputs: Of the videos, at least.
        videos: Which.
        settings: Of the network.
        device: Where.
        on_progress: Called with what has been done, in optimiser steps (:func:`label_steps`).
    """
    found: dict[str, npt.NDArray[np.float32]] = {}
    network = network.to(device).eval()
    with torch.no_grad():
        for name in videos:
            x_TF = torch.tensor(inputs[name]).to(device)
            if settings.network == "conv1d":
                logits_TC = label_every_frame(network, x_TF, settings)
            else:
                found_here = []
                for x_BWF in Windows([x_TF], settings).in_order(AT_ONCE):
                    found_here.append(network(x_BWF))
                    on_progress(label_steps(settings, len(x_BWF)))
                logits_TC = torch.cat(found_here)
            found[name] = logits_TC.softmax(1).cpu().numpy()
    return found


def label_steps(settings: Baseline, frames: int) -> float:
    """What labelling so many frames takes, in optimiser steps: a step goes through the network
    three times, twice of it backwards.

    Nothing for ``conv1d``, which labels each frame once and not once for every window it lies in.
    """
    return 0.0 if settings.network == "conv1d" else frames / (3 * settings.batch)


def _take(network: nn.Module, start: Start, problem: Problem) -> None:
    last = f"{len(list(network.children())) - 1}."
    weights = {name: torch.tensor(np.asarray(held)) for name, held in start.weights.items()}
    own = network.state_dict()
    if tuple(start.classes) != problem.classes:
        weights = {
            name: own[name] if name.startswith(last) else held for name, held in weights.items()
        }
    if {name: held.shape for name, held in weights.items()} != {
        name: held.shape for name, held in own.items()
    }:
        raise BadInput(
            f"{problem.name}: the weights to start from are of another network (other widths, "
            "window or inputs)"
        )
    network.load_state_dict(weights)


def _train(
    network: nn.Module,
    samples: Samples,
    generator: torch.Generator,
    weight_C: Tensor,
    *,
    steps: int,
    lr: float,
    last_alone: bool,
    on_progress: Callable[[float], object],
) -> None:
    parts = list(network.children())
    for weight in network.parameters():
        weight.requires_grad_(not last_alone)
    for module in (parts[-1], *(m for m in network.modules() if isinstance(m, nn.BatchNorm1d))):
        for weight in module.parameters():
            weight.requires_grad_(True)
    for module in network.modules():
        if isinstance(module, nn.LSTM):
            module.bias_hh_l0.requires_grad_(False)  # their network has one bias
    adam = torch.optim.Adam(
        [w for w in network.parameters() if w.requires_grad], lr=lr, eps=1e-7
    )  # the default of their framework
    network.train()
    endless = itertools.chain.from_iterable(samples.epoch(generator) for _ in itertools.count())
    for x_BWF, y_B in itertools.islice(endless, steps):
        adam.zero_grad(set_to_none=True)
        loss = (F.cross_entropy(network(x_BWF), y_B, reduction="none") * weight_C[y_B]).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        on_progress(1)
