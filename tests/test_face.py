"""What `import ethoray` gives, against what the commands do."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reader_files import World, write_npz
from worlds import MICE, embedder_of, line, wander, wander_store

import ethoray
import finetune.predict
import pretrain.embed
from finetune.heads import build_head
from finetune.labels.problems import Problem
from finetune.report.model_folder import save_model
from pretrain.data.schema import Video
from pretrain.data.store_writer import StoreWriter
from pretrain.data.windows import Pose
from pretrain.encoders import build_embedder
from pretrain.errors import BadInput
from pretrain.train.checkpoint import save_encoder
from pretrain.transforms.feature_names import feature_names
from pretrain.transforms.features import Features

ROOT = Path(__file__).parent.parent
FACE = ("sniff", "groom", "other")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, an encoder, a model of two problems and two seeds, and one track file."""
    folder = tmp_path_factory.mktemp("world")
    wander_store(folder / "store", [300, 200])
    position, confidence = wander(MICE, 400, seed=9)
    pose = Pose(torch.from_numpy(position)[None], torch.from_numpy(confidence)[None])
    embedder = embedder_of(MICE, "tcn", pose)
    save_encoder(folder / "encoder", embedder, made_by={})
    problems = [
        Problem(
            name=name,
            task="all",
            classes=classes,
            annotator="",
            overlapping=overlapping,
            train={},
            test={},
        )
        for name, classes, overlapping in (("acts", FACE, False), ("both", FACE[:2], True))
    ]
    for seed in (42, 43):
        torch.manual_seed(seed)
        head = build_head({"name": "linear"}, embedder.dim, [3, 2])
        for out in head.out:
            torch.nn.init.normal_(out.weight, std=1.0)
        save_model(
            folder / "run" / "model" / f"seed-{seed}",
            head,
            embedder,
            problems,
            head_settings={"name": "linear"},
            made_by={},
        )
    position, confidence = wander(MICE, 150, seed=4)
    write_npz(
        folder / "m1.npz",
        World(position.astype(float), confidence.astype(float)),
        keypoints=np.array(["snout", *MICE.keypoints[1:]]),
        animals=np.array(MICE.animals),
        fps=60.0,
        edges=None,
        mirror_pairs=None,
        axis=None,
    )
    return folder


def test_embeddings_are_those_of_the_command(world: Path, tmp_path: Path) -> None:
    words = ["--encoder", str(world / "encoder"), "--data", str(world / "store")]
    pretrain.embed.main([*words, "--out", str(tmp_path / "out")])
    store, encoder = ethoray.open_store(world / "store"), ethoray.load_encoder(world / "encoder")
    for name in ("video 0", "video 1"):
        video = store.read_video(name)
        z_TD = encoder.embed(video.position_TMKX, video.confidence_TMK)
        assert z_TD.dtype == np.float32
        assert z_TD.shape == (len(video.position_TMKX), encoder.dim)
        assert np.array_equal(z_TD, np.load(tmp_path / "out" / f"{name}.npy"))
        tensors = torch.tensor(video.position_TMKX, requires_grad=True), video.confidence_TMK
        assert np.array_equal(encoder.embed(*tensors), z_TD)
        assert np.array_equal(
            encoder.embed(video.position_TMKX.astype(float).tolist(), video.confidence_TMK), z_TD
        )
        assert not np.array_equal(encoder.embed(video.position_TMKX), z_TD), (
            "confidence left out is 1, not what the store has"
        )
    assert (encoder.schema.keypoints, encoder.external) == (MICE.keypoints, {})


