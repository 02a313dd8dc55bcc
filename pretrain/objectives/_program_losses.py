"""Losses between codes and programmed labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain import workers


class Heads(nn.Module):
    """For each program a perceptron of its own with one hidden layer, all of them at once: (N, Z) to (N, P, outputs)."""

    def __init__(self, programs: int, code: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(code, programs * code)
        self.second_PZO = nn.Parameter(torch.empty(programs, code, outputs).uniform_(-(code**-0.5), code**-0.5))
        self.bias_PO = nn.Parameter(torch.zeros(programs, outputs))

    def forward(self, code_NZ: Tensor) -> Tensor:
        """(N, P, outputs)."""
        h_NPZ = F.relu(self.first(code_NZ)).view(len(code_NZ), *self.second_PZO.shape[:2])
        told: Tensor = torch.einsum("npz,pzo->npo", h_NPZ, self.second_PZO).float() + self.bias_PO
        return told


def supervised_contrastive(g_NPE: Tensor, class_NP: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    r"""Anchors should lie near all others of their class, for each program (Khosla et al. 2020, eq. 2, L_out).

    .. math:: \ell_i = -\frac{1}{|P(i)|} \sum_{j \in P(i)} \log \frac{\exp(g_i g_j / \tau)}{\sum_{k \ne i} \exp(g_i g_k / \tau)}

    Args:
        g_NPE: This worker's anchors on the unit sphere.
        class_NP: Their classes, -1 where unknown: such an anchor is nobody's positive or negative for that program.
        temperature: tau.

    Returns:
        For each program the sum over this worker's anchors that have a positive among all workers' anchors, and how many
        those are: (P,) each.
    """
    all_APE, all_AP = workers.gather(g_NPE), workers.gather(class_NP)
    place = torch.arange(len(g_NPE), device=g_NPE.device)
    itself = torch.zeros(len(g_NPE), len(all_AP), dtype=torch.bool, device=g_NPE.device)
    itself[place, workers.rank() * len(g_NPE) + place] = True
    totals, numbers = [], []
    for program in range(g_NPE.shape[1]):  # one after the other: N x A x P numbers at once would not stay in the cache
        mine, theirs = class_NP[:, program], all_AP[:, program]
        others = (theirs >= 0) & ~itself
        similarity = (g_NPE[:, program] @ all_APE[:, program].T / temperature).float()
        positive = others & (mine[:, None] == theirs)
        number = positive.sum(1)
        log_share = similarity - similarity.masked_fill(~others, -1e9).logsumexp(1, keepdim=True)
        term = -torch.where(positive, log_share, 0.0).sum(1) / number.clamp(min=1)
        counts = (mine >= 0) & (number > 0)
        totals.append(torch.where(counts, term, 0.0).sum())
        numbers.append(counts.sum())
    return torch.stack(totals), torch.stack(numbers)


def class_surprise(log_share_NPC: Tensor, class_NP: Tensor, usable_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy with programmed labels.

    Args:
        log_share_NPC: Log-probabilities; NaN where a program's value is unknown.
        class_NP: Labels, -1 where unknown.
        usable_N: Rows that count.

    Returns:
        For each program the sum, how many labels counted, and how many of them were the likeliest class: (P,) each.
    """
    known_NP = (class_NP >= 0) & usable_N[:, None] & ~log_share_NPC.isnan().any(-1)
    chosen = log_share_NPC.gather(-1, class_NP.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    hit = (log_share_NPC.detach().argmax(-1) == class_NP) & known_NP
    return -torch.where(known_NP, chosen, 0.0).sum(0), known_NP.sum(0), hit.sum(0).to(chosen.dtype)
