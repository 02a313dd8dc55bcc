"""Learns an encoder from unlabelled tracks, with Ray Data and Ray Train.

    # simulated mice, this machine, a few minutes
    %(prog)s
    %(prog)s --data STORE --recipe contrastive --out runs/mine
    %(prog)s --data STORE --scale single_node --set workers=4 --set gpu=true
    # go on after an interruption
    %(prog)s --data STORE --out runs/mine --resume
    # print the resolved run, start nothing
    %(prog)s --data STORE --dry-run
    # on a Ray cluster, from a checkout
    ray job submit --working-dir . -- python pretrain/run.py --data /absolute/STORE

Leaves in --out: encoder/ (what `ethoray finetune` takes), checkpoints/, result.json, and what was
logged: train.log, metrics.jsonl.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from pretrain.errors import BadInput, exit_status
from pretrain.runs import paths


def main(words: Sequence[str] | None = None, *, prog: str = "python pretrain/run.py") -> None:
    """Runs the command line ``words``; help and errors call it ``prog``."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--recipe",
        default="contrastive",
        help="what is learned: a name from pretrain/recipes/ or a file (%(default)s)",
    )
    parser.add_argument(
        "--scale", default="laptop", help="where: a name from ray_configs/ or a file (%(default)s)"
    )
    parser.add_argument(
        "--data", help="pose store, a folder or s3://…; left out: a small simulated arena"
    )
    parser.add_argument(
        "--leave-out",
        metavar="test|FILE",
        help="learn nothing from these videos: the test videos of the store's label sets, or the "
        "names in a file, one a line; without it their poses are learned from too, and scores on "
        "them are transductive",
    )
    parser.add_argument("--out", help="folder of this run; left out: runs/pretrain-…")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one key of the recipe or the scale, optimiser.lr=0.002",
    )
    parser.add_argument(
        "--register",
        metavar="NAME[@ALIAS]",
        help="also make it a version of this model in MLflow's registry",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument(
        "--from",
        dest="checkpoint",
        help="with --resume: the checkpoint to go on from, a folder in checkpoints/ (the last)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the resolved run and the batch arithmetic, start nothing",
    )
    args = parser.parse_args(words)

    # Ray and torch take seconds to import, which --help need not wait for.
    from pretrain.cluster.join import cluster
    from pretrain.cluster.preflight import check_storage
    from pretrain.config import RECIPES, SCALES, Recipe, Scale, parse_overrides, plain, read
    from pretrain.data.leave_out import videos_to_leave_out
    from pretrain.data.store import Store
    from pretrain.redact import redacted
    from pretrain.runs.folder import open_run_folder
    from pretrain.runs.mlflow_limits import check_registered_name
    from pretrain.runs.tracked_run import open_tracking
    from pretrain.train.driver import arithmetic, pretrain
    from pretrain.train.learner import new_learner

    if args.checkpoint and not args.resume:
        raise BadInput("--from chooses a checkpoint of a run that goes on: pass --resume too")
    check_registered_name(args.register)
    for_recipe, for_scale = parse_overrides(args.set, Recipe, Scale)
    recipe = read(Recipe, args.recipe, RECIPES, for_recipe)
    scale = read(Scale, args.scale, SCALES, for_scale)
    store = Store(paths.absolute_address(args.data) if args.data else paths.default_store())
    if args.leave_out:
        store = Store(store.address, leave_out=videos_to_leave_out(args.leave_out, store))
    sizes = arithmetic(recipe, scale, store)
    # what cannot be built or read is refused before anything starts
    learner = new_learner(recipe, store)
    out = paths.run_folder(args.out, kind=f"pretrain-{recipe.objective['name']}")
    if args.dry_run:
        resolved = {
            "recipe": plain(recipe),
            "scale": plain(scale),
            "data": store.uri,
            "out": str(out),
            "arithmetic": sizes,
        }
        print(json.dumps(redacted(resolved), indent=1))
        return

    if scale.storage:
        check_storage(paths.absolute_address(scale.storage))
    settings: dict[str, Any] = {"recipe": plain(recipe), "fingerprint": store.fingerprint}
    if store.leave_out:
        settings["leave_out"] = sorted(store.leave_out)
    opened = partial(open_tracking, scale.tracking, runs_folder=out.parent)
    params = plain(recipe) | {"scale": plain(scale)}
    with (
        open_run_folder(out, settings, resume=args.resume),
        cluster(scale, meanwhile=opened) as tracking,
        tracking.start("pretrain", out.name, params=params, folder=out, resume=args.resume) as run,
    ):
        run.log_dataset(store.origin or store.uri, store.fingerprint, store.uri)
        run.set_tags({"ethoray.leave_out": args.leave_out or "nothing"})
        result = pretrain(
            recipe, scale, learner, store=store, out=out, run=run, resume_from=args.checkpoint
        )
        summary = {key: result[key] for key in ("loss", "seconds", "frames_per_s")}
        run.log_metrics(summary, step=sizes["steps"])
        opener = "pretrain.train.embed_video:embed_table"
        run.log_model(out / "encoder", opener=opener, register=args.register)
    print(
        f"encoder: {out / 'encoder'}\nresult:  {out / 'result.json'}\n"
        f"loss {result['loss']:.4f} after {result['frames']:,} frames in "
        f"{result['seconds']:.0f} s\ncompare runs: {tracking.ui_command(run.experiment)}"
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(exit_status(main))
