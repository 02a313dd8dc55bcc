"""Trains the LISBET package on given poses for so many core-seconds a turn, then embeds given
frames; lisbet_probe.py starts it.

    python benchmarks/lisbet_probe.py --data STORE --task S1 --lisbet
    /path/to/its/environment/bin/python

Its own loader reads the poses (missing points become 0, confidence is dropped, coordinates are
scaled to 0…1 a recording), its own `train` trains on them: transformer-base, window 200, its four
self-supervised tasks, its loader processes. Its rate rises for five epochs and falls over ten; so a
turn is one of fifteen epochs, or so few steps would never leave the warm-up. A frame's embedding is
what its embedder gives: the last frame of a window that ends there. Beside it stand two that see
the future as well: the middle of a window around the frame, and the greatest of each number over
that window, which is what its four tasks are judged by.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from lisbet_steps import TASKS, stand_in_for_torchvision

WINDOW, BATCH = 200, 32
EMBED_BATCH = 128


def core_seconds() -> float:
    """Processor time of this process and of its loaders, those that still run included (Linux)."""
    ended = os.times()
    found = time.process_time() + ended.children_user + ended.children_system
    for child in multiprocessing.active_children():
        try:
            fields = (
                Path(f"/proc/{child.pid}/stat")
                .read_text(encoding="utf-8")
                .rpartition(")")[2]
                .split()
            )
        except OSError:  # it ended meanwhile
            continue
        found += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


def write_records(file: Path, folder: Path) -> dict[str, Any]:
    """Lays the poses out as folders that LISBET reads, in the format of `movement`.

    Returns:
        Place of a video to the frames that are to be embedded.
    """
    import xarray

    held = np.load(file)
    videos, keypoints, individuals = (
        len(held["videos"]),
        held["keypoints"].tolist(),
        held["animals"].tolist(),
    )
    frames = {}
    for number in range(videos):
        position = held[f"position{number}"].transpose(0, 3, 2, 1)
        coordinates = {
            "time": np.arange(len(position)),
            "space": ["x", "y"],
            "keypoints": keypoints,
            "individuals": individuals,
        }
        tracks = xarray.Dataset(
            {"position": (("time", "space", "keypoints", "individuals"), position)},
            coords=coordinates,
        )
        (folder / str(number)).mkdir(parents=True)
        tracks.to_netcdf(folder / str(number) / "tracking.nc", engine="scipy")
        frames[str(number)] = held[f"frames{number}"]
    return frames


def embed(
    backbones: dict[str, Any],
    records: list[Any],
    frames: dict[str, Any],
    on_progress: Callable[[int], None],
) -> dict[str, Any]:
    """The frames of every record embedded by every backbone.

    Returns:
        "weights, which embedding" to (all frames in the order of ``frames``, D).
    """
    import torch
    from lisbet.datasets import WindowDataset
    from lisbet.transforms_extra import PoseToTensor
    from torch.utils.data import DataLoader, Subset

    before_end = WINDOW // 2
    by_id = {record.id: record for record in records}
    found: dict[str, list[Any]] = {}
    for name, rows in frames.items():
        for offset in (0, before_end):
            windows = WindowDataset(
                [by_id[name]],
                WINDOW,
                window_offset=offset,
                transform=PoseToTensor(),
                engine="numpy",
            )
            for x_BTF in DataLoader(Subset(windows, rows.tolist()), batch_size=EMBED_BATCH):
                for weights, backbone in backbones.items():
                    with torch.no_grad():
                        z_BTD = backbone(x_BTF)
                    kept = (
                        {"as it comes": z_BTD[:, -1]}
                        if not offset
                        else {"centred": z_BTD[:, -1 - offset], "greatest": z_BTD.amax(1)}
                    )
                    for which, z_BD in kept.items():
                        found.setdefault(f"{weights}, {which}", []).append(z_BD.numpy())
                on_progress(len(x_BTF))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def main() -> None:
    """Says what it is, trains a turn for every line that comes in and answers with what it did,
    then embeds for one more line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--poses", type=Path, required=True, help="positions and frames to embed, npz"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for records and embeddings")
    parser.add_argument("--epochs", type=int, required=True, help="turns, each one epoch")
    parser.add_argument("--core-seconds", type=float, required=True, help="of one turn")
    parser.add_argument(
        "--rate", type=float, default=1e-4, help="learning rate (%(default)s, its own default)"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # LISBET prints; nobody is to take that for an answer

    stand_in_for_torchvision()
    import copy

    import torch
    from lisbet.config.presets import BACKBONE_PRESETS
    from lisbet.config.schemas import DataConfig, ExperimentConfig, ModelConfig, TrainingConfig
    from lisbet.io import load_records
    from lisbet.training import core

    torch.set_num_threads(args.threads)

    def say(**what: Any) -> None:
        answers.write(json.dumps(what) + "\n")
        answers.flush()

    frames = write_records(args.poses, args.out / "records")
    records = load_records("movement", args.out / "records")

    begun: list[float] = []

    def turn(batches: int, **_: Any) -> Iterator[int]:
        """An epoch that lasts until the core-seconds of this turn and all before it are spent, what
        loaders did in between included."""
        if not sys.stdin.readline():
            raise KeyboardInterrupt
        begun.append(core_seconds())
        end, steps = begun[0] + args.core_seconds * len(begun), 0
        while core_seconds() < end:
            yield steps  # the loop trains one batch of every task before it asks for the next
            steps += 1
        say(core_seconds=core_seconds() - begun[0], steps=steps, windows=steps * BATCH * len(TASKS))

    backbones: dict[str, Any] = {}
    build = core.create_model_from_config

    def remembered(config: Any) -> Any:
        model = build(config)
        backbones["random weights"], backbones["trained"] = (
            copy.deepcopy(model.backbone),
            model.backbone,
        )
        say(
            parameters=sum(p.numel() for p in model.backbone.parameters()),
            window=WINDOW,
            with_heads=sum(p.numel() for p in model.parameters()),
            epoch_windows=sum(record.posetracks.sizes["time"] for record in records) * len(TASKS),
            version=importlib.metadata.version("lisbet"),
        )
        return model

    core.create_model_from_config, core.trange = remembered, turn
    core.load_multi_records = lambda _: [records]
    backbone = BACKBONE_PRESETS["transformer-base"] | {"max_length": WINDOW}
    model = ModelConfig(
        backbone=backbone,
        out_heads={task: {} for task in TASKS},
        input_features={},
        window_size=WINDOW,
        window_offset=0,
    )
    core.train(
        ExperimentConfig(
            model=model,
            training=TrainingConfig(epochs=args.epochs, batch_size=BATCH, learning_rate=args.rate),
            data=DataConfig(data_path="none", window_size=WINDOW),
            task_ids_list=TASKS,
            output_path=args.out,
        )
    )
    if not sys.stdin.readline():
        return
    for backbone in backbones.values():
        backbone.eval()
    embedded = embed(backbones, records, frames, lambda windows: say(embedded=windows))
    np.savez(args.out / "embedded.npz", **embedded)
    say(done=True)


if __name__ == "__main__":
    main()