@pytest.mark.parametrize("ensemble", [False, True])
def test_labels_are_those_of_the_command(world: Path, tmp_path: Path, ensemble: bool) -> None:
    words = ["--model", str(world / "run"), "--poses", str(world / "store"), "--labels-of", "both"]
    finetune.predict.main(
        [*words, "--out", str(tmp_path / "out"), *(["--ensemble"] if ensemble else [])]
    )
    model = ethoray.load_model(world / "run", labels_of="both", ensemble=ensemble)
    assert (model.classes, model.schema.animals, model.external) == (FACE[:2], MICE.animals, {})
    video = ethoray.open_store(world / "store").read_video("video 0")
    labels_TC, p_TC = model.predict(video.position_TMKX, video.confidence_TMK)
    assert labels_TC.shape == p_TC.shape == (300, 2)
    with (tmp_path / "out" / "csv" / "video 0.csv").open() as file:
        rows = list(csv.DictReader(file))
    for c, name in enumerate(model.classes):
        np.testing.assert_allclose(p_TC[:, c], [float(row[f"p_{name}"]) for row in rows], atol=1e-5)
        assert labels_TC[:, c].tolist() == [int(row[name]) for row in rows]
    assert 0 < labels_TC.mean() < 1, "a world in which nothing varies tests nothing"


def test_one_label_a_frame_where_behaviours_exclude_each_other(world: Path) -> None:
    model = ethoray.load_model(world / "run" / "model" / "seed-43", labels_of="acts")
    labels_T, p_TC = model.predict(*wander(MICE, 100, seed=3))
    assert labels_T.shape == (100,)
    assert np.array_equal(labels_T, p_TC.argmax(1))
    np.testing.assert_allclose(p_TC.sum(1), 1, atol=1e-5)


def test_tracks_are_brought_to_the_names_and_the_rate_of_an_encoder(world: Path) -> None:
    encoder = ethoray.load_encoder(world / "encoder")
    as_read = ethoray.read_tracks(world / "m1.npz")
    assert (as_read.name, as_read.fps, as_read.frames) == ("m1", 60, 150)
    assert as_read.keypoints[0] == "snout"
    with pytest.raises(BadInput, match="no keypoint 'nose'"):
        ethoray.read_tracks(world / "m1.npz", like=encoder.schema)
    fitting = ethoray.read_tracks(
        str(world / "m1.npz"), keypoints={"snout": "nose"}, scale=2, like=encoder.schema
    )
    assert (fitting.keypoints, fitting.fps, fitting.frames) == (MICE.keypoints, 30, 75)
    np.testing.assert_array_equal(fitting.position_TMKX, 2 * as_read.position_TMKX[::2])
    assert encoder.embed(fitting.position_TMKX, fitting.confidence_TMK).shape[0] == 75
    slower = ethoray.read_tracks(
        world / "m1.npz", fps=30, keypoints={"snout": "nose"}, like=encoder.schema
    )
    assert slower.frames == 150, "what fps= says counts, not what the file says"
    schema = ethoray.schema_of(fitting)
    assert (schema.fps, schema.keypoints, schema.axis) == (30, MICE.keypoints, MICE.axis)


# -- features --------------------------------------------------------------------------------------


def chase() -> np.ndarray[Any, Any]:
    """A resident at 3 px a frame to the right, an intruder 100 px before it at 2 px a frame."""
    return np.stack(
        [line((200, 300), (3, 0), frames=40), line((300, 300), (2, 0), frames=40)], axis=1
    )


GROUPS = ("posture", "motion", "relation", "distances", "scene", "place", "confidence")


