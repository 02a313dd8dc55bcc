"""Trains the paper's networks and labels videos with them, by the paper's protocol (CalMS21, Sun et
al. 2021).

All labelled training frames, a fixed number of epochs, Adam at a constant rate, the last weights:
nothing is chosen on any score. A network may start from another's weights, and a phase may train
its last layer alone (batch norms are never frozen). One optimiser goes through all phases.
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
from finetune.paper.baselines import Baseline, build_baseline, label_every_frame
from finetune.paper.windows import Samples, Windows, scaled, standardised
from pretrain.data.store import Store
from pretrain.errors import BadInput

Inputs = Mapping[str, npt.NDArray[np.float32]]
"""Video to (T, F), coordinates first."""
WINDOWS_AT_ONCE = 512  # when labelling


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of training."""

    epochs: int = 0
    lr: float = 0.001
    last_layer_only: bool = False
    """Train the last layer and the batch norms alone."""


@dataclass(frozen=True, kw_only=True)
class InitialWeights:
    """Weights of another network to start from."""

    weights: Mapping[str, npt.NDArray[np.float32]]
    classes: Sequence[str]
    """Of its last layer; a problem with other classes gets a new last layer."""


def read_inputs(
    store: Store,
    videos: Sequence[str],
    *,
    features: str = "",
    moments_from: Sequence[str] = (),
    on_progress: Callable[[int], object] = lambda frames: None,
) -> dict[str, npt.NDArray[np.float32]]:
    """What the paper's networks read of some videos: coordinates, then the external features, if
    any are named, standardised by mean and standard deviation of the videos ``moments_from``.

    Raises:
        BadInput: If a video has no such features.
    """
    if features:
        mean_D, std_D = _moments(store, moments_from or videos, features)
    inputs = {}
    for name in videos:
        video = store.read_video(name, features=[features] if features else [])
        missing = torch.from_numpy(~(video.confidence_TMK > 0)).unsqueeze(-1)
        x_TF = scaled(
            torch.tensor(video.position_TMKX).masked_fill(missing, torch.nan), store.schema.image_px
        )
        if features:
            extra_TD = _without_gaps(video.features[features], name, features)
            x_TF = torch.cat([x_TF, standardised(extra_TD, mean_D, std_D)], 1)
        inputs[name] = x_TF.numpy()
        on_progress(len(x_TF))
    return inputs


def _moments(store: Store, videos: Sequence[str], features: str) -> tuple[Tensor, Tensor]:
    read = (store.read_video(name, features=[features]).features[features] for name in videos)
    values_ND = torch.cat(
        [_without_gaps(x_TD, name, features) for name, x_TD in zip(videos, read, strict=True)]
    )
    return values_ND.mean(0), values_ND.std(0)


def _without_gaps(values_TD: npt.NDArray[np.float32], video: str, features: str) -> Tensor:
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
    phases: Sequence[Phase],
    *,
    seed: int,
    coordinates: int,
    start: InitialWeights | None = None,
    class_weight: Mapping[str, float] | None = None,
    epochs_share: float = 1.0,
    device: str = "cpu",
    on_progress: Callable[[float], object] = lambda steps: None,
) -> nn.Module:
    """Trains on all labelled training frames of a problem; nothing else of it is looked at. The
    first ``coordinates`` columns of the inputs are coordinates. ``class_weight`` weighs classes in
    the loss, whose mean is over frames, not over weights. Phases last for ``epochs_share`` of their
    epochs.

    Returns:
        The network, in evaluation mode.

    Raises:
        BadInput: If behaviours overlap, or the starting weights are of another network.
    """
    if problem.overlapping:
        raise BadInput(
            f"{problem.name}: its behaviours overlap; the paper's networks are for classes that "
            "exclude each other"
        )
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    names = sorted(problem.train)
    network = build_baseline(
        settings, inputs=inputs[names[0]].shape[1], classes=len(problem.classes)
    )
    if start is not None:
        _load(network, start, problem)
    network = network.to(device)
    samples = Samples(
        [torch.tensor(inputs[name]).to(device) for name in names],
        [torch.from_numpy(problem.train[name].copy()) for name in names],
        settings,
        coordinates=coordinates,
    )
    weight_C = torch.tensor(
        [(class_weight or {}).get(name, 1.0) for name in problem.classes],
        dtype=torch.float32,
        device=device,
    )
    for module in network.modules():
        if isinstance(module, nn.LSTM):
            module.bias_hh_l0.requires_grad_(False)  # their network has one bias
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    adam = torch.optim.Adam(weights, eps=1e-7)  # the default of their framework
    for phase in phases:
        _train_only(network, weights, last_layer_only=phase.last_layer_only)
        for group in adam.param_groups:
            group["lr"] = phase.lr
        steps = phase_steps(samples.steps, phase, epochs_share)
        _train(network, adam, samples, generator, weight_C, steps, on_progress)
    return network.eval()


