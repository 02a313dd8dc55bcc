"""Focal loss (Lin et al. 2017): easy frames count less."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from finetune.fit.losses import AbstractLoss
from pretrain.components import NotNegative


@dataclass(frozen=True, kw_only=True)
class Focal(AbstractLoss):
    """Cross entropy times (1 - probability of what the frame shows) to the power gamma."""

    gamma: NotNegative = 2.0
    """How much less easy frames count; 0 = as much as any."""

    def exclusive(self, logits_NC: Tensor, target_NC: Tensor, weight_C: Tensor) -> Tensor:
        """(N,)."""
        log_p_NC = logits_NC.log_softmax(-1)
        easy_NC = (-torch.expm1(log_p_NC)).clamp(min=1e-6) ** self.gamma
        return -(weight_C * target_NC * easy_NC * log_p_NC).sum(-1)

    def overlapping(self, logits_NC: Tensor, target_NC: Tensor, weight_C: Tensor) -> Tensor:
        """(N, C)."""
        yes_NC, no_NC = F.logsigmoid(logits_NC), F.logsigmoid(-logits_NC)
        positive_NC = weight_C * target_NC * no_NC.exp().clamp(min=1e-6) ** self.gamma * yes_NC
        negative_NC = (1 - target_NC) * yes_NC.exp().clamp(min=1e-6) ** self.gamma * no_NC
        return -(positive_NC + negative_NC)
