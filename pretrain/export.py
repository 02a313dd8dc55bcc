"""Writes an encoder as ONNX, or shares an encoder or model on the Hugging Face Hub.

    # poses in, embeddings out; for C++, Rust, a browser, a microscope's computer
    %(prog)s runs/mine --onnx mice.onnx
    # to the hub (with the token of `hf auth login`, or HF_TOKEN), and from there into a folder
    %(prog)s runs/task1 --hub lab/mice
    %(prog)s models/mice --from-hub lab/mice

Any server with the hub's interface will do: --endpoint, or HF_ENDPOINT. Of a fine-tuned run the
model is shared, and the encoder of its first seed is what becomes ONNX.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from pretrain.errors import BadInput, exit_status
from pretrain.runs import paths


def main(words: Sequence[str] | None = None, *, prog: str = "python pretrain/export.py") -> None:
    """Runs the command line ``words``; help and errors call it ``prog``."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="--out folder of a run, an encoder or model folder")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--onnx", metavar="FILE", help="write the encoder to this file")
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

    from pretrain.share.onnx_file import write_onnx
    from pretrain.train.checkpoint import load_encoder

    seeds = sorted(shared.glob("seed-*"))
    embedder, about = load_encoder(seeds[0] if seeds else shared)
    path = Path(paths.base() / args.onnx)
    described = {key: about[key] for key in ("schema", "features", "encoder", "dim")}
    write_onnx(path, embedder, about=described | {"external": embedder.external})
    print(f"{path}: position_BTMKX, confidence_BTMK -> z_BTD, D = {embedder.dim}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(exit_status(main))
