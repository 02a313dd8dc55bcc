"""Frames that nobody scored: recognised, made unlabelled when a store is made and in one that is
there, and no part of a problem any more."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_prepare import lines, recording
from worlds import marked_store

from finetune.labels.problems import problems
from pretrain import prepare
from pretrain.data.store import Store
from pretrain.data.store_writer import StoreWriter
from pretrain.errors import BadInput
from pretrain.quality.check import describe, report
from pretrain.quality.unscored import (
    UnscoredMargins,
    make_unscored,
    parse_classes,
    without_unscored,
)
from pretrain.readers.annotations import UNLABELLED, Labels, labels_by_video, write_labels

CLASSES = ("social", "base", "alone")


def session(
    before: int, after: int, *, video: str = "v", task: str = "S1", inside: str = "", bouts: int = 6
) -> Labels:
    """``base``, bouts of 10 frames of the others in turn, ``base``."""
    scored = np.tile(np.repeat([0, 2], 10), bouts)[: 10 * bouts]
    if inside:
        scored[25:35] = CLASSES.index(inside)
    frames = np.concatenate([np.ones(before), scored, np.ones(after)]).astype(np.int8)
    return Labels(video=video, task=task, classes=CLASSES, frames=frames)


def summary(*each: Labels) -> dict[str, dict[str, int | None]]:
    margins = UnscoredMargins()
    for labels in each:
        margins.add(labels)
    return margins.summary()


def test_a_class_around_one_stretch_of_fixed_length_is_recognised() -> None:
    assert summary(session(5, 40), session(30, 0), session(7, 7)) == {
        "base": {
            "videos": 3,
            "at_ends": 3,
            "frames": 89,
            "stretch_frames": 60,
            "stretch_videos": 3,
        }
    }
    unlike = summary(session(5, 40), session(30, 0, bouts=7), session(7, 7, bouts=8))
    assert unlike["base"]["stretch_frames"] is None
    many = [session(5, 5) for _ in range(9)]
    assert summary(*many, session(5, 5, inside="base"))["base"]["at_ends"] == 9, "one exception"


def test_what_may_well_be_behaviour_is_not_called_unscored() -> None:
    assert summary(session(5, 5), session(5, 5, inside="base")) == {}
    one_bout = session(20, 20, bouts=1)
    assert summary(one_bout, one_bout) == {}, "a bout of a rare act, with nothing around it"
    marks = Labels(video="v", task="t", classes=("a", "b"), frames=np.zeros((9, 2), np.int8))
    assert summary(marks) == {}


def test_a_class_that_is_all_unscored_goes_and_the_others_move_up() -> None:
    changed, notes = without_unscored(
        [session(5, 3), session(0, 4, inside="base"), session(1, 1, task="S2")], [("S1", "base")]
    )
    assert [each.classes for each in changed] == [("social", "alone")] * 2 + [CLASSES]
    first = changed[0].frames
    assert (first[:5] == UNLABELLED).all()
    assert (first[-3:] == UNLABELLED).all()
    assert first[5:-3].tolist() == ([0] * 10 + [1] * 10) * 3
    assert (changed[1].frames[25:35] == UNLABELLED).all()
    assert notes == [
        "S1: 22 frames of 'base' in 2 videos are now unlabelled, and it is a class no more"
    ]


def test_by_the_rule_for_margins_a_class_stays_where_it_lies_between_others() -> None:
    labels = [session(5, 3), session(2, 4, inside="base")]
    changed, notes = without_unscored(labels, [("S1", "base")], margins_only=True)
    assert {each.classes for each in changed} == {CLASSES}
    assert (changed[1].frames == UNLABELLED).sum() == 6
    assert (changed[1].frames[27:37] == 1).all()
    assert "10 between other classes stay" in notes[0]


def test_overlapping_behaviours() -> None:
    frames = np.zeros((8, 3), np.int8)
    frames[:2, 1] = frames[6:, 1] = 1
    frames[2:6, 0] = 1
    labels = Labels(video="v", task="t", classes=("sniff", "none", "rear"), frames=frames)
    (changed,), _ = without_unscored([labels], [("t", "none")])
    assert changed.classes == ("sniff", "rear")
    assert changed.frames[:, 0].tolist() == [-1, -1, 1, 1, 1, 1, -1, -1]
    assert changed.frames[:, 1].tolist() == [-1, -1, 0, 0, 0, 0, -1, -1]


def test_classes_are_named_with_their_label_set_where_that_is_needed() -> None:
    both = [session(1, 1), session(1, 1, task="S2")]
    assert parse_classes(["S2:base"], both) == [("S2", "base")]
    assert parse_classes(["base"], both[:1]) == [("S1", "base")]
    with pytest.raises(BadInput, match="say which: S1:base, S2:base"):
        parse_classes(["base"], both)
    with pytest.raises(BadInput, match="no class 'rest'; there are S1: social, base, alone"):
        parse_classes(["rest"], both[:1])
    alone = Labels(video="v", task="t", classes=("base",), frames=np.zeros(4, np.int8))
    with pytest.raises(BadInput, match="the only class of t"):
        without_unscored([alone], [("t", "base")])


def test_labels_of_a_store_that_is_there_are_replaced(tmp_path: Path) -> None:
    lengths = (80, 90, 70)
    store = marked_store(tmp_path / "store", lengths)
    names = [video["name"] for video in store.videos]
    with StoreWriter(store.uri, store.schema, origin=store.origin, append=True) as writer:
        for task in ("S1", "S2"):
            write_labels(
                writer,
                [
                    session(5, frames - 65, video=name, task=task)
                    for name, frames in zip(names, lengths, strict=True)
                ],
            )
    before, poses = labels_by_video(Store(store.uri)), store.fingerprint
    with pytest.raises(BadInput, match="no class"):
        make_unscored(store.uri, ["S1:rest"])
    prepare.main(["unscored", store.uri, "S1:base"])
    prepare.main(["unscored", store.uri, "S2:base", "--margins"])
    after = Store(store.uri)
    assert after.fingerprint == poses
    assert not after.verify()
    assert len(after.labels) == len(list((tmp_path / "store/labels").iterdir())) == 2
    (asked,) = problems(after, "S1")
    assert asked.classes == ("social", "alone")
    assert asked.rest is None
    for name, each in labels_by_video(after).items():
        scored = before[name][0].frames != 1
        assert (len(each), (each[0].frames != UNLABELLED).sum()) == (2, scored.sum())


def test_check_names_the_class_and_the_way_out(tmp_path: Path) -> None:
    store = marked_store(tmp_path / "store", (80, 90))
    with StoreWriter(store.uri, store.schema, origin=store.origin, append=True) as writer:
        write_labels(
            writer,
            [session(5, video["frames"] - 65, video=video["name"]) for video in store.videos],
        )
    facts = describe(Store(store.uri))
    text = report(json.loads(json.dumps(facts)))
    assert "probably unscored: 'base' lies only before and after one stretch in 2 of 2" in text
    assert "the stretch has 60 frames (2 s) in 2 of 2 videos" in text
    assert f"ethoray prepare unscored {store.uri} S1:base" in text
    make_unscored(store.uri, ["base"])
    assert "probably" not in report(describe(Store(store.uri)))


def test_a_lab_says_so_when_it_makes_the_store(tmp_path: Path) -> None:
    for name in ("m1", "m2"):
        recording(tmp_path / f"poses/{name}.npz", lines(70))
        (tmp_path / "labels").mkdir(exist_ok=True)
        bouts = "".join(
            f"{10 + 10 * n},{20 + 10 * n},{'sniff' if n % 2 else 'rear'}\n" for n in range(5)
        )
        (tmp_path / f"labels/{name}.csv").write_text(
            f"start_frame,stop_frame,behavior\n0,9,base\n{bouts}61,69,base\n"
        )
    words = ["tracks", "--poses", str(tmp_path / "poses"), "--fps", "30", "--labels"]
    words += [str(tmp_path / "labels"), "--out"]
    prepare.main([*words, str(tmp_path / "as it is")])
    prepare.main([*words, str(tmp_path / "scored"), "--unscored", "base"])
    prepare.main([*words, str(tmp_path / "margins"), "--unscored-margins", "base"])
    plain, scored, margins = (
        next(iter(labels_by_video(Store(tmp_path / name)).values()))[0]
        for name in ("as it is", "scored", "margins")
    )
    assert "base" in plain.classes
    assert "base" not in scored.classes
    assert np.array_equal(scored.frames, margins.frames)
    assert (scored.frames[:9] == UNLABELLED).all()
    with pytest.raises(BadInput, match="pass --labels"):
        prepare.main([*words[:-3], "--out", str(tmp_path / "x"), "--unscored", "base"])


def test_the_small_failing_input(tmp_path: Path, real_data: Path) -> None:
    folder = real_data / "faults" / "unscored_margin"
    out = str(tmp_path / "store")
    words = ["tracks", "--poses", str(folder / "dlc"), "--labels", str(folder / "labels")]
    prepare.main([*words, "--fps", "30", "--out", out])
    facts = describe(Store(out))["labels"]["S1"]
    assert facts["unscored"]["base"]["stretch_frames"] == 600
    make_unscored(out, ["base"])
    assert describe(Store(out))["labels"]["S1"]["unlabelled"] == 300
