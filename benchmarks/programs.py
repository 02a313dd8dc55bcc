"""All programs over a long recording: frames a second, beside one pass over the memory they read.

    python benchmarks/programs.py                       6 million frames of two mice
    python benchmarks/programs.py --frames 600000 --block 16384 --json out.json

The recording is a random walk. Programs and passes take turns (A B A B …), since other work on the machine slows both. A pass
is the sum of all positions (reads them) or a copy of them (reads and writes as much). It needs torch alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import measure
import torch

from pretrain import programs
from pretrain.errors import exit_status
from pretrain.pose.schema import CALMS21


def main(words: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = measure.new_parser(__doc__, turns=5)
    parser.add_argument("--frames", type=int, default=6_000_000, help="frames of the recording (%(default)s)")
    parser.add_argument("--block", type=int, default=32_768, help="frames worked on at a time (%(default)s)")
    args = measure.parse(parser, words)

    generator = torch.Generator().manual_seed(0)
    step = torch.randn(args.frames, 2, 1, 2, generator=generator).mul_(2).cumsum_(0)
    position = step + torch.rand(1, 2, 7, 2, generator=generator) * 100 + 300
    position += torch.randn(7, 2, generator=generator)
    copy = torch.empty_like(position)
    works: dict[str, Callable[[], object]] = {
        "programs": lambda: programs.measure_recording(position, CALMS21, block=args.block),
        "sum": position.sum,
        "copy": lambda: copy.copy_(position),
    }
    spent = measure.take_turns(works, turns=args.turns)
    what = f"{len(programs.names(CALMS21))} programs over a recording of 2 x 7 points, beside a pass over its memory"
    report = measure.Report("programs", what, measure.settings_of(args))
    report.add("programs", measure.rates(args.frames / 1e6, spent["programs"]), "million frames/s", at_least=1)
    for name, says in (("sum", "one pass that reads (a sum)"), ("copy", "one pass that reads and writes (a copy)")):
        report.add(says, measure.rates(args.frames / 1e6, spent[name]), "million frames/s")
    report.add("time of the programs / time of a reading pass", measure.ratios(spent["programs"], spent["sum"]), "x", at_most=4)
    report.add("time of the programs / time of a copy", measure.ratios(spent["programs"], spent["copy"]), "x")
    report.finish(args.json)


if __name__ == "__main__":
    sys.exit(exit_status(main))
