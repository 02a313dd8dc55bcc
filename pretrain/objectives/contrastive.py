"""NT-Xent: a moment should be recognised in another view of it, among moments of all other windows
of all workers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain import distributed
from pretrain.components import Count, Positive, Whole
from pretrain.data.schema import Schema
from pretrain.data.window_rng import WindowRNG
from pretrain.data.windows import Windows
from pretrain.objectives import AbstractObjective, Loss, View


class Contrastive(AbstractObjective):
    r"""Normalised temperature-scaled cross-entropy on frames (Chen et al. 2020, SimCLR, eq. 1).

    .. math:: \ell_{i} = -\log \frac{\exp(s_{i,i'} / \tau)}{\sum_{k \ne i} \exp(s_{i,k} / \tau)},
              \quad s_{i,k} = \cos(g(z_i), g(z_k))

    Anchors are frames of each window; ``i'`` is the same moment in the other view, moved by up to
    ``slack`` frames. The sum runs over both views of that frame in all windows of all workers.
    Where anchors lie and how far positives are moved is drawn once for the whole batch, and windows
    are compared with windows of the same length: so all that an anchor is compared with lies as far
    from the ends of its window, and an encoder that sees these ends learns nothing from them.

    Args:
        temperature: tau.
        anchors: Frames of each window.
        slack: Frames by which the positive may lie earlier or later.
        projection: Width of the projection head g, a perceptron with one hidden layer.
    """

    views = 2

    def __init__(
        self,
        dim: int,
        schema: Schema,
        *,
        temperature: Positive = 0.1,
        anchors: Count = 4,
        slack: Whole = 4,
        projection: Count = 64,
    ) -> None:
        super().__init__()
        self.temperature, self.anchors, self.slack = temperature, anchors, slack
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, projection))

    def frames(self, windows: Windows) -> tuple[Tensor, Tensor]:
        """The anchors of every window and where their positives lie, (B, A) each: the same in
        windows of the same length."""
        length_B1 = windows.valid_BT.sum(1, keepdim=True)
        rng = windows.batch_rng()
        frame_BA = (rng.uniform("anchor", self.anchors) * length_B1).long()
        drawn_BA = (rng.uniform("slack", self.anchors) * (2 * self.slack + 1)).long()
        moved_BA = frame_BA + drawn_BA - self.slack
        return frame_BA, moved_BA.clamp(min=0).minimum((length_B1 - 1).clamp(min=0))

    def forward(self, views: tuple[View, ...], windows: Windows, rng: WindowRNG) -> Loss:
        """NT-Xent of this worker's anchors against everyone's."""
        length_B = windows.valid_BT.sum(1)
        row_B1 = torch.arange(len(length_B), device=length_B.device).unsqueeze(1)
        query_BAVE, key_BAVE = (
            F.normalize(
                self.head(torch.stack([view.z_BTD[row_B1, frame_BA] for view in views], 2)).float(),
                dim=-1,
            )
            for frame_BA in self.frames(windows)
        )
        length_K = distributed.gather(length_B)
        total, number, hits = self.sum_of_terms(
            query_BAVE,
            distributed.gather(key_BAVE),
            (length_B[:, None] == length_K) & (length_K > 0),
        )
        loss = distributed.mean_over_workers(total, number)
        hit_rate = distributed.mean_over_workers(hits, number)
        return Loss(loss, {"contrastive": loss.detach(), "contrastive_found": hit_rate.detach()})

    def sum_of_terms(
        self, query_BAVE: Tensor, key_KAVE: Tensor, comparable_BK: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Sum of this worker's terms, how many, and how often the positive was the nearest of all.

        Args:
            query_BAVE: Anchors of this worker's B windows in V = 2 views, of length 1.
            key_KAVE: What they are compared with, of the K windows of all workers.
            comparable_BK: Which windows are; one that none but itself is comparable with has no
                term.
        """
        own_B = distributed.rank() * len(query_BAVE) + torch.arange(
            len(query_BAVE), device=query_BAVE.device
        )
        similarity_AVBWK = (
            torch.einsum("bave,kawe->avbwk", query_BAVE, key_KAVE) / self.temperature
        ).masked_fill(~comparable_BK.unsqueeze(1), -torch.inf)
        # The anchor's own view of that moment is neither positive nor negative.
        itself_VBWK = torch.zeros_like(similarity_AVBWK[0], dtype=torch.bool)
        view = torch.arange(2, device=own_B.device)
        row = torch.arange(len(own_B), device=own_B.device)
        itself_VBWK[view[:, None], row, view[:, None], own_B] = True
        similarity_AVBQ = similarity_AVBWK.masked_fill(itself_VBWK, -torch.inf).flatten(3)
        counts_B = comparable_BK.sum(1) > 1
        similarity_AVBQ = torch.where(counts_B[:, None], similarity_AVBQ, 0.0)
        positive_AVB = ((1 - view[:, None]) * len(key_KAVE) + own_B).expand(
            similarity_AVBQ.shape[:3]
        )
        term_AVB = F.cross_entropy(
            similarity_AVBQ.flatten(0, 2), positive_AVB.flatten(), reduction="none"
        ).view(positive_AVB.shape)
        hit_AVB = (similarity_AVBQ.detach().argmax(-1) == positive_AVB) & counts_B
        number = counts_B.sum() * term_AVB[..., 0].numel()
        total = torch.where(counts_B, term_AVB, 0.0).sum()
        return total, number, hit_AVB.sum().to(term_AVB.dtype)
