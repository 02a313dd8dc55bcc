"""The type of matrix products: bfloat16 where the processor has instructions for it."""

from __future__ import annotations

import torch

from pretrain.config import Precision


def products(precision: Precision, device: str) -> torch.autocast:
    """The context in which matrix products are of a precision.

    Args:
        precision: ``float32``; ``bf16`` (weights stay float32); ``auto``: bf16 where
            :func:`multiplies_bf16` says so.
        device: ``cpu`` or ``cuda``.
    """
    half = precision == "bf16" or (precision == "auto" and multiplies_bf16(device))
    return torch.autocast(device, dtype=torch.bfloat16, enabled=half)


def multiplies_bf16(device: str) -> bool:
    """Whether a kind of device has matrix instructions for bfloat16; without them it is many times
    slower than float32."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
