"""The options that say which recordings, apart from their reader, which takes long to import."""

from __future__ import annotations

import argparse

from pretrain.readers.track_options import add_conversion_options


def add_options(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """The options that say where the recordings are and how they differ from the model's."""
    parser.add_argument(
        "--poses",
        nargs="+",
        required=required,
        metavar="FILE",
        help=(
            "track files, folders, patterns or zips of any tracker that `ethoray prepare` reads; "
            "or a pose store"
        ),
    )
    parser.add_argument(
        "--fps",
        type=float,
        help="frames per second of the recordings, where their files do not say it",
    )
    parser.add_argument(
        "--keypoints",
        metavar="OLD=NEW,…",
        help="what the recordings call the model's keypoints: snout=nose,rump=tail_base",
    )
    parser.add_argument("--animals", metavar="OLD=NEW,…", help="the same for animals")
    add_conversion_options(parser, to="the model")
    parser.add_argument(
        "--px-per-cm",
        type=float,
        metavar="NUMBER",
        help="pixels of these recordings in a centimetre; that is the scale, where "
        "the model's store says it",
    )
