"""The contrastive step on a GPU: float32 and bf16, eager and compiled, beside the bare matrix
product; needs neither Ray nor MLflow.

    python benchmarks/gpu.py                        the default recipe; the frames lie on the device
    python benchmarks/gpu.py --frames 6000000 --json gpu.json

Takes, in turns: steps of each way, and a square matrix product in each type. Then a whole epoch
over the resident frames the fastest way, and that way again over batches and widths, to see where
the device saturates. A share is the rate of the operations that torch's counter sees in encoder and
loss, of the rate of the product in the same type. Where there is no GPU it runs small, on the CPU,
and says that a GPU was not measured.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import measure
import torch
from steps import learner_of, recipe_of
from torch.utils.flop_counter import FlopCounterMode
from walks import Resident

from pretrain.errors import exit_status
from pretrain.train.step import OptimiserStep

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Sizes:
    """What is measured where."""

    frames: int
    matrix: int
    steps: int
    """In a turn."""
    batches: tuple[int, ...]
    widths: tuple[int, ...]


ON_GPU = Sizes(
    frames=6_000_000, matrix=8192, steps=20, batches=(64, 256, 1024, 4096), widths=(96, 256, 512)
)
ON_CPU = Sizes(frames=20_480, matrix=256, steps=1, batches=(4, 8), widths=(16, 32))


class Way:
    """Steps of one way, and the time they take with the device waited for."""

    def __init__(
        self,
        args: argparse.Namespace,
        frames: Resident,
        *,
        precision: str,
        compiled: bool,
        width: int | None = None,
    ) -> None:
        self.batch, self._frames, self._device = frames.plan.batch, frames, args.device
        changes: dict[str, Any] = {
            "precision": precision,
            "batch": self.batch,
            "window": frames.plan.window,
        }
        recipe = recipe_of(
            args.recipe, changes | ({} if width is None else {"encoder.width": width})
        )
        self._learner = learner_of(recipe).to(args.device)
        self._eager = OptimiserStep(self._learner, recipe.optimiser)
        made: Any = torch.compile(self._learner) if compiled else self._learner
        self._step = OptimiserStep(made, recipe.optimiser)
        self.precision, self._done = precision, 0
        self.first_loss = self._step(frames.windows(0))[0].total.item()

    def run(self, steps: int) -> None:
        """So many steps, until the device has done them."""
        for _ in range(steps):
            self._step(self._frames.windows(self._done))
            self._done += 1
        wait(self._device)

    def operations(self) -> int:
        """Of a step, counted without the compiler."""
        with FlopCounterMode(display=False) as counter:
            self._eager(self._frames.windows(0))
        return int(counter.get_total_flops())

    @property
    def frames_a_step(self) -> int:
        """Recorded frames; two views of each are embedded."""
        return self.batch * self._frames.plan.window


def wait(device: str) -> None:
    """Until the device has done all it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def product(size: int, dtype: torch.dtype, device: str) -> Callable[[], None]:
    """A square matrix product, waited for."""
    left, right = (
        torch.randn(size, size, device=device).to(dtype),
        torch.randn(size, size, device=device).to(dtype),
    )

    def work() -> None:
        torch.mm(left, right)
        wait(device)

    return work


