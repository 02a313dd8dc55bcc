"""Losses of heads, for exclusive classes and for overlapping behaviours. Each is one small
function; ``Loss`` puts them together.

Targets are shares of the classes, ``target_NC``: 0 and 1, or between them where labels are
smoothed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from finetune.labels.frame_labels import UNLABELLED, Reals
from finetune.labels.problems import Problem
from finetune.settings import Tuning
from pretrain.errors import BadInput


def cross_entropy(logits_NC: Tensor, target_NC: Tensor, weight_C: Tensor) -> Tensor:
    """(N,): the cross entropy of each frame, every class's share of it times its weight."""
    return -(weight_C * target_NC * logits_NC.log_softmax(-1)).sum(-1)


def focal(logits_NC: Tensor, target_NC: Tensor, weight_C: Tensor, *, gamma: float) -> Tensor:
    """(N,): cross entropy times (1 - probability of the class) to the power gamma: easy frames
    count less (Lin et al. 2017)."""
    log_p_NC = logits_NC.log_softmax(-1)
    return -(
        weight_C * target_NC * (-torch.expm1(log_p_NC)).clamp(min=1e-6) ** gamma * log_p_NC
    ).sum(-1)


def binary_cross_entropy(logits_NC: Tensor, target_NC: Tensor, weight_C: Tensor) -> Tensor:
    """(N, C): the cross entropy of each behaviour by itself; its positive frames have the weight,
    its negative ones 1."""
    return -(
        weight_C * target_NC * F.logsigmoid(logits_NC) + (1 - target_NC) * F.logsigmoid(-logits_NC)
    )


def binary_focal(logits_NC: Tensor, target_NC: Tensor, weight_C: Tensor, *, gamma: float) -> Tensor:
    """(N, C): :func:`binary_cross_entropy`, each side times the probability of the other side to
    the power gamma."""
    yes_NC, no_NC = F.logsigmoid(logits_NC), F.logsigmoid(-logits_NC)
    positive_NC = weight_C * target_NC * no_NC.exp().clamp(min=1e-6) ** gamma * yes_NC
    return -(positive_NC + (1 - target_NC) * yes_NC.exp().clamp(min=1e-6) ** gamma * no_NC)


def blurred(target_BTC: Tensor, known_BTC: Tensor, *, reach: int) -> Tensor:
    """Targets as means over the known frames at most ``reach`` away: within that distance of a
    transition they lie between the classes.

    Args:
        target_BTC: 0 and 1.
        known_BTC: 1 where the frame is labelled, else 0; as wide as the target, or (B, T, 1).
        reach: Frames to either side.
    """

    def around(x_BTC: Tensor) -> Tensor:
        # A mean over the whole width; the number of frames cancels out.
        return F.avg_pool1d(
            x_BTC.transpose(1, 2), 2 * reach + 1, stride=1, padding=reach
        ).transpose(1, 2)

    return around(target_BTC * known_BTC) / around(known_BTC).clamp(min=1e-6)


def class_counts(problem: Problem) -> tuple[Reals, Reals]:
    """Labelled training frames of each class, and those of all others: (C,) each."""
    held, other = np.zeros(len(problem.classes)), np.zeros(len(problem.classes))
    for labels in problem.train.values():
        if problem.overlapping:
            held += (labels == 1).sum(0)
            other += (labels == 0).sum(0)
        else:
            counts = np.bincount(labels[labels != UNLABELLED], minlength=len(held))
            held += counts
            other += counts.sum() - counts
    return held, other


def class_weights(problem: Problem, power: float) -> Tensor:
    """Weights of the loss: (share of a class) to the power -``power``, with a mean of 1 over
    labelled frames; 0 for a class never seen.

    Overlapping behaviours: the weight of a positive frame of each, (share of its negatives /
    positives) to the power.
    """
    held, other = class_counts(problem)
    if problem.overlapping:
        return torch.from_numpy(np.maximum(other / np.maximum(held, 1), 1e-6) ** power).float()
    share = held / np.maximum(held + other, 1)
    weight = np.where(share > 0, np.maximum(share, 1e-9) ** -power, 0.0)
    return torch.from_numpy(weight / max((weight * share).sum(), 1e-9)).float()