def test_every_feature_bears_the_name_of_what_it_is() -> None:
    position = chase()
    names, values_TF = ethoray.features(position, schema=MICE, groups=GROUPS, lags=(2,))
    assert values_TF.shape == (40, len(names))
    assert len(set(names)) == len(names)
    assert {name.partition(":")[0] for name in names} == set(GROUPS)
    value = dict(zip(names, values_TF[20], strict=True))  # the animals are 80 px apart
    nose, tail = MICE.keypoint("nose"), MICE.keypoint("tail_base")
    ear = position[20, 0, MICE.keypoint("left_ear")] - position[20, 0].mean(0)
    width, height = MICE.image_px
    apart = np.linalg.norm(position[20, 0, nose] - position[20, 1, tail])
    expected = {
        "posture: resident left_ear forward (px)": ear[0],
        "posture: resident left_ear sideways (px)": ear[1],
        "motion: resident forward over 2 frames (log px)": np.log1p(6),
        "motion: intruder forward over 2 frames (log px)": np.log1p(4),
        "motion: intruder sideways over 2 frames (log px)": 0,
        "motion: resident turn over 2 frames (sin)": 0,
        "motion: resident turn over 2 frames (cos)": 1,
        "motion: intruder nose over 2 frames (log px)": np.log1p(4),
        "relation: intruder seen by resident forward (direction)": 80 / 81,
        "relation: resident seen by intruder forward (direction)": -80 / 81,
        "relation: intruder seen by resident distance (log px)": np.log1p(80),
        "relation: intruder seen by resident heading (cos)": 1,
        "relation: intruder seen by resident distance over 2 frames (log px)": -np.log1p(2),
        "distances: resident nose to intruder tail_base (log px)": np.log1p(apart),
        "scene: intruder left_ear forward (px from resident)": ear[0] + 80,
        "place: resident to the left wall (share of the image)": 260 / width,
        "place: resident to the bottom wall (share of the image)": 1 - 300 / height,
        "confidence: intruder nose (0 to 1)": 1,
    }
    for name, wanted in expected.items():
        assert value[name] == pytest.approx(wanted, abs=2e-3), name


def test_what_is_not_known_is_nan(tmp_path: Path) -> None:
    position = chase()
    position[20, 0, MICE.keypoint("nose")] = np.nan
    names, values_TF = ethoray.features(position, schema=MICE)
    lost = [name for name, unknown in zip(names, np.isnan(values_TF[20]), strict=True) if unknown]
    assert lost
    assert all("resident nose" in name or "over 24" in name or "over 8" in name for name in lost), (
        lost
    )
    assert np.isnan(values_TF[20, names.index("posture: resident nose forward (px)")])
    assert values_TF[20, names.index("confidence: resident nose (0 to 1)")] == 0


def test_external_features_and_arrays_without_a_file_have_names() -> None:
    schema = ethoray.schema(
        animals=["rat"], keypoints=["head", "back", "tail"], fps=25, image_px=(100, 100)
    )
    assert (schema.fps, schema.axis) == (25.0, ("tail", "head"))
    features = Features(schema, groups=["confidence"], external={"clip": 2})
    assert feature_names(features)[-2:] == ["external: clip 0", "external: clip 1"]


# -- external features -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_external(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with external features `clip`, and an encoder that reads them."""
    folder = tmp_path_factory.mktemp("external")
    position, confidence = wander(MICE, 200, seed=1)
    clip = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    with StoreWriter(folder / "store", MICE, origin="wandering animals") as writer:
        writer.add(
            Video(
                name="m1",
                position_TMKX=position,
                confidence_TMK=confidence,
                features={"clip": clip},
            )
        )
    embedder = build_embedder(
        MICE, features={"external": {"clip": 3}}, encoder={"name": "tcn", "width": 8, "layers": 2}
    )
    pose = Pose(*(torch.from_numpy(x)[None] for x in (position, confidence, clip)))
    embedder.features.fit(pose)
    save_encoder(folder / "encoder", embedder, made_by={})
    return folder


def test_encoders_read_external_features(with_external: Path, tmp_path: Path) -> None:
    words = ["--encoder", str(with_external / "encoder"), "--data", str(with_external / "store")]
    pretrain.embed.main([*words, "--out", str(tmp_path / "out")])
    video = ethoray.open_store(with_external / "store").read_video("m1")
    encoder = ethoray.load_encoder(with_external / "encoder")
    assert encoder.external == {"clip": 3}
    z_TD = encoder.embed(
        video.position_TMKX, video.confidence_TMK, external={**video.features, "other": [1]}
    )
    assert np.array_equal(z_TD, np.load(tmp_path / "out" / "m1.npy"))
    with pytest.raises(BadInput, match="'clip' are missing"):
        encoder.embed(video.position_TMKX, video.confidence_TMK)
    with pytest.raises(BadInput, match=r"shape \(200, 2\); it must be \(200, 3\)"):
        encoder.embed(video.position_TMKX, external={"clip": video.features["clip"][:, :2]})


