"""Makes pose stores: from a tracker's files, from CalMS21, or of simulated mice; checks them, and
exports them.

    %(prog)s arena   --out STORE [--frames 60000] [--seed 0]
    %(prog)s arena   --out FOLDER --as calms21-json --frames full
    %(prog)s calms21 --source FOLDER [--download] --out STORE
    %(prog)s tracks  --poses FOLDER [--labels FOLDER] --fps 30 --out STORE
    %(prog)s tracks  --append --labels FOLDER --out STORE
    %(prog)s check   STORE [--json] [--picture FILE]
    %(prog)s unscored STORE CLASS
    %(prog)s export  STORE --out FOLDER [--as npz|calms21-json]

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

from pretrain.components import names
from pretrain.errors import BadInput, exit_status
from pretrain.readers.track_options import add_options
from pretrain.runs import paths

log = logging.getLogger(__name__)

OFFICIAL = "calms21-json"
OFFICIAL_BYTES = 800
"""Of a frame in the official JSON, somewhat more than it takes."""


def arena(args: argparse.Namespace) -> None:
    """Simulated mice, Tasks 1-3 labelled."""
    from pretrain.arena import write as mice
    from pretrain.arena.plan import official_recordings, recordings

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
            out = paths.absolute_address(args.out)
            mice.write_arena(out, plan=plan, on_progress=_adding_to(bar))
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
            f"ethoray prepare calms21 --source {shlex.quote(str(folder))} --out STORE"
        )


def from_tracks(args: argparse.Namespace) -> None:
    """A lab's own recordings, with labels or without."""
    from pretrain.readers.prepare_tracks import prepare_tracks

    prepare_tracks(args)
    _print_store(args.out)


def calms21(args: argparse.Namespace) -> None:
    """The official archives or JSON."""
    from pretrain.data.schema import CALMS21
    from pretrain.data.store_writer import StoreWriter
    from pretrain.readers.annotations import write_labels
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
        StoreWriter(
            paths.absolute_address(args.out), CALMS21, origin=origin_of(args.source)
        ) as writer,
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
    from pretrain.data.store import Store
    from pretrain.quality.check import describe, report

    store = Store(paths.absolute_address(args.store))
    description = describe(store)
    print(json.dumps(description, indent=1) if args.json else report(description))
    if description["damage"]:
        raise BadInput(f"{args.store} is damaged:\n  - " + "\n  - ".join(description["damage"]))
    if args.picture:
        _picture(description, Path(args.picture).expanduser(), required=True)
    elif not (args.json or "://" in store.uri):
        _picture(description, Path(store.address) / "check.png", required=False)


def unscored(args: argparse.Namespace) -> None:
    """Frames that nobody scored, in a store that is there."""
    from pretrain.quality.unscored import make_unscored

    for note in make_unscored(
        paths.absolute_address(args.store), args.classes, margins_only=args.margins
    ):
        print(note)


def _picture(description: dict[str, Any], file: Path, *, required: bool) -> None:
    from pretrain.quality.picture import draw

    try:
        draw(description, file)
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
    from pretrain.data.store import Store
    from pretrain.readers.export_formats import export_formats

    store, folder = Store(paths.absolute_address(args.store)), _local(args.out)
    formats = export_formats()
    form = formats[args.format]
    if args.zipped and not form.can_zip:
        zipping = [name for name, each in formats.items() if each.can_zip]
        raise BadInput(f"--zipped goes with --as {' or '.join(zipping)}")
    with tqdm(total=store.frames, desc="exporting", unit="frame", unit_scale=True) as bar:
        words = form.write(store, folder, zipped=args.zipped, on_progress=_adding_to(bar))
    print(
        f"{folder}: {store.frames:,} frames of {len(store.videos)} videos; back into a store: "
        f"ethoray prepare {shlex.join(words)} --out STORE"
    )


def _adding_to(bar: tqdm[Any]) -> Callable[[int], None]:
    def add(count: int) -> None:
        bar.update(count)

    return add


def _local(out: str) -> Path:
    if "://" in out:
        raise BadInput(
            f"--out {out}: these files go into a local folder; only stores go to an address"
        )
    return Path(paths.absolute_address(out))


