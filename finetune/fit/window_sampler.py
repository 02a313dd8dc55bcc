"""Windows to fit on: drawn around labelled frames, never across the end of a video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from finetune.fit.frames import Frames
from finetune.labels.frame_labels import UNLABELLED, looked_at
from finetune.labels.problems import Problem
from pretrain.data.windows import Pose
from pretrain.encoders import Embedder
from pretrain.train.embed_video import as_pose

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Windows of one step."""

    arrays: dict[str, Tensor]
    """As :meth:`Frames.windows` gives them."""
    valid_BT: Tensor
    """False beyond the end of a video."""
    problem_B: Tensor
    """The problem that each window was drawn for."""
    labels: list[tuple[int, Tensor, Tensor]]
    """Problem, its rows, their labels; UNLABELLED where nobody looked and beyond the end of a
    video."""

    def to(self, device: torch.device | str) -> Batch:
        """The same on another device."""
        return Batch(
            {name: values.to(device) for name, values in self.arrays.items()},
            self.valid_BT.to(device),
            self.problem_B.to(device),
            [(p, rows.to(device), labels.to(device)) for p, rows, labels in self.labels],
        )

    def embeddings(self, embedder: Embedder | None) -> Tensor:
        """(B, T, D): those of the frames, or those that an encoder makes of their poses."""
        if embedder is None:
            return self.arrays["z"]
        z_BTD: Tensor = embedder(self._pose(), self.valid_BT)
        return z_BTD.float()

    def _pose(self) -> Pose:
        pose = as_pose(self.arrays)
        beyond_BTMK = (~self.valid_BT)[:, :, None, None].expand(pose.confidence_BTMK.shape)
        return pose.hidden(beyond_BTMK)


class WindowSampler:
    """Draws windows around labelled frames of the training videos.

    A problem is drawn as often as the square root of its labelled frames says. Within it every
    labelled frame is as likely as any other to be the one that a window is drawn around, or, as
    ``balance`` goes from 0 to 1, every class is.

    Args:
        frames: Of the training videos.
        problems: Their ``train`` labels are used, nothing else of them. One without any is never
            drawn.
        window: Frames of a window.
        balance: A class of n frames is drawn as often as n to the power 1 - ``balance`` says.
            Overlapping behaviours: each behaviour is such a class, and so are the frames without
            any.
    """

    def __init__(
        self, frames: Frames, problems: Sequence[Problem], window: int, *, balance: float = 0.0
    ) -> None:
        self._frames, self._window = frames, window
        self._labelled = [_labelled(frames, problem) for problem in problems]
        sizes = np.array([len(index_N) for index_N, _, _ in self._labelled], float)
        assert sizes.any(), "no problem has a labelled training frame"
        self._share = sizes**0.5 / (sizes**0.5).sum()
        self._labels = [_laid_out(frames, problem) for problem in problems]
        self._classes = [
            _by_class(labels[index_N - origin], len(problem.classes), balance)
            if balance and len(index_N)
            else None
            for problem, (origin, labels), (index_N, _, _) in zip(
                problems, self._labels, self._labelled, strict=True
            )
        ]

    def draw(self, rng: np.random.Generator, number: int) -> Batch:
        """So many windows; they are sorted by problem."""
        problem_B = np.sort(rng.choice(len(self._labelled), number, p=self._share))
        begin_B, first_B, end_B = (np.empty(number, np.int64) for _ in range(3))
        for p in np.unique(problem_B):
            index_N, first_N, end_N = self._labelled[p]
            rows = problem_B == p
            pick = self._pick(p, rng, int(rows.sum()))
            begin_B[rows] = index_N[pick] - rng.integers(self._window, size=len(pick))
            first_B[rows], end_B[rows] = first_N[pick], end_N[pick]
        # A window hangs over the end of its video only where the video is shorter than the window.
        begin_B = np.maximum(np.minimum(begin_B, end_B - self._window), first_B)
        index_BT = begin_B[:, None] + np.arange(self._window)
        valid_BT = index_BT < end_B[:, None]
        index_BT = np.minimum(index_BT, end_B[:, None] - 1)
        labels = []
        for p in np.unique(problem_B):
            rows = np.flatnonzero(problem_B == p)
            origin, laid_out = self._labels[p]
            shown = laid_out[index_BT[rows] - origin]
            shown[~valid_BT[rows]] = UNLABELLED
            labels.append((int(p), torch.from_numpy(rows), torch.from_numpy(shown)))
        return Batch(
            self._frames.windows(begin_B, self._window),
            torch.from_numpy(valid_BT),
            torch.from_numpy(problem_B),
            labels,
        )

    def _pick(self, problem: int, rng: np.random.Generator, number: int) -> Ints:
        """Indices among the labelled frames of a problem."""
        classes = self._classes[problem]
        if classes is None:
            return rng.integers(len(self._labelled[problem][0]), size=number)
        index_of, share = classes
        classes_drawn = rng.choice(len(index_of), number, p=share)
        return np.array([rng.choice(index_of[c]) for c in classes_drawn])


def _labelled(frames: Frames, problem: Problem) -> tuple[Ints, Ints, Ints]:
    """Labelled training frames as indices of the arrays, with first and end of their video."""
    index, first, end = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for name, labels in problem.train.items():
        begin, stop = frames.spans[name]
        known = np.flatnonzero(looked_at(labels))
        index.append(begin + known)
        first.append(np.full(len(known), begin))
        end.append(np.full(len(known), stop))
    return np.concatenate(index), np.concatenate(first), np.concatenate(end)


def _laid_out(frames: Frames, problem: Problem) -> tuple[int, npt.NDArray[np.int8]]:
    """An index of the arrays, and the training labels of all frames from there on."""
    videos = [(*frames.spans[name], labels) for name, labels in problem.train.items()]
    origin = min((first for first, _, _ in videos), default=0)
    total = max((end for _, end, _ in videos), default=0) - origin
    shape = (total, len(problem.classes)) if problem.overlapping else (total,)
    laid_out = np.full(shape, UNLABELLED, np.int8)
    for first, end, labels in videos:
        laid_out[first - origin : end - origin] = labels
    return origin, laid_out


def _by_class(
    labels: npt.NDArray[np.int8], n_classes: int, balance: float
) -> tuple[list[Ints], npt.NDArray[np.float64]]:
    """For each class that occurs the indices of its frames, and how often it is drawn."""
    if labels.ndim == 2:
        shows = [labels[:, c] == 1 for c in range(n_classes)] + [(labels != 1).all(1)]
    else:
        shows = [labels == c for c in range(n_classes)]
    index_of = [np.flatnonzero(shown) for shown in shows if shown.any()]
    share = np.array([len(index) for index in index_of], float) ** (1 - balance)
    return index_of, share / share.sum()
