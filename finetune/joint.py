"""One model for Tasks 1-3 on a store: encoder and output layers trained together, with and without labels (MABe 2021).

    python finetune/joint.py --data STORE --out runs/joint                        settings of finetune/paper/joint.yaml
    python finetune/joint.py --data STORE --out runs/joint --seeds 1 --set members=2 --set encoder.context_width=128
    python finetune/joint.py --data STORE --out runs/joint --transductive         learn from the test videos' poses as well, and say so

The rows of `finetune/reproduce.py` that are named joint_…, alone; what it leaves is the same. Contrastive predictive coding on labelled and
unlabelled windows, cross-entropy on labelled ones, one linear layer a label set, the mean of networks fitted on grouped splits.
"""

from __future__ import annotations

import argparse
import logging
import sys

import finetune.reproduce
from pretrain.errors import exit_status

INDUCTIVE, TRANSDUCTIVE = "joint_inductive", "joint_transductive"


def main(words: list[str] | None = None) -> None:
    """Runs the command line ``words``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="pose store with labels of Tasks 1-3, or of some of them")
    parser.add_argument("--out", help="folder of the run; left out: runs/paper-…")
    parser.add_argument("--transductive", action="store_true", help="learn from poses of the test videos; results are named so")
    parser.add_argument("--scale", default="laptop", help="where: a name from ray_configs/ or a file (%(default)s)")
    parser.add_argument("--seeds", default="5", metavar="N", help="ensembles, seeds from 42 on (%(default)s)")
    parser.add_argument("--epochs-share", default="1.0", metavar="SHARE", help="train for this share of the epochs")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of finetune/paper/joint.yaml")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    args = parser.parse_args(words)
    row = TRANSDUCTIVE if args.transductive else INDUCTIVE
    same = ["--data", args.data, "--scale", args.scale, "--seeds", args.seeds, "--epochs-share", args.epochs_share, "--rows", row]
    same += ["--out", args.out] if args.out else []
    same += ["--resume"] if args.resume else []
    finetune.reproduce.main([*same, *(word for pair in args.set for word in ("--set", f"joint.{pair}"))])


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(exit_status(main))
