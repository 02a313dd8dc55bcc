"""Which stretches of a store are like an example, and which are like nothing else in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.neighbors import NearestNeighbors

from finetune.fit.open_encoder import HANDMADE, handmade_features, open_encoder
from finetune.inference.model import BRIDGE_S, without_pose
from pretrain.data.sample import sample
from pretrain.data.schema import Float
from pretrain.data.store import Store
from pretrain.encoders import Embedder, build_embedder
from pretrain.errors import BadInput
from pretrain.train.embed_store import embed_stored

REFERENCE_VIDEOS, REFERENCE_FRAMES = 200, 6000
NEIGHBOURS = 10
_LEAST_SPREAD = 1e-3
_EXAMPLE = re.compile(r"(.+):(\d+(?:\.\d*)?)-(\d+(?:\.\d*)?)")


@dataclass(frozen=True)
class Clip:
    """A stretch of a video; ``stop`` is the frame after its last."""

    video: str
    start: int
    stop: int
    score: float = 0.0
    """What it is chosen by: a distance, or how unlike other frames it is."""


def parse_example(text: str, store: Store) -> Clip:
    """``VIDEO:START-STOP``, in seconds.

    Raises:
        BadInput: If it is no such thing, or the video has no such frames.
    """
    match, fps = _EXAMPLE.fullmatch(text), store.schema.fps
    if match is None:
        raise BadInput(f"--example {text!r}: write VIDEO:START-STOP in seconds, m1:12.5-14")
    name = match[1]
    frames = store.videos[store.video_index(name)]["frames"]
    start, stop = (round(float(match[n]) * fps) for n in (2, 3))
    if not start < stop <= frames:
        raise BadInput(
            f"--example {text!r}: it must stop after it starts, and within the {frames / fps:.1f} "
            f"s of {name!r}"
        )
    return Clip(name, start, stop)


def open_embedder(source: str, store: Store) -> Embedder:
    """What frames are compared by: an encoder as ``--encoder`` names it; ``handmade`` means the
    features only, since clips are described by their own mean and spread, and whichever of two
    animals did it."""
    if source != HANDMADE:
        return open_encoder(source, store, recipe="contrastive", seed=0)[0]
    no_context: dict[str, list[float]] = {"means": [], "spreads": [], "extremes": [], "shifts": []}
    embedder = build_embedder(
        store.schema,
        features=handmade_features({}, store.schema, roles=False),
        encoder={"name": HANDMADE, **no_context},
    )
    embedder.features.fit(sample(store, seed=0))
    return embedder.eval()


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Frames from all over a store: what is usual in it."""

    embedder: Embedder
    mean_D: Float
    scale_D: Float
    """1 / spread; 0 where there is none."""
    z_ND: Float
    """Their embeddings, brought to unit spread."""
    video_N: npt.NDArray[np.str_]

    @classmethod
    def of(
        cls, store: Store, embedder: Embedder, on_progress: Callable[[], object] = lambda: None
    ) -> Reference:
        """Embeds frames, evenly spaced, of evenly spaced videos."""
        videos = store.videos[:: -(-len(store.videos) // REFERENCE_VIDEOS)]
        every = max(1, sum(video["frames"] for video in videos) // REFERENCE_FRAMES)
        pieces, names = [], list[str]()
        for video in videos:
            z_TD, seen_T = _embed(embedder, store, video["name"])
            pieces.append(z_TD[seen_T][::every])
            names += [video["name"]] * len(pieces[-1])
            on_progress()
        z_ND = np.concatenate(pieces)
        if not len(z_ND):
            raise BadInput(f"{store.uri}: no animal is seen in any frame")
        mean_D, spread_D = z_ND.mean(0), z_ND.std(0)
        varies_D = spread_D > _LEAST_SPREAD * np.median(spread_D)  # the others: rounding errors
        scale_D = np.where(varies_D, 1 / np.where(varies_D, spread_D, 1), 0).astype(np.float32)
        return cls(
            embedder=embedder,
            mean_D=mean_D,
            scale_D=scale_D,
            z_ND=(z_ND - mean_D) * scale_D,
            video_N=np.array(names),
        )

    def embed(self, store: Store, name: str) -> tuple[Float, npt.NDArray[np.bool_]]:
        """(T, D) of a video, and (T,): whether an animal is seen."""
        z_TD, seen_T = _embed(self.embedder, store, name)
        return (z_TD - self.mean_D) * self.scale_D, seen_T

    def unlikeness(self, z_TD: Float, *, besides: str = "") -> Float:
        """(T,): the mean distance to the nearest of the frames here, but for those of the video
        ``besides``: what a frame's neighbours in time are like says nothing of it.

        Raises:
            BadInput: If there is no other video.
        """
        others_ND = self.z_ND[self.video_N != besides]
        if not len(others_ND):
            raise BadInput(
                f"there is no video besides {besides!r} to compare it with: give --unlike STORE"
            )
        search = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(others_ND)), algorithm="brute")
        distance_TN = search.fit(others_ND).kneighbors(z_TD)[0]
        return np.asarray(distance_TN.mean(1), np.float32)


def _embed(embedder: Embedder, store: Store, name: str) -> tuple[Float, npt.NDArray[np.bool_]]:
    position = store.read_video(name, features=()).position_TMKX
    unseen_T = without_pose(position, bridge=round(BRIDGE_S * store.schema.fps))
    return embed_stored(embedder, store, name), ~unseen_T


def nearest(
    store: Store,
    examples: Sequence[Clip],
    reference: Reference,
    *,
    number: int,
    on_progress: Callable[[], object] = lambda: None,
) -> list[Clip]:
    """The clips that are most like any of some examples, as long as the example is.

    A clip is described by mean and standard deviation over its frames of every column of the
    embedding; the distance is 1 - cosine.

    Returns:
        Clips that do not overlap each other or an example, the nearest first.
    """
    wanted = []
    for example in examples:
        z_TD, _ = reference.embed(store, example.video)
        (described,) = _described(z_TD[example.start : example.stop], example.stop - example.start)
        wanted.append((example.stop - example.start, described))
    found: list[Clip] = []
    for video in store.videos:
        z_TD, seen_T = reference.embed(store, video["name"])
        clips = list[Clip]()
        for length, described in wanted:
            starts = _starts(seen_T, length)
            if len(starts):
                there_WE = _described(z_TD, length)[starts]
                norms = np.linalg.norm(there_WE, axis=1) * np.linalg.norm(described)
                distance_W = 1 - there_WE @ described / np.maximum(norms, 1e-9)
                clips += _clips(video["name"], starts, length, distance_W)
        found += apart(clips, number, taken=examples)
        on_progress()
    return apart(found, number)


def most_unlike(
    store: Store,
    reference: Reference,
    *,
    length: int,
    number: int,
    same_store: bool,
    on_progress: Callable[[], object] = lambda: None,
) -> tuple[list[Clip], dict[str, Float]]:
    """The clips of ``length`` frames that are least like the reference, and a score for each frame.

    Returns:
        Clips that do not overlap, the most unlike first; video to (T,) scores: the distance of
        :meth:`Reference.unlikeness`, as a multiple of what is usual among the reference's own
        frames; NaN where no animal is seen.
    """
    usual = _usual(reference)
    found: list[Clip] = []
    scores = {}
    for video in store.videos:
        name = video["name"]
        z_TD, seen_T = reference.embed(store, name)
        score_T = reference.unlikeness(z_TD, besides=name if same_store else "") / usual
        scores[name] = np.where(seen_T, score_T, np.float32(np.nan))
        starts = _starts(seen_T, length)
        if len(starts):
            mean_W = _means(score_T[:, None], length)[starts, 0]
            found += apart(_clips(name, starts, length, -mean_W), number)
        on_progress()
    return [
        Clip(clip.video, clip.start, clip.stop, -clip.score) for clip in apart(found, number)
    ], scores


def _usual(reference: Reference) -> float:
    """The median distance of the reference's frames to those of its other videos."""
    names = np.unique(reference.video_N)
    if len(names) == 1:  # its frames are some way apart in time
        search = NearestNeighbors(n_neighbors=min(NEIGHBOURS + 1, len(reference.z_ND)))
        return max(1e-9, float(np.median(search.fit(reference.z_ND).kneighbors()[0].mean(1))))
    of_each = [
        reference.unlikeness(reference.z_ND[reference.video_N == name], besides=name)
        for name in names
    ]
    return max(1e-9, float(np.median(np.concatenate(of_each))))


def apart(clips: Iterable[Clip], number: int, taken: Sequence[Clip] = ()) -> list[Clip]:
    """The clips with the lowest scores that overlap neither each other nor ``taken``."""
    chosen: list[Clip] = []
    for clip in sorted(clips, key=lambda one: one.score):
        if len(chosen) == number:
            break
        if not any(
            clip.video == one.video and clip.start < one.stop and one.start < clip.stop
            for one in (*chosen, *taken)
        ):
            chosen.append(clip)
    return chosen


def _starts(seen_T: npt.NDArray[np.bool_], length: int) -> npt.NDArray[np.int64]:
    """First frames of clips to look at, four in a clip's length, in which an animal is seen
    throughout."""
    if len(seen_T) < length:
        return np.empty(0, np.int64)
    seen_W = _means(seen_T[:, None].astype(np.float32), length)[:, 0] > 1 - 0.5 / length
    every = np.zeros(len(seen_W), np.bool_)
    every[:: max(1, length // 4)] = True
    return np.flatnonzero(seen_W & every)


def _clips(
    video: str, starts: npt.NDArray[np.int64], length: int, score_W: Float
) -> Iterator[Clip]:
    for start, score in zip(starts.tolist(), score_W.tolist(), strict=True):
        yield Clip(video, start, start + length, score)


def _described(z_TD: Float, length: int) -> Float:
    """(T - length + 1, 2 D): mean and standard deviation of every stretch."""
    mean_WD = _means(z_TD, length)
    spread_WD = np.sqrt(np.maximum(_means(np.square(z_TD), length) - np.square(mean_WD), 0))
    return np.concatenate([mean_WD, spread_WD], 1)


def _means(x_TD: Float, length: int) -> Float:
    sums = np.cumsum(x_TD, 0, dtype=np.float64)
    sums = np.concatenate([np.zeros((1, x_TD.shape[1])), sums])
    return np.asarray((sums[length:] - sums[:-length]) / length, np.float32)
