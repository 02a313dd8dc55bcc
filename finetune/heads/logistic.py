"""Logistic regression on ranks: linear, strongly regularised, and hard to fool by outliers; beside
trees the best second opinion where labels are few."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finetune.heads import (
    AbstractHead,
    LabelledVideo,
    frame_weights,
    labelled_frames,
    with_time,
)
from pretrain.components import Positive

_QUANTILES = 65
_RANKED_FRAMES = 20_000
_ROWS = 256
_CLIP = 0.005
_SAME = 1e-6  # of a column's range: rounding must not part what ties, as frames without a pose do
_NEVER_SEEN = -6.0  # logit of a class that no training frame showed


class Logistic(AbstractHead):
    """Every column brought to a normal distribution by its ranks, then ridge regression of the
    classes (multinomial; behaviour by behaviour where they overlap).

    Args:
        hz: Frames a second that are read; scores of the frames between are interpolated.
        ridge: Weight of the squared coefficients, beside the mean loss.
        class_weight: Power of the inverse class frequency that weighs a frame.
        time: Whether seconds since the beginning and until the end of the recording are columns.
    """

    by_gradient = False
    differentiable = False
    timid = True

    def __init__(
        self,
        dim: int,
        classes: list[int],
        *,
        hz: Positive = 5.0,
        ridge: Positive = 1.0,
        class_weight: float = 0.5,
        time: bool = True,
    ) -> None:
        super().__init__(dim)
        self.hz, self._ridge, self._power, self._time = hz, ridge, class_weight, time
        width = dim + 2 * time
        self.quantiles_QD: Tensor
        self.register_buffer("quantiles_QD", torch.zeros(_QUANTILES, width))
        rank_R = torch.arange(2 * _QUANTILES + 1) / (2 * _QUANTILES)
        normal_R = torch.special.ndtri(rank_R.clamp(_CLIP, 1 - _CLIP))
        self.normal_R: Tensor
        self.register_buffer("normal_R", normal_R, persistent=False)
        self.out = nn.ModuleList(nn.Linear(width, number) for number in classes)

    def trunk(self, z_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        """Normal scores of the ranks."""
        if self._time:
            step = self.stride / self.fps
            z_BTD = torch.stack([with_time(z_TD, step, self.stretch) for z_TD in z_BTD])
        return self._normal(z_BTD.flatten(0, 1)).view(z_BTD.shape)

    def _normal(self, z_ND: Tensor) -> Tensor:
        knots_DQ = self.quantiles_QD.T.contiguous()
        slack_D1 = _SAME * (knots_DQ[:, -1:] - knots_DQ[:, :1])
        search: Any = _search
        parts: Sequence[Tensor] = [z_ND]
        if not torch.compiler.is_exporting():  # a few rows stay in the cache
            search, parts = partial(torch.searchsorted, out_int32=True), torch.split(z_ND, _ROWS)
        normal = []
        for part_ND in parts:
            z_DN = part_ND.T.contiguous()
            between_DN = search(knots_DQ, z_DN - slack_D1)
            between_DN = between_DN + search(knots_DQ, z_DN + slack_D1, right=True)
            normal.append(self.normal_R[between_DN].T)
        return torch.cat(normal)

    @torch.no_grad()
    def fit_videos(
        self, problem: int, videos: list[LabelledVideo], *, overlapping: bool, seed: int
    ) -> None:
        """Takes the ranks of all its frames at the first problem, then the coefficients of this
        one."""
        with_times = [
            with_time(v.z_TD, self.stride / self.fps) if self._time else v.z_TD for v in videos
        ]
        if problem == 0:
            total = sum(map(len, with_times))
            some = torch.cat([z_TD[:: max(1, total // _RANKED_FRAMES)] for z_TD in with_times])
            self.quantiles_QD.copy_(_quantiles(some))
        z_ND, shown_NC = labelled_frames(videos, with_times)
        x_DN = self._normal(z_ND).T.contiguous()
        out = self.out[problem]
        assert isinstance(out, nn.Linear)
        if overlapping:
            for c in range(shown_NC.shape[1]):
                known = shown_NC[:, c] >= 0
                shown_N1 = shown_NC[known, c : c + 1].float()
                self._solve(out, x_DN[:, known], shown_N1, slice(c, c + 1))
        else:
            self._solve(out, x_DN, shown_NC.float(), slice(None))
            out.bias.add_(torch.where(shown_NC.sum(0) > 0, 0.0, _NEVER_SEEN))

    def _solve(self, out: nn.Linear, x_DN: Tensor, target_NC: Tensor, columns: slice) -> None:
        """Coefficients of some of an output's classes, by L-BFGS. Frames are columns: the products
        of few classes with many frames then take less than half as long."""
        several = target_NC.shape[1] > 1
        label_N = target_NC.argmax(1) if several else target_NC[:, 0].long()
        weight_N = torch.from_numpy(frame_weights(label_N.numpy(), self._power)).float()
        weight_N /= weight_N.sum()
        coefficients_CD = torch.zeros(target_NC.shape[1], len(x_DN)).requires_grad_()
        intercepts_C1 = torch.zeros(target_NC.shape[1], 1).requires_grad_()
        optimiser = torch.optim.LBFGS(
            [coefficients_CD, intercepts_C1],
            max_iter=60,
            history_size=10,
            line_search_fn="strong_wolfe",
        )

        def loss() -> Tensor:
            optimiser.zero_grad()
            logits_NC = (coefficients_CD @ x_DN + intercepts_C1).T
            loss_of = F.cross_entropy if several else F.binary_cross_entropy_with_logits
            inputs = (logits_NC, label_N) if several else (logits_NC[:, 0], target_NC[:, 0])
            each_N = loss_of(*inputs, reduction="none")
            total = (each_N * weight_N).sum() + self._ridge * coefficients_CD.square().sum()
            total.backward()  # type: ignore[no-untyped-call]
            return total

        with torch.enable_grad():
            optimiser.step(loss)  # type: ignore[no-untyped-call]
        out.weight[columns] = coefficients_CD.detach()
        out.bias[columns] = intercepts_C1.detach()[:, 0]


def _quantiles(x_ND: Tensor) -> Tensor:
    """(Q, D): evenly spaced quantiles of each column, between its order statistics in a straight
    line."""
    sorted_DN = np.sort(np.ascontiguousarray(x_ND.numpy().T), axis=1)
    last = len(x_ND) - 1
    at_Q = (np.arange(_QUANTILES) + 0.5) / _QUANTILES * last
    below_Q = at_Q.astype(int)
    low_DQ, high_DQ = sorted_DN[:, below_Q], sorted_DN[:, np.minimum(below_Q + 1, last)]
    return torch.from_numpy(low_DQ + (high_DQ - low_DQ) * (at_Q - below_Q)).T


def _search(knots_DQ: Tensor, z_DN: Tensor, *, right: bool = False) -> Tensor:
    """``torch.searchsorted`` in halves, which ONNX lacks."""
    at_DN = torch.zeros_like(z_DN, dtype=torch.int64)
    number = knots_DQ.shape[1]
    for step in (2**n for n in reversed(range(number.bit_length()))):
        to_DN = at_DN + step
        knot_DN = knots_DQ.gather(1, to_DN.clamp(max=number) - 1)
        before_DN = knot_DN <= z_DN if right else knot_DN < z_DN
        at_DN = torch.where(before_DN & (to_DN <= number), to_DN, at_DN)
    return at_DN
