"""Random numbers that belong to a window, not to a worker: the same wherever it is worked on."""

from __future__ import annotations

import copy
import functools
import math
import zlib

import torch
from torch import Tensor


class WindowRNG:
    """Random numbers of a batch of windows, each window from its own seed.

    A number is a hash of (window's seed, name of the draw, index), so it does not depend on what
    else was drawn, on the batch around it or on the device. The hash is a 32-bit finaliser
    (xor-shift-multiply, "lowbias32", C. Wellons 2018).

    Args:
        key_B: int64, a seed for each window.
    """

    def __init__(self, key_B: Tensor) -> None:
        self._low = _hash(key_B.to(torch.int32) ^ (key_B >> 32).to(torch.int32))
        self._prefix = ""

    def named(self, prefix: str) -> WindowRNG:
        """Draws of the same windows; those of other prefixes are independent."""
        other = copy.copy(self)
        other._prefix = f"{prefix}/"
        return other

    def uniform(self, name: str, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1), (B, *shape), float32; another name gives independent
        numbers."""
        named = _hash_name(self._prefix + name, math.prod(shape), self._low.device)
        bits = _hash(named.unsqueeze(0) ^ self._low.unsqueeze(1))
        return ((bits >> 8) & 0xFFFFFF).to(torch.float32).mul_(2**-24).view(-1, *shape)

    def normal(self, name: str, *shape: int) -> Tensor:
        """Standard normal numbers (Box & Muller 1958: two of them from two uniform ones), (B,
        *shape)."""
        number = math.prod(shape)
        half = -(-number // 2)
        radius = (1 - self.uniform(f"{name}/radius", half)).log_().mul_(-2).sqrt_()
        angle = self.uniform(f"{name}/angle", half).mul_(2 * math.pi)
        return torch.cat([radius * angle.cos(), radius * angle.sin()], 1)[:, :number].reshape(
            -1, *shape
        )

    def chance(self, name: str, probability: float, *shape: int) -> Tensor:
        """True with the probability given, (B, *shape)."""
        return self.uniform(name, *shape) < probability


@functools.lru_cache(maxsize=256)  # the same few names are drawn at every step
def _hash_name(name: str, number: int, device: torch.device) -> Tensor:
    """The part of the hash that no window changes."""
    index = torch.arange(number, dtype=torch.int32, device=device)
    return _hash(index ^ _signed(zlib.crc32(name.encode())))


def _signed(value: int) -> int:
    return value - (1 << 32) if value > 0x7FFFFFFF else value


def _hash(x: Tensor) -> Tensor:
    """Mixes int32; shifts are made logical by masking the sign bits they copy in."""
    x = x ^ ((x >> 16) & 0xFFFF)
    x = x * 0x7FEB352D
    x = x ^ ((x >> 15) & 0x1FFFF)
    x = x * _signed(0x846CA68B)
    return x ^ ((x >> 16) & 0xFFFF)
