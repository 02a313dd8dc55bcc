"""One linear layer on each frame's embedding: what the encoder already separates."""

from __future__ import annotations

from torch import Tensor, nn

from finetune.heads import AbstractHead
from pretrain.components import ShareBelow1


class Linear(AbstractHead):
    """One linear layer.

    Args:
        dropout: Share of the embedding set to 0 while fitting.
    """

    def __init__(self, dim: int, classes: list[int], *, dropout: ShareBelow1 = 0.0) -> None:
        super().__init__(dim)
        self.drop = nn.Dropout(dropout)
        self.out = nn.ModuleList(nn.Linear(dim, number) for number in classes)

    def trunk(self, z_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        """The embedding itself."""
        out: Tensor = self.drop(z_BTD)
        return out
