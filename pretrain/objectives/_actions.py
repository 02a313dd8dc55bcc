"""What animals do from frame to frame, in numbers that do not depend on where the scene lies."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from pretrain.data.schema import Schema
from pretrain.data.windows import Pose
from pretrain.transforms.features import Features
from pretrain.transforms.geometry import difference, rotate_back

# Ranges of the unfitted module: forward, sideways (px), turn (rad), movement of the points (px),
# approach (px).
_UNFITTED = ((-20.0, 20.0), (-10.0, 10.0), (-0.5, 0.5), (0.0, 15.0))
_APPROACH = (-20.0, 20.0)
_QUANTILES = (0.02, 0.98)


class Actions(nn.Module):
    """For each animal: steps forward and sideways, turn, movement of its points in the frame of its
    body; for each pair: approach.

    Args:
        lag: Frames over which they are measured, even, centred.

    Attributes:
        range_A2: Where values of each action usually lie; from the data once fitted (quantiles 0.02
            and 0.98).

    Shapes:
        Input: a pose of (B, T, M, K, X). Output: (B, T, A), px and rad; NaN where unknown.
    """

    range_A2: Tensor

    def __init__(self, schema: Schema, *, lag: int = 2) -> None:
        super().__init__()
        self.features = Features(schema, groups=("posture",), lags=())
        self.lag, self.pairs = lag, list(itertools.combinations(range(len(schema.animals)), 2))
        self.register_buffer(
            "range_A2",
            torch.tensor([*(_UNFITTED * len(schema.animals)), *([_APPROACH] * len(self.pairs))]),
        )

    @torch.no_grad()
    def fit(self, pose: Pose) -> None:
        """Takes the mean body and the ranges from a sample; what is unknown there keeps its
        range."""
        self.features.fit(pose)
        range_A2 = self(pose).flatten(0, 1).nanquantile(torch.tensor(_QUANTILES), dim=0).T
        usable = range_A2.isfinite().all(-1) & (range_A2[:, 1] - range_A2[:, 0] > 1e-6)
        self.range_A2.copy_(torch.where(usable[:, None], range_A2, self.range_A2))

    def forward(self, pose: Pose) -> Tensor:
        """(B, T, A)."""
        origin, heading = self.features.body_frames(pose)
        own = rotate_back(pose.position_BTMKX - origin.unsqueeze(-2), heading.unsqueeze(-2))
        step = rotate_back(self._change(origin), heading)
        turn = self._change(torch.atan2(heading[..., 1], heading[..., 0]))
        turn = torch.remainder(turn + math.pi, 2 * math.pi) - math.pi
        moved = self._change(own).norm(dim=-1).nanmean(-1)
        each = torch.stack([step[..., 0], step[..., 1], turn, moved], -1).flatten(2)
        approach = [
            -self._change((origin[:, :, a] - origin[:, :, b]).norm(dim=-1)) for a, b in self.pairs
        ]
        return torch.cat([each, *(one.unsqueeze(-1) for one in approach)], -1)

    def _change(self, x: Tensor) -> Tensor:
        return difference(x, self.lag, axis=1)


def shares_below(
    value_BTA: Tensor, edge_AE: Tensor, frame_BN: Tensor, horizon: int
) -> tuple[Tensor, Tensor]:
    """The distribution of each action over the frames that follow.

    Args:
        value_BTA: NaN where unknown; also in frames that do not exist.
        edge_AE: Rising inner edges of the bins.
        frame_BN: Frames after which to look.
        horizon: How many frames ahead: t + 1 … t + horizon.

    Returns:
        Share of the known frames whose value is at most each edge, (B, N, A, E); and the share of
        the horizon's frames that are known, (B, N, A): the weight of that distribution, 0 where
        nothing is known.
    """
    known = value_BTA.isfinite()
    below = (value_BTA.unsqueeze(-1) <= edge_AE) & known.unsqueeze(-1)
    counts = torch.cat([below, known.unsqueeze(-1)], -1).to(value_BTA.dtype).cumsum(1)
    # At t: over the frames before t.
    counts = torch.cat([torch.zeros_like(counts[:, :1]), counts], 1)
    row = torch.arange(len(frame_BN), device=frame_BN.device)[:, None]
    last = counts.shape[1] - 1
    ahead = (
        counts[row, (frame_BN + 1 + horizon).clamp(max=last)]
        - counts[row, (frame_BN + 1).clamp(max=last)]
    )
    number = ahead[..., -1]
    return ahead[..., :-1] / number.clamp(min=1).unsqueeze(-1), number / horizon
