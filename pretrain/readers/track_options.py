"""The options of ``ethoray prepare tracks``, apart from its code, which takes long to import."""

from __future__ import annotations

import argparse

from pretrain.components import descriptions

TRACK_FORMATS, LABEL_FORMATS = "pretrain.readers.track_formats", "pretrain.readers.label_formats"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``ethoray prepare tracks``."""
    parser.add_argument(
        "--poses",
        metavar="FOLDER",
        help=f"folder, pattern, file or zip of track files: {descriptions(TRACK_FORMATS)}; left "
        "out, with --append: --labels are of recordings that the store has",
    )
    parser.add_argument(
        "--labels",
        metavar="FOLDER",
        help=f"folder, file or zip of label files, may be the same: {descriptions(LABEL_FORMATS)}",
    )
    parser.add_argument(
        "--task",
        metavar="NAME",
        help="label set that these labels are of; left out: what the files say",
    )
    parser.add_argument(
        "--rest",
        metavar="CLASS",
        help="class of frames in which nothing was marked (other, or the rest class that the label "
        "set has: none, background, base)",
    )
    parser.add_argument(
        "--annotator",
        metavar="folder|NAME",
        help="who labelled, where the files do not say: a name, or folder: each file's folder is "
        "named after its annotator; several annotators of one recording are kept apart, compared, "
        "and learned as styles",
    )
    parser.add_argument(
        "--labels-from",
        type=int,
        choices=(0, 1),
        help="from where tables of bouts count frames, where their format leaves it open (left "
        "out: from 0, or from 1 where nothing else can be)",
    )
    parser.add_argument(
        "--unscored",
        action="append",
        default=[],
        metavar="CLASS",
        help="class that only fills what nobody scored: its frames become unlabelled, and it is a "
        "class no more; base, or S1:base where several label sets have one; `check` names such "
        "classes; may be repeated",
    )
    parser.add_argument(
        "--unscored-margins",
        action="append",
        default=[],
        metavar="CLASS",
        help="the same for a class that also means something: only its frames before the first and "
        "after the last frame of another class become unlabelled",
    )
    parser.add_argument(
        "--scored",
        action="append",
        default=[],
        metavar="[RECORDINGS=]BEHAVIOUR,…",
        help="the only behaviours that recordings were scored for: attack,sniff for all, "
        "'m1*=attack,sniff' for those of such a name (or annotator/name); others are unlabelled "
        "there; for behaviours that may overlap; may be repeated",
    )
    parser.add_argument(
        "--features",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help=(
            ".npy or .npz arrays (frames, D), one for each recording, named like it; may be "
            "repeated"
        ),
    )
    parser.add_argument(
        "--fps", type=float, help="frames per second of these recordings (needed with --poses)"
    )
    parser.add_argument("--out", required=True, metavar="STORE", help="store to make")
    parser.add_argument(
        "--append",
        action="store_true",
        help="add to the store at --out; what it holds is not touched, but frames that are "
        "labelled again",
    )
    parser.add_argument(
        "--keypoints",
        metavar="OLD=NEW,KEEP",
        help="which keypoints, in which order, and their new names",
    )
    parser.add_argument("--animals", metavar="OLD=NEW,KEEP", help="the same for animals")
    parser.add_argument(
        "--store-fps",
        type=float,
        metavar="FPS",
        help="frames per second of the store; poses, labels and features follow",
    )
    add_conversion_options(parser, to="the store")
    parser.add_argument(
        "--px-per-cm",
        type=float,
        metavar="NUMBER",
        help="pixels of these recordings in a centimetre; the store keeps it, "
        "and with --append it is the scale",
    )
    test = parser.add_mutually_exclusive_group()
    test.add_argument(
        "--test-share",
        type=float,
        help="share of the labelled videos kept aside for test (0.3; of labels added to a label "
        "set without --poses 0); 0: none, for ethoray finetune --folds",
    )
    test.add_argument(
        "--test-videos",
        metavar="FILE",
        help="text file that lists the recordings kept aside for test, a name a line; all others "
        "train",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="another one draws other test videos (%(default)s)"
    )


def add_conversion_options(parser: argparse.ArgumentParser, *, to: str) -> None:
    """How recordings differ from what they are converted ``to``, in words."""
    parser.add_argument(
        "--join-tracks",
        type=int,
        metavar="N",
        help="join pieces of tracks by position into N animals, animal1, animal2…: for trackers "
        "that give an animal a new track after each gap",
    )
    parser.add_argument(
        "--first-frame",
        type=int,
        metavar="N",
        help="recordings begin at frame N of their files and end with the last one that shows an "
        "animal; frames (of labels, too) are counted from there",
    )
    parser.add_argument(
        "--image",
        metavar="WIDTHxHEIGHT",
        help="extent of the recordings' image, where their files do not say it",
    )
    parser.add_argument(
        "--scale",
        type=float,
        metavar="FACTOR",
        help=f"pixels of {to} in a pixel of the recordings",
    )
    parser.add_argument(
        "--scale-to", metavar="WIDTHxHEIGHT", help=f"the same, by the extent of {to}'s image"
    )
