"""Learns what animals do from tracks that nobody labelled, and labels it.

    ethoray prepare arena --out stores/mice
    ethoray pretrain --data stores/mice --out runs/mine
    ethoray finetune --data stores/mice --encoder runs/mine --task classic_classification

`ethoray COMMAND --help` describes a command.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence
from functools import partial

from pretrain.errors import exit_status
from pretrain.utf8_mode import restart_in_utf8_mode

COMMANDS = {
    "prepare": ("pretrain.prepare", "make a pose store, check it, export it"),
    "pretrain": ("pretrain.run", "learn an encoder from unlabelled tracks"),
    "embed": ("pretrain.embed", "embed every frame of a store with an encoder"),
    "finetune": ("finetune.run", "fit classifiers on few labels, and score them"),
    "predict": ("finetune.predict", "label new recordings with a fitted model"),
    "explain": ("finetune.explain", "show what a fitted model looks at"),
    "report": ("finetune.make_report", "one HTML page of a run of finetune or predict"),
    "export": ("finetune.export", "write an encoder or model as ONNX; share it on a hub"),
    "suggest": ("finetune.suggest", "say which stretches of video to label next"),
    "similar": ("finetune.similar", "find what is like an example, or like nothing else"),
    "translate": ("finetune.translate", "turn one annotator's labels into another's style"),
    "compare": ("finetune.compare", "set encoders and label budgets side by side"),
    "meta-learn": ("finetune.meta_learn", "learn from other behaviours where a head should start"),
    "reproduce": ("finetune.reproduce", "run the CalMS21 paper's tables"),
    "quickstart": ("finetune.quickstart", "run everything once on simulated mice"),
}
"""Command to its module, whose ``main`` it is, and what it does."""


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command line ``words`` and returns the exit status of its command."""
    restart_in_utf8_mode()  # before --help prints
    listed = "\n".join(f"  {name:12}{does}" for name, (_, does) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="ethoray",
        usage="%(prog)s COMMAND …",
        description=f"{__doc__}\ncommands:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", nargs="?", choices=COMMANDS, help=argparse.SUPPRESS)
    parser.add_argument("options", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    if args.command is None:
        parser.error(f"which command? {', '.join(COMMANDS)}")
    module, _ = COMMANDS[args.command]
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    command = importlib.import_module(module).main
    return exit_status(partial(command, args.options, prog=f"ethoray {args.command}"))


if __name__ == "__main__":
    sys.exit(main())
