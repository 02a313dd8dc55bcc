"""Masked modelling: blocks of the scene are masked, and what was there is predicted from the
rest."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pretrain import distributed
from pretrain.components import Count, Share
from pretrain.data.schema import Schema
from pretrain.data.window_rng import WindowRNG
from pretrain.data.windows import Pose, Windows
from pretrain.errors import error_if, refuse
from pretrain.objectives import AbstractObjective, Loss, View
from pretrain.objectives._scene import Scene


class Masked(AbstractObjective):
    r"""Predicts the masked points of a window (block masking as in h/BehaveMAE, Stoffl et al. 2024;
    MAE, He et al. 2022).

    .. math:: L = \frac{1}{|H|} \sum_{(t, m, k) \in H} \frac{1}{V} \lVert f(z_t)_{mk} - y_{tmk}
    \rVert^2

    Time is cut into blocks. In every block everything may be masked, or one animal, or one point of
    one animal, each by a draw of its own. A masked point is a missing one to the encoder. ``H`` are
    the points that were masked and are known; ``y`` are their V standardised coordinates in the
    animal's own frame, in the frames of the others, and their motion, so nothing depends on where
    the scene lies in the image. ``f`` is a perceptron with one hidden layer.

    Args:
        block: Frames of a block.
        everything: Probability that all animals are masked in a block.
        animal: Probability that an animal is masked in a block.
        point: Probability that a point of an animal is masked in a block.
        hidden: Width of the decoder.
        lag: Frames over which motion is measured, even.
    """

    def __init__(
        self,
        dim: int,
        schema: Schema,
        *,
        block: Count = 16,
        everything: Share = 0.15,
        animal: Share = 0.2,
        point: Share = 0.3,
        hidden: Count = 256,
        lag: int = 4,
    ) -> None:
        super().__init__()
        refuse(
            error_if(
                not any((everything, animal, point)),
                "everything, animal and point are all 0: nothing would be masked",
            )
            + error_if(
                lag < 1 or lag % 2, f"lag is {lag}; it must be a positive even number of frames"
            ),
            about="objective masked",
        )
        self.block, self.everything, self.animal, self.point = block, everything, animal, point
        self.scene = Scene(schema, lag=lag)
        self.decode = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, self.scene.mean_MKV.numel())
        )

    def fit(self, pose: Pose) -> None:
        """Takes the spread of what is to be predicted."""
        self.scene.fit(pose)

    def masked_points(self, windows: Windows, rng: WindowRNG, *, view: int = 0) -> Tensor:
        """Which points are kept from the encoder: bool, (B, T, M, K). Blocks begin anywhere."""
        _, frames, animals, keypoints = windows.pose.confidence_BTMK.shape
        blocks = -(-frames // self.block) + 1

        def chance(name: str, probability: float, *shape: int) -> Tensor:
            return rng.chance(f"masked/{view}/{name}", probability, *shape)

        masked = (
            chance("everything", self.everything, blocks, 1, 1)
            | chance("animal", self.animal, blocks, animals, 1)
            | chance("point", self.point, blocks, animals, keypoints)
        )
        begin_B1 = (rng.uniform(f"masked/{view}/begin", 1) * self.block).long()
        block_BT = (begin_B1 + torch.arange(frames, device=begin_B1.device)) // self.block
        return masked[torch.arange(len(begin_B1), device=begin_B1.device)[:, None], block_BT]

    def mask(self, pose: Pose, windows: Windows, rng: WindowRNG, *, view: int) -> Pose:
        """The view without the masked points."""
        return pose.hidden(self.masked_points(windows, rng, view=view))

    def forward(self, views: tuple[View, ...], windows: Windows, rng: WindowRNG) -> Loss:
        """Mean squared error over the masked points that are known; ``masked_blind`` is that of
        always guessing the mean."""
        with torch.autocast(windows.valid_BT.device.type, enabled=False):
            truth_BTMKV = self.scene(views[0].pose)
        guess_BTMKV = self.decode(views[0].z_BTD).float().view_as(truth_BTMKV)
        counted = self.masked_points(windows, rng).unsqueeze(-1) & truth_BTMKV.isfinite()
        error = torch.where(counted, guess_BTMKV - truth_BTMKV.nan_to_num(0.0), 0.0).square()
        loss = distributed.mean_over_workers(error.sum(), counted.sum())
        blind = distributed.mean_over_workers(
            torch.where(counted, truth_BTMKV.nan_to_num(0.0), 0.0).square().sum(), counted.sum()
        )
        return Loss(loss, {"masked": loss.detach(), "masked_blind": blind.detach()})
