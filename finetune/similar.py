"""Finds the stretches of a store that are like an example, or those that are like nothing else.

    # the fifty clips that are most like what m1 shows from 12.5 to 14 s
    %(prog)s --data STORE --example m1:12.5-14
    # rare behaviours and tracking errors: clips unlike all other videos
    %(prog)s --data STORE --unlike
    # frames that a model has not seen the like of: new recordings against those it learned from
    %(prog)s --data NEW --unlike STORE --encoder runs/mine

Leaves in --out a list, best first, and next to it the same for BORIS, as `ethoray suggest` does: a
project to open (….boris) and tabular events; what is labelled there goes back into the store
(docs/labelling_loop.md). With --unlike also ….npz with a score for every frame of every video: the
distance to the ten nearest frames of other videos, as a multiple of what is usual; NaN where no
animal is seen. No label is read.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from tqdm import tqdm

from pretrain.errors import BadInput, exit_status
from pretrain.runs import paths


def main(words: Sequence[str] | None = None, *, prog: str = "python finetune/similar.py") -> None:
    """Runs the command line ``words``; help and errors call it ``prog``."""
    args = _parser(prog).parse_args(words)
    if args.number < 1 or not args.seconds > 0:
        raise BadInput("--number must be at least 1, and --seconds above 0")

    import numpy as np

    from finetune.active_learning.clip_list import frame_columns, free_path, write_rows
    from finetune.active_learning.plan import write_for_boris
    from finetune.active_learning.similarity import (
        Reference,
        most_unlike,
        nearest,
        open_embedder,
        parse_example,
    )
    from finetune.fit.open_encoder import HANDMADE, RANDOM
    from pretrain.data.store import Store
    from pretrain.errors import refuse
    from pretrain.readers.score_sheets import CLIP

    store = Store(paths.absolute_address(args.data))
    known = Store(paths.absolute_address(args.unlike)) if args.unlike else store
    refuse(known.schema.differences(store.schema), about=f"{store.uri} does not fit {known.uri}")
    examples = [parse_example(text, store) for text in args.example or ()]
    out = free_path(args.out, "similar", "_boris.csv", ".boris", *[".npz"] * (not examples))
    own = args.encoder in (HANDMADE, RANDOM)
    embedder = open_embedder(args.encoder if own else paths.absolute_address(args.encoder), known)
    fps, lengths = store.schema.fps, {video["name"]: video["frames"] for video in store.videos}
    with tqdm(desc="looking", unit="video") as bar:
        reference = Reference.of(known, embedder, bar.update)
        if examples:
            score = "distance"
            clips = nearest(store, examples, reference, number=args.number, on_progress=bar.update)
        else:
            score = "unlike"
            clips, scores = most_unlike(
                store,
                reference,
                length=max(1, round(args.seconds * fps)),
                number=args.number,
                same_store=known is store,
                on_progress=bar.update,
            )
            with out.with_suffix(".npz").open("wb") as file:
                np.savez_compressed(file, **scores)  # type: ignore[arg-type]
    write_rows(
        out,
        [
            {
                "rank": rank,
                "video": clip.video,
                **frame_columns(clip.start, clip.stop, fps),
                score: f"{clip.score:.4f}",
            }
            for rank, clip in enumerate(clips, 1)
        ],
    )
    events: dict[str, tuple[list[tuple[int, int, str]], int, float]] = {}
    for clip in sorted(clips, key=lambda one: (one.video, one.start)):
        of_video = events.setdefault(clip.video, ([], lengths[clip.video], fps))[0]
        of_video.append((clip.start, clip.stop, CLIP))
    project = write_for_boris(out, events, task=args.task or "", behaviours=[])
    every_frame = "" if examples else f"\nevery frame's score: {out.with_suffix('.npz')}"
    print(f"{len(clips)} clips of {len(events)} videos: {out}\nfor BORIS: {project}{every_frame}")


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, metavar="STORE", help="pose store to look in")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--example",
        nargs="+",
        metavar="VIDEO:START-STOP",
        help="in seconds; several: what is like any of them",
    )
    what.add_argument(
        "--unlike",
        nargs="?",
        const="",
        metavar="STORE",
        help="what is unlike the videos of this store; without a store: unlike all other videos",
    )
    parser.add_argument(
        "--encoder",
        default="handmade",
        metavar="RUN|FOLDER|none|handmade",
        help="what frames are compared by: its embedding, or hand-made features (%(default)s)",
    )
    parser.add_argument("--number", type=int, default=50, help="clips to list (%(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="of a clip of --unlike (%(default)s)"
    )
    parser.add_argument("--task", metavar="NAME", help="label set that the clips are for")
    parser.add_argument(
        "--out", metavar="FILE", help="list to write, .csv; left out: runs/similar-….csv"
    )
    return parser


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(exit_status(main))