def log_priors(problem: Problem) -> Tensor:
    """What logit adjustment adds (Menon et al. 2021): log share of each class; the log odds of
    overlapping behaviours.

    0 for a class that training never shows, or always: there is nothing to correct.
    """
    held, other = class_counts(problem)
    both = (held > 0) & (other > 0)
    odds = np.log(np.maximum(held, 1)) - np.log(
        np.maximum(other if problem.overlapping else held + other, 1)
    )
    return torch.from_numpy(np.where(both, odds, 0.0)).float()


@dataclass(frozen=True)
class Loss:
    """The loss of one problem, as the settings say."""

    overlapping: bool
    weight_C: Tensor
    shift_C: Tensor
    """Added to the logits while fitting, so that it need not be learned and rare classes are not
    passed over afterwards."""
    gamma: float
    smoothing: float
    reach: int

    @classmethod
    def of(cls, problem: Problem, tuning: Tuning) -> Loss:
        """The loss of a problem, with the class frequencies of its training labels."""
        weight_C = class_weights(problem, tuning.class_weight)
        if tuning.class_weights:
            weight_C = torch.tensor(
                [float(tuning.class_weights.get(name, 1.0)) for name in problem.classes]
            )
        return cls(
            overlapping=problem.overlapping,
            weight_C=weight_C,
            shift_C=tuning.logit_adjustment * log_priors(problem),
            gamma=tuning.focal_gamma if tuning.loss == "focal" else 0.0,
            smoothing=tuning.label_smoothing,
            reach=tuning.soft_boundaries,
        )

    def to(self, device: torch.device | str) -> Loss:
        """The same elsewhere."""
        return replace(self, weight_C=self.weight_C.to(device), shift_C=self.shift_C.to(device))

    def __call__(self, logits_BTC: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Sum over the labelled frames, and their number.

        Args:
            logits_BTC: The head's.
            labels: (B, T) places in ``classes``, or (B, T, C) of 0 and 1; UNLABELLED where nobody
                looked.
        """
        number = logits_BTC.shape[-1]
        known = labels != UNLABELLED
        if self.overlapping:
            target_BTC, known_BTC = labels.clamp(min=0).float(), known.float()
        else:
            target_BTC, known_BTC = (
                F.one_hot(labels.clamp(min=0).long(), number).float(),
                known.float().unsqueeze(-1),
            )
        if self.reach:
            target_BTC = blurred(target_BTC, known_BTC, reach=self.reach)
        target_BTC = target_BTC * (1 - self.smoothing) + self.smoothing / (
            2 if self.overlapping else number
        )
        logits_BTC = logits_BTC + self.shift_C
        if self.overlapping:
            each_BTC = (
                binary_focal(logits_BTC, target_BTC, self.weight_C, gamma=self.gamma)
                if self.gamma
                else binary_cross_entropy(logits_BTC, target_BTC, self.weight_C)
            )
            return (each_BTC * known_BTC).sum() / number, known_BTC[..., 0].sum()
        each_BT = (
            focal(logits_BTC, target_BTC, self.weight_C, gamma=self.gamma)
            if self.gamma
            else cross_entropy(logits_BTC, target_BTC, self.weight_C)
        )
        return (each_BT * known_BTC[..., 0]).sum(), known_BTC.sum()


def refuse_weights(problems: Sequence[Problem], tuning: Tuning) -> None:
    """Refuses class weights that are for another task; a class that a store happens not to have may
    be among them.

    Raises:
        BadInput: If none of the named classes is one of the problems'.
    """
    classes = sorted({name for problem in problems for name in problem.classes})
    if tuning.class_weights and not set(tuning.class_weights) & set(classes):
        named = ", ".join(tuning.class_weights)
        raise BadInput(
            f"class_weights are for {named}; the classes of this task are: {', '.join(classes)}"
        )
