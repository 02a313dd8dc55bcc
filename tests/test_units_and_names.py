"""Recordings that differ in pixels a centimetre and in what they call the same points."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_prepare import POINTS, lines, recording, tracks
from worlds import MICE, wander

from finetune.fit.frames import gather_poses
from finetune.fit.open_encoder import open_encoder
from finetune.inference.recording_options import add_options
from finetune.inference.recordings import recordings
from pretrain import embed
from pretrain.data.sample import sample
from pretrain.data.schema import Schema, Video
from pretrain.data.store import Store
from pretrain.data.store_writer import StoreWriter
from pretrain.encoders import build_embedder
from pretrain.errors import BadInput
from pretrain.quality.check import describe, report
from pretrain.readers.tracks import counterparts
from pretrain.train.checkpoint import save_encoder
from pretrain.train.embed_store import embed_stored
from pretrain.transforms.features import Features
from pretrain.transforms.units import refuse_unknown_scale


def test_pixels_a_centimetre_are_kept_and_are_the_scale_of_what_is_added(tmp_path: Path) -> None:
    recording(tmp_path / "poses/one.npz", lines(9))
    store = tracks(tmp_path, "--px-per-cm", 10, "--scale", 2)
    assert store.schema.px_per_cm == 20
    assert "20 px a cm" in report(describe(store))
    assert Schema.from_dict(store.schema.to_dict()) == store.schema
    recording(tmp_path / "poses/one.npz", lines(9) / 2)
    (tmp_path / "poses/one.npz").rename(tmp_path / "poses/two.npz")
    store = tracks(tmp_path, "--px-per-cm", 5, "--append")
    one, two = (store.read_video(name).position_TMKX for name in ("one", "two"))
    np.testing.assert_allclose(one, 2 * lines(9))
    np.testing.assert_allclose(one, two)
    (tmp_path / "poses/two.npz").rename(tmp_path / "poses/three.npz")
    with pytest.raises(BadInput, match="--px-per-cm says a scale of 4: give no --scale"):
        tracks(tmp_path, "--px-per-cm", 5, "--scale", 3, "--append")


def test_a_store_that_does_not_say_it_is_the_same_as_ever(tmp_path: Path) -> None:
    recording(tmp_path / "poses/one.npz", lines(9))
    store = tracks(tmp_path)
    assert "px_per_cm" not in store.schema.to_dict()  # fingerprints of stores stay what they are
    recording(tmp_path / "poses/two.npz", lines(9))
    (tmp_path / "poses/one.npz").unlink()
    with pytest.raises(BadInput, match="does not say how many pixels a cm has: use --scale"):
        tracks(tmp_path, "--px-per-cm", 5, "--append")


def test_a_store_among_the_recordings_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recording(tmp_path / "poses/one.npz", lines(9))
    rows = "start_frame,end_frame,behavior\n2,5,attack\n"
    (tmp_path / "poses/one_labels.csv").write_text(rows)
    labels = str(tmp_path / "poses")
    tracks(tmp_path, "--labels", labels, out="poses/store")
    store = tracks(tmp_path, "--labels", labels, out="again")
    assert [video["name"] for video in store.videos] == ["one"]
    assert "of no format of labels" not in caplog.text  # nor are tracks labels that are not read


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser, required=True)
    return parser.parse_args(words)


def test_a_model_reads_recordings_at_its_own_scale_and_proposes_names(tmp_path: Path) -> None:
    recording(tmp_path / "poses/one.npz", lines(9))
    schema = replace(tracks(tmp_path).schema, px_per_cm=20)
    with recordings(
        options("--poses", str(tmp_path / "poses"), "--px-per-cm", "5"), schema, {}
    ) as (one,):
        np.testing.assert_allclose(one.read()[0]["position"].numpy(), 4 * lines(9))
    recording(tmp_path / "poses/one.npz", lines(9), keypoints=("snout", "neck", "tail"))
    with (
        pytest.raises(BadInput, match=r"Perhaps --keypoints snout=nose$"),
        recordings(options("--poses", str(tmp_path / "poses")), schema, {}),
    ):
        pass


def rig(folder: Path, *scales: float, px_per_cm: float | None) -> Store:
    """Recordings of the same wandering mice, each through a camera of its scale."""
    image = tuple(max(scales) * extent for extent in MICE.image_px)
    schema = replace(MICE, image_px=image, px_per_cm=px_per_cm)
    position, confidence = wander(MICE, 300)
    with StoreWriter(folder, schema, origin="wandering mice") as writer:
        for name, scale in zip(("one", "two"), scales, strict=False):
            scaled = position * np.float32(scale)
            writer.add(Video(name=name, position_TMKX=scaled, confidence_TMK=confidence))
    return Store(folder)


@pytest.mark.parametrize("units", ["px", "body", "cm"])
def test_an_encoder_serves_a_rig_of_another_scale(tmp_path: Path, units: str) -> None:
    near, far = rig(tmp_path / "near", 1.0, px_per_cm=10), rig(tmp_path / "far", 2.0, px_per_cm=20)
    features = {"groups": ["posture", "motion", "relation", "place"], "units": units}
    embedder = build_embedder(near.schema, features=features, encoder={"name": "conv1d"})
    embedder.features.fit(sample(near, seed=0))
    save_encoder(tmp_path / "encoder", embedder, made_by={})
    for store, name in ((near, "one"), (far, "other")):
        embed.main(
            [
                *("--encoder", str(tmp_path / "encoder"), "--data", str(store.address)),
                *("--out", str(tmp_path / name)),
            ]
        )
    one, other = (np.load(tmp_path / name / "one.npy") for name in ("one", "other"))
    assert np.allclose(one, other, atol=1e-3) == (units != "px")
    opened, _ = open_encoder(str(tmp_path / "encoder"), far, recipe="default", seed=0)
    fitted = gather_poses(far, ["one"], scaled_to=opened.features).arrays["position"]
    factor = 2.0 if units == "px" else 1.0
    np.testing.assert_allclose(fitted, factor * wander(MICE, 300)[0], rtol=5e-3)
    # what predict.py does with recordings of the other rig
    words = ("--poses", str(far.address))
    with recordings(options(*words), near.schema, {}, embedder.features) as (read,):
        np.testing.assert_array_equal(read.read()[0]["position"].numpy(), fitted)


def test_recordings_of_two_rigs_in_a_store_are_each_measured(tmp_path: Path) -> None:
    """A recording is read the same to be embedded, fitted and predicted, whatever lies beside
    it."""
    near, both = rig(tmp_path / "near", 1.0, px_per_cm=None), tmp_path / "both"
    mixed = rig(both, 1.0, 3.0, px_per_cm=None)
    features = {"groups": ["posture", "motion", "relation"], "units": "body"}
    embedder = build_embedder(near.schema, features=features, encoder={"name": "conv1d"}).eval()
    embedder.features.fit(sample(near, seed=0))
    one, two = (embed_stored(embedder, mixed, name) for name in ("one", "two"))
    np.testing.assert_allclose(one, two, atol=1e-3)
    np.testing.assert_allclose(one, embed_stored(embedder, near, "one"), atol=1e-3)
    fitted = gather_poses(mixed, ["one", "two"], scaled_to=embedder.features)
    with recordings(options("--poses", str(both)), near.schema, {}, embedder.features) as opened:
        for recording in opened:
            position = recording.read()[0]["position"]
            expected = fitted.video(recording.name)["position"]
            np.testing.assert_array_equal(position.numpy(), expected.numpy())


def test_centimetres_must_be_known(tmp_path: Path) -> None:
    near, far = (
        rig(tmp_path / "near", 1.0, px_per_cm=10),
        rig(tmp_path / "far", 2.0, px_per_cm=None),
    )
    with pytest.raises(BadInput, match=r"units are cm, .* prepare it with --px-per-cm"):
        Features(far.schema, units="cm")
    with pytest.raises(BadInput, match=r"is not known of .*far: say it with --px-per-cm"):
        refuse_unknown_scale(Features(near.schema, units="cm"), far)


def test_keypoints_that_are_called_otherwise_are_proposed(tmp_path: Path) -> None:
    recording(tmp_path / "poses/one.npz", lines(9))
    recording(tmp_path / "poses/two.npz", lines(9), keypoints=("snout", "neck", "tail"))
    with pytest.raises(BadInput, match=r"Perhaps --keypoints snout=nose,nose,neck,tail") as error:
        tracks(tmp_path)
    proposed = str(error.value).rpartition(" ")[2]
    assert tracks(tmp_path, "--keypoints", proposed).schema.keypoints == POINTS
    recording(tmp_path / "poses/two.npz", lines(9), keypoints=("paw", "neck", "tail"))
    with pytest.raises(BadInput) as error:
        tracks(tmp_path, out="other")
    assert "Perhaps" not in str(error.value)


@pytest.mark.parametrize(
    ("wanted", "there", "found"),
    [
        ("hip_left", ["lateral_right", "lateral_left", "side"], "lateral_left"),
        ("left_ear", ["EarL", "EarR"], "EarL"),
        ("tail_base", ["tailbase", "tail_end"], "tailbase"),
        ("right_side", ["Lat_right", "flank_left"], "Lat_right"),
        ("nose", ["snout", "Snout"], None),
        ("ear", ["barrel", "tail"], None),
    ],
)
def test_names_of_one_point(wanted: str, there: list[str], found: str | None) -> None:
    assert counterparts([wanted], there).get(wanted) == found
