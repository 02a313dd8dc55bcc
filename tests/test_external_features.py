"""Features from elsewhere: beside the poses in the store, through the stream, into the encoder,
hidden with what they tell."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from worlds import wander, windows_of

from finetune.fit.frames import embed, gather_poses
from pretrain.config import Recipe, make
from pretrain.data.sample import sample
from pretrain.data.schema import CALMS21, Video
from pretrain.data.store import Store
from pretrain.data.store_writer import StoreWriter
from pretrain.data.window_rng import WindowRNG
from pretrain.data.windows import BatchPlan, Pose
from pretrain.encoders import build_embedder
from pretrain.errors import BadInput
from pretrain.train.checkpoint import load_encoder
from pretrain.train.learner import new_learner
from pretrain.transforms.augment import Augment
from pretrain.transforms.features import Features

FEW = {"groups": ["posture", "confidence"], "external": {"lights": 3, "sound": 1}}


def lit(name: str, frames: int, *, seed: int, sound: bool = True) -> Video:
    """A video whose ``lights`` tell seed, frame and their sum; where there is ``sound``, it is the
    frame's parity."""
    position, confidence = wander(CALMS21, frames, seed=seed)
    frame = np.arange(frames, dtype=np.float32)
    values = {
        "lights": np.stack([np.full(frames, seed), frame, frame + seed], 1).astype(np.float32)
    }
    if sound:
        values["sound"] = (frame % 2)[:, None].astype(np.float32)
    return Video(name=name, position_TMKX=position, confidence_TMK=confidence, features=values)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Three videos; the second has no ``sound``."""
    folder = tmp_path_factory.mktemp("lit") / "store"
    with StoreWriter(folder, CALMS21, origin="test") as writer:
        for seed, frames in enumerate((1500, 700, 300), 1):
            writer.add(lit(f"video{seed}", frames, seed=seed, sound=seed != 2))
    return Store(folder)


def test_a_video_brings_its_features_back(store: Store) -> None:
    for seed, frames in enumerate((1500, 700, 300), 1):
        given, found = (
            lit(f"video{seed}", frames, seed=seed, sound=seed != 2),
            store.read_video(f"video{seed}"),
        )
        assert set(found.features) == set(given.features)
        for name, values in given.features.items():
            np.testing.assert_array_equal(found.features[name], values)
    unheard = store.read_video("video2", features=["sound"]).features["sound"]
    assert unheard.shape == (700, 1)
    assert np.isnan(unheard).all()
    assert store.verify() == []
    with pytest.raises(BadInput, match=r"no features 'smell'; it has: lights \(3\), sound \(1\)"):
        store.read_video("video1", features=["smell"])


def test_a_sample_brings_them_frame_by_frame(store: Store) -> None:
    pose = sample(store, seed=0, windows=5, frames=64, features=("sound", "lights"))
    assert pose.extra_BTE is not None
    sound, seed, frame, both = pose.extra_BTE.unbind(-1)
    known = pose.confidence_BTMK.flatten(2).any(-1)
    assert torch.equal((seed + frame)[known], both[known])
    heard = sound.isfinite()
    assert torch.equal(sound[heard], frame[heard] % 2)
    assert torch.equal(heard[known], seed[known] != 2)


@pytest.mark.ray
@pytest.mark.parametrize("resident_bytes", [4e9, 0.0])
def test_the_stream_brings_them_beside_their_own_frames(
    store: Store, ray_here: None, resident_bytes: float
) -> None:
    from pretrain.data.ray_stream import FrameStream

    lanes = BatchPlan.deal(store.chunks, window=64, batch=4, seed=1)
    stream = FrameStream(store, lanes, resident_bytes=resident_bytes, features=("lights", "sound"))
    poses = {name: store.read_video(name).position_TMKX for name in ("video1", "video2", "video3")}
    seen: list[tuple[int, int]] = []
    for windows in stream.epoch(0):
        assert windows.pose.extra_BTE is not None
        lights = windows.pose.extra_BTE[windows.valid_BT]
        position = windows.pose.position_BTMKX[windows.valid_BT].numpy()
        for (seed, frame, _, sound), own in zip(lights.tolist(), position, strict=True):
            np.testing.assert_array_equal(own, poses[f"video{int(seed)}"][int(frame)])
            assert np.isnan(sound) if seed == 2 else sound == frame % 2
            seen.append((int(seed), int(frame)))
        assert windows.pose.extra_BTE[~windows.valid_BT].isnan().all()
    assert sorted(seen) == [
        (seed, frame) for seed, frames in ((1, 1500), (2, 700), (3, 300)) for frame in range(frames)
    ]


def test_they_are_standardised_and_unknown_ones_are_their_mean(store: Store) -> None:
    features = Features(CALMS21, groups=["posture"], external={"lights": 3, "sound": 1})
    pose = sample(store, seed=0, features=("lights", "sound"))
    features.fit(pose)
    x_BTF = features(pose)
    assert pose.extra_BTE is not None
    assert x_BTF.shape[-1] == features.width
    own = x_BTF[..., features.columns["external"]]
    known = pose.extra_BTE.isfinite()
    assert (own[~known] == 0).all()
    for column in range(4):
        values = own[..., column][known[..., column]]
        assert abs(float(values.mean())) < 1e-3
        assert abs(float(values.std()) - 1) < 1e-3
    with pytest.raises(AssertionError, match="without the features"):
        features(Pose(*pose[:2]))


def test_a_frame_that_is_hidden_takes_its_features_along() -> None:
    windows = windows_of(CALMS21, batch=3, frames=40)
    pose = windows.pose._replace(extra_BTE=torch.ones(3, 40, 2))
    gone = torch.zeros(3, 40, 2, 7, dtype=torch.bool)
    gone[0, 5], gone[1, 6, 0], gone[2, 7:9] = True, True, True
    hidden = pose.hidden(gone).extra_BTE
    assert hidden is not None
    expected = torch.zeros(3, 40, dtype=torch.bool)
    expected[0, 5], expected[2, 7:9] = True, True
    assert torch.equal(hidden.isnan().all(-1), expected)
    assert torch.equal(hidden.isnan().any(-1), expected)
    moved = Augment(mirror=0.5, rotate=True, jitter_px=2.0)(
        pose, CALMS21, WindowRNG(windows.key_B), view="a"
    ).extra_BTE
    assert moved is not None
    assert torch.equal(moved, pose.extra_BTE)


def test_an_encoder_feels_them(store: Store) -> None:
    torch.manual_seed(0)
    embedder = build_embedder(
        CALMS21, features=FEW, encoder={"name": "tcn", "width": 8, "layers": 2}
    ).eval()
    embedder.features.fit(sample(store, seed=0, features=("lights", "sound")))
    poses = gather_poses(store, ["video1", "video3"], features=("lights", "sound"))
    before = embed(poses, embedder).arrays["z"]
    poses.arrays["extra"][100, 1] += 300
    changed = np.flatnonzero((embed(poses, embedder).arrays["z"] != before).any(1))
    assert changed.tolist() == list(range(97, 104))


@pytest.mark.parametrize(
    ("external", "said"),
    [
        ({"smell": 3}, "no features 'smell'"),
        ({"lights": 4}, "dimension 4 here, 3 in the store"),
        ({"lights": "many"}, "external is .*many"),
    ],
)
def test_features_that_the_store_does_not_have_are_refused(
    store: Store, external: dict[str, object], said: str
) -> None:
    recipe = make(
        Recipe,
        {
            "encoder": {"name": "tcn", "width": 8, "layers": 2},
            "objective": {"name": "contrastive"},
            "features": {"groups": ["posture"], "external": external},
        },
        about="recipe",
    )
    with pytest.raises(BadInput, match=said):
        new_learner(recipe, store)


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_pretrains_and_tunes_with_them(
    store: Store, ray_here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import finetune.run
    import pretrain.run
    from pretrain.readers.annotations import Labels, write_labels

    monkeypatch.setenv("ETHORAY_HOME", str(tmp_path))
    data = tmp_path / "store"
    with StoreWriter(data, CALMS21, origin="test") as writer:
        for seed in (1, 2, 3):
            writer.add(lit(f"video{seed}", 400, seed=seed))
        labels = []
        for seed, split in ((1, "train"), (2, "train"), (3, "test")):
            # Nothing in the poses tells these labels; ``sound`` does.
            frames = (np.arange(400) % 2).astype(np.int8)
            ticks = Labels(
                video=f"video{seed}",
                task="ticks",
                annotator="one",
                split=split,
                classes=("base", "tick"),
                frames=frames,
            )
            labels.append(ticks)
        write_labels(writer, labels)
    few = [
        "--set",
        "features={groups: [posture], external: {sound: 1}}",
        "--set",
        "encoder={name: tcn, width: 16, layers: 1}",
        "--set",
        "objective.slack=0",
    ]
    pretrain.run.main(
        [
            "--data",
            str(data),
            "--out",
            str(tmp_path / "run"),
            "--set",
            "epochs=1",
            "--set",
            "batch=4",
            *few,
        ]
    )
    assert json.loads((tmp_path / "run" / "encoder" / "encoder.json").read_text())["features"][
        "external"
    ] == {"sound": 1}
    finetune.run.main(
        [
            "--data",
            str(data),
            "--encoder",
            str(tmp_path / "run"),
            "--task",
            "ticks",
            "--out",
            str(tmp_path / "tuned"),
            "--trials",
            "1",
            "--seeds",
            "1",
            "--set",
            "steps=120",
            "--set",
            "lr=0.01",
            "--set",
            "head={name: linear}",
        ]
    )
    assert json.loads((tmp_path / "tuned" / "result.json").read_text())["map"] > 0.75  # chance: 0.5
    for beside, says in (([], lambda score: score < 0.7), (["sound"], lambda score: score > 0.8)):
        out = tmp_path / f"head{len(beside)}"
        quick = [
            word
            for pair in (
                "steps=200",
                "lr=0.02",
                "weight_decay=0.3",
                "head={name: linear}",
                f"extra_features={beside}",
                "postprocess_folds=0",
            )
            for word in ("--set", pair)
        ]
        words = [
            "--data",
            str(data),
            "--encoder",
            "handmade",
            "--task",
            "ticks",
            "--out",
            str(out),
            "--trials",
            "1",
            "--seeds",
            "1",
        ]
        finetune.run.main([*words, *quick])
        assert says(json.loads((out / "result.json").read_text())["map"])
    wider, _ = load_encoder(out / "model" / "seed-42", CALMS21)
    assert wider.external == {"sound": 1}
