"""The benchmark paper's own networks, one window a frame: supervised baselines without pretraining (CalMS21, Sun et al. 2021).

Networks, windows and augmentation are theirs, and so are the initial weights of their framework, Keras. Coordinates are scaled by
the image and nothing else is made of them; a missing point, which their data does not have, stays where it was last seen.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finetune.frames import UNLABELLED
from pretrain.errors import refuse


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """One network of the paper and how it was trained."""

    network: Literal["conv1d", "lstm", "self_attention", "fully_connected"]
    widths: tuple[int, ...]
    past: int
    """Steps before the frame in its window."""
    future: int
    """Steps after it."""
    skip: int
    """Frames in a step."""
    lr: float
    """Of Adam, constant."""
    dropout: float
    epochs: int
    augment: bool = False
    batch: int = 128
    """Windows a step."""
    kernel: int = 5
    """Taps of conv1d."""
    state: int = 256
    """Width of the LSTM's state."""

    @property
    def window(self) -> int:
        """Steps of a window, W."""
        return self.past + 1 + self.future


_CONVS, _HIDDEN = (128, 64, 32), (512, 256, 128)

paper_settings: Mapping[str, Baseline] = {
    "conv1d": Baseline(network="conv1d", widths=_CONVS, past=100, future=100, skip=2, lr=1e-3, dropout=0.5, epochs=15),
    "conv1d_augmented": Baseline(
        network="conv1d", widths=_CONVS, past=50, future=50, skip=1, lr=1e-3, dropout=0.5, epochs=50, augment=True
    ),
    "conv1d_causal": Baseline(network="conv1d", widths=_CONVS, past=100, future=0, skip=2, lr=1e-3, dropout=0.5, epochs=15),
    "lstm": Baseline(network="lstm", widths=(256, 128), past=50, future=50, skip=1, lr=1e-3, dropout=0.5, epochs=20),
    "self_attention": Baseline(network="self_attention", widths=_CONVS, past=50, future=50, skip=1, lr=1e-3, dropout=0.5, epochs=20),
    "fully_connected": Baseline(network="fully_connected", widths=_HIDDEN, past=100, future=100, skip=2, lr=3e-4, dropout=0.5, epochs=15),
    "single_frame": Baseline(network="fully_connected", widths=(*_HIDDEN, 64), past=0, future=0, skip=1, lr=5e-3, dropout=0.2, epochs=15),
}
"""Task 1's published settings by name; ``conv1d`` is "the baseline", ``conv1d_augmented`` where Tasks 2 and 3 start from."""


def build_baseline(settings: Baseline, *, inputs: int, classes: int) -> nn.Module:
    """The network, (B, W, F) to (B, C) logits.

    Args:
        settings: Which, and its widths.
        inputs: F, 28 for CalMS21's coordinates, 60 with the 32 task-programming features.
        classes: C.

    Raises:
        BadInput: If the window is too short for the network's poolings.
    """
    size = settings.window
    shrink = {"conv1d": settings.kernel - 1, "self_attention": 0}
    if settings.network in shrink:
        for _ in settings.widths:
            size = (size - shrink[settings.network]) // 2
    too_short = f"a window of {settings.window} steps is too short for {len(settings.widths)} layers of {settings.network}"
    refuse([too_short] if size < 1 else [], about="the baseline")
    if settings.network == "conv1d":
        pairs = itertools.pairwise((inputs, *settings.widths))
        body: list[nn.Module] = [_Convolution(a, b, settings) for a, b in pairs]
        network = nn.Sequential(_InputNorm(inputs), *body, nn.Flatten(), nn.Linear(size * settings.widths[-1], classes))
    elif settings.network == "self_attention":
        body = [_Attention(a, b, settings) for a, b in itertools.pairwise((inputs, *settings.widths))]
        network = nn.Sequential(_InputNorm(inputs), *body, nn.Flatten(), nn.Linear(size * settings.widths[-1], classes))
    elif settings.network == "lstm":
        body = [_Dense(a, b, settings) for a, b in itertools.pairwise((settings.state, *settings.widths))]
        network = nn.Sequential(_InputNorm(inputs), _LastState(inputs, settings.state), *body, nn.Linear(settings.widths[-1], classes))
    else:
        flat = settings.window * inputs
        body = [_Dense(a, b, settings) for a, b in itertools.pairwise((flat, *settings.widths))]
        network = nn.Sequential(nn.Flatten(), _norm(flat), *body, nn.Linear(settings.widths[-1], classes))
    network.apply(_as_keras)
    return network


def _norm(channels: int) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(channels, eps=1e-3, momentum=0.01)  # the defaults of their framework


