from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reader_files import (
    BENTO,
    BORIS,
    BORIS_AGGREGATED,
    CALTECH,
    INTERVALS,
    LABELS,
    ONE_HOT,
    each_label_format,
    example,
    world,
    write_deeplabcut,
)

from pretrain.data.schema import Schema, Video
from pretrain.data.store import Store
from pretrain.data.store_writer import StoreWriter
from pretrain.errors import BadInput
from pretrain.readers.add_labels import conformed
from pretrain.readers.annotations import Labels, write_labels
from pretrain.readers.detect import label_format, label_formats, suffixes, track_format
from pretrain.readers.find_labels import read_label_files, read_sheets
from pretrain.readers.recording_names import recording_stem
from pretrain.readers.score_sheets import frame_at
from pretrain.readers.split import assign_missing_splits, assign_split, resample_labels
from pretrain.readers.tracks import resampled_times

_ = -1


def put(folder: Path, **files: str | bytes) -> Path:
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_bytes(
            text if isinstance(text, bytes) else text.encode()
        )
    return folder


def read(folder: Path, frames: dict[str, int], fps: float = 10.0) -> dict[tuple[str, str], Labels]:
    return {(each.video, each.task): each for each in read_label_files(folder, frames, fps)[0]}


def test_caltech_streams_are_tasks(tmp_path: Path) -> None:
    put(tmp_path, m1_annot__txt=CALTECH)
    found = read(tmp_path, {"m1": 10})
    assert found["m1", "S1"].classes == ("base", "attack", "social")
    assert found["m1", "S1"].frames.tolist() == [0] * 3 + [2] * 5 + [1] * 2
    assert found["m1", "S2"].classes == ("base", "bite")
    assert found["m1", "S2"].frames.tolist() == [0] * 9 + [1]


def test_caltech_gaps_and_ends_are_unlabelled_and_reported(tmp_path: Path) -> None:
    put(
        tmp_path,
        m1__txt=CALTECH.replace("\t1\t3\tbase", "\t2\t3\tbase").replace(
            "\t4\t8\tsocial", "\t5\t8\tsocial"
        ),
    )
    labels, mismatches = read_label_files(tmp_path, {"m1": 12}, 30.0)
    assert labels[0].frames.tolist() == [_, 0, 0, _, 2, 2, 2, 2, 1, 1, _, _]
    assert str(mismatches[0]) == (
        "video m1 (12 frames): labels under S1 (m1.txt) begin 1 frames after it; those are "
        "unlabelled; "
        "they end 2 frames before it; those are unlabelled"
    )
    labels, mismatches = read_label_files(tmp_path, {"m1": 9}, 30.0)
    assert labels[0].frames.tolist() == [_, 0, 0, _, 2, 2, 2, 2, 1]
    assert (mismatches[0].stop, mismatches[0].frames) == (10, 9)
    assert "end 1 frames after it; those are dropped" in str(mismatches[0])


def test_classes_are_those_of_the_whole_set(tmp_path: Path) -> None:
    put(
        tmp_path, a_annot__txt=CALTECH, b_annot__txt=CALTECH.replace("9\t10\tattack", "9\t10\tbite")
    )
    found = read(tmp_path, {"a": 10, "b": 10})
    assert (
        found["a", "S1"].classes == found["b", "S1"].classes == ("base", "attack", "social", "bite")
    )
    assert found["b", "S1"].frames[-1] == 3


def test_bento_frames_and_seconds(tmp_path: Path) -> None:
    put(tmp_path, m1__annot=BENTO)
    found = read(tmp_path, {"m1": 11})["m1", "Ch1"]
    assert found.classes == ("other", "attack", "sniff face")
    assert found.frames.tolist() == [_, 0, 1, 1, 2, 0, 0, 1, 1, _, _]
    timed = BENTO.replace("3\t4\t1\n8\t9\t1", "0.1\t0.1333\t0.0333\n0.2667\t0.3\t0.0333").replace(
        "5\t5\t0", "0.1667\t0.1667\t0"
    )
    put(
        tmp_path,
        m1__annot=timed.replace("start frame: 2", "start time: 6.6e-02").replace(
            "stop frame: 9", "stop time: 0.3"
        ),
    )
    assert read(tmp_path, {"m1": 11})["m1", "Ch1"].frames.tolist() == found.frames.tolist()


