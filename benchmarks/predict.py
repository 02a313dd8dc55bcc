"""Labelling new recordings: one of ten hours, and thousands of tiny ones.

    python benchmarks/predict.py
    python benchmarks/predict.py --hours 1 10 100 --recordings 300 3000

A classifier with default settings is fitted on simulated mice first (minutes). Each measurement is
`python finetune/predict.py` in a process of its own, whose memory is the peak that the system saw.
Recordings are random walks of two mice, as npz files in a temporary folder (TMPDIR) that is
removed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import measure
import numpy as np
from walks import walk

import finetune.run
from pretrain.arena.write import write_arena
from pretrain.data.schema import CALMS21
from pretrain.errors import exit_status

ROOT = Path(__file__).parent.parent
TINY_FRAMES = 100


def write_recording(file: Path, frames: int, *, seed: int) -> None:
    """Two mice, as an npz file."""
    position, confidence = walk(frames, seed=seed)
    names = {"animals": CALMS21.animals, "keypoints": CALMS21.keypoints}
    np.savez(file, position=position, confidence=confidence, fps=CALMS21.fps, **names)  # type: ignore[arg-type]


def predict(model: Path, poses: Path, out: Path) -> tuple[float, float]:
    """Seconds, and MiB at the peak, of labelling what is there."""
    words = ["--model", str(model), "--poses", str(poses), "--out", str(out)]
    log = out.with_suffix(".log")
    begin = time.perf_counter()
    with log.open("w") as said:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "finetune/predict.py"), *words], stdout=said, stderr=said
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"predict failed: {log.read_text()[-1000:]}")
    return time.perf_counter() - begin, used.ru_maxrss / 1024


def measured(
    report: measure.Report, what: str, model: Path, poses: Path, *, turns: int
) -> list[float]:
    """Adds the peak memory of each turn; their seconds."""
    found = [predict(model, poses, poses.with_suffix(f".out{turn}")) for turn in range(turns)]
    report.add(f"{what}: peak memory", [mib for _, mib in found], "MiB", at_most=1024)
    return [seconds for seconds, _ in found]


def main(words: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = measure.new_parser(__doc__, turns=1)
    parser.add_argument("--hours", type=float, nargs="+", default=[10.0], metavar="H")
    parser.add_argument("--recordings", type=int, nargs="+", default=[2000], metavar="N")
    parser.add_argument(
        "--arena-frames", type=int, default=60_000, help="to fit the model on (%(default)s)"
    )
    parser.add_argument("--model", type=Path, metavar="RUN", help="of CalMS21's skeleton, fitted")
    args = measure.parse(parser, words)
    report = measure.Report(
        "predict", "labelling long and many recordings", measure.settings_of(args)
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = args.model or folder / "model"
        if not args.model:
            write_arena(folder / "arena", frames=args.arena_frames)
            task = ["--data", str(folder / "arena"), "--task", "classic_classification"]
            finetune.run.main([*task, "--seeds", "1", "--out", str(model)])
        for hours in args.hours:
            frames, poses = round(hours * 3600 * CALMS21.fps), folder / f"{hours:g}h"
            poses.mkdir()
            write_recording(poses / "long.npz", frames, seed=0)
            spent = measured(report, f"{hours:g} hours", model, poses, turns=args.turns)
            report.add(f"{hours:g} hours: rate", measure.rates(frames, spent), "frames/s")
        for number in args.recordings:
            what, poses = f"{number:,} recordings of {TINY_FRAMES} frames", folder / f"{number}"
            poses.mkdir()
            for one in range(number):
                write_recording(poses / f"{one}.npz", TINY_FRAMES, seed=one)
            spent = measured(report, what, model, poses, turns=args.turns)
            report.add(f"{what}: each", [1000 * s / number for s in spent], "ms")
    report.finish(args.json)


if __name__ == "__main__":
    sys.exit(exit_status(main))
