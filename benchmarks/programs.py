"""All programs over a long recording: frames a second, beside one pass over the memory they read.

    python benchmarks/programs.py                       6 million frames of two mice
    python benchmarks/programs.py --frames 600000 --block 16384 --json out.json

The recording is a random walk. Programs as they stand, programs compiled and passes take turns (A B A B …), since other work on the
machine slows all. Results go to new memory, which the system must hand over and clear, and, compiled, also to memory that is held from an
earlier recording. A pass is the sum of all positions (reads them) or a copy of them (reads and writes as much). It needs torch alone, and
a C compiler for the compiled programs, which are left out where they cannot be had.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import measure
import torch

from pretrain import programs
from pretrain.errors import exit_status
from pretrain.pose.schema import CALMS21
from pretrain.program_recordings import compiled_programs, measure_recording


def main(words: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = measure.new_parser(__doc__, turns=5)
    parser.add_argument("--frames", type=int, default=6_000_000, help="frames of the recording (%(default)s)")
    parser.add_argument("--block", type=int, default=20_000, help="frames worked on at a time (%(default)s)")
    args = measure.parse(parser, words)

    generator = torch.Generator().manual_seed(0)
    step = torch.randn(args.frames, 2, 1, 2, generator=generator).mul_(2).cumsum_(0)
    position = step + torch.rand(1, 2, 7, 2, generator=generator) * 100 + 300
    position += torch.randn(7, 2, generator=generator)
    copy, held = torch.empty_like(position), measure_recording(position, CALMS21, block=args.block)
    works: dict[str, Callable[[], object]] = {
        "programs": lambda: measure_recording(position, CALMS21, block=args.block),
        "compiled programs": lambda: measure_recording(position, CALMS21, block=args.block, compiled=True),
        "compiled programs, results in memory that is held": lambda: measure_recording(
            position, CALMS21, block=args.block, compiled=True, out_TP=held
        ),
        "sum": position.sum,
        "copy": lambda: copy.copy_(position),
    }
    what = f"{len(programs.names(CALMS21))} programs over a recording of 2 x 7 points, beside a pass over its memory"
    report = measure.Report("programs", what, measure.settings_of(args))
    compiling = measure.seconds(lambda: measure_recording(position[: args.block], CALMS21, block=args.block, compiled=True))
    if compiled_programs(CALMS21, programs.all_programs(), position.dtype) is None:
        works = {name: work for name, work in works.items() if not name.startswith("compiled")}
        report.note("the programs were not compiled: a warning says why")
    spent = measure.take_turns(works, turns=args.turns)
    kinds = [name for name in works if "programs" in name]
    for name in kinds:
        report.add(name, measure.rates(args.frames / 1e6, spent[name]), "million frames/s", at_least=1)
    for name, says in (("sum", "one pass that reads (a sum)"), ("copy", "one pass that reads and writes (a copy)")):
        report.add(says, measure.rates(args.frames / 1e6, spent[name]), "million frames/s")
    for name in kinds:
        report.add(f"time of the {name} / time of a reading pass", measure.ratios(spent[name], spent["sum"]), "x", at_most=4)
        report.add(f"time of the {name} / time of a copy", measure.ratios(spent[name], spent["copy"]), "x")
    if "compiled programs" in kinds:
        report.add("compiling, once", compiling, "s")
    report.finish(args.json)


if __name__ == "__main__":
    sys.exit(exit_status(main))
