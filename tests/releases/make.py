"""Keeps what this version writes, for later versions to load: tests/releases/VERSION.

    python tests/releases/make.py

An encoder, a model with the default head (fewer trees) and postprocessing, a piece of a
recording of simulated mice that neither was fitted on, and what they make of it. Run once for a
release and commit; never again for an earlier one.
"""

from __future__ import annotations

import tempfile
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np

import ethoray
import pretrain.prepare
from finetune.fit.fit import fit
from finetune.fit.frames import embed, gather_poses
from finetune.labels.problems import problems
from finetune.postprocess.calibrations.temperature import Temperature
from finetune.postprocess.decision_rules.thresholds import Thresholds
from finetune.postprocess.postprocessing import Postprocessing
from finetune.postprocess.smoothers.moving import Moving
from finetune.report.model_folder import save_model
from finetune.settings import TASKS, Tuning
from pretrain.config import RECIPES, Recipe, read
from pretrain.data.store import Store
from pretrain.train.checkpoint import save_encoder
from pretrain.train.in_memory import learn_in_memory

HERE = Path(__file__).parent
FRAMES, SECONDS, TREES = 400, 5.0, 12
STEPS = Postprocessing(
    calibration=Temperature(temperature=1.4),
    decision_rule=Thresholds(values=(1.0, 0.9, 0.8, 1.0)),
    smoother=Moving(frames=5),
)
"""One of each kind, so that all are read back."""


def main() -> None:
    """Makes the folder of the version in pyproject.toml."""
    project = tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    out = HERE / project["project"]["version"]
    assert not out.exists(), f"{out} is kept already"
    with tempfile.TemporaryDirectory() as folder:
        pretrain.prepare.main(["arena", "--out", f"{folder}/mice", "--frames", "15000"])
        store = Store(f"{folder}/mice")
        recipe = read(Recipe, "quickstart", RECIPES, {"encoder": {"name": "tcn", "width": 16}})
        encoder, made_by = learn_in_memory(recipe, store, seconds=SECONDS)
        save_encoder(out / "encoder", encoder, made_by=made_by)
        (task,) = problems(store, "classic_classification")
        tuning = read(Tuning, "default", TASKS, {})
        members = [
            {**member, "trees": TREES} if member["name"] == "boosted" else member
            for member in tuning.head["members"]
        ]
        tuning = replace(tuning, head={**tuning.head, "members": members})
        frames = embed(gather_poses(store, task.train), encoder)
        ((_, _, model),) = fit(frames, [task], tuning, embedder=None, seed=42, stops=[1])
        save_model(
            out / "model" / "seed-42",
            model.head,
            encoder,
            [task],
            head_settings=tuning.head,
            made_by=made_by,
            postprocessing=[STEPS],
        )
        position = store.read_video(next(iter(task.test))).position_TMKX[:FRAMES].copy()
    position[100:110, 0, :3], position[200:260] = np.nan, np.nan
    labels, probabilities = ethoray.load_model(out / "model").predict(position)
    np.savez_compressed(
        out / "recording.npz",
        position_TMKX=position,
        z_TD=ethoray.load_encoder(out / "encoder").embed(position),
        labels=labels,
        probabilities_TC=probabilities.astype(np.float32),
    )


if __name__ == "__main__":
    main()
