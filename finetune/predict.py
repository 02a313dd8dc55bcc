"""Labels new recordings with a fitted model.

    # track files of any format that `ethoray prepare` reads
    %(prog)s --model runs/task1 --poses new/*.csv --fps 30
    %(prog)s --model runs/task1 --poses new/ --format csv boris annot nwb
    %(prog)s --model runs/task1 --poses new/ --keypoints snout=nose,tailbase=tail_base
    # a pose store, with the networks of all seeds together
    %(prog)s --model runs/task1 --poses STORE --ensemble

The tracks are converted to the model's names, scale and frame rate; labels come at the recording's
own rate, with the postprocessing that helped the model's run on held-out videos: calibration of
the probabilities, decision rule and smoothing of the labels.

Leaves in --out, one file for each video:
    FORMAT/        for each --format
    ethograms/     pictures
    summary.csv    time for each behaviour, bouts, bout lengths
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
from pretrain.errors import BadInput, exit_status
from pretrain.redact import write_json
from pretrain.runs import paths

if TYPE_CHECKING:
    from finetune.inference.model import LoadedModel
    from finetune.inference.prediction_formats import AbstractPredictionFormat
    from finetune.inference.recordings import Recording


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
        with recordings(args, model.schema, model.external) as opened:
            rows = _write(unfinished, model, opened, chosen)
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
                }
                for problem in model.problems
            },
        }
        write_json(unfinished / "predict.json", about)
        unfinished.replace(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    print(
        f"{summary_table(rows)}\n\n{len(opened)} recordings: {out / 'summary.csv'}, "
        f"{out / 'ethograms'}, " + ", ".join(str(out / name) for name in args.format)
    )


def _write(
    out: Path,
    model: LoadedModel,
    opened: Sequence[Recording],
    formats: Mapping[str, AbstractPredictionFormat],
) -> list[dict[str, Any]]:
    """The files of every recording, and the rows of the summary."""
    from finetune.inference.ethograms import Ethogram, picture, summary
    from finetune.report.figures import png
    from finetune.report.tables import write_csv

    rows: list[dict[str, Any]] = []
    out.mkdir(parents=True)
    for recording in tqdm(opened, desc="labelling", unit="video"):
        arrays, length = recording.read()
        predictions, _ = model.predict(arrays)
        for problem, prediction in zip(model.problems, predictions, strict=True):
            ethogram = Ethogram(
                video=recording.name,
                problem=problem,
                fps=recording.fps,
                labels=recording.at_own_rate(prediction.labels, length),
                probabilities_TC=recording.at_own_rate(prediction.probabilities_TC, length),
            )
            rows += summary(ethogram)
            inside = (problem.name,) if len(model.problems) > 1 else ()
            for name, written in formats.items():
                path = _path(out / name, *inside, video=recording.name, ending=written.ending)
                written.write(path, ethogram)
            _path(out / "ethograms", *inside, video=recording.name, ending=".png").write_bytes(
                png(picture(ethogram))
            )
    write_csv(out / "summary.csv", rows)
    return rows


def _path(folder: Path, *inside: str, video: str, ending: str) -> Path:
    """A video's file; recordings that differ by their folders (``monday/1``) keep them."""
    parts = [*(name.replace("/", "-") for name in inside), *video.replace("\\", "/").split("/")]
    safe = [part for part in parts if part not in ("", ".", "..")]
    path = folder.joinpath(*safe[:-1], f"{safe[-1]}{ending}")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(exit_status(main))
