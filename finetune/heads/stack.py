"""Several heads together: the weighted mean of their probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from finetune.heads import (
    AbstractHead,
    LabelledVideo,
    build_head,
    logits_of_mean,
    many_are_labelled,
)
from pretrain.errors import BadInput


class Stack(AbstractHead):
    """The weighted mean of the probabilities of heads that are not fitted by gradient steps.

    Heads that are wrong in different ways are right together: trees and a linear model where labels
    are few, and recurrent networks with them where there are more.

    Args:
        members: ``name`` and settings of each head.
        weights: Of each; none: all alike.
        weights_for_many_labels: Of each where over an hour is labelled (20,000 frames that are
            read), in any problem; none: the same.
        cross_fitted: Whether weights are learned on videos held out instead
            (finetune/fit/member_weights.py), where there are two or more and the postprocessing has
            folds.
        hz: Frames a second that they read; a member's own setting comes first.
    """

    by_gradient = False

    def __init__(
        self,
        dim: int,
        classes: list[int],
        *,
        members: Sequence[Mapping[str, Any]] = ({"name": "boosted"}, {"name": "logistic"}),
        weights: Sequence[float] = (),
        weights_for_many_labels: Sequence[float] = (),
        cross_fitted: bool = False,
        hz: float = 5.0,
    ) -> None:
        super().__init__(dim)
        self.hz, self.cross_fitted = hz, cross_fitted
        self.weights = shares(weights, len(members))
        """Of each member; their sum is 1."""
        self._for_many_labels = (
            shares(weights_for_many_labels, len(members)) if len(weights_for_many_labels) else None
        )
        if cross_fitted and self._for_many_labels:
            raise BadInput(
                "head: stack: cross_fitted learns the weights, weights_for_many_labels gives "
                "them: choose one"
            )
        heads = [build_head({"hz": hz, **member}, dim, classes) for member in members]
        for head, member in zip(heads, members, strict=True):
            if head.by_gradient or head.hz != hz:
                raise BadInput(
                    f"head: stack: {member.get('name')} is fitted by gradient steps or reads "
                    f"{head.hz} frames a second, not {hz:g}: it cannot be a member"
                )
        self.members = nn.ModuleList(heads)
        self.context = max(head.context for head in heads)
        self.differentiable = all(head.differentiable for head in heads)
        self.out = nn.ModuleList()
        self.overlapping_P: Tensor
        self.register_buffer("overlapping_P", torch.zeros(len(classes), dtype=torch.bool))

    @property
    def heads(self) -> list[AbstractHead]:
        """The members."""
        return [head for head in self.members if isinstance(head, AbstractHead)]

    def reads(self, fps: float) -> None:
        """Says at which frame rate the recordings are."""
        super().reads(fps)
        for head in self.heads:
            head.reads(fps)

    def is_given(self, stretch: tuple[int, int] | None) -> None:
        """Says which part of a recording comes next."""
        for head in self.heads:
            head.is_given(stretch)

    def make_traceable(self) -> None:
        """Every member."""
        for head in self.heads:
            head.make_traceable()

    def trunk(self, z_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        """The embedding: each member has a trunk of its own."""
        return z_BTD

    def forward(
        self, z_BTD: Tensor, valid_BT: Tensor, problem_B: Tensor | None = None
    ) -> list[Tensor]:
        """Logits of the mean probabilities, (B, T, C) for each problem."""
        each = [head(z_BTD, valid_BT) for head in self.heads]
        return [
            logits_of_mean(members, self.weights, self.overlapping_P[p])
            for p, members in enumerate(zip(*each, strict=True))
        ]

    def fit_videos(
        self, problem: int, videos: list[LabelledVideo], *, overlapping: bool, seed: int
    ) -> None:
        """Fits every member."""
        self.overlapping_P[problem] = overlapping
        if self._for_many_labels and many_are_labelled(videos):
            self.weights = self._for_many_labels
        for head in self.heads:
            head.fit_videos(problem, videos, overlapping=overlapping, seed=seed)


def shares(weights: Sequence[float], members: int) -> list[float]:
    """Weights of so many members that sum to 1; none: all alike.

    Raises:
        BadInput: If they are not one for each, or cannot be shares.
    """
    each = list(weights) or [1.0] * members
    if len(each) != members or not members or min(each) < 0 or not sum(each) > 0:
        raise BadInput(
            f"head: stack: weights are {each} for {members} members; give one for each, not "
            "negative and not all 0"
        )
    return [one / sum(each) for one in each]
