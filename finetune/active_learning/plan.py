"""What to label first: clips of recordings that nobody labelled, spread over the videos and, where
an encoder is given, over what the animals do in them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from sklearn.cluster import KMeans
from tqdm import tqdm

from finetune.fit.frames import embed, gather_poses
from finetune.fit.open_encoder import HANDMADE, RANDOM, open_encoder
from finetune.inference.model import BRIDGE_S, without_pose
from finetune.inference.prediction_formats.boris import write_project
from finetune.inference.prediction_formats.boris_events import Events, write_events
from finetune.labels.clips import CLIP_S, Clips, draw_clips, parse_minutes
from finetune.labels.frame_labels import UNLABELLED, Ints, Reals, looked_at
from finetune.labels.problems import Labelled, problems, tasks
from finetune.report.tables import write_csv
from pretrain.data.store import Store
from pretrain.encoders import Embedder
from pretrain.errors import BadInput
from pretrain.readers.score_sheets import CLIP
from pretrain.runs import paths

POOL = 8
"""Clips, spread over the videos, among which the embedding decides, for each that is chosen."""


def plan_clips(
    store: Store,
    *,
    minutes: float,
    seconds: float = CLIP_S,
    seed: int = 0,
    labelled: Labelled | None = None,
    embedder: Embedder | None = None,
    on_progress: Callable[[int], object] = lambda frames: None,
) -> Clips:
    """Chooses clips for a budget, where animals are seen and nothing is labelled.

    Args:
        store: The recordings.
        minutes: To label.
        seconds: Of a clip.
        seed: Another one draws other clips.
        labelled: What is labelled already.
        embedder: Chooses clips that are typical of all there is in its embedding; None: clips
            drawn by chance.
        on_progress: Called with the number of frames read.

    Raises:
        BadInput: If there is nothing to label.
    """
    fps = store.schema.fps
    free: dict[str, Ints] = {}
    for video in store.videos:
        position = store.read_video(video["name"], features=()).position_TMKX
        taken = without_pose(position, bridge=round(BRIDGE_S * fps))
        if labelled and video["name"] in labelled:
            taken = taken | looked_at(labelled[video["name"]])
        free[video["name"]] = np.where(taken, UNLABELLED, 0).astype(np.int8)
        on_progress(video["frames"])
    frames, rng = round(minutes * 60 * fps), np.random.default_rng([seed, 7])
    drawn = draw_clips if embedder is None else draw_pool
    clips = drawn(free, rng, fps=fps, seconds=seconds, frames=frames)
    if not clips:
        raise BadInput(f"{store.uri}: no frame shows an animal and is unlabelled")
    if embedder is None:
        return clips
    mean: dict[tuple[str, int], Reals] = {}
    for name, spans in clips.items():
        poses = gather_poses(
            store, [name], features=tuple(embedder.external), scaled_to=embedder.features
        )
        z_TD = embed(poses, embedder).arrays["z"]
        mean |= {(name, first): z_TD[first:end].mean(0) for first, end in spans}
    number = max(1, round(frames / (seconds * fps)))
    return choose_clips(clips, lambda name, first, end: mean[name, first], number=number, seed=seed)


def draw_pool(
    labels: Labelled,
    rng: np.random.Generator,
    *,
    fps: float,
    seconds: float = CLIP_S,
    frames: int,
) -> Clips:
    """Clips of :data:`POOL` times a budget, or of all there is, to choose from; arguments as of
    :func:`draw_clips`."""
    there = sum(int(looked_at(y).sum()) for y in labels.values())
    if frames < there:  # of the whole, draw_clips would give stretches, not clips
        frames = min(POOL * frames, there - 1)
    return draw_clips(labels, rng, fps=fps, seconds=seconds, frames=frames)


def choose_clips(
    clips: Clips, mean_of: Callable[[str, int, int], Reals], *, number: int, seed: int = 0
) -> Clips:
    """So many of the clips, each the most typical of what is alike among them: k-means, and the
    clip that is nearest to each centre (Hacohen et al. 2022, Active Learning on a Budget: Opposite
    Strategies Suit High and Low Budgets).

    Args:
        clips: To choose from.
        mean_of: The mean embedding (D,) of a video from a frame to another.
        number: How many.
        seed: Of where the centres begin.
    """
    every = [(name, first, end) for name, spans in clips.items() for first, end in spans]
    mean_ND = np.stack([mean_of(*clip) for clip in every])
    spread_D = mean_ND.std(0)
    mean_ND = (mean_ND - mean_ND.mean(0)) / np.where(spread_D > 0, spread_D, 1)
    centres = KMeans(min(number, len(every)), n_init=3, random_state=seed).fit(mean_ND)
    chosen: Clips = {}
    for n in dict.fromkeys(centres.transform(mean_ND).argmin(0).tolist()):
        name, first, end = every[n]
        chosen.setdefault(name, []).append([first, end])
    return {name: sorted(spans) for name, spans in sorted(chosen.items())}


def write_plan(
    out: Path,
    clips: Clips,
    lengths: Mapping[str, int],
    *,
    fps: float,
    task: str,
    behaviours: Sequence[str] = (),
) -> Path:
    """Writes the clips as a table, which can be filled in, and next to it for BORIS.

    Args:
        out: The table, ``.csv``.
        clips: As :func:`plan_clips` gives them.
        lengths: Frames of each video.
        fps: Frames a second.
        task: The label set that they are for; may be empty.
        behaviours: Its behaviours, as far as they are known.

    Returns:
        The project for BORIS.
    """
    rows = [
        {
            "video": name,
            "start_s": f"{first / fps:.3f}",
            "stop_s": f"{end / fps:.3f}",
            "behaviour": CLIP,
        }
        for name, spans in clips.items()
        for first, end in spans
    ]
    write_csv(out, rows)
    events = {
        name: ([(first, end, CLIP) for first, end in spans], lengths[name], fps)
        for name, spans in clips.items()
    }
    return write_for_boris(out, events, task=task, behaviours=behaviours)


def write_for_boris(
    out: Path,
    videos: Mapping[str, tuple[Events, int, float]],
    *,
    task: str,
    behaviours: Sequence[str],
) -> Path:
    """Writes clips next to the list ``out``, as tabular events and as a project, which it returns;
    arguments as of :func:`write_project`."""
    table, project = out.with_name(f"{out.stem}_boris.csv"), out.with_suffix(".boris")
    write_events(table, videos, task=task, comment="to be labelled")
    write_project(project, videos, task=task, behaviours=behaviours)
    return project


def run_plan(args: argparse.Namespace, out: Path) -> str:
    """What ``suggest.py --plan`` does; the list goes to ``out``. Returns what it says of it."""
    store, seed = Store(paths.absolute_address(args.data)), args.seed or 0
    embedder = None
    if args.encoder:
        own = args.encoder in (HANDMADE, RANDOM)
        source = args.encoder if own else paths.absolute_address(args.encoder)
        embedder, _ = open_encoder(source, store, recipe="contrastive", seed=seed)
    known = problems(store, args.task) if args.task in tasks(store) else []
    with tqdm(total=store.frames, desc="reading", unit="frame", unit_scale=True) as bar:
        clips = plan_clips(
            store,
            minutes=parse_minutes(args.budget),
            seconds=args.clip or CLIP_S,
            seed=seed,
            labelled={v: y for one in known for v, y in {**one.train, **one.test}.items()},
            embedder=embedder,
            on_progress=bar.update,
        )
    lengths = {video["name"]: video["frames"] for video in store.videos}
    project = write_plan(
        out,
        clips,
        lengths,
        fps=store.schema.fps,
        task=args.task or "",
        behaviours=[name for one in known for name in one.classes if name != one.rest],
    )
    frames = sum(end - first for spans in clips.values() for first, end in spans)
    return (
        f"{sum(map(len, clips.values()))} clips of {len(clips)} videos, "
        f"{frames / store.schema.fps / 60:.1f} minutes to label: {out}\nfor BORIS: {project}"
    )
