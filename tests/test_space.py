"""A recording in three dimensions, from the tracker's file to labels."""

from __future__ import annotations

import csv
from pathlib import Path

import h5py
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
from pretrain.errors import BadInput
from pretrain.readers.find_tracks import read_tracks
from pretrain.train.checkpoint import save_encoder
from pretrain.train.in_memory import learn_in_memory

FRAMES = 200
SMALL = {"window": 32, "batch": 2, "encoder": {"name": "tcn", "width": 16, "layers": 2}}


def test_points_of_sleap_anipose(tmp_path: Path) -> None:
    """No names; where frames in the middle were triangulated, they say so."""
    points = np.random.default_rng(0).normal(0, 20, (40, 2, 3, 3))
    points[5, 1, 2] = np.nan
    path = tmp_path / "m1.h5"
    with h5py.File(path, "w") as file:
        file["tracks"], file["frames"] = points, (100, 140)
        file["tracks"].attrs["Description"] = (
            "Shape: (n_frames, n_tracks, n_nodes, 3). In calibration camera order: ['back']."
        )
    found = read_tracks(path)
    assert (found.animals, found.coordinates) == (("track_0", "track_1"), ("x", "y", "z"))
    assert (found.keypoints, found.counted_from) == (("node_0", "node_1", "node_2"), 100)
    np.testing.assert_array_equal(found.position_TMKX, points.astype(np.float32))
    assert not found.confidence_TMK[5, 1, 2]
    assert read_tracks(path, names_only=True).keypoints == found.keypoints
    with h5py.File(path, "a") as file:
        del file["tracks"]
        file["tracks"] = points[..., :2]
        file["tracks"].attrs["Description"] = "Shape: (n_frames, n_tracks, n_nodes, 3)."
    with pytest.raises(BadInput, match=r"tracks has shape \(40, 2, 3, 2\); wanted"):
        read_tracks(path)


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


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_heading_alone_is_said_to_be_one(tmp_path: Path, end: str) -> None:
    (path := tmp_path / "cut.csv").write_text("a_x,a_y,a_z,a_error,a_ncams,a_score,fnum" + end)
    with pytest.raises(
        BadInput, match=r"line 1: it ends in its heading|line 2: a heading and no fr"
    ):
        read_tracks(path)