def _refuse_full_disk(folder: Path, needed: int) -> None:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise BadInput(
            f"--out {folder} needs about {needed / 1e9:.1f} GB, {free / 1e9:.1f} are free there"
        )


def _print_store(out: str) -> None:
    from pretrain.data.store import Store

    store = Store(paths.absolute_address(out))
    print(
        f"{store.uri}: {store.frames:,} frames of {len(store.videos)} videos; look at it: "
        f"ethoray prepare check {shlex.quote(store.uri)}"
    )


def _frames(text: str) -> int | str:
    return text if text == "full" else int(text)


_frames.__name__ = "number of frames, or full,"


def main(words: Sequence[str] | None = None, *, prog: str = "python pretrain/prepare.py") -> None:
    """Runs the command line ``words``; help and errors call it ``prog``."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(
        required=True, metavar="arena|calms21|tracks|check|unscored|export"
    )

    def command(name: str, does: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=does, description=does)

    options = command(
        "arena",
        "simulated pairs of mice in CalMS21's skeleton; scores on them are not CalMS21 scores",
    )
    options.add_argument(
        "--out", required=True, metavar="STORE", help="store (or, with --as, folder) to make"
    )
    options.add_argument(
        "--frames",
        type=_frames,
        default=60_000,
        metavar="N",
        help="frames in all (%(default)s); full: CalMS21's frame counts in Tasks 1-3, 6 million "
        "unlabelled",
    )
    options.add_argument(
        "--seed", type=int, default=0, help="another one simulates other animals (%(default)s)"
    )
    options.add_argument(
        "--as",
        dest="format",
        choices=("store", OFFICIAL),
        default="store",
        help=f"what to write (%(default)s); {OFFICIAL}: files as CalMS21's release has them",
    )
    options.add_argument(
        "--zipped", action="store_true", help=f"with {OFFICIAL}: archives instead of folders"
    )
    options.set_defaults(run=arena)

    options = command("calms21", "the CalMS21 data set: Tasks 1-3 and the unlabelled videos")
    options.add_argument(
        "--source",
        required=True,
        metavar="FOLDER",
        help="folder of the official zips or of what they unpack to",
    )
    options.add_argument(
        "--download", action="store_true", help="fetch what is missing into --source first (5.5 GB)"
    )
    options.add_argument("--out", required=True, metavar="STORE", help="store to make")
    options.set_defaults(run=calms21)

    options = command(
        "tracks",
        "recordings of DeepLabCut, SLEAP and others; labels of BORIS, Caltech and others; features "
        "of any tool",
    )
    add_options(options)
    options.set_defaults(run=from_tracks)

    options = command(
        "check", "what is in a store, how well tracked and labelled it is, and whether it is whole"
    )
    options.add_argument("store", metavar="STORE", help="folder or address")
    options.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object; no picture unless --picture asks for it",
    )
    options.add_argument(
        "--picture",
        metavar="FILE",
        help="where the picture goes (default: STORE/check.png of a local store)",
    )
    options.set_defaults(run=check)

    options = command(
        "unscored",
        "a class that only fills what nobody scored: its frames become unlabelled, for fits, "
        "scores and calibration; only the store's labels change",
    )
    options.add_argument("store", metavar="STORE", help="folder or address")
    options.add_argument(
        "classes",
        nargs="+",
        metavar="CLASS",
        help="base, or S1:base where several label sets have one; `check` names such classes",
    )
    options.add_argument(
        "--margins",
        action="store_true",
        help="only the frames before the first and after the last frame of another class",
    )
    options.set_defaults(run=unscored)

    options = command(
        "export", "a store into npz files, which come back with `tracks`, or into CalMS21's JSON"
    )
    options.add_argument("store", metavar="STORE", help="folder or address")
    options.add_argument("--out", required=True, metavar="FOLDER", help="folder to make")
    formats = [name.replace("_", "-") for name in names("pretrain.readers.export_formats")]
    options.add_argument(
        "--as",
        dest="format",
        choices=tuple(formats),
        default="npz",
        help=f"what to write (%(default)s): {'; '.join(formats)}",
    )
    options.add_argument(
        "--zipped", action="store_true", help=f"with {OFFICIAL}: archives instead of folders"
    )
    options.set_defaults(run=export)

    args = parser.parse_args(words)
    args.run(args)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(exit_status(main))