# -- what is wrong ---------------------------------------------------------------------------------


def infinite() -> np.ndarray[Any, Any]:
    position = chase()
    position[7, 1, 0, 0] = np.inf
    return position


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda w: ethoray.open_store(w / "nowhere"), "there is no store at"),
        (lambda w: ethoray.read_tracks(w / "store" / "store.json"), "is not a tracks file"),
        (lambda w: ethoray.load_encoder(w / "nowhere"), "there is no encoder at"),
        (lambda w: ethoray.load_model(w / "nowhere"), "there is no model at"),
        (lambda w: ethoray.load_model(w / "run", seed=7), "it has: 42, 43"),
        (lambda w: ethoray.load_model(w / "run"), "labels_of: acts, both"),
        (lambda w: encoder(w).embed(chase()[:, :1]), r"\(40, 1, 7, 2\); it must be \(T, 2, 7, 2\)"),
        (lambda w: encoder(w).embed(chase()[:0]), "at least one"),
        (lambda w: encoder(w).embed("poses"), "these are no numbers"),
        (lambda w: encoder(w).embed(chase(), np.ones((40, 2))), r"it must be \(40, 2, 7\)"),
        (lambda w: encoder(w).embed(chase(), np.full((40, 2, 7), 9)), "9 is not a confidence"),
        (lambda w: encoder(w).embed(infinite()), "frame 7, nose of intruder: inf is not a pos"),
        (lambda w: ethoray.features(chase(), schema=MICE, groups=["smell"]), "unknown group"),
        (lambda w: ethoray.features(chase(), schema=MICE, lags=[3]), "even number of frames"),
        (lambda w: ethoray.schema(animals=[], keypoints=["a"], fps=0, image_px=(9, 9)), "positive"),
    ],
)
def test_what_is_wrong_is_said(world: Path, call: Callable[[Path], Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        call(world)


def encoder(world: Path) -> ethoray.Encoder:
    return ethoray.load_encoder(world / "encoder")


def test_tracks_whose_rate_nobody_knows_have_no_schema(tmp_path: Path) -> None:
    path = write_npz(
        tmp_path / "m1.npz",
        World(*(x.astype(float) for x in wander(MICE, 20))),
        keypoints=np.array(MICE.keypoints),
        animals=np.array(MICE.animals),
        fps=None,
        edges=None,
        mirror_pairs=None,
        axis=None,
    )
    with pytest.raises(BadInput, match="fps=30"):
        ethoray.schema_of(ethoray.read_tracks(path))
    assert ethoray.schema_of(ethoray.read_tracks(path, fps=50)).fps == 50


# -- without Ray and MLflow ------------------------------------------------------------------------

EVERYTHING = """
import json, sys
blocked = {"ray", "mlflow"}

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(f"{name} is not to be imported here")

sys.meta_path.insert(0, Block())
import ethoray
light = sorted({"numpy", "torch", "pyarrow", "yaml", "scipy"} & set(sys.modules))
assert not light, light
world = sys.argv[1]
video = ethoray.open_store(f"{world}/store").read_video("video 0")
poses = video.position_TMKX, video.confidence_TMK
encoder = ethoray.load_encoder(f"{world}/encoder")
tracks = ethoray.read_tracks(f"{world}/m1.npz", keypoints={"snout": "nose"}, like=encoder.schema)
assert encoder.embed(*poses).shape == (300, encoder.dim)
assert ethoray.load_model(f"{world}/run", labels_of="acts").predict(*poses)[1].shape == (300, 3)
names, values = ethoray.features(*poses, schema=ethoray.schema_of(tracks))
assert values.shape == (300, len(names))
assert not blocked & set(sys.modules)
"""


def test_all_of_it_works_without_ray_and_mlflow(world: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EVERYTHING, str(world)],
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []
