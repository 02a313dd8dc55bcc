"""Suggests what to label next: segments of unlabelled video that a model is unsure of and that are
unlike each other and what is labelled.

    # frames of a store that have no labels of the model's task
    %(prog)s --model runs/task1 --data STORE --number 50
    # recordings that nobody labelled
    %(prog)s --model runs/task1 --poses new/*.csv --fps 30
    # nothing is labelled yet: ten minutes, as clips spread over all videos
    %(prog)s --plan --budget 10min --data STORE --out first.csv
    # would it have paid, on labels that exist?
    %(prog)s --model runs/task1 --data STORE --simulate

Leaves in --out a list, best first (video, frames, seconds, a column for the behaviour, the guess,
why), and next to it the same for BORIS: a project to open and to correct (….boris, an observation
for each video), and tabular events (…_boris.csv). Each segment is a "labelled clip" with the guess
in it. Delete the clips that you do not look at; within the others mark all behaviours, or none.
Then

    ethoray prepare tracks --append --labels ….boris --out STORE

adds the clips to the label set; what lies outside them stays unlabelled (docs/labelling_loop.md).
So does the list, with --task NAME, once behaviours are filled in; rows without one are left out.

--simulate begins with one labelled training video and labels --number segments a round, suggested
ones and, for comparison, random ones of the same number and lengths; scores are on training videos
held out. Leaves a table (CSV) and a picture of the two curves.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from finetune.active_learning.clip_list import frame_columns, free_path, write_rows
from finetune.inference.recording_options import add_options
from pretrain.components import summaries
from pretrain.errors import BadInput, exit_status
from pretrain.runs import paths

if TYPE_CHECKING:
    from finetune.inference.model import LoadedModel
    from finetune.settings import Tuning


def main(words: Sequence[str] | None = None, *, prog: str = "python finetune/suggest.py") -> None:
    """Runs the command line ``words``; help and errors call it ``prog``."""
    rules = summaries("finetune.active_learning.query_rules")
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", metavar="RUN", help="--out folder of a finished ethoray finetune"
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="without a model: what to label first, as clips spread over the videos of --data",
    )
    parser.add_argument(
        "--budget",
        default="10min",
        metavar="TIME",
        help="with --plan: time to label, 10min, 90s, 1.5h (%(default)s)",
    )
    parser.add_argument(
        "--clip",
        type=float,
        metavar="S",
        help="with --plan: seconds of a clip (17)",
    )
    parser.add_argument(
        "--encoder",
        metavar="RUN|FOLDER|none|handmade",
        help="with --plan: clips that are typical in its embedding, not by chance",
    )
    parser.add_argument(
        "--task",
        metavar="NAME",
        help="with --plan: label set that the clips are for; what is labelled in it is left out",
    )
    parser.add_argument(
        "--data",
        metavar="STORE",
        help="pose store; frames that carry labels of the model's task are not suggested",
    )
    add_options(parser, required=False)
    parser.add_argument(
        "--labels-of",
        metavar="NAME",
        help="which problem of a model that has several",
    )
    parser.add_argument(
        "--rule",
        choices=list(rules),
        default="uncertain_and_diverse",
        help="what comes first (%(default)s). "
        + " ".join(f"{name}: {line}" for name, line in rules.items()).replace("%", "%%"),
    )
    parser.add_argument(
        "--number",
        type=int,
        default=50,
        help="segments to suggest; with --simulate: a round (%(default)s)",
    )
    parser.add_argument(
        "--shortest",
        type=float,
        default=2.0,
        metavar="S",
        help="seconds below which predicted bouts are merged (%(default)s)",
    )
    parser.add_argument(
        "--longest",
        type=float,
        default=10.0,
        metavar="S",
        help="seconds above which they are divided (%(default)s)",
    )
    parser.add_argument(
        "--out", metavar="FILE", help="list to write, .csv; left out: runs/suggest-….csv"
    )
    parser.add_argument(
        "--seed",
        type=int,
        help="the network of this seed; left out: the first; with "
        "--plan: another one draws other clips",
    )
    parser.add_argument(
        "--ensemble", action="store_true", help="mean of the probabilities of all seeds"
    )
    parser.add_argument(
        "--simulate",
        action="store_true",
        help="compare with random choice, on labels that exist",
    )
    parser.add_argument("--rounds", type=int, default=5, help="of --simulate (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="of --simulate (%(default)s)")
    args = parser.parse_args(words)
    _refuse(args)
    if args.plan:
        from finetune.active_learning.plan import run_plan

        print(run_plan(args, free_path(args.out, "plan", "_boris.csv", ".boris")))
        return

    from finetune.inference.model import open_model

    model = open_model(
        str(paths.base() / args.model),
        seed=args.seed,
        ensemble=args.ensemble,
        labels_of=args.labels_of,
    )
    if len(model.problems) > 1:
        raise BadInput(
            f"{args.model} has several problems; choose one with --labels-of: "
            f"{', '.join(p.name for p in model.problems)}"
        )
    if args.simulate:
        _simulate(args, model, free_path(args.out, "simulate", ".png"))
    else:
        _suggest(args, model, free_path(args.out, "suggest", "_boris.csv", ".boris"))


def _refuse(args: argparse.Namespace) -> None:
    errors = [
        f"--{name} is {value}; it must be at least 1"
        for name in ("number", "rounds", "seeds")
        if (value := getattr(args, name)) < 1
    ]
    if not 0 < args.shortest <= args.longest:
        errors.append(
            f"--shortest is {args.shortest:g} and --longest {args.longest:g}; they must be seconds "
            "above 0, the second not less than the first"
        )
    if bool(args.model) == bool(args.plan):
        errors.append("give --model RUN, or --plan where there is none")
    if args.plan and (args.simulate or not args.data):
        errors.append("--plan goes with --data STORE, and without --simulate")
    if not args.plan and (args.clip or args.encoder or args.task):
        errors.append("--clip, --encoder and --task go with --plan")
    if args.clip is not None and not args.clip > 0:
        errors.append(f"--clip is {args.clip:g}; it must be seconds above 0")
    if bool(args.data) == bool(args.poses):
        errors.append("give --data STORE or --poses FILE…, one of them")
    if args.simulate and not args.data:
        errors.append("--simulate needs --data STORE with labels")
    if errors:
        raise BadInput("; ".join(errors))


def _suggest(args: argparse.Namespace, model: LoadedModel, out: Path) -> None:
    from finetune.active_learning.plan import write_for_boris
    from finetune.active_learning.query_rules import query_rule
    from finetune.active_learning.segments import segments_of
    from finetune.inference.recordings import recordings
    from finetune.labels.problems import labels_like
    from pretrain.data.store import Store
    from pretrain.readers.score_sheets import CLIP

    (problem,) = model.problems
    args.poses = args.poses or [args.data]
    labels = labels_like(Store(paths.absolute_address(args.data)), problem) if args.data else {}
    fps = model.schema.fps
    with recordings(args, model.schema, model.external, model.features) as opened:
        shortest, longest = _frames(args, fps)
        segments, labelled_ND, lengths = segments_of(
            model, opened, labels, shortest=shortest, longest=longest
        )
    if not segments:
        raise BadInput(
            f"every frame of {args.data} has labels of {problem.name!r}: there is nothing to "
            "suggest"
        )
    chosen = query_rule(args.rule).choose(segments, number=args.number, labelled_ND=labelled_ND)
    rate_of = {recording.name: recording.fps for recording in opened}
    rows: list[dict[str, Any]] = []
    for rank, segment in enumerate(chosen, 1):
        rate, length = rate_of[segment.video], lengths[segment.video]
        start = min(round(segment.start * rate / fps), length - 1)
        stop = max(start + 1, min(round(segment.stop * rate / fps), length))
        rows.append(
            {
                "rank": rank,
                "video": segment.video,
                **frame_columns(start, stop, rate),
                "behaviour": "",
                "guess": segment.guess,
                "uncertainty": f"{segment.uncertainty:.4f}",
                "why": segment.why,
            }
        )
    write_rows(out, rows)
    events: dict[str, tuple[list[tuple[int, int, str]], int, float]] = {}
    for row in sorted(rows, key=lambda row: (row["video"], row["first_frame"])):
        name = row["video"]
        span = (row["first_frame"], row["last_frame"] + 1)
        shown = [CLIP] + [row["guess"]] * (row["guess"] != problem.rest)
        mine = events.setdefault(name, ([], lengths[name], rate_of[name]))[0]
        mine += [(*span, behaviour) for behaviour in shown]
    behaviours = [name for name in problem.classes if name != problem.rest]
    minutes = sum(float(row["stop_s"]) - float(row["start_s"]) for row in rows) / 60
    print(
        f"{len(rows)} of {len(segments):,} segments, {minutes:.1f} minutes to look at: {out}\n"
        f"for BORIS: {write_for_boris(out, events, task=problem.task, behaviours=behaviours)}"
    )


def _frames(args: argparse.Namespace, fps: float) -> tuple[int, int]:
    """``--shortest`` and ``--longest`` at the model's rate."""
    return max(1, round(args.shortest * fps)), max(1, round(args.longest * fps))


