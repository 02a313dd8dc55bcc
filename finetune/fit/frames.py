"""The frames that trials share: poses of the labelled videos, or their embeddings, end to end."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pretrain.data.store import Store
from pretrain.encoders import Embedder
from pretrain.train.embed_video import embed_video
from pretrain.transforms.features import Features
from pretrain.transforms.units import at_learned_scale

_FRAMES_COMPARED = 256


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Frames of some videos. Plain arrays, so that Ray hands them to every trial of a machine
    without a copy."""

    spans: Mapping[str, tuple[int, int]]
    """Video to its first frame in the arrays and the one after its last."""
    arrays: Mapping[str, npt.NDArray[np.float32]]
    """``z`` (N, D), or ``position`` (N, M, K, X), ``confidence`` (N, M, K) and perhaps ``extra``
    (N, E)."""
    fps: float = 30.0
    """Frames a second of the recordings."""
    stride: int = 1
    """Embeddings alone: of every so many frames of a video there is one."""
    lengths: Mapping[str, int] = field(default_factory=dict)
    """Video to its frames, where ``stride`` is above 1."""

    def length(self, name: str) -> int:
        """Frames of a video."""
        first, end = self.spans[name]
        return self.lengths.get(name, end - first)

    @property
    def embedded(self) -> bool:
        """Whether these are embeddings."""
        return "z" in self.arrays

    def windows(self, begin_B: npt.NDArray[np.int64], length: int) -> dict[str, Tensor]:
        """``length`` frames from each of ``begin_B`` on: (B, T, …) each; frames outside the arrays
        repeat the edge."""
        last = len(next(iter(self.arrays.values()))) - 1
        index_BT = np.clip(begin_B[:, None] + np.arange(length), 0, last)
        return {name: torch.from_numpy(array[index_BT]) for name, array in self.arrays.items()}

    def video(self, name: str) -> dict[str, Tensor]:
        """All frames of a video, (T, …) each."""
        first, end = self.spans[name]
        return {
            key: torch.from_numpy(array[first:end].copy()) for key, array in self.arrays.items()
        }

    def joined(self, other: Frames) -> Frames:
        """The frames of both; no video may be in both."""
        assert not set(self.spans) & set(other.spans), "a video is in both"
        shift = max(end for _, end in self.spans.values())
        shifted = {name: (first + shift, end + shift) for name, (first, end) in other.spans.items()}
        return Frames(
            fps=self.fps,
            stride=self.stride,
            lengths={**self.lengths, **other.lengths},
            spans={**self.spans, **shifted},
            arrays={
                key: np.concatenate([array, other.arrays[key]])
                for key, array in self.arrays.items()
            },
        )


def recordings(frames: Frames) -> Callable[[str], str]:
    """Names the recording that each video is of.

    CalMS21 names a recording anew for each annotator, so recordings are recognised by their frames:
    videos of one length are one recording where evenly spaced frames of them are equal. A video
    that is not in ``frames`` is a recording of its own.
    """
    lengths = Counter(end - first for first, end in frames.spans.values())
    names: dict[str, str] = {}

    def recording(video: str) -> str:
        if video not in names:
            first, end = frames.spans.get(video, (0, 0))
            names[video] = video
            if lengths[end - first] > 1:
                chosen = np.linspace(first, end - 1, min(_FRAMES_COMPARED, end - first)).astype(int)
                digest = hashlib.sha256(str(end - first).encode())
                for array in frames.arrays.values():
                    digest.update(np.nan_to_num(array[chosen]).tobytes())
                names[video] = digest.hexdigest()
        return names[video]

    return recording


def gather_poses(
    store: Store,
    videos: Iterable[str],
    *,
    features: Sequence[str] = (),
    scaled_to: Features | None = None,
    suffix: str = "",
    on_progress: Callable[[int], object] = lambda frames: None,
) -> Frames:
    """Poses of some videos of a store, at the scale that features were fitted on
    (pretrain/transforms/units.py), and external features where they are asked for. The names of the
    videos have a ``suffix`` that those in the store do not.

    Raises:
        BadInput: If the store has no such videos or features, or a part is damaged.
    """
    positions, confidences, extras, spans, end = [], [], [], {}, 0
    for name in videos:
        video = store.read_video(name.removesuffix(suffix), features=features)
        position = video.position_TMKX
        if scaled_to is not None:
            position = at_learned_scale(position, scaled_to, store=store, video=video.name)
        positions.append(position)
        confidences.append(video.confidence_TMK.astype(np.float32))
        extras.append([video.features[key] for key in features])
        spans[name] = (end, end := end + len(video.position_TMKX))
        on_progress(len(video.position_TMKX))
    arrays = {"position": np.concatenate(positions), "confidence": np.concatenate(confidences)}
    if features:
        arrays["extra"] = np.concatenate([np.concatenate(extra, 1) for extra in extras])
    return Frames(spans=spans, arrays=arrays, fps=store.schema.fps)


def embed(
    poses: Frames,
    embedder: Embedder,
    *,
    device: str = "cpu",
    stride: int = 1,
    on_progress: Callable[[int], object] = lambda frames: None,
) -> Frames:
    """Embeddings of the same frames, each computed once, of which one of every ``stride`` is kept.
    The embedder is put into evaluation mode."""
    embedder = embedder.to(device).eval()
    spans: dict[str, tuple[int, int]] = {}
    total = 0
    for name, (first, end) in poses.spans.items():
        spans[name] = (total, total := total + -(-(end - first) // stride))
    z_ND = np.empty((total, embedder.dim), np.float32)
    for name, (begin, stop) in spans.items():
        arrays = poses.video(name)
        z_ND[begin:stop] = embed_video(embedder, arrays, device=device, stride=stride).cpu().numpy()
        on_progress(len(arrays["position"]))
    lengths = {name: end - first for name, (first, end) in poses.spans.items()}
    return Frames(spans=spans, arrays={"z": z_ND}, fps=poses.fps, stride=stride, lengths=lengths)
