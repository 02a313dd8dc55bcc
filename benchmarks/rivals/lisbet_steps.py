"""Trains the LISBET package a few batches at a time, whenever it is told to; train_step.py starts
it with an interpreter that has LISBET.

    python benchmarks/train_step.py --lisbet /path/to/its/environment/bin/python

Its own `train`, on random walks in CalMS21's shape: transformer-base, window 200, its four
self-supervised tasks, its loader processes. Only the records come from memory and the loop over
batches waits for its turns. torchvision, of which it uses two classes, need not be importable.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import random
import sys
import tempfile
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

TASKS = ["cons", "order", "shift", "warp"]


def stand_in_for_torchvision() -> None:
    """LISBET composes transforms with torchvision, whose wheels need a torch with a GPU; these two
    classes are all it takes."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]

        class Compose:
            def __init__(self, transforms: list[Any]) -> None:
                self.transforms = transforms

            def __call__(self, x: Any) -> Any:
                for transform in self.transforms:
                    x = transform(x)
                return x

        class RandomApply(Compose):
            def __init__(self, transforms: list[Any], p: float = 0.5) -> None:
                super().__init__(transforms)
                self.p = p

            def __call__(self, x: Any) -> Any:
                return super().__call__(x) if random.random() < self.p else x

        inside = {
            "transforms": {"Compose": Compose, "RandomApply": RandomApply},
            "models": {"__getattr__": lambda name: None},
        }
        found: Any = types.ModuleType("torchvision")
        found.__path__, sys.modules["torchvision"] = [], found
        for name, held in inside.items():
            sys.modules[f"torchvision.{name}"] = part = types.ModuleType(f"torchvision.{name}")
            vars(part).update(held)
            setattr(found, name, part)


def records(videos: int, frames: int) -> list[Any]:
    """Random walks as LISBET holds recordings: positions from 0 to 1."""
    import xarray
    from lisbet.io.core import Record

    rng, made = np.random.default_rng(0), []
    for number in range(videos):
        walk = rng.normal(scale=0.004, size=(frames, 2, 1, 2)).cumsum(0) + rng.normal(
            scale=0.02, size=(1, 2, 7, 2)
        )
        walk = (walk - walk.min((0, 2, 3), keepdims=True).min()) / np.ptp(walk)
        position = (
            ("time", "space", "keypoints", "individuals"),
            walk.transpose(0, 1, 2, 3).swapaxes(1, 3).astype(np.float64),
        )
        coordinates = {
            "time": np.arange(frames),
            "space": ["x", "y"],
            "keypoints": [f"point{k}" for k in range(7)],
            "individuals": ["resident", "intruder"],
        }
        made.append(
            Record(
                id=f"walk{number}",
                posetracks=xarray.Dataset({"position": position}, coords=coordinates),
            )
        )
    return made


def main() -> None:
    """Says what it is, then trains ``--batches`` batches for every line that comes in, and answers
    with the seconds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # LISBET prints; nobody is to take that for an answer

    stand_in_for_torchvision()
    import torch
    from lisbet.config.presets import BACKBONE_PRESETS
    from lisbet.config.schemas import DataConfig, ExperimentConfig, ModelConfig, TrainingConfig
    from lisbet.training import core

    torch.set_num_threads(args.threads)
    window, batch = 200, 32

    def say(**what: Any) -> None:
        answers.write(json.dumps(what) + "\n")
        answers.flush()

    def turns(batches: int, **_: Any) -> Iterator[int]:
        asked = iter(sys.stdin.readline, "")
        place = 0
        for _line in asked:
            begin = time.perf_counter()
            for _step in range(args.batches):
                yield place  # the loop trains one batch of every task before it asks for the next
                place += 1
            say(seconds=time.perf_counter() - begin)
        raise KeyboardInterrupt

    models: list[Any] = []
    build = core.create_model_from_config

    def remembered(config: Any) -> Any:
        models.append(build(config))
        say(
            parameters=sum(p.numel() for p in models[0].parameters()),
            windows=args.batches * batch * len(TASKS),
            window=window,
            version=importlib.metadata.version("lisbet"),
        )
        return models[0]

    core.create_model_from_config, core.trange = remembered, turns
    core.load_multi_records = lambda _: [records(8, 6_000)]
    backbone = BACKBONE_PRESETS["transformer-base"] | {"max_length": window}
    model = ModelConfig(
        backbone=backbone,
        out_heads={task: {} for task in TASKS},
        input_features={},
        window_size=window,
        window_offset=0,
    )
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(KeyboardInterrupt):
        core.train(
            ExperimentConfig(
                model=model,
                training=TrainingConfig(epochs=1, batch_size=batch, learning_rate=1e-4),
                data=DataConfig(data_path="none", window_size=window),
                task_ids_list=TASKS,
                output_path=Path(folder),
            )
        )


if __name__ == "__main__":
    main()
