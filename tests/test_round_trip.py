"""Labels that come back: predictions that a person corrected, and clips that a person labelled, go
into the label set that they are of."""

from __future__ import annotations

import logging
import os
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from finetune.inference.ethograms import Ethogram
from finetune.inference.prediction_formats import prediction_formats
from finetune.labels.problems import Problem
from pretrain import prepare
from pretrain.data.store import Store
from pretrain.errors import BadInput
from pretrain.readers.annotations import UNLABELLED, Labels, labels_by_video

FRAMES = 90
CLASSES = ("base", "social", "attack")
TRUTH = np.repeat(np.array([0, 1, 0, 2, 1, 0], np.int8), FRAMES // 6)


def poses(folder: Path, *names: str) -> Path:
    folder.mkdir()
    position = np.arange(FRAMES, dtype=np.float32)[:, None, None, None] + np.zeros((1, 1, 2, 2))
    for name in names:
        np.savez(folder / f"{name}.npz", position=position + len(name), keypoints=("nose", "tail"))
    return folder


def caltech(folder: Path, *names: str) -> Path:
    """Every frame has its class, as that tool writes it, and the rest class is one of them."""
    folder.mkdir()
    edges = [0, *(np.flatnonzero(np.diff(TRUTH)) + 1).tolist(), FRAMES]
    bouts = [f"{a + 1}\t{b}\t{CLASSES[TRUTH[a]]}" for a, b in pairwise(edges)]
    lines = ["Caltech Behavior Annotator - Annotation File", "", "Configuration file:"]
    lines += [f"{name}\t{name[0]}" for name in CLASSES]
    lines += ["", "S1:\tstart\tend\ttype", "-----", *bouts]
    for name in names:
        (folder / f"{name}_annot.txt").write_text("\n".join(lines) + "\n")
    return folder


def predicted(folder: Path, form: str, video: str, *, task: str = "S1") -> Path:
    """What ``ethoray predict`` writes of a video, after a person made the truth of it."""
    folder.mkdir(exist_ok=True)
    problem = Problem(
        name=task,
        task=task,
        classes=CLASSES,
        annotator="",
        overlapping=False,
        train={},
        test={},
    )
    p_TC = np.eye(3, dtype=np.float32)[TRUTH]
    shown = Ethogram(video=video, problem=problem, labels=TRUTH, probabilities_TC=p_TC, fps=30.0)
    one = prediction_formats([form])[form]
    one.write(folder / f"{video}{one.ending}", shown)
    return folder


def tracks(out: Path, *words: object) -> None:
    prepare.main(["tracks", "--out", str(out), *map(str, words)])


@pytest.fixture
def store(tmp_path: Path) -> Path:
    given = ["--poses", poses(tmp_path / "tracks", "a", "b", "c"), "--fps", 30]
    tracks(tmp_path / "S", *given, "--labels", caltech(tmp_path / "labels", "a", "b"))
    return tmp_path / "S"


def labels_of(store: Path, video: str) -> Labels:
    assert {record["task"] for record in Store(store).labels} == {"S1"}
    (one,) = labels_by_video(Store(store))[video]
    assert one.classes == CLASSES
    return one


@pytest.mark.parametrize("form", ["annot", "boris", "boris_events", "csv", "nwb"])
def test_corrected_predictions_join_the_label_set_that_they_came_from(
    form: str, store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.clear()
    if form == "nwb":
        pytest.importorskip("ndx_ethogram")
    back = predicted(tmp_path / "back", form, "e")
    given = ["--append", "--poses", poses(tmp_path / "new", "e"), "--fps", 30]
    tracks(store, *given, "--labels", back)
    assert "no labels at all" not in caplog.text
    assert np.array_equal(labels_of(store, "e").frames, TRUTH)
    # and of a recording that the store has had, without its tracks
    tracks(store, "--append", "--labels", predicted(tmp_path / "more", form, "c"))
    assert np.array_equal(labels_of(store, "c").frames, TRUTH)
    assert labels_of(store, "c").split == "train"
    assert Store(store).verify() == []


def test_options_say_what_a_file_does_not(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = tmp_path / "c.csv"
    table.write_text("video,start,stop,behaviour\nc,15,29,social\nc,60,74,social\n")
    words = ["--append", "--labels", table]
    copy = shutil.copytree(store, tmp_path / "copy")
    with caplog.at_level(logging.INFO):
        tracks(copy, *words)
    assert "a new label set is made, 'social' (other, social), beside S1" in caplog.text
    assert {record["task"] for record in Store(copy).labels} == {"S1", "social"}
    with pytest.raises(BadInput, match=r"the classes are nothing, social; in the store"):
        tracks(store, *words, "--task", "S1", "--rest", "nothing")
    tracks(store, *words, "--task", "S1", "--rest", "base")
    assert np.array_equal(labels_of(store, "c").frames, np.where(TRUTH == 2, 0, TRUTH))


def test_a_table_of_the_classes_of_one_label_set_is_of_that_set(tmp_path: Path) -> None:
    """Overlapping behaviours, of which a corrected file need not show two at once."""
    both = np.zeros((FRAMES, 2), np.int8)
    both[10:40, 0], both[30:60, 1] = 1, 1
    (tmp_path / "labels").mkdir()
    for name in ("a", "b"):
        np.savez(tmp_path / f"labels/{name}.npz", labels=both, classes=["run", "rear"], task="acts")
    given = ["--poses", poses(tmp_path / "tracks", "a", "b", "c"), "--fps", 30]
    tracks(tmp_path / "S", *given, "--labels", tmp_path / "labels")
    (tmp_path / "c.csv").write_text("video,start,stop,behaviour\nc,0,9,run\nc,20,29,rear\n")
    tracks(tmp_path / "S", "--append", "--labels", tmp_path / "c.csv")
    (one,) = labels_by_video(Store(tmp_path / "S"))["c"]
    assert (one.task, one.classes, one.overlapping) == ("acts", ("run", "rear"), True)
    assert [np.flatnonzero(mark).tolist() for mark in one.frames.T] == [
        list(range(10)),
        list(range(20, 30)),
    ]


def test_a_set_of_both_kinds_of_files_has_one_rest_class(tmp_path: Path) -> None:
    labels = caltech(tmp_path / "labels", "a", "b")
    predicted(labels, "annot", "c")
    given = ["--poses", poses(tmp_path / "tracks", "a", "b", "c"), "--fps", 30]
    tracks(tmp_path / "S", *given, "--labels", labels)
    assert np.array_equal(labels_of(tmp_path / "S", "c").frames, TRUTH)


def test_labelled_clips_are_all_that_is_labelled_and_join_what_is_there(
    store: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "c.csv", tmp_path / "again.csv"
    heading = "video,start,stop,behaviour\n"
    first.write_text(heading + "c,10,39,labelled clip\nc,15,29,social\n")
    tracks(store, "--append", "--labels", first, "--task", "S1")
    expected = np.full(FRAMES, UNLABELLED)
    expected[10:40], expected[15:30] = 0, 1
    assert np.array_equal(labels_of(store, "c").frames, expected)
    # a second round: another clip, and a second thought
    second.write_text(heading + "c,30,59,labelled clip\nc,38,59,attack\n")
    tracks(store, "--append", "--labels", second, "--task", "S1")
    expected[30:60], expected[38:60] = 0, 2
    assert np.array_equal(labels_of(store, "c").frames, expected)
    assert np.array_equal(labels_of(store, "a").frames, TRUTH)


def test_a_clip_in_which_nothing_was_marked_is_rest(store: Path, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("video,start,stop,behaviour\nc,10,39,labelled clip\n")
    tracks(store, "--append", "--labels", tmp_path / "c.csv", "--task", "S1")
    expected = np.full(FRAMES, UNLABELLED)
    expected[10:40] = 0
    assert np.array_equal(labels_of(store, "c").frames, expected)


def test_clips_count_for_every_subject(tmp_path: Path) -> None:
    given = ["--poses", poses(tmp_path / "tracks", "a"), "--fps", 30]
    (tmp_path / "a.csv").write_text(
        "subject,start,stop,behaviour\n,10,39,labelled clip\nm1,15,29,run\nm2,20,24,run\n"
    )
    tracks(tmp_path / "S", *given, "--labels", tmp_path / "a.csv")
    found = labels_by_video(Store(tmp_path / "S"))["a"]
    assert sorted(one.task for one in found) == ["run_m1", "run_m2"]
    for one in found:
        assert np.array_equal(np.flatnonzero(one.frames != UNLABELLED), np.arange(10, 40))


def test_labels_without_poses_need_a_store(tmp_path: Path, store: Path) -> None:
    labels = predicted(tmp_path / "back", "boris", "c")
    with pytest.raises(BadInput, match="pass --poses FOLDER, or --append"):
        tracks(tmp_path / "T", "--labels", labels)
    with pytest.raises(BadInput, match="read at its rate, 30"):
        tracks(store, "--append", "--labels", labels, "--fps", 25)
    with pytest.raises(BadInput, match="--poses needs --fps"):
        tracks(tmp_path / "T", "--poses", tmp_path / "tracks")


@pytest.mark.skipif("ETHORAY_REAL_DATA" not in os.environ, reason="no real data here")
@pytest.mark.parametrize("back", ["back_boris", "back_annot"])
def test_files_of_earlier_versions_come_back_too(back: str, tmp_path: Path) -> None:
    folder = Path(os.environ["ETHORAY_REAL_DATA"]) / "faults/roundtrip"
    if not folder.is_dir():
        pytest.skip("no such files here")
    given = ["--poses", folder / "tracks", "--labels", folder / "labels", "--fps", 30]
    tracks(tmp_path / "S", *given)
    given = ["--poses", folder / "new", "--labels", folder / back, "--fps", 30, "--append"]
    tracks(tmp_path / "S", *given)
    (one,) = labels_by_video(Store(tmp_path / "S"))["e"]
    assert (one.task, one.classes) == ("S1", ("base", "social"))
    assert np.array_equal(np.flatnonzero(one.frames), np.arange(100, 200))
