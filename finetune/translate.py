"""Turns labels of one annotator into another's style, where both labelled some recordings.

    # how well each can be turned into each other
    %(prog)s --data STORE --task behaviors
    # labels of every recording of rater1 as rater2 would have given them
    %(prog)s --data STORE --task behaviors --source rater1 --target rater2 --out translated

The table has, for each pair, the agreement of the two as they are, and of the translation with the
second, each recording translated by what was learned from the others; below it how far annotators
agree on average, which no translation can be expected to pass by much. --out holds an npz for each
recording, by the annotator `rater1 as rater2`, which `ethoray prepare tracks --append --labels`
reads.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

from pretrain.errors import BadInput, exit_status
from pretrain.runs import paths


def main(words: Sequence[str] | None = None, *, prog: str = "python finetune/translate.py") -> None:
    """Runs the command line ``words``; help and errors call it ``prog``."""
    args = _parser(prog).parse_args(words)
    if bool(args.out) > bool(args.source and args.target):
        raise BadInput("--out needs --source and --target")

    import numpy as np

    from finetune.fit.frames import gather_poses, recordings
    from finetune.labels.problems import problems
    from finetune.labels.translate import Translator, out_of_fold
    from finetune.report.annotator_agreement import agreement, shared
    from pretrain.data.recording_file import recording_file
    from pretrain.data.store import Store

    store = Store(paths.absolute_address(args.data))
    every = [p for p in problems(store, args.task) if p.annotator]
    known = sorted({problem.annotator for problem in every})
    for option, name in (("--source", args.source), ("--target", args.target)):
        if name and name not in known:
            raise BadInput(
                f"{option}: no annotator {name!r} of {args.task}; there are "
                f"{', '.join(known) or 'none with a name'}"
            )
    videos = sorted({name for p in every for name in (*p.train, *p.test)})
    recording = recordings(gather_poses(store, videos)) if every else str
    rows: list[dict[str, Any]] = []
    for one, other in permutations(every, 2):
        named = args.source in (None, one.annotator) and args.target in (None, other.annotator)
        alike = (one.classes, one.overlapping) == (other.classes, other.overlapping)
        if not (named and alike):
            continue
        pairs = shared({**one.train, **one.test}, {**other.train, **other.test}, recording)
        if len(pairs) < 2:
            continue
        target = np.concatenate([b for _, b in pairs])
        classes, fps = len(one.classes), store.schema.fps
        scores = {
            "raw": agreement(other, target, np.concatenate([a for a, _ in pairs])),
            "translated": agreement(
                other, target, np.concatenate(out_of_fold(pairs, classes=classes, fps=fps))
            ),
        }
        rows.append(
            {"source": one.annotator, "target": other.annotator, "recordings": len(pairs)} | scores
        )
        if args.out:
            translator = Translator(classes, fps)
            translator.fit(pairs)
            out = Path(paths.absolute_address(args.out))
            for name, labels in {**one.train, **one.test}.items():
                file = recording_file(out, name, ".npz")
                file.parent.mkdir(parents=True, exist_ok=True)
                np.savez(
                    file,
                    labels=translator(labels),
                    classes=np.array(one.classes),
                    task=args.task,
                    annotator=f"{one.annotator} as {other.annotator}",
                    video=name,
                    split="test" if name in one.test else "train",
                )
            (out / "result.json").write_text(json.dumps(rows[-1], indent=1) + "\n")
    if not rows:
        raise BadInput(
            f"{args.task} of {store.uri}: no two annotators labelled the same two recordings or "
            f"more with the same classes (annotators: {', '.join(known) or 'none'})"
        )
    print(_table(rows))
    better = [r for r in rows if _kappa(r["translated"]) > _kappa(r["raw"])]
    print(
        f"{len(better)} of {len(rows)} translations agree better than the labels as they are"
        + ("" if len(better) == len(rows) else "; leave the others as they are")
    )


def _kappa(scores: dict[str, Any]) -> float:
    return float(scores.get("kappa") or 0)


def _table(rows: Sequence[dict[str, Any]]) -> str:
    def cells(scores: dict[str, Any]) -> str:
        both = (scores.get("macro_f1"), scores.get("kappa"))
        return " | ".join("-" if value is None else f"{value:.3f}" for value in both)

    lines = [
        "| labels of | in the style of | recordings | F1 as they are | kappa | F1 translated | "
        "kappa |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        who = f"| {row['source']} | {row['target']} | {row['recordings']} | "
        lines.append(who + f"{cells(row['raw'])} | {cells(row['translated'])} |")
    means = {
        kind: {
            score: sum(values) / len(values)
            for score in ("macro_f1", "kappa")
            if (values := [r[kind][score] for r in rows if r[kind].get(score) is not None])
        }
        for kind in ("raw", "translated")
    }
    return "\n".join(
        [*lines, f"| mean | | | {cells(means['raw'])} | {cells(means['translated'])} |"]
    )


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="pose store, a folder or s3://…")
    parser.add_argument("--task", required=True, metavar="NAME", help="the label set")
    parser.add_argument("--source", metavar="ANNOTATOR", help="whose labels; left out: everybody's")
    parser.add_argument("--target", metavar="ANNOTATOR", help="whose style; left out: everybody's")
    parser.add_argument("--out", metavar="FOLDER", help="write translated labels there")
    return parser


if __name__ == "__main__":
    sys.exit(exit_status(main))