def test_bento_behaviours_that_overlap_stay_so(tmp_path: Path) -> None:
    put(tmp_path, m1__annot=BENTO.replace("5\t5\t0", "4\t5\t0"))
    found = read(tmp_path, {"m1": 10})["m1", "Ch1"]
    assert found.classes == ("attack", "sniff face")
    assert found.frames.tolist() == [
        [_, _],
        [0, 0],
        [1, 0],
        [1, 1],
        [0, 1],
        [0, 0],
        [0, 0],
        [1, 0],
        [1, 0],
        [_, _],
    ]


def test_boris_events(tmp_path: Path) -> None:
    put(tmp_path, m1_boris__csv=BORIS)
    labels, mismatches = read_label_files(tmp_path, {"m1": 10}, 10.0)
    (found,) = labels
    assert (found.task, found.classes) == ("sniff", ("other", "sniff"))
    assert found.frames.tolist() == [0, 0, 1, 1, 1, 0, 0, 1, 1, 0]
    assert not mismatches
    # The medium was watched for a second; what the track has beyond is unlabelled.
    longer, mismatches = read_label_files(tmp_path, {"m1": 12}, 10.0)
    assert longer[0].frames.tolist() == [*found.frames.tolist(), _, _]
    assert len(mismatches) == 1
    twice = read(tmp_path, {"m1": 20}, 20.0)["m1", "sniff"]
    assert twice.frames.tolist() == np.repeat(found.frames, 2).tolist()


def test_boris_time_offset_and_unknown_length(tmp_path: Path) -> None:
    shifted = BORIS.replace("Time offset (s),0.0", "Time offset (s),0.1").replace(
        ",1.0,10.0,", ",,10.0,"
    )
    put(tmp_path, m1_boris__csv=shifted)
    labels, mismatches = read_label_files(tmp_path, {"m1": 12}, 10.0)
    assert labels[0].frames.tolist() == [0, 1, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0]
    assert not mismatches


def test_boris_aggregated_overlap_and_points(tmp_path: Path) -> None:
    for delimiter in (",", "\t"):
        put(tmp_path, m1_events__csv=BORIS_AGGREGATED.replace(",", delimiter))
        found = read(tmp_path, {"m1": 9})["m1", "behaviors"]
        assert found.classes == ("sniff", "groom", "jump")
        assert found.frames.T.tolist() == [
            [0, 0, 1, 1, 1, 0, 0, 0, _],
            [0, 0, 0, 0, 1, 1, 0, 0, _],
            [0, 0, 0, 0, 0, 0, 0, 1, _],
        ]


def test_boris_observations_of_several_recordings_in_one_file(tmp_path: Path) -> None:
    rows = BORIS_AGGREGATED.splitlines()
    put(
        tmp_path,
        all__csv="\n".join([*rows[:2], *(row.replace("m1", "m2") for row in rows[2:3])]) + "\n",
    )
    found = read(tmp_path, {"m1": 8, "m2": 8})
    assert found["m1", "behaviors"].frames.tolist() == [0, 0, 1, 1, 1, 0, 0, 0]
    assert found["m2", "behaviors"].frames.tolist() == [0, 0, 0, 0, 2, 2, 0, 0]


def test_boris_subjects_get_a_task_each(tmp_path: Path) -> None:
    lines = BORIS.splitlines(keepends=True)
    put(
        tmp_path,
        m1__csv="".join([*lines[:-2], *(line.replace("adult", "pup") for line in lines[-2:])]),
    )
    found = read(tmp_path, {"m1": 10})
    assert found["m1", "sniff_adult"].frames.tolist() == [0, 0, 1, 1, 1, 0, 0, 0, 0, 0]
    assert found["m1", "sniff_pup"].frames.tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 1, 0]


