"""Files of one animal each, as DLC2NWB writes them: one recording where they belong together."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reader_files import KEYPOINTS, SCORER, world
from test_prepare import tracks
from test_units_and_names import options

from finetune.inference.recordings import recordings
from pretrain.errors import BadInput
from pretrain.readers.find_tracks import find_tracks, read_all_names, read_recording
from pretrain.readers.tracks import Tracks

pynwb = pytest.importorskip("pynwb", reason="pynwb is not installed")
ndx = pytest.importorskip("ndx_pose", reason="ndx-pose is not installed")
W = world(frames=40)


def write(
    path: Path,
    animal: str,
    *,
    m: int = 0,
    video: str = "videos/m1.mp4",
    stamps: Any = None,
    subject: bool = False,
) -> Path:
    """The animal ``m`` of the world. DLC2NWB says in the series which it is, and lists the videos;
    with a ``subject`` as writers do today, who link an ImageSeries."""
    stamps = np.arange(len(W.position)) / 25.0 if stamps is None else stamps
    names = KEYPOINTS if subject else tuple(f"{animal}_{keypoint}" for keypoint in KEYPOINTS)
    nwb = pynwb.NWBFile("mice", "id", datetime.now(UTC))
    if subject:
        nwb.subject = pynwb.file.Subject(subject_id=animal, species="Mus musculus", sex="U")
    skeleton = ndx.Skeleton(name="skeleton", nodes=list(names), edges=np.array([[0, 2]], "uint8"))
    series = [
        ndx.PoseEstimationSeries(
            name=name,
            description="nose" if subject else f"Keypoint {keypoint} from individual {animal}.",
            data=W.position[: len(stamps), m, k],
            unit="pixels",
            reference_frame="(0,0) corresponds to the bottom left corner of the video.",
            timestamps=stamps,
            confidence=W.confidence[: len(stamps), m, k],
        )
        for k, (name, keypoint) in enumerate(zip(names, KEYPOINTS, strict=True))
    ]
    about: dict[str, Any] = {}
    if video and subject:
        about["source_video"] = pynwb.image.ImageSeries(
            name="video",
            external_file=[video],
            format="external",
            rate=25.0,
            num_samples=len(stamps),
            dimension=[640, 480],
        )
        nwb.add_acquisition(about["source_video"])
    elif video:
        about["original_videos"] = [video]
    pose = ndx.PoseEstimation(
        pose_estimation_series=series,
        skeleton=skeleton,
        scorer="DLC",
        source_software="DeepLabCut",
        **about,
    )
    behavior = nwb.create_processing_module("behavior", "processed behavioral data")
    behavior.add([ndx.Skeletons(skeletons=[skeleton]), pose])
    path.parent.mkdir(exist_ok=True)
    with pynwb.NWBHDF5IO(str(path), "w") as file:
        file.write(nwb)
    return path


def read(folder: Path) -> list[Tracks]:
    return [read_recording(header) for header in read_all_names(find_tracks(str(folder)))]


@pytest.mark.parametrize("subject", [False, True])
def test_files_of_one_animal_each_are_one_recording(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, subject: bool
) -> None:
    poses = tmp_path / "poses"
    for m, animal in ((1, "ind10"), (0, "ind2")):
        write(poses / f"m1{SCORER}_el_{animal}.nwb", animal, m=m, subject=subject)
        write(poses / f"m2{SCORER}_el_{animal}.nwb", animal, m=m, video="m2.mp4", subject=subject)
    caplog.set_level(logging.INFO)
    first, second = read(poses)
    assert "4 files of one animal each are joined" in caplog.text
    assert "m1 (ind2, ind10); m2 (ind2, ind10)" in caplog.text
    for found, name in ((first, "m1"), (second, "m2")):
        assert (found.name, found.animals, found.keypoints) == (name, ("ind2", "ind10"), KEYPOINTS)
        assert found.image_px == ((640, 480) if subject else None)
        assert (found.fps, found.edges) == (25.0, ((KEYPOINTS[0], KEYPOINTS[2]),))
        seen = W.confidence > 0
        np.testing.assert_array_equal(
            found.position_TMKX[seen], W.position[seen].astype(np.float32)
        )
        np.testing.assert_array_equal(found.confidence_TMK > 0, seen)
    assert len({first.source_sha256, second.source_sha256, ""}) == 3
    store = tracks(tmp_path, "--fps", 25, "--animals", "ind10=black,ind2=white")
    (video, _) = (store.read_video(one["name"]) for one in store.videos)
    assert store.schema.animals == ("black", "white")
    np.testing.assert_array_equal(video.position_TMKX[:, ::-1][seen], first.position_TMKX[seen])
    assert "_ind2.nwb" in video.source
    assert "_ind10.nwb" in video.source
    words = ("--poses", str(poses), "--animals", "ind10=black,ind2=white", "--fps", "25")
    with recordings(options(*words), store.schema, {}) as (one, _):
        arrays, frames = one.read()
        assert (one.name, frames) == ("m1", len(W.position))
        np.testing.assert_array_equal(arrays["position"].numpy(), video.position_TMKX)


def test_what_does_not_belong_together_stays_apart(tmp_path: Path) -> None:
    """Recordings whose names end alike, that show other videos, or name none."""
    write(tmp_path / "ends/box_1.nwb", "mouse7", subject=True)
    write(tmp_path / "ends/box_2.nwb", "mouse8", m=1, subject=True)
    write(tmp_path / "videos/day_ann.nwb", "ann", subject=True)
    write(tmp_path / "videos/day_bob.nwb", "bob", m=1, subject=True, video="other.mp4")
    write(tmp_path / "none/day_ann.nwb", "ann", subject=True, video="")
    write(tmp_path / "none/day_bob.nwb", "bob", m=1, subject=True, video="")
    write(tmp_path / "one/day_ann.nwb", "ann", subject=True)
    write(tmp_path / "one/night_ann.nwb", "ann", m=1, subject=True)
    for folder in ("ends", "videos", "none", "one"):
        found = read(tmp_path / folder)
        assert [len(one.animals) for one in found] == [1, 1]
        assert [one.name for one in found] == [
            path.stem for path in sorted((tmp_path / folder).iterdir())
        ]


@pytest.mark.parametrize(
    "stamps",
    [np.arange(39) / 25, 3 + np.arange(40) / 25, np.arange(40) / 30],
    ids=["frames", "start", "rate"],
)
def test_animals_whose_time_differs_are_refused(tmp_path: Path, stamps: np.ndarray) -> None:
    write(tmp_path / "m1_a.nwb", "a", subject=True)
    write(tmp_path / "m1_b.nwb", "b", m=1, subject=True, stamps=stamps)
    with pytest.raises(BadInput, match=r"m1_a.nwb has 40 frames from 0 s on at 25 .*m1_b.nwb"):
        read(tmp_path)
