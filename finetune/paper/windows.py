"""Windows, augmentation and batches as the benchmark paper's networks read them (CalMS21, Sun et
al. 2021).

Coordinates are scaled by the image and read as they are. A missing point, which their data does not
have, stays where it was last seen. Windows are not stored: a batch is one selection of rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from finetune.labels.frame_labels import UNLABELLED
from finetune.paper.baselines import Baseline
from pretrain.errors import BadInput


def scaled(position_TMKX: Tensor, image_px: Sequence[float] = (1024.0, 570.0)) -> Tensor:
    """Coordinates as shares of the image, (T, F) in the order (M, K, X).

    A missing point (NaN) is where it was last seen, before that where it is first seen; one never
    seen lies in the image's centre.
    """
    position = position_TMKX.to(torch.float32) / torch.tensor(
        image_px, dtype=torch.float32, device=position_TMKX.device
    )
    seen = position.isfinite().all(-1)
    if seen.all():
        return position.flatten(1)
    frame = torch.arange(len(seen), device=seen.device).view(-1, 1, 1)
    last = torch.where(seen, frame, -1).cummax(0).values
    first = torch.where(seen, frame, len(seen)).amin(0, keepdim=True)
    source = torch.where(last < 0, first, last).clamp(max=len(seen) - 1)
    filled = position.gather(0, source.unsqueeze(-1).expand(position.shape))
    return torch.where(seen.any(0).unsqueeze(-1), filled, 0.5).flatten(1)


def standardised(extra_TD: Tensor, mean_D: Tensor, std_D: Tensor) -> Tensor:
    """External features with mean 0 and standard deviation 1 by the training videos' moments; a
    constant dimension becomes 0."""
    return torch.where(std_D > 1e-6, (extra_TD - mean_D) / std_D.clamp(min=1e-6), 0.0)


class Windows:
    """The windows of some videos, one around every frame, padded with zeros at the ends of its
    video.

    Frames of all videos lie end to end with their padding between them.

    Args:
        inputs: (T, F) of each video: :func:`scaled` coordinates, then any other features.
    """

    def __init__(self, inputs: Sequence[Tensor], settings: Baseline) -> None:
        before, after = settings.past * settings.skip, settings.future * settings.skip
        self._rows_NF = torch.cat([F.pad(x_TF, (0, 0, before, after)) for x_TF in inputs])
        lengths = torch.tensor([len(x_TF) for x_TF in inputs])
        first = torch.cumsum(lengths + before + after, 0) - lengths - after
        self._centre = torch.cat(
            [torch.arange(int(n)) + int(start) for n, start in zip(lengths, first, strict=True)]
        )
        self._centre = self._centre.to(self._rows_NF.device)
        steps_W = torch.arange(-settings.past, settings.future + 1, device=self._rows_NF.device)
        self._steps_W = steps_W * settings.skip

    def __len__(self) -> int:
        """Frames, one window each."""
        return len(self._centre)

    def cut(self, frames: Tensor) -> Tensor:
        """(B, W, F) around some frames, counted through all videos."""
        rows_BW = self._centre[frames].unsqueeze(1) + self._steps_W
        return self._rows_NF.index_select(0, rows_BW.flatten()).view(*rows_BW.shape, -1)

    def in_order(self, size: int) -> Iterator[Tensor]:
        """All windows, ``size`` at a time, for labelling whole videos."""
        for begin in range(0, len(self), size):
            end = min(begin + size, len(self))
            yield self.cut(torch.arange(begin, end, device=self._centre.device))


def augmented(x_BWF: Tensor, generator: torch.Generator, *, coordinates: int) -> Tensor:
    """The paper's augmentation: each window rotated about the origin by U(-pi, pi), then shifted by
    U(-0.25, 0.25) along each axis.

    It acts on scaled coordinates, so rotation distorts shapes where the image is not square; that
    is how it was published.

    Args:
        x_BWF: Windows; a changed copy is returned.
        generator: Of the random numbers, on the CPU.
        coordinates: How many of F, from the first, are x, y, x, y …; the others stay as they are.
    """
    drawn = torch.rand((len(x_BWF), 3), generator=generator).to(x_BWF.device)
    angle = (drawn[:, 0] * 2 - 1) * math.pi
    cos, sin = angle.cos(), angle.sin()
    rotation_BXY = torch.stack([cos, sin, -sin, cos], 1).view(-1, 2, 2)
    points = x_BWF[..., :coordinates].reshape(len(x_BWF), -1, 2)
    moved = torch.baddbmm((drawn[:, None, 1:] * 2 - 1) * 0.25, points, rotation_BXY).view(
        *x_BWF.shape[:2], coordinates
    )
    return torch.cat([moved, x_BWF[..., coordinates:]], -1)


class Samples:
    """Every labelled frame of some videos as a training sample.

    Args:
        inputs: (T, F) of each video.
        labels: (T,) class of each of its frames, or UNLABELLED.
        coordinates: How many of F, from the first, are coordinates.

    Raises:
        BadInput: If no frame is labelled.
    """

    def __init__(
        self,
        inputs: Sequence[Tensor],
        labels: Sequence[Tensor],
        settings: Baseline,
        *,
        coordinates: int,
    ) -> None:
        assert [len(x_TF) for x_TF in inputs] == [len(label_T) for label_T in labels]
        self._windows = Windows(inputs, settings)
        self._settings, self._coordinates = settings, coordinates
        device = inputs[0].device
        self._label_N = torch.cat(list(labels)).to(device, torch.int64)
        self._known = (self._label_N != UNLABELLED).nonzero().squeeze(1)
        if not len(self._known):
            raise BadInput("the baseline's training data: no frame is labelled")

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        number, size = len(self._known), self._settings.batch
        return max(1, -(-number // size) - (number % size == 1))

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Every labelled frame once, in random order: (B, W, F) and (B,).

        A last batch of one window, which has no batch statistics, is joined to the one before it.
        """
        order = self._known[
            torch.randperm(len(self._known), generator=generator).to(self._known.device)
        ]
        batches = list(torch.split(order, self._settings.batch))
        if len(batches) > 1 and len(batches[-1]) == 1:
            batches[-2:] = [torch.cat(batches[-2:])]
        for frames in batches:
            x_BWF = self._windows.cut(frames)
            if self._settings.augment:
                x_BWF = augmented(x_BWF, generator, coordinates=self._coordinates)
            yield x_BWF, self._label_N[frames]
