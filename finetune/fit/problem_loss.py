"""The loss of one problem over a batch: class frequencies, soft labels, unlabelled frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from finetune.fit.losses import AbstractLoss, build_loss
from finetune.labels.frame_labels import UNLABELLED, Reals
from finetune.labels.problems import Problem
from finetune.settings import Tuning
from pretrain.errors import BadInput


def blurred(target_BTC: Tensor, known_BTC: Tensor, *, reach: int) -> Tensor:
    """Targets as means over the known frames at most ``reach`` away: within that distance of a
    transition they lie between the classes.

    Args:
        target_BTC: 0 and 1.
        known_BTC: 1 where the frame is labelled, else 0; as wide as the target, or (B, T, 1).
        reach: Frames to either side.
    """

    def mean_around(x_BTC: Tensor) -> Tensor:
        # A mean over the whole width; the number of frames cancels out.
        return F.avg_pool1d(
            x_BTC.transpose(1, 2), 2 * reach + 1, stride=1, padding=reach
        ).transpose(1, 2)

    return mean_around(target_BTC * known_BTC) / mean_around(known_BTC).clamp(min=1e-6)


def class_counts(problem: Problem) -> tuple[Reals, Reals]:
    """Labelled training frames of each class, and those of all others: (C,) each."""
    own_C, other_C = np.zeros(len(problem.classes)), np.zeros(len(problem.classes))
    for labels in problem.train.values():
        if problem.overlapping:
            own_C += (labels == 1).sum(0)
            other_C += (labels == 0).sum(0)
        else:
            counts_C = np.bincount(labels[labels != UNLABELLED], minlength=len(own_C))
            own_C += counts_C
            other_C += counts_C.sum() - counts_C
    return own_C, other_C


def class_weights(problem: Problem, power: float) -> Tensor:
    """Weights of the loss: (share of a class) to the power -``power``, with a mean of 1 over
    labelled frames; 0 for a class never seen.

    Overlapping behaviours: the weight of a positive frame of each, (share of its negatives /
    positives) to the power.
    """
    own_C, other_C = class_counts(problem)
    if problem.overlapping:
        return torch.from_numpy(np.maximum(other_C / np.maximum(own_C, 1), 1e-6) ** power).float()
    share_C = own_C / np.maximum(own_C + other_C, 1)
    return balanced(share_C, power)


def balanced(share_C: Reals, power: float) -> Tensor:
    """Weights of exclusive classes from their shares, as of :func:`class_weights`."""
    weight_C = np.where(share_C > 0, np.maximum(share_C, 1e-9) ** -power, 0.0)
    return torch.from_numpy(weight_C / max((weight_C * share_C).sum(), 1e-9)).float()


def log_priors(problem: Problem) -> Tensor:
    """What logit adjustment adds (Menon et al. 2021): log share of each class; the log odds of
    overlapping behaviours.

    0 for a class that training never shows, or always: there is nothing to correct.
    """
    own_C, other_C = class_counts(problem)
    both_C = (own_C > 0) & (other_C > 0)
    odds_C = np.log(np.maximum(own_C, 1)) - np.log(
        np.maximum(other_C if problem.overlapping else own_C + other_C, 1)
    )
    return torch.from_numpy(np.where(both_C, odds_C, 0.0)).float()


@dataclass(frozen=True)
class ProblemLoss:
    """The loss of one problem, as the settings say."""

    overlapping: bool
    loss: AbstractLoss
    weight_C: Tensor
    shift_C: Tensor
    """Added to the logits while fitting, so that it need not be learned and rare classes are not
    passed over afterwards."""
    smoothing: float
    reach: int

    @classmethod
    def of(cls, problem: Problem, tuning: Tuning) -> ProblemLoss:
        """The loss of a problem, with the class frequencies of its training labels."""
        weight_C = class_weights(problem, tuning.class_weight)
        if tuning.class_weights:
            weight_C = torch.tensor(
                [float(tuning.class_weights.get(name, 1.0)) for name in problem.classes]
            )
        return cls(
            overlapping=problem.overlapping,
            loss=build_loss(tuning.loss),
            weight_C=weight_C,
            shift_C=tuning.logit_adjustment * log_priors(problem),
            smoothing=tuning.label_smoothing,
            reach=tuning.soft_boundaries,
        )

    def to(self, device: torch.device | str) -> ProblemLoss:
        """The same on another device."""
        return replace(self, weight_C=self.weight_C.to(device), shift_C=self.shift_C.to(device))

    def __call__(self, logits_BTC: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Sum over the labelled frames, and their number; a frame that is labelled for some of
        overlapping behaviours counts in part. Labels are (B, T) indices of ``classes``, or (B, T,
        C) of 0 and 1; UNLABELLED where nobody looked."""
        n_classes = logits_BTC.shape[-1]
        known_BTC = (labels != UNLABELLED).float()
        if self.overlapping:
            target_BTC = labels.clamp(min=0).float()
        else:
            known_BTC = known_BTC.unsqueeze(-1)
            target_BTC = F.one_hot(labels.clamp(min=0).long(), n_classes).float()
        if self.reach:
            target_BTC = blurred(target_BTC, known_BTC, reach=self.reach)
        even = 1 / (2 if self.overlapping else n_classes)
        target_BTC = target_BTC * (1 - self.smoothing) + self.smoothing * even
        logits_BTC = logits_BTC + self.shift_C
        if self.overlapping:
            each_BTC = self.loss.overlapping(logits_BTC, target_BTC, self.weight_C)
            return (each_BTC * known_BTC).sum() / n_classes, known_BTC.sum() / n_classes
        each_BT = self.loss.exclusive(logits_BTC, target_BTC, self.weight_C)
        return (each_BT * known_BTC[..., 0]).sum(), known_BTC.sum()


def refuse_loss(problems: Sequence[Problem], tuning: Tuning) -> None:
    """Refuses a loss that cannot be, and class weights that are for another task; a class that a
    store happens not to have may be among them.

    Raises:
        BadInput: If the loss is unknown, or none of the weighted classes is one of the problems'.
    """
    build_loss(tuning.loss)
    classes = sorted({name for problem in problems for name in problem.classes})
    if tuning.class_weights and not set(tuning.class_weights) & set(classes):
        raise BadInput(
            f"class_weights are for {', '.join(tuning.class_weights)}; the classes of this task "
            f"are: {', '.join(classes)}"
        )
