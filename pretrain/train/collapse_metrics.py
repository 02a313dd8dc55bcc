"""Signs, without labels, that embeddings collapse: onto a point, onto a line, onto few
dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.data.window_rng import WindowRNG
from pretrain.data.windows import Windows

if (
    TYPE_CHECKING
):  # objectives import the encoders' side of the project; only the type is needed here
    from pretrain.objectives import View

FRAMES = 4
"""Frames of each window that are looked at."""
ROWS = 512
"""Frames of a batch at most."""


def alignment(a_ND: Tensor, b_ND: Tensor) -> Tensor:
    """Mean squared distance of positive pairs on the unit sphere (Wang & Isola 2020, alpha = 2); 0
    is perfect, 2 is chance."""
    return (F.normalize(a_ND, dim=-1) - F.normalize(b_ND, dim=-1)).square().sum(-1).mean()


def uniformity(z_ND: Tensor) -> Tensor:
    """Log of the mean Gaussian potential of all pairs on the unit sphere (Wang & Isola 2020, t =
    2).

    0 where all embeddings are one point; for N far points about -4 is the least.
    """
    distance = F.pdist(F.normalize(z_ND, dim=-1))
    return distance.square().mul(-2).exp().mean().log()


def effective_rank(z_ND: Tensor) -> Tensor:
    """Exponential of the entropy of the covariance's eigenvalues, as shares of their sum (Roy &
    Vetterli 2007).

    The number of dimensions in use: 1 on a line, D in a ball; 0 where nothing varies.
    """
    centred = z_ND - z_ND.mean(0)
    narrow = (
        centred.T @ centred if z_ND.shape[1] <= len(z_ND) else centred @ centred.T
    )  # the same eigenvalues but for zeros
    eigen = torch.linalg.eigvalsh(narrow.double()).clamp(min=0)
    total = eigen.sum()
    share = eigen / total.clamp(min=1e-300)
    rank = torch.special.entr(share).sum().exp()
    return torch.where(total > 1e-12, rank, 0.0).to(z_ND.dtype)


def spread(z_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Standard deviation of each dimension: the mean over dimensions, and the smallest. 0 is a dead
    dimension."""
    deviation = z_ND.std(0, correction=0)
    return deviation.mean(), deviation.amin()


@torch.no_grad()
def collapse_metrics(
    views: Sequence[View], windows: Windows, draws: WindowRNG
) -> dict[str, Tensor]:
    """All of them on a few frames of each window, for the log.

    Args:
        views: Embedded views, with the poses that the encoder saw. Frames of which it saw nothing
            do not count. A positive pair is one moment in the first two views; where they share
            none, a frame and the next.
        windows: Which frames exist.
        draws: Choose the frames.

    Returns:
        ``alignment``, ``uniformity``, ``effective_rank``, ``spread_mean``, ``spread_least``:
        scalars of this worker's rows. Zeros where fewer than two frames were seen.
    """
    length_B1 = windows.valid_BT.sum(1, keepdim=True)
    frame_BA = (draws.uniform("collapse", FRAMES) * (length_B1 - 1).clamp(min=0)).long()
    row_B1 = torch.arange(len(frame_BA), device=frame_BA.device).unsqueeze(1)
    at = [
        (row_B1, frame_BA),
        (row_B1, frame_BA),
        (row_B1, (frame_BA + 1).clamp(max=windows.valid_BT.shape[1] - 1)),
    ]
    of = [views[0], views[min(1, len(views) - 1)], views[0]]
    z_NDs = [view.z_BTD[place].flatten(0, 1) for view, place in zip(of, at, strict=True)]
    seen_Ns = [
        (view.pose.confidence_BTMK[place] > 0).flatten(2).any(-1).flatten()
        for view, place in zip(of, at, strict=True)
    ]
    here = seen_Ns[0]
    other = 1 if len(views) > 1 and int((here & seen_Ns[1]).sum()) > 1 else 2
    both = here & seen_Ns[other]
    z_ND = z_NDs[0][here][:ROWS]
    if len(z_ND) < 2 or not both.any():
        return dict.fromkeys(
            ("alignment", "uniformity", "effective_rank", "spread_mean", "spread_least"),
            z_ND.new_zeros(()),
        )
    mean, least = spread(z_ND)
    return {
        "alignment": alignment(z_NDs[0][both], z_NDs[other][both]),
        "uniformity": uniformity(z_ND),
        "effective_rank": effective_rank(z_ND),
        "spread_mean": mean,
        "spread_least": least,
    }
