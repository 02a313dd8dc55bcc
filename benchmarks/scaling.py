"""Weak and strong scaling of training steps over gloo workers on this machine, and the bytes that a
step sends.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --workers 1 2 4 --batch 256

Each worker is a process with one thread. Strong: the global batch stays, each worker has its share.
Weak: each worker has as many windows as one has alone. Processor time is of all workers together,
so that it can be read on a machine that others use too; time on the clock cannot.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measure
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from steps import learner_of, recipe_of
from torch import nn
from walks import Resident

from pretrain.data.windows import Pose, Windows
from pretrain.errors import exit_status
from pretrain.train.step import OptimiserStep
from pretrain.train.torch_setup import configure_torch

WARM_UP = 3


def work(
    rank: int, workers: int, batch: int, args: argparse.Namespace, port: int, out: str
) -> None:
    """What each process does: its rows of some global batches."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", rank=rank, world_size=workers)
    configure_torch(1)
    recipe = recipe_of(args.recipe, {"batch": batch})
    held = Resident(batch * recipe.window * 2, window=recipe.window, batch=batch)
    learner = learner_of(recipe)
    sent = {"gradients": 0, "objective": 0}
    model: nn.Module = learner
    if workers > 1:
        model = nn.parallel.DistributedDataParallel(learner, broadcast_buffers=False)
        parameters = sum(p.numel() for p in learner.parameters() if p.requires_grad)
        sent["gradients"] = parameters * 4 * (args.steps + WARM_UP)
    for name in ("all_reduce", "all_gather"):
        setattr(dist, name, _counted(getattr(dist, name), sent))
    step = OptimiserStep(model, recipe.optimiser)
    rows = slice(rank * batch // workers, (rank + 1) * batch // workers)
    for number in range(args.steps + WARM_UP):
        if number == WARM_UP:
            dist.barrier()
            clock, processor = time.perf_counter(), time.process_time()
        step(_rows(held.windows(number), rows))
    found = [time.process_time() - processor, time.perf_counter() - clock, *sent.values()]
    torch.save(torch.tensor(found), Path(out) / f"{rank}.pt")
    dist.destroy_process_group()


def _counted(call: Any, sent: dict[str, int]) -> Any:
    """A collective that adds up the bytes a worker puts into it."""

    def counted(*given: Any, **more: Any) -> Any:
        tensor = given[-1] if isinstance(given[0], list) else given[0]
        sent["objective"] += tensor.numel() * tensor.element_size()
        return call(*given, **more)

    return counted


def _rows(windows: Windows, rows: slice) -> Windows:
    pose = Pose(*(x[rows] for x in windows.pose[:2]))
    shared = windows.key_B[:1].expand(len(windows.key_B))  # what one process takes for the batch's
    return Windows(pose, windows.valid_BT[rows], windows.key_B[rows], shared[rows])


def run(workers: int, batch: int, args: argparse.Namespace) -> torch.Tensor:
    """(processor seconds of all workers, seconds, bytes of gradients, of other collectives that a
    worker puts in) of a step."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as out:
        mp.spawn(work, args=(workers, batch, args, port, out), nprocs=workers)
        each = torch.stack([torch.load(path) for path in Path(out).iterdir()])
    steps = args.steps
    return torch.stack(
        [
            each[:, 0].sum() / steps,
            each[:, 1].max() / steps,
            each[:, 2].max() / (steps + WARM_UP),
            each[:, 3].max() / (steps + WARM_UP),
        ]
    )


def main(words: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = measure.new_parser(__doc__, turns=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="%(default)s")
    parser.add_argument("--batch", type=int, default=64, help="windows of one worker (%(default)s)")
    parser.add_argument("--steps", type=int, default=10, help="in each turn (%(default)s)")
    parser.add_argument("--recipe", default="contrastive", help="%(default)s")
    args = measure.parse(parser, words)
    report = measure.Report(
        "scaling", "training steps over several workers", measure.settings_of(args)
    )
    cases = {(f"strong, {n} workers", n, args.batch) for n in args.workers}
    cases |= {(f"weak, {n} workers", n, args.batch * n) for n in args.workers if n > 1}
    found: dict[str, list[torch.Tensor]] = {}
    for _ in range(args.turns):
        for name, workers, batch in sorted(cases):
            found.setdefault(name, []).append(
                run(workers, batch, args) / torch.tensor([batch, 1, 1, 1])
            )
    for name, turns in found.items():
        report.add(f"{name}: processor", [1e3 * float(t[0]) for t in turns], "ms a window")
        report.add(f"{name}: a step", [float(t[1]) for t in turns], "s")
        report.add(f"{name}: gradients", float(turns[0][2]) / 1e6, "MB a step and worker")
        report.add(f"{name}: other", float(turns[0][3]) / 1e6, "MB a step and worker")
    report.finish(args.json)


if __name__ == "__main__":
    sys.exit(exit_status(main))
