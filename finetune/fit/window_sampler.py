"""Windows to fit on: drawn around labelled frames, never across the end of a video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from finetune.fit.frames import Frames
from finetune.labels.frame_labels import UNLABELLED
from finetune.labels.problems import Problem
from pretrain.data.windows import Pose
from pretrain.encoders import Embedder
from pretrain.train.embed_video import as_pose

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Windows of one step."""

    stretch: dict[str, Tensor]
    """As :meth:`Frames.windows` gives it."""
    valid_BT: Tensor
    """False beyond the end of a video."""
    problem_B: Tensor
    """The problem that each window was drawn for."""
    labels: list[tuple[int, Tensor, Tensor]]
    """Problem, its rows, their labels; UNLABELLED where nobody looked and beyond the end of a
    video."""

    def to(self, device: torch.device | str) -> Batch:
        """The same elsewhere."""
        stretch = {name: held.to(device) for name, held in self.stretch.items()}
        labels = [(p, rows.to(device), held.to(device)) for p, rows, held in self.labels]
        return Batch(stretch, self.valid_BT.to(device), self.problem_B.to(device), labels)

    def embeddings(self, embedder: Embedder | None) -> Tensor:
        """(B, T, D): those of the material, or those that an encoder makes of its poses."""
        return (
            self.stretch["z"] if embedder is None else embedder(self._pose(), self.valid_BT).float()
        )

    def _pose(self) -> Pose:
        pose = as_pose(self.stretch)
        beyond_BTMK = (~self.valid_BT)[:, :, None, None].expand(pose.confidence_BTMK.shape)
        return pose.hidden(beyond_BTMK)


class WindowDraw:
    """Draws windows around labelled frames of the training videos.

    A problem is drawn as often as the square root of its labelled frames says. Within it every
    labelled frame is as likely as any other to be the one that a window is drawn around, or, as
    ``balance`` goes from 0 to 1, every class is.

    Args:
        material: Frames.
        problems: Their ``train`` labels are used, nothing else of them. One without any is never
            drawn.
        window: Frames of a window.
        balance: A class of n frames is drawn as often as n to the power 1 - ``balance`` says.
            Overlapping behaviours: each behaviour is such a class, and so are the frames without
            any.
    """

    def __init__(
        self, material: Frames, problems: Sequence[Problem], window: int, *, balance: float = 0.0
    ) -> None:
        self._material, self._window = material, window
        self._frames = [_labelled(material, problem) for problem in problems]
        sizes = np.array([len(frames) for frames, _, _ in self._frames], float)
        assert sizes.any(), "no problem has a labelled training frame"
        self._share = sizes**0.5 / (sizes**0.5).sum()
        self._labels = [_laid_out(material, problem) for problem in problems]
        self._classes = [
            _by_class(laid[frames - origin], len(problem.classes), balance)
            if balance and len(frames)
            else None
            for problem, (origin, laid), (frames, _, _) in zip(
                problems, self._labels, self._frames, strict=True
            )
        ]

    def draw(self, draw: np.random.Generator, number: int) -> Batch:
        """So many windows; they are sorted by problem."""
        whose = np.sort(draw.choice(len(self._frames), number, p=self._share))
        begin, low, high = (
            np.empty(number, np.int64),
            np.empty(number, np.int64),
            np.empty(number, np.int64),
        )
        for p in np.unique(whose):
            frames, first, end = self._frames[p]
            rows = whose == p
            pick = self._pick(p, draw, int(rows.sum()))
            begin[rows] = frames[pick] - draw.integers(self._window, size=len(pick))
            low[rows], high[rows] = first[pick], end[pick]
        # A window hangs over the end of its video only where the video is shorter than the window.
        begin = np.maximum(np.minimum(begin, high - self._window), low)
        places = begin[:, None] + np.arange(self._window)
        valid = places < high[:, None]
        safe = np.minimum(places, high[:, None] - 1)
        labels = []
        for p in np.unique(whose):
            rows = np.flatnonzero(whose == p)
            origin, laid = self._labels[p]
            held = laid[safe[rows] - origin]
            held[~valid[rows]] = UNLABELLED
            labels.append((int(p), torch.from_numpy(rows), torch.from_numpy(held)))
        return Batch(
            self._material.windows(begin, self._window),
            torch.from_numpy(valid),
            torch.from_numpy(whose),
            labels,
        )

    def _pick(self, problem: int, draw: np.random.Generator, number: int) -> Ints:
        """Places among the labelled frames of a problem."""
        classes = self._classes[problem]
        if classes is None:
            return draw.integers(len(self._frames[problem][0]), size=number)
        places, share = classes
        return np.array([draw.choice(places[c]) for c in draw.choice(len(places), number, p=share)])


def _labelled(material: Frames, problem: Problem) -> tuple[Ints, Ints, Ints]:
    """Labelled training frames as places in the arrays, with first and end of their video."""
    frames, first, end = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for name, labels in problem.train.items():
        begin, stop = material.place[name]
        known = np.flatnonzero((labels if labels.ndim == 1 else labels[:, 0]) != UNLABELLED)
        frames.append(begin + known)
        first.append(np.full(len(known), begin))
        end.append(np.full(len(known), stop))
    return np.concatenate(frames), np.concatenate(first), np.concatenate(end)


def _laid_out(material: Frames, problem: Problem) -> tuple[int, npt.NDArray[np.int8]]:
    """Training labels at the places of their frames, from the first of them on, and which place
    that is."""
    held = [(*material.place[name], labels) for name, labels in problem.train.items()]
    origin = min((first for first, _, _ in held), default=0)
    total = max((end for _, end, _ in held), default=0) - origin
    laid = np.full(
        (total, len(problem.classes)) if problem.overlapping else (total,), UNLABELLED, np.int8
    )
    for first, end, labels in held:
        laid[first - origin : end - origin] = labels
    return origin, laid


def _by_class(
    labels: npt.NDArray[np.int8], number: int, balance: float
) -> tuple[list[Ints], npt.NDArray[np.float64]]:
    """For each class that occurs the places of its frames, and how often it is drawn."""
    if labels.ndim == 2:
        each = [labels[:, c] == 1 for c in range(number)] + [(labels != 1).all(1)]
    else:
        each = [labels == c for c in range(number)]
    places = [np.flatnonzero(held) for held in each if held.any()]
    share = np.array([len(held) for held in places], float) ** (1 - balance)
    return places, share / share.sum()
