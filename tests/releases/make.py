"""Keeps what this version writes, for later versions to load: tests/releases/VERSION.

    python tests/releases/make.py

An encoder, a model with the default heads (fewer trees), a piece of a recording of simulated mice
that neither was fitted on, and what they make of it. Run once for a release and commit; never run
again for an earlier one.
"""

from __future__ import annotations

import shutil
import tempfile
import tomllib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

import ethoray
import finetune.run
import pretrain.prepare
import pretrain.run

HERE = Path(__file__).parent
FRAMES = 400
PRETRAIN = ("epochs=2", "encoder={name: tcn, width: 16, layers: 3}", "features.lags=[2, 8]")
FINETUNE = (
    "head={name: stack, members: [{name: boosted, trees: 15}, {name: logistic}], "
    "weights: [0.6, 0.4]}",
    "search={}",
    "postprocess_folds=2",
)


def main() -> None:
    """Makes the folder of the version in pyproject.toml."""
    project = tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    out = HERE / project["project"]["version"]
    assert not out.exists(), f"{out} is kept already"
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        store, encoder, model = (str(work / kind) for kind in ("store", "encoder", "model"))
        pretrain.prepare.main(["arena", "--out", store, "--frames", "15000"])
        pretrain.run.main(
            ["--recipe", "quickstart", "--data", store, "--out", encoder, *_set(PRETRAIN)]
        )
        words = ["--data", store, "--encoder", encoder, "--task", "classic_classification"]
        words += ["--trials", "1", "--seeds", "1", "--out", model, *_set(FINETUNE)]
        finetune.run.main(words)
        files = shutil.ignore_patterns("README.md")
        shutil.copytree(Path(encoder) / "encoder", out / "encoder", ignore=files)
        shutil.copytree(Path(model) / "model", out / "model", ignore=files)
        opened = ethoray.open_store(store)
        (predicted,) = (Path(model) / "predictions").glob("*.parquet")
        video = opened.read_video(pq.read_table(predicted)["video"][0].as_py())
    position = video.position_TMKX[:FRAMES].copy()
    position[100:110, 0, :3], position[200:260] = np.nan, np.nan
    labels, probabilities = ethoray.load_model(out / "model").predict(position)
    np.savez_compressed(
        out / "recording.npz",
        position_TMKX=position,
        z_TD=ethoray.load_encoder(out / "encoder").embed(position),
        labels=labels,
        probabilities_TC=probabilities.astype(np.float32),
    )


def _set(pairs: tuple[str, ...]) -> list[str]:
    return [word for pair in pairs for word in ("--set", pair)]


if __name__ == "__main__":
    main()
