"""What gradients say of a differentiable classifier: which points at which time a decision comes
from, and which poses would excite a class most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from finetune.explanation.stretches import Stretch
from finetune.fit.fit import Model
from finetune.labels.frame_labels import Reals
from finetune.labels.problems import Problem
from pretrain.data.windows import Pose
from pretrain.transforms.geometry import rotate, rotate_back

EXAMPLES, STEPS, AT_ONCE = 8, 24, 8
MOST_REACH_S = 8.0
CLIP_S, MOST_CLIPS, REAL = 2.0, 1000, 3
COMPONENTS, ASCENT_STEPS, ASCENT_RATE = 32, 80, 0.1
BOUNDS = (0.01, 0.99)


def is_differentiable(model: Model) -> bool:
    """Whether its encoder and its head are; all encoders are."""
    return model.head.differentiable


def _scores(model: Model, pose: Pose, problem: Problem, p: int, first: int, total: int) -> Tensor:
    """(B, T / stride, C): probabilities of windows that begin ``first`` frames into a recording of
    ``total``, with gradients."""
    embedder, head = model.embedder, model.head
    assert embedder is not None
    valid_BT = torch.ones(pose.position_BTMKX.shape[:2], dtype=torch.bool)
    z_BSD = embedder(pose, valid_BT)[:, :: head.stride].float()
    head.is_given((first // head.stride, -(-total // head.stride)))
    logits: Tensor = head(z_BSD, valid_BT[:, :: head.stride])[p]
    head.is_given(None)
    return logits.sigmoid() if problem.overlapping else logits.softmax(-1)


def _pose(stretch: Stretch, frames: slice) -> Pose:
    """One window, B = 1, with no point missing."""
    arrays = stretch.arrays
    extra = arrays["extra"][frames].unsqueeze(0) if "extra" in arrays else None
    return Pose(
        stretch.filled[frames].unsqueeze(0), arrays["confidence"][frames].unsqueeze(0), extra
    )


def _margin(model: Model) -> int:
    """Frames beyond what a score depends on, in whole strides of the head: where a window ends,
    motion is unknown, and what is unknown has no gradient, nor have its neighbours."""
    assert model.embedder is not None
    stride = model.head.stride
    return -(-2 * model.embedder.features.context // stride) * stride


@dataclass(frozen=True, kw_only=True)
class Saliency:
    """Integrated gradients of one problem; C classes, L frames of lag, M animals, K keypoints."""

    attribution_CLMK: Reals
    """Mean over frames that show the class of the absolute share of the probability, at that frame,
    that a point brings so many frames before or after; NaN for a class that no frame shows."""
    lag_s: Reals
    """Negative: before the frame."""


def integrated_gradients(
    model: Model,
    problem: Problem,
    p: int,
    stretches: Sequence[Stretch],
    shown: Sequence[np.ndarray],
    *,
    fps: float,
    examples: int = EXAMPLES,
    steps: int = STEPS,
) -> Saliency:
    """Integrated gradients (Sundararajan et al. 2017) of the probability of each class at frames
    that show it; the baselines are windows of real poses, another one for each step of the path
    (expected gradients, Erion et al. 2021). Missing points are filled in before.

    Args:
        model: Encoder and head, differentiable.
        problem: What is decided.
        p: Its index among the head's outputs.
        stretches: Where the frames are taken from.
        shown: Of each, (T, C) whether a frame shows a class.
        fps: Frames per second.
        examples: Frames of each class.
        steps: Points of the path.
    """
    model.head.eval()
    embedder, stride = model.embedder, model.head.stride
    assert embedder is not None
    embedder.eval()
    rng = np.random.default_rng(0)
    reach = min(embedder.overlap + model.head.context * stride, round(MOST_REACH_S * fps))
    reach = -(-max(reach, stride) // stride) * stride  # so that the head reads the middle frame
    around = reach + _margin(model)
    shape = embedder.features.schema.shape[:2]
    attribution = np.full((len(problem.classes), 2 * reach + 1, *shape), np.nan)
    for c in range(len(problem.classes)):
        frames = [(s, int(t)) for s, one in enumerate(shown) for t in np.flatnonzero(one[:, c])]
        if not frames:
            continue
        total = np.zeros(attribution.shape[1:])
        chosen = rng.choice(len(frames), min(examples, len(frames)), replace=False)
        for s, t in (frames[n] for n in chosen):
            begin = t - min(t // stride * stride, around)
            end = min(t + around + 1, len(stretches[s]))
            pose = _pose(stretches[s], slice(begin, end))
            baselines = [_baseline(stretches, end - begin, rng) for _ in range(steps)]
            gradients = []
            for first in range(0, steps, AT_ONCE):
                base = torch.stack(baselines[first : first + AT_ONCE])
                # stratified: each step a random point of its own part of the path
                share = (np.arange(first, first + len(base)) + rng.random(len(base))) / steps
                share_B = torch.from_numpy(share.astype(np.float32)).view(-1, 1, 1, 1, 1)
                position = torch.lerp(base, pose.position_BTMKX, share_B).requires_grad_()
                rows = [None if x is None else x.expand(len(base), *x.shape[1:]) for x in pose[1:]]
                window = Pose(position, *rows)  # type: ignore[arg-type]
                score = _scores(model, window, problem, p, begin, len(stretches[s]))
                (gradient,) = torch.autograd.grad(
                    score[:, (t - begin) // stride, c].sum(), position
                )
                # where a root has no slope there is nothing to attribute
                gradients.append(gradient.nan_to_num(0, 0, 0) * (pose.position_BTMKX - base))
            mean_TMK = torch.cat(gradients).mean(0).sum(-1).numpy()
            first, last = max(begin, t - reach), min(end, t + reach + 1)
            total[first - t + reach : last - t + reach] += np.abs(
                mean_TMK[first - begin : last - begin]
            )
        attribution[c] = total / len(chosen)
    return Saliency(attribution_CLMK=attribution, lag_s=np.arange(-reach, reach + 1) / fps)


def _baseline(stretches: Sequence[Stretch], frames: int, rng: np.random.Generator) -> Tensor:
    """(T, M, K, X) of a random window; its last pose again where its stretch is too short."""
    one = stretches[int(rng.integers(len(stretches)))]
    start = int(rng.integers(max(1, len(one) - frames + 1)))
    index = torch.arange(start, start + frames).clamp(max=len(one) - 1)
    return one.filled[index]


@dataclass(frozen=True, kw_only=True)
class Exciting:
    """What excites a class most."""

    videos: list[str]
    start: list[int]
    """First frames of real clips in their videos, the most exciting first."""
    real_NTMKX: Reals
    real_p: list[float]
    """Mean probability over each."""
    ascended_TMKX: Reals | None = None
    """Poses found by gradient ascent; None: not done."""
    start_p: float = float("nan")
    """Probability of the clip that the ascent began with: the first, brought within the bounds."""
    ascended_p: float = float("nan")


def real_clips(
    stretches: Sequence[Stretch], probabilities: Sequence[Reals], c: int, *, fps: float
) -> Exciting:
    """The clips of real poses with the highest mean probability of a class, that do not overlap."""
    length = round(CLIP_S * fps)
    ranked = []
    for s, p_TC in enumerate(probabilities):
        column = np.concatenate([[0], np.cumsum(np.nan_to_num(p_TC[:, c], nan=0.0))])
        mean_W = (column[length:] - column[:-length]) / length
        ranked += [(float(mean), s, t) for t, mean in enumerate(mean_W)]
    chosen: list[tuple[float, int, int]] = []
    for mean, s, t in sorted(ranked, reverse=True):
        if all(s != other or abs(t - at) >= length for _, other, at in chosen):
            chosen.append((mean, s, t))
        if len(chosen) == REAL:
            break
    return Exciting(
        videos=[stretches[s].video for _, s, _ in chosen],
        start=[stretches[s].start + t for _, s, t in chosen],
        real_NTMKX=np.stack(
            [stretches[s].arrays["position"][t : t + length].numpy() for _, s, t in chosen]
        )
        if chosen
        else np.empty((0, length, *stretches[0].arrays["position"].shape[1:]), np.float32),
        real_p=[mean for mean, _, _ in chosen],
    )


class RealPoses:
    """The range of real clips: principal components of clips, seen from the first animal at their
    middle frame, each within the bounds that real ones keep.

    Args:
        model: Whose features say where a body is.
        stretches: Whose clips they are.
        fps: Frames per second.
    """

    def __init__(self, model: Model, stretches: Sequence[Stretch], *, fps: float) -> None:
        assert model.embedder is not None
        self._features, self.fps, length = model.embedder.features, fps, round(CLIP_S * fps)
        clips = [
            stretch.filled[t : t + length]
            for stretch in stretches
            for t in range(0, len(stretch) - length + 1, max(1, length // 4))
        ]
        own = [
            self.own(clip)[0].flatten() for clip in clips[:: max(1, -(-len(clips) // MOST_CLIPS))]
        ]
        own = [one for one in own if one.isfinite().all()]
        self.known = len(own) > 1
        """Whether there are clips to tell the range of."""
        if not self.known:
            return
        own_NF = torch.stack(own).numpy()
        self._pca = PCA(min(COMPONENTS, *own_NF.shape), random_state=0).fit(own_NF)
        scores = self._pca.transform(own_NF) / self._spread
        self.low_C, self.high_C = (
            torch.from_numpy(np.quantile(scores, q, axis=0).astype(np.float32)) for q in BOUNDS
        )

    @property
    def _spread(self) -> Reals:
        return np.asarray(np.sqrt(self._pca.explained_variance_) + 1e-6)

    def own(self, clip_TMKX: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A clip with no point missing, seen from the first animal; its origin and heading."""
        shape = clip_TMKX.shape[:3]
        pose = Pose(clip_TMKX.unsqueeze(0), torch.ones(1, *shape))
        origin, heading = (x[0, len(clip_TMKX) // 2, 0] for x in self._features.body_frames(pose))
        return rotate_back(clip_TMKX - origin, heading.expand(*shape, 2)), origin, heading

    def unbounded(self, own: Tensor) -> Tensor:
        """Components of a clip, in standard deviations."""
        scores = self._pca.transform(own.flatten().numpy()[None])[0] / self._spread
        return torch.from_numpy(scores.astype(np.float32))

    def components(self, own: Tensor) -> Tensor:
        """The same, brought within the bounds."""
        return self.unbounded(own).clamp(self.low_C, self.high_C)

    def clip(self, scores_C: Tensor, origin: Tensor, heading: Tensor) -> Tensor:
        """(1, T, M, K, X): the clip that components describe, in the image."""
        basis = torch.from_numpy((self._pca.components_ * self._spread[:, None]).astype(np.float32))
        mean = torch.from_numpy(self._pca.mean_.astype(np.float32))
        own = (mean + scores_C @ basis).view(1, -1, *self._features.schema.shape)
        return rotate(own, heading.expand(*own.shape[:-1], 2)) + origin


def ascend(
    model: Model,
    problem: Problem,
    p: int,
    c: int,
    real: RealPoses,
    best: Exciting,
    stretches: Sequence[Stretch],
) -> Exciting:
    """Activation maximisation (Simonyan et al. 2014): gradient ascent of the mean log probability
    of a class over a clip, from the most exciting real clip on, within the range of real ones. What
    lies around the clip in its video, and external features, stay as they are."""
    embedder, stride = model.embedder, model.head.stride
    assert embedder is not None
    stretch = next(one for one in stretches if one.video == best.videos[0])
    t, length = best.start[0] - stretch.start, best.real_NTMKX.shape[1]
    around = embedder.overlap + model.head.context * stride
    around = -(-min(around, round(MOST_REACH_S * real.fps)) // stride) * stride + _margin(model)
    begin = t - min(t // stride * stride, around)
    window = _pose(stretch, slice(begin, t + length + around))
    before, after = (
        window.position_BTMKX[:, : t - begin],
        window.position_BTMKX[:, t - begin + length :],
    )
    read = slice((t - begin) // stride, (t - begin + length - 1) // stride + 1)
    own, origin, heading = real.own(window.position_BTMKX[0, t - begin : t - begin + length])
    scores_C = real.components(own).requires_grad_()
    optimiser = torch.optim.Adam([scores_C], lr=ASCENT_RATE)
    found: list[tuple[float, Tensor]] = []
    for _ in range(ASCENT_STEPS + 1):
        clip = real.clip(scores_C, origin, heading)
        clip.register_hook(  # type: ignore[no-untyped-call]
            lambda gradient: gradient.nan_to_num(0, 0, 0)
        )
        pose = window._replace(position_BTMKX=torch.cat([before, clip, after], 1))
        p_T = _scores(model, pose, problem, p, begin, len(stretch))[0, read, c]
        found.append((float(p_T.detach().mean()), clip.detach()[0]))
        optimiser.zero_grad()
        (-p_T.clamp(min=1e-6).log().mean()).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        with torch.no_grad():
            scores_C.clamp_(real.low_C, real.high_C)
    ascended_p, poses = max(found, key=lambda one: one[0])
    return replace(best, ascended_TMKX=poses.numpy(), start_p=found[0][0], ascended_p=ascended_p)
