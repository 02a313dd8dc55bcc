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


def agreement(
    model: Model, material: Frames, problems: Sequence[Problem], videos: Sequence[str]
) -> Reals:
    """Share of frames that the model labels alike in the name of each two annotators, (P, P).

    Args:
        model: Fitted.
        material: Frames of the videos.
        problems: One an annotator, of the same classes.
        videos: All frames of these are labelled in the name of every annotator, whoever labelled
            them.
    """
    alike = np.zeros((len(problems), len(problems)))
    frames = 0
    for name in videos:
        logits = [x.numpy() for x in model.logits(material, name)]
        if problems[0].overlapping:
            said = [decide(probabilities_TC=x > 0, overlapping=True) for x in logits]
        else:
            said = [decide(probabilities_TC=x)[:, None] for x in logits]
        frames += len(said[0])
        alike += [[float((one == other).mean(1).sum()) for other in said] for one in said]
    assert frames, "no video"
    return alike / frames


def annotators_figure(model: Model, material: Frames, problems: Sequence[Problem]) -> Figure:
    """What was learned of annotators, and how alike the model labels the test videos in their
    names.

    Args:
        model: Fitted on problems that are one an annotator, of the same classes.
        material: Frames of the test videos.
        problems: Those.
    """
    from matplotlib.figure import Figure

    videos = sorted({video for problem in problems for video in problem.test})
    panels = [("frames labelled alike", agreement(model, material, problems, videos), 0.0, "Blues")]
    learned = similarity(model.head)
    if learned is not None:
        panels.insert(0, ("cosine of what was learned of them", learned, -1.0, "RdBu"))
    names = [problem.annotator or problem.name for problem in problems]
    figure = Figure(figsize=(4.2 * len(panels), 3.9), layout="constrained")
    for place, (title, value_PP, low, colours) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), place + 1)
        axes.imshow(value_PP, cmap=colours, vmin=low, vmax=1)
        for (i, j), value in np.ndenumerate(value_PP):
            strong = abs(value) > 0.6
            axes.text(
                j,
                i,
                f"{value:.2f}",
                ha="center",
                va="center",
                color="white" if strong else "black",
                fontsize=8,
            )
        axes.set_xticks(range(len(names)), names, fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set_xlabel("annotator")
        axes.set_ylabel("annotator")
        axes.set_title(title, fontsize=9)
    return figure
