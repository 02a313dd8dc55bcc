"""Makes pose stores: from a tracker's files, from CalMS21, or of simulated mice; checks them, and
exports them.

    python pretrain/prepare.py arena   --out STORE [--frames 60000] [--seed 0]
    python pretrain/prepare.py arena   --out FOLDER --as calms21-json --frames full
    python pretrain/prepare.py calms21 --source FOLDER [--download] --out STORE
    python pretrain/prepare.py tracks  --poses FOLDER [--labels FOLDER] [--features NAME=FOLDER]
    --fps 30 --out STORE
    python pretrain/prepare.py check   STORE [--json] [--picture FILE]
    python pretrain/prepare.py export  STORE --out FOLDER [--as npz|calms21-json]

A store is a folder or an address (s3://bucket/store). It is written whole or not at all.
"""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pretrain.arena import write as mice
from pretrain.arena.plan import official_recordings, recordings
from pretrain.data.store import Store
from pretrain.data.store_writer import StoreWriter
from pretrain.errors import BadInput, exit_status
from pretrain.quality.check import describe, report
from pretrain.readers.annotations import write_labels
from pretrain.readers.export_formats import export_formats
from pretrain.readers.prepare_tracks import add_options, prepare_tracks
from pretrain.runs import paths

log = logging.getLogger(__name__)

OFFICIAL = "calms21-json"
OFFICIAL_BYTES = 800
"""Of a frame in the official JSON, somewhat more than it takes."""


def arena(args: argparse.Namespace) -> None:
    """Simulated mice, Tasks 1-3 labelled."""
    plan = (
        official_recordings(seed=args.seed)
        if args.frames == "full"
        else recordings(args.frames, args.seed)
    )
    total = sum(recording.frames for recording in plan)
    if args.zipped and args.format != OFFICIAL:
        raise BadInput(f"--zipped goes with --as {OFFICIAL}: a store is not zipped")
    with tqdm(total=total, desc="simulating mice", unit="frame", unit_scale=True) as bar:
        if args.format == "store":
            mice.write_arena(paths.open_address(args.out), plan=plan, on_progress=_adding_to(bar))
        else:
            from pretrain.readers.calms21.write import write_official

            folder = _local(args.out)
            _refuse_full_disk(folder, total * OFFICIAL_BYTES)
            files = write_official(
                folder,
                mice.arena(plan),
                origin=mice.ORIGIN,
                zipped=args.zipped,
                on_progress=_adding_to(bar),
            )
    if args.format == "store":
        _print_store(args.out)
    else:
        print(
            f"{folder}: {total:,} frames in {len(files)} files; read them: "
            f"python pretrain/prepare.py calms21 --source {shlex.quote(str(folder))} --out STORE"
        )


def from_tracks(args: argparse.Namespace) -> None:
    """A lab's own recordings, with labels or without."""
    prepare_tracks(args)
    _print_store(args.out)


def calms21(args: argparse.Namespace) -> None:
    """The official archives or JSON."""
    from pretrain.data.schema import CALMS21
    from pretrain.readers.calms21 import read as official
    from pretrain.readers.calms21.download import download
    from pretrain.readers.calms21.expected_counts import count_differences
    from pretrain.readers.calms21.sources import find_sources, origin_of, total_bytes

    if args.download:
        download(args.source)
    sources = find_sources(args.source)
    notes: list[str] = []
    labels = []
    with (
        StoreWriter(paths.open_address(args.out), CALMS21, origin=origin_of(args.source)) as writer,
        tqdm(total=total_bytes(sources), desc="reading CalMS21", unit="B", unit_scale=True) as bar,
    ):
        for video, scored in official.read(sources, on_progress=_adding_to(bar), notes=notes):
            writer.add(video)
            labels += scored
        write_labels(writer, labels)
    for sentence in [*notes, *count_differences(labels)]:
        log.warning("%s", sentence)
    _print_store(args.out)


def check(args: argparse.Namespace) -> None:
    """Counts, missing points, jumps, swaps, labels, integrity; and a picture of it."""
    store = Store(paths.open_address(args.store))
    facts = describe(store)
    print(json.dumps(facts, indent=1) if args.json else report(facts))
    if facts["damage"]:
        raise BadInput(f"{args.store} is damaged:\n  - " + "\n  - ".join(facts["damage"]))
    if args.picture:
        _picture(facts, Path(args.picture).expanduser(), required=True)
    elif not (args.json or "://" in store.uri):
        _picture(facts, Path(store.uri) / "check.png", required=False)


def _picture(facts: dict[str, Any], file: Path, *, required: bool) -> None:
    from pretrain.quality.picture import draw

    try:
        draw(facts, file)
    except (OSError, ValueError) as error:
        if required:
            raise BadInput(
                f"--picture {file}: cannot be written ({error}); endings are .png, .pdf, .svg"
            ) from error
        log.warning("no picture: %s cannot be written (%s); pass --picture FILE", file, error)
        return
    log.info("picture: %s", file)


