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


def supervised_contrastive(g_NRPE: Tensor, class_NRP: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    r"""Anchors should lie near all others of their class, for each program (Khosla et al. 2020, eq. 2, L_out).

    .. math:: \ell_i = -\frac{1}{|P(i)|} \sum_{j \in P(i)} \log \frac{\exp(g_i g_j / \tau)}{\sum_{k \ne i} \exp(g_i g_k / \tau)}

    Anchors of different groups R are strangers: sums over j and k stay within a group.

    Args:
        g_NRPE: This worker's anchors on the unit sphere.
        class_NRP: Their classes, -1 where unknown: such an anchor is nobody's positive or negative for that program.
        temperature: tau.

    Returns:
        For each program the sum over this worker's anchors that have a positive among all workers' anchors of their group, and
        how many those are: (P,) each.
    """
    all_ARPE, all_ARP = workers.gather(g_NRPE), workers.gather(class_NRP)
    place = torch.arange(len(g_NRPE), device=g_NRPE.device)
    itself_NA = torch.zeros(len(g_NRPE), len(all_ARP), dtype=torch.bool, device=g_NRPE.device)
    itself_NA[place, workers.rank() * len(g_NRPE) + place] = True
    totals, numbers = [], []
    for program in range(g_NRPE.shape[2]):  # one after the other: the numbers of all at once would not stay in the cache
        mine_RN, theirs_RA = class_NRP[:, :, program].T, all_ARP[:, :, program].T
        others_RNA = (theirs_RA >= 0).unsqueeze(1) & ~itself_NA
        similarity_RNA = (g_NRPE[:, :, program].transpose(0, 1) @ all_ARPE[:, :, program].permute(1, 2, 0) / temperature).float()
        positive_RNA = others_RNA & (mine_RN.unsqueeze(2) == theirs_RA.unsqueeze(1))
        number_RN = positive_RNA.sum(2)
        log_share_RNA = similarity_RNA - similarity_RNA.masked_fill(~others_RNA, -1e9).logsumexp(2, keepdim=True)
        term_RN = -torch.where(positive_RNA, log_share_RNA, 0.0).sum(2) / number_RN.clamp(min=1)
        counts_RN = (mine_RN >= 0) & (number_RN > 0)
        totals.append(torch.where(counts_RN, term_RN, 0.0).sum())
        numbers.append(counts_RN.sum())
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
