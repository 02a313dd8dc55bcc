"""The whole training step: floating-point use beside a bare matrix product, windows a second beside
LISBET, task programming beside TREBA.

    python benchmarks/train_step.py
    python benchmarks/train_step.py --lisbet ENVIRONMENT/bin/python      an interpreter that has the
    package `lisbet`; it then takes turns

A step is what a run does between two batches: cut the windows, two views, features, encoder, loss,
gradient, clipping, optimiser. Its operations are what torch.utils.flop_counter counts, a product
and a sum as two: matrix products and convolutions of encoder and loss, forward and backward. Views,
features, norms and the optimiser take time but count nothing. The bare product is one square matrix
times another, of the type that the step multiplies in. Every window that goes through the encoder
forward and backward counts: two views of it, two windows. The frames are random walks that lie in
memory.

LISBET trains as it comes (window 200, four tasks, a loader process for each), in its own process,
in turn with ours at window 200 and about its 75,620 parameters; its loaders go on filling their
queues while ours runs, which favours it.

TREBA's released program is no package; its published model trains as treba_steps.py tells, on the
same walks, in turn with ours. A trajectory of 21 frames counts once on both sides. TREBA passes it
and a changed copy through its encoder; ours passes two views of a window of 128 frames and draws
many trajectories, which overlap, from it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import measure
import torch
import yaml
from rivals import treba_steps
from rivals.beside_lisbet import Lisbet
from steps import learner_of, recipe_of
from torch.utils.flop_counter import FlopCounterMode
from walks import Resident

from pretrain.errors import exit_status
from pretrain.train.step import OptimiserStep
from pretrain.train.torch_setup import has_bf16_matmul

WIDE = "{name: tcn, width: 256, layers: 6}"
SMALL = "{name: tcn, width: 48, layers: 7}"  # 74,976 parameters with the recipe's features
# 75,472; fewer operations a frame
CHEAP = "{name: two_rate, width: 56, narrow: 32, dim: 56, layers: 4}"
LISBET_WINDOW, TREBA_RATE = 200, 130
STEPS = 4  # in a turn of ours, as in a run, where the caches hold what the step before left


class Step:
    """A training step that can be called again and again."""

    def __init__(self, recipe_name: str, changes: Mapping[str, Any], *, frames: int) -> None:
        recipe = recipe_of(recipe_name, changes)
        self._frames = Resident(frames, window=recipe.window, batch=recipe.batch)
        self.recipe, self.learner = recipe, learner_of(recipe)
        self._step = OptimiserStep(self.learner, recipe.optimiser)
        self._done = 0

    def __call__(self) -> None:
        """The next step."""
        self._step(self._frames.windows(self._done))
        self._done += 1

    @property
    def windows(self) -> int:
        """That go through the encoder, forward and backward."""
        return self.recipe.batch * self.learner.objective.views

    @property
    def parameters(self) -> int:
        """Of the encoder."""
        return sum(weight.numel() for weight in self.learner.embedder.encoder.parameters())

    def operations(self) -> int:
        """Of one step, as the counter of torch counts them."""
        with FlopCounterMode(display=False) as counter:
            self()
        return int(counter.get_total_flops())


def matrix_product(size: int, dtype: torch.dtype) -> Callable[[], object]:
    """One product of square matrices: 2 size^3 operations."""
    left, right = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    out = torch.empty(size, size, dtype=dtype)
    return lambda: torch.mm(left, right, out=out)


def repeated(work: Callable[[], object], times: int) -> Callable[[], None]:
    """A work done several times."""

    def works() -> None:
        for _ in range(times):
            work()

    return works


def against_matrix_product(report: measure.Report, args: argparse.Namespace) -> None:
    """Operations a second of the contrastive step, wide and small."""
    half = has_bf16_matmul("cpu") if args.precision == "auto" else args.precision == "bf16"
    product = matrix_product(args.matrix, torch.bfloat16 if half else torch.float32)
    changes = {
        "precision": "bf16" if half else "float32",
        "window": args.window,
        "batch": args.batch,
    }
    for name, spec, goal in (("small", args.small, 0.2), ("wide", args.wide, 0.4)):
        step = Step("contrastive", changes | {"encoder": yaml.safe_load(spec)}, frames=args.frames)
        operations = step.operations()
        works = {
            "product": repeated(product, STEPS),
            "step": repeated(step, STEPS),
            "product again": repeated(product, STEPS),
        }
        spent = {
            work: [turn / STEPS for turn in found]
            for work, found in measure.take_turns(works, turns=args.turns, warm=2).items()
        }
        bare = [
            (before + after) / 2
            for before, after in zip(spent["product"], spent["product again"], strict=True)
        ]
        rate = measure.rates(2 * args.matrix**3 / 1e9, bare)
        used = measure.rates(operations / 1e9, spent["step"])
        report.add(f"{name}: {step.recipe.encoder}, parameters", step.parameters, "")
        report.add(f"{name}: operations of a step", operations / 1e9, "GFLOP")
        report.add(f"{name}: step", used, "GFLOP/s")
        report.add(
            f"{name}: matrix product of {args.matrix}, {changes['precision']}", rate, "GFLOP/s"
        )
        report.add(
            f"{name}: share of the matrix product", measure.ratios(used, rate), "", at_least=goal
        )
        report.add(
            f"{name}: windows of {args.window}, forward and backward",
            measure.rates(step.windows, spent["step"]),
            "windows/s",
        )
    report.note(
        f"multiplied in {changes['precision']}; the counter sees no operations in views, features, "
        "norms and optimiser"
    )


@contextmanager
def lisbet(
    python: str, *, batches: int, threads: int
) -> Iterator[tuple[dict[str, Any], Callable[[], float]]]:
    """LISBET in a process of its own: what it is, and a turn of it in seconds by its own clock."""
    with Lisbet(
        python, "lisbet_steps.py", "--batches", str(batches), "--threads", str(threads)
    ) as process:
        yield process.answer(), lambda: float(process.ask()["seconds"])


def against_lisbet(report: measure.Report, args: argparse.Namespace) -> None:
    """Windows a second at window 200 and equal parameters."""
    changes = {"window": LISBET_WINDOW, "batch": args.batch, "encoder": yaml.safe_load(args.cheap)}
    step = Step("contrastive", changes, frames=args.frames)
    what = f"ours, {step.parameters:,} parameters, windows of {LISBET_WINDOW}"
    if args.lisbet is None:
        spent = measure.take_turns({what: step}, turns=args.turns)[what]
        report.add(what, measure.rates(step.windows, spent), "windows/s")
        report.note("LISBET was not run: give --lisbet an interpreter that has it")
        return
    with lisbet(args.lisbet, batches=args.lisbet_batches, threads=args.threads) as (theirs, turn):
        mine, other = [], []
        for place in range(-1, args.turns):
            spent_s, its_s = measure.seconds(step), turn()
            if place >= 0:
                mine.append(step.windows / spent_s)
                other.append(theirs["windows"] / its_s)
    report.add(what, mine, "windows/s")
    report.add(
        f"LISBET {theirs['version']}, {theirs['parameters']:,} parameters, windows of "
        f"{theirs['window']}",
        other,
        "windows/s",
    )
    report.add("ours against LISBET", measure.ratios(mine, other), "x", at_least=5)


def against_treba(report: measure.Report, args: argparse.Namespace) -> None:
    """Trajectories a second of task programming, in turn with the published model; each counts
    once, though two copies are learned from."""
    modes = {"differentiable": "differentiable programs", "published": "learned approximators"}
    ours = {
        mode: Step("task_programming", {"objective.mode": mode}, frames=args.frames)
        for mode in modes
    }
    precisions = ["float32", *(["bf16"] if has_bf16_matmul("cpu") else [])]
    theirs = {
        one: treba_steps.Training(args.frames, batch=args.treba_batch, half=one == "bf16")
        for one in precisions
    }
    # Turns that last about as long: what else the machine does would spoil the ratio of a short one
    # to a long one.
    several = {"differentiable": repeated(ours["differentiable"], STEPS)}
    spent = measure.take_turns({**ours, **theirs, **several}, turns=args.turns)
    spent["differentiable"] = [seconds / STEPS for seconds in spent["differentiable"]]
    rate = {}
    for mode, step in ours.items():
        objective: Any = step.learner.objective
        rate[mode] = measure.rates(step.recipe.batch * objective.trajectories, spent[mode])
        what = (
            f"task programming, {modes[mode]}: {objective.trajectories} trajectories of "
            f"{objective.frames} frames in a window of "
            f"{step.recipe.window}, codes of {objective.code} numbers"
        )
        report.add(what, rate[mode], "trajectories/s", at_least=20 * TREBA_RATE)
        report.add(
            "windows through its encoder", measure.rates(step.windows, spent[mode]), "windows/s"
        )
    for one, published in theirs.items():
        what = (
            f"the published model, {published.parameters:,} parameters, {one}, codes of "
            f"{treba_steps.CODE} numbers"
        )
        rate[one] = measure.rates(published.batch, spent[one])
        report.add(what, rate[one], "trajectories/s")
        report.add(
            f"windows of {treba_steps.FRAMES} through its encoder",
            measure.rates(published.windows, spent[one]),
            "windows/s",
        )
    report.add(
        "ours against the published model, same machine",
        measure.ratios(rate["differentiable"], rate["float32"]),
        "x",
        at_least=20,
    )
    if "bf16" in rate:
        report.add(
            "ours against it in bf16, in which it was not published",
            measure.ratios(rate["differentiable"], rate["bf16"]),
            "x",
        )
    report.add(
        "learned approximators against differentiable programs, time of a step",
        measure.ratios(spent["published"], spent["differentiable"]),
        "x",
    )
    report.note(
        "the published model is benchmarks/rivals/treba_steps.py; the released program ran at "
        f"{TREBA_RATE} trajectories/s on another "
        "two-core machine, which is the goal's absolute figure"
    )


def main(words: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = measure.new_parser(__doc__, turns=5)
    parser.add_argument(
        "--frames", type=int, default=120_000, help="frames in memory (%(default)s)"
    )
    parser.add_argument("--batch", type=int, default=64, help="windows of a batch (%(default)s)")
    parser.add_argument(
        "--window",
        type=int,
        default=128,
        help="frames of a window, for the comparison with the product (%(default)s)",
    )
    parser.add_argument(
        "--matrix", type=int, default=2048, help="rows of the bare product (%(default)s)"
    )
    parser.add_argument(
        "--wide", default=WIDE, metavar="YAML", help="the wide encoder (%(default)s)"
    )
    parser.add_argument(
        "--small", default=SMALL, metavar="YAML", help="the small encoder (%(default)s)"
    )
    parser.add_argument(
        "--cheap",
        default=CHEAP,
        metavar="YAML",
        help="the encoder that stands beside LISBET's (%(default)s)",
    )
    parser.add_argument(
        "--precision",
        choices=["auto", "float32", "bf16"],
        default="auto",
        help="of products (%(default)s)",
    )
    parser.add_argument(
        "--lisbet",
        metavar="PYTHON",
        help="interpreter of an environment that has the package lisbet",
    )
    parser.add_argument(
        "--lisbet-batches",
        type=int,
        default=4,
        help="its batches (of four tasks) in a turn (%(default)s)",
    )
    parser.add_argument(
        "--treba-batch",
        type=int,
        default=128,
        help="trajectories of a batch of TREBA's model (%(default)s)",
    )
    args = measure.parse(parser, words)
    report = measure.Report(
        "train_step",
        "the contrastive step beside a matrix product, LISBET and TREBA",
        measure.settings_of(args),
    )
    against_matrix_product(report, args)
    against_lisbet(report, args)
    against_treba(report, args)
    report.finish(args.json)


if __name__ == "__main__":
    sys.exit(exit_status(main))
