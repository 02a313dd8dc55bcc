"""Makes pose stores: from a tracker's files, from CalMS21, or of simulated mice; and checks them.

    python pretrain/prepare.py arena   --out STORE [--frames 60000] [--seed 0]
    python pretrain/prepare.py calms21 --source FOLDER [--download] --out STORE
    python pretrain/prepare.py tracks  --poses FOLDER [--labels FOLDER] --fps 30 --out STORE
    python pretrain/prepare.py check   STORE [--json]

A store is a folder or an address (s3://bucket/store). It is written whole or not at all.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from pretrain import places
from pretrain.errors import BadInput, exit_status
from pretrain.pose import trackers, tracks
from pretrain.pose.annotations import write_labels
from pretrain.pose.arena import write_arena
from pretrain.pose.checks import describe, report
from pretrain.pose.label_formats import read_label_files
from pretrain.pose.split import assign_split
from pretrain.pose.store import Store
from pretrain.pose.store_writer import StoreWriter

log = logging.getLogger(__name__)


def arena(args: argparse.Namespace) -> None:
    """Simulated mice, Tasks 1-3 labelled."""
    with tqdm(total=args.frames, desc="simulating mice", unit="frame", unit_scale=True) as bar:
        write_arena(places.open_address(args.out), frames=args.frames, seed=args.seed, progress=lambda done, _: _advance(bar, done))
    _done(args.out)


def from_tracks(args: argparse.Namespace) -> None:
    """A lab's own recordings, with labels or without."""
    with trackers.unpacked(args.poses) as poses:
        names = trackers.read_all_names(trackers.find_tracks(poses))
        tracks.check_agreement(names)
        first = names[0]
        unmeasured = tracks.schema_of(first, fps=args.fps, extents=[(10.0,) * len(first.coordinates)])
        with StoreWriter(places.open_address(args.out), unmeasured, origin=f"tracks from {args.poses}") as writer:
            extents = []
            for one in tqdm(names, desc="reading tracks", unit="video"):
                held = tracks.conform(trackers.read_tracks(one.path, name=one.name), animals=first.animals, keypoints=first.keypoints)
                extents.append(tracks.extent_px(held))
                writer.add(held.video())
            writer.schema = tracks.schema_of(first, fps=args.fps, extents=extents)
            if args.labels:
                _add_labels(args, writer)
    _done(args.out)


def _add_labels(args: argparse.Namespace, writer: StoreWriter) -> None:
    frames = {video["name"]: video["frames"] for video in writer.videos}
    with trackers.unpacked(args.labels) as folder:
        labels, mismatches = read_label_files(folder, frames, args.fps)
    for mismatch in mismatches:
        log.warning("%s", mismatch)
    write_labels(writer, assign_split(labels, test_share=args.test_share, seed=args.seed))


def calms21(args: argparse.Namespace) -> None:
    """The official archives or JSON."""
    from pretrain.pose import calms21 as official
    from pretrain.pose.official.counts import count_differences
    from pretrain.pose.official.download import download
    from pretrain.pose.official.sources import find_sources, total_bytes
    from pretrain.pose.schema import CALMS21

    if args.download:
        download(args.source)
    sources = find_sources(args.source)
    notes: list[str] = []
    labels = []
    with (
        StoreWriter(places.open_address(args.out), CALMS21, origin="CalMS21, doi 10.22002/D1.1991") as writer,
        tqdm(total=total_bytes(sources), desc="reading CalMS21", unit="B", unit_scale=True) as bar,
    ):
        for video, noted in official.read(sources, progress=lambda size: _advance(bar, bar.n + size), notes=notes):
            writer.add(video)
            labels += noted
        write_labels(writer, labels)
    for sentence in [*notes, *count_differences(labels)]:
        log.warning("%s", sentence)
    _done(args.out)


def check(args: argparse.Namespace) -> None:
    """Counts, missing points, integrity."""
    store = Store(places.open_address(args.store))
    found = describe(store)
    print(json.dumps(found, indent=1) if args.json else report(found))
    if found["damage"]:
        raise BadInput(f"{args.store} is damaged:\n  - " + "\n  - ".join(found["damage"]))


def _advance(bar: tqdm[Any], to: float) -> None:
    bar.update(to - bar.n)


def _done(out: str) -> None:
    store = Store(places.open_address(out))
    print(f"{store.uri}: {store.frames:,} frames of {len(store.videos)} videos; look at it: python pretrain/prepare.py check {store.uri}")


def main(words: Sequence[str] | None = None) -> None:
    """Runs the command line ``words``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="arena|calms21|tracks|check")

    def command(name: str, does: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=does, description=does, formatter_class=argparse.ArgumentDefaultsHelpFormatter)

    one = command("arena", "simulated pairs of mice in CalMS21's skeleton; scores on them are not CalMS21 scores")
    one.add_argument("--out", required=True, metavar="STORE", help="store to make")
    one.add_argument("--frames", type=int, default=60_000, help="frames of all recordings")
    one.add_argument("--seed", type=int, default=0, help="other animals, other stories")
    one.set_defaults(run=arena)

    one = command("calms21", "the CalMS21 data set: Tasks 1-3 and the unlabelled videos")
    one.add_argument("--source", required=True, metavar="FOLDER", help="folder of the official zips or of what they unpack to")
    one.add_argument("--download", action="store_true", help="fetch what is missing into --source first (5.5 GB)")
    one.add_argument("--out", required=True, metavar="STORE", help="store to make")
    one.set_defaults(run=calms21)

    one = command("tracks", "recordings of DeepLabCut, SLEAP and others; labels of BORIS, Caltech and others")
    one.add_argument("--poses", required=True, metavar="FOLDER", help="folder, pattern, file or zip of track files")
    one.add_argument("--labels", metavar="FOLDER", help="folder, file or zip of label files; may be the same")
    one.add_argument("--fps", type=float, required=True, help="frames per second of the videos")
    one.add_argument("--out", required=True, metavar="STORE", help="store to make")
    one.add_argument("--test-share", type=float, default=0.3, help="share of the labelled videos kept aside for test")
    one.add_argument("--seed", type=int, default=0, help="another deal of videos to training and test")
    one.set_defaults(run=from_tracks)

    one = command("check", "what is in a store, and whether it is whole")
    one.add_argument("store", metavar="STORE", help="folder or address")
    one.add_argument("--json", action="store_true", help="print one JSON object")
    one.set_defaults(run=check)

    args = parser.parse_args(words)
    args.run(args)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(exit_status(main))
