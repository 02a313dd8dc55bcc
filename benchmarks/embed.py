"""Embedding a video: every frame once, in overlapping stretches, beside a loop that embeds one
window for every frame.

    python benchmarks/embed.py
    python benchmarks/embed.py --frames 100000 --loop-frames 1024

The loop cuts, for each frame, the window of its whole context, embeds a batch of those windows and
keeps the middle. It runs on a part of the frames, from the middle of the video; its time for the
video is calculated from that. Both embed the same walk with the encoder of the recipe; their
results are compared on those frames, all of which lie further from the ends than the encoder
reaches.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import measure
import torch
from steps import learner_of, recipe_of
from torch import Tensor
from walks import walk

from pretrain.data.windows import Pose, Windows
from pretrain.encoders import Embedder
from pretrain.errors import BadInput, exit_status
from pretrain.train.embed_video import embed_video


@torch.no_grad()
def one_window_a_frame(
    embedder: Embedder, position: Tensor, confidence: Tensor, frames: range, *, batch: int
) -> Tensor:
    """The loop: (frames, D)."""
    around = torch.arange(-embedder.overlap, embedder.overlap + 1)
    found = []
    for first in range(frames.start, frames.stop, batch):
        middle = torch.arange(first, min(first + batch, frames.stop))
        rows = middle[:, None] + around
        valid, key = (
            torch.ones(rows.shape, dtype=torch.bool),
            torch.zeros(len(rows), dtype=torch.int64),
        )
        found.append(
            embedder.embed(Windows(Pose(position[rows], confidence[rows]), valid, key))[
                :, embedder.overlap
            ].float()
        )
    return torch.cat(found)


def compare(report: measure.Report, args: argparse.Namespace, *, mark: str = "") -> None:
    """Both ways, in turn."""
    recipe = recipe_of(args.recipe, {})
    embedder = learner_of(recipe).embedder.eval()
    least = args.loop_frames + 2 * embedder.overlap
    if args.frames < least:
        raise BadInput(
            f"--frames is {args.frames}; with --loop-frames {args.loop_frames} it must be at least "
            f"{least}"
        )
    position, confidence = (torch.from_numpy(x) for x in walk(args.frames))
    first = (args.frames - args.loop_frames) // 2
    frames = range(first, first + args.loop_frames)
    held: dict[str, Tensor] = {}

    def dense() -> None:
        held["dense"] = embed_video(embedder, {"position": position, "confidence": confidence})

    def loop() -> None:
        held["loop"] = one_window_a_frame(embedder, position, confidence, frames, batch=args.batch)

    spent = measure.take_turns({"dense": dense, "loop": loop}, turns=args.turns)
    apart = (held["dense"][frames.start : frames.stop] - held["loop"]).abs().max().item()
    each = {
        "dense": [s / args.frames for s in spent["dense"]],
        "loop": [s / args.loop_frames for s in spent["loop"]],
    }
    report.add(f"{mark}every frame once", measure.rates(1, each["dense"]), "frames/s")
    report.add(
        f"{mark}one window of {2 * embedder.overlap + 1} a frame",
        measure.rates(1, each["loop"]),
        "frames/s",
    )
    report.add(
        f"{mark}every frame once, times as fast",
        measure.ratios(each["loop"], each["dense"]),
        "x",
        at_least=50,
    )
    report.add(f"{mark}greatest difference of an embedding", apart, "", at_most=1e-5)
    report.note(
        f"{recipe.encoder}; the loop ran on {args.loop_frames:,} of {args.frames:,} frames, in "
        f"batches of {args.batch}"
    )


def main(words: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = measure.new_parser(__doc__, turns=3)
    parser.add_argument(
        "--frames", type=int, default=50_000, help="frames of the video (%(default)s)"
    )
    parser.add_argument(
        "--loop-frames", type=int, default=512, help="frames that the loop embeds (%(default)s)"
    )
    parser.add_argument(
        "--batch", type=int, default=64, help="windows the loop embeds at once (%(default)s)"
    )
    parser.add_argument("--recipe", default="contrastive", help="whose encoder (%(default)s)")
    args = measure.parse(parser, words)
    report = measure.Report(
        "embed",
        "embedding every frame of a video once, beside one window a frame",
        measure.settings_of(args),
    )
    compare(report, args)
    report.finish(args.json)


if __name__ == "__main__":
    sys.exit(exit_status(main))
