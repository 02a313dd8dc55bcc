"""Labels at the edges of their formats: read right, or said."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from reader_files import (
    BORIS,
    boris_project,
    jabs_annotations,
    mabe_annotation,
    write_workbook,
)

from pretrain.errors import BadInput
from pretrain.readers.annotations import UNLABELLED, Labels
from pretrain.readers.find_labels import read_label_files

LENGTH = 300


def read(folder: Path, name: str, text: str, *, fps: float = 30.0) -> dict[str, Labels]:
    (folder / name).write_text(text)
    labels, _ = read_label_files(folder, {"mouse1": LENGTH}, fps)
    return {each.task: each for each in labels}


def frames_of(labels: Labels, name: str) -> list[int]:
    at = labels.classes.index(name)
    marked = labels.frames == at if labels.frames.ndim == 1 else labels.frames[:, at] == 1
    return np.flatnonzero(marked).tolist()


POSE = ["Nose_1_x", "Nose_1_y", "Nose_1_p", "Movement_mouse_1", "Sum_probabilities"]
COUNTS = [f"Low_prob_detections_{share}" for share in ("0.1", "0.5", "0.75")]


@pytest.mark.parametrize("machine", [False, True])
def test_simbas_own_columns_are_no_behaviours(tmp_path: Path, machine: bool) -> None:
    behaviours = ["Probability_Attack", "Attack", "Probability_Sniffing", "Sniffing"]
    rows = [",".join(["", *POSE, *COUNTS, *(behaviours if machine else behaviours[1::2])])]
    for t in range(LENGTH):
        marks = [int(50 <= t < 100), int(100 <= t < 150)]
        cells = [0.05, marks[0], 0.04, marks[1]] if machine else marks
        low = [2 if t == 7 else 0, 0, 0]  # two badly tracked points
        rows.append(",".join(map(str, [t, 300 + t, 200.5, 0.99, 2.5, 2.9, *low, *cells])))
    (labels,) = read(tmp_path, "mouse1.csv", "\n".join(rows) + "\n").values()
    assert set(labels.classes) == {"other", "Attack", "Sniffing"}
    assert frames_of(labels, "Attack") == list(range(50, 100))
    assert frames_of(labels, "Sniffing") == list(range(100, 150))


def test_poses_are_no_labels(tmp_path: Path) -> None:
    rows = [",Nose_1_x,Nose_1_y,Nose_1_p", *(f"{t},{t},2.5,1.0" for t in range(LENGTH))]
    with pytest.raises(BadInput, match="found 0 label files"):
        read(tmp_path, "mouse1.csv", "\n".join(rows) + "\n")


def test_a_column_of_times_says_when_a_row_was(tmp_path: Path) -> None:
    rows = ["time,attack,sniff"]
    rows += [f"{t / 10:.1f},{int(20 <= t < 40)},{int(t == 55)}" for t in range(100)]
    (labels,) = read(tmp_path, "mouse1.csv", "\n".join(rows) + "\n").values()
    assert frames_of(labels, "attack") == list(range(60, 120))
    assert frames_of(labels, "sniff") == [165, 166, 167]
    assert not (labels.frames == UNLABELLED).any()


def test_minus_one_is_unlabelled(tmp_path: Path) -> None:
    rows = [",background,attack"]
    rows += [
        f"{t},-1,-1" if t >= 200 else f"{t},{int(t < 100)},{int(t >= 100)}" for t in range(LENGTH)
    ]
    (labels,) = read(tmp_path, "mouse1.csv", "\n".join(rows) + "\n").values()
    assert frames_of(labels, "attack") == list(range(100, 200))
    assert np.flatnonzero(labels.frames == UNLABELLED).tolist() == list(range(200, 300))


def test_in_mabe_the_stop_is_exclusive_and_a_directed_pair_a_label_set(tmp_path: Path) -> None:
    text = "agent_id,target_id,action,start_frame,stop_frame\n1,2,sniff,5,10\n2,1,attack,12,20\n"
    labels = read(tmp_path, "mouse1.csv", text)
    assert set(labels) == {"sniff_1 to 2", "attack_2 to 1"}
    assert frames_of(labels["sniff_1 to 2"], "sniff") == list(range(5, 10))
    assert frames_of(labels["attack_2 to 1"], "attack") == list(range(12, 20))


def test_bouts_of_mabes_parquet(tmp_path: Path) -> None:
    (tmp_path / "mouse1.parquet").write_bytes(mabe_annotation())
    labels, _ = read_label_files(tmp_path, {"mouse1": LENGTH}, 30.0)
    found = {each.task: each for each in labels}
    assert frames_of(found["sniff_1 to 2"], "sniff") == [1, 2, 3]
    assert frames_of(found["groom_2 to 2"], "groom") == [6, 7, 8]


@pytest.mark.parametrize(
    ("first", "last", "shifted"), [(1, LENGTH, True), (0, 299, False), (1, 299, False)]
)
def test_frames_that_can_only_be_counted_from_1_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, first: int, last: int, shifted: bool
) -> None:
    text = f"start_frame,end_frame,behavior\n{first},30,attack\n31,{last},sniff\n"
    (labels,) = read(tmp_path, "mouse1.csv", text).values()
    assert frames_of(labels, "attack")[0] == (0 if shifted else first)
    assert ("they are counted from 1" in caplog.text) == shifted


def test_from_where_frames_are_counted_can_be_said(tmp_path: Path) -> None:
    text = "start_frame,end_frame,behavior\n{first},30,attack\n31,{last},sniff\n"
    for first, last, said, begins in ((1, 200, 1, 0), (1, LENGTH, 0, 1), (1, 200, None, 1)):
        (tmp_path / "mouse1.csv").write_text(text.format(first=first, last=last))
        (labels,), _ = read_label_files(tmp_path, {"mouse1": LENGTH}, 30.0, first_frame=said)
        assert frames_of(labels, "attack")[0] == begins
    (tmp_path / "mouse1.csv").write_text(text.format(first=0, last=200))
    with pytest.raises(BadInput, match=r"mouse1.csv has a frame 0: its frames are not counted"):
        read_label_files(tmp_path, {"mouse1": LENGTH}, 30.0, first_frame=1)


def test_what_is_not_read_and_who_has_no_labels_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mouse1.csv").write_text("start_frame,end_frame,behavior\n3,30,attack\n")
    (tmp_path / "mouse2.eaf").write_text("<ANNOTATION_DOCUMENT/>")
    lengths = dict.fromkeys(("mouse1", "mouse2", "mouse3"), LENGTH)
    read_label_files(tmp_path, lengths, 30.0)
    assert "2 of 3 recordings have no labels at all: mouse2, mouse3" in caplog.text
    assert "of no format of labels that is read: mouse2.eaf" in caplog.text


def test_folders_say_who_labelled(tmp_path: Path) -> None:
    for who, first in (("anna", 5), ("ben", 9)):
        (tmp_path / who).mkdir()
        text = f"start_frame,end_frame,behavior\n{first},30,rear\n"
        (tmp_path / who / "mouse1.csv").write_text(text)
    with pytest.raises(BadInput, match="has labels under 'rear' twice"):
        read_label_files(tmp_path, {"mouse1": LENGTH}, 30.0)
    labels, _ = read_label_files(tmp_path, {"mouse1": LENGTH}, 30.0, annotator="folder")
    found = {each.annotator: frames_of(each, "rear")[0] for each in labels}
    assert found == {"anna": 5, "ben": 9}
    (tmp_path / "mouse1.csv").write_text("start_frame,end_frame,behavior\n7,30,rear\n")
    with pytest.raises(BadInput, match="lies in no folder of an annotator's"):
        read_label_files(tmp_path, {"mouse1": LENGTH}, 30.0, annotator="folder")


@pytest.mark.parametrize("parts", [True, False])
def test_media_that_follow_each_other_in_one_observation_of_boris(
    tmp_path: Path, parts: bool
) -> None:
    """As recordings of their own, or joined."""
    heading = (
        "Observation id,Source,Time offset (s),Media duration (s),FPS,Subject,Behavior,"
        "Behavior type,Time,Media file name"
    )
    rows = [heading]
    for name, start, stop in (("attack", 2, 4), ("attack", 12, 15), ("sniff", 16, 18)):
        for kind, time in (("START", start), ("STOP", stop)):
            medium = "partA.mp4" if time < 10 else "partB.mp4"
            rows.append(
                "day1,player #1:partA.mp4;partB.mp4,0,10.000;10.000,30.000;30.000,,"
                f"{name},{kind},{time}.000,{medium}"
            )
    (tmp_path / "day1.csv").write_text("\n".join(rows) + "\n")
    videos = {"partA": 300, "partB": 300} if parts else {"day1": 600}
    labels, _ = read_label_files(tmp_path, videos, 30.0)
    found = {(each.video, name): frames_of(each, name) for each in labels for name in each.classes}
    if parts:
        assert found["partA", "attack"] == list(range(60, 120))
        assert found["partB", "attack"] == list(range(60, 150))
        assert found["partB", "sniff"] == list(range(180, 240))
    else:
        assert found["day1", "attack"] == [*range(60, 120), *range(360, 450)]
        assert found["day1", "sniff"] == list(range(480, 540))
    assert not any((each.frames == UNLABELLED).any() for each in labels)
    with pytest.raises(BadInput, match="none is named like day1, partA, partB"):
        read_label_files(tmp_path, {"another": 300}, 30.0)


def test_a_boris_project_and_a_workbook_are_read_as_the_csv_is(tmp_path: Path) -> None:
    pytest.importorskip("openpyxl", reason="needs the extra: pip install 'ethoray[trackers]'")
    write_workbook(tmp_path / "mouse2.xlsx", BORIS.replace("m1", "mouse2"))
    project = boris_project("mouse1", subjects=("adult",))
    (tmp_path / "day.boris").write_text(json.dumps(project))
    labels, _ = read_label_files(tmp_path, {"mouse1": 12, "mouse2": 12}, 10.0)
    found = {each.video: each for each in labels}
    for each in found.values():
        assert each.task == "behaviors"
        assert frames_of(each, "sniff") == [2, 3, 4, 7, 8]
        assert np.flatnonzero((each.marks == UNLABELLED).all(1)).tolist() == [10, 11]
    assert frames_of(found["mouse1"], "jump") == [7]


def test_a_boris_project_of_several_media_and_subjects(tmp_path: Path) -> None:
    project = boris_project("a", "b", subjects=("rat", "mouse"))
    (tmp_path / "day.boris").write_text(json.dumps(project))
    labels, _ = read_label_files(tmp_path, {"a": 10, "b": 10, "c": 10}, 10.0)
    found = {(each.video, each.task): each for each in labels}
    assert frames_of(found["a", "behaviors_rat"], "sniff") == [2, 3, 4, 7, 8]
    assert frames_of(found["b", "behaviors_rat"], "jump") == []
    with pytest.raises(BadInput, match="none is named like day, a, b"):
        read_label_files(tmp_path, {"another": 10}, 10.0)


def test_of_an_observation_in_part_that_part_alone_is_labelled(tmp_path: Path) -> None:
    project = boris_project("a", "b")
    project["observations"]["day"]["observation time interval"] = [0.4, 1.5]
    (tmp_path / "day.boris").write_text(json.dumps(project))
    labels, _ = read_label_files(tmp_path, {"a": 10, "b": 10}, 10.0)
    seen = {each.video: (each.marks != UNLABELLED).any(1) for each in labels}
    # the bout that begins at 0.2 s was marked, so somebody looked
    assert np.flatnonzero(seen["a"]).tolist() == [2, 3, 4, 5, 6, 7, 8, 9]
    assert np.flatnonzero(seen["b"]).tolist() == [0, 1, 2, 3, 4]
    table = BORIS.replace("FPS,", "FPS,Observation interval start,Observation interval stop,")
    (tmp_path / "day.boris").unlink()
    found = read(tmp_path, "mouse1.csv", table.replace(",10.0,", ",10.0,0.1,0.95,"), fps=10.0)
    (labels_of_table,) = found.values()
    assert np.flatnonzero(labels_of_table.frames != UNLABELLED).tolist() == [1, *range(2, 9)]


def test_a_project_and_its_export_are_read_once_where_they_agree(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    project = boris_project("mouse1")
    (tmp_path / "day.boris").write_text(json.dumps(project))
    alone, _ = read_label_files(tmp_path, {"mouse1": 12}, 10.0)
    rows = ["Time,Total length,FPS,Subject,Behavior,Status"]
    for time, what in ((0.5, "START"), (0.8, "STOP"), (1.0, "START"), (1.2, "STOP")):
        rows.append(f"{time - 0.3:.3f},1.0,10,No focal subject,sniff,{what}")
    rows.append("0.750,1.0,10,No focal subject,jump,POINT")
    export = "\n".join(rows) + "\n"
    (tmp_path / "mouse1.csv").write_text(export)
    both, _ = read_label_files(tmp_path, {"mouse1": 12}, 10.0)
    assert "say the same of mouse1: read once" in caplog.text
    assert [(b.task, b.marks.tolist()) for b in both] == [(a.task, a.marks.tolist()) for a in alone]
    (tmp_path / "mouse1.csv").write_text(export.replace("0.500,", "0.600,"))
    with pytest.raises(BadInput, match=r"'mouse1' has labels under 'behaviors' twice, and they"):
        read_label_files(tmp_path, {"mouse1": 12}, 10.0)


def test_live_observations_of_a_boris_project_have_no_media(tmp_path: Path) -> None:
    project = boris_project("mouse1")
    live = {"file": [], "type": "LIVE", "time offset": 0, "events": [[1.0, "", "jump", "", ""]]}
    never_stops = [[1.0, "", "sniff", "", ""]]
    project["observations"] |= {"live": live, "broken": live | {"events": never_stops}}
    (tmp_path / "day.boris").write_text(json.dumps(project))
    labels, _ = read_label_files(tmp_path, {"mouse1": 12}, 10.0)
    assert [each.video for each in labels] == ["mouse1"]


def test_tables_of_bouts_with_decimals_name_recording_and_experimenter(tmp_path: Path) -> None:
    """As DLCAnalyzer writes them."""
    (tmp_path / "all.csv").write_text(
        "file;Experimenter;from;to;type;ID;DLCFile\n"
        "OFT_1_J.csv;Jin;0.15;0.55;rear;OFT_1;m1DeepCut_resnet50_eMay9shuffle1_1030000.csv\n"
        "OFT_1_O.csv;Oliver;1;1.25;groom;OFT_1;m1DeepCut_resnet50_eMay9shuffle1_1030000.csv\n"
    )
    labels, _ = read_label_files(tmp_path, {"m1": 20, "m2": 20}, 10.0)
    by = {each.annotator: each for each in labels}
    assert frames_of(by["Jin"], "rear") == [1, 2, 3, 4]
    assert frames_of(by["Oliver"], "groom") == [10, 11]


def test_mabe_submissions_name_their_videos(tmp_path: Path) -> None:
    (tmp_path / "submission.csv").write_text(
        "row_id,video_id,agent_id,target_id,action,start_frame,stop_frame\n"
        "0,44,mouse1,self,rear,2,4\n1,45,mouse1,self,rear,3,5\n"
    )
    labels, _ = read_label_files(tmp_path, {"44": 10, "45": 10}, 30.0)
    assert {each.video: frames_of(each, "rear") for each in labels} == {"44": [2, 3], "45": [3, 4]}


def test_jabs_annotations_say_what_was_seen_and_what_not(tmp_path: Path) -> None:
    annotations = jabs_annotations()
    (tmp_path / "m1.json").write_text(json.dumps(annotations))
    (tmp_path / "mouse1.json").write_text('{"settings": 3}')  # another tool's
    labels, _ = read_label_files(tmp_path, {"m1": 10, "mouse1": 10}, 30.0)
    assert [(each.task, each.classes) for each in labels] == [("Grooming", ("other", "Grooming"))]
    assert labels[0].frames.tolist() == [-1, 1, 1, 1, -1, -1, 0, 0, -1, -1]
    annotations["labels"]["1"] = {"Rearing": [{"start": 0, "end": 9, "present": True}]}
    (tmp_path / "m1.json").write_text(json.dumps(annotations))
    labels, _ = read_label_files(tmp_path, {"m1": 10}, 30.0)
    assert {each.task for each in labels} == {"Grooming_animal1", "Rearing_animal2"}
    annotations["labels"]["1"]["Rearing"][0]["end"] = 10
    (tmp_path / "m1.json").write_text(json.dumps(annotations))
    with pytest.raises(BadInput, match=r"identity 1, Rearing, block 1: frames 0 to 10 of 10"):
        read_label_files(tmp_path, {"m1": 10}, 30.0)


def test_faults_of_a_boris_project_name_observation_and_event(tmp_path: Path) -> None:
    project = boris_project("mouse1")
    del project["observations"]["day"]["events"][-1]
    (tmp_path / "day.boris").write_text(json.dumps(project))
    with pytest.raises(BadInput, match=r"observation 'day', event 3: sniff starts at 1.0 s"):
        read_label_files(tmp_path, {"mouse1": 10}, 10.0)


def test_a_missing_package_gives_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openpyxl", reason="to write one")
    write_workbook(tmp_path / "mouse1.xlsx", BORIS)
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(BadInput, match=r"mouse1.xlsx is an Excel workbook; .*ethoray\[trackers\]"):
        read_label_files(tmp_path, {"mouse1": LENGTH}, 30.0)
