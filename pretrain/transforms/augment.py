"""Another view of the same moment: what a behaviour should not depend on. Every draw belongs to its
window."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pretrain.data.schema import Schema
from pretrain.data.window_rng import WindowRNG
from pretrain.data.windows import Pose
from pretrain.errors import refuse


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How a view differs from the recording. Zeros leave it as it is."""

    rotate: bool = False
    """Turn the scene about the centre of the image by any angle."""
    mirror: float = 0.0
    """Probability of a mirror image, left and right keypoints exchanged."""
    exchange: float = 0.0
    """Probability that animals trade places; not for tasks that tell resident from intruder."""
    scale: float = 0.0
    """Spread of the logarithm of the size of the scene."""
    jitter_px: float = 0.0
    """Standard deviation of noise on every point (px)."""
    drop_points: float = 0.0
    """Probability that a keypoint is missing for the whole window."""
    drop_frames: float = 0.0
    """Probability that an animal is missing in a block of frames."""
    drop_block: int = 8
    """Frames of such a block."""

    def __post_init__(self) -> None:
        shares = {
            name: getattr(self, name)
            for name in ("mirror", "exchange", "drop_points", "drop_frames")
        }
        refuse(
            [
                f"{name} is {value}; it must lie in 0…1"
                for name, value in shares.items()
                if not 0 <= value <= 1
            ]
            + [f"{name} is negative" for name in ("scale", "jitter_px") if getattr(self, name) < 0]
            + (["drop_block must be at least 1"] if self.drop_block < 1 else []),
            about="augment",
        )

    def __call__(self, pose: Pose, schema: Schema, draws: WindowRNG, *, view: str) -> Pose:
        """A view of every window.

        Args:
            pose: (B, T, M, K, X) px and (B, T, M, K).
            schema: The skeleton.
            draws: Of these windows.
            view: Name of the view; views of other names are drawn apart.
        """
        position, confidence, extra = pose
        batch, frames, animals, keypoints, _ = position.shape

        def on(name: str, probability: float, *shape: int) -> Tensor:
            return draws.chance(f"{view}/{name}", probability, *shape)

        if self.mirror:
            flip = on("mirror", self.mirror, 1, 1, 1)
            partner = torch.tensor(schema.mirrored(), device=position.device)
            sides = position[:, :, :, partner] * position.new_tensor(
                [-1.0, 1.0]
            ) + position.new_tensor([schema.image_px[0], 0.0])
            position = torch.where(flip.unsqueeze(-1), sides, position)
            confidence = torch.where(flip, confidence[:, :, :, partner], confidence)
        if self.exchange and animals > 1:
            # A turn of the row of animals that leaves nobody in place: for two animals, the
            # exchange.
            turn = 1 + (draws.uniform(f"{view}/order", 1) * (animals - 1)).long()
            order = (
                torch.arange(animals, device=position.device)
                + turn * on("exchange", self.exchange, 1)
            ) % animals
            rows = torch.arange(batch, device=order.device)[:, None]
            position = position.transpose(1, 2)[rows, order].transpose(1, 2)
            confidence = confidence.transpose(1, 2)[rows, order].transpose(1, 2)
        if self.rotate or self.scale:
            centre = position.new_tensor(schema.image_px) / 2
            angle = draws.uniform(f"{view}/angle", 1, 1, 1) * 2 * math.pi * self.rotate
            size = (draws.normal(f"{view}/scale", 1, 1, 1) * self.scale).exp()
            x, y = (position - centre).unbind(-1)
            cos, sin = angle.cos() * size, angle.sin() * size
            position = torch.stack([cos * x - sin * y, sin * x + cos * y], -1) + centre
        if self.jitter_px:
            position = (
                position + draws.normal(f"{view}/jitter", *position.shape[1:]) * self.jitter_px
            )
        gone = torch.zeros((), dtype=torch.bool, device=position.device)
        if self.drop_points:
            gone = gone | on("points", self.drop_points, 1, animals, keypoints)
        if self.drop_frames:
            blocks = on("frames", self.drop_frames, -(-frames // self.drop_block), animals, 1)
            gone = gone | blocks.repeat_interleave(self.drop_block, 1)[:, :frames]
        changed = Pose(position, confidence, extra)
        return changed.hidden(gone.expand_as(confidence)) if gone.ndim else changed
