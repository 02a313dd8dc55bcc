"""Batch normalisation that counts frames that exist, once each, over all workers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pretrain import distributed


class BatchNorm(nn.Module):
    """Normalises channels by mean and variance over the global batch (Ioffe & Szegedy 2015).

    The moments are those of the joined batch of all workers, gradients included, so that the number
    of workers changes nothing; frames that do not exist have no part in them. In evaluation running
    averages take their place.

    Args:
        channels: C.
        momentum: Share of the running averages that a step replaces.
    """

    mean_C: Tensor
    variance_C: Tensor

    def __init__(self, channels: int, *, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, 1e-5
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean_C", torch.zeros(channels))
        self.register_buffer("variance_C", torch.ones(channels))

    def forward(self, x_BTC: Tensor, counted_BT: Tensor) -> Tensor:
        """(B, T, C) to the same, float32.

        Args:
            x_BTC: Finite everywhere.
            counted_BT: bool, the frames whose values make the moments; all are normalised.
        """
        with torch.autocast(x_BTC.device.type, enabled=False):
            x_BTC = x_BTC.float()
            mean, variance = self.mean_C, self.variance_C
            if self.training:
                mean, variance = self._moments(x_BTC, counted_BT)
            slope = self.weight * (variance + self.eps).rsqrt()
            return torch.addcmul(self.bias - mean * slope, x_BTC, slope)

    def _moments(self, x_BTC: Tensor, counted_BT: Tensor) -> tuple[Tensor, Tensor]:
        x_NC = x_BTC.flatten(0, 1)
        share_1N = counted_BT.reshape(1, -1).to(x_NC.dtype)
        mine = share_1N.sum().expand(1, x_NC.shape[1])
        mean = share_1N @ x_NC / mine.clamp(min=1)
        squares = share_1N @ (x_NC - mean).square()
        # Chan, Golub & LeVeque 1979: squares about each worker's own mean join without
        # cancellation.
        number_RC, mean_RC, squares_RC = distributed.gather(
            torch.stack([mine, mean, squares], 1)
        ).unbind(1)
        number = number_RC.sum(0).clamp(min=1)
        joined = (number_RC * mean_RC).sum(0) / number
        variance = (squares_RC.sum(0) + (number_RC * (mean_RC - joined).square()).sum(0)) / number
        with torch.no_grad():
            weight = self.momentum * (number_RC.sum(0) > 0)
            self.mean_C += weight * (joined - self.mean_C)
            self.variance_C += weight * (
                variance * number / (number - 1).clamp(min=1) - self.variance_C
            )
        return joined, variance
