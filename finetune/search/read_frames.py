"""The frames that all trials and fits share, read and, under a frozen encoder, embedded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import ray
from tqdm import tqdm

from finetune.fit.fit import initial_head
from finetune.fit.frames import Frames, embed, gather_poses
from finetune.labels.problems import ELSEWHERE, Problem
from finetune.search.space import examples
from finetune.search.trial import embed_on_gpu
from finetune.settings import Tuning
from pretrain.config import Scale
from pretrain.encoders import Embedder

if TYPE_CHECKING:
    from finetune.search.tune import TuningJob


def read_frames(
    job: TuningJob, budgets: Sequence[Sequence[Problem]], scale: Scale, tuning: Tuning
) -> Frames:
    """Poses of all labelled videos, or their embeddings where the encoder is frozen."""
    frozen = tuning.frozen
    train = {video for budget in budgets for problem in budget for video in problem.train}
    test = {video for problem in job.problems for video in problem.test}
    one_store = job.test_store is job.store
    videos = sorted(train | test if one_store else train)
    total = sum(job.store.videos[job.store.video_index(name)]["frames"] for name in videos)
    with tqdm(
        total=total * (2 if frozen else 1),
        desc=f"{'embedding' if frozen else 'reading'} labelled videos",
        unit="frame",
        unit_scale=True,
    ) as bar:
        read = partial(
            gather_poses, features=tuple(job.embedder.external), scaled_to=job.embedder.features
        )
        poses = read(job.store, videos, on_progress=bar.update)
        if not one_store:
            poses = poses.joined(read(job.test_store, sorted(test), suffix=ELSEWHERE))
        if not frozen:
            return poses
        stride = _common_stride(tuning, job)
        return embed_frames(poses, job.embedder, scale, stride=stride, on_progress=bar.update)


def _common_stride(tuning: Tuning, job: TuningJob) -> int:
    """Frames from one that the heads read to the next; 1 where they differ."""
    choices = examples(tuning.search) if tuning.trials > 1 else ()
    strides = {
        initial_head(job.problems, one, job.embedder.dim, fps=job.store.schema.fps).stride
        for one in (tuning, *map(tuning.with_choice, choices))
    }
    return strides.pop() if len(strides) == 1 else 1


def embed_frames(
    poses: Frames,
    embedder: Embedder,
    scale: Scale,
    *,
    stride: int = 1,
    on_progress: Callable[[int], object],
) -> Frames:
    """Embeddings of all frames, each computed once for all trials and seeds: on a GPU where the
    scale has them, else here."""
    if not scale.gpu:
        return embed(poses, embedder, stride=stride, on_progress=on_progress)
    remote = ray.remote(num_cpus=1, num_gpus=scale.gpus_per_trial, max_retries=1)(embed_on_gpu)
    embeddings: Frames = ray.get(remote.remote(poses, embedder, stride))
    on_progress(len(poses.arrays["position"]))
    return embeddings
