"""Encoders side by side on the same labels: tunes each on every budget and task, and writes one
table.

    python finetune/compare.py --data STORE --tasks S1 S2 --encoders runs/mine none handmade
    --videos 1 3 all --out runs/compare

The row of an encoder is tuned as `finetune/run.py` does it, with the same drawn videos, seeds and
search as the others; `--modes` says whether the encoder stays frozen, is trained along, or stays
frozen while the training labels are rolled in time (`permuted`: what is scored when labels mean
nothing). Leaves table.md and table.csv in --out, and every run's folder. Chance, the MAP of a
random scorer, which is the share of positive frames, stands in the last row.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import sys
from pathlib import Path
from typing import Any

import finetune.run
from finetune.fit.open_encoder import HANDMADE, RANDOM
from pretrain.config import SCALES, Scale, parse_overrides, read
from pretrain.errors import exit_status
from pretrain.runs import paths
from pretrain.train.cluster import cluster

log = logging.getLogger(__name__)

COLUMNS = (
    "task",
    "videos",
    "encoder",
    "mode",
    "macro_f1",
    "macro_f1_std",
    "map",
    "map_std",
    "chance_map",
    "folder",
)


def main(words: list[str] | None = None) -> None:
    """Runs the command line ``words``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="pose store with labels")
    parser.add_argument("--tasks", nargs="+", required=True, help="label sets of the store")
    parser.add_argument(
        "--encoders",
        nargs="+",
        required=True,
        help="pretraining runs, none (random weights), handmade",
    )
    parser.add_argument(
        "--videos", nargs="+", default=["all"], help="label budgets, 1 3 all (%(default)s)"
    )
    parser.add_argument(
        "--modes",
        nargs="+",
        choices=["frozen", "trained", "permuted"],
        default=["frozen"],
        help="encoder frozen, trained along, frozen with permuted labels (%(default)s)",
    )
    parser.add_argument(
        "--out",
        required=True,
        help="folder of the comparison; what is there already is not computed again",
    )
    parser.add_argument(
        "--scale", default="laptop", help="where: a name from ray_configs/ or a file (%(default)s)"
    )
    parser.add_argument(
        "--frozen-set",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="settings of frozen runs, trials=4 steps=200",
    )
    parser.add_argument(
        "--trained-set",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="settings of trained runs, trials=1 steps=150",
    )
    args = parser.parse_args(words)
    out = paths.run_folder(args.out, kind="compare")
    (scale_values,) = parse_overrides([], Scale)
    scale = read(Scale, args.scale, SCALES, scale_values)
    rows = []
    with cluster(scale, cpus_wanted=1, gpus_wanted=scale.gpus_per_trial if scale.gpu else 0):
        for task in args.tasks:
            for videos in args.videos:
                for encoder in args.encoders:
                    for mode in args.modes:
                        if not (encoder == HANDMADE and mode == "trained"):
                            rows.append(
                                _one(
                                    args, out, task=task, videos=videos, encoder=encoder, mode=mode
                                )
                            )
                            write(out, rows)
    print((out / "table.md").read_text(encoding="utf-8"))


def _one(
    args: argparse.Namespace, out: Path, *, task: str, videos: str, encoder: str, mode: str
) -> dict[str, Any]:
    name = Path(encoder).name
    folder = out / f"{task}-{videos}-{name}-{mode}"
    result = folder / "result.json"
    if not result.is_file():
        log.info("\n== %s, %s labelled videos, %s, %s", task, videos, name, mode)
        settings = {
            "frozen": args.frozen_set,
            "trained": [*args.trained_set, "frozen=false"],
            "permuted": [*args.frozen_set, "permute_labels=true"],
        }[mode]
        words = [
            "--encoder",
            encoder,
            "--task",
            task,
            "--data",
            args.data,
            "--scale",
            args.scale,
            "--out",
            str(folder),
        ]
        words += ["--videos", videos] if videos != "all" else []
        words += ["--resume"] if (folder / "run.json").is_file() else []
        finetune.run.main([*words, *(word for pair in settings for word in ("--set", pair))])
    held = json.loads(result.read_text(encoding="utf-8"))
    kinds = {RANDOM: "random weights", HANDMADE: "hand-made features"}
    said = {
        "task": task,
        "videos": videos,
        "encoder": kinds.get(encoder, name),
        "mode": mode,
        "folder": folder.name,
    }
    return said | {key: held[key] for key in COLUMNS if key in held and key not in said}


def write(out: Path, rows: list[dict[str, Any]]) -> None:
    """Writes ``table.csv`` and ``table.md``: a line an encoder, a pair of columns a task and
    budget."""
    with (out / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    heads = list(dict.fromkeys((row["task"], row["videos"]) for row in rows))
    lines = [
        "| encoder | | " + " | ".join(f"{task}, {videos} videos" for task, videos in heads) + " |",
        "|---" * (2 + len(heads)) + "|",
    ]
    for encoder, mode in dict.fromkeys((row["encoder"], row["mode"]) for row in rows):
        cells = []
        for task, videos in heads:
            held = [
                r
                for r in rows
                if (r["task"], r["videos"], r["encoder"], r["mode"])
                == (task, videos, encoder, mode)
            ]
            cells.append(_cell(held[0]) if held else "")
        lines.append(f"| {encoder} | {mode} | " + " | ".join(cells) + " |")
    chance = [
        next(r["chance_map"] for r in rows if (r["task"], r["videos"]) == head) for head in heads
    ]
    lines.append("| chance | | " + " | ".join(f"- / {value:.3f}" for value in chance) + " |")
    (out / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cell(row: dict[str, Any]) -> str:
    return (
        f"{row['macro_f1']:.3f} ± {row['macro_f1_std']:.3f} / {row['map']:.3f} ± "
        f"{row['map_std']:.3f}"
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(exit_status(main))
