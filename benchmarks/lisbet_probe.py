"""What a linear probe reads from embeddings: ours beside LISBET's, after as much processor time on
the same poses.

    python benchmarks/lisbet_probe.py --data STORE --task S1 --lisbet ENVIRONMENT/bin/python
    --minutes 6

Both learn from all poses of the store and no label, at windows of 200 frames and about equal
parameters, in turns of as many core-seconds (A B A B …; LISBET's loader processes count): minutes
times threads in all. Ours is the contrastive recipe with its own optimiser; LISBET trains as it
comes (lisbet_embed.py says how). Then every Nth frame of the labelled videos is embedded and one
and the same logistic regression is fitted on a few labelled videos and on all, beside random
weights, hand-made features and chance. Scores are those of finetune/metrics/frame_metrics.py,
without the rest class, on the test videos; a turn (--turns) is a seed, which draws the labelled
videos alike for all rows. LISBET's licence allows academic use: it is run here, never copied.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import measure
import numpy as np
import numpy.typing as npt
import yaml
from linear_probe import probe, refuse_what_is_not_probed
from rivals.beside_lisbet import Lisbet
from steps import recipe_of
from tqdm import tqdm
from train_step import CHEAP, LISBET_WINDOW

from finetune.fit.frames import Frames, embed, gather_poses
from finetune.fit.open_encoder import HANDMADE, open_encoder
from finetune.labels.problems import Problem, draw_budget, problems
from finetune.metrics.frame_metrics import Scores, over_seeds, score
from pretrain.data.store import Store
from pretrain.encoders import Embedder
from pretrain.errors import BadInput, exit_status
from pretrain.runs import paths
from pretrain.train.in_memory import InMemory, Training
from pretrain.train.learner import new_learner

Embeddings = Mapping[str, npt.NDArray[np.float32]]
SHARES = 1_000_000

EPOCHS = 15
"""Turns; LISBET's own default number of epochs."""


class Ours:
    """Our pretraining, in turns of so many core-seconds; the rate follows the recipe's schedule
    over all of them."""

    def __init__(self, store: Store, encoder: str, *, core_seconds: float) -> None:
        recipe = recipe_of(
            "contrastive", {"window": LISBET_WINDOW, "encoder": yaml.safe_load(encoder)}
        )
        self.learner = new_learner(recipe, store)
        self.steps, self.spent_s, self.loss = 0, 0.0, float("nan")
        self._recipe, self._core_seconds = recipe, core_seconds
        self._training, self._batches = (
            Training(recipe, self.learner),
            InMemory(store, recipe).batches(),
        )

    @property
    def embedder(self) -> Embedder:
        """Features and encoder."""
        return self.learner.embedder

    @property
    def parameters(self) -> int:
        """Of the encoder."""
        return sum(weight.numel() for weight in self.embedder.encoder.parameters())

    @property
    def windows(self) -> int:
        """Through the encoder, forward and backward, so far."""
        return self.steps * self._recipe.batch * self.learner.objective.views

    def turn(self, number: int) -> None:
        """Trains until the processor time of this turn and all before it is spent."""
        whole, end = self._core_seconds * EPOCHS, self._core_seconds * (number + 1)
        self.learner.train()
        begin = time.process_time() - self.spent_s
        while (spent := time.process_time() - begin) < end:
            rate = self._recipe.optimiser.rate(
                min(SHARES - 1, round(SHARES * spent / whole)), SHARES
            )
            self.loss = float(self._training.step(next(self._batches), rate=rate).total)
            self.steps += 1
        self.spent_s = spent


def embedded(poses: Frames, embedder: Embedder, frames: Mapping[str, Any], what: str) -> Embeddings:
    """Some frames of every video, embedded by one of our encoders."""
    with tqdm(
        total=len(poses.arrays["position"]),
        desc=f"embedding: {what}",
        unit="frame",
        unit_scale=True,
    ) as bar:
        z = embed(poses, embedder, on_progress=bar.update)
    return {name: z.arrays["z"][first:end][frames[name]] for name, (first, end) in z.spans.items()}


def hand_over(store: Store, frames: Mapping[str, Any], file: Path) -> None:
    """Writes all poses of a store, and which frames are to be embedded, where LISBET's process
    finds them."""
    arrays: dict[str, Any] = {"animals": store.schema.animals, "keypoints": store.schema.keypoints}
    names = [held["name"] for held in store.videos]
    for number, name in enumerate(names):
        arrays[f"position{number}"] = store.read_video(name, features=()).position_TMKX
        arrays[f"frames{number}"] = frames.get(name, np.zeros(0, np.int64))
    np.savez(file, videos=names, **arrays)