class _InputNorm(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.norm = _norm(inputs)

    def forward(self, x_BWF: Tensor) -> Tensor:
        out: Tensor = self.norm(x_BWF.flatten(0, 1)).view(x_BWF.shape)
        return out


class _Convolution(nn.Module):
    def __init__(self, inputs: int, width: int, settings: Baseline) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(inputs, width, settings.kernel), _norm(width)
        self.drop = nn.Dropout(settings.dropout)

    def forward(self, x_BWC: Tensor) -> Tensor:
        x_BCW = F.max_pool1d(F.relu(self.norm(self.conv(x_BWC.transpose(1, 2)))), 2)
        out: Tensor = self.drop(x_BCW.transpose(1, 2))
        return out


class _Attention(nn.Module):
    """Single head, keys equal to values, not scaled."""

    def __init__(self, inputs: int, width: int, settings: Baseline) -> None:
        super().__init__()
        self.query, self.value, self.mix = nn.Linear(inputs, width), nn.Linear(inputs, width), nn.Linear(width, width)
        self.norm, self.drop = _norm(width), nn.Dropout(settings.dropout)

    def forward(self, x_BWC: Tensor) -> Tensor:
        value = self.value(x_BWC)
        met = F.scaled_dot_product_attention(self.query(x_BWC), value, value, scale=1.0)
        x_BCW = F.max_pool1d(F.relu(self.norm(self.mix(met).transpose(1, 2))), 2)
        out: Tensor = self.drop(x_BCW.transpose(1, 2))
        return out


class _LastState(nn.Module):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, width, batch_first=True)

    def forward(self, x_BWF: Tensor) -> Tensor:
        out: Tensor = self.lstm(x_BWF)[1][0][0]
        return out


class _Dense(nn.Module):
    def __init__(self, inputs: int, width: int, settings: Baseline) -> None:
        super().__init__()
        self.linear, self.norm, self.drop = nn.Linear(inputs, width), _norm(width), nn.Dropout(settings.dropout)

    def forward(self, x_BC: Tensor) -> Tensor:
        out: Tensor = self.drop(F.relu(self.norm(self.linear(x_BC))))
        return out


def _as_keras(module: nn.Module) -> None:
    """Initial weights of their framework: Glorot uniform, recurrent ones orthogonal, biases 0, the LSTM's forget bias 1."""
    if isinstance(module, nn.Linear | nn.Conv1d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, nn.LSTM):
        nn.init.xavier_uniform_(module.weight_ih_l0)
        nn.init.orthogonal_(module.weight_hh_l0)
        nn.init.zeros_(module.bias_ih_l0)
        nn.init.zeros_(module.bias_hh_l0)
        module.bias_hh_l0.requires_grad_(False)  # theirs has one bias, not two
        with torch.no_grad():
            module.bias_ih_l0[module.hidden_size : 2 * module.hidden_size] = 1.0


def scaled(position_TMKX: Tensor, image_px: Sequence[float] = (1024.0, 570.0)) -> Tensor:
    """Coordinates as shares of the image, (T, F) in the order (M, K, X).

    A missing point (NaN) is where it was last seen, before that where it is first seen; one never seen lies in the image's centre.
    """
    position = position_TMKX.to(torch.float32) / torch.tensor(image_px, dtype=torch.float32, device=position_TMKX.device)
    seen = position.isfinite().all(-1)
    if seen.all():
        return position.flatten(1)
    frame = torch.arange(len(seen), device=seen.device).view(-1, 1, 1)
    last = torch.where(seen, frame, -1).cummax(0).values
    first = torch.where(seen, frame, len(seen)).amin(0, keepdim=True)
    taken = torch.where(last < 0, first, last).clamp(max=len(seen) - 1)
    held = position.gather(0, taken.unsqueeze(-1).expand(position.shape))
    return torch.where(seen.any(0).unsqueeze(-1), held, 0.5).flatten(1)


def standardised(extra_TD: Tensor, mean_D: Tensor, spread_D: Tensor) -> Tensor:
    """Features from elsewhere with mean 0 and spread 1 by the training videos' moments; a dimension without spread becomes 0."""
    return torch.where(spread_D > 1e-6, (extra_TD - mean_D) / spread_D.clamp(min=1e-6), 0.0)


