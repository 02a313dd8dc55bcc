"""The main job from start to end on simulated mice: pretraining, Tasks 1-3, and two controls.

    make quickstart
    %(prog)s [--out runs/quickstart] [--data STORE]

Scores on simulated mice are not CalMS21 scores.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import finetune.run
import pretrain.run
from pretrain.errors import BadInput, exit_status
from pretrain.runs import paths

RANDOM, HANDMADE = "none", "handmade"  # of ethoray finetune --encoder

TASKS = {
    "classic_classification": "Task 1",
    "annotation_style_transfer": "Task 2",
    "new_behaviors": "Task 3",
}
# Three trials can search one key; the tasks' own search spaces need dozens.
SETTINGS = (
    "steps=80",
    "evaluations=2",
    "batch=8",
    "postprocess_folds=0",
    "recipe=quickstart",
    "search={lr: [0.002, 0.005, 0.01]}",
)
SMALL = ["--trials", "3", "--seeds", "3", *(word for pair in SETTINGS for word in ("--set", pair))]
HEADS = {"annotation_style_transfer": "{name: temporal, annotator: embedding}"}
"""One head for five annotators."""


def main(
    words: Sequence[str] | None = None, *, prog: str = "python finetune/quickstart.py"
) -> None:
    """Runs the command line ``words``; help and errors call it ``prog``."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out",
        default=f"runs/quickstart-{time.strftime('%Y%m%d-%H%M%S')}",
        help="folder of the runs (%(default)s)",
    )
    parser.add_argument(
        "--data", help="pose store with Tasks 1-3; left out: a small simulated arena"
    )
    args = parser.parse_args(words)

    # Ray and torch take seconds to import, which --help need not wait for.
    from pretrain.cluster.join import cluster
    from pretrain.config import SCALES, Scale, read

    out = paths.run_folder(args.out, kind="quickstart")
    if out.exists():
        raise BadInput(f"{out} is there already: choose another --out")
    data = args.data or paths.default_store()
    scale = read(Scale, "laptop", SCALES, {})
    began = time.monotonic()
    with cluster(scale):
        _say(f"1 of 4: pretraining on every frame of {data}, without labels")
        pretrain.run.main(
            ["--recipe", "quickstart", "--data", data, "--out", str(out / "pretrain")]
        )
        scores = {}
        for number, (task, name) in enumerate(TASKS.items(), 2):
            _say(f"{number} of 4: {name} ({task}): pretrained, random weights, hand-made features")
            for encoder in (str(out / "pretrain"), RANDOM, HANDMADE):
                kind = "pretrained" if encoder not in (RANDOM, HANDMADE) else encoder
                folder = out / f"{task}-{kind}"
                finetune.run.main(
                    [
                        "--encoder",
                        encoder,
                        "--task",
                        task,
                        "--data",
                        data,
                        "--out",
                        str(folder),
                        *SMALL,
                        "--set",
                        f"head={HEADS.get(task, '{name: temporal}')}",
                    ]
                )
                scores[name, kind] = json.loads(
                    (folder / "result.json").read_text(encoding="utf-8")
                )
    _say(f"done in {time.monotonic() - began:.0f} s. Simulated mice: these are not CalMS21 scores.")
    print(_table(scores))
    print(f"\npictures: {out}/*/confusion.png, {out}/*/ethogram.png")
    print(f"compare the runs: {page_of_runs(scale.tracking, out)}")


def page_of_runs(address: str | None, out: Path) -> str:
    """What to type to see the runs of the first task side by side; those of the others are one
    click away."""
    from pretrain.runs.tracked_run import open_tracking

    tracking = open_tracking(address, runs_folder=out)
    return tracking.ui_command(f"finetune {next(iter(TASKS))}")


def _say(sentence: str) -> None:
    print(f"\n== {sentence}", flush=True)


def _table(scores: dict[tuple[str, str], dict[str, float]]) -> str:
    kinds = {"pretrained": "pretrained", RANDOM: "random weights", HANDMADE: "hand-made features"}
    lines = [
        f"{'macro F1 / MAP on test':24}"
        + "".join(f"{title:>22}" for title in kinds.values())
        + f"{'chance MAP':>14}"
    ]
    for name in TASKS.values():
        cells = "".join(
            f"{scores[name, kind]['macro_f1']:>15.3f} / {scores[name, kind]['map']:.3f}"[
                -22:
            ].rjust(22)
            for kind in kinds
        )
        lines.append(f"{name:24}{cells}{scores[name, 'pretrained']['chance_map']:>14.3f}")
    return "\n".join(lines)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(exit_status(main))