def _simulate(args: argparse.Namespace, model: LoadedModel, out: Path) -> None:
    import numpy as np

    from finetune.active_learning.query_rules import query_rule
    from finetune.active_learning.simulate import curve_figure, curve_table, fits_of, simulate
    from finetune.fit.frames import Frames
    from finetune.inference.recordings import recordings
    from finetune.labels.problems import problem_like
    from finetune.report.figures import png
    from pretrain.data.store import Store

    tuning = _tuning(args.model)
    store = Store(paths.absolute_address(args.data))
    problem = problem_like(store, model.problems[0])
    args.poses = [args.data]
    fps = model.schema.fps
    spans: dict[str, tuple[int, int]] = {}
    arrays, end = [], 0
    with recordings(args, model.schema, model.external, model.features) as opened:
        if store.schema.fps != fps:
            raise BadInput(
                f"{store.uri} has {store.schema.fps:g} frames/s, the model {fps:g}: --simulate "
                "needs the same rate"
            )
        labelled = [recording for recording in opened if recording.name in problem.train]
        for recording in tqdm(labelled, desc="embedding", unit="video"):
            z_TD = model.embed(recording.read()[0]).numpy()
            spans[recording.name] = (end, end := end + len(z_TD))
            arrays.append(z_TD)
    if not arrays:
        raise BadInput(f"{store.uri} has no training video with labels of {problem.name!r}")
    shortest, longest = _frames(args, fps)
    with tqdm(
        total=fits_of(rounds=args.rounds, seeds=args.seeds), desc="fitting", unit="fit"
    ) as bar:
        rows = simulate(
            Frames(spans=spans, arrays={"z": np.concatenate(arrays)}, fps=fps),
            problem,
            tuning,
            query_rule(args.rule),
            rounds=args.rounds,
            number=args.number,
            seeds=range(args.seeds),
            shortest=shortest,
            longest=longest,
            on_progress=bar.update,
        )
    name = problem.task if problem.name == problem.task else f"{problem.task}, {problem.name}"
    title = f"{name}: {args.number} segments a round, {args.rule.replace('_', ' ')} or random"
    picture = out.with_suffix(".png")
    picture.write_bytes(png(curve_figure(rows, title=title, fps=fps)))
    write_rows(out, rows)
    print(f"{curve_table(rows, fps=fps)}\n\ntable: {out}\npicture: {picture}")


def _tuning(run: str) -> Tuning:
    """The settings that the run chose."""
    from finetune.settings import saved_settings

    path = paths.base() / run / "result.json"
    try:
        chosen: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))["settings"][
            "chosen"
        ]
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(
            "--simulate needs the whole folder of a finished ethoray finetune as --model: "
            f"{path}: {error}"
        ) from error
    tuning = saved_settings(chosen, about=str(path))
    if not tuning.frozen:
        raise BadInput(
            f"the encoder of {run} was trained along with its labels, so it knows the labels that "
            "are to be found out: --simulate needs a run with a frozen encoder"
        )
    return tuning


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(exit_status(main))
