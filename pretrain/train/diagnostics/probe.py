"""Signs, without labels, of when more training stops paying: how well hand-made features can be
read, linearly, from the frozen embedding. Plain torch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pretrain.data.sample import sample
from pretrain.data.store import Store
from pretrain.encoders import Embedder, build_embedder
from pretrain.train.embed_video import embed_video

log = logging.getLogger(__name__)

MAX_VIDEOS = 12
FRAMES_PER_VIDEO = 3000
HZ = 5.0
MEANS_S = (2.0, 8.0)
MAX_TIMES = 20
LITTLE = 0.01
_FEATURES = {"groups": ["interaction"]}
_ENCODER = {"name": "handmade", "means": MEANS_S, "spreads": [], "extremes": [], "shifts": []}
_RIDGE = 0.01

Measured = dict[str, float]
"""``epoch``, after which it was measured, and R² by what is read: ``frame``, ``2_s``, ``8_s``."""


def open_probe(
    store: Store, *, seed: int, external: Sequence[str] = (), device: torch.device | str = "cpu"
) -> Probe | None:
    """A probe on some videos of a store: of those that nothing is learned from where there are two,
    else of the others; None where there are no two.

    Args:
        store: Which videos are learned from, and which are left out.
        seed: Draws the videos and the stretch of each.
        external: External features that the encoder reads.
        device: Where to compute.
    """
    left_out = len(store.leave_out) > 1
    names = sorted(store.leave_out) if left_out else store.learned_videos
    if len(names) < 2:
        return None
    rng = np.random.default_rng([seed, 11])
    videos = []
    for i in rng.permutation(len(names))[:MAX_VIDEOS]:
        video = store.read_video(names[i], features=external)
        first = int(rng.integers(max(1, len(video.position_TMKX) - FRAMES_PER_VIDEO + 1)))
        part = slice(first, first + FRAMES_PER_VIDEO)
        frames = {
            "position": video.position_TMKX[part],
            "confidence": video.confidence_TMK[part].astype(np.float32),
        }
        if external:
            frames["extra"] = np.concatenate([video.features[key][part] for key in external], 1)
        videos.append({name: torch.from_numpy(x.copy()) for name, x in frames.items()})
    handmade = build_embedder(store.schema, features=_FEATURES, encoder=_ENCODER)
    handmade.features.fit(sample(store, seed=seed))
    stride = max(1, round(store.schema.fps / HZ))
    return Probe(videos, handmade.to(device), stride=stride, device=device, left_out=left_out)


class Probe:
    """A ridge regression from the embedding to hand-made features (those of a frame, and their
    means over 2 and 8 s to either side), fitted on half of some videos and judged on the others.
    Nothing is chosen by it.

    Args:
        videos: Two or more, as :func:`embed_video` takes them.
        handmade: Embeds them as the features that are to be read.
        stride: Of every so many frames one is looked at.
        device: Where to compute.
        left_out: Whether the encoder never learns from them.
    """

    def __init__(
        self,
        videos: Sequence[Mapping[str, Tensor]],
        handmade: Embedder,
        *,
        stride: int,
        device: torch.device | str,
        left_out: bool,
    ) -> None:
        self.videos, self._stride, self._device = videos, stride, str(device)
        self._left_out = left_out
        self._fit_on = len(videos) // 2
        self._features = self._halves(handmade.eval())

    def _halves(self, embedder: Embedder) -> tuple[Tensor, Tensor]:
        """Embeddings of the videos that are fitted on, and of those that judge."""
        z = [
            embed_video(embedder, video, device=self._device, stride=self._stride).double()
            for video in self.videos
        ]
        return torch.cat(z[: self._fit_on]), torch.cat(z[self._fit_on :])

    @torch.no_grad()
    def measure(self, embedder: Embedder, *, epoch: int) -> Measured:
        """The coefficient of determination of each feature, at least 0, averaged over those of a
        frame and over those of each mean. The embedder is left as it was."""
        training = embedder.training
        z_ND, z_judge_ND = self._halves(embedder.eval())
        embedder.train(training)
        y_NF, y_judge_NF = self._features
        mean_D, scale_D, mean_F = z_ND.mean(0), z_ND.std(0).clamp(min=1e-6), y_NF.mean(0)
        z_ND, z_judge_ND = (z_ND - mean_D) / scale_D, (z_judge_ND - mean_D) / scale_D
        covariance_DD = z_ND.T @ z_ND / len(z_ND)
        covariance_DD.diagonal().add_(_RIDGE)
        weights_DF = torch.linalg.solve(covariance_DD, z_ND.T @ (y_NF - mean_F) / len(z_ND))
        error_F = (y_judge_NF - mean_F - z_judge_ND @ weights_DF).square().sum(0)
        total_F = (y_judge_NF - y_judge_NF.mean(0)).square().sum(0)
        r2_F = (1 - error_F / total_F).clamp(min=0)
        r2_F = torch.where(total_F > 1e-9 * len(y_judge_NF), r2_F, torch.nan)
        kinds = ("frame", *(f"{seconds:g}_s" for seconds in MEANS_S))
        parts = r2_F.chunk(len(kinds))
        return {"epoch": epoch} | {
            kind: float(part.nanmean()) for kind, part in zip(kinds, parts, strict=True)
        }

    def summary(self, measured: Sequence[Measured]) -> str:
        """From where to where, and whether the last third of the training added anything."""
        until = 2 / 3 * measured[-1]["epoch"]
        earlier_ones = [one for one in measured if one["epoch"] <= until]
        before = earlier_ones[-1] if earlier_ones else measured[0]
        first, earlier, last = (_mean(one) for one in (measured[0], before, measured[-1]))
        videos = f"{len(self.videos)} videos {'left out' if self._left_out else 'learned from'}"
        more = ": more epochs would add little" if last - earlier < LITTLE else ""
        return (
            f"hand-made features read from the frozen embedding (mean R2, {videos}): {first:.3f} "
            f"after epoch {measured[0]['epoch']:g}, {earlier:.3f} after epoch {before['epoch']:g}, "
            f"{last:.3f} in the end{more}"
        )


@dataclass(frozen=True)
class ProbedEpochs:
    """Measures after the epochs of a run that are due, on rank 0; elsewhere it does nothing."""

    probe: Probe | None
    epochs: int
    measured: list[Measured]
    """So far, earlier starts included."""
    send_metrics: Callable[[Mapping[str, float], int], None]

    def after(self, epoch: int, embedder: Embedder, *, step: int) -> None:
        """Measures where it is due; epoch 0 is before the first step."""
        if self.probe and is_due(epoch, self.epochs):
            self.measured.append(self.probe.measure(embedder, epoch=epoch))
            self.send_metrics(as_metrics(self.measured[-1]), step)

    def result(self) -> dict[str, Any]:
        """For ``result.json``; what it comes to is logged."""
        if self.probe:
            log.info(self.probe.summary(self.measured))
        return {"probe": self.measured}


def is_due(epoch: int, epochs: int) -> bool:
    """Whether it is measured after so many epochs: some ``MAX_TIMES`` times a run, and in the
    end."""
    return epoch % -(-epochs // MAX_TIMES) == 0 or epoch == epochs


def as_metrics(measured: Measured) -> dict[str, Any]:
    """For the tracker: ``probe/frame`` and so on."""
    return {f"probe/{key}": value for key, value in measured.items() if key != "epoch"}


def _mean(measured: Measured) -> float:
    return float(np.mean(list(as_metrics(measured).values())))
