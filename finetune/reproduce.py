"""Runs the CalMS21 paper's tables (Sun et al. 2021) on a store with Tasks 1-3 and compares them
with the published figures.

    # every row that the store has labels for
    %(prog)s --data STORE --out runs/paper
    # the rows, and some of them
    %(prog)s --list
    %(prog)s --data STORE --out runs/paper --rows task1_conv1d joint_inductive --resume
    # a hundredth of the published epochs
    %(prog)s --data STORE --out runs/short --epochs-share 0.01
    # with heads on your own encoders as further rows; pretrain them with --leave-out test
    %(prog)s --data STORE --out runs/paper --encoder runs/mine none --resume

Leaves in --out: table.md, table.csv, table.png, and for every row weights, predictions and
result.json in rows/. The figures are comparable only with CalMS21's own recordings; the table says
on which data it ran. Rows, settings and published figures: finetune/paper/.

The rows joint_inductive and joint_transductive are one model for Tasks 1-3 (MABe 2021), encoder and
output layers trained together: contrastive predictive coding on labelled and unlabelled windows,
cross-entropy on labelled ones, one linear layer for each label set, the mean of networks fitted on
grouped splits. The transductive row learns from the test videos' poses as well, and says so.

Times. On CalMS21's frame counts (Tasks 1-3: 1.3 million training frames, 1.9 million test frames)
five seeds of the paper's own rows take 72 hours on two cores, and 37 more with task-programming
features; by row and seed, in hours of one core: conv1d 3.5, augmented 5.2, causal 1.5, LSTM 9.7,
self-attention 4.0, fully connected 0.8, single frame 0.1, Task 2 1.8, Task 3 2.3. One network of
the joint model takes 48 hours (and 220 more with 6 million unlabelled frames), and the published
ensemble has 32 a seed: a GPU's work (--scale single_node). With --epochs-share 0.01 --set
joint.members=1 and no unlabelled frames the whole table takes about 3 hours on two cores; networks
that train for fewer than some 500 steps label badly, as batch norm does not know the data yet.
Estimated from steps measured on one server core: right to a factor of two. Measured, with 6 million
unlabelled frames as well: --seeds 2 --epochs-share 0.01 --set joint.members=1 --set
joint.epochs=10, all rows, 50 minutes on two cores with bf16 (docs/results.md).
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrain.errors import BadInput, exit_status
from pretrain.runs import paths
from pretrain.runs.folder import is_whole, open_run_folder

if TYPE_CHECKING:
    from finetune.labels.problems import Problem
    from finetune.paper.pieces import ResolvedRow
    from finetune.paper.report import Line, TableNotes
    from finetune.paper.table import Row, Settings
    from pretrain.data.store import Store
    from pretrain.runs.tracked_run import TrackedRun

log = logging.getLogger(__name__)

CLASSIC = "classic_classification"
_TRANSDUCTIVE = ", TRANSDUCTIVE (saw the test videos' poses)"


def main(words: Sequence[str] | None = None, *, prog: str = "python finetune/reproduce.py") -> None:
    """Runs the command line ``words``; help and errors call it ``prog``."""
    args = _parser(prog).parse_args(words)

    # Ray and torch take seconds to import, which --help need not wait for.
    from finetune.paper.table import FIRST_SEED, about_data, choose_rows, read_rows, read_settings

    rows = read_rows()
    if args.list:
        print(_listed(rows))
        return

    from finetune.labels.problems import tasks
    from finetune.paper.jobs import run_rows
    from finetune.paper.report import TableNotes
    from pretrain.cluster.join import cluster
    from pretrain.config import SCALES, Scale, read
    from pretrain.data.store import Store
    from pretrain.runs.tracked_run import open_tracking

    if not args.data:
        raise BadInput("--data is required: a store with labels of Tasks 1-3")
    if args.seeds < 1 or not 0 < args.epochs_share <= 1:
        raise BadInput(
            f"--seeds is {args.seeds}, --epochs-share {args.epochs_share}; allowed: at least 1, "
            "and above 0 up to 1"
        )
    settings = read_settings(args.set, rows)
    scale = read(Scale, args.scale, SCALES, {})
    store = Store(paths.absolute_address(args.data))
    chosen, left_out = choose_rows(
        rows, args.rows, has_tasks=tasks(store), store=store, encoder=bool(args.encoder)
    )
    by_task = _problems(store, [task for name in chosen for task in rows[name].tasks])
    data, _ = about_data(store, itertools.chain.from_iterable(by_task.values()))
    log.info("data: %s", data)
    out = paths.run_folder(args.out, kind="paper")
    run_settings = {
        "fingerprint": store.fingerprint,
        "seeds": args.seeds,
        "epochs_share": args.epochs_share,
        "set": sorted(args.set),
    }
    gpus = scale.gpus_per_trial if scale.gpu else 0
    opened = partial(open_tracking, scale.tracking, runs_folder=out.parent)
    with (
        open_run_folder(out, run_settings, resume=args.resume),
        cluster(scale, cpus_wanted=1, gpus_wanted=gpus, meanwhile=opened) as tracking,
        tracking.start(
            "reproduce", out.name, params=run_settings, folder=out, resume=args.resume
        ) as run,
    ):
        run.log_dataset(store.origin or store.uri, store.fingerprint, store.uri)
        table = _Table(out, TableNotes(data=data, left_out=left_out, changed=sorted(args.set)), run)
        resolved = _resolve(
            chosen, rows, by_task, settings, store, epochs_share=args.epochs_share, gpu=scale.gpu
        )
        run_rows(
            resolved,
            store,
            scale,
            out=out,
            seeds=range(FIRST_SEED, FIRST_SEED + args.seeds),
            moments_from=sorted({name for p in by_task.get(CLASSIC, []) for name in p.train}),
            on_result=table.add,
        )
        for name in chosen:
            for encoder in args.encoder if rows[name].encoder else []:
                table.add(_tune_encoder(name, rows[name], encoder, args, list(by_task), out))
        table.close()
    print(
        f"{(out / 'table.md').read_text(encoding='utf-8')}\ntable:   "
        f"{out / 'table.csv'}\npicture: {out / 'table.png'}\n"
        f"compare runs: {tracking.ui_command(run.experiment)}"
    )


def _problems(store: Store, names: Sequence[str]) -> dict[str, list[Problem]]:
    """The problems of those label sets that the store has."""
    from finetune.labels.problems import problems, refuse_unfit, tasks, with_some_test

    by_task = {}
    for task in dict.fromkeys(name for name in names if name in tasks(store)):
        by_task[task], notes = with_some_test(problems(store, task), fps=store.schema.fps)
        for note in notes + refuse_unfit(by_task[task]):
            log.warning("%s", note)
    return by_task


def _resolve(
    chosen: Sequence[str],
    rows: Mapping[str, Row],
    by_task: Mapping[str, Sequence[Problem]],
    settings: Settings,
    store: Store,
    *,
    epochs_share: float,
    gpu: bool,
) -> dict[str, ResolvedRow]:
    """The rows that train networks of the paper."""
    from finetune.paper.pieces import ResolvedRow, unlabelled_of
    from pretrain.data.leave_out import share_seen

    resolved = {}
    for name in (name for name in chosen if not rows[name].encoder):
        row = rows[name]
        row_problems = [problem for task in row.tasks for problem in by_task.get(task, [])]
        if row.features and (learned_from := store.feature(row.features).get("learned_from")):
            test = {video for problem in row_problems for video in problem.test}
            if share_seen([learned_from], store, test):
                row = replace(row, title=row.title + _TRANSDUCTIVE)
        resolved[name] = ResolvedRow(
            row=row,
            problems=row_problems,
            settings=settings,
            schema=store.schema,
            epochs_share=epochs_share,
            device="cuda" if gpu else "cpu",
            unlabelled=unlabelled_of(row, store, row_problems),
            start_classes=by_task[rows[row.start].tasks[0]][0].classes if row.start else (),
        )
    return resolved


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="pose store with labels of Tasks 1-3")
    parser.add_argument("--out", help="folder of the reproduction; left out: runs/paper-…")
    parser.add_argument(
        "--rows",
        nargs="+",
        metavar="ROW",
        help="rows to run (those they start from are run too); left out: all",
    )
    parser.add_argument("--list", action="store_true", help="print the rows and end")
    parser.add_argument(
        "--scale", default="laptop", help="where: a name from ray_configs/ or a file (%(default)s)"
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=5,
        metavar="N",
        help="seeds from 42 on (%(default)s, as published)",
    )
    parser.add_argument(
        "--epochs-share",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="train for this share of the published epochs",
    )
    parser.add_argument(
        "--encoder",
        nargs="*",
        default=["handmade"],
        metavar="RUN|FOLDER|none|handmade",
        help="tune heads on these encoders as further rows (%(default)s; without a value: none)",
    )
    parser.add_argument(
        "--tune-set",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="settings of that tuning, as `ethoray finetune --set`",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FILE.KEY=VALUE",
        help="change a key of a file of finetune/paper/: conv1d.epochs=5, joint.members=2",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with what is in --out; further rows may be named",
    )
    return parser


@dataclass
class _Table:
    """The table so far, written anew whenever a row is finished."""

    out: Path
    notes: TableNotes
    run: TrackedRun
    results: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, result: dict[str, Any]) -> None:
        """Adds a finished row."""
        from finetune.paper.report import lines_of, write_table

        self.results[result["row"]] = result
        write_table(self.out, self._lines(), self.notes, picture=False)
        for line in lines_of(result["row"], result, {}):
            if not line["part"]:
                name = f"{result['row']}/{line['task']}/{line['score']}"
                self.run.log_metrics({name: line["ours"], f"{name} std": line["ours_std"]}, step=0)

    def close(self) -> None:
        """Draws the picture, when all rows are there."""
        from finetune.paper.report import write_table

        write_table(self.out, self._lines(), self.notes, picture=True)
        for file in ("table.md", "table.csv", "table.png"):
            self.run.log_artifact(self.out / file)

    def _lines(self) -> list[Line]:
        from finetune.paper.report import lines_of
        from finetune.paper.table import read_published, read_rows

        rows, published = read_rows(), read_published()
        return [
            line
            for name, row in rows.items()
            for result in self.results.values()
            if result["row"].split("-")[0] == name  # a row of encoders has one for each
            for line in lines_of(result["row"], result, published.get(row.published, {}))
        ]


def _tune_encoder(
    name: str, row: Row, encoder: str, args: argparse.Namespace, has: Sequence[str], out: Path
) -> dict[str, Any]:
    """The row of one of the user's encoders: `ethoray finetune` tunes heads on it, with as many
    seeds."""
    import finetune.run
    from finetune.paper.row_folder import RowFolder

    folder = RowFolder(out, f"{name}-{Path(encoder).name}")
    if result := folder.result:
        if result["encoder"] != encoder:
            raise BadInput(
                f"{folder.path} holds the encoder {result['encoder']}, not {encoder}: choose "
                "another --out"
            )
        return result
    results = {}
    for task in (task for task in row.tasks if task in has):
        task_out = folder.path / task
        if not is_whole(task_out):
            options = {
                "--encoder": encoder,
                "--task": task,
                "--data": args.data,
                "--scale": args.scale,
                "--out": str(task_out.absolute()),
                "--seeds": str(args.seeds),
            }
            words = list(itertools.chain.from_iterable(options.items()))
            words += ["--resume"] if (task_out / "run.json").is_file() else []
            words += [word for pair in args.tune_set for word in ("--set", pair)]
            finetune.run.main(words)
        results[task] = json.loads((task_out / "result.json").read_text(encoding="utf-8"))
    title = f"{row.title}: {Path(encoder).name}"
    shares = [one.get("encoder_saw_test") for one in results.values()]
    if any(shares):
        title += _TRANSDUCTIVE
    elif None in shares:
        title += ", perhaps transductive (does not say what it saw)"
    return folder.write_result({"title": title, "tasks": results, "encoder": encoder})


def _listed(rows: Mapping[str, Row]) -> str:
    lines = [
        f"{name:34} {row.title}" + (f"  [starts from {row.start}]" if row.start else "")
        for name, row in rows.items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(exit_status(main))
