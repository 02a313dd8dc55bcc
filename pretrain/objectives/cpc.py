"""Contrastive predictive coding: from the past of a window, recognise its own future among
everybody's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain import distributed
from pretrain.components import Count, Positive
from pretrain.data.schema import Schema
from pretrain.data.window_rng import WindowRNG
from pretrain.data.windows import Pose, Windows
from pretrain.errors import BadInput
from pretrain.objectives import AbstractObjective, Loss, View


class CPC(AbstractObjective):
    r"""InfoNCE on the future (van den Oord et al. 2018), as in B. Wild's MABe 2021 entry.

    .. math:: \ell_{i,n} = -\log \frac{\exp(\cos(W_n z_i(t_i), V z_i(t_i + n)) / \tau)}
              {\sum_j \exp(\cos(W_n z_i(t_i), V z_j(t_j + n)) / \tau)}

    Every window ``i`` has one anchor frame ``t_i``, at an index that is drawn once for the whole
    batch; the negatives of horizon ``n`` are the frames ``t_j + n`` of all other windows of all
    workers that are as long. So anchors lie as far from both ends of their windows as all they are
    compared with, and an encoder that sees where its window ends learns nothing from it. The maps W
    (one a horizon) and V have no bias.

    An encoder that looks both ways would be given the answer. With ``past_only`` the anchor's view
    ends with the anchor and the view its future is read from begins after it: they share no frame,
    whatever the encoder.

    Args:
        horizons: Frames ahead, rising. One that reaches beyond the end of a window is left out of
            it.
        temperature: tau.
        projection: Width in which past and future are compared.
        past_only: Mask the future in the past's view; needs two views. Of no use where the contexts
            of anchor and future share no frame: where every horizon is longer than the encoder's
            context to both sides together.
    """

    def __init__(
        self,
        dim: int,
        schema: Schema,
        *,
        horizons: Sequence[int] = (8, 16, 32, 64),
        temperature: Positive = 0.07,
        projection: Count = 128,
        past_only: bool = True,
    ) -> None:
        super().__init__()
        if not horizons or min(horizons) < 1 or list(horizons) != sorted(set(horizons)):
            raise BadInput(
                f"objective cpc: horizons are {list(horizons)}; give at least one, rising, each at "
                "least 1 frame"
            )
        self.horizons, self.temperature, self.past_only = tuple(horizons), temperature, past_only
        self.views, self.shares_views = (2, False) if past_only else (1, True)
        self.predict = nn.Linear(dim, len(horizons) * projection, bias=False)
        self.target = nn.Linear(dim, projection, bias=False)

    def anchors(self, windows: Windows) -> Tensor:
        """The anchor frame of every window, (B,): early enough for every horizon of at most half a
        window, the same in windows of the same length.

        Raises:
            BadInput: If not even the shortest horizon fits a window.
        """
        frames = windows.valid_BT.shape[1]
        if self.horizons[0] >= frames:
            raise BadInput(
                f"objective cpc: the shortest of the horizons {list(self.horizons)} does not fit a "
                f"window of {frames} frames; "
                "lower objective.horizons or raise window"
            )
        reach = max(
            [horizon for horizon in self.horizons if horizon <= frames // 2] or [self.horizons[0]]
        )
        room_B1 = (windows.valid_BT.sum(1, keepdim=True) - reach).clamp(min=1)
        return (windows.batch_rng().uniform("cpc/anchor", 1) * room_B1).long().squeeze(1)

    def mask(self, pose: Pose, windows: Windows, rng: WindowRNG, *, view: int) -> Pose:
        """The first view without what comes after the anchor, the second without the rest."""
        if not self.past_only or view > 1:
            return pose
        after_BT = (
            torch.arange(windows.valid_BT.shape[1], device=windows.valid_BT.device)
            > self.anchors(windows)[:, None]
        )
        masked_BT = after_BT if view == 0 else ~after_BT
        return pose.hidden(masked_BT[:, :, None, None])

    def forward(self, views: tuple[View, ...], windows: Windows, rng: WindowRNG) -> Loss:
        """InfoNCE of this worker's windows against everyone's."""
        batch, frames = windows.valid_BT.shape
        row_B = torch.arange(batch, device=windows.valid_BT.device)
        anchor_B, length_B = self.anchors(windows), windows.valid_BT.sum(1)
        ahead_BN = anchor_B[:, None] + torch.tensor(self.horizons, device=row_B.device)
        fits_BN = ahead_BN < length_B[:, None]
        past_BD = views[0].z_BTD[row_B, anchor_B]
        future_BND = views[-1].z_BTD[row_B[:, None], ahead_BN.clamp(max=frames - 1)]
        guess_BNP = F.normalize(
            self.predict(past_BD).float().unflatten(1, (len(self.horizons), -1)), dim=-1
        )
        truth_BNP = F.normalize(self.target(future_BND).float(), dim=-1)
        comparable_BA = length_B[:, None] == distributed.gather(length_B)
        total, number, hits = self.sum_of_terms(
            guess_BNP, fits_BN, distributed.gather(truth_BNP), comparable_BA
        )
        loss = distributed.mean_over_workers(total, number)
        hit_rate = distributed.mean_over_workers(hits, number)
        return Loss(loss, {"cpc": loss.detach(), "cpc_found": hit_rate.detach()})

    def sum_of_terms(
        self, guess_BNP: Tensor, fits_BN: Tensor, truth_ANP: Tensor, comparable_BA: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Sum of this worker's terms, how many, and how often its own future was the nearest.
        ``A``: windows of all workers. A window that none is comparable with has no term."""
        own_B = distributed.rank() * len(guess_BNP) + torch.arange(
            len(guess_BNP), device=guess_BNP.device
        )
        counts_NB = (fits_BN & (comparable_BA.sum(1, keepdim=True) > 1)).T
        similarity_NBA = torch.einsum("bnp,anp->nba", guess_BNP, truth_ANP) / self.temperature
        # Where a horizon fits a window it fits all that are as long.
        similarity_NBA = similarity_NBA.masked_fill(~comparable_BA, -torch.inf)
        term_NB = F.cross_entropy(
            similarity_NBA.flatten(0, 1), own_B.repeat(len(self.horizons)), reduction="none"
        ).view(counts_NB.shape)
        hit_NB = (similarity_NBA.detach().argmax(-1) == own_B) & counts_NB
        total = torch.where(counts_NB, term_NB, 0.0).sum()
        return total, counts_NB.sum(), hit_NB.sum().to(term_NB.dtype)
