"""Prototypes: a frame belongs to the class whose mean embedding is nearest (Snell et al. 2017)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finetune.heads import AbstractHead, LabelledVideo
from pretrain.components import Positive

_NEVER_SEEN = -1e4  # logit of a class that no training frame showed


class Prototype(AbstractHead):
    """Nearest class mean among the training frames; no gradient steps.

    Args:
        distance: ``euclidean``: squared, a mean over dimensions; ``cosine``: 1 - cosine.
        temperature: Distance by which a class must be nearer to be e times as likely.
    """

    by_gradient = False

    def __init__(
        self,
        dim: int,
        classes: list[int],
        *,
        distance: Literal["euclidean", "cosine"] = "euclidean",
        temperature: Positive = 0.1,
    ) -> None:
        super().__init__(dim)
        self.out = nn.ModuleList(
            _Means(dim, number, distance == "cosine", temperature) for number in classes
        )

    def trunk(self, z_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        """The embedding itself."""
        return z_BTD

    @torch.no_grad()
    def fit_videos(
        self, problem: int, videos: list[LabelledVideo], *, overlapping: bool, seed: int
    ) -> None:
        """Takes the mean of each class; where classes overlap, also that of the frames without
        it."""
        z_ND = torch.cat([video.z_TD for video in videos])
        shown_NC = torch.cat([video.shown_TC for video in videos]).to(z_ND.device)
        if problem == 0:
            self.standardise(z_ND)
        means = self.out[problem]
        assert isinstance(means, _Means)
        z_ND = (z_ND - self.mean_D) * self.scale_D
        for side, value in enumerate((1, 0)):
            chosen_NC = shown_NC == value
            count_C = chosen_NC.sum(0)
            means.mean_SCD[side] = (chosen_NC.T.to(z_ND) @ z_ND) / count_C.clamp(min=1)[:, None]
            means.seen_SC[side] = count_C > 0
        means.against.fill_(overlapping)


class _Means(nn.Module):
    """(…, D) to (…, C): how near a frame is to the mean of each class. S has two sides: the frames
    that show a class, and all others."""

    mean_SCD: Tensor
    seen_SC: Tensor
    against: Tensor

    def __init__(self, dim: int, classes: int, cosine: bool, temperature: float) -> None:
        super().__init__()
        self.register_buffer("mean_SCD", torch.zeros(2, classes, dim))
        self.register_buffer("seen_SC", torch.zeros(2, classes, dtype=torch.bool))
        self.register_buffer("against", torch.zeros((), dtype=torch.bool))
        self._cosine, self._temperature = cosine, temperature

    def forward(self, z_BTD: Tensor) -> Tensor:
        return self._nearness(z_BTD, 0) - self.against * self._nearness(z_BTD, 1)

    def _nearness(self, z_BTD: Tensor, side: int) -> Tensor:
        mean_CD = self.mean_SCD[side]
        if self._cosine:
            nearness_BTC = F.normalize(z_BTD, dim=-1) @ F.normalize(mean_CD, dim=-1).T
        else:
            # |z - m|² without the term that is the same for all classes: it changes neither a
            # softmax nor a difference.
            nearness_BTC = (2 * z_BTD @ mean_CD.T - (mean_CD**2).sum(-1)) / mean_CD.shape[-1]
        return (nearness_BTC / self._temperature).masked_fill(~self.seen_SC[side], _NEVER_SEEN)