def test_one_hot(tmp_path: Path) -> None:
    put(tmp_path, m1__csv=ONE_HOT)
    found = read(tmp_path, {"m1": 5})["m1", "behaviors"]
    assert found.classes == ("attack", "sniff")
    assert found.frames.tolist() == [[0, 0], [1, 0], [1, 1], [_, _], [0, 1]]
    put(tmp_path, m1__csv=ONE_HOT.replace("2,1,1", "2,0,1"))
    found = read(tmp_path, {"m1": 5})["m1", "behaviors"]
    assert found.classes == ("other", "attack", "sniff")
    assert found.frames.tolist() == [0, 1, 2, _, 2]


def test_one_hot_rows_are_never_lost(tmp_path: Path) -> None:
    put(tmp_path, m1__csv="attack,sniff\n0,0\n,\n1,0\n")
    assert read(tmp_path, {"m1": 3})["m1", "behaviors"].frames.tolist() == [0, _, 1]
    put(tmp_path, m1__csv="attack,sniff\n0,0\n\n1,0\n0,1\n")
    with pytest.raises(BadInput, match="line 4: the line before it is blank"):
        read(tmp_path, {"m1": 3})


def test_one_hot_beside_poses_as_simba_writes_it(tmp_path: Path) -> None:
    rows = [
        "",
        "Nose_x,Nose_y,Nose_p,speed,Attack",
        *(f"{t}.5,{t}.25,0.9,{t * 0.1},{int(t > 2)}" for t in range(5)),
    ][1:]
    put(tmp_path, m1__csv="\n".join(rows) + "\n")
    assert read(tmp_path, {"m1": 5})["m1", "Attack"].frames.tolist() == [0, 0, 0, 1, 1]


def test_intervals(tmp_path: Path) -> None:
    put(tmp_path, all__csv=INTERVALS)
    found = read(tmp_path, {"m1": 6, "m2": 4})
    assert found["m1", "behaviors"].classes == ("other", "attack", "sniff")
    assert found["m1", "behaviors"].frames.tolist() == [1, 1, 0, 0, 2, 0]
    assert found["m2", "behaviors"].frames.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("heading", "rows"),
    [
        ("file,start_s,stop_s,behavior", "v/m1.mp4,0.0,0.2,attack\nv/m1.mp4,0.4,0.5,sniff\n"),
        ("Start (s),Stop (s),Behaviour", "0,0.2,attack\n0.4,0.5,sniff\n"),
        ("label,onset_time,offset_time", "attack,0,0.2\nsniff,0.4,0.5\n"),
        ("start_frame;end_frame;label", "0;1;attack\n4;4;sniff\n"),
        ("start,stop,frames,category", "0,2,2,attack\n4,5,1,sniff\n"),
        ("start,stop,duration,category", "0,1,2,attack\n2,3,2,none\n4,4,1,sniff\n5,5,1,none\n"),
    ],
)
def test_interval_units_are_told_by_column_names(heading: str, rows: str, tmp_path: Path) -> None:
    put(tmp_path, m1__csv=f"{heading}\n{rows}")
    assert read(tmp_path, {"m1": 6})["m1", "behaviors"].frames.tolist() == [1, 1, 0, 0, 2, 0]


def test_annotators_are_kept_apart(tmp_path: Path) -> None:
    put(
        tmp_path,
        all__csv="video,annotator,start,stop,label\nm1,ann,0,1,attack\nm1,bob,1,2,attack\n",
    )
    labels, _mismatches = read_label_files(tmp_path, {"m1": 3}, 30.0)
    assert {(each.annotator, tuple(each.frames.tolist())) for each in labels} == {
        ("ann", (1, 1, 0)),
        ("bob", (0, 1, 1)),
    }


