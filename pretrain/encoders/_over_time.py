"""Convolutions along the frames of (B, T, C), laid out so that processors run them at the rate of
matrix products.

Frames of channels are, without a copy, an image of height 1 whose channels come last. Convolutions
of such images take two thirds of the time of ``Conv1d`` between two transpositions, dilated
depthwise ones less than half (docs/encoders.md).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def over_time(conv: nn.Module, x_BTC: Tensor) -> Tensor:
    """What a ``Conv1d`` does to (B, C, T), done to (B, T, C)."""
    assert isinstance(conv, nn.Conv1d), "not a convolution over time"
    image_BC1T = x_BTC.unsqueeze(1).permute(0, 3, 1, 2)
    assert isinstance(conv.padding, tuple), "padding is a number of frames"
    weight, padding, dilation = conv.weight.unsqueeze(2), (0, *conv.padding), (1, *conv.dilation)
    out = F.conv2d(image_BC1T, weight, conv.bias, 1, padding, dilation, conv.groups)
    return out.permute(0, 2, 3, 1).squeeze(1)


def each_channel_over_time(conv: nn.Conv1d, x_BTC: Tensor) -> Tensor:
    """As :func:`over_time`, for a depthwise ``conv`` of odd kernel that keeps the number of frames.

    A dilated depthwise convolution is slow everywhere; an undilated one over frames in rows of
    ``dilation`` is the same sum.
    """
    frames, channels = x_BTC.shape[1:]
    step, width = conv.dilation[0], conv.kernel_size[0]
    assert conv.groups == channels == conv.out_channels, "not a depthwise convolution"
    assert width % 2, "the kernel is even"
    assert conv.bias is None, (
        "a bias would double the time of its gradient: give it to a layer before or after"
    )
    reach = width // 2 * step
    padded = F.pad(x_BTC, (0, 0, reach, reach + -frames % step))
    rows_BRC = padded.reshape(len(padded), -1, step * channels)
    image_BC1R = rows_BRC.unsqueeze(1).permute(0, 3, 1, 2)
    weight = conv.weight.unsqueeze(2).repeat(step, 1, 1, 1)
    out = F.conv2d(image_BC1R, weight, groups=step * channels).permute(0, 2, 3, 1)
    return out.reshape(len(out), -1, channels)[:, :frames]


def zero_invalid(x_BTC: Tensor, valid_BT: Tensor) -> Tensor:
    """(…, B, T, C) with zeros for frames that do not exist, whatever they hold."""
    return torch.where(valid_BT.unsqueeze(-1), x_BTC, 0.0)


def zero_padded(
    x_BTC: Tensor, valid_BT: Tensor, *, past: int, future: int
) -> tuple[Tensor, Tensor]:
    """The frames between ``past`` and ``future`` frames of zeros, as the paper pads its sequences;
    those that do not exist are zeros too.

    Returns:
        (B, past + T + future, C), and which of its frames exist.
    """
    return F.pad(zero_invalid(x_BTC, valid_BT), (0, 0, past, future)), F.pad(
        valid_BT, (past, future)
    )