def phase_steps(steps_an_epoch: int, phase: Phase, epochs_share: float) -> int:
    """Optimiser steps of a phase, at least 1 where it has epochs."""
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
    """Probabilities of every frame of some videos, (T, C) each, by what :func:`train_network`
    returned. ``on_progress`` is told the optimiser steps that take as long
    (:func:`label_steps`)."""
    probabilities: dict[str, npt.NDArray[np.float32]] = {}
    network = network.to(device).eval()
    with torch.no_grad():
        for name in videos:
            x_TF = torch.tensor(inputs[name]).to(device)
            if settings.network == "conv1d":
                logits_TC = label_every_frame(network, x_TF, settings)
            else:
                logits = []
                for x_BWF in Windows([x_TF], settings).in_order(WINDOWS_AT_ONCE):
                    logits.append(network(x_BWF))
                    on_progress(label_steps(settings, len(x_BWF)))
                logits_TC = torch.cat(logits)
            probabilities[name] = logits_TC.softmax(1).cpu().numpy()
    return probabilities


def label_steps(settings: Baseline, frames: int) -> float:
    """The optimiser steps that take as long as labelling so many frames: a step goes through the
    network three times, twice of it backwards.

    0 for ``conv1d``, which labels each frame once and not once for every window it lies in.
    """
    return 0.0 if settings.network == "conv1d" else frames / (3 * settings.batch)


def _load(network: nn.Module, start: InitialWeights, problem: Problem) -> None:
    """Loads weights; the last layer keeps its own where the classes are others."""
    last_layer = f"{len(list(network.children())) - 1}."
    own = network.state_dict()
    weights = {name: torch.tensor(np.asarray(value)) for name, value in start.weights.items()}
    if tuple(start.classes) != problem.classes:
        weights |= {name: value for name, value in own.items() if name.startswith(last_layer)}
    if {name: value.shape for name, value in weights.items()} != {
        name: value.shape for name, value in own.items()
    }:
        raise BadInput(
            f"{problem.name}: the weights to start from are of another network (other widths, "
            "window or inputs)"
        )
    network.load_state_dict(weights)


def _train_only(network: nn.Module, weights: Sequence[Tensor], *, last_layer_only: bool) -> None:
    for weight in weights:
        weight.requires_grad_(not last_layer_only)
    parts = list(network.children())
    for module in (parts[-1], *(m for m in network.modules() if isinstance(m, nn.BatchNorm1d))):
        for weight in module.parameters():
            weight.requires_grad_(True)


def _train(
    network: nn.Module,
    adam: torch.optim.Optimizer,
    samples: Samples,
    generator: torch.Generator,
    weight_C: Tensor,
    steps: int,
    on_progress: Callable[[float], object],
) -> None:
    network.train()
    endless = itertools.chain.from_iterable(samples.epoch(generator) for _ in itertools.count())
    for x_BWF, y_B in itertools.islice(endless, steps):
        adam.zero_grad(set_to_none=True)
        loss = (F.cross_entropy(network(x_BWF), y_B, reduction="none") * weight_C[y_B]).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        on_progress(1)
