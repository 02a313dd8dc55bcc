"""Writes report.html, one file that needs nothing else, into a run's folder.

    %(prog)s runs/task1
    %(prog)s runs/predict-monday

Of a run of finetune: scores with their spread and controls, each class, each video, confusion,
precision and recall, reliability, bouts, where the errors lie, and the bouts that it was most sure,
most wrong and least sure of. Of predictions: time budgets, ethograms, what follows what. Both
commands write it when they end; write it again when controls have been run.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from pretrain.errors import exit_status
from pretrain.runs import paths


def main(
    words: Sequence[str] | None = None, *, prog: str = "python finetune/make_report.py"
) -> None:
    """Runs the command line ``words``; help and errors call it ``prog``."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="--out folder of a finished finetune or predict")
    args = parser.parse_args(words)

    from finetune.report.page.write import write_report

    print(write_report(Path(paths.base() / args.run)))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(exit_status(main))
