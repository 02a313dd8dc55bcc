"""Which objective, on which encoder? Lets each pair learn for the same time and judges all of them
with the same heads on few labels.

    python finetune/grid.py --data STORE --task S1 --out runs/grid
    python finetune/grid.py --data STORE --task S1 --recipes contrastive masked --encoders tcn
    two_rate '{name: lstm, width: 64}' \
        --minutes 2 --videos 3 --out runs/grid
    python finetune/grid.py … --resume                    what is there already is not computed
    again

A column is a recipe of pretrain/recipes/ (its objective, features, augmentation and optimiser), a
row an encoder. Every pair learns from all frames of the store, without labels, for --minutes of one
processor, so that a dear encoder makes fewer steps. Then, for every seed, --videos labelled videos
are drawn, the same for all, and a linear head is fitted: on the frozen encoder (probe), with the
encoder trained along (tuned), and on the frozen encoder with labels that were rolled in time
(permuted: what is scored when labels mean nothing). Beside them stand random weights of the same
network, hand-made features and chance.

A quarter of the training videos is kept from all heads: choose by the scores on these (table.csv,
validation_…), and read those on the test videos, which table.md shows, afterwards.

Leaves in --out: table.md, table.csv, table.png, cells/*.json.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from finetune.compare_objectives.cell import Cell, ProbeProtocol
from finetune.compare_objectives.jobs import deal
from finetune.compare_objectives.table import write_table
from finetune.fit.frames import gather_poses
from finetune.fit.open_encoder import HANDMADE
from finetune.labels.problems import hold_out, problems, refuse_unfit, with_some_test
from finetune.settings import TASKS, Tuning, task_file
from pretrain.components import find
from pretrain.config import RECIPES, SCALES, Recipe, Scale, plain, read
from pretrain.data.store import Store
from pretrain.encoders import AbstractEncoder
from pretrain.errors import BadInput, exit_status, refuse
from pretrain.runs import paths
from pretrain.runs.folder import open_run_folder
from pretrain.runs.tracked_run import open_tracking
from pretrain.train.cluster import cluster
from pretrain.train.learner import build_unfitted

log = logging.getLogger(__name__)

OBJECTIVES = ["contrastive", "cpc", "masked", "multi_timescale", "task_programming", "combined"]
ENCODERS = ["tcn", "gated_conv", "two_rate", "conv1d", "self_attention"]
RANDOM, BY_HAND = "random weights", "hand-made features"


def main(words: list[str] | None = None) -> None:
    """Runs the command line ``words``."""
    args = _parser().parse_args(words)
    refuse(
        [
            f"--{name} is {value}; it must be {least}"
            for name, value, ok, least in (
                ("minutes", args.minutes, args.minutes > 0, "above 0"),
                ("seeds", args.seeds, args.seeds >= 1, "at least 1"),
                ("steps", args.steps, args.steps >= 1, "at least 1"),
                ("tuned-steps", args.tuned_steps, args.tuned_steps >= 1, "at least 1"),
            )
            if not ok
        ],
        about="the grid",
    )
    store = Store(paths.absolute_address(args.data) if args.data else paths.default_store())
    scale = read(Scale, args.scale, SCALES, {})
    cells = _cells(args)
    for cell in cells:
        build_unfitted(cell.recipe, store)  # what cannot be built is said before anything starts
    judges, notes = _judges(args, store)
    for sentence in notes:
        log.warning("%s", sentence)
    asked = {
        "fingerprint": store.fingerprint,
        "task": args.task,
        "videos": args.videos,
        "minutes": args.minutes,
        "seeds": args.seeds,
        "steps": args.steps,
        "tuned_steps": args.tuned_steps,
    }
    out = paths.run_folder(args.out, kind="grid")
    gpus = scale.gpus_per_trial if scale.gpu else 0
    opened = partial(open_tracking, scale.tracking, runs_folder=out.parent)
    with (
        open_run_folder(out, asked, resume=args.resume),
        cluster(scale, cpus_wanted=1, gpus_wanted=gpus, meanwhile=opened) as tracking,
    ):
        params = {**asked, "cells": {cell.name: plain(cell.recipe) for cell in cells}}
        with tracking.start(
            f"grid {args.task}", out.name, params=params, folder=out, resume=args.resume
        ) as run:
            run.log_dataset(store.origin or store.uri, store.fingerprint, store.uri)
            videos = sorted(
                {
                    name
                    for p, held in zip(judges.problems, judges.validation, strict=True)
                    for name in (*p.train, *p.test, *held)
                }
            )
            poses = gather_poses(store, videos)
            found: list[dict[str, Any]] = []

            def finished(result: dict[str, Any]) -> None:
                found.append(result)
                write_table(out, found, asked, origin=store.origin or store.uri)
                for mode, sides in result["modes"].items():
                    name = f"{result['column']}/{result['row']}/{mode}"
                    run.log_metrics(
                        {f"{name} {key}": sides["test"][key] for key in ("macro_f1", "map")}, step=0
                    )

            deal(
                cells,
                store,
                poses,
                judges,
                scale,
                out=out,
                seconds=60 * args.minutes,
                finished=finished,
            )
            for name in ("table.md", "table.csv", "table.png"):
                run.log_artifact(out / name)
    print(
        f"{(out / 'table.md').read_text(encoding='utf-8')}\ntable:   "
        f"{out / 'table.csv'}\npicture: {out / 'table.png'}\n"
        f"compare runs: {tracking.ui_command()}"
    )


def _cells(args: argparse.Namespace) -> list[Cell]:
    """All pairs, with random weights first and hand-made features last."""
    changes = _changes(args.set, args.recipes)
    recipes = {
        Path(name).stem: read(Recipe, name, RECIPES, changes.get(Path(name).stem, {}))
        for name in args.recipes
    }
    encoders = dict(map(_encoder, args.encoders))
    plainest = next(iter(recipes.values()))
    cells = [
        Cell(column=RANDOM, row=row, recipe=_with(plainest, spec), learns=False)
        for row, spec in encoders.items()
    ]
    cells += [
        Cell(column=column, row=row, recipe=_with(recipe, spec), learns=True)
        for column, recipe in recipes.items()
        for row, spec in encoders.items()
    ]
    return [
        *cells,
        Cell(
            column=BY_HAND,
            row="-",
            recipe=replace(plainest, encoder={"name": HANDMADE}),
            learns=False,
        ),
    ]


def _encoder(text: str) -> tuple[str, Mapping[str, Any]]:
    """A name, or ``{name: lstm, width: 64}``."""
    try:
        spec = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadInput(f"--encoders {text}: cannot be read: {error}") from error
    spec = {"name": spec} if isinstance(spec, str) else spec
    if not isinstance(spec, dict) or not isinstance(spec.get("name"), str):
        raise BadInput(
            f"--encoders {text}: give a name, or its settings with a name: "
            f"'{{name: lstm, width: 64}}'"
        )
    said = ", ".join(f"{key} {value}" for key, value in spec.items() if key != "name")
    return spec["name"] + (f" ({said})" if said else ""), spec


def _with(recipe: Recipe, encoder: Mapping[str, Any]) -> Recipe:
    """The recipe with another encoder, and with the groups of features that this one cannot do
    without."""
    groups = list(recipe.features.get("groups", ()))
    wanted = vars(find("pretrain.encoders", encoder["name"], AbstractEncoder)).get("groups", ())
    missing = [name for name in wanted if groups and name not in groups]
    return replace(
        recipe,
        encoder=encoder,
        features={**recipe.features, **({"groups": [*groups, *missing]} if missing else {})},
    )


def _changes(pairs: Sequence[str], recipes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``--set RECIPE.KEY=VALUE`` by recipe."""
    found: dict[str, dict[str, Any]] = {}
    known = [Path(name).stem for name in recipes]
    for pair in pairs:
        key, equals, text = pair.partition("=")
        name, _, rest = key.partition(".")
        if not equals or name not in known or not rest:
            raise BadInput(
                f"--set {pair}: write it as RECIPE.KEY=VALUE, with a recipe of --recipes: "
                f"{', '.join(known)}"
            )
        found.setdefault(name, {})[rest] = yaml.safe_load(text)
    return found


