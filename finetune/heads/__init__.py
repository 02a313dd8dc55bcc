"""Heads: embeddings to class scores, one output for each problem of a task. One file each, found by
being here; its name is its name in a task file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from finetune.heads._annotators import Annotators
from pretrain.components import Count, build, find, misfits
from pretrain.errors import BadInput, error_if, refuse

APART, EMBEDDING = "apart", "embedding"
MOST_FRAMES = 20_000
"""That trees and linear models are fitted on: neighbours say nearly the same."""
MANY_FRAMES = 20_000
"""Labelled frames read, over an hour at 5 a second, from which on larger models pay."""
ANNOTATOR_SETTINGS = ("annotator", "annotator_width")


@dataclass(frozen=True)
class LabelledVideo:
    """A training video, as heads that are not fitted by gradient steps take it."""

    z_TD: Tensor
    """Embeddings as the encoder gives them, of the frames that the head reads."""
    shown_TC: Tensor
    """int8: 1 where the frame shows the class, 0 where it does not, UNLABELLED."""

    @property
    def looked_at(self) -> Tensor:
        """(T,) bool, on the CPU: frames labelled for at least one class."""
        return (self.shown_TC >= 0).any(-1)


def with_time(z_TD: Tensor, seconds: float, stretch: tuple[int, int] | None = None) -> Tensor:
    """Embeddings (T, D), and the seconds since the recording's beginning and until its end;
    ``seconds`` lie between two frames. ``stretch``: index of the first frame in the recording, and
    how many the recording has; None: these are all of them."""
    first, total = stretch or (0, z_TD.shape[0])
    frame = torch.arange(first, first + z_TD.shape[0], device=z_TD.device, dtype=z_TD.dtype)
    times = torch.stack([frame, total - 1 - frame], 1) * seconds
    return torch.cat([z_TD, times], 1)


def many_are_labelled(videos: Sequence[LabelledVideo]) -> bool:
    """Whether at least :data:`MANY_FRAMES` labelled frames are read."""
    return sum(int(video.looked_at.sum()) for video in videos) >= MANY_FRAMES


def labelled_frames(videos: Sequence[LabelledVideo], z: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows (N, D) of ``z``, what the head makes of each video's embeddings, and their labels
    (N, C): of the labelled frames, thinned evenly to :data:`MOST_FRAMES`."""
    z_ND = torch.cat([z_TD[one.looked_at] for z_TD, one in zip(z, videos, strict=True)])
    shown_NC = torch.cat([one.shown_TC[one.looked_at] for one in videos])
    every = max(1, -(-len(z_ND) // MOST_FRAMES))
    return z_ND[::every], shown_NC[::every]


def frame_weights(label_N: npt.NDArray[Any], power: float) -> npt.NDArray[np.float64]:
    """Weights of frames, (share of their class) to the power -``power``, with a mean of 1."""
    counts = np.bincount(label_N)
    raw = np.where(counts > 0, (counts.sum() / np.maximum(counts, 1)) ** power, 0.0)
    out: npt.NDArray[np.float64] = (raw * counts.sum() / (raw * counts).sum())[label_N]
    return out


def logits_of_mean(
    logits: Sequence[Tensor], weights: Sequence[float], overlapping: Tensor
) -> Tensor:
    """Logits of the weighted mean of the probabilities of several members.

    Args:
        logits: (…, C) of each.
        weights: Of each; their sum is 1.
        overlapping: bool, whether a frame may show several classes.
    """
    pairs = list(zip(weights, logits, strict=True))
    exclusive = torch.stack([w * x.softmax(-1) for w, x in pairs]).sum(0).clamp(min=1e-6).log()
    apart = torch.stack([w * x.sigmoid() for w, x in pairs]).sum(0).logit(eps=1e-6)
    return torch.where(overlapping, apart, exclusive)


class AbstractHead(nn.Module, ABC):
    """(B, T, D) to one (B, T, C) for each problem: a trunk common to all, then an output for each.

    Subclasses take ``dim`` (D), ``classes`` (C of each problem) and keyword settings, and set
    ``out`` and ``context``.
    """

    context: int = 0
    """Frames to either side that a score depends on."""
    by_gradient: bool = True
    """Whether gradient steps fit it; if not, :meth:`fit_videos` does."""
    differentiable: bool = True
    """Whether gradients of its scores reach the embeddings."""
    timid: bool = False
    """Whether it gives behaviours too little probability of which it saw few bouts; then they are
    decided for sooner (:meth:`PriorCorrection.by_bouts`)."""
    cross_fitted: bool = False
    """Whether it is a stack whose weights are learned on videos held out."""
    hz: float | None = None
    """Frames a second that it reads; None: all. Scores of those between are interpolated."""
    fps: float = 30.0
    """Frames a second of the recordings."""
    stretch: tuple[int, int] | None = None
    """As of :func:`with_time`: which part of a recording it is given."""
    annotators: Annotators | None
    """Where the problems are annotators that share one output: the style of each."""
    out: nn.ModuleList
    mean_D: Tensor
    scale_D: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.annotators = None
        self.register_buffer("mean_D", torch.zeros(dim))
        self.register_buffer("scale_D", torch.ones(dim))

    @torch.no_grad()
    def standardise(self, z_ND: Tensor) -> None:
        """Takes mean and spread of each dimension from training embeddings; from then on inputs are
        scaled to unit spread."""
        spread = z_ND.std(0)
        self.mean_D.copy_(z_ND.mean(0))
        self.scale_D.copy_(torch.where(spread > 1e-6, 1 / spread.clamp(min=1e-6), 0.0))

    @property
    def heads(self) -> Sequence[AbstractHead]:
        """Those that it is made of; itself, unless it is a stack."""
        return [self]

    @property
    def stride(self) -> int:
        """Frames from one that it reads to the next."""
        return max(1, round(self.fps / self.hz)) if self.hz else 1

    def reads(self, fps: float) -> None:
        """Says at which frame rate the recordings are."""
        self.fps = fps

    def is_given(self, stretch: tuple[int, int] | None) -> None:
        """Says which part of a recording comes next, as of :func:`with_time`."""
        self.stretch = stretch

    def make_traceable(self) -> None:
        """Makes it one that ``torch.export`` can follow; it gives the same as before."""

    def fit_videos(
        self, problem: int, videos: list[LabelledVideo], *, overlapping: bool, seed: int
    ) -> None:
        """Fits the output of one problem to all its training videos at once; what problems share
        is taken from the first.

        Args:
            problem: Its index.
            videos: With the frames that it reads (:attr:`stride`).
            overlapping: Whether a frame may show several classes.
            seed: Of what is drawn.
        """
        raise NotImplementedError

    @abstractmethod
    def trunk(self, z_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        """What the outputs read, (B, T, H), of standardised embeddings; frames that are not valid
        must not reach the others."""

    def forward(
        self, z_BTD: Tensor, valid_BT: Tensor, problem_B: Tensor | None = None
    ) -> list[Tensor]:
        """Logits of every problem, (B, T, C) each.

        Args:
            z_BTD: Embeddings.
            valid_BT: False where a frame does not exist.
            problem_B: The problem of each window, where only its logits are needed.
        """
        z_BTD = (z_BTD - self.mean_D) * self.scale_D
        if self.annotators is None:
            h_BTH = self.trunk(z_BTD, valid_BT)
            return [out(h_BTH) for out in self.out]
        number = len(self.annotators)
        if problem_B is not None:
            return [self.out[0](self.trunk(self.annotators(z_BTD, problem_B), valid_BT))] * number
        every = z_BTD.new_zeros(len(z_BTD), dtype=torch.int64)
        return [
            self.out[0](self.trunk(self.annotators(z_BTD, every + p), valid_BT))
            for p in range(number)
        ]


def without_annotators(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A head's settings but those of annotators, which go with any head."""
    return {key: value for key, value in spec.items() if key not in ANNOTATOR_SETTINGS}


def head_class(spec: Mapping[str, Any]) -> type[AbstractHead]:
    """The class of a head.

    Raises:
        BadInput: If there is no such head.
    """
    return find(__name__, spec.get("name"), AbstractHead)


def is_timid(head: Mapping[str, Any]) -> bool:
    """Whether a head of these settings, or a member of the stack that it is, is ``timid``."""
    return any(head_class(one).timid for one in head.get("members") or [head])


def build_head(
    spec: Mapping[str, Any], dim: int, classes: Sequence[int], *, fps: float = 30.0
) -> AbstractHead:
    """A head from ``{"name": …, setting: value}``, for problems of so many classes each.

    With ``annotator: embedding`` the problems, annotators of the same classes, share one output and
    differ by what :class:`Annotators` makes of the embedding; with ``annotator: apart`` (the
    default) each has its own output.

    Raises:
        BadInput: If the name or a setting is unknown, or problems of unlike classes were to share
            an output.
    """
    settings = without_annotators(spec)
    annotator, width = spec.get("annotator", APART), spec.get("annotator_width", 8)
    shared = annotator == EMBEDDING
    refuse(
        misfits("annotator", annotator, Literal["apart", "embedding"])
        + misfits("annotator_width", width, Count)
        + error_if(
            shared and len(set(classes)) > 1,
            "annotator: embedding is for several annotators of the same classes; these problems "
            "have unlike classes",
        ),
        about="head",
    )
    head: AbstractHead = build(
        __name__, settings, AbstractHead, dim, list(classes[:1] if shared else classes)
    )
    if shared and not head.by_gradient:
        raise BadInput(
            f"head: {settings['name']} is not fitted by gradient steps, so it cannot learn "
            f"annotators: leave annotator: {APART}"
        )
    if shared:
        head.annotators = Annotators(len(classes), dim, width=width)
    head.reads(fps)
    return head
