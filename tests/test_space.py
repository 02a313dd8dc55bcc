"""A recording in three dimensions, from the tracker's file to labels."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from reader_files import World, world, write_anipose, write_nwb

import finetune.predict
import pretrain.embed
from finetune.heads import build_head
from finetune.labels.problems import Problem
from finetune.report.model_folder import save_model
from pretrain import prepare
from pretrain.config import RECIPES, Recipe, read
from pretrain.data.store import Store
from pretrain.train.checkpoint import save_encoder
from pretrain.train.in_memory import learn_in_memory

FRAMES = 200
SMALL = {"window": 32, "batch": 2, "encoder": {"name": "tcn", "width": 16, "layers": 2}}


@pytest.mark.parametrize(("file", "objective"), [("m1.nwb", "contrastive"), ("m1.csv", "masked")])
def test_a_recording_in_space_goes_all_the_way(tmp_path: Path, file: str, objective: str) -> None:
    pytest.importorskip("h5py", reason="needs the extra: pip install 'ethoray[trackers]'")
    flat = world(FRAMES)
    height = 20 + 5 * np.sin(np.arange(FRAMES) / 7)[:, None, None] + 0 * flat.position[..., 0]
    position = np.concatenate([flat.position, height[..., None]], -1)
    (tmp_path / "poses").mkdir()
    recording = tmp_path / "poses" / file
    (write_nwb if file.endswith("nwb") else write_anipose)(
        recording, World(position, flat.confidence)
    )
    words = ["--poses", str(recording.parent), "--fps", "30", "--out", str(tmp_path / "store")]
    prepare.main(["tracks", *words])
    store = Store(tmp_path / "store")
    assert store.schema.coordinates == ("x", "y", "z")
    assert store.schema.image_px[2] == 30
    recipe = read(Recipe, objective, RECIPES, SMALL)
    embedder, about = learn_in_memory(recipe, store, seconds=0.1)
    assert np.isfinite(about["loss"])
    save_encoder(tmp_path / "encoder", embedder, made_by={})
    words = ["--encoder", str(tmp_path / "encoder"), "--data", store.uri]
    pretrain.embed.main([*words, "--out", str(tmp_path / "embeddings")])
    z_TD = np.load(tmp_path / "embeddings" / "m1.npy")
    assert z_TD.shape == (FRAMES, embedder.dim)
    assert np.isfinite(z_TD).all()
    problem = Problem(
        name="t", task="t", classes=("a", "b"), annotator="", overlapping=False, train={}, test={}
    )
    head = build_head({"name": "linear"}, embedder.dim, [2])
    torch.nn.init.normal_(head.out[0].weight)
    made = {"head_settings": {"name": "linear"}, "made_by": {}}
    save_model(tmp_path / "run" / "model" / "seed-0", head, embedder, [problem], **made)
    words = ["--model", str(tmp_path / "run"), "--poses", str(recording)]
    finetune.predict.main([*words, "--out", str(tmp_path / "labels")])
    with (tmp_path / "labels" / "csv" / "m1.csv").open() as file:
        assert len(list(csv.DictReader(file))) == FRAMES
