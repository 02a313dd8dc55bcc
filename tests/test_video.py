"""A recording with its skeletons and labels drawn on it: read back, they are where and when they
should be; a video that is not that of the poses is refused."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from test_predict import MOUSE, run, tracks
from worlds import MICE, wander

from finetune.predict import main
from finetune.report.figures import COLOURS, colours_of
from pretrain.errors import BadInput, exit_status

__all__ = ["run"]  # a fixture
av = pytest.importorskip("av")
WIDTH, HEIGHT, FRAMES = 1025, 570, 90  # an odd width: H.264 wants even ones


def grey_video(path: Path, *, frames: int = FRAMES, fps: int = 30) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=fps, options={"crf": "0"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "rgb24"
        for _ in range(frames):
            grey = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def is_near(pixels: np.ndarray, colour: str) -> bool:
    """Whether one of the pixels (…, 3) has the colour, as far as H.264 keeps it."""
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return bool((np.abs(pixels.reshape(-1, 3).astype(int) - rgb).max(-1) < 48).any())


def test_skeletons_and_labels_are_where_and_when_they_should_be(run: Path, tmp_path: Path) -> None:
    poses = tracks(tmp_path / "poses", frames=FRAMES, edges=np.array([["nose", "neck"]]))
    video, out = grey_video(tmp_path / "camera 1.avi"), tmp_path / "out"
    words = ["--model", str(run), "--poses", str(poses), "--labels-of", "task"]
    main([*words, "--video", str(video), "--out", str(out), "--scale", "0.5"])
    with av.open(str(out / "video" / "m1.mp4")) as container:
        assert container.streams.video[0].average_rate == 30
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(pictures) == FRAMES
    height, width, _ = pictures[0].shape
    assert (width, height % 2) == (WIDTH + 1, 0)
    assert height > HEIGHT
    position, _ = wander(MICE, FRAMES, seed=0)
    with (out / "csv" / "m1.csv").open(newline="") as file:
        labels = [row["label"] for row in csv.DictReader(file)]
    colours, looked = colours_of(MOUSE), 0
    assert len(set(labels)) > 1
    for t in (0, 30, FRAMES - 1):
        for m, k in np.argwhere(np.isfinite(position[t]).all(-1)):
            x, y = np.rint(position[t, m, k]).astype(int)
            if 3 < x < WIDTH - 3 and 3 < y < HEIGHT - 3:
                looked += 1
                assert is_near(pictures[t][y - 1 : y + 2, x - 1 : x + 2], COLOURS[m])
        strip = pictures[t][HEIGHT + 2 :, :40]
        shown = [name for name, colour in colours.items() if is_near(strip, colour)]
        assert shown == [labels[t]]
    assert looked > 15
    assert not is_near(pictures[0][:20, :20], COLOURS[0])


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"frames": FRAMES - 1}, r"89 frames.*90.*very file that was tracked"),
        ({"fps": 25}, r"25 frames/s.*30.*--fps 25"),
    ],
)
def test_another_video_is_refused(
    run: Path, tmp_path: Path, made: dict[str, int], said: str
) -> None:
    poses, video = tracks(tmp_path, frames=FRAMES), grey_video(tmp_path / "m1.avi", **made)
    with pytest.raises(BadInput, match=rf"(?s){said}"):
        main(["--model", str(run), "--poses", str(poses), "--video", str(video)])


def test_what_is_no_video_of_a_recording_is_refused_before_labelling(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    poses = [str(tracks(tmp_path, name, frames=40)) for name in ("m1", "m2")]
    (tmp_path / "m2.avi").write_bytes(b"no video")
    words = ["--model", str(run), "--poses", *poses, "--out", str(tmp_path / "out")]

    def fails(*videos: str) -> str:
        assert exit_status(lambda: main([*words, "--video", *videos])) in (1, 2)
        return capsys.readouterr().err

    told = fails(str(tmp_path / "m3.avi"), str(tmp_path / "none"))
    assert "no file" in told
    assert "m1, m2" in told
    assert not (tmp_path / "out").exists()
    assert "cannot be read as a video" in fails(str(tmp_path / "m2.avi"))  # m1 is labelled
