"""Losses between codes and programmed labels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from pretrain import distributed

_NEVER = -1e9


class Heads(nn.Module):
    """For each program a perceptron of its own with one hidden layer, all of them at once: (N, Z)
    to (N, P, outputs)."""

    def __init__(self, programs: int, code: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(code, programs * code)
        self.second_PZO = nn.Parameter(
            torch.empty(programs, code, outputs).uniform_(-(code**-0.5), code**-0.5)
        )
        self.bias_PO = nn.Parameter(torch.zeros(programs, outputs))

    def forward(self, code_NZ: Tensor) -> Tensor:
        """(N, P, outputs)."""
        h_NPZ = F.relu(self.first(code_NZ)).view(len(code_NZ), *self.second_PZO.shape[:2])
        return torch.einsum("npz,pzo->npo", h_NPZ, self.second_PZO).float() + self.bias_PO


class LogSum(torch.autograd.Function):
    r"""For each query the logarithm of the sum of exp(query * key / temperature) over the keys that
    count, but not over itself.

    The gradient is written out: keeping the shares alone takes a quarter of the time of what
    autograd keeps.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query_GNE: Tensor,
        key_GAE: Tensor,
        counts_GA: Tensor,
        own: int,
        temperature: float,
    ) -> Tensor:
        """(G, N); query n is key ``own + n``."""
        without_G1A = (
            query_GNE.new_zeros(counts_GA.shape).masked_fill_(~counts_GA, _NEVER).unsqueeze(1)
        )
        share_GNA = torch.baddbmm(
            without_G1A, query_GNE, key_GAE.transpose(1, 2), alpha=1 / temperature
        )
        share_GNA.diagonal(own, 1, 2).fill_(_NEVER)
        greatest_GN1 = share_GNA.amax(2, keepdim=True)
        share_GNA.sub_(greatest_GN1).exp_()
        sum_GN1 = share_GNA.sum(2, keepdim=True)
        share_GNA.div_(sum_GN1)
        ctx.save_for_backward(query_GNE, key_GAE, share_GNA)
        ctx.temperature = temperature
        return (greatest_GN1 + sum_GN1.log()).squeeze(2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """To queries and keys."""
        query_GNE, key_GAE, share_GNA = ctx.saved_tensors
        weight_GNA = share_GNA * (grads[0].unsqueeze(2) / ctx.temperature)
        return weight_GNA @ key_GAE, weight_GNA.transpose(1, 2) @ query_GNE, None, None, None


def supervised_contrastive(
    g_NRPE: Tensor, class_NRP: Tensor, *, classes: int, temperature: float
) -> tuple[Tensor, Tensor]:
    r"""Anchors should lie near all others of their class, for each program (Khosla et al. 2020, eq.
    2, L_out).

    .. math:: \ell_i = -\frac{1}{|P(i)|} \sum_{j \in P(i)} \log \frac{\exp(g_i g_j / \tau)}{\sum_{k
    \ne i} \exp(g_i g_k / \tau)}

    Anchors of different groups R do not meet: sums over j and k stay within a group. The sum over
    j of g_i g_j is the product of g_i with the sum of its class, so that only the sum over k needs
    all pairs.

    Args:
        g_NRPE: This worker's anchors on the unit sphere.
        class_NRP: Their classes, -1 where unknown: such an anchor is nobody's positive or negative
            for that program.
        classes: How many there are.
        temperature: tau.

    Returns:
        For each program the sum over this worker's anchors that have a positive among all workers'
        anchors of their group, and how many those are: (P,) each.
    """
    rows, groups, count, _ = g_NRPE.shape
    mine_GNE = rearrange(g_NRPE, "n r p e -> (r p) n e")
    theirs_GAE = rearrange(distributed.gather(g_NRPE), "a r p e -> (r p) a e")
    class_GA = rearrange(distributed.gather(class_NRP), "a r p -> (r p) a")
    own = distributed.rank() * rows
    with torch.autocast(g_NRPE.device.type, enabled=False):
        is_GAC = (class_GA.unsqueeze(2) == torch.arange(classes, device=class_GA.device)).to(
            mine_GNE.dtype
        )
        is_GNC = is_GAC[:, own : own + rows]
        # Not itself; -1 for an anchor of no class.
        number_GN = (is_GNC * is_GAC.sum(1, keepdim=True)).sum(2) - 1
        same_class_GNE = is_GNC @ (is_GAC.transpose(1, 2) @ theirs_GAE) - mine_GNE
        alike_GN = (mine_GNE * same_class_GNE).sum(2) / temperature
        below_GN: Tensor = LogSum.apply(mine_GNE, theirs_GAE, class_GA >= 0, own, temperature)  # type: ignore[no-untyped-call]
        counts_GN = number_GN > 0
        term_GN = torch.where(counts_GN, below_GN - alike_GN / number_GN.clamp(min=1), 0.0)
    total, number = (x.view(groups, count, rows).sum((0, 2)) for x in (term_GN, counts_GN))
    return total, number


def class_surprise(
    log_share_NPC: Tensor, class_NP: Tensor, usable_N: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy with programmed labels.

    Args:
        log_share_NPC: Log-probabilities; NaN where a program's value is unknown.
        class_NP: Labels, -1 where unknown.
        usable_N: Rows that count.

    Returns:
        For each program the sum, how many labels counted, and how many of them were the likeliest
        class: (P,) each.
    """
    known_NP = (class_NP >= 0) & usable_N[:, None] & ~log_share_NPC.isnan().any(-1)
    chosen = log_share_NPC.gather(-1, class_NP.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    hit = (log_share_NPC.detach().argmax(-1) == class_NP) & known_NP
    return -torch.where(known_NP, chosen, 0.0).sum(0), known_NP.sum(0), hit.sum(0).to(chosen.dtype)
