"""What a hidden animal can be asked for: its points as itself and as every other animal sees them,
and how it moves."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pretrain.data.schema import Schema
from pretrain.data.windows import Pose
from pretrain.errors import refuse
from pretrain.transforms.features import Features, standard

_CLIP = 6.0


class Scene(nn.Module):
    """Poses to numbers that do not change when the scene is moved or turned, each belonging to one
    point of one animal.

    For animal ``m`` and point ``k``: the point in the animal's own frame, in the frame of each
    other animal, and its displacement over ``lag`` frames in the own frame; (x, y) each.
    Standardised once fitted, else in units of 50 px.

    Args:
        schema: The skeleton.
        lag: Frames, even.

    Shapes:
        Input: a pose of (B, T, M, K, X). Output: (B, T, M, K, V), NaN where unknown.
    """

    mean_MKV: Tensor
    scale_MKV: Tensor

    def __init__(self, schema: Schema, *, lag: int = 4) -> None:
        super().__init__()
        refuse(
            [f"poses have coordinates {schema.coordinates}; this objective is for x, y"]
            * (len(schema.coordinates) != 2),
            about="poses",
        )
        animals, keypoints, _ = schema.shape
        self.frames = Features(schema, groups=("posture",), lags=())
        self.lag, self.others = lag, [[b for b in range(animals) if b != a] for a in range(animals)]
        self.width = 2 * (animals + 1)
        self.register_buffer("mean_MKV", torch.zeros(animals, keypoints, self.width))
        self.register_buffer("scale_MKV", torch.full((animals, keypoints, self.width), 1 / 50))

    @torch.no_grad()
    def fit(self, pose: Pose) -> None:
        """Takes the mean body, means and spreads from a sample."""
        self.frames.fit(pose)
        mean, scale = standard(self._raw(pose).flatten(0, 1))
        self.mean_MKV.copy_(mean)
        self.scale_MKV.copy_(scale)

    def forward(self, pose: Pose) -> Tensor:
        """(B, T, M, K, V)."""
        return ((self._raw(pose) - self.mean_MKV) * self.scale_MKV).clamp(-_CLIP, _CLIP)

    def _raw(self, pose: Pose) -> Tensor:
        position = pose.position_BTMKX
        place, heading = self.frames.frames(pose)
        seen = [_into(position, place.unsqueeze(-2), heading.unsqueeze(-2))]
        for nth in range(len(self.others) - 1):
            other = [others[nth] for others in self.others]
            seen.append(
                _into(
                    position, place[:, :, other].unsqueeze(-2), heading[:, :, other].unsqueeze(-2)
                )
            )
        half = self.lag // 2
        moved = torch.full_like(position, torch.nan)
        if position.shape[1] > self.lag:
            moved[:, half:-half] = position[:, self.lag :] - position[:, : -self.lag]
        seen.append(_into(moved, 0.0, heading.unsqueeze(-2)))
        return torch.cat(seen, -1)


def _into(position: Tensor, place: Tensor | float, heading: Tensor) -> Tensor:
    """Positions in a frame that lies at ``place`` and looks along ``heading``."""
    x, y = (position - place).unbind(-1)
    cos, sin = heading.unbind(-1)
    return torch.stack([cos * x + sin * y, cos * y - sin * x], -1)
