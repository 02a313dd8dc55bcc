"""Labels new recordings with a fitted model.

    # track files of any format that `ethoray prepare` reads
    %(prog)s --model runs/task1 --poses new/*.csv --fps 30
    %(prog)s --model runs/task1 --poses new/ --format csv boris annot nwb
    %(prog)s --model runs/task1 --poses new/ --keypoints snout=nose,tailbase=tail_base
    # drawn over the recording that was tracked
    %(prog)s --model runs/task1 --poses m1.csv --video m1.mp4
    # a pose store, with the networks of all seeds together
    %(prog)s --model runs/task1 --poses STORE --ensemble

The tracks are converted to the model's names, scale and frame rate; labels come at the recording's
own rate, with the postprocessing that helped the model's run on held-out videos: calibration of
the probabilities, decision rule and smoothing of the labels.

Leaves in --out, one file for each video:
    FORMAT/        for each --format
    ethograms/     pictures
    summary.csv    time for each behaviour, bouts, bout lengths
    bouts.csv      each bout but those of the rest class
    report.html    time budgets, ethograms, what follows what
    video/         with --video: skeletons, labels and probabilities over the recording, MP4
Formats of annotation tools are read back by `ethoray prepare tracks --labels`: corrected
predictions become labels. A model of several problems (annotators, behaviours) gets a folder for
each; --labels-of chooses one.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from finetune.inference.recording_options import add_options
from pretrain.components import summaries
from pretrain.errors import FULL, BadInput, RunFailed, exit_status
from pretrain.redact import write_json
from pretrain.runs import paths

if TYPE_CHECKING:
    from finetune.inference.model import LoadedModel
    from finetune.inference.prediction_formats import AbstractPredictionFormat
    from finetune.inference.recordings import Recording

log = logging.getLogger(__name__)


def main(words: Sequence[str] | None = None, *, prog: str = "python finetune/predict.py") -> None:
    """Runs the command line ``words``; help and errors call it ``prog``."""
    formats = summaries("finetune.inference.prediction_formats")
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model",
        required=True,
        metavar="RUN",
        help="--out folder of a finished `ethoray finetune`, or a model folder in it",
    )
    add_options(parser, required=True)
    parser.add_argument(
        "--labels-of",
        metavar="NAME",
        help="only this task, annotator or behaviour of a model that has several",
    )
    parser.add_argument("--out", metavar="FOLDER", help="folder to make; left out: runs/predict-…")
    parser.add_argument(
        "--format",
        nargs="+",
        choices=list(formats),
        default=["csv"],
        help="what to write (csv). "
        + " ".join(f"{name}: {line}" for name, line in formats.items()).replace("%", "%%"),
    )
    parser.add_argument(
        "--video",
        nargs="+",
        default=[],
        metavar="FILE",
        help="recordings to draw skeletons and labels on, each called like its track file",
    )
    parser.add_argument(
        "--bridge",
        type=float,
        default=1.0,
        metavar="SECONDS",
        help="frames of longer gaps, in which no point of any animal is seen, get no label "
        "(%(default)s)",
    )
    parser.add_argument(
        "--every-animal",
        action="store_true",
        help="nor do frames of such gaps of one animal",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--seed", type=int, help="the network of this seed; left out: the first")
    which.add_argument(
        "--ensemble", action="store_true", help="mean of the probabilities of all seeds"
    )
    args = parser.parse_args(words)

    from finetune.inference.ethograms import summary_table
    from finetune.inference.model import open_model
    from finetune.inference.prediction_formats import prediction_formats
    from finetune.inference.recordings import recordings
    from finetune.inference.video import videos_of
    from finetune.report.page.write import try_report

    chosen = prediction_formats(args.format)
    model = open_model(
        str(paths.base() / args.model),
        seed=args.seed,
        ensemble=args.ensemble,
        labels_of=args.labels_of,
    )
    out = paths.run_folder(args.out, kind="predict")
    if out.exists():
        raise BadInput(f"{out} is there already: choose another --out")
    unfinished = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        with recordings(args, model.schema, model.external, model.features) as opened:
            videos = videos_of(args.video, opened) if args.video else {}
            rows, failed = _write(unfinished, model, opened, chosen, videos, args)
        if len(failed) == len(opened):
            raise BadInput(f"no recording could be labelled: {next(iter(failed.values()))}")
        about = {
            "model": args.model,
            "seed": args.seed,
            "ensemble": args.ensemble,
            "poses": args.poses,
            "recordings": len(opened),
            "problems": {
                problem.name: {
                    "task": problem.task,
                    "annotator": problem.annotator,
                    "classes": list(problem.classes),
                    "overlapping": problem.overlapping,
                }
                for problem in model.problems
            },
        }
        write_json(unfinished / "predict.json", about)
        unfinished.replace(out)
        try_report(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    print(
        f"{summary_table(rows)}\n\n{len(opened) - len(failed)} recordings: {out / 'report.html'}, "
        f"{out / 'summary.csv'}, "
        f"{out / 'ethograms'}, " + ", ".join(str(out / name) for name in args.format)
    )
    if failed:
        raise RunFailed(
            f"{len(failed)} of {len(opened)} recordings could not be labelled, the others are in "
            f"{out}:\n" + "\n".join(f"  - {name}: {why}" for name, why in failed.items())
        )


def _write(
    out: Path,
    model: LoadedModel,
    opened: Sequence[Recording],
    formats: Mapping[str, AbstractPredictionFormat],
    videos: Mapping[str, Path],
    args: argparse.Namespace,
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Writes the files of every recording.

    Returns:
        The rows of the summary; and, of recordings that failed, why. Each costs itself alone.
    """
    from finetune.inference.ethograms import (
        BOUT_COLUMNS,
        Ethogram,
        draw,
        event_rows,
        summary,
    )
    from finetune.inference.video import check_video, draw_video
    from finetune.report.tables import write_csv
    from pretrain.data.recording_file import file_name, recording_file

    rows: list[dict[str, Any]] = []
    events: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    unseen: dict[str, float] = {}
    out.mkdir(parents=True)
    for recording in tqdm(opened, desc="labelling", unit="video"):
        files: list[Path] = []
        try:
            arrays, length = recording.read()
            video = videos.get(recording.name)
            if video:
                check_video(video, frames=length, fps=recording.fps)
            predictions = model.predict(
                arrays, bridge_s=args.bridge, every_animal=args.every_animal
            )
            del arrays  # hours of poses, while the files are written
            of_recording, bouts_of_recording, ethograms = [], [], []
            for problem, prediction in zip(model.problems, predictions, strict=True):
                ethogram = Ethogram(
                    video=recording.name,
                    problem=problem,
                    fps=recording.fps,
                    tracks=recording.read_tracks,
                    labels=recording.at_own_rate(prediction.labels, length),
                    probabilities_TC=recording.at_own_rate(prediction.probabilities_TC, length),
                )
                ethograms.append(ethogram)
                of_recording += summary(ethogram)
                bouts_of_recording += event_rows(ethogram)
                unseen[recording.name] = 1 - float(ethogram.labelled_T.mean())
                inside = file_name(problem.name) if len(model.problems) > 1 else ""
                writers = {name: (f.ending, f.write) for name, f in formats.items()}
                for name, (ending, write) in (writers | {"ethograms": (".png", draw)}).items():
                    files.append(recording_file(out / name / inside, recording.name, ending))
                    files[-1].parent.mkdir(parents=True, exist_ok=True)
                    write(files[-1], ethogram)
            if video:
                files.append(recording_file(out / "video", recording.name, ".mp4"))
                files[-1].parent.mkdir(exist_ok=True)
                draw_video(
                    files[-1],
                    video,
                    poses=recording.in_own_pixels(),
                    schema=model.schema,
                    ethograms=ethograms,
                )
            rows += of_recording
            events += bouts_of_recording
        except Exception as error:
            failed[recording.name] = f"{type(error).__name__}: {error}"
            if isinstance(error, BadInput):
                failed[recording.name] = str(error)
            for file in files:
                shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno in FULL:
                raise
    if rows:
        write_csv(out / "summary.csv", rows)
        write_csv(out / "bouts.csv", events, BOUT_COLUMNS)
    if lacking := [f"{name} ({share:.0%})" for name, share in unseen.items() if share]:
        what = "an animal is" if args.every_animal else "all animals are"
        log.warning(
            "no label where %s unseen for more than %g s (share of the frames): %s",
            what,
            args.bridge,
            ", ".join(lacking[:20]) + (f" and {len(lacking) - 20} more" * (len(lacking) > 20)),
        )
    return rows, failed


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(exit_status(main))