def _judges(args: argparse.Namespace, store: Store) -> tuple[ProbeProtocol, list[str]]:
    found, notes = with_some_test(problems(store, args.task), fps=store.schema.fps)
    notes += refuse_unfit(found, videos=args.videos)
    probe = read(
        Tuning,
        task_file(args.task),
        TASKS,
        {
            "head": {"name": "linear"},
            "search": {},
            "steps": args.steps,
            "seeds": args.seeds,
            "trials": 1,
        },
    )
    parts = [hold_out(problem, share=probe.validation, seed=0) for problem in found]
    judges = ProbeProtocol(
        problems=[part for part, _ in parts],
        validation=[held for _, held in parts],
        videos=args.videos,
        probe=probe,
        tuned=replace(probe, frozen=False, steps=args.tuned_steps),
    )
    return judges, notes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="pose store with labels; left out: a small simulated arena")
    parser.add_argument("--task", required=True, help="label set of the store")
    parser.add_argument(
        "--recipes",
        nargs="+",
        default=OBJECTIVES,
        metavar="NAME|FILE",
        help="columns (%(default)s)",
    )
    parser.add_argument(
        "--encoders", nargs="+", default=ENCODERS, metavar="NAME|YAML", help="rows (%(default)s)"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=1.0,
        help="time of one processor that every pair learns for (%(default)s)",
    )
    parser.add_argument(
        "--videos",
        type=int,
        metavar="N",
        help="label budget: N labelled videos, drawn with the seed; left out: all",
    )
    parser.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="draws of labelled videos (%(default)s)"
    )
    parser.add_argument(
        "--steps", type=int, default=300, help="steps of the linear head (%(default)s)"
    )
    parser.add_argument(
        "--tuned-steps",
        type=int,
        default=150,
        help="steps where the encoder is trained along (%(default)s)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="RECIPE.KEY=VALUE",
        help="change a key of one recipe",
    )
    parser.add_argument(
        "--scale",
        default="laptop",
        help="where: a name from ray_configs/ or a file; its trials are cells (%(default)s)",
    )
    parser.add_argument("--out", help="folder of the grid; left out: runs/grid-…")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with what is in --out; further recipes and encoders may be named",
    )
    return parser


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(exit_status(main))