class Windows:
    """The windows of some videos: every frame is the sample of the window around it, padded with zeros at the ends of its video.

    Frames of all videos lie end to end with their padding between them; a batch is one selection of rows.

    Args:
        inputs: (T, F) of each video: :func:`scaled` coordinates, and any other features beside them.
        settings: Window and skip.
    """

    def __init__(self, inputs: Sequence[Tensor], settings: Baseline) -> None:
        refuse(["there is no video"] if not inputs else [], about="the baseline's windows")
        before, after = settings.past * settings.skip, settings.future * settings.skip
        self._rows_NF = torch.cat([F.pad(x_TF, (0, 0, before, after)) for x_TF in inputs])
        lengths = torch.tensor([len(x_TF) for x_TF in inputs])
        first = torch.cumsum(lengths + before + after, 0) - lengths - after
        self._centre = torch.cat([torch.arange(int(n)) + int(start) for n, start in zip(lengths, first, strict=True)])
        self._centre = self._centre.to(self._rows_NF.device)
        self._steps_W = torch.arange(-settings.past, settings.future + 1, device=self._rows_NF.device) * settings.skip

    def __len__(self) -> int:
        """Frames, one window each."""
        return len(self._centre)

    def cut(self, frames: Tensor) -> Tensor:
        """(B, W, F) around the given frames, counted through all videos."""
        rows_BW = self._centre[frames].unsqueeze(1) + self._steps_W
        return self._rows_NF.index_select(0, rows_BW.flatten()).view(*rows_BW.shape, -1)

    def in_order(self, size: int) -> Iterator[Tensor]:
        """All windows, ``size`` at a time, for labelling whole videos."""
        for begin in range(0, len(self), size):
            yield self.cut(torch.arange(begin, min(begin + size, len(self)), device=self._centre.device))


def augmented(x_BWF: Tensor, generator: torch.Generator, *, coordinates: int) -> Tensor:
    """The paper's augmentation: each window turned about the origin by U(-pi, pi), then moved by U(-0.25, 0.25) along each axis.

    It acts on scaled coordinates, so that angles bend with the image's proportions; that is how it was published.

    Args:
        x_BWF: Windows; a changed copy is returned.
        generator: Of the draws, on the CPU.
        coordinates: How many of F, from the first, are x, y, x, y …; the others stay as they are.
    """
    drawn = torch.rand((len(x_BWF), 3), generator=generator).to(x_BWF.device)
    angle = (drawn[:, 0] * 2 - 1) * math.pi
    cos, sin = angle.cos(), angle.sin()
    turn_BXY = torch.stack([cos, sin, -sin, cos], 1).view(-1, 2, 2)
    points = x_BWF[..., :coordinates].reshape(len(x_BWF), -1, 2)
    moved = torch.baddbmm((drawn[:, None, 1:] * 2 - 1) * 0.25, points, turn_BXY).view(*x_BWF.shape[:2], coordinates)
    return moved if coordinates == x_BWF.shape[-1] else torch.cat([moved, x_BWF[..., coordinates:]], -1)


def batches(
    position: Sequence[Tensor], labels: Sequence[Tensor], settings: Baseline, generator: torch.Generator, *,
    image_px: Sequence[float] = (1024.0, 570.0), extra: Sequence[Tensor] | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:  # fmt: skip
    """One epoch of training batches: every labelled frame once, in an order drawn anew.

    Args:
        position: (T, M, K, X) px of each video.
        labels: (T,) class of each of its frames, or UNLABELLED.
        settings: Window, batch, augmentation.
        generator: Of order and augmentation, on the CPU; go on using the same one for the next epoch.
        image_px: Width and height.
        extra: (T, D) of each video, :func:`standardised`; laid beside the coordinates.

    Yields:
        (B, W, F) and (B,) int64. A last batch of one window, which has no batch statistics, is joined to the one before it.

    Raises:
        BadInput: If videos, labels and extra features do not belong together, or no frame is labelled.
    """
    problems = [
        f"{len(position)} videos, but {name} of {len(held)}" for name, held in (("labels", labels), ("extra features", extra))
        if held is not None and len(held) != len(position)
    ]  # fmt: skip
    for name, held in (("labels", labels), ("extra features", extra or [])):
        problems += [
            f"video {place} has {len(one)} frames, its {name} {len(other)}"
            for place, (one, other) in enumerate(zip(position, held, strict=False))
            if len(one) != len(other)
        ]
    if not any((held != UNLABELLED).any() for held in labels):
        problems.append("no frame is labelled")
    refuse(problems, about="the baseline's training data")
    inputs = [scaled(held, image_px) for held in position]
    coordinates = inputs[0].shape[1]
    if extra is not None:
        inputs = [torch.cat([x_TF, more.to(x_TF)], 1) for x_TF, more in zip(inputs, extra, strict=True)]
    windows = Windows(inputs, settings)
    label_N = torch.cat(list(labels)).to(torch.int64)
    known = (label_N != UNLABELLED).nonzero().squeeze(1)
    order = known[torch.randperm(len(known), generator=generator).to(known.device)]
    places = list(order.split(settings.batch))
    if len(places) > 1 and len(places[-1]) == 1:
        places[-2:] = [torch.cat(places[-2:])]
    for place in places:
        x_BWF = windows.cut(place)
        yield (augmented(x_BWF, generator, coordinates=coordinates) if settings.augment else x_BWF), label_N[place]
