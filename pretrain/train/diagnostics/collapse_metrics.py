"""Whether embeddings collapse onto a point, a line or few dimensions, measured without labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.data.window_rng import WindowRNG
from pretrain.data.windows import Windows

if TYPE_CHECKING:
    from pretrain.objectives import View

FRAMES_PER_WINDOW = 4
MAX_FRAMES = 512


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

    The number of dimensions in use: 1 on a line, D in a ball; 0 where nothing varies; NaN of
    embeddings that are not finite (a diagnostic never ends a run).
    """
    centred = z_ND - z_ND.mean(0)
    # the smaller of the two, which have the same eigenvalues but for zeros
    product = centred.T @ centred if z_ND.shape[1] <= len(z_ND) else centred @ centred.T
    try:
        eigen = torch.linalg.eigvalsh(product.double()).clamp(min=0)
    except RuntimeError:  # torch.linalg.LinAlgError
        return z_ND.new_full((), torch.nan)
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
def collapse_metrics(views: Sequence[View], windows: Windows, rng: WindowRNG) -> dict[str, Tensor]:
    """All of them on a few frames of each window, for the log.

    Args:
        views: Embedded views, with the poses that the encoder saw. Frames of which it saw nothing
            do not count. A positive pair is one moment in the first two views; where they share
            none, a frame and the next.
        windows: Which frames exist.
        rng: Chooses the frames.

    Returns:
        ``alignment``, ``uniformity``, ``effective_rank``, ``spread_mean``, ``spread_least``:
        scalars of this worker's rows. Zeros where fewer than two frames were seen.
    """
    length_B1 = windows.valid_BT.sum(1, keepdim=True)
    chosen = rng.uniform("collapse", FRAMES_PER_WINDOW) * (length_B1 - 1).clamp(min=0)
    frame_BA = chosen.long()
    next_BA = (frame_BA + 1).clamp(max=windows.valid_BT.shape[1] - 1)
    # the frames, the same in the second view, and the next ones
    z_ND, seen_N = _at(views[0], frame_BA)
    other_ND, other_seen_N = _at(views[min(1, len(views) - 1)], frame_BA)
    if len(views) == 1 or int((seen_N & other_seen_N).sum()) < 2:
        other_ND, other_seen_N = _at(views[0], next_BA)
    both_N = seen_N & other_seen_N
    some_ND = z_ND[seen_N][:MAX_FRAMES]
    if len(some_ND) < 2 or not both_N.any():
        names = ("alignment", "uniformity", "effective_rank", "spread_mean", "spread_least")
        return dict.fromkeys(names, z_ND.new_zeros(()))
    mean, least = spread(some_ND)
    return {
        "alignment": alignment(z_ND[both_N], other_ND[both_N]),
        "uniformity": uniformity(some_ND),
        "effective_rank": effective_rank(some_ND),
        "spread_mean": mean,
        "spread_least": least,
    }


def _at(view: View, frame_BA: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings of some frames of each window, and whether the encoder saw anything of them."""
    row_B1 = torch.arange(len(frame_BA), device=frame_BA.device).unsqueeze(1)
    seen_BA = (view.pose.confidence_BTMK[row_B1, frame_BA] > 0).flatten(2).any(-1)
    return view.z_BTD[row_B1, frame_BA].flatten(0, 1), seen_BA.flatten()