def test_npz(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "m1.npz",
        labels=[0, 1, -1, 1],
        classes=["rest", "run"],
        task="running",
        annotator="ann",
    )
    found = read(tmp_path, {"m1": 5})["m1", "running"]
    assert (found.classes, found.annotator, found.frames.tolist()) == (
        ("rest", "run"),
        "ann",
        [0, 1, _, 1, _],
    )
    np.savez(tmp_path / "m1.npz", labels=[[0, 1], [1, 1], [-1, -1]], classes=["a", "b"])
    assert read(tmp_path, {"m1": 3})["m1", "behaviors"].frames.tolist() == [[0, 1], [1, 1], [_, _]]


@each_label_format
def test_formats_are_recognised_by_content(form: str, file: str, tmp_path: Path) -> None:
    path = tmp_path / file
    path.write_bytes(example(LABELS, form, file))
    recognised = label_format(path)
    assert type(recognised).__module__ == f"pretrain.readers.label_formats.{form}"
    assert path.suffix in recognised.suffixes
    assert set(recognised.unmistakable) <= set(recognised.suffixes)
    assert track_format(path) is None
    assert recording_stem(path) == "m1"
    labels, _ = read_label_files(tmp_path, {"m1": 12, "m2": 12}, 10.0)
    assert {"m1"} <= {each.video for each in labels} <= {"m1", "m2"}
    assert all(len(each.frames) == 12 and each.classes for each in labels)
    other = path.rename(tmp_path / "no_extension")
    assert type(label_format(other)) is type(recognised)


def test_formats_describe_themselves(tmp_path: Path) -> None:
    for form in label_formats():
        assert re.fullmatch(r"\S.{3,60}", form.description)
        assert form.suffixes
        assert all(re.fullmatch(r"\.[a-z0-9]+", suffix) for suffix in form.suffixes)
    assert suffixes(label_formats()) >= {".annot", ".csv", ".npz", ".tsv", ".txt"}
    assert label_format(write_deeplabcut(tmp_path / "tracks", world())) is None


def test_a_long_table_is_recognised_in_every_encoding(tmp_path: Path) -> None:
    """What is looked at ends in the middle of a line, or of a letter."""
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        text = "video,start,stop,behaviour\n" + "ü,0,1,ä\n" * 60_000
        (tmp_path / "m1.csv").write_bytes(text.encode(encoding))
        assert "Intervals" in str(type(label_format(tmp_path / "m1.csv")))


