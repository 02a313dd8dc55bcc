"""Rotations in the plane of x and y, differences over time, and the memory layout that makes both
fast."""

from __future__ import annotations

import torch
from torch import Tensor


def rotate(vector: Tensor, heading: Tensor, *, axis: int = -1) -> Tensor:
    """Vectors given in the frame of a body, in the frame of the image: (x, y) on ``axis``, counted
    from the end, or (x, y, z), where z stays what it is and is NaN where the heading is; headings
    have the (cos, sin) of where the body points."""
    x, y, *z = vector.unbind(axis)
    cos, sin = heading.unbind(axis)
    return torch.stack([cos * x - sin * y, sin * x + cos * y, *(up + 0 * cos for up in z)], axis)


def rotate_back(vector: Tensor, heading: Tensor, *, axis: int = -1) -> Tensor:
    """Vectors given in the frame of the image, in the frame of a body: :func:`rotate` undone."""
    x, y, *z = vector.unbind(axis)
    cos, sin = heading.unbind(axis)
    return torch.stack([cos * x + sin * y, cos * y - sin * x, *(up + 0 * cos for up in z)], axis)


def difference(x: Tensor, lag: int, *, axis: int = -1) -> Tensor:
    """Change over ``lag`` frames, an even number, centred on each frame of ``axis``; NaN where the
    window ends first."""
    frames = x.shape[axis]
    if frames <= lag:
        return torch.full_like(x, torch.nan)
    change = x.narrow(axis, lag, frames - lag) - x.narrow(axis, 0, frames - lag)
    gap = torch.full_like(x.narrow(axis, 0, lag // 2), torch.nan)
    return torch.cat([gap, change, gap], axis)


def later(x: Tensor, frames: int) -> Tensor:
    """The value so many frames later, NaN beyond the window."""
    if abs(frames) >= x.shape[-1]:
        return torch.full_like(x, torch.nan)
    out = torch.empty_like(x)
    if frames >= 0:
        out[..., : x.shape[-1] - frames] = x[..., frames:]
        out[..., x.shape[-1] - frames :] = torch.nan
    else:
        out[..., -frames:] = x[..., :frames]
        out[..., :-frames] = torch.nan
    return out


def frames_last(position_BTMKX: Tensor) -> Tensor:
    """(M, K, X, B, T), contiguous: each coordinate of each point over all frames.

    On a processor in a quarter of the time of torch's own transposition, or less.
    """
    batch, frames, *shape = position_BTMKX.shape
    x_NF = position_BTMKX.flatten(2).flatten(0, 1)
    rows, columns = x_NF.shape
    on_cpu = x_NF.device.type == "cpu" and x_NF.dtype == torch.float32
    # ONNX has no such operation
    if not on_cpu or x_NF.requires_grad or torch.compiler.is_exporting() or not x_NF.numel():
        return x_NF.t().contiguous().view(*shape, batch, frames)
    # Shuffling the channels of one pixel is a transposition.
    size = rows * columns
    pixel = x_NF.reshape(-1).as_strided((1, size, 1, 1), (size, 1, size, size))
    return torch.native_channel_shuffle(pixel, rows).view(*shape, batch, frames)
