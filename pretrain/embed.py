"""Embeds every frame of a store with a pretrained encoder: for other tools, or as features that
heads and networks read as well as poses.

    # a .npy for each video, (frames, D)
    %(prog)s --encoder runs/mine --data STORE --out embeddings
    # into the store, as external features
    %(prog)s --encoder runs/mine --data STORE --as mine
    %(prog)s --encoder runs/treba --data STORE --as task_programming --components 32

What is in the store is read by heads with `ethoray finetune --set 'extra_features=[mine]'`, and by
the paper's networks where it is called task_programming (`ethoray reproduce`). --components keeps
that many principal components of the embedding, fitted on frames from all over the store (but for
videos that pretraining left out) and brought to unit spread. --videos 'mouse0*' embeds some videos
only; elsewhere the features are unknown. Each frame is embedded once. No label is read.
"""

from __future__ import annotations

import argparse
import fnmatch
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from pretrain.errors import BadInput, exit_status, refuse
from pretrain.runs import paths

if TYPE_CHECKING:
    from pretrain.data.schema import Float


def main(words: Sequence[str] | None = None, *, prog: str = "python pretrain/embed.py") -> None:
    """Runs the command line ``words``; help and errors call it ``prog``."""
    args = _parser(prog).parse_args(words)

    import numpy as np
    import torch

    from pretrain.data.external_features import append_features, refuse_existing
    from pretrain.data.leave_out import fingerprints, joined
    from pretrain.data.recording_file import recording_file
    from pretrain.data.store import Store
    from pretrain.train.checkpoint import load_encoder
    from pretrain.train.embed_store import embed_stored, fit_components
    from pretrain.train.learner import check_external_features
    from pretrain.transforms.units import refuse_unknown_scale

    refuse(
        (["give --out FOLDER, or --as NAME, or both"] if not (args.out or args.name) else [])
        + (
            [f"--components is {args.components}; it must be at least 1"]
            if args.components is not None and args.components < 1
            else []
        ),
        about="nothing to do",
    )
    store = Store(paths.absolute_address(args.data))
    embedder, about = load_encoder(paths.absolute_address(args.encoder), store.schema)
    check_external_features(embedder.external, store)
    refuse_unknown_scale(embedder.features, store)
    videos = [video for video in store.videos if fnmatch.fnmatchcase(video["name"], args.videos)]
    if not videos:
        raise BadInput(
            f"--videos {args.videos}: no video of the store has such a name; it has "
            f"{', '.join(v['name'] for v in store.videos[:5])} …"
        )
    if args.components and args.components > embedder.dim:
        raise BadInput(f"--components is {args.components}, the embedding has {embedder.dim}")
    if args.name:
        refuse_existing(store, args.name)
    out = Path(paths.absolute_address(args.out)) if args.out else None
    if out is not None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise BadInput(f"{out} already holds something: choose another --out")
        out.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    embedder = embedder.to(device).eval()
    learned_from, fit_on = about.get("made_by", {}).get("learned_from"), store
    if args.components and learned_from is not None:
        # Components see no video that the encoder did not see, if it saw any of this store.
        prints = fingerprints(store, [video["name"] for video in store.videos])
        unseen = [name for name in prints if not prints[name] & set(learned_from)]
        if len(unseen) < len(prints):
            fit_on = Store(store.address, leave_out=unseen)
        else:
            learned_from = sorted({*learned_from, *joined(prints)})
    components = (
        fit_components(embedder, fit_on, args.components, device=device)
        if args.components
        else None
    )
    dim = args.components or embedder.dim
    frames = sum(video["frames"] for video in videos)
    with tqdm(total=frames, desc="embedding", unit="frame", unit_scale=True) as bar:

        def embeddings() -> Iterator[tuple[str, Float]]:
            for video in videos:
                name = video["name"]
                z_TD = embed_stored(embedder, store, name, components, device=device)
                if out is not None:
                    file = recording_file(out, name, ".npy")
                    file.parent.mkdir(parents=True, exist_ok=True)
                    np.save(file, z_TD)
                bar.update(len(z_TD))
                yield name, z_TD

        if args.name:
            append_features(store, args.name, embeddings(), learned_from=learned_from)
        else:
            for _ in embeddings():
                pass
    total = f"{frames:,} frames of {len(videos)} videos, {dim} numbers each"
    if out is not None:
        print(f"{out}: {total}")
    if args.name:
        print(
            f"{store.uri}: features {args.name}: {total}; heads read them: ethoray finetune --set "
            f"'extra_features=[{args.name}]'"
        )


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--encoder", required=True, metavar="RUN|FOLDER", help="pretraining run or encoder folder"
    )
    parser.add_argument("--data", required=True, help="pose store, a folder or s3://…")
    parser.add_argument("--out", metavar="FOLDER", help="write one .npy a video")
    parser.add_argument(
        "--as", dest="name", metavar="NAME", help="add them to the store as features of that name"
    )
    parser.add_argument(
        "--components",
        type=int,
        metavar="N",
        help="keep N principal components; left out: the whole embedding",
    )
    parser.add_argument(
        "--videos", default="*", metavar="PATTERN", help="only videos whose name fits (%(default)s)"
    )
    return parser


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(exit_status(main))
