"""What is predicted of a masked animal: its points in its own body frame and in that of every other
animal, and how they move."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pretrain.data.schema import Schema
from pretrain.data.windows import Pose
from pretrain.transforms.features import Features, mean_and_scale
from pretrain.transforms.geometry import difference, rotate_back

_CLIP = 6.0


class Scene(nn.Module):
    """Poses to numbers that do not change when the scene is moved or turned, each belonging to one
    point of one animal.

    For animal ``m`` and point ``k``: the point in the frame of the animal's body, in that of each
    other animal, and its displacement over ``lag`` frames in the first; all coordinates of each.
    Standardised once fitted, else in units of 50 px.

    Args:
        lag: Frames, even.

    Shapes:
        Input: a pose of (B, T, M, K, X). Output: (B, T, M, K, V), NaN where unknown.
    """

    mean_MKV: Tensor
    scale_MKV: Tensor

    def __init__(self, schema: Schema, *, lag: int = 4) -> None:
        super().__init__()
        animals, keypoints, coordinates = schema.shape
        self.features = Features(schema, groups=("posture",), lags=())
        self.lag, self.others = lag, [[b for b in range(animals) if b != a] for a in range(animals)]
        self.width = coordinates * (animals + 1)
        self.register_buffer("mean_MKV", torch.zeros(animals, keypoints, self.width))
        self.register_buffer("scale_MKV", torch.full((animals, keypoints, self.width), 1 / 50))

    @torch.no_grad()
    def fit(self, pose: Pose) -> None:
        """Takes the mean body, means and spreads from a sample."""
        self.features.fit(pose)
        mean, scale = mean_and_scale(self._raw(pose).flatten(0, 1))
        self.mean_MKV.copy_(mean)
        self.scale_MKV.copy_(scale)

    def forward(self, pose: Pose) -> Tensor:
        """(B, T, M, K, V)."""
        return ((self._raw(pose) - self.mean_MKV) * self.scale_MKV).clamp(-_CLIP, _CLIP)

    def _raw(self, pose: Pose) -> Tensor:
        position = pose.position_BTMKX
        origin, heading = self.features.body_frames(pose)
        origin, heading = origin.unsqueeze(-2), heading.unsqueeze(-2)
        columns = [rotate_back(position - origin, heading)]
        for nth in range(len(self.others) - 1):
            other = [others[nth] for others in self.others]
            columns.append(rotate_back(position - origin[:, :, other], heading[:, :, other]))
        columns.append(rotate_back(difference(position, self.lag, axis=1), heading))
        return torch.cat(columns, -1)
