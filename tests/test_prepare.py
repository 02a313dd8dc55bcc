"""The command that makes stores of a lab's recordings: names, order, scale and rate, videos added,
external features."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pretrain import prepare
from pretrain.data.schema import Float
from pretrain.data.store import Store
from pretrain.errors import BadInput
from pretrain.readers.annotations import labels_by_video
from pretrain.readers.harmonise import NameMapping

POINTS = ("nose", "neck", "tail")
_ = -1


def lines(frames: int, animals: int = 2, keypoints: int = 3) -> Float:
    """Points on straight lines, each at its own pace, known by where they are (px)."""
    t, m, k, x = np.ogrid[:frames, :animals, :keypoints, :2]
    return (10 + 2 * t + 100 * m + 20 * k + 8 * x).astype(np.float32)


def recording(
    path: Path,
    position: Float,
    *,
    keypoints: tuple[str, ...] = POINTS,
    animals: tuple[str, ...] = ("a", "b"),
    **more: Any,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, position=position, keypoints=keypoints, animals=animals, **more)
    return path


def tracks(folder: Path, *words: object, out: str = "store", fps: float = 30) -> Store:
    prepare.main(
        [
            "tracks",
            "--poses",
            str(folder / "poses"),
            "--out",
            str(folder / out),
            "--fps",
            str(fps),
            *map(str, words),
        ]
    )
    return Store(folder / out)


# -- recordings that differ ------------------------------------------------------------------------


def test_names_and_order_follow_the_options(tmp_path: Path) -> None:
    position = lines(9)
    recording(tmp_path / "poses/one.npz", position)
    recording(
        tmp_path / "poses/two.npz",
        position[:, ::-1][:, :, ::-1],
        keypoints=("tail", "neck", "snout"),
        animals=("b", "a"),
    )
    store = tracks(
        tmp_path, "--keypoints", "neck, nose=head,snout=head", "--animals", "b=white,a=black"
    )
    assert (store.schema.keypoints, store.schema.animals) == (("neck", "head"), ("white", "black"))
    for name in ("one", "two"):
        np.testing.assert_array_equal(
            store.read_video(name).position_TMKX, position[:, ::-1][:, :, [1, 0]]
        )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--keypoints", "nose,ear"),
            r"one.npz: there is no keypoint 'ear'; there are nose, neck, tail",
        ),
        (
            ("--keypoints", "nose=x,neck=x"),
            "'nose' and 'neck' are both there, and both are to be 'x'",
        ),
        (("--keypoints", "nose,,neck"), "names nothing"),
        (("--keypoints", "nose,nose"), "is there twice"),
        (("--animals", "a=x,c"), "there is no animal 'c'; there are a, b"),
        (("--scale", "0"), "--scale is 0"),
        (("--scale", "2", "--scale-to", "10x10"), "say the same thing"),
        (("--scale-to", "640x480"), "does not say how large its image is.*--image"),
        (("--scale-to", "640x480", "--image", "100x100"), "without being stretched"),
        (("--image", "640"), "WIDTHxHEIGHT"),
        (("--store-fps", "-3"), "--store-fps is -3"),
        (("--append",), "there is no store"),
        (("--features", "x=nowhere"), "no folder nowhere"),
    ],
)
def test_options_that_do_not_fit_say_what_is_there(
    tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    recording(tmp_path / "poses/one.npz", lines(9))
    with pytest.raises(BadInput, match=message):
        tracks(tmp_path, *words)
    assert not (tmp_path / "store").exists()


def test_scale_and_image(tmp_path: Path) -> None:
    position = lines(9)
    recording(tmp_path / "poses/one.npz", position)
    store = tracks(tmp_path, "--image", "400x300", "--scale", "1.5", out="a")
    assert store.schema.image_px == (600, 450)
    np.testing.assert_allclose(store.read_video("one").position_TMKX, position * 1.5)
    to = tracks(tmp_path, "--image", "400x300", "--scale-to", "800x600", out="b")
    assert to.schema.image_px == (800, 600)
    np.testing.assert_allclose(to.read_video("one").position_TMKX, position * 2)


def test_another_rate_takes_poses_labels_and_features_along(tmp_path: Path) -> None:
    frames, position = 41, lines(41)
    recording(tmp_path / "poses/one.npz", position)
    at = np.arange(frames)
    (tmp_path / "labels").mkdir()
    np.savez(
        tmp_path / "labels/one.npz",
        labels=(at >= 20).astype(int),
        classes=["rest", "run"],
        task="move",
    )
    (tmp_path / "emb").mkdir()
    np.save(tmp_path / "emb/one.npy", at[:, None].astype(np.float64))
    store = tracks(
        tmp_path,
        "--labels",
        tmp_path / "labels",
        "--features",
        f"clock={tmp_path / 'emb'}",
        "--store-fps",
        15,
        fps=30,
    )
    assert (store.schema.fps, store.frames) == (15, 21)
    video = store.read_video("one")
    np.testing.assert_allclose(video.position_TMKX, position[::2])
    np.testing.assert_allclose(video.features["clock"][:, 0], at[::2])
    (labels,) = labels_by_video(store)["one"]
    shown = labels.frames == labels.classes.index("run")
    np.testing.assert_array_equal(shown, at[::2] >= 20)


def test_features_of_another_length_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("one", "two", "three"):
        recording(tmp_path / f"poses/{name}.npz", lines(9))
    (tmp_path / "emb").mkdir()
    for name, frames in (("one", 7), ("two", 12)):
        np.save(
            tmp_path / f"emb/{name}.npy", np.arange(2 * frames, dtype=np.float32).reshape(frames, 2)
        )
    with caplog.at_level(logging.WARNING):
        store = tracks(tmp_path, "--features", tmp_path / "emb")
    for message in (
        "one.npy) end 2 frames before it",
        "two.npy) end 3 frames after it",
        "1 of 3 recordings have no file",
        "three",
    ):
        assert message in caplog.text
    np.testing.assert_array_equal(
        store.read_video("two").features["emb"], np.arange(18).reshape(9, 2)
    )
    assert np.isnan(store.read_video("one").features["emb"][7:]).all()
    assert not store.read_video("three").features
    np.save(tmp_path / "emb/three.npy", np.zeros((9, 3)))
    with pytest.raises(
        BadInput, match=r"video 'three'.*\n.*'emb' have 3 numbers a frame, those of video 'one' 2"
    ):
        tracks(tmp_path, "--features", tmp_path / "emb", out="other")
    assert not (tmp_path / "other").exists()


def test_a_names_option_is_read() -> None:
    assert NameMapping.parse("a=b, c ,d=b", option="--keypoints").old_names == (
        ("b", ("a", "d")),
        ("c", ("c",)),
    )


# -- adding to a store -----------------------------------------------------------------------------


def test_videos_and_labels_are_added_in_the_form_of_the_store(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, classes in (("one", ["rest", "run", "sit"]), ("two", ["rest", "run", "sit"])):
        recording(tmp_path / f"poses/{name}.npz", lines(40))
        (tmp_path / "labels").mkdir(exist_ok=True)
        np.savez(
            tmp_path / f"labels/{name}.npz",
            labels=np.arange(40) // 10 % 3,
            classes=classes,
            task="move",
        )
    before = tracks(tmp_path, "--labels", tmp_path / "labels", "--image", "640x480")
    kept = {path: path.read_bytes() for path in (tmp_path / "store").rglob("*.parquet")}
    known = labels_by_video(before)["one"][0]
    # New ones: other order of points and animals, half the pixels, half the rate, classes in
    # another order.
    for name in ("one", "two"):
        (tmp_path / f"poses/{name}.npz").unlink()
    later = lines(40)[::2, ::-1][:, :, ::-1] / 2
    recording(
        tmp_path / "poses/three.npz",
        later,
        keypoints=("tail", "neck", "snout"),
        animals=("b", "a"),
        image_px=(320.0, 240.0),
    )
    np.savez(tmp_path / "labels/three.npz", labels=[0, 1] * 10, classes=["sit", "run"], task="move")
    with caplog.at_level(logging.INFO):
        store = tracks(
            tmp_path,
            "--append",
            "--labels",
            tmp_path / "labels",
            "--keypoints",
            "snout=nose,neck,tail",
            "--scale-to",
            "640x480",
            fps=15,
        )
    assert store.verify() == []
    assert all(path.read_bytes() == data for path, data in kept.items())
    assert [video["name"] for video in store.videos] == [
        *(video["name"] for video in before.videos),
        "three",
    ]
    assert (store.schema, store.frames) == (before.schema, 80 + 39)
    np.testing.assert_allclose(store.read_video("three").position_TMKX, lines(39))
    found = labels_by_video(store)
    assert "labels of 2 videos that the store had before passed over" in caplog.text
    assert [len(found[name]) for name in ("one", "two", "three")] == [1, 1, 1]
    (new,) = found["three"]
    assert new.classes == known.classes
    assert [new.classes[index] for index in new.frames[[0, 2, 4]]] == ["sit", "run", "sit"]


def test_what_does_not_fit_the_store_changes_nothing(tmp_path: Path) -> None:
    recording(tmp_path / "poses/one.npz", lines(30))
    (tmp_path / "labels").mkdir()
    np.savez(
        tmp_path / "labels/one.npz",
        labels=np.arange(30) // 10,
        classes=["rest", "run", "sit"],
        task="move",
    )
    tracks(tmp_path, "--labels", tmp_path / "labels")
    before = {path: path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()}
    with pytest.raises(BadInput, match=r"'one' .* is in it already"):
        tracks(tmp_path, "--append")
    (tmp_path / "poses/one.npz").unlink()
    with pytest.raises(BadInput, match="that stays"):
        tracks(tmp_path, "--append", "--store-fps", 20)
    recording(tmp_path / "poses/two.npz", lines(30), keypoints=("nose", "neck", "ear"))
    with pytest.raises(
        BadInput, match=r"keypoints differ: .*nose, neck, tail; .*two.npz has nose, neck, ear"
    ):
        tracks(tmp_path, "--append")
    recording(tmp_path / "poses/two.npz", lines(30))
    np.savez(tmp_path / "labels/two.npz", labels=[0] * 30, classes=["fly"], task="move")
    (tmp_path / "labels/one.npz").unlink()
    with pytest.raises(
        BadInput, match=r"the classes are other, fly; in the store they are .*run, sit"
    ):
        tracks(tmp_path, "--append", "--labels", tmp_path / "labels")
    assert {
        path: path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()
    } == before


def test_recordings_may_begin_later_in_their_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """400 tracked frames of a long video are no long recording, unless somebody says so."""
    position = np.full((9000, 2, 3, 2), np.nan, np.float32)
    position[3600:4000] = lines(400)
    recording(tmp_path / "poses/one.npz", position)
    assert tracks(tmp_path).frames == 9000
    assert "of 9000 frames only 3600 to 3999 show an animal (--first-frame 3600" in caplog.text
    store = tracks(tmp_path, "--first-frame", 3600, out="trimmed")
    np.testing.assert_array_equal(store.read_video("one").position_TMKX, lines(400))
    with pytest.raises(BadInput, match=r"no animal is seen from frame 4000 on \(--first-frame\)"):
        tracks(tmp_path, "--first-frame", 4000, out="after")


def test_a_table_that_begins_at_another_frame_is_asked_about(tmp_path: Path) -> None:
    rows = ["scorer,s,s,s,s", "bodyparts,a,a,b,b", "coords,x,y,x,y"]
    rows += [f"{t},{t},1,2,{t}" for t in range(70, 90)]
    (tmp_path / "poses").mkdir()
    (tmp_path / "poses/one.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(BadInput, match=r"first frame is 70, not 0: --first-frame 70 begins there"):
        tracks(tmp_path)
    for first, frames in ((70, 20), (60, 30), (80, 10)):
        store = tracks(tmp_path, "--first-frame", first, out=f"from-{first}")
        x_T = store.read_video("one").position_TMKX[:, 0, 0, 0]
        assert len(x_T) == frames
        assert x_T[-1] == 89
        assert np.isnan(x_T).sum() == max(0, 70 - first)