def export(args: argparse.Namespace) -> None:
    """A store into files that others read."""
    store, folder = Store(paths.open_address(args.store)), _local(args.out)
    fmt = export_formats()[args.format]
    if args.zipped and not fmt.can_zip:
        raise BadInput(f"--zipped goes with --as {_zippable()}")
    with tqdm(total=store.frames, desc="exporting", unit="frame", unit_scale=True) as bar:
        words = fmt.write(store, folder, zipped=args.zipped, on_progress=_adding_to(bar))
    print(
        f"{folder}: {store.frames:,} frames of {len(store.videos)} videos; back into a store: "
        f"python pretrain/prepare.py {shlex.join(words)} --out STORE"
    )


def _zippable() -> str:
    return " or ".join(name for name, fmt in export_formats().items() if fmt.can_zip)


def _adding_to(bar: tqdm[Any]) -> Callable[[int], None]:
    def add(count: int) -> None:
        bar.update(count)

    return add


def _local(out: str) -> Path:
    if "://" in out:
        raise BadInput(
            f"--out {out}: these files go into a local folder; only stores go to an address"
        )
    return Path(paths.open_address(out))


def _refuse_full_disk(folder: Path, needed: int) -> None:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise BadInput(
            f"--out {folder} needs about {needed / 1e9:.1f} GB, {free / 1e9:.1f} are free there"
        )


def _print_store(out: str) -> None:
    store = Store(paths.open_address(out))
    print(
        f"{store.uri}: {store.frames:,} frames of {len(store.videos)} videos; look at it: "
        f"python pretrain/prepare.py check {shlex.quote(store.uri)}"
    )


def _frames(text: str) -> int | str:
    return text if text == "full" else int(text)


_frames.__name__ = "number of frames, or full,"


def main(words: Sequence[str] | None = None) -> None:
    """Runs the command line ``words``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="arena|calms21|tracks|check|export")

    def command(name: str, does: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=does,
            description=does,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )

    one = command(
        "arena",
        "simulated pairs of mice in CalMS21's skeleton; scores on them are not CalMS21 scores",
    )
    one.add_argument(
        "--out", required=True, metavar="STORE", help="store (or, with --as, folder) to make"
    )
    one.add_argument(
        "--frames",
        type=_frames,
        default=60_000,
        metavar="N",
        help="frames in all; full: CalMS21's frame counts in Tasks 1-3, 6 million unlabelled",
    )
    one.add_argument("--seed", type=int, default=0, help="another one gives other animals")
    one.add_argument(
        "--as",
        dest="format",
        choices=("store", OFFICIAL),
        default="store",
        help=f"{OFFICIAL}: files as CalMS21's release has them",
    )
    one.add_argument(
        "--zipped", action="store_true", help=f"with {OFFICIAL}: archives instead of folders"
    )
    one.set_defaults(run=arena)

    one = command("calms21", "the CalMS21 data set: Tasks 1-3 and the unlabelled videos")
    one.add_argument(
        "--source",
        required=True,
        metavar="FOLDER",
        help="folder of the official zips or of what they unpack to",
    )
    one.add_argument(
        "--download", action="store_true", help="fetch what is missing into --source first (5.5 GB)"
    )
    one.add_argument("--out", required=True, metavar="STORE", help="store to make")
    one.set_defaults(run=calms21)

    one = command(
        "tracks",
        "recordings of DeepLabCut, SLEAP and others; labels of BORIS, Caltech and others; features "
        "of any tool",
    )
    add_options(one)
    one.set_defaults(run=from_tracks)

    one = command(
        "check", "what is in a store, how well tracked and labelled it is, and whether it is whole"
    )
    one.add_argument("store", metavar="STORE", help="folder or address")
    one.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object; no picture unless --picture asks for it",
    )
    one.add_argument(
        "--picture",
        metavar="FILE",
        help="where the picture goes (default: STORE/check.png of a local store)",
    )
    one.set_defaults(run=check)

    one = command(
        "export", "a store into npz files, which come back with `tracks`, or into CalMS21's JSON"
    )
    one.add_argument("store", metavar="STORE", help="folder or address")
    one.add_argument("--out", required=True, metavar="FOLDER", help="folder to make")
    formats = export_formats()
    one.add_argument(
        "--as",
        dest="format",
        choices=tuple(formats),
        default="npz",
        help="; ".join(f"{name}: {fmt.description}" for name, fmt in formats.items()),
    )
    one.add_argument(
        "--zipped", action="store_true", help=f"with {_zippable()}: archives instead of folders"
    )
    one.set_defaults(run=export)

    args = parser.parse_args(words)
    args.run(args)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(exit_status(main))
