"""Embeds every frame of a store with a pretrained encoder: for other tools, or as features that
heads and networks read beside poses.

    python pretrain/embed.py --encoder runs/mine --data STORE --out embeddings
    one .npy a video, (frames, D)
    python pretrain/embed.py --encoder runs/mine --data STORE --as mine
    into the store, as features `mine`
    python pretrain/embed.py --encoder runs/treba --data STORE --as task_programming --components 32

What is in the store is read by heads with `finetune/run.py --set 'extra_features=[mine]'`, and by
the paper's networks where it is called task_programming (finetune/reproduce.py). --components keeps
that many principal components of the embedding, fitted on frames from all over the store and
brought to unit spread. --videos 'mouse0*' embeds some videos only; elsewhere the features are
unknown. Each frame is embedded once. No label is read.
"""

from __future__ import annotations

import argparse
import fnmatch
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pretrain.data.external_features import append_features, refuse_existing
from pretrain.data.sample import sample
from pretrain.data.schema import Float
from pretrain.data.store import Store
from pretrain.encoders import Embedder
from pretrain.errors import BadInput, exit_status, refuse
from pretrain.runs import paths
from pretrain.train.checkpoint import load_encoder
from pretrain.train.embed_video import PrincipalComponents, embed_video
from pretrain.train.learner import check_external_features

log = logging.getLogger(__name__)


def main(words: list[str] | None = None) -> None:
    """Runs the command line ``words``."""
    args = _parser().parse_args(words)
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
    embedder, _ = load_encoder(paths.absolute_address(args.encoder), store.schema)
    check_external_features(embedder.external, store)
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
    out = Path(args.out).expanduser() if args.out else None
    if out is not None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise BadInput(f"{out} already holds something: choose another --out")
        out.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    embedder = embedder.to(device).eval()
    components = (
        _fit_components(embedder, store, args.components, device) if args.components else None
    )
    dim = args.components or embedder.dim
    frames = sum(video["frames"] for video in videos)
    with tqdm(total=frames, desc="embedding", unit="frame", unit_scale=True) as bar:

        def embeddings() -> Iterator[tuple[str, Float]]:
            for video in videos:
                name = video["name"]
                z_TD = _embed(embedder, components, store, name, device)
                if out is not None:
                    np.save(out / f"{quote(name, safe='')}.npy", z_TD)
                bar.update(len(z_TD))
                yield name, z_TD

        if args.name:
            append_features(store, args.name, embeddings())
        else:
            for _ in embeddings():
                pass
    total = f"{frames:,} frames of {len(videos)} videos, {dim} numbers each"
    if out is not None:
        print(f"{out}: {total}")
    if args.name:
        print(
            f"{store.uri}: features {args.name}: {total}; heads read them: finetune/run.py --set "
            f"'extra_features=[{args.name}]'"
        )


def _fit_components(
    embedder: Embedder, store: Store, number: int, device: str
) -> PrincipalComponents:
    pose = sample(store, seed=0, features=tuple(embedder.external))
    pieces = []
    for b in range(len(pose.position_BTMKX)):
        frames = _frames(
            pose.position_BTMKX[b],
            pose.confidence_BTMK[b],
            None if pose.extra_BTE is None else pose.extra_BTE[b],
        )
        # where nothing was seen there is nothing to learn
        seen_T = frames["position"].isfinite().flatten(1).any(1)
        pieces.append(embed_video(embedder, frames, device=device).cpu()[seen_T])
    components = PrincipalComponents(embedder.dim, number)
    share = components.fit(torch.cat(pieces))
    log.info(
        "%d principal components hold %.1f %% of the variance of the embedding", number, 100 * share
    )
    return components


def _frames(
    position_TMKX: Tensor, confidence_TMK: Tensor, extra_TE: Tensor | None
) -> dict[str, Tensor]:
    frames = {"position": position_TMKX, "confidence": confidence_TMK}
    return frames if extra_TE is None else {**frames, "extra": extra_TE}


def _embed(
    embedder: Embedder, components: PrincipalComponents | None, store: Store, name: str, device: str
) -> Float:
    """Embeddings of a video, (T, D)."""
    features = tuple(embedder.external)
    video = store.read_video(name, features=features)
    extra = np.concatenate([video.features[key] for key in features], 1) if features else None
    frames = _frames(
        torch.from_numpy(video.position_TMKX),
        torch.from_numpy(video.confidence_TMK.astype(np.float32)),
        None if extra is None else torch.from_numpy(extra),
    )
    z_TD = embed_video(embedder, frames, device=device).cpu()
    return (z_TD if components is None else components(z_TD)).numpy()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
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
