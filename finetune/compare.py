r"""Compares encoders, or pretraining recipes and networks, by the scores they reach on few labels.

Finished encoders. Each is tuned as `ethoray finetune` does it, on every task and label budget, with
the same drawn videos, seeds and search:

    %(prog)s --encoders runs/mine none handmade --data STORE \
        --tasks S1 S2 --videos 1 3 all --out runs/compare

`none` is the same network from random weights, `handmade` no network at all. --modes adds encoders
that are trained along, and permuted labels: training labels rolled in time, what is scored when
labels mean nothing. What is in --out already is not computed again.

Recipes and networks, before any long pretraining. Each pair learns from all frames of the store,
without labels, for --minutes of one processor, so that a slow network makes fewer steps:

    %(prog)s --recipes contrastive masked \
        --networks tcn two_rate '{name: lstm, width: 64}' --data STORE --tasks S1 \
        --videos 3 --minutes 2 --out runs/objectives

Then, for every seed, --videos labelled videos are drawn, the same for all pairs, and a linear head
is fitted: on the frozen encoder (probe), with the encoder trained along (tuned), and on the frozen
encoder with permuted labels. Random weights of every network and hand-made features are judged
likewise. A quarter of the training videos is kept from all heads: choose by the scores on these
(table.csv, validation_…), and read those on the test videos, in table.md, afterwards. --recipes or
--networks without names, or left out beside the other, takes the usual ones.

Both leave table.md, table.csv and table.png in --out, with chance: the MAP of a random scorer,
which is the share of positive frames.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from pretrain.errors import BadInput, exit_status, refuse
from pretrain.runs import paths

RECIPES = ["contrastive", "cpc", "masked", "multi_timescale", "task_programming", "combined"]
NETWORKS = ["tcn", "gated_conv", "two_rate", "conv1d", "self_attention"]
# Options that only one of the two comparisons has, with their defaults.
FOR_ENCODERS = {"modes": ["frozen"], "frozen_set": [], "trained_set": []}
FOR_PAIRS = {"minutes": 1.0, "seeds": 3, "steps": 300, "tuned_steps": 150, "set": []}


def main(words: Sequence[str] | None = None, *, prog: str = "python finetune/compare.py") -> None:
    """Runs the command line ``words``; help and errors call it ``prog``."""
    args = parse(words, prog)

    # Ray and torch take seconds to import, which --help need not wait for.
    from finetune.compare_objectives.finished_encoders import compare_encoders
    from finetune.compare_objectives.pairs import compare_pairs, pairs
    from pretrain.config import SCALES, Scale, read
    from pretrain.data.store import Store

    scale = read(Scale, args.scale, SCALES, {})
    out = paths.run_folder(args.out, kind="compare")
    if args.encoders:
        settings = {
            "frozen": args.frozen_set,
            "trained": [*args.trained_set, "frozen=false"],
            "permuted": [*args.frozen_set, "permute_labels=true"],
        }
        compare_encoders(
            args.encoders,
            tasks=args.tasks,
            budgets=args.videos,
            settings={mode: settings[mode] for mode in args.modes},
            words=["--scale", args.scale, *(["--data", args.data] if args.data else [])],
            scale=scale,
            out=out,
        )
    else:
        store = Store(paths.absolute_address(args.data) if args.data else paths.default_store())
        compare_pairs(
            pairs(args.recipes, args.networks, args.set, store.schema),
            store,
            scale,
            task=args.tasks[0],
            videos=None if args.videos == ["all"] else int(args.videos[0]),
            minutes=args.minutes,
            seeds=args.seeds,
            steps=args.steps,
            tuned_steps=args.tuned_steps,
            out=out,
            resume=args.resume,
        )
    print(
        f"{(out / 'table.md').read_text(encoding='utf-8')}\n"
        f"table:   {out / 'table.csv'}\npicture: {out / 'table.png'}"
    )


def parse(
    words: Sequence[str] | None, prog: str = "python finetune/compare.py"
) -> argparse.Namespace:
    """The command line, with the defaults of the comparison that it asks for.

    Raises:
        BadInput: If it asks for both comparisons or for none, or a value is out of range.
    """
    args = _parser(prog).parse_args(words)
    of_pairs = args.recipes is not None or args.networks is not None
    if of_pairs == bool(args.encoders):
        raise BadInput(
            "give either --encoders, finished encoders to be tuned, or --recipes, --networks or "
            "both: pairs that learn here, for --minutes each"
        )
    own, other = (FOR_PAIRS, FOR_ENCODERS) if of_pairs else (FOR_ENCODERS, FOR_PAIRS)
    wants = "--encoders" if of_pairs else "--recipes or --networks"
    errors = [
        f"--{name.replace('_', '-')} goes with {wants}"
        for name in other
        if getattr(args, name) is not None
    ]
    for name, default in own.items():
        if getattr(args, name) is None:
            setattr(args, name, default)
    errors += [
        f"--videos {videos}: give a number of labelled videos, at least 1, or all"
        for videos in args.videos
        if videos != "all" and not (videos.isdecimal() and int(videos))
    ]
    if of_pairs:
        args.recipes, args.networks = args.recipes or RECIPES, args.networks or NETWORKS
        errors += [
            f"--{name} {' '.join(values)}: --recipes and --networks take one"
            for name, values in (("tasks", args.tasks), ("videos", args.videos))
            if len(values) > 1
        ]
        errors += [] if args.minutes > 0 else [f"--minutes is {args.minutes}; it must be above 0"]
        errors += [
            f"--{name.replace('_', '-')} is {getattr(args, name)}; it must be at least 1"
            for name in ("seeds", "steps", "tuned_steps")
            if getattr(args, name) < 1
        ]
    elif set(args.encoders) == {"handmade"} and set(args.modes) == {"trained"}:
        errors.append("hand-made features have no weights to train: leave --modes frozen")
    refuse(errors, about="the comparison")
    return args


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="pose store with labels; left out: a small simulated arena")
    parser.add_argument(
        "--tasks", nargs="+", required=True, help="label sets of the store; with --recipes one"
    )
    parser.add_argument(
        "--videos",
        nargs="+",
        default=["all"],
        metavar="N|all",
        help="label budgets: as many labelled videos, drawn with the seed (all)",
    )
    parser.add_argument(
        "--scale", default="laptop", help="where: a name from ray_configs/ or a file (%(default)s)"
    )
    parser.add_argument("--out", help="folder of the comparison; left out: runs/compare-…")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with what is in --out; further recipes and networks may be named. With "
        "--encoders that is always so",
    )
    encoders = parser.add_argument_group("finished encoders")
    encoders.add_argument(
        "--encoders",
        nargs="+",
        metavar="RUN|FOLDER|none|handmade",
        help="pretraining runs or encoder folders; none: random weights; handmade: no network",
    )
    encoders.add_argument(
        "--modes",
        nargs="+",
        choices=["frozen", "trained", "permuted"],
        help="encoder frozen, trained along, frozen with permuted labels (frozen)",
    )
    encoders.add_argument(
        "--frozen-set",
        nargs="*",
        metavar="KEY=VALUE",
        help="settings of frozen runs, trials=4 steps=200",
    )
    encoders.add_argument(
        "--trained-set",
        nargs="*",
        metavar="KEY=VALUE",
        help="settings of trained runs, trials=1 steps=150",
    )
    learning = parser.add_argument_group("recipes and networks")
    learning.add_argument(
        "--recipes",
        nargs="*",
        metavar="NAME|FILE",
        help=f"columns: pretraining recipes; without names: {' '.join(RECIPES)}",
    )
    learning.add_argument(
        "--networks",
        nargs="*",
        metavar="NAME|YAML",
        help=f"rows: encoders of pretrain/encoders/; without names: {' '.join(NETWORKS)}",
    )
    learning.add_argument(
        "--minutes", type=float, help="time of one processor that each pair learns for (1)"
    )
    learning.add_argument("--seeds", type=int, metavar="N", help="draws of labelled videos (3)")
    learning.add_argument("--steps", type=int, metavar="N", help="steps of the linear head (300)")
    learning.add_argument(
        "--tuned-steps",
        type=int,
        metavar="N",
        help="steps where the encoder is trained along (150)",
    )
    learning.add_argument(
        "--set",
        action="append",
        metavar="RECIPE.KEY=VALUE",
        help="change a key of one recipe, masked.objective.block=8",
    )
    return parser


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(exit_status(main))
