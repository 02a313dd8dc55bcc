"""How accurate classifiers are on recordings that nobody labelled, at every label budget: hand-made
features under each head, encoders alone and next to the features, and controls.

    python benchmarks/accuracy.py --data STORE --task S1                     the whole, hours
    python benchmarks/accuracy.py --data STORE --task S1 --quick             two draws, few rows
    python benchmarks/accuracy.py --data STORE --task S1 --encoder runs/mine runs/other
    python benchmarks/accuracy.py --data STORE --task S1 --ablation --budgets 3 all
    python benchmarks/accuracy.py --data STORE --task S2 --refines S1:aggression --budgets all
    python benchmarks/accuracy.py --data TRACKS --prepare '--fps 30 --unscored S1:base' --task S1

All labelled videos, whichever side of the store's split they are on, are dealt to folds; recordings
stay whole. A fit learns from 1 or 3 videos, from one video's labelled minutes as clips of 17 s out
of many videos, or from all videos of the other folds, and is scored on its own fold, on labelled
frames at 5 Hz: macro F1 / MAP without the rest class. 1, 3 and clips are the mean of several draws;
all pools the folds. The split is written to --out before the first fit, and every result names it.
What is in --out already is not fitted again: the same command goes on after an interruption, and
after --quick the whole fits only what is lacking.

In --out: table.md, table.csv, table.png, result.json, failing_bouts.png (bouts the first row is
surest of that were labelled otherwise), and a file for each fit in cells/.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import accuracy_protocol as protocol
import accuracy_split
import measure
import numpy as np
from accuracy_ablation import columns_of
from accuracy_report import write_report
from tqdm import tqdm

from finetune.fit.frames import Frames, embed, gather_poses, recordings
from finetune.fit.open_encoder import HANDMADE, RANDOM, open_encoder
from finetune.labels.problems import Problem, problems
from finetune.labels.refine import with_parent
from finetune.search.ray_jobs import run_jobs
from pretrain import prepare
from pretrain.cluster.join import cluster
from pretrain.config import RECIPES, SCALES, Recipe, Scale, read
from pretrain.data.sample import sample
from pretrain.data.store import Store
from pretrain.encoders import Embedder, build_embedder
from pretrain.errors import BadInput, exit_status, refuse
from pretrain.redact import write_json
from pretrain.runs import paths
from pretrain.runs.tracked_run import open_tracking

RECIPE = "contrastive"
OLD_ENCODER = {"name": HANDMADE, "means": [0.5, 2.0], "spreads": [], "extremes": [], "shifts": []}


def main(words: Sequence[str] | None = None) -> None:
    """Runs the command line ``words``."""
    args = parse(words)
    out = paths.run_folder(args.out, kind="accuracy")
    (out / "cells").mkdir(parents=True, exist_ok=True)
    store = open_store(args.data, args.prepare, out)
    scale = read(Scale, args.scale, SCALES, {})
    asked = all_labelled(store, args.task, args.refines)
    poses = gather_poses(store, sorted({v for problem in asked for v in problem.train}))
    poses, asked = accuracy_split.cut_into_stretches(poses, asked, args.stretches)
    encoders = named(args.encoder)
    planned = any(accuracy_split.PLANNED in budget for budget in args.budgets)
    embedded = embed_all(poses, store, {protocol.FEATURES} if planned else set(), encoders)
    if args.split:
        split = accuracy_split.read_split(args.split, asked, budgets=args.budgets)
    else:
        split = accuracy_split.draw_split(
            asked,
            accuracy_split.grouped_folds(list(poses.spans), recordings(poses), folds=args.folds),
            budgets=args.budgets,
            draws=args.draws,
            fps=store.schema.fps,
            features=embedded.get(protocol.FEATURES),
        )
    task = f"{args.task} as a kind of {args.refines}" if args.refines else args.task
    write_split(out, split, store=store, task=task, encoders=encoders)

    rows = protocol.rows(list(encoders), quick=args.quick, ablated=args.ablation)
    rows = only(rows, args.rows)
    fitted = min(2, args.draws) if args.quick else args.draws
    cells = [
        accuracy_split.Cell(row=row, budget=budget, draw=draw)
        for budget in args.budgets
        for row in rows
        for draw in range(len(split["draws"][budget]))
        if budget == accuracy_split.ALL or draw < fitted
    ]
    lacking = [cell for cell in cells if not finished(out, cell, split)]
    tracking = open_tracking(scale.tracking, runs_folder=out.parent)
    settings = {"task": args.task, "quick": args.quick, "split": accuracy_split.digest(split)}
    with tracking.start("accuracy", out.name, folder=out, params=settings, resume=True) as run:
        run.log_dataset(args.task, store.fingerprint, store.uri)
        if lacking:
            used = {name for cell in lacking for name in cell.row.inputs} - embedded.keys()
            embedded |= embed_all(poses, store, used, encoders)
            columns = columns_of(open_input(protocol.FEATURES, store, {})) if args.ablation else []
            with cluster(scale, cpus_wanted=1):
                for cell, (result, predicted, decided) in run_jobs(
                    protocol.run_cell,
                    lacking,
                    lambda cell: {"cell": cell},
                    shared={
                        "inputs": embedded,
                        "problems": asked,
                        "split": split,
                        "columns": columns,
                    },
                    scale=scale,
                    description="fits",
                    unit="fit",
                    name=lambda cell: f"{cell.row.name}, {cell.budget}",
                ):
                    keep(out, cell, result | {"data": store.fingerprint}, predicted, decided)
                    scores = {key: result["scores"][key] for key in ("macro_f1", "map")}
                    run.log_metrics({cell.row.name: {cell.budget: scores}}, step=cell.draw)
        for file in write_report(
            out, cells, asked, poses, store.schema, split, measure.describe_machine()
        ):
            run.log_artifact(file)
    page = tracking.ui_command(run.experiment)
    print(f"{(out / 'table.md').read_text(encoding='utf-8')}\nin {out}; {page}")


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line.

    Raises:
        BadInput: If a value is out of range.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        help="pose store with labels, or, with --prepare, a tracker's files with labels; left out: "
        "a small simulated arena",
    )
    parser.add_argument(
        "--prepare",
        metavar="OPTIONS",
        help="make the store from --data first: the options of `pretrain/prepare.py tracks`, "
        "without --poses and --out; labels are looked for in --data as well",
    )
    parser.add_argument("--task", default="classic_classification", help="label set (%(default)s)")
    parser.add_argument(
        "--refines",
        metavar="LABELSET:CLASS",
        help="the task says what kind of another label set's class a behaviour is, as in "
        "finetune/run.py",
    )
    parser.add_argument(
        "--encoder",
        nargs="+",
        default=[],
        metavar="RUN",
        help="pretraining runs or encoder folders, judged frozen, alone and joined to the features",
    )
    parser.add_argument(
        "--budgets",
        nargs="+",
        default=["1", accuracy_split.CLIPS, "3", accuracy_split.ALL],
        metavar="BUDGET",
        help="1, 3, …: whole videos; clips, 3clips, …: the minutes of one or of three videos as "
        "clips; planned, 3planned, …: as clips that the features choose; all (1 clips 3 all)",
    )
    parser.add_argument("--folds", type=int, default=3, help="groups of videos (%(default)s)")
    parser.add_argument(
        "--stretches",
        type=int,
        default=1,
        metavar="N",
        help="cut every recording into so many stretches, a few seconds apart, that count as "
        "recordings: where there are fewer recordings than folds. Frames of one recording are "
        "alike: such scores say little about other animals",
    )
    parser.add_argument(
        "--draws", type=int, default=5, help="draws of a budget's labels (%(default)s)"
    )
    parser.add_argument(
        "--split",
        metavar="FILE",
        help="the folds and draws of this split.json, instead of --folds and new draws: to compare "
        "with what others measured, as with those in benchmarks/splits/",
    )
    parser.add_argument(
        "--quick", action="store_true", help="the first two draws and the rows that matter most"
    )
    parser.add_argument(
        "--ablation",
        action="store_true",
        help="other rows: the features and the default head without each ingredient in turn",
    )
    parser.add_argument(
        "--rows",
        nargs="+",
        metavar="NAME",
        help="of the table's rows only these, next to the first",
    )
    parser.add_argument(
        "--scale", default="laptop", help="where: a name from ray_configs/ or a file (%(default)s)"
    )
    parser.add_argument("--out", help="folder of the results; left out: runs/accuracy-…")
    args = parser.parse_args(words)
    errors = [
        f"--budgets {budget}: give a number of videos above 0, clips, planned or all"
        for budget in args.budgets
        if not known(budget)
    ]
    errors += [f"--folds is {args.folds}; it must be at least 2"] if args.folds < 2 else []
    errors += [
        f"--{name} is {value}; it must be at least 1"
        for name, value in (("draws", args.draws), ("stretches", args.stretches))
        if value < 1
    ]
    if args.stretches > 1 and args.encoder:
        errors.append("--stretches is for features and controls: give it without --encoder")
    if args.prepare is not None and not args.data:
        errors.append("--prepare goes with --data, the folder or archive of tracks")
    if args.ablation and args.encoder:
        errors.append("--ablation takes from the hand-made features: give --encoder without it")
    refuse(errors, about="the command line")
    args.budgets = list(dict.fromkeys(args.budgets))
    return args


def only(
    rows: Sequence[accuracy_split.Row], names: Sequence[str] | None
) -> list[accuracy_split.Row]:
    """The first row, and those that are named; all where none is.

    Raises:
        BadInput: If there is no such row.
    """
    there = [row.name for row in rows]
    if unknown := set(names or ()) - set(there):
        raise BadInput(f"--rows: no {', '.join(sorted(unknown))}; there are: {'; '.join(there)}")
    return [row for row in rows if names is None or row.name in (there[0], *names)]


def known(budget: str) -> bool:
    """Whether it is a budget."""
    with contextlib.suppress(ValueError):
        accuracy_split.parse_budget(budget)
        return True
    return False


def open_store(data: str | None, options: str | None, out: Path) -> Store:
    """The store, made from tracks where options for that are there; one that was made stays."""
    if options is None:
        return Store(paths.absolute_address(data) if data else paths.default_store())
    made = out / "store"
    if not made.exists():
        assert data is not None
        words = ["tracks", "--poses", data, "--labels", data, *shlex.split(options)]
        prepare.main([*words, "--out", str(made)])
    return Store(str(made))


def all_labelled(store: Store, task: str, refines: str | None = None) -> list[Problem]:
    """The problems of a label set, all labelled videos in ``train``; with ``refines`` the parent's
    after them."""

    def joined(name: str) -> list[Problem]:
        return [
            replace(problem, train={**problem.train, **problem.test}, test={})
            for problem in problems(store, name)
        ]

    return with_parent(joined(task), refines, joined) if refines else joined(task)


def named(encoders: Sequence[str]) -> dict[str, str]:
    """A name for each encoder's rows, that of its folder, and where it is.

    Raises:
        BadInput: If two folders have one name.
    """
    names = {Path(source).name: paths.absolute_address(source) for source in encoders}
    if len(names) < len(set(encoders)):
        raise BadInput(
            f"--encoder {' '.join(encoders)}: two folders have one name, and rows are named by it"
        )
    return names


def write_split(
    out: Path, split: accuracy_split.Split, *, store: Store, task: str, encoders: Mapping[str, str]
) -> None:
    """Writes the split down, or checks that it is the one that is there.

    Raises:
        BadInput: If the folder's results are of another split, store or encoder.
    """
    file = out / "split.json"
    own = {"data": store.fingerprint, "task": task, "split": split, "encoders": dict(encoders)}
    if file.exists():
        earlier = json.loads(file.read_text(encoding="utf-8"))
        both = encoders.keys() & earlier["encoders"].keys()
        unlike = [key for key in ("data", "task", "split") if earlier[key] != own[key]]
        unlike += [
            f"encoder {name}" for name in both if encoders[name] != earlier["encoders"][name]
        ]
        if unlike:
            raise BadInput(
                f"{out} has results of another {', '.join(unlike)}: give another --out, or the "
                "same --data, --task, --folds, --draws and --budgets"
            )
        own["encoders"] = {**earlier["encoders"], **encoders}
    write_json(file, own)


def embed_all(
    poses: Frames, store: Store, names: set[str], encoders: Mapping[str, str]
) -> dict[str, Frames]:
    """Embeddings of the labelled videos at 5 Hz, by their names in the rows."""
    stride = max(1, round(store.schema.fps / protocol.HZ))
    embedded = {}
    with tqdm(
        total=len(names) * len(poses.arrays["position"]),
        desc="embedding",
        unit="frame",
        unit_scale=True,
    ) as bar:
        for name in sorted(names):
            embedder = open_input(name, store, encoders)
            external = tuple(embedder.external)
            own = gather_poses(store, list(poses.spans), features=external) if external else poses
            embedded[name] = embed(own, embedder, stride=stride, on_progress=bar.update)
    return embedded


def open_input(name: str, store: Store, encoders: Mapping[str, str]) -> Embedder:
    """What computes an embedding of the rows."""
    settings = read(Recipe, RECIPE, RECIPES, {}).features
    other = {
        protocol.OLD_FEATURES: (settings, OLD_ENCODER),
        protocol.ARENA_TRACKER: ({**settings, "groups": ["interaction"]}, {"name": HANDMADE}),
    }
    if name in other:
        features, encoder = other[name]
        embedder = build_embedder(store.schema, features=features, encoder=encoder).eval()
        embedder.features.fit(sample(store, seed=0))
        return embedder
    sources = {protocol.FEATURES: HANDMADE, protocol.RANDOM: RANDOM, **encoders}
    return open_encoder(sources[name], store, recipe=RECIPE, seed=0)[0]


def finished(out: Path, cell: accuracy_split.Cell, split: accuracy_split.Split) -> bool:
    """Whether a cell was fitted, on this split."""
    file = out / "cells" / f"{cell.name}.json"
    if not (file.is_file() and file.with_suffix(".npz").is_file()):
        return False
    return bool(
        json.loads(file.read_text(encoding="utf-8"))["split"] == accuracy_split.digest(split)
    )


def keep(
    out: Path,
    cell: accuracy_split.Cell,
    result: Mapping[str, Any],
    predicted: Sequence[Any],
    decided: Sequence[Any],
) -> None:
    """Writes a cell's files, its JSON last and whole: a cell that has one is finished."""
    file = out / "cells" / f"{cell.name}.json"
    arrays = {
        f"{number}:{video}": probabilities.astype(np.float16)
        for number, one in enumerate(predicted)
        for video, probabilities in one.items()
    }
    arrays |= {
        f"{number}={video}": labels
        for number, one in enumerate(decided)
        for video, labels in one.items()
    }
    np.savez_compressed(file.with_suffix(".npz"), **arrays)
    partial = file.with_suffix(".partial")
    write_json(partial, result)
    partial.replace(file)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    sys.exit(exit_status(main))
