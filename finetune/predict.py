"""Labels new recordings with a fitted model.

    # track files of any format that `ethoray prepare` reads
    %(prog)s --model runs/task1 --poses new/*.csv --fps 30
    %(prog)s --model runs/task1 --poses new/ --format csv boris annot nwb
    %(prog)s --model runs/task1 --poses new/ --keypoints snout=nose,tailbase=tail_base
    # a pose store, with the networks of all seeds together
    %(prog)s --model runs/task1 --poses STORE --ensemble

The tracks are brought to the model's names, scale and frame rate; labels come at the recording's
own rate. What the model's run learned on held-out videos is applied: temperature (probabilities
that mean what they say), thresholds and smoothing (the labels).

Leaves in --out, one file a video:
    csv/           frame, time_s, label, p_<class>, and a column of 0 and 1 for each class
    boris/         BORIS tabular events
    annot/         Caltech/Bento annotation
    nwb/           time intervals and probabilities
    ethograms/     pictures
    summary.csv    time per behaviour, bouts, bout lengths
csv/ (its columns of 0 and 1), boris/ and annot/ are what `ethoray prepare tracks --labels` reads:
corrected predictions become labels. A model of several problems (annotators, behaviours) gets a
folder for each; --labels-of chooses one.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from finetune.inference.recording_options import add_options
from pretrain.errors import BadInput, exit_status
from pretrain.runs import paths

if TYPE_CHECKING:
    from finetune.inference.model import LoadedModel
    from finetune.inference.recordings import Recording

FORMATS = ("csv", "boris", "annot", "nwb")


def main(words: Sequence[str] | None = None, *, prog: str = "python finetune/predict.py") -> None:
    """Runs the command line ``words``; help and errors call it ``prog``."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model",
        required=True,
        metavar="RUN",
        help="--out folder of a finished finetune/run.py, or a model folder in it",
    )
    add_options(parser, required=True)
    parser.add_argument(
        "--labels-of",
        metavar="NAME",
        help="only this task, annotator or behaviour of a model that has several",
    )
    parser.add_argument("--out", metavar="FOLDER", help="folder to make; left out: runs/predict-…")
    parser.add_argument(
        "--format", nargs="+", choices=FORMATS, default=["csv"], help="what to write (csv)"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--seed", type=int, help="the network of this seed; left out: the first")
    which.add_argument(
        "--ensemble", action="store_true", help="mean of the probabilities of all seeds"
    )
    args = parser.parse_args(words)

    from finetune.inference.ethograms import summary_table
    from finetune.inference.model import open_model
    from finetune.inference.recordings import recordings
    from finetune.inference.writers import refuse_missing

    refuse_missing(args.format)
    model = open_model(
        str(paths.base() / args.model),
        seed=args.seed,
        ensemble=args.ensemble,
        labels_of=args.labels_of,
    )
    out = paths.run_folder(args.out, kind="predict")
    if out.exists():
        raise BadInput(f"{out} is there already: choose another --out")
    making = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(making, ignore_errors=True)
    try:
        with recordings(args, model.schema, model.external) as found:
            rows = _write(making, model, found, args.format)
        about = {
            "model": args.model,
            "seed": args.seed,
            "ensemble": args.ensemble,
            "poses": args.poses,
            "recordings": len(found),
            "problems": {
                held.name: {
                    "task": held.task,
                    "annotator": held.annotator,
                    "classes": list(held.classes),
                }
                for held in model.asked
            },
        }
        (making / "predict.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        making.replace(out)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    print(
        f"{summary_table(rows)}\n\n{len(found)} recordings: {out / 'summary.csv'}, "
        f"{out / 'ethograms'}, " + ", ".join(str(out / name) for name in args.format)
    )


def _write(
    out: Path, model: LoadedModel, found: Sequence[Recording], formats: Sequence[str]
) -> list[dict[str, Any]]:
    from finetune.inference import writers
    from finetune.inference.ethograms import SUMMARY, picture, summary
    from finetune.report.figures import png

    rows: list[dict[str, Any]] = []
    out.mkdir(parents=True)
    for one in tqdm(found, desc="labelling", unit="video"):
        frames, length = one.frames()
        for problem, said in zip(model.asked, model.predict(frames)[0], strict=True):
            held = writers.Ethogram(
                video=one.name,
                problem=problem,
                fps=one.fps,
                labels=one.at_own_rate(said.labels, length),
                probabilities_TC=one.at_own_rate(said.probabilities_TC, length),
            )
            rows += summary(held)
            inside = (problem.name,) if len(model.asked) > 1 else ()
            for name in formats:
                ending, write = writers.FORMATS[name]
                write(_place(out / name, *inside, video=one.name, ending=ending), held)
            _place(out / "ethograms", *inside, video=one.name, ending=".png").write_bytes(
                png(picture(held))
            )
    with (out / "summary.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, SUMMARY)
        writer.writeheader()
        writer.writerows(rows)
    return rows


def _place(folder: Path, *inside: str, video: str, ending: str) -> Path:
    """A video's file; recordings told apart by their folders (``monday/1``) keep them."""
    parts = [*(name.replace("/", "-") for name in inside), *video.replace("\\", "/").split("/")]
    safe = [part for part in parts if part not in ("", ".", "..")]
    path = folder.joinpath(*safe[:-1], f"{safe[-1]}{ending}")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(exit_status(main))
