"""All programs over a long recording: frames a second, beside one pass over the memory they read.

    python benchmarks/programs.py                       6 million frames of two mice
    python benchmarks/programs.py --frames 600000 --block 16384 --json out.json

The recording is a random walk. Programs and passes take turns (A B A B), since other work on the machine slows both. A pass
is the sum of all positions (reads them) or a copy of them (reads and writes as much). It needs torch alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pretrain import programs
from pretrain.errors import BadInput, exit_status
from pretrain.pose.schema import CALMS21


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=6_000_000, help="frames of the recording (%(default)s)")
    parser.add_argument("--block", type=int, default=32_768, help="frames worked on at a time (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each (%(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of torch (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    args = parser.parse_args()
    if min(args.frames, args.block, args.repeats, args.threads) < 1:
        raise BadInput("--frames, --block, --repeats and --threads must be at least 1")

    torch.set_num_threads(args.threads)
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
    for work in works.values():
        work()
    turns = [{name: seconds(work) for name, work in works.items()} for _ in range(args.repeats)]
    found: dict[str, Any] = {"frames": args.frames, "threads": args.threads, "block": args.block, "repeats": args.repeats}
    for name in works:
        spent = [turn[name] for turn in turns]
        found[name] = {"seconds": statistics.median(spent), "least": min(spent), "most": max(spent)}
    for name in ("sum", "copy"):
        found[f"times_{name}"] = statistics.median(turn["programs"] / turn[name] for turn in turns)
    print(
        f"{args.frames:,} frames of 2 x 7 points, {len(programs.names(CALMS21))} programs, {args.threads} threads, median of {args.repeats}"
    )
    for name in works:
        spent, rate = found[name], args.frames / found[name]["seconds"] / 1e6
        print(f"  {name:9} {spent['seconds']:8.3f} s ({spent['least']:.3f} to {spent['most']:.3f})  {rate:8.1f} million frames/s")
    print(f"  programs take {found['times_sum']:.1f} times one reading pass, {found['times_copy']:.1f} times a copy")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(exit_status(main))