def lisbet_embeddings(
    process: Lisbet, folder: Path, store: Store, frames: Mapping[str, Any], what: str
) -> dict[str, Embeddings]:
    """Which embedding to its frames, video by video."""
    total = 2 * sum(len(rows) for rows in frames.values())
    with tqdm(total=total, desc=f"embedding: {what}", unit="window", unit_scale=True) as bar:
        said = process.ask()
        while "done" not in said:
            bar.update(said["embedded"])
            said = process.answer()
    names = [held["name"] for held in store.videos if held["name"] in frames]
    ends = np.cumsum([len(frames[name]) for name in names])[:-1]
    with np.load(folder / "embedded.npz") as held:
        return {
            f"{what}: {which}": dict(zip(names, np.split(held[which], ends), strict=True))
            for which in held.files
        }


def learned(
    report: measure.Report,
    store: Store,
    problem: Problem,
    frames: Mapping[str, Any],
    args: argparse.Namespace,
) -> dict[str, Embeddings]:
    """Trains whoever takes part, in turn, and embeds with all of them: row of the table to
    embeddings."""
    share = args.minutes * 60 * args.threads / EPOCHS
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        lisbets: dict[str, tuple[Lisbet, dict[str, Any], Path]] = {}
        if args.lisbet:
            hand_over(store, frames, folder / "poses.npz")
            for rate in args.lisbet_rate:
                out = folder / f"lisbet {rate}"
                words = [
                    "--poses",
                    str(folder / "poses.npz"),
                    "--out",
                    str(out),
                    "--core-seconds",
                    str(share),
                    "--rate",
                    str(rate),
                ]
                process = stack.enter_context(
                    Lisbet(
                        args.lisbet,
                        "lisbet_embed.py",
                        *words,
                        "--threads",
                        str(args.threads),
                        "--epochs",
                        str(EPOCHS),
                    )
                )
                lisbets[f"LISBET, rate {rate:g}"] = (process, process.answer(), out)
        ours = {
            f"ours, {yaml.safe_load(spec)['name']}": Ours(store, spec, core_seconds=share)
            for spec in args.encoder
        }
        poses = gather_poses(store, sorted(frames))
        rows = {
            f"{what}: random weights": embedded(poses, one.embedder, frames, f"{what}, random")
            for what, one in ours.items()
        }
        handmade, _ = open_encoder(HANDMADE, store, recipe="contrastive", seed=0)
        rows["hand-made features"] = embedded(poses, handmade, frames, "hand-made features")

        spent: dict[str, list[dict[str, Any]]] = {what: [] for what in lisbets}
        with tqdm(
            total=EPOCHS * (len(ours) + len(lisbets)), desc="training in turns", unit="turn"
        ) as bar:
            for number in range(EPOCHS):
                for what, (process, _, _) in lisbets.items():
                    spent[what].append(process.ask())
                    bar.update()
                for one in ours.values():
                    one.turn(number)
                    bar.update()
        for what, one in ours.items():
            report.add(f"{what}: parameters of the encoder", one.parameters, "")
            report.add(f"{what}: processor time", one.spent_s, "core-s")
            report.add(f"{what}: windows of {LISBET_WINDOW} learned from", one.windows, "windows")
            epochs = one.windows * LISBET_WINDOW / one.learner.objective.views / store.frames
            report.note(f"{what}: {epochs:.2f} epochs, last loss {one.loss:.3f}")
            rows[f"{what}: trained"] = embedded(poses, one.embedder, frames, f"{what}, trained")
        for what, (process, about, out) in lisbets.items():
            windows = sum(held["windows"] for held in spent[what])
            report.add(f"{what}: parameters of the encoder", about["parameters"], "")
            report.add(f"{what}: processor time", spent[what][-1]["core_seconds"], "core-s")
            report.add(f"{what}: windows of {about['window']} learned from", windows, "windows")
            report.note(
                f"{what} (version {about['version']}): {about['with_heads']:,} parameters with its "
                "heads; "
                f"{windows / about['epoch_windows']:.4f} of an epoch by its own count, "
                f"{sum(held['steps'] for held in spent[what])} steps"
            )
            rows |= lisbet_embeddings(process, out, store, frames, what)
    return rows


