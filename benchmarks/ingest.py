"""Reading CalMS21's official JSON into a store, beside ``json.load``: MB/s, frames/s and peak
memory.

    python benchmarks/ingest.py                          0.6 million frames
    python benchmarks/ingest.py --frames 600000 6000000  what each frame costs as the file grows
    python benchmarks/ingest.py --zipped --json out.json

The recordings are two random walks with the digits, groups and part sizes of the release, written
into a temporary folder that is removed. Every measurement is a process of its own; the two ways of
reading take turns (A B A B), since other work on the machine slows both.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pretrain.data.schema import CALMS21, Video
from pretrain.data.store_writer import StoreWriter
from pretrain.errors import BadInput, exit_status
from pretrain.readers.annotations import Labels, write_labels
from pretrain.readers.calms21.expected_counts import CLASSES, CLASSIC
from pretrain.readers.calms21.read import read
from pretrain.readers.calms21.sources import find_sources, total_bytes
from pretrain.readers.calms21.write import write_official

if TYPE_CHECKING:
    import measure

SEQUENCE_FRAMES = 20_000
LABELLED_SHARE = 0.1
BYTES_PER_FRAME = 1100  # text and store
PART = "unlabeled_videos/calms21_unlabeled_videos_part1.json"
JSON_MEMORY = 5  # times the file, about what json.load and its arrays take


def recordings(frames: int) -> Iterator[tuple[Video, list[Labels]]]:
    random = np.random.default_rng(0)
    steps = random.normal(scale=2, size=(SEQUENCE_FRAMES, 2, 7, 2))
    walk = np.clip(np.cumsum(steps, axis=0) + np.array([512, 285]), 0, 1023)
    confidence = random.uniform(0.3, 1, (SEQUENCE_FRAMES, 2, 7)).astype(np.float32)
    labelled = int(frames * LABELLED_SHARE)
    for first in range(0, frames, SEQUENCE_FRAMES):
        count = min(SEQUENCE_FRAMES, frames - first)
        shift = random.uniform(0, 1, (1, 2, 7, 2))
        task = "task1/train" if first < labelled else "unlabeled_videos"
        video = Video(
            name=f"{task}/mouse{first // SEQUENCE_FRAMES:05d}",
            position_TMKX=(walk + shift)[:count].astype(np.float32),
            confidence_TMK=confidence[:count],
        )
        held = Labels(
            video=video.name,
            task=CLASSIC,
            classes=CLASSES,
            annotator="0",
            frames=random.integers(0, 4, count).astype(np.int8),
        )
        yield video, [held] if first < labelled else []


def whole_road(folder: Path, out: Path) -> dict[str, float]:
    sources, labels, frames = find_sources(folder), [], 0
    with StoreWriter(out, CALMS21, origin="benchmark") as writer:
        for video, held in read(sources):
            writer.add(video)
            labels += held
            frames += len(video.position_TMKX)
        write_labels(writer, labels)
    return {"bytes": total_bytes(sources), "frames": frames}


def reading_alone(folder: Path, out: Path) -> dict[str, float]:
    sources = find_sources(folder)
    return {
        "frames": sum(len(video.position_TMKX) for video, _ in read(sources)),
        "bytes": total_bytes(sources),
    }


def json_load(folder: Path, out: Path) -> dict[str, float]:
    """One part, whole, and its arrays made: what a script with ``json`` does."""
    path = folder / PART
    frames = 0
    with path.open() as file:
        for sequences in json.load(file).values():
            for sequence in sequences.values():
                position, score = (
                    np.array(sequence["keypoints"], np.float32),
                    np.array(sequence["scores"], np.float32),
                )
                assert len(position) == len(score)
                frames += len(position)
    return {"bytes": path.stat().st_size, "frames": frames}


WHOLE = "to the store"
WAYS = {WHOLE: whole_road, "reading alone": reading_alone, "json.load, one part": json_load}


def measured(way: str, folder: Path, out: Path) -> dict[str, float]:
    """Runs one way in a process of its own."""
    command = [sys.executable, __file__, "--way", way, "--folder", str(folder), "--out", str(out)]
    answer = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    shutil.rmtree(out, ignore_errors=True)
    found: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return found


def run_way(way: str, folder: Path, out: Path) -> None:
    before = peak_mib()
    started, cpu = time.perf_counter(), time.process_time()
    found = WAYS[way](folder, out)
    found |= {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
    found |= {"peak_mib": peak_mib(), "imports_mib": before}
    print(json.dumps(found))


def peak_mib() -> float:
    """Peak memory of this process. On Linux getrusage also remembers the process that started this
    one, so it is not asked there."""
    status = Path("/proc/self/status")
    if status.is_file():
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    return (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        * (1 if sys.platform == "darwin" else 1024)
        / 2**20
    )


def add_figures(
    report: measure.Report, frames: int, found: dict[str, list[dict[str, float]]]
) -> None:
    """Rates and memory of one size."""
    size = f"{frames / 1e6:g} million"
    report.note(f"{size} frames are {found[WHOLE][0]['bytes'] / 1e9:.2f} GB of JSON")
    for way, runs in found.items():
        goal = {"at_least": 150.0} if way == WHOLE else {}
        report.add(f"{size}, {way}", [run["bytes"] / 1e6 / run["seconds"] for run in runs], "MB/s")
        report.add(
            f"{size}, {way}: by CPU time",
            [run["bytes"] / 1e6 / run["cpu_seconds"] for run in runs],
            "MB/core-s",
            **goal,
        )
        report.add(
            f"{size}, {way}: frames", [run["frames"] / run["seconds"] for run in runs], "frames/s"
        )
        limit = {"at_most": 1024.0} if way == WHOLE else {}
        report.add(f"{size}, {way}: peak memory", [run["peak_mib"] for run in runs], "MiB", **limit)


def _part_bytes(folder: Path) -> int:
    return (folder / PART).stat().st_size if (folder / PART).is_file() else 0


def compare(report: measure.Report, frames: int, args: argparse.Namespace) -> None:
    """One size, all ways in turns."""
    import measure

    with tempfile.TemporaryDirectory() as temporary:
        top = Path(temporary)
        needed, free = frames * BYTES_PER_FRAME * (1 + args.zipped), shutil.disk_usage(top).free
        if needed > free:
            raise BadInput(
                f"--frames {frames:,} needs {needed / 1e9:.0f} GB in {top.parent}, "
                f"{free / 1e9:.0f} are free: set TMPDIR"
            )
        written = measure.seconds(
            lambda: write_official(top / "official", recordings(frames), zipped=args.zipped)
        )
        too_large = _part_bytes(top / "official") * JSON_MEMORY > os.sysconf(
            "SC_PAGE_SIZE"
        ) * os.sysconf("SC_PHYS_PAGES")
        ways = [
            way for way in WAYS if not (way.startswith("json.load") and (args.zipped or too_large))
        ]
        if too_large and not args.zipped:
            report.note(
                f"{frames / 1e6:g} million: json.load of one part would need more memory than this "
                "machine has"
            )
        found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for _ in range(args.turns):
            for way in ways:
                found[way].append(measured(way, top / "official", top / "store"))
    add_figures(report, frames, found)
    report.add(f"{frames / 1e6:g} million, writing the JSON", frames / written, "frames/s")


def main(words: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    import measure  # and with it torch, whose memory is not to be counted where a way is measured

    parser = measure.new_parser(__doc__, turns=3)
    parser.add_argument(
        "--frames", type=int, nargs="+", default=[600_000], metavar="N", help="sizes (%(default)s)"
    )
    parser.add_argument("--zipped", action="store_true", help="read the archives in place")
    args = measure.parse(parser, words)
    if min(args.frames) < 1:
        raise BadInput("--frames must be at least 1")
    report = measure.Report(
        "ingest",
        "CalMS21's official JSON into a store, beside json.load",
        measure.settings_of(args),
    )
    for frames in args.frames:
        compare(report, frames, args)
    report.finish(args.json)


def measure_one_way() -> None:
    """The work of a measuring process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--way", choices=WAYS, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    run_way(args.way, args.folder, args.out)


if __name__ == "__main__":
    sys.exit(exit_status(measure_one_way if "--way" in sys.argv else main))
