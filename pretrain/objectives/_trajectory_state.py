"""Poses to the few numbers of a trajectory's state, and back: where each animal is, where it
points, how it is bent."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.data.schema import Schema
from pretrain.data.windows import Pose
from pretrain.transforms.features import Features
from pretrain.transforms.geometry import rotate, rotate_back

_JUMP = 10.0  # standard deviations; a tracker's jump is not worth more


class TrajectoryState(nn.Module):
    """Egocentric decomposition of task programming (Sun et al. 2021) for any skeleton.

    For each animal the origin of its body frame in half images from the centre (X), its heading as
    cosine and sine (2), and the first principal components of its points in the body frame (at
    most 5). Fitted, all are standardised; unfitted, the components are the first of the points' own
    coordinates.

    Args:
        components: Principal components of the posture.

    Attributes:
        size: S, numbers of a state.
    """

    mean_Q: Tensor
    basis_CQ: Tensor
    mean_S: Tensor
    scale_S: Tensor
    step_S: Tensor
    half_X: Tensor

    def __init__(self, schema: Schema, *, components: int = 5) -> None:
        super().__init__()
        animals, keypoints, coordinates = schema.shape
        self.features = Features(schema, groups=("posture",), lags=())
        self.points, self.components = (
            (keypoints, coordinates),
            min(components, coordinates * keypoints),
        )
        self.size = animals * (coordinates + 2 + self.components)
        self.register_buffer("half_X", torch.tensor(schema.image_px) / 2)
        self.register_buffer("mean_Q", torch.zeros(coordinates * keypoints))
        self.register_buffer("basis_CQ", torch.eye(self.components, coordinates * keypoints))
        self.register_buffer("mean_S", torch.zeros(self.size))
        self.register_buffer("scale_S", torch.ones(self.size))
        self.register_buffer("step_S", torch.ones(self.size))

    @torch.no_grad()
    def fit(self, pose: Pose) -> None:
        """Takes the mean body, its principal components and all spreads from a sample; animals
        share body and components."""
        self.features.fit(pose)
        own, _, _ = self._own(pose)
        points = own.flatten(0, 2).flatten(1)
        points = points[points.isfinite().any(-1)]
        self.mean_Q.copy_(points.nanmean(0).nan_to_num(0.0))
        deviation = (points - self.mean_Q).nan_to_num(0.0)
        self.basis_CQ.copy_(torch.linalg.svd(deviation.T @ deviation)[2][: self.components])
        self.mean_S.zero_()
        self.scale_S.fill_(1.0)
        self.step_S.fill_(1.0)
        state, known = self(pose)
        state = state.masked_fill(~known, torch.nan)
        action = state.diff(dim=1)
        self.mean_S.copy_(state.flatten(0, 1).nanmean(0).nan_to_num(0.0))
        self.scale_S.copy_(_spread(state.flatten(0, 1)))
        self.step_S.copy_(_spread(action.flatten(0, 1)) / self.scale_S)

    def forward(self, pose: Pose) -> tuple[Tensor, Tensor]:
        """(N, T, S) states, 0 where unknown, and which are known; a missing point of a known animal
        lies where it is on average."""
        own, origin, heading = self._own(pose)
        known_NTM1 = (heading.isfinite().all(-1) & origin.isfinite().all(-1)).unsqueeze(-1)
        bent = (own.flatten(-2) - self.mean_Q).nan_to_num(0.0) @ self.basis_CQ.T / self.half_X[0]
        state = torch.cat([origin / self.half_X - 1, heading, bent], -1)
        known = known_NTM1.expand(state.shape).flatten(2)
        return torch.where(known, (state.flatten(2) - self.mean_S) / self.scale_S, 0.0), known

    def actions(self, state_NTS: Tensor, known_NTS: Tensor) -> tuple[Tensor, Tensor]:
        """Differences of successive states in standard deviations, (N, T - 1, S), 0 where unknown;
        and which are known."""
        known = known_NTS[:, 1:] & known_NTS[:, :-1]
        return torch.where(known, state_NTS.diff(dim=1) / self.step_S, 0.0).clamp(
            -_JUMP, _JUMP
        ), known

    def advance(self, state_NS: Tensor, action_NS: Tensor) -> Tensor:
        """The state after an action."""
        return state_NS + action_NS * self.step_S

    def positions(self, state_NTS: Tensor) -> Tensor:
        """Back to (N, T, M, K, X) px, differentiable; only what the components express."""
        x = self.points[1]
        state = (state_NTS * self.scale_S + self.mean_S).view(
            *state_NTS.shape[:-1], -1, x + 2 + self.components
        )
        origin, heading = state[..., :x], F.normalize(state[..., x : x + 2], dim=-1)
        bent = state[..., x + 2 :]
        own = bent * self.half_X[0] @ self.basis_CQ + self.mean_Q
        points = rotate(own.view(*own.shape[:-1], *self.points), heading.unsqueeze(-2))
        return points + ((origin + 1) * self.half_X).unsqueeze(-2)

    def _own(self, pose: Pose) -> tuple[Tensor, Tensor, Tensor]:
        """Points in the body frame, its origin and its heading."""
        origin, heading = self.features.body_frames(pose)
        offset = pose.position_BTMKX - origin.unsqueeze(-2)
        return rotate_back(offset, heading.unsqueeze(-2)), origin, heading


def _spread(x: Tensor) -> Tensor:
    """Root mean square deviation of the known values; 1 where nothing varies."""
    spread = (x - x.nanmean(0)).square().nanmean(0).sqrt()
    return torch.where(spread > 1e-6, spread, 1.0).nan_to_num(nan=1.0)
