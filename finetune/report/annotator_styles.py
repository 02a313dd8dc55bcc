"""What a head learned of annotators: whose style is like whose, as numbers and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from finetune.fit.fit import Model
from finetune.fit.frames import Frames
from finetune.heads import AbstractHead
from finetune.labels.frame_labels import Reals, decide
from finetune.labels.problems import Problem
from finetune.report.figures import draw_matrix

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@torch.no_grad()
def similarity(head: AbstractHead) -> Reals | None:
    """Cosine between what was learned of each two annotators, (P, P).

    Of differences from their mean: all annotators have most in common, and that is in the rest of
    the head. Unrelated styles therefore lie a little below 0, on average at -1 / (P - 1).

    Returns:
        None where annotators have outputs of their own, of which nothing of the kind can be said.
    """
    if head.annotators is None:
        return None
    vector_PA = head.annotators.vectors()
    unit_PA = F.normalize(vector_PA - vector_PA[head.annotators.known_P].mean(0), dim=1)
    return np.asarray((unit_PA @ unit_PA.T).numpy(), np.float64)


def share_alike(
    model: Model, frames: Frames, problems: Sequence[Problem], videos: Sequence[str]
) -> Reals:
    """Share of frames that the model labels alike in the name of each two annotators, (P, P).

    Args:
        model: Fitted.
        frames: Of the videos.
        problems: One an annotator, of the same classes.
        videos: All frames of these are labelled in the name of every annotator, whoever labelled
            them.
    """
    alike_PP = np.zeros((len(problems), len(problems)))
    count = 0
    for name in videos:
        logits = [x.numpy() for x in model.logits(frames, name)]
        if problems[0].overlapping:
            decided = [decide(probabilities_TC=x > 0, overlapping=True) for x in logits]
        else:
            decided = [decide(probabilities_TC=x)[:, None] for x in logits]
        count += len(decided[0])
        alike_PP += [[float((a == b).mean(1).sum()) for b in decided] for a in decided]
    assert count, "no video"
    return alike_PP / count


def annotators_figure(model: Model, frames: Frames, problems: Sequence[Problem]) -> Figure:
    """What was learned of annotators, and how alike the model labels the test videos in their
    names.

    Args:
        model: Fitted on the problems.
        frames: Of their test videos.
        problems: One an annotator, of the same classes.
    """
    from matplotlib.figure import Figure

    videos = sorted({video for problem in problems for video in problem.test})
    alike_PP = share_alike(model, frames, problems, videos)
    panels = [("frames labelled alike", alike_PP, 0.0, "Blues")]
    learned = similarity(model.head)
    if learned is not None:
        panels.insert(0, ("cosine of what was learned of them", learned, -1.0, "RdBu"))
    names = [problem.annotator or problem.name for problem in problems]
    figure = Figure(figsize=(4.2 * len(panels), 3.9), layout="constrained")
    for number, (title, value_PP, lowest, colours) in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), number)
        draw_matrix(axes, value_PP, names, title=title, colours=colours, lowest=lowest)
        axes.set_xlabel("annotator")
        axes.set_ylabel("annotator")
    return figure
