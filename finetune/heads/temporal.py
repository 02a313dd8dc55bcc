"""Two convolutions over time: the frames around a frame count too."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from finetune.heads import AbstractHead
from pretrain.components import ShareBelow1


class Temporal(AbstractHead):
    """Two dilated convolutions over time, then a linear layer.

    Args:
        width: Channels.
        dilation: Step of the second convolution; the reach is ``2 * (1 + dilation)`` frames to
            either side.
        dropout: Share of the channels set to 0, each in a whole window, while fitting.
    """

    def __init__(
        self,
        dim: int,
        classes: list[int],
        *,
        width: int = 64,
        dilation: int = 4,
        dropout: ShareBelow1 = 0.3,
    ) -> None:
        super().__init__(dim)
        self.enter = nn.Conv1d(dim, width, 5, padding=2)
        self.wider = nn.Conv1d(width, width, 5, padding=2 * dilation, dilation=dilation)
        self.drop = nn.Dropout1d(dropout)  # whole channels
        self.out = nn.ModuleList(nn.Linear(width, number) for number in classes)
        self.context = 2 * (1 + dilation)

    def trunk(self, z_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        """Channels of each frame."""
        # Most batches have no frame beyond its video, and what is exported never: nothing to mask.
        whole = torch.compiler.is_exporting() or valid_BT.all()
        beyond_B1T = None if whole else ~valid_BT.unsqueeze(1)
        h_BDT = nn.functional.gelu(
            self.enter(self.drop(_without(z_BTD.transpose(1, 2), beyond_B1T)))
        )
        h_BDT = _without(h_BDT, beyond_B1T)
        h_BDT = h_BDT + nn.functional.gelu(self.wider(self.drop(h_BDT)))
        out: Tensor = self.drop(h_BDT).transpose(1, 2)
        return out


def _without(h_BDT: Tensor, beyond_B1T: Tensor | None) -> Tensor:
    return h_BDT if beyond_B1T is None else h_BDT.masked_fill(beyond_B1T, 0.0)
