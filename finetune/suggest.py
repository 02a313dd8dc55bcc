"""Says what to label next: the stretches of unlabelled video that a model is least sure of, unlike
each other and what is labelled.

    # frames of a store that have no labels of the model's task
    %(prog)s --model runs/task1 --data STORE --number 50
    # recordings that nobody labelled
    %(prog)s --model runs/task1 --poses new/*.csv --fps 30
    # would it have paid, on labels that exist?
    %(prog)s --model runs/task1 --data STORE --simulate

Leaves in --out a list, best first (video, frames, seconds, guessed behaviour, why), and next to it
the same as BORIS tabular events (…_boris.csv, an observation a video), to be opened and corrected
there. Uncertain: the margin between the two likeliest behaviours is small. Unlike: far from what is
labelled or listed already in the encoder's embedding (finetune/active_learning/acquisition.py has
the papers).

--simulate begins with one labelled training video and labels --number stretches a round, suggested
ones and, for comparison, random ones of the same number and lengths; scores are on training videos
held out. Leaves a table (CSV) and a picture of the two curves.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from finetune.inference.recording_options import add_options
from pretrain.errors import BadInput, exit_status
from pretrain.runs import paths

if TYPE_CHECKING:
    from finetune.active_learning.acquisition import Stretch
    from finetune.inference.model import LoadedModel
    from finetune.inference.recordings import Recording
    from finetune.labels.problems import Labelled, Problem
    from finetune.settings import Tuning
    from pretrain.data.store import Store


def main(words: Sequence[str] | None = None, *, prog: str = "python finetune/suggest.py") -> None:
    """Runs the command line ``words``; help and errors call it ``prog``."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", required=True, metavar="RUN", help="--out folder of a finished finetune/run.py"
    )
    parser.add_argument(
        "--data",
        metavar="STORE",
        help="pose store; frames that carry labels of the model's task are not suggested",
    )
    add_options(parser, required=False)
    parser.add_argument(
        "--labels-of", metavar="NAME", help="the problem to ask about, of a model that has several"
    )
    parser.add_argument(
        "--number",
        type=int,
        default=50,
        help="stretches to suggest; with --simulate: a round (%(default)s)",
    )
    parser.add_argument(
        "--shortest",
        type=float,
        default=2.0,
        metavar="S",
        help="seconds below which bouts are put together (%(default)s)",
    )
    parser.add_argument(
        "--longest",
        type=float,
        default=10.0,
        metavar="S",
        help="seconds above which bouts are parted (%(default)s)",
    )
    parser.add_argument(
        "--out", metavar="FILE", help="list to write, .csv; left out: runs/suggest-….csv"
    )
    parser.add_argument("--seed", type=int, help="the network of this seed; left out: the first")
    parser.add_argument(
        "--ensemble", action="store_true", help="mean of the probabilities of all seeds"
    )
    parser.add_argument(
        "--simulate",
        action="store_true",
        help="active learning against random choice, on labels that exist",
    )
    parser.add_argument("--rounds", type=int, default=5, help="of --simulate (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="of --simulate (%(default)s)")
    args = parser.parse_args(words)
    _refuse(args)

    from finetune.inference.model import open_model

    model = open_model(
        str(paths.base() / args.model),
        seed=args.seed,
        ensemble=args.ensemble,
        labels_of=args.labels_of,
    )
    if len(model.asked) > 1:
        raise BadInput(
            f"{args.model} has several problems; choose one with --labels-of: "
            f"{', '.join(p.name for p in model.asked)}"
        )
    out = paths.run_folder(args.out or None, kind="simulate" if args.simulate else "suggest")
    out = out if out.suffix == ".csv" else out.with_name(f"{out.name}.csv")
    beside = (
        out.with_name(f"{out.stem}.png")
        if args.simulate
        else out.with_name(f"{out.stem}_boris.csv")
    )
    for path in (out, beside):
        if path.exists():
            raise BadInput(f"{path} is there already: choose another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    (_simulate if args.simulate else _suggest)(args, model, out, beside)


def _refuse(args: argparse.Namespace) -> None:
    said = [
        f"--{name} is {value}; it must be at least 1"
        for name in ("number", "rounds", "seeds")
        if (value := getattr(args, name)) < 1
    ]
    if not 0 < args.shortest <= args.longest:
        said.append(
            f"--shortest is {args.shortest:g} and --longest {args.longest:g}; wanted seconds above "
            "0, the second not the lesser"
        )
    if bool(args.data) == bool(args.poses):
        said.append("give --data STORE or --poses FILE…, one of them")
    if args.simulate and not args.data:
        said.append("--simulate wants --data STORE with labels")
    if said:
        raise BadInput("; ".join(said))


def _suggest(args: argparse.Namespace, model: LoadedModel, out: Path, beside: Path) -> None:
    import numpy as np

    from finetune.active_learning.acquisition import cut, labelled_embeddings, rank
    from finetune.inference.recordings import recordings
    from finetune.inference.writers import write_boris_observations
    from finetune.labels.frame_labels import looked_at
    from pretrain.data.store import Store

    (asked,) = model.asked
    args.poses = args.poses or [args.data]
    labels = _labels(Store(paths.open_address(args.data)), asked) if args.data else {}
    stretches: list[Stretch] = []
    centres = []
    held: dict[str, tuple[Recording, int]] = {}
    fps = model.schema.fps
    with recordings(args, model.schema, model.external) as found:
        for one in tqdm(found, desc="looking for doubt", unit="video"):
            frames, length = one.frames()
            held[one.name] = one, length
            (said,), z_TD = model.predict(frames)
            known = None
            if one.name in labels:
                place = np.rint(np.arange(len(z_TD)) * (one.fps / fps)).astype(np.int64)
                known = labels[one.name][np.minimum(place, length - 1)]
                centres.append(labelled_embeddings(known, z_TD.numpy()))
            stretches += cut(
                one.name,
                asked,
                said.labels,
                said.probabilities_TC,
                z_TD.numpy(),
                free_T=None if known is None else ~looked_at(known),
                shortest=max(1, round(args.shortest * fps)),
                longest=max(1, round(args.longest * fps)),
            )
    if not stretches:
        raise BadInput(
            f"every frame of {args.data} has labels of {asked.name!r}: there is nothing to suggest"
        )
    wanted = rank(
        stretches, number=args.number, labelled_ND=np.concatenate(centres) if centres else None
    )
    rows: list[dict[str, Any]] = []
    for place, stretch in enumerate(wanted, 1):
        rate, length = held[stretch.video][0].fps, held[stretch.video][1]
        start = min(round(stretch.start * rate / fps), length - 1)
        stop = max(start + 1, min(round(stretch.stop * rate / fps), length))
        rows.append(
            {
                "rank": place,
                "video": stretch.video,
                "first_frame": start,
                "last_frame": stop - 1,
                "start_s": f"{start / rate:.3f}",
                "stop_s": f"{stop / rate:.3f}",
                "guess": stretch.guess,
                "uncertainty": f"{stretch.uncertainty:.4f}",
                "why": stretch.why,
            }
        )
    _write_rows(out, rows)
    events: dict[str, tuple[list[tuple[int, int, str]], int, float]] = {}
    for row in sorted(rows, key=lambda row: (row["video"], row["first_frame"])):
        one, length = held[row["video"]]
        events.setdefault(one.name, ([], length, one.fps))[0].append(
            (row["first_frame"], row["last_frame"] + 1, row["guess"])
        )
    making = beside.with_name(f".{beside.name}.unfinished")
    write_boris_observations(making, events, comment="suggested: to be checked")
    making.replace(beside)
    minutes = sum(float(row["stop_s"]) - float(row["start_s"]) for row in rows) / 60
    print(
        f"{len(rows)} of {len(stretches):,} stretches, {minutes:.1f} minutes to look at: "
        f"{out}\nfor BORIS: {beside}"
    )


def _simulate(args: argparse.Namespace, model: LoadedModel, out: Path, beside: Path) -> None:
    import numpy as np

    from finetune.active_learning.simulate import curve_figure, curve_table, fits_of, simulate
    from finetune.fit.frames import Frames
    from finetune.inference.recordings import recordings
    from finetune.report.figures import png
    from pretrain.data.store import Store

    (asked,) = model.asked
    tuning = _tuning(args.model)
    store = Store(paths.open_address(args.data))
    problem = _problem(store, asked)
    args.poses = [args.data]
    place: dict[str, tuple[int, int]] = {}
    arrays, end = [], 0
    with recordings(args, model.schema, model.external) as found:
        if store.schema.fps != model.schema.fps:
            raise BadInput(
                f"{store.uri} has {store.schema.fps:g} frames/s, the model {model.schema.fps:g}: "
                "--simulate wants the same rate"
            )
        for one in tqdm(
            [one for one in found if one.name in problem.train], desc="embedding", unit="video"
        ):
            z_TD = model.embed(one.frames()[0]).numpy()
            place[one.name] = (end, end := end + len(z_TD))
            arrays.append(z_TD)
    if not arrays:
        raise BadInput(f"{store.uri} has no training video with labels of {asked.name!r}")
    fps = model.schema.fps
    shortest, longest = (max(1, round(seconds * fps)) for seconds in (args.shortest, args.longest))
    with tqdm(
        total=fits_of(rounds=args.rounds, seeds=args.seeds), desc="fitting", unit="fit"
    ) as bar:
        rows = simulate(
            Frames(place=place, arrays={"z": np.concatenate(arrays)}),
            problem,
            tuning,
            rounds=args.rounds,
            number=args.number,
            seeds=range(args.seeds),
            shortest=shortest,
            longest=longest,
            on_progress=bar.update,
        )
    called = problem.task if problem.name == problem.task else f"{problem.task}, {problem.name}"
    title = f"{called}: what {args.number} stretches a round teach"
    beside.write_bytes(png(curve_figure(rows, title=title, fps=fps)))
    _write_rows(out, rows)
    print(f"{curve_table(rows, fps=fps)}\n\ntable: {out}\npicture: {beside}")


def _labels(store: Store, asked: Problem) -> Labelled:
    """All labels, of training and test, that a store has of a model's problem."""
    from finetune.labels.problems import tasks

    if asked.task not in tasks(store):
        return {}
    problem = _problem(store, asked)
    return {**problem.train, **problem.test}


def _problem(store: Store, asked: Problem) -> Problem:
    from finetune.labels.problems import problems

    found = [
        held
        for held in problems(store, asked.task)
        if (held.classes, held.annotator) == (asked.classes, asked.annotator)
    ]
    if not found:
        raise BadInput(
            f"{store.uri} has no labels under {asked.task!r} with the model's classes "
            f"{', '.join(asked.classes)}" + (f" by {asked.annotator}" if asked.annotator else "")
        )
    return found[0]


def _tuning(run: str) -> Tuning:
    """The settings that the run chose."""
    from finetune.settings import Tuning
    from pretrain.config import make

    path = paths.base() / run / "result.json"
    try:
        settings: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))["settings"][
            "chosen"
        ]
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(
            f"--simulate wants the whole folder of a finished finetune/run.py as --model: {path}: "
            f"{error}"
        ) from error
    tuning = make(Tuning, dict(settings), about=str(path))
    if not tuning.frozen:
        raise BadInput(
            f"the encoder of {run} was trained along with its labels, so it knows what is to be "
            "found out: "
            "--simulate wants a run with a frozen encoder"
        )
    return tuning


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    making = path.with_name(f".{path.name}.{os.getpid()}")
    with making.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    making.replace(path)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(exit_status(main))
