"""Segments of unlabelled video, each to be labelled at one go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from finetune.inference.model import LoadedModel
from finetune.inference.recordings import Recording
from finetune.labels.frame_labels import UNLABELLED, Ints, Reals, looked_at
from finetune.labels.problems import Labelled, Problem
from finetune.metrics.bouts import bouts


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A part of one video that is labelled at one go."""

    video: str
    start: int
    stop: int
    """Frame after the last."""
    guess: str
    """Behaviour with the highest mean probability."""
    rival: str
    """The one after it; for overlapping behaviours the least certain."""
    mean_probabilities: tuple[float, float]
    """Of the two."""
    uncertainty: float
    """0 to 1: one minus the margin, the mean over its frames."""
    z_D: npt.NDArray[np.float32]
    """Mean embedding."""

    @property
    def why(self) -> str:
        """What makes it uncertain, in words."""
        first, second = self.mean_probabilities
        return f"{self.guess} {first:.2f}, {self.rival} {second:.2f}"


def uncertainty(probabilities_TC: Reals, *, overlapping: bool) -> Reals:
    """(T,): one minus the margin between the two likeliest classes; of overlapping behaviours that
    of the least certain one."""
    if overlapping or probabilities_TC.shape[1] == 1:
        return np.asarray(1 - np.abs(2 * probabilities_TC - 1).min(axis=1))
    two = np.partition(probabilities_TC, -2, axis=1)[:, -2:]
    return np.asarray(1 - (two[:, 1] - two[:, 0]))


def split_into_segments(
    video: str,
    problem: Problem,
    labels: Ints,
    probabilities_TC: Reals,
    z_TD: npt.NDArray[np.float32],
    *,
    shortest: int,
    longest: int,
    unlabelled_T: npt.NDArray[np.bool_] | None = None,
) -> list[Segment]:
    """Splits one video into predicted bouts; bouts shorter than ``shortest`` are merged with what
    follows, those longer than ``longest`` divided evenly (frames). Only frames of ``unlabelled_T``
    are split, where it is given; ``labels`` are the decisions, (T,) classes or (T, C) of 0 and
    1."""
    kinds = labels
    if labels.ndim == 2:
        kinds = np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)
    if unlabelled_T is not None:
        kinds = np.where(unlabelled_T, kinds, UNLABELLED)
    uncertainty_T = uncertainty(probabilities_TC, overlapping=problem.overlapping)
    segments = []
    for start, stop in _divided(_merged(bouts(kinds)[:, :2].tolist(), shortest), longest):
        mean_C = probabilities_TC[start:stop].mean(axis=0)
        order = np.argsort(-mean_C, kind="stable")
        first, second = int(order[0]), int(order[min(1, len(order) - 1)])
        if problem.overlapping:
            second = int(np.abs(2 * mean_C - 1).argmin())
        segments.append(
            Segment(
                video=video,
                start=start,
                stop=stop,
                guess=problem.classes[first],
                rival=problem.classes[second],
                mean_probabilities=(float(mean_C[first]), float(mean_C[second])),
                uncertainty=float(uncertainty_T[start:stop].mean()),
                z_D=z_TD[start:stop].mean(axis=0),
            )
        )
    return segments


def _merged(runs: Sequence[Sequence[int]], shortest: int) -> list[tuple[int, int]]:
    """Short runs with what follows, and a short last one with what went before; a gap between two
    keeps them apart."""
    forward: list[tuple[int, int]] = []
    for start, stop in runs:
        if forward and forward[-1][1] == start and start - forward[-1][0] < shortest:
            forward[-1] = (forward[-1][0], stop)
        else:
            forward.append((start, stop))
    merged: list[tuple[int, int]] = []
    for start, stop in forward:
        if merged and merged[-1][1] == start and stop - start < shortest:
            merged[-1] = (merged[-1][0], stop)
        else:
            merged.append((start, stop))
    return merged


def _divided(runs: Sequence[tuple[int, int]], longest: int) -> list[tuple[int, int]]:
    divided: list[tuple[int, int]] = []
    for start, stop in runs:
        pieces = -(-(stop - start) // longest)
        divided += pairwise(np.linspace(start, stop, pieces + 1).round().astype(int).tolist())
    return divided


def labelled_embeddings(labels: Ints, z_TD: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(N, D): the mean embedding of every labelled bout of one video."""
    means = [z_TD[start:stop].mean(axis=0) for start, stop, _ in bouts(labels)]
    return np.stack(means) if means else np.empty((0, z_TD.shape[1]), np.float32)


def segments_of(
    model: LoadedModel,
    opened: Sequence[Recording],
    labels: Labelled,
    *,
    shortest: int,
    longest: int,
) -> tuple[list[Segment], npt.NDArray[np.float32], dict[str, int]]:
    """Segments of recordings that have no labels and that a pose supports.

    Args:
        model: Of one problem.
        opened: The recordings.
        labels: What is labelled of them, at their own rates.
        shortest: As of :func:`split_into_segments`.
        longest: As of :func:`split_into_segments`.

    Returns:
        The segments, the (N, D) embeddings of what is labelled, and the frames of each recording.
    """
    fps = model.schema.fps
    segments: list[Segment] = []
    labelled, lengths = [], {}
    for recording in tqdm(opened, desc="predicting", unit="video"):
        arrays, length = recording.read()
        lengths[recording.name] = length
        parts: list[Tensor] = []
        (prediction,) = model.predict(arrays, on_embeddings=parts.append)
        z_TD = torch.cat(parts).repeat_interleave(model.stride, 0)[: len(prediction.labels)].numpy()
        supported = looked_at(prediction.labels)
        known = None
        if recording.name in labels:
            index_T = np.rint(np.arange(len(z_TD)) * (recording.fps / fps)).astype(np.int64)
            known = labels[recording.name][np.minimum(index_T, length - 1)]
            labelled.append(labelled_embeddings(known, z_TD))
        segments += split_into_segments(
            recording.name,
            model.problems[0],
            prediction.labels,
            prediction.probabilities_TC,
            z_TD,
            unlabelled_T=supported if known is None else supported & ~looked_at(known),
            shortest=shortest,
            longest=longest,
        )
    dim = len(segments[0].z_D) if segments else 0
    return segments, np.concatenate([np.empty((0, dim), np.float32), *labelled]), lengths
