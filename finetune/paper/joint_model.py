"""One network for several label sets, after B. Wild's MABe 2021 entry: encoder, a shared residual
layer, one linear layer for each label set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finetune.fit.fit import Probabilities, score_problems
from finetune.labels.frame_labels import UNLABELLED
from finetune.labels.problems import Labelled, Problem
from pretrain.components import Count, Positive, ShareBelow1, TwoOrMore, Whole, field_errors
from pretrain.config import Precision
from pretrain.data.schema import Schema
from pretrain.encoders import Embedder
from pretrain.errors import refuse
from pretrain.transforms.landmarks import Landmarks

PAPER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class JointSettings:
    """How one model for all tasks is trained; ``finetune/paper/joint.yaml`` holds the entry's
    values."""

    features: Mapping[str, Any]
    """Settings of pretrain/transforms/features.py."""
    encoder: Mapping[str, Any]
    """``name`` (a file in pretrain/encoders/) and its settings."""
    cpc: Mapping[str, Any]
    """Settings of pretrain/objectives/cpc.py, one view."""
    window: TwoOrMore = 512
    """Frames of a window."""
    labelled: Whole = 8
    """Windows of a batch from any labelled video, by their lengths."""
    each_layer: Count = 1
    """Windows of a batch from the videos of each output layer."""
    unlabelled: Whole = 16
    """Windows of a batch from videos without labels."""
    advance: Count = 256
    """Frames that a window counts for when the steps of an epoch are counted."""
    epochs: Count = 40
    lr: Positive = 0.001
    """Of AdamW, with cosine decay to 0."""
    weight_decay: float = 1e-5
    class_weight: float = 1.0
    """Power of the inverse class frequency that weights cross-entropy: 0 = none, 1 = balanced."""
    smoothing: ShareBelow1 = 0.2
    """Share of each target that is the class frequencies (label smoothing)."""
    task_weight: Mapping[str, float] = field(default_factory=dict)
    """Label set to the weight of its cross-entropy; others have 1."""
    annotator_width: Count = 6
    """Size of an annotator's embedding."""
    elapsed: Positive = 1500.0
    """The head reads tanh(frames since the start / elapsed)."""
    remaining: Positive = 2300.0
    """The same for the frames to the end."""
    wall: Positive = 465.0
    """The same for each animal's distance to the nearest wall (px)."""
    members: Count = 32
    """Networks whose probabilities are averaged, each fitted on its own split."""
    validation: float = 0.15
    """Share of the labelled training videos that choose a network's epoch."""
    precision: Precision = "auto"
    """Of matrix products; weights, features and losses are float32."""

    def __post_init__(self) -> None:
        errors = field_errors(self)
        if not 0 < self.validation < 1:
            errors.append(f"validation is {self.validation}; it must lie between 0 and 1")
        if not isinstance(self.encoder.get("name"), str):
            errors.append("encoder needs a `name`")
        refuse(errors, about="the settings of the joint model")


class JointModel(nn.Module):
    """Encoder, shared layer and output layers.

    Args:
        classes: C of each output layer.
        annotator_width: Size of an annotator's embedding; at least as large as their number, it
            starts one-hot.
    """

    def __init__(
        self,
        embedder: Embedder,
        *,
        classes: Sequence[int],
        annotators: int,
        annotator_width: int,
        head_inputs: int,
    ) -> None:
        super().__init__()
        self.embedder = embedder
        width = embedder.dim + head_inputs
        self.annotators = nn.Parameter(torch.eye(annotators, annotator_width))
        self.mix = nn.Sequential(
            nn.Linear(width + annotator_width, width),
            nn.LeakyReLU(),
            nn.Linear(width, width),
            nn.LeakyReLU(),
        )
        self.out = nn.ModuleList(nn.Linear(width, number) for number in classes)
        for layer in (*self.mix, *self.out):
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)

    def label(self, z_BTD: Tensor, extra_BTE: Tensor, annotator_B: Tensor, layer: int) -> Tensor:
        """Logits (B, T, C) of one output layer, in the style of an annotator."""
        h_BTD = torch.cat([z_BTD, extra_BTE], -1)
        style_BTA = self.annotators[annotator_B].unsqueeze(1).expand(-1, z_BTD.shape[1], -1)
        out: Tensor = self.out[layer](h_BTD + self.mix(torch.cat([h_BTD, style_BTA], -1)))
        return out


def head_inputs(position_TMKX: Tensor, settings: JointSettings, schema: Schema) -> Tensor:
    """What the head reads of a video's frames (px, NaN where missing) in addition to embeddings:
    time since the start, time to the end, and for every animal the hypotenuse of the midpoint
    between neck and tail base's distances to the nearer side wall and to the nearer of top and
    bottom.

    Returns:
        (T, 2 + M) in 0…1; 0 where an animal is missing.
    """
    frames = torch.arange(len(position_TMKX), dtype=torch.float32)
    points = Landmarks.of(schema)
    size_X = torch.tensor(schema.image_px)
    middle_TMX = position_TMKX[..., [points.neck, points.tail_base], : len(size_X)].mean(2)
    distance_TM = torch.minimum(middle_TMX, size_X - middle_TMX).clamp(min=0).norm(dim=-1)
    columns = [
        frames / settings.elapsed,
        (len(frames) - frames) / settings.remaining,
        *(distance_TM / settings.wall).nan_to_num(0).unbind(1),
    ]
    return torch.stack(columns, 1).tanh()


def smoothed_cross_entropy(
    logits_NC: Tensor, labels_N: Tensor, *, prior_C: Tensor, weight_C: Tensor, smoothing: float
) -> Tensor:
    """Cross-entropy against labels smoothed towards the class frequencies, with class weights; the
    mean over labelled frames, 0 where there are none."""
    known = labels_N != UNLABELLED
    logits_NC, labels_N = logits_NC[known], labels_N[known]
    target_NC = F.one_hot(labels_N, len(prior_C)) * (1 - smoothing) + prior_C * smoothing
    return -(target_NC * weight_C * logits_NC.log_softmax(-1)).sum() / max(len(labels_N), 1)


def validation_f1(
    problems: Sequence[Problem], predicted: Sequence[Probabilities], truth: Sequence[Labelled]
) -> float:
    """What chooses an output layer's epoch, as in the entry: the mean F1 of all classes, the rest
    class included, where there are several behaviours; else the behaviour's F1. 0 where nothing is
    labelled."""
    f1 = []
    for problem, probabilities, labels in zip(problems, predicted, truth, strict=True):
        if labels:
            scores = score_problems([problem], [probabilities], [labels])
            counted = scores.classes if len(scores.classes) > 2 else scores.counted
            f1 += [scores.per_class[name].f1 for name in counted]
    known = [value for value in f1 if not math.isnan(value)]
    return float(np.mean(known)) if known else 0.0
