"""Frames of numbers to numbers of frames: each number of a frame in one piece with those of other
frames."""

from __future__ import annotations

from torch import Tensor, float32, native_channel_shuffle


def planes(position_BTMKX: Tensor) -> Tensor:
    """(M, K, X, B, T), in one piece. On a processor in vector instructions, a quarter of the time
    of torch's own or less."""
    batch, frames, *shape = position_BTMKX.shape
    x_NF = position_BTMKX.flatten(2).flatten(0, 1)
    rows, columns = x_NF.shape
    if x_NF.device.type != "cpu" or x_NF.requires_grad or x_NF.dtype != float32 or not x_NF.numel():
        return x_NF.t().contiguous().view(*shape, batch, frames)
    # Shuffling the channels of one pixel is a transposition.
    numbers = rows * columns
    pixel = x_NF.reshape(-1).as_strided((1, numbers, 1, 1), (numbers, 1, numbers, numbers))
    return native_channel_shuffle(pixel, rows).view(*shape, batch, frames)
