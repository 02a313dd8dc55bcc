"""NT-Xent: a moment should be recognised in another view of it, among all other moments of all
workers."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain import distributed
from pretrain.components import above_zero, at_least
from pretrain.data.schema import Schema
from pretrain.data.window_rng import WindowRNG
from pretrain.data.windows import Windows
from pretrain.errors import refuse
from pretrain.objectives import AbstractObjective, Loss, View


class Contrastive(AbstractObjective):
    r"""Normalised temperature-scaled cross-entropy on frames (Chen et al. 2020, SimCLR, eq. 1).

    .. math:: \ell_{i} = -\log \frac{\exp(s_{i,i'} / \tau)}{\sum_{k \ne i} \exp(s_{i,k} / \tau)},
              \quad s_{i,k} = \cos(g(z_i), g(z_k))

    Anchors are frames drawn in each window; ``i'`` is the same moment in the other view, moved by
    up to ``slack`` frames. The sum runs over both views of the anchors of all workers. Neighbours
    of the anchor in time (same window, within ``near`` frames) are neither positive nor negative.

    Args:
        dim: D of the encoder.
        schema: Not used.
        temperature: tau.
        anchors: Frames drawn in each window.
        slack: Frames by which the positive may lie earlier or later.
        near: Frames within which a neighbour is no negative.
        projection: Width of the projection head g, a perceptron with one hidden layer.
    """

    views = 2

    def __init__(
        self,
        dim: int,
        schema: Schema,
        *,
        temperature: float = 0.1,
        anchors: int = 4,
        slack: int = 4,
        near: int = 16,
        projection: int = 64,
    ) -> None:
        super().__init__()
        refuse(
            above_zero(temperature=temperature)
            + at_least(1, anchors=anchors, projection=projection)
            + at_least(0, slack=slack, near=near),
            about="objective contrastive",
        )
        self.temperature, self.anchors, self.slack, self.near = temperature, anchors, slack, near
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, projection))

    def forward(self, views: tuple[View, ...], windows: Windows, rng: WindowRNG) -> Loss:
        """NT-Xent of this worker's anchors against everyone's."""
        batch = len(windows.key_B)
        length_B1 = windows.valid_BT.sum(1, keepdim=True)
        frame_BA = (rng.uniform("anchor", self.anchors) * length_B1).long()
        moved_BA = (
            frame_BA
            + (rng.uniform("slack", self.anchors) * (2 * self.slack + 1)).long()
            - self.slack
        )
        moved_BA = moved_BA.clamp(min=0).minimum((length_B1 - 1).clamp(min=0))
        row = torch.arange(batch, device=frame_BA.device).unsqueeze(1)
        anchors = torch.stack(
            [
                view.z_BTD[row, frame]
                for view, frame in zip(views, (frame_BA, moved_BA), strict=True)
            ]
        )
        g_VND = F.normalize(self.head(anchors).float(), dim=-1).flatten(1, 2)
        exists_N = (length_B1 > 0).expand_as(frame_BA).flatten()
        window_N = (row + distributed.rank() * batch).expand_as(frame_BA).flatten()

        mine = _Anchors(
            torch.cat([g_VND[0], g_VND[1]]),
            window_N.repeat(2),
            torch.cat([frame_BA.flatten(), moved_BA.flatten()]),
            exists_N.repeat(2),
        )
        all_anchors = _Anchors(*(distributed.gather(x) for x in mine))
        total, number, hits = self.sum_of_terms(mine, all_anchors)
        loss = distributed.mean_over_workers(total, number)
        hit_rate = distributed.mean_over_workers(hits, number)
        return Loss(loss, {"contrastive": loss.detach(), "contrastive_found": hit_rate.detach()})

    def sum_of_terms(self, mine: _Anchors, all_anchors: _Anchors) -> tuple[Tensor, Tensor, Tensor]:
        """Sum of this worker's terms, how many, and how often the positive was the nearest of
        all."""
        count = len(mine.g) // 2
        first = distributed.rank() * len(mine.g)
        row = torch.arange(len(mine.g), device=mine.g.device)
        itself, positive = first + row, first + (row + count) % len(mine.g)
        similarity = mine.g @ all_anchors.g.T / self.temperature
        close = (mine.window[:, None] == all_anchors.window) & (
            (mine.frame[:, None] - all_anchors.frame).abs() <= self.near
        )
        close[row, positive] = False
        close[row, itself] = True
        similarity = similarity.masked_fill(close | ~all_anchors.exists, -torch.inf)
        similarity = torch.where(mine.exists[:, None], similarity, 0.0)
        term = F.cross_entropy(similarity, positive, reduction="none")
        term = torch.where(mine.exists, term, 0.0)
        hit = (similarity.detach().argmax(1) == positive) & mine.exists
        return term.sum(), mine.exists.sum(), hit.sum().to(term.dtype)


class _Anchors(NamedTuple):
    """N anchors of the first view, then N of the second."""

    g: Tensor
    window: Tensor
    frame: Tensor
    exists: Tensor
