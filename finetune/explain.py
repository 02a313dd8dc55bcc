"""Shows what a fitted classifier looks at: in its report, and as arrays.

    %(prog)s runs/interact
    # on other videos, 20 minutes of them
    %(prog)s runs/interact --data STORE --minutes 20

For models of any kind: how much the probability of each behaviour changes, and how much average
precision is lost, when a group of features or an animal takes the values of another time; and how
much when a keypoint is hidden for half a second, by how long before or after that was. Where head
and encoder are differentiable also integrated gradients over keypoints and time. The poses that
excite each behaviour most: real clips, and from there, where there are gradients, what gradient
ascent finds within the range of real poses.

Leaves explanation/PROBLEM.npz in the run's folder and writes its report.html again.
docs/explanations.md says how to read them. The default head (trees) has no gradients.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from tqdm import tqdm

from pretrain.errors import BadInput, exit_status
from pretrain.runs import paths


def main(words: Sequence[str] | None = None, *, prog: str = "python finetune/explain.py") -> None:
    """Runs the command line ``words``; help and errors call it ``prog``."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="--out folder of a finished ethoray finetune")
    parser.add_argument(
        "--data",
        metavar="STORE",
        help="pose store whose videos it is explained on; left out: those the run was scored on",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=3.0,
        help="of video, a stretch of each that shows most behaviour (%(default)s)",
    )
    parser.add_argument("--seed", type=int, help="the network of this seed; left out: the first")
    args = parser.parse_args(words)
    if not args.minutes > 0:
        raise BadInput(f"--minutes is {args.minutes:g}; it must be above 0")

    from finetune.explanation.explain_run import explain
    from finetune.explanation.sensitivity import passes_of
    from finetune.explanation.stretches import stretches_of
    from finetune.inference.model import open_model
    from finetune.report.page.write import write_report

    run = paths.base() / args.run
    model = open_model(str(run), seed=args.seed)
    stretches = stretches_of(run, model, data=args.data, minutes=args.minutes)
    with tqdm(total=passes_of(model), desc="explaining", unit="pass") as bar:
        files = explain(run, model, stretches, on_progress=bar.update)
    print(f"{write_report(run)}\narrays: {', '.join(map(str, files))}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(exit_status(main))
