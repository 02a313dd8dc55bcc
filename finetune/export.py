"""Writes an encoder or model as ONNX, or shares it on the Hugging Face Hub.

    # poses in, embeddings out; for C++, Rust, a browser, a microscope's computer
    %(prog)s runs/mine --onnx mice.onnx
    # of a fine-tuned run: poses in, embeddings and probabilities out, as `ethoray predict` gives
    %(prog)s runs/task1 --onnx task1.onnx
    # the same for torch alone: torch.export.load("task1.pt2").module()
    %(prog)s runs/task1 --pt2 task1.pt2
    # to the hub (with the token of `hf auth login`, or HF_TOKEN), and from there into a folder
    %(prog)s runs/task1 --hub lab/mice
    %(prog)s models/mice --from-hub lab/mice

Of a run's networks the first is written; for another give its folder, runs/task1/model/seed-43.
Any server with the hub's interface will do: --endpoint, or HF_ENDPOINT.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from pretrain.errors import BadInput, exit_status
from pretrain.runs import paths


def main(words: Sequence[str] | None = None, *, prog: str = "python finetune/export.py") -> None:
    """Runs the command line ``words``; help and errors call it ``prog``."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="--out folder of a run, an encoder or model folder")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--onnx", metavar="FILE", help="write it as ONNX to this file")
    what.add_argument("--pt2", metavar="FILE", help="write it by torch.export to this .pt2 file")
    what.add_argument("--hub", metavar="OWNER/NAME", help="upload to this repository")
    what.add_argument("--from-hub", metavar="OWNER/NAME", help="download into the folder RUN")
    parser.add_argument("--endpoint", metavar="URL", help="the hub (HF_ENDPOINT, huggingface.co)")
    parser.add_argument("--revision", help="with --from-hub: branch, tag or commit")
    parser.add_argument("--private", action="store_true", help="with --hub: a new one is private")
    args = parser.parse_args(words)

    from pretrain.share import hub

    folder = Path(paths.base() / args.run)
    if args.from_hub:
        if folder.exists() and any(folder.iterdir()):
            raise BadInput(f"{folder} already holds something: choose another folder")
        hub.pull(args.from_hub, folder, endpoint=args.endpoint, revision=args.revision)
        print(f"{args.from_hub}: {folder}")
        return
    shared = hub.shared_folder(folder)
    if args.hub:
        print(hub.push(shared, args.hub, endpoint=args.endpoint, private=args.private))
        return
    path = Path(paths.base() / (args.onnx or args.pt2))
    if (path.suffix == ".pt2") != bool(args.pt2):
        raise BadInput(f"{path}: --pt2 writes files that end in .pt2, --onnx others")
    print(f"{path}: {_write(shared, path)}")


def _write(folder: Path, path: Path) -> str:
    """Writes a model, or an encoder; returns what goes in and comes out."""
    from finetune.inference.exported_model import PosesToProbabilities
    from finetune.inference.model import open_model
    from pretrain.share.exported import PosesToEmbeddings, write_exported
    from pretrain.train.checkpoint import load_encoder

    if not (any(folder.glob("head.json")) or any(folder.glob("seed-*/head.json"))):
        embedder, _ = load_encoder(folder)
        write_exported(path, PosesToEmbeddings(embedder), embedder)
        return f"position_BTMKX, confidence_BTMK -> z_BTD, D = {embedder.dim}"
    model = open_model(str(folder))
    network = PosesToProbabilities(model)
    head = type(network.head).__name__
    outputs = {problem.name: list(problem.classes) for problem in model.problems}
    write_exported(path, network, network.embed.embedder, head=head, problems=outputs)
    classes_of = "; ".join(f"{name}: {', '.join(classes)}" for name, classes in outputs.items())
    return f"position_BTMKX, confidence_BTMK -> z_BTD, {', '.join(outputs)} ({classes_of})"


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(exit_status(main))
