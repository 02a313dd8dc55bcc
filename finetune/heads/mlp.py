"""One hidden layer on each frame's embedding: combinations that one linear layer cannot read."""

from __future__ import annotations

from torch import Tensor, nn

from finetune.heads import AbstractHead
from pretrain.components import ShareBelow1


class Mlp(AbstractHead):
    """One hidden layer, then a linear layer.

    Args:
        width: Units of the hidden layer.
        dropout: Share of the units set to 0 while fitting.
    """

    def __init__(
        self, dim: int, classes: list[int], *, width: int = 64, dropout: ShareBelow1 = 0.3
    ) -> None:
        super().__init__(dim)
        self.enter = nn.Linear(dim, width)
        self.drop = nn.Dropout(dropout)
        self.out = nn.ModuleList(nn.Linear(width, number) for number in classes)

    def trunk(self, z_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        """Hidden units of each frame."""
        out: Tensor = self.drop(nn.functional.gelu(self.enter(z_BTD)))
        return out
