"""What heads have in common that fit networks to long windows of frames read a few times a second,
with a schedule of their own: some ten seconds of one core a network."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from finetune.heads import AbstractHead, LabelledVideo, logits_of_mean
from pretrain.train.torch_setup import matmul_precision

_CLIP = 5.0  # standard deviations
_STANDARDISING_FRAMES = 20_000
_DECAY = 0.02  # of the running mean of the weights, a step


class WindowNetwork(nn.Module, ABC):
    """Standardised embeddings (B, T, D) to logits (B, T, C)."""

    def reset(self) -> None:
        """Draws the weights anew."""
        for part in self.modules():
            if isinstance(part, nn.Linear | nn.LayerNorm | nn.LSTM):
                part.reset_parameters()

    @abstractmethod
    def forward(self, x_BTD: Tensor, first: int = 0) -> Tensor:
        """Logits of frames of which the first is number ``first`` of its recording."""


class WindowNetworks(AbstractHead):
    """The mean of several networks, each a running mean of its weights over the last two thirds of
    its steps.

    Args:
        network: Makes one of so many inputs and classes.
        networks: Networks whose probabilities are averaged.
        hz: Frames a second that are read.
        columns: At most so many leading columns of an embedding are read.
        steps: Optimiser steps; 0: 200, and 300 from 20 labelled videos on.
        crop: Frames (as read) of a window, or as many as the longest recording has.
        noise: Standard deviation of the noise added to inputs of unit spread.
        label_smoothing: Share of the target spread evenly.
        class_weight: Power of the inverse class frequency that weighs a frame.
    """

    by_gradient = False

    def __init__(
        self,
        dim: int,
        classes: list[int],
        network: Callable[[int, int], WindowNetwork],
        *,
        networks: int,
        hz: float,
        columns: int,
        steps: int,
        crop: int,
        noise: float,
        label_smoothing: float,
        class_weight: float,
    ) -> None:
        super().__init__(dim)
        self.hz, self._steps, self._crop, self._noise = hz, steps, crop, noise
        self._smoothing, self._power = label_smoothing, class_weight
        self._columns = min(dim, columns)
        self.out = nn.ModuleList(
            nn.ModuleList(network(self._columns, number) for _ in range(networks))
            for number in classes
        )
        self.overlapping_P: Tensor
        self.register_buffer("overlapping_P", torch.zeros(len(classes), dtype=torch.bool))

    def trunk(self, z_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        """The leading columns of embeddings as they come, standardised."""
        read = slice(self._columns)
        z: Tensor = (z_BTD[..., read] - self.mean_D[read]) * self.scale_D[read]
        return z.clamp(-_CLIP, _CLIP) * valid_BT.unsqueeze(-1)

    def forward(
        self, z_BTD: Tensor, valid_BT: Tensor, problem_B: Tensor | None = None
    ) -> list[Tensor]:
        """Logits of the mean probabilities, (B, T, C) for each problem."""
        x_BTD, first = self.trunk(z_BTD, valid_BT), (self.stretch or (0, 0))[0]
        logits = []
        for p, networks in enumerate(self.out):
            assert isinstance(networks, nn.ModuleList)
            each = [network(x_BTD, first) for network in networks]
            weights = [1 / len(networks)] * len(networks)
            logits.append(logits_of_mean(each, weights, self.overlapping_P[p]))
        return logits

    def fit_videos(
        self, problem: int, videos: list[LabelledVideo], *, overlapping: bool, seed: int
    ) -> None:
        """Fits the networks of one problem."""
        if problem == 0:
            every = max(1, sum(len(video.z_TD) for video in videos) // _STANDARDISING_FRAMES)
            self.standardise(torch.cat([video.z_TD[::every] for video in videos]))
        self.overlapping_P[problem] = overlapping
        networks = self.out[problem]
        assert isinstance(networks, nn.ModuleList)
        with torch.no_grad():
            inputs = [
                self.trunk(video.z_TD[None], video.z_TD.new_ones(1, len(video.z_TD)))[0]
                for video in videos
            ]
        steps = self._steps or (300 if len(videos) >= 20 else 200)
        for number, network in enumerate(networks):
            assert isinstance(network, WindowNetwork)
            generator = torch.Generator().manual_seed(10_000 * seed + 100 * problem + number)
            torch.manual_seed(10_000 * seed + 100 * problem + number)
            network.reset()
            self._fit(network, inputs, videos, overlapping, steps, generator)

    def _fit(
        self,
        network: WindowNetwork,
        inputs: list[Tensor],
        videos: list[LabelledVideo],
        overlapping: bool,
        steps: int,
        generator: torch.Generator,
    ) -> None:
        rng = np.random.default_rng(generator.initial_seed())
        device = inputs[0].device
        shown = [video.shown_TC.to(device) for video in videos]
        weights = self._class_weights(videos, overlapping).to(device)
        spans = [np.flatnonzero(video.looked_at.numpy()) for video in videos]
        crop = min(self._crop, max(map(len, inputs)))
        optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05, fused=True)
        mean = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(1 - _DECAY))  # type: ignore[no-untyped-call]
        network.train()
        for step in range(steps):
            rate = min(1.0, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * step / steps))
            for group in optimiser.param_groups:
                group["lr"] = 2e-3 * rate
            rows = rng.integers(len(videos), size=8)
            pairs = [_cut(inputs[v], shown[v], spans[v], crop, rng) for v in rows]
            x_BTD = torch.stack([x for x, _ in pairs])
            shown_BTC = torch.stack([y for _, y in pairs])
            common = torch.randn(len(x_BTD), 1, x_BTD.shape[2], generator=generator)
            own = torch.randn(x_BTD.shape, generator=generator)
            x_BTD = x_BTD + self._noise * (common + own).to(device)
            with matmul_precision("auto", device.type):
                logits_BTC = network(x_BTD).float()
            loss = self._loss(logits_BTC, shown_BTC, weights, overlapping)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            if step >= steps // 3:
                mean.update_parameters(network)
        network.load_state_dict(mean.module.state_dict())
        network.eval()

    def _class_weights(self, videos: list[LabelledVideo], overlapping: bool) -> Tensor:
        """(C,) of exclusive classes, (2, C) of overlapping ones: frames without, frames with."""
        shown_NC = torch.cat([video.shown_TC[video.looked_at] for video in videos])
        with_C, without_C = (shown_NC == 1).sum(0).double(), (shown_NC == 0).sum(0).double()
        counts = torch.stack([without_C, with_C]) if overlapping else with_C
        total = counts.sum(0, keepdim=overlapping)
        raw = torch.where(counts > 0, (total / counts.clamp(min=1)) ** self._power, 0.0)
        share = (raw * counts).sum(0, keepdim=overlapping).clamp(min=1e-9)
        return (raw * total / share).float()

    def _loss(
        self, logits_BTC: Tensor, shown_BTC: Tensor, weights: Tensor, overlapping: bool
    ) -> Tensor:
        known_BTC = (shown_BTC >= 0).float()
        target_BTC = shown_BTC.clamp(min=0).float()
        smooth = self._smoothing
        if overlapping:
            weight_BTC = torch.where(target_BTC > 0, weights[1], weights[0]) * known_BTC
            target_BTC = target_BTC * (1 - smooth) + smooth / 2
            each = F.binary_cross_entropy_with_logits(logits_BTC, target_BTC, reduction="none")
            return (each * weight_BTC).sum() / known_BTC.sum().clamp(min=1)
        known_BT = known_BTC.amin(-1)
        target_BTC = target_BTC * (1 - smooth) + smooth / target_BTC.shape[-1]
        each_BT = -(target_BTC * weights * F.log_softmax(logits_BTC, -1)).sum(-1)
        return (each_BT * known_BT).sum() / known_BT.sum().clamp(min=1)


def _cut(
    x_TD: Tensor, shown_TC: Tensor, labelled: np.ndarray, crop: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """A window around labelled frames; shorter recordings are padded with nothing."""
    frames = len(x_TD)
    if frames < crop:
        lacking = crop - frames
        return F.pad(x_TD, (0, 0, 0, lacking)), F.pad(shown_TC, (0, 0, 0, lacking), value=-1)
    at = int(labelled[rng.integers(len(labelled))]) if len(labelled) else frames // 2
    begin = int(np.clip(at - rng.integers(crop), 0, frames - crop))
    return x_TD[begin : begin + crop], shown_TC[begin : begin + crop]
