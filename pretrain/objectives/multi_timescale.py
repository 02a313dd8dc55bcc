"""Multi-timescale bootstrapping: histograms of what an animal will do, and embeddings that agree
over short and long times."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain import distributed
from pretrain.components import Count, Counts, NotNegative, TwoOrMore, Whole
from pretrain.data.schema import Schema
from pretrain.data.window_rng import WindowRNG
from pretrain.data.windows import Pose, Windows
from pretrain.errors import error_if, refuse
from pretrain.objectives import AbstractObjective, Loss, View
from pretrain.objectives._actions import Actions, shares_below


class MultiTimescale(AbstractObjective):
    r"""Histograms of actions and bootstrapped latents (BAMS, Azabou et al. 2023).

    .. math:: L = \lambda \sum_{n} \overline{w \, \lVert \mathrm{CDF}(\hat h_n(z_t)) -
    \mathrm{CDF}(h_{t+1 \dots t+n}) \rVert^2}
              + \mu \sum_{s \in \{short, long\}} \overline{1 - \cos(q_s(z^s_t),
              \mathrm{sg}(z^s_{t'}))}

    From the embedding of a frame, the histogram of every action over the next ``n`` frames is
    predicted at each horizon; the squared distance of cumulative histograms is the squared earth
    mover's distance on ordered bins (Hou et al. 2016). Its weight ``w`` is the share of those
    frames that is known. The first half of an embedding should agree with itself up to ``near``
    frames later, the second half anywhere in the window; the target gets no gradient.

    Args:
        horizons: Frames ahead.
        bins: Of each histogram, over the range in which an action usually lies.
        near: Frames over which the first half of the embedding should stay.
        anchors: Frames drawn in each window.
        hidden: Width of the histogram predictor, a perceptron with one hidden layer.
        distance: ``emd`` as published, or ``cross_entropy`` with the true histogram.
        histogram: lambda.
        latent: mu.
    """

    def __init__(
        self,
        dim: int,
        schema: Schema,
        *,
        horizons: Counts = (10, 40),
        bins: TwoOrMore = 16,
        near: Whole = 5,
        anchors: Count = 16,
        hidden: Count = 256,
        distance: Literal["emd", "cross_entropy"] = "emd",
        histogram: NotNegative = 5.0,
        latent: NotNegative = 0.5,
    ) -> None:
        super().__init__()
        refuse(
            error_if(
                histogram == latent == 0,
                "histogram and latent are both 0: nothing would be learned",
            )
            + error_if(dim < 2, f"the encoder gives {dim} number; at least 2 are needed"),
            about="objective multi_timescale",
        )
        self.horizons, self.bins, self.near, self.anchors = tuple(horizons), bins, near, anchors
        self.distance, self.histogram, self.latent = distance, histogram, latent
        self.actions = Actions(schema)
        self.halves = slice(0, dim // 2), slice(dim // 2, dim)
        outputs = len(horizons) * len(self.actions.range_A2) * bins
        # A part of weight 0 has no head: a parameter without gradient would stop workers from
        # agreeing.
        self.predict = self.agree = None
        if histogram:
            self.predict = nn.Sequential(
                nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, outputs)
            )
        if latent:
            self.agree = nn.ModuleList(_Predictor(h.stop - h.start) for h in self.halves)

    def fit(self, pose: Pose) -> None:
        """Takes the range of every action."""
        self.actions.fit(pose)

    def forward(self, views: tuple[View, ...], windows: Windows, rng: WindowRNG) -> Loss:
        """Both parts on frames drawn in this worker's windows."""
        view = views[0]
        length_B1 = windows.valid_BT.sum(1, keepdim=True)
        frame_BN = (rng.uniform("bams/frame", self.anchors) * length_B1).long()
        soon_BN = frame_BN + (rng.uniform("bams/near", self.anchors) * (self.near + 1)).long()
        soon_BN = soon_BN.minimum((length_B1 - 1).clamp(min=0))
        late_BN = (rng.uniform("bams/late", self.anchors) * length_B1).long()
        exists_BN = (length_B1 > 0).expand_as(frame_BN)
        row_B1 = torch.arange(len(frame_BN), device=frame_BN.device)[:, None]
        z_BND = view.z_BTD[row_B1, frame_BN]
        total, parts = z_BND.new_zeros(()), {}
        if self.predict is not None:
            for horizon, term in zip(
                self.horizons,
                self._histograms(self.predict(z_BND).float(), view.pose, windows, frame_BN),
                strict=True,
            ):
                total = total + self.histogram * term
                parts[f"histogram_{horizon}"] = term.detach()
        if self.agree is not None:
            for name, head, half, when_BN in zip(
                ("short", "long"), self.agree, self.halves, (soon_BN, late_BN), strict=True
            ):
                target = view.z_BTD[row_B1, when_BN][..., half].detach()
                distance = 1 - F.cosine_similarity(head(z_BND[..., half]).float(), target, dim=-1)
                term = distributed.mean_over_workers(
                    torch.where(exists_BN, distance, 0.0).sum(), exists_BN.sum()
                )
                total = total + self.latent * term
                parts[f"latent_{name}"] = term.detach()
        return Loss(total, {"multi_timescale": total.detach(), **parts})

    def _histograms(
        self, flat_BNQ: Tensor, pose: Pose, windows: Windows, frame_BN: Tensor
    ) -> list[Tensor]:
        """The loss of each horizon."""
        actions_BTA = self.actions(pose).masked_fill(~windows.valid_BT.unsqueeze(-1), torch.nan)
        low, high = self.actions.range_A2.unbind(-1)
        inner = torch.arange(1, self.bins, device=low.device) / self.bins
        edge_AE = low[:, None] + (high - low)[:, None] * inner
        logits_BNHAb = flat_BNQ.view(*frame_BN.shape, len(self.horizons), len(low), self.bins)
        terms = []
        for index, horizon in enumerate(self.horizons):
            below_BNAE, weight_BNA = shares_below(actions_BTA, edge_AE, frame_BN, horizon)
            distance_BNA = self._distance(logits_BNHAb[:, :, index], below_BNAE)
            terms.append(
                distributed.mean_over_workers((weight_BNA * distance_BNA).sum(), weight_BNA.sum())
            )
        return terms

    def _distance(self, logits: Tensor, below: Tensor) -> Tensor:
        """Between predicted and true histograms, the true one given as shares below the edges."""
        if self.distance == "emd":
            return (logits.softmax(-1).cumsum(-1)[..., :-1] - below).square().sum(-1)
        share = F.pad(below, (0, 1), value=1.0) - F.pad(below, (1, 0), value=0.0)
        return -(share * logits.log_softmax(-1)).sum(-1)


class _Predictor(nn.Sequential):
    def __init__(self, width: int) -> None:
        # A layer norm where the paper has a batch norm, whose moments would be each worker's own.
        super().__init__(
            nn.Linear(width, 4 * width, bias=False),
            nn.LayerNorm(4 * width),
            nn.ReLU(),
            nn.Linear(4 * width, width),
        )