def compare(
    report: measure.Report, args: argparse.Namespace, sizes: Sizes
) -> tuple[str, dict[str, float], Resident]:
    """All ways of the default recipe in turns: the fastest, the rates of the product
    (operations/s), and the frames."""
    frames = Resident(args.frames, window=args.window, batch=args.batch, device=args.device)
    works: dict[str, Callable[[], object]] = {
        f"product {name}": product(sizes.matrix, kind, args.device) for name, kind in DTYPES.items()
    }
    ways: dict[str, Way] = {}
    for precision in DTYPES:
        for compiled in (False, True) if args.compile else (False,):
            name = f"{precision}, {'compiled' if compiled else 'eager'}"
            try:
                way = Way(args, frames, precision=precision, compiled=compiled)
                way.run(2)
            # the compiler needs a C++ compiler or Triton; without them the rest is still measured
            except Exception as error:
                if not compiled:
                    raise
                report.note(
                    f"{name} failed: {type(error).__name__}: {str(error).splitlines()[0][:200]}"
                )
                continue
            ways[name] = way
            works[name] = lambda way=way: way.run(sizes.steps)  # type: ignore[misc]
    operations = {name: way.operations() for name, way in ways.items()}
    spent = measure.take_turns(works, turns=args.turns)
    bare = {name: measure.rates(2 * sizes.matrix**3, spent[f"product {name}"]) for name in DTYPES}
    for name in DTYPES:
        report.add(
            f"matrix product of {sizes.matrix}, {name}",
            [rate / 1e12 for rate in bare[name]],
            "TFLOP/s",
        )
    first = ways["float32, eager"].first_loss
    for name, way in ways.items():
        if name != "float32, eager":
            goal = {"at_most": 1e-3} if way.precision == "float32" else {}
            report.add(
                f"{name}: loss of the first batch, apart from float32, eager",
                abs(way.first_loss - first),
                "",
                **goal,
            )
        used = measure.rates(operations[name] * sizes.steps, spent[name])
        report.add(
            f"{name}: step",
            measure.rates(way.frames_a_step * sizes.steps / 1e6, spent[name]),
            "million frames/s",
        )
        report.add(f"{name}: share of the product", measure.ratios(used, bare[way.precision]), "")
    fastest = min(ways, key=lambda name: min(spent[name]))
    return fastest, {name: sorted(rates)[len(rates) // 2] for name, rates in bare.items()}, frames


def epoch(report: measure.Report, args: argparse.Namespace, frames: Resident, fastest: str) -> None:
    """All frames once."""
    way = Way(args, frames, precision=fastest.split(",")[0], compiled="compiled" in fastest)
    way.run(2)
    if args.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    spent = measure.seconds(lambda: way.run(frames.plan.steps))
    goal = {"at_most": 3.0} if args.device == "cuda" and args.frames >= 6_000_000 else {}
    report.add(
        f"{fastest}: an epoch over {args.frames / 1e6:g} million resident frames",
        spent,
        "s",
        **goal,
    )
    if args.device == "cuda":
        report.add(
            "memory of the device at most, frames included",
            torch.cuda.max_memory_allocated() / 2**30,
            "GiB",
        )


def sweep(
    report: measure.Report,
    args: argparse.Namespace,
    sizes: Sizes,
    fastest: str,
    bare: dict[str, float],
) -> None:
    """The fastest way over batches and widths."""
    precision, few = fastest.split(",")[0], min(args.frames, 1_000_000)
    for batch in sizes.batches:
        frames = Resident(few, window=args.window, batch=batch, device=args.device)
        for width in sizes.widths:
            what = f"batch {batch}, width {width}"
            try:
                way = Way(
                    args, frames, precision=precision, compiled="compiled" in fastest, width=width
                )
                way.run(2)
                spent = measure.take_turns(
                    {what: lambda way=way: way.run(sizes.steps)}, turns=args.turns, warm=0
                )[what]  # type: ignore[misc]
            except torch.OutOfMemoryError:
                report.note(f"{what}: the memory of the device is too small")
                continue
            report.add(
                f"{what}: step",
                measure.rates(way.frames_a_step * sizes.steps / 1e6, spent),
                "million frames/s",
            )
            rate = measure.rates(way.operations() * sizes.steps, spent)
            report.add(f"{what}: share of the product", [r / bare[precision] for r in rate], "")


def main(words: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = measure.new_parser(__doc__, turns=5)
    parser.add_argument(
        "--frames", type=int, help="frames on the device (6 million; without a GPU 20,480)"
    )
    parser.add_argument(
        "--batch", type=int, help="windows of a batch (the recipe's; without a GPU 8)"
    )
    parser.add_argument("--window", type=int, help="frames of a window (the recipe's)")
    parser.add_argument("--recipe", default="contrastive", help="what is learned (%(default)s)")
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="compiled as well (on a GPU, unless told otherwise)",
    )
    parser.add_argument(
        "--cpu", action="store_true", help="run small on the CPU although there is a GPU"
    )
    args = measure.parse(parser, words)
    args.device = "cuda" if torch.cuda.is_available() and not args.cpu else "cpu"
    sizes, recipe = (ON_GPU if args.device == "cuda" else ON_CPU), recipe_of(args.recipe, {})
    args.compile = args.device == "cuda" if args.compile is None else args.compile
    args.frames, args.window = args.frames or sizes.frames, args.window or recipe.window
    args.batch = args.batch or (recipe.batch if args.device == "cuda" else 8)
    report = measure.Report(
        "gpu", "the contrastive step on a GPU beside its matrix product", measure.settings_of(args)
    )
    if args.device == "cpu":
        report.note("not measured on a GPU: this ran small, on the CPU, to show that it runs")
    fastest, bare, frames = compare(report, args, sizes)
    epoch(report, args, frames, fastest)
    del frames
    sweep(report, args, sizes, fastest, bare)
    report.finish(args.json)


if __name__ == "__main__":
    sys.exit(exit_status(main))
