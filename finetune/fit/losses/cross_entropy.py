"""Cross entropy."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from finetune.fit.losses import AbstractLoss


@dataclass(frozen=True, kw_only=True)
class CrossEntropy(AbstractLoss):
    """Minus the log probability of what the frame shows."""

    def exclusive(self, logits_NC: Tensor, target_NC: Tensor, weight_C: Tensor) -> Tensor:
        """(N,)."""
        return -(weight_C * target_NC * logits_NC.log_softmax(-1)).sum(-1)

    def overlapping(self, logits_NC: Tensor, target_NC: Tensor, weight_C: Tensor) -> Tensor:
        """(N, C)."""
        positive_NC = weight_C * target_NC * F.logsigmoid(logits_NC)
        return -(positive_NC + (1 - target_NC) * F.logsigmoid(-logits_NC))
