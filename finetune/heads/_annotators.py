"""Annotators that share one head: a learned style for each."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Annotators(nn.Module):
    """A vector for each annotator, which scales and shifts the embedding (FiLM, Perez et al. 2018).

    All vectors start at 0: whatever distinguishes annotators was learned, and weight decay pulls
    them together. An annotator without training labels gets the mean of those who have some.

    Args:
        number: P, annotators.
        dim: D.
        width: A, numbers in an annotator's vector.
    """

    known_P: Tensor

    def __init__(self, number: int, dim: int, *, width: int = 8) -> None:
        super().__init__()
        self.vector_PA = nn.Parameter(torch.zeros(number, width))
        self.film = nn.Linear(width, 2 * dim, bias=False)
        nn.init.normal_(self.film.weight, std=width**-0.5)
        self.register_buffer("known_P", torch.ones(number, dtype=torch.bool))

    def __len__(self) -> int:
        """P."""
        return len(self.vector_PA)

    def vectors(self) -> Tensor:
        """(P, A); the mean for those without training labels."""
        mean_A = (self.vector_PA * self.known_P[:, None]).sum(0) / self.known_P.sum().clamp(min=1)
        return torch.where(self.known_P[:, None], self.vector_PA, mean_A)

    def forward(self, z_BTD: Tensor, problem_B: Tensor) -> Tensor:
        """Standardised embeddings as the annotator of each window would have them, (B, T, D)."""
        scale_BD, shift_BD = self.film(self.vectors()[problem_B]).chunk(2, -1)
        out: Tensor = z_BTD * (1 + scale_BD[:, None]) + shift_BD[:, None]
        return out
