"""Masked modelling: blocks of the scene are hidden, and what was there has to be told from the
rest."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pretrain import distributed
from pretrain.data.schema import Schema
from pretrain.data.window_rng import WindowRNG
from pretrain.data.windows import Pose, Windows
from pretrain.errors import refuse
from pretrain.objectives import AbstractObjective, Loss, View
from pretrain.objectives._scene import Scene


class Masked(AbstractObjective):
    r"""Predicts the hidden points of a window (block masking as in h/BehaveMAE, Stoffl et al. 2024;
    MAE, He et al. 2022).

    .. math:: L = \frac{1}{|H|} \sum_{(t, m, k) \in H} \frac{1}{V} \lVert f(z_t)_{mk} - y_{tmk}
    \rVert^2

    Time is cut into blocks. In every block everything may be hidden, or one animal, or one point of
    one animal, each by a draw of its own. A hidden point is a missing one to the encoder. ``H`` are
    the points that were hidden and are known; ``y`` are their V standardised coordinates in the
    animal's own frame, in the frames of the others, and their motion, so nothing depends on where
    the scene lies in the image. ``f`` is a perceptron with one hidden layer.

    Args:
        dim: D of the encoder.
        schema: The skeleton.
        block: Frames of a block.
        everything: Probability that all animals are hidden in a block.
        animal: Probability that an animal is hidden in a block.
        point: Probability that a point of an animal is hidden in a block.
        hidden: Width of the decoder.
        lag: Frames over which motion is measured, even.
    """

    def __init__(
        self,
        dim: int,
        schema: Schema,
        *,
        block: int = 16,
        everything: float = 0.15,
        animal: float = 0.2,
        point: float = 0.3,
        hidden: int = 256,
        lag: int = 4,
    ) -> None:
        super().__init__()
        shares = {"everything": everything, "animal": animal, "point": point}
        refuse(
            [
                f"{name} is {value}; it must lie in 0…1"
                for name, value in shares.items()
                if not 0 <= value <= 1
            ]
            + (
                ["everything, animal and point are all 0: nothing would be hidden"]
                if not any(shares.values())
                else []
            )
            + [
                f"{name} is {value}; it must be at least 1"
                for name, value in (("block", block), ("hidden", hidden))
                if value < 1
            ]
            + (
                [f"lag is {lag}; it must be a positive even number of frames"]
                if lag < 1 or lag % 2
                else []
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

    def hidden(self, windows: Windows, draws: WindowRNG, *, view: int = 0) -> Tensor:
        """Which points the encoder does not get to see: bool, (B, T, M, K). Blocks begin
        anywhere."""
        _, frames, animals, keypoints = windows.pose.confidence_BTMK.shape
        blocks = -(-frames // self.block) + 1

        def chance(name: str, probability: float, *shape: int) -> Tensor:
            return draws.chance(f"masked/{view}/{name}", probability, *shape)

        hidden = (
            chance("everything", self.everything, blocks, 1, 1)
            | chance("animal", self.animal, blocks, animals, 1)
            | chance("point", self.point, blocks, animals, keypoints)
        )
        begin_B1 = (draws.uniform(f"masked/{view}/begin", 1) * self.block).long()
        block_BT = (begin_B1 + torch.arange(frames, device=begin_B1.device)) // self.block
        return hidden[torch.arange(len(begin_B1), device=begin_B1.device)[:, None], block_BT]

    def hide(self, pose: Pose, windows: Windows, draws: WindowRNG, *, view: int) -> Pose:
        """Takes the hidden points out of the view."""
        return pose.hidden(self.hidden(windows, draws, view=view))

    def forward(self, views: tuple[View, ...], windows: Windows, draws: WindowRNG) -> Loss:
        """Mean squared error over the hidden points that are known; ``masked_blind`` is that of
        always guessing the mean."""
        with torch.autocast(windows.valid_BT.device.type, enabled=False):
            truth_BTMKV = self.scene(views[0].pose)
        guess_BTMKV = self.decode(views[0].z_BTD).float().view_as(truth_BTMKV)
        asked = self.hidden(windows, draws).unsqueeze(-1) & truth_BTMKV.isfinite()
        error = torch.where(asked, guess_BTMKV - truth_BTMKV.nan_to_num(0.0), 0.0).square()
        loss = distributed.mean_over_workers(error.sum(), asked.sum())
        blind = distributed.mean_over_workers(
            torch.where(asked, truth_BTMKV.nan_to_num(0.0), 0.0).square().sum(), asked.sum()
        )
        return Loss(loss, {"masked": loss.detach(), "masked_blind": blind.detach()})