def compare(
    report: measure.Report,
    rows: Mapping[str, Embeddings],
    problem: Problem,
    args: argparse.Namespace,
) -> None:
    """Probes every row at every budget."""
    budgets = {f"{args.videos} videos": args.videos, f"all {len(problem.train)}": None}
    with tqdm(total=len(rows) * len(budgets) * args.turns, desc="probes", unit="probe") as bar:
        for budget, videos in budgets.items():
            for what, z in rows.items():
                scores, strengths = {}, []
                for seed in range(args.turns):
                    if videos is None and scores:  # nothing is drawn, so nothing changes
                        bar.update()
                        continue
                    (drawn,) = draw_budget([problem], videos=videos, seed=seed)
                    scores[seed], strength = probe(z, drawn)
                    strengths.append(strength)
                    bar.update()
                write(
                    report,
                    f"{budget}: {what}",
                    scores,
                    f"; C {', '.join(f'{s:g}' for s in strengths)}",
                )
    truth = np.concatenate([problem.test[name] for name in sorted(problem.test)])
    guesses = {
        seed: np.random.default_rng(seed).random((len(truth), len(problem.classes)))
        for seed in range(args.turns)
    }
    blind = {
        seed: score(probabilities_TC=p, labels=truth, classes=problem.classes)
        for seed, p in guesses.items()
    }
    write(report, "chance", blind, "")


def write(report: measure.Report, what: str, scores: Mapping[int, Scores], more: str) -> None:
    """A row: macro F1 and MAP of each seed, and below the table mean ± population standard
    deviation."""
    report.add(f"{what}: macro F1", [held.macro_f1 for held in scores.values()], "")
    report.add(f"{what}: MAP", [held.map for held in scores.values()], "")
    mean = over_seeds(scores)
    spread = (
        (f" ± {mean.macro_f1_std:.3f}", f" ± {mean.map_std:.3f}") if len(scores) > 1 else ("", "")
    )
    report.note(f"{what}: {mean.macro_f1:.3f}{spread[0]} / {mean.map:.3f}{spread[1]}{more}")


def every_nth(problem: Problem, every: int) -> tuple[Problem, dict[str, Any]]:
    """The problem on every nth frame, and which those are, by video."""
    rows = {
        name: np.arange(0, len(labels), every)
        for name, labels in [*problem.train.items(), *problem.test.items()]
    }
    thinned = replace(
        problem,
        train={name: labels[::every] for name, labels in problem.train.items()},
        test={name: labels[::every] for name, labels in problem.test.items()},
    )
    return thinned, rows


def main(words: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = measure.new_parser(__doc__, turns=3)
    parser.add_argument("--data", required=True, help="pose store with labels")
    parser.add_argument("--task", required=True, help="label set of exclusive classes")
    parser.add_argument(
        "--lisbet",
        metavar="PYTHON",
        help="interpreter that has the package lisbet; left out: our rows alone",
    )
    parser.add_argument(
        "--lisbet-rate",
        type=float,
        nargs="+",
        default=[1e-4],
        help="its learning rates, a training each (%(default)s)",
    )
    parser.add_argument(
        "--encoder", nargs="+", default=[CHEAP], help="ours, a training each (%(default)s)"
    )
    parser.add_argument(
        "--minutes", type=float, default=6.0, help="of all threads, for each training (%(default)s)"
    )
    parser.add_argument(
        "--every",
        type=int,
        default=5,
        help="every so many frames is embedded and probed (%(default)s)",
    )
    parser.add_argument(
        "--videos", type=int, default=3, help="labelled videos of the small budget (%(default)s)"
    )
    args = measure.parse(parser, words)
    if args.minutes <= 0:
        raise BadInput(f"--minutes is {args.minutes}; it must be above 0")
    store = Store(paths.open_address(args.data))
    found = problems(store, args.task)
    if len(found) != 1:
        raise BadInput(
            f"the task {args.task!r} has {len(found)} problems "
            f"({', '.join(one.name for one in found)}); this probe fits one"
        )
    refuse_what_is_not_probed(found[0], args.videos)
    problem, frames = every_nth(found[0], args.every)
    about = (
        f"a linear probe on {args.task} after {args.minutes:g} minutes of {args.threads} "
        "threads on the same poses"
    )
    report = measure.Report("lisbet_probe", about, measure.settings_of(args))
    rows = learned(report, store, problem, frames, args)
    compare(report, rows, problem, args)
    if not args.lisbet:
        report.note("LISBET was not run: give --lisbet an interpreter that has it")
    report.finish(args.json)


if __name__ == "__main__":
    sys.exit(exit_status(main))
