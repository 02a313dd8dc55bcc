r"""Learns initial weights of a head on all behaviours of a store that are *not* asked for; from
them few labels are enough.

    %(prog)s --encoder runs/mine --data STORE --task S1 --out runs/initial
    ethoray finetune --encoder runs/initial --data STORE --task S1 --videos 1 --trials 1 \
        --set start=runs/initial --set optimiser=sgd --set lr=0.1 --set steps=100 \
        --set balanced_sampling=1

Every behaviour of the other label sets, against the rest, is a small task that is fitted in a few
steps, again and again; the weights from which this goes best are the result (MAML, Finn et al.
2017). --method anil learns the head and leaves the encoder as it is, maml learns both. Behaviours
of --task are never among them (with --behaviour: only that one is excluded), nor are videos on
which it is tested; `ethoray finetune` refuses weights that were learned on what it is asked for.

Leaves in --out: start.json, start.safetensors, and the encoder.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from tqdm import tqdm

from finetune.fit.episodes import Episodes
from pretrain.errors import BadInput, exit_status
from pretrain.runs import paths

log = logging.getLogger(__name__)


def main(
    words: Sequence[str] | None = None, *, prog: str = "python finetune/meta_learn.py"
) -> None:
    """Runs the command line ``words``; help and errors call it ``prog``."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--encoder",
        required=True,
        metavar="RUN|FOLDER|none",
        help="pretraining run or encoder folder; none: random weights",
    )
    parser.add_argument(
        "--data", required=True, help="pose store with several label sets, or several behaviours"
    )
    parser.add_argument("--task", required=True, help="the label set that the weights are for")
    parser.add_argument(
        "--behaviour",
        nargs="+",
        default=[],
        help="behaviours of it that the weights are for; left out: all",
    )
    parser.add_argument(
        "--method",
        choices=["anil", "maml"],
        default="anil",
        help="anil: the head; maml: the encoder too (%(default)s)",
    )
    parser.add_argument(
        "--out", required=True, help="folder of the weights; must not hold some already"
    )
    parser.add_argument("--seed", type=int, default=42, help="of weights and windows (%(default)s)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one key of the task (head.name=mlp, window=128) or of the episodes ("
        + ", ".join(f"{field.name}={field.default}" for field in fields(Episodes))
        + ")",
    )
    args = parser.parse_args(words)

    # Torch takes seconds to import, which --help need not wait for.
    import numpy as np
    import torch

    from finetune.fit.fit import Model
    from finetune.fit.frames import embed, gather_poses
    from finetune.fit.initial_weights import save_initial_weights
    from finetune.fit.meta_learning import meta_learn, other_behaviours
    from finetune.fit.open_encoder import RANDOM, open_encoder
    from finetune.heads import build_head, without_annotators
    from finetune.labels.problems import problems, tasks
    from finetune.settings import TASKS, Tuning, task_file
    from pretrain.config import make, parse_overrides, plain, read
    from pretrain.data.store import Store
    from pretrain.train.checkpoint import save_encoder

    for_tuning, for_episodes = parse_overrides(args.set, Tuning, Episodes)
    tuning, episodes = (
        read(Tuning, task_file(args.task), TASKS, for_tuning),
        make(Episodes, for_episodes, about="--set"),
    )
    store = Store(paths.absolute_address(args.data))
    target = problems(store, args.task)
    behaviours = other_behaviours(
        [problem for task in tasks(store) for problem in problems(store, task)],
        target,
        behaviours=args.behaviour,
    )
    out = Path(paths.absolute_address(args.out))
    if (out / "start.json").exists():
        raise BadInput(f"{out} holds initial weights already: give another --out")
    source = args.encoder if args.encoder == RANDOM else paths.absolute_address(args.encoder)
    embedder, about = open_encoder(source, store, recipe=tuning.recipe, seed=args.seed)
    settings = without_annotators(tuning.head)
    torch.manual_seed(args.seed)
    head = build_head(settings, embedder.dim, [2])
    if not head.by_gradient:
        raise BadInput(
            f"head: {settings['name']} is not fitted by gradient steps, so it has no initial "
            "weights: choose another, --set head.name=mlp"
        )

    names = sorted({video for problem in behaviours for video in problem.train})
    number = sum(store.videos[store.video_index(name)]["frames"] for name in names)
    train_encoder = args.method == "maml"
    with tqdm(
        total=number * (1 if train_encoder else 2),
        desc="reading labelled videos",
        unit="frame",
        unit_scale=True,
    ) as bar:
        frames = gather_poses(
            store,
            names,
            features=tuple(embedder.external),
            scaled_to=embedder.features,
            on_progress=bar.update,
        )
        if not train_encoder:
            frames = embed(frames, embedder, on_progress=bar.update)
    model = Model(head, embedder if train_encoder else None)
    with tqdm(total=episodes.meta_steps, desc=args.method, unit="step") as bar:
        losses, lr = meta_learn(
            model,
            frames,
            behaviours,
            tuning,
            episodes,
            seed=args.seed,
            on_progress=lambda loss: bar.update(),
        )
    tenth = max(1, len(losses) // 10)
    first, last = float(np.mean(losses[:tenth])), float(np.mean(losses[-tenth:]))
    if not last < first:
        log.warning(
            "the loss has not fallen (%.3f, in the end %.3f): try more meta_steps or a smaller "
            "outer_lr; these weights do not help",
            first,
            last,
        )

    save_encoder(out, embedder, made_by={**about, args.method: args.task})
    save_initial_weights(
        out,
        head,
        head_settings=settings,
        about={
            "method": args.method,
            "task": args.task,
            "behaviours": sorted({problem.classes[1] for problem in behaviours}),
            "problems": [problem.name for problem in behaviours],
            "episodes": plain(episodes),
            "seed": args.seed,
            "loss": [first, last],
            "lr": lr,
            "data": store.uri,
            "fingerprint": store.fingerprint,
        },
    )
    more = "".join(f" --set {word}" for word in args.set if word.startswith("head"))
    print(
        f"learned on {len(behaviours)} behaviours: "
        f"{', '.join(problem.name for problem in behaviours)}\n"
        f"loss on windows of other videos after {episodes.inner_steps} steps: {first:.3f}, "
        f"in the end {last:.3f}\n"
        f"go on: ethoray finetune --encoder {out} --data {args.data} --task {args.task} "
        f"--trials 1 --set start={out} "
        f"--set optimiser=sgd --set lr={lr:.3g} --set steps={20 * episodes.inner_steps} --set "
        f"balanced_sampling=1{more}"
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(exit_status(main))
