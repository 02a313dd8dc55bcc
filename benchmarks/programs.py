"""All programs over a long recording: million frames a second.

    python benchmarks/programs.py                       6 million frames of two mice
    python benchmarks/programs.py --frames 600000 --block 16384 --json out.json

The recording, a random walk, is measured block by block with
:func:`pretrain.transforms.programs.measure`, in one process, as many blocks at a time as torch has
threads. It needs torch alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import measure
import torch
from torch import Tensor

from pretrain.data.schema import CALMS21
from pretrain.errors import exit_status
from pretrain.transforms import programs
from pretrain.transforms.animal import SPAN


def main(words: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = measure.new_parser(__doc__, turns=5)
    parser.add_argument(
        "--frames", type=int, default=6_000_000, help="frames of the recording (%(default)s)"
    )
    parser.add_argument(
        "--block", type=int, default=20_000, help="frames worked on at a time (%(default)s)"
    )
    args = measure.parse(parser, words)

    generator = torch.Generator().manual_seed(0)
    position = torch.randn(args.frames, 2, 1, 2, generator=generator).mul_(2).cumsum_(0)
    position = position + torch.rand(1, 2, 7, 2, generator=generator) * 100 + 300
    what = f"{len(programs.names(CALMS21))} programs over a recording of 2 x 7 points"
    report = measure.Report("programs", what, measure.settings_of(args))
    # Threads of blocks need not wait for each other after every operation, as torch's own would.
    with ThreadPoolExecutor(args.threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        spent = measure.take_turns(
            {"programs": lambda: measured(position, args.block, pool)}, turns=args.turns
        )
    report.add(
        "programs",
        measure.rates(args.frames / 1e6, spent["programs"]),
        "million frames/s",
        at_least=10,
    )
    report.finish(args.json)


def measured(position_TMKX: Tensor, block: int, pool: ThreadPoolExecutor) -> Tensor:
    """(T, P), as one window of all frames would give it."""
    frames = len(position_TMKX)
    out_TP = position_TMKX.new_empty(frames, len(programs.names(CALMS21)))

    def fill(first: int) -> None:
        begin, last = max(0, first - SPAN), min(frames, first + block)
        with torch.inference_mode():
            value_TP = programs.measure(position_TMKX[None, begin : last + SPAN], CALMS21)[0]
            out_TP[first:last] = value_TP[first - begin : last - begin]

    list(pool.map(fill, range(0, frames, block)))
    return out_TP


if __name__ == "__main__":
    sys.exit(exit_status(main))
