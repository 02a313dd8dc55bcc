"""Dropout whose random numbers cost little on a processor."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """Hides a share of the numbers while fitting (Srivastava et al. 2014).

    Torch draws one random number for each number hidden or kept, which took a quarter of the time a head is fitted; a
    byte is enough. The share is therefore rounded to steps of 1/256.

    Args:
        share: 0 to below 1.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self._hidden = min(round(share * 256), 255)

    def forward(self, x: Tensor) -> Tensor:
        """Numbers of any shape; what is kept is scaled up so that the expectation stays."""
        if not self.training or not self._hidden:
            return x
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device).random_(-(2**63), None)
        kept = words.view(torch.uint8)[: x.numel()].view(x.shape) >= self._hidden
        return x * kept.to(x.dtype).mul_(256 / (256 - self._hidden))