BROKEN = {
    "caltech overlap": (
        CALTECH.replace("4\t8\tsocial", "3\t8\tsocial"),
        r"line 12: starts at frame 3, but the interval before ends at 3",
    ),
    "caltech backwards": (
        CALTECH.replace("9\t10", "9\t8"),
        r"line 13: ends at frame 8, before it starts at 9",
    ),
    "caltech from zero": (CALTECH.replace("1\t3", "0\t3"), r"line 11: frame 0 lies outside 1"),
    "caltech no number": (
        CALTECH.replace("9\t10", "9\tnan"),
        r"line 13: 'nan' is not a frame number",
    ),
    "caltech cut": (CALTECH[:-8], r"line 18: '10.*1'; wanted start, end, type"),
    "caltech unknown behaviour": (
        CALTECH.replace("10\tattack", "10\tatack"),
        r"line 13: 'atack' is not among the configured",
    ),
    "caltech no stream": (CALTECH[:100], r"no stream|wanted start"),
    "bento no rate": (BENTO.replace("framerate", "rate"), r"no line 'Annotation framerate"),
    "bento backwards": (
        BENTO.replace("8\t9\t1", "9\t8\t1"),
        r"line 20: stops at 8, before it starts at 9",
    ),
    "bento before the start": (
        BENTO.replace("3\t4\t1", "1\t4\t1"),
        r"line 19: starts at frame 1, before the annotation starts at 2",
    ),
    "bento a word": (
        BENTO.replace("8\t9\t1", "8\tnine\t1"),
        r"line 20: 'nine' is not a (frame number|time)",
    ),
    "boris unpaired": (
        BORIS.replace("sniff,,,STOP\r\n0.7", "sniff,,,START\r\n0.7"),
        r"line 10: sniff starts again at 0.5 s; .* line 9",
    ),
    "boris never stops": (
        "\r\n".join(BORIS.split("\r\n")[:-2]) + "\r\n",
        r"line 11: sniff starts at 0.7 s and never stops",
    ),
    "boris ragged": (
        BORIS.replace("0.5,/home", "0.5,9,/home"),
        r"line 10: 10 cells under 9 headings",
    ),
    "boris status": (BORIS.replace("STOP", "HALT"), r"line 10: status 'HALT'"),
    "boris time": (BORIS.replace("0.9,", "0:09,"), r"line 12: '0:09' is not a time in seconds"),
    "aggregated backwards": (
        BORIS_AGGREGATED.replace("0.4,0.6", "0.6,0.4"),
        r"line 3: groom stops at 0.4 s, before it starts at 0.6",
    ),
    "intervals backwards": (
        INTERVALS.replace("4,4", "4,2"),
        r"line 3: stops at 2, before it starts at 4",
    ),
    "intervals in halves": (
        INTERVALS.replace("4,4", "4.5,4.9"),
        r"line 3, start: '4.5' is not a frame number",
    ),
    "intervals ragged": (INTERVALS.replace("4,4", "4,4,4"), r"line 3: 5 cells under 4 headings"),
    "intervals duration": (
        "start,stop,duration,label\n0,4,5,a\n6,8,1,a\n",
        r"line 3: duration 1 of start 6 and stop 8",
    ),
    "one-hot two": (
        ONE_HOT.replace("2,1,1", "2,2,1"),
        r"line 4, column 2 \(attack\): '2' is neither 0 nor 1",
    ),
    "one-hot gap": (ONE_HOT.replace("2,1,1\n", ""), r"line 4, column 1: frame 3, wanted 2"),
    "one-hot partly": (ONE_HOT.replace("2,1,1", "2,1,"), r"line 4: some cells are empty"),
    "latin-1": (
        BORIS.replace("sniff", "Öffnen").encode("latin-1"),
        r"line 9: byte 0xd6 is not UTF-8",
    ),
    "zero byte": (INTERVALS.replace("sniff", "sn\0ff"), r"line 3: a zero byte"),
    "repeated column": (
        INTERVALS.replace("behaviour", "start"),
        r"column 'start' comes twice|no format known",
    ),
    "empty": ("", r"no format known|is empty"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_labels_are_refused_with_their_place(what: str, tmp_path: Path) -> None:
    text, message = BROKEN[what]
    put(tmp_path, m1__csv=text)
    with pytest.raises(BadInput, match=message) as caught:
        read_label_files(tmp_path, {"m1": 10, "m2": 10}, 10.0)
    assert "m1.csv" in str(caught.value)


def test_whose_labels(tmp_path: Path) -> None:
    put(tmp_path, m3_annot__txt=CALTECH)
    with pytest.raises(
        BadInput, match=r"m3_annot\.txt belongs to no known recording; recordings: m1, m2"
    ):
        read_label_files(tmp_path, {"m1": 10, "m2": 10}, 30.0)
    with pytest.raises(
        BadInput, match=r"m3_annot\.txt could belong to several recordings: a/m3, b/m3"
    ):
        read_label_files(tmp_path, {"a/m3": 10, "b/m3": 10}, 30.0)
    put(tmp_path, m3__txt=CALTECH.replace("\t9\t10\tattack", "\t9\t9\tattack"))
    with pytest.raises(
        BadInput,
        match=(
            r"video 'm3' has labels under 'S1' twice, and they differ: .*m3\.txt and "
            r".*m3_annot\.txt|m3_annot\.txt and .*m3\.txt"
        ),
    ):
        read_label_files(tmp_path, {"m3": 10}, 30.0)


def test_an_ending_of_the_whole_set_is_no_part_of_the_name(tmp_path: Path) -> None:
    put(tmp_path, m1_by_ann__txt=CALTECH, m2_by_ann__txt=CALTECH)
    assert {video for video, _task in read(tmp_path, {"m1": 10, "m2": 10})} == {"m1", "m2"}
    (tmp_path / "m2_by_ann.txt").unlink()
    with pytest.raises(
        BadInput,
        match=(
            r"m1_by_ann\.txt belongs to no known recording; recordings: m1, m2\. If it is m1, "
            r"name it so"
        ),
    ):
        read_label_files(tmp_path, {"m1": 10, "m2": 10}, 30.0)


def test_an_observation_in_which_nothing_happened(tmp_path: Path) -> None:
    rows = BORIS.splitlines(keepends=True)
    put(tmp_path, m1_boris__csv=BORIS, m2_boris__csv="".join(rows[:-4]))
    assert read(tmp_path, {"m1": 10, "m2": 10})["m2", "sniff"].frames.tolist() == [0] * 10
    (tmp_path / "m1_boris.csv").unlink()
    assert read(tmp_path, {"m1": 10, "m2": 10}) == {}


def test_other_files_in_the_folder(tmp_path: Path) -> None:
    put(
        tmp_path,
        m1_annot__txt=CALTECH,
        README__txt="see the paper",
        notes__csv="a,b\nx,y\n",
        m1__mp4="",
    )
    write_deeplabcut(tmp_path / "m1_DLC.csv", world(frames=10))
    assert len(read_label_files(tmp_path, {"m1": 10}, 30.0)[0]) == 2
    put(tmp_path, m2_annot__txt="")
    with pytest.raises(BadInput, match=r"m2_annot\.txt is named like labels of a recording"):
        read_label_files(tmp_path, {"m1": 10, "m2": 10}, 30.0)
    with pytest.raises(BadInput, match="no folder or file"):
        read_label_files(tmp_path / "nowhere", {"m1": 10}, 30.0)
    (tmp_path / "none").mkdir()
    put(tmp_path / "none", a__mp4="")
    with pytest.raises(
        BadInput, match=r"found 0 label files .*BORIS.*found 1 other files \(\.mp4\)"
    ):
        read_label_files(tmp_path / "none", {"m1": 10}, 30.0)


@pytest.mark.parametrize("fps", [10.0, 20.0, 7.0, 30.0])
def test_labels_are_resampled_to_the_nearest_frame(fps: float) -> None:
    each = Labels(
        video="v",
        task="t",
        classes=("a", "b"),
        frames=np.array([0, 0, 1, 1, 1, -1, -1, 0, 0, 1], np.int8),
    )
    made = resample_labels(each, old_fps=10.0, fps=fps)
    times = resampled_times(10, old_fps=10.0, fps=fps)
    assert len(made.frames) == len(times)
    for at, label in zip(times, made.frames, strict=True):
        near = {each.frames[int(f)] for f in (np.floor(at + 0.5), np.ceil(at - 0.5)) if f < 10}
        assert label in near


def test_a_frame_belongs_to_a_bout_that_holds_its_middle() -> None:
    assert [frame_at(t, 10.0) for t in (0.0, 0.049, 0.051, 0.1, 0.149, 0.151)] == [0, 0, 1, 1, 1, 2]


def labelled(video: str, *behaviours: str, task: str = "t") -> Labels:
    classes = ("a", "b", "c", "d")
    return Labels(
        video=video,
        task=task,
        classes=classes,
        frames=np.array([classes.index(b) for b in behaviours] + [_], np.int8),
    )


@pytest.mark.parametrize("seed", range(8))
def test_split_puts_each_class_on_both_sides_where_it_can(seed: int) -> None:
    labels = [labelled(f"v{i}", "a") for i in range(8)]
    labels += [
        labelled("rare1", "b"),
        labelled("rare2", "b", "c"),
        labelled("rare3", "c"),
        labelled("only", "d"),
    ]
    labels += [labelled("rare1", "a", task="u")]
    made = assign_split(labels, test_share=0.25, seed=seed)
    sides = {
        side: {each.video for each in made if each.split == side} for side in ("train", "test")
    }
    assert not sides["train"] & sides["test"]
    assert len(sides["test"]) == 3
    for name in "abc":
        for side in sides:
            assert any(
                each.split == side and each.classes.index(name) in each.frames for each in made
            ), (name, side)
    again = {
        each.video: each.split for each in assign_split(labels[::-1], test_share=0.25, seed=seed)
    }
    assert again == {each.video: each.split for each in made}


def test_split_of_few_recordings() -> None:
    assert [
        each.split for each in assign_split([labelled("v", "a"), labelled("v", "b", task="u")])
    ] == ["train", "train"]
    assert sorted(
        each.split for each in assign_split([labelled("v", "a"), labelled("w", "b")])
    ) == ["test", "train"]
    assert assign_split([]) == []
    with pytest.raises(BadInput, match=r"at least 0 .all train. and below 1"):
        assign_split([labelled("v", "a")], test_share=1.5)


def test_a_stated_split_is_kept_and_the_rest_is_dealt() -> None:
    stated = (("u", "test"), ("v", ""), ("w", ""), ("x", "train"), ("v", ""), ("u", ""))
    labels = [
        replace(labelled(name, "a", "b", task=f"task {number}"), split=split)
        for number, (name, split) in enumerate(stated)
    ]
    made = assign_missing_splits(labels, seed=3)
    assert [each.video for each in made] == [each.video for each in labels]
    split = {each.video: each.split for each in made}
    assert (split["u"], split["x"], made[-1].split) == ("test", "train", "test")
    assert {split["v"], split["w"]} == {"train", "test"}
    assert made[1].split == made[4].split


@pytest.mark.parametrize(
    ("there", "there_frames", "here", "here_frames", "made"),
    [
        (
            ("other", "run", "sit"),
            [0, 1, 2],
            ("sit", "other"),
            [0, 1, _],
            [2, 0, _],
        ),  # exclusive in another order
        (
            ("run", "sit"),
            [[0, 1], [1, 1], [0, 0]],
            ("other", "sit"),
            [0, 1, _],
            [[0, 0], [0, 1], [_, _]],
        ),  # exclusive to overlapping
        (
            ("run", "sit"),
            [[0, 1], [1, 1], [0, 0]],
            ("sit",),
            [[1], [0], [_]],
            [[0, 1], [0, 0], [_, _]],
        ),  # one column to two
        (("other", "run"), [0, 1, 1], ("other", "fly"), [0, 1, 0], None),
        (("other", "run"), [0, 1, 1], ("run", "sit"), [[1, 1], [0, 1], [0, 0]], None),
        (("run", "sit"), [[0, 1], [1, 1], [0, 0]], ("fly", "sit"), [[1, 1], [0, 1], [0, 0]], None),
    ],
)
def test_added_labels_take_the_form_of_those_in_the_store(
    tmp_path: Path,
    there: tuple[str, ...],
    there_frames: list[Any],
    here: tuple[str, ...],
    here_frames: list[Any],
    made: list[Any] | None,
) -> None:
    schema = Schema.from_names(animals=["a"], keypoints=["nose"], fps=10.0, image_px=(640, 480))
    with StoreWriter(tmp_path / "store", schema, origin="test") as writer:
        writer.add(
            Video(
                name="old",
                position_TMKX=np.ones((3, 1, 1, 2), np.float32),
                confidence_TMK=np.ones((3, 1, 1), np.float32),
            )
        )
        write_labels(
            writer,
            [Labels(video="old", task="t", classes=there, frames=np.array(there_frames, np.int8))],
        )
    new = Labels(video="new", task="t", classes=here, frames=np.array(here_frames, np.int8))
    if made is None:
        with pytest.raises(
            BadInput,
            match=f"the classes are {', '.join(here)}.*in the store they are {', '.join(there)}",
        ):
            conformed([new], Store(tmp_path / "store"))
        return
    (each,) = conformed([new], Store(tmp_path / "store"))
    assert (each.classes, each.frames.tolist()) == (there, made)
    other = Labels(video="new", task="another", classes=("x", "y"), frames=np.zeros(3, np.int8))
    assert conformed([other], Store(tmp_path / "store")) == [other]


def test_labels_go_into_a_store(tmp_path: Path) -> None:
    w = world(frames=10)
    schema = Schema.from_names(
        animals=["a", "b"], keypoints=["nose", "ear", "tail"], fps=10.0, image_px=(640, 480)
    )
    put(tmp_path, m1_annot__txt=CALTECH, m1__annot=BENTO.replace("5\t5\t0", "4\t5\t0"))
    labels, _mismatches = read_label_files(tmp_path, {"m1": 10}, 10.0)
    with StoreWriter(tmp_path / "store", schema, origin="test") as writer:
        writer.add(
            Video(
                name="m1",
                position_TMKX=w.position.astype(np.float32),
                confidence_TMK=w.confidence.astype(np.float32),
            )
        )
        write_labels(writer, assign_missing_splits(labels))
    assert len(list((tmp_path / "store" / "labels").iterdir())) == 3


# Real recordings.


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") - 4


def test_real_rats_annotations(tmp_path: Path, real_data: Path) -> None:
    zipped = real_data / "rats" / "rats_dlc.zip"
    import zipfile

    with zipfile.ZipFile(zipped) as packed:
        frames = {
            name.split("/")[1].split("DLC")[0]: packed.read(name).count(b"\n") - 4
            for name in packed.namelist()
            if "dlc_csv/" in name
        }
        packed.extractall(
            tmp_path, [name for name in packed.namelist() if name.startswith("annotations/")]
        )
    labels, mismatches = read_label_files(tmp_path, frames, 30.0)
    counts: Counter[tuple[str, str]] = Counter()
    for each in labels:
        assert len(each.frames) == frames[each.video]
        for index, count in zip(*np.unique(each.frames, return_counts=True), strict=True):
            counts[each.task, each.classes[index] if index >= 0 else ""] += int(count)
    assert Counter(each.task for each in labels) == {"S1": 42, "S2": 35}
    # Labels of six videos run on after their tracks; they are dropped there, and all of them are
    # "base" (96,305 before).
    assert counts["S1", "social"], counts["S1", "nonsocial"] == (236_635, 218_522)
    assert (counts["S1", "aggression"], counts["S1", "base"], counts["S1", ""]) == (
        49_846,
        96_195,
        0,
    )
    rare = {
        "lateralthreat": 17_281,
        "keepdown": 14_653,
        "clinch": 13_055,
        "uprightposture": 2_903,
        "freezing": 1_023,
        "bite": 497,
        "chase": 428,
    }
    assert {name: counts["S2", name] for name in rare} == rare
    too_long = {"8": 7, "13": 9, "14": 59, "31": 17, "38": 15, "39": 3}
    assert {m.video: m.stop - m.frames for m in mismatches} == too_long
    assert len(mismatches) == 12
    made = assign_split(labels)
    for task in ("S1", "S2"):
        each = [one for one in made if one.task == task]
        for side in ("train", "test"):
            seen = {
                one.classes[c]
                for one in each
                if one.split == side
                for c in np.unique(one.frames)
                if c >= 0
            }
            assert seen == set(each[0].classes), (task, side)


def test_real_mice_and_calms21_timelines(real_data: Path) -> None:
    (each,), mismatches = read_label_files(
        real_data / "mice", {"e3v813a-20210610T122332-122642": 5_700}, 30.0
    )
    assert (each.task, each.classes) == ("interact", ("other", "interact"))
    assert (each.frames == 1).sum() == 663
    assert not mismatches
    wanted = {
        "train": (318_469, 146_615, 28_615, 14_039),
        "test": (156_354, 61_275, 31_848, 12_630),
    }
    for part, counts in wanted.items():
        path = real_data / "calms21_labels" / f"mice_{part}_annotations.csv"
        frames = {
            sheet.recording[0]: int(max(bout.stop for bout in sheet.bouts))
            for sheet in read_sheets(path)
        }
        labels, mismatches = read_label_files(path, frames, 30.0)
        assert {(one.task, one.classes) for one in labels} == {
            ("behaviors", ("other", "investigation", "mount", "attack"))
        }
        assert tuple(np.bincount(np.concatenate([one.frames for one in labels]))) == counts
        assert not mismatches
