"""Labels of a store: problems, budgets, validation; and what cannot be learned from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from finetune.labels.hold_out import hold_out
from finetune.labels.problems import (
    ELSEWHERE,
    Problem,
    _in_classes_of,
    draw_budget,
    permuted,
    problems,
    refuse_unfit,
    tasks,
    with_some_test,
    with_test_of,
)
from pretrain.data.schema import CALMS21, Video
from pretrain.data.store import Store
from pretrain.data.store_writer import StoreWriter
from pretrain.errors import BadInput
from pretrain.readers.annotations import UNLABELLED, Labels, write_labels

CLASSES = ("attack", "other")


def still(name: str, frames: int) -> Video:
    position = np.full((frames, 2, 7, 2), 100, np.float32)
    return Video(
        name=name, position_TMKX=position, confidence_TMK=np.ones((frames, 2, 7), np.float32)
    )


def make(folder: Path, labels: list[Labels], frames: int = 100) -> Store:
    with StoreWriter(folder, CALMS21, origin="still mice") as writer:
        for name in sorted({label.video for label in labels}):
            writer.add(still(name, frames))
        write_labels(writer, labels)
    return Store(folder)


def halves(first: int, second: int, frames: int = 100) -> np.ndarray:
    return np.repeat(np.array([first, second], np.int8), frames // 2)


def label(
    video: str,
    *,
    task: str = "S1",
    split: str = "train",
    annotator: str = "",
    classes: tuple[str, ...] = CLASSES,
    frames: object = None,
) -> Labels:
    values = halves(0, 1) if frames is None else np.asarray(frames, np.int8)
    return Labels(
        video=video, task=task, classes=classes, frames=values, annotator=annotator, split=split
    )


def test_a_task_has_one_problem_or_one_an_annotator_or_one_a_behaviour(tmp_path: Path) -> None:
    store = make(
        tmp_path / "store",
        [
            label("a"),
            label("b", split="test"),
            label("a", task="style", annotator="1"),
            label("a", task="style", annotator="2", frames=halves(1, 0)),
            label("a", task="new", classes=("other", "groom")),
            label("b", task="new", classes=("other", "approach"), split="test"),
        ],
    )
    assert tasks(store) == ["S1", "new", "style"]
    (whole,) = problems(store, "S1")
    assert whole.name == "S1"
    assert list(whole.train) == ["a"]
    assert list(whole.test) == ["b"]
    first, second = problems(store, "style")
    assert (first.name, second.name) == ("annotator 1", "annotator 2")
    np.testing.assert_array_equal(second.train["a"], halves(1, 0))
    assert [p.name for p in problems(store, "new")] == ["approach", "groom"]
    assert [p.rest for p in problems(store, "new")] == ["other", "other"]


def test_overlapping_behaviours_come_back_frame_by_class(tmp_path: Path) -> None:
    both = np.zeros((100, 2), np.int8)
    both[10:20, 0], both[15:30, 1], both[90:] = 1, 1, UNLABELLED
    store = make(tmp_path / "store", [label("a", classes=("sniff", "groom"), frames=both)])
    (problem,) = problems(store, "S1")
    assert problem.overlapping
    np.testing.assert_array_equal(problem.train["a"], both)


def test_an_unknown_task_is_refused_with_those_there_are(tmp_path: Path) -> None:
    store = make(tmp_path / "store", [label("a")])
    with pytest.raises(BadInput, match=r"no labels for the task 'S9'.*it has: S1"):
        problems(store, "S9")


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([label("a", frames=np.zeros(100))], "every labelled training frame is 'attack'"),
        (
            [label("a", frames=np.full(100, UNLABELLED)), label("b", split="test")],
            "training videos have not one labelled frame",
        ),
        ([label("a"), label("c")], "no test video"),
        ([label("a", split="test")], "no training video"),
    ],
)
def test_labels_that_cannot_serve_are_refused(
    tmp_path: Path, labels: list[Labels], says: str
) -> None:
    store = make(tmp_path / "store", labels)
    with pytest.raises(BadInput, match=says):
        refuse_unfit(problems(store, "S1"))


def test_a_class_absent_from_one_side_is_told(tmp_path: Path) -> None:
    store = make(tmp_path / "store", [label("a"), label("b", split="test", frames=np.ones(100))])
    assert refuse_unfit(problems(store, "S1")) == ["task 'S1': no test frame of attack"]


def test_one_labelled_video_is_split_in_time_with_a_gap_and_says_so(tmp_path: Path) -> None:
    store = make(tmp_path / "store", [label("a")])
    (problem,), notes = with_some_test(problems(store, "S1"), share=0.3, gap_s=0.5, fps=30)
    train, test = problem.train["a"] != UNLABELLED, problem.test["a"] != UNLABELLED
    assert np.flatnonzero(train).tolist() == list(range(55))
    assert np.flatnonzero(test).tolist() == list(range(70, 100))
    assert "frames of one video are not independent" in notes[0]


def many(number: int, *, rare_in: tuple[int, ...] = ()) -> Problem:
    train = {
        f"v{i:02d}": halves(0, 1) if i in rare_in else np.ones(100, np.int8) for i in range(number)
    }
    return Problem(
        name="S1", task="S1", classes=CLASSES, annotator="", overlapping=False, train=train, test={}
    )


def test_budgets_are_drawn_with_the_seed_and_nested() -> None:
    for seed in range(5):
        (one,), (three,), (again,) = (
            draw_budget([many(12)], videos=n, seed=seed) for n in (1, 3, 3)
        )
        assert set(one.train) < set(three.train)
        assert three.train.keys() == again.train.keys()
        assert len(three.train) == 3
    assert (
        len(
            {frozenset(draw_budget([many(12)], videos=3, seed=seed)[0].train) for seed in range(10)}
        )
        > 5
    )
    assert draw_budget([many(2)], videos=5, seed=0)[0].train.keys() == {"v00", "v01"}


def test_validation_takes_whole_videos_and_leaves_every_class_one_to_fit_on() -> None:
    for seed in range(8):
        ((fitted, validation),) = hold_out([many(8, rare_in=(3, 5))], share=0.25, seed=seed)
        assert len(validation) == 2
        assert not set(validation) & set(fitted.train)
        assert set(validation) | set(fitted.train) == {f"v{i:02d}" for i in range(8)}
        assert any((labels == 0).any() for labels in fitted.train.values()), (
            "no training video shows the rare class"
        )


def test_validation_of_a_single_video_is_its_last_labelled_part() -> None:
    labels = halves(0, 1)
    labels[60:] = UNLABELLED
    problem = Problem(
        name="S1",
        task="S1",
        classes=CLASSES,
        annotator="",
        overlapping=False,
        train={"a": labels},
        test={},
    )
    ((fitted, validation),) = hold_out([problem], share=0.25, seed=0)
    assert np.flatnonzero(fitted.train["a"] != UNLABELLED).tolist() == list(range(45))
    assert np.flatnonzero(validation["a"] != UNLABELLED).tolist() == list(range(45, 60))


def test_another_store_gives_the_test_videos(tmp_path: Path) -> None:
    here = make(tmp_path / "here", [label("a"), label("b", split="test")])
    there = make(tmp_path / "there", [label("a", frames=halves(1, 0))])
    (problem,) = with_test_of(problems(here, "S1"), problems(there, "S1"), here, there)
    assert sorted(problem.train) == ["a", "b"]
    assert list(problem.test) == [f"a{ELSEWHERE}"]
    other = make(tmp_path / "other", [label("a", classes=("bite", "other"))])
    with pytest.raises(BadInput, match=r"no labels for S1 with classes attack, other"):
        with_test_of(problems(here, "S1"), problems(other, "S1"), here, other)


def test_another_store_may_list_its_classes_otherwise_or_lack_one(tmp_path: Path) -> None:
    frames = halves(0, 1)
    frames[:5] = UNLABELLED
    here = make(tmp_path / "here", [label("a", classes=("bite", "attack", "other"))])
    there = make(tmp_path / "there", [label("a", classes=("other", "bite"), frames=frames)])
    (problem,) = with_test_of(problems(here, "S1"), problems(there, "S1"), here, there)
    assert problem.classes == ("bite", "attack", "other")
    (labels,) = problem.test.values()
    assert np.array_equal(labels == 2, frames == 0), "other"
    assert np.array_equal(labels == 0, frames == 1), "bite"
    assert np.array_equal(labels == UNLABELLED, frames == UNLABELLED)


def test_overlapping_behaviours_of_another_store_keep_their_names() -> None:
    here = Problem(
        name="S",
        task="S",
        classes=("run", "rear", "groom"),
        annotator="",
        overlapping=True,
        train={},
        test={},
    )
    labels = np.array([[1, 0], [1, 1], [-1, -1], [0, 0]], np.int8)
    assert _in_classes_of(here, labels, ("groom", "run")).tolist() == [
        [0, 0, 1],
        [1, 0, 1],
        [-1, -1, -1],
        [0, 0, 0],
    ]


def test_damaged_labels_are_named(tmp_path: Path) -> None:
    store = make(tmp_path / "store", [label("a")])
    file = tmp_path / "store" / store.labels[0]["file"]
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(BadInput, match="is damaged"):
        problems(store, "S1")


def test_rolled_labels_keep_their_bouts_and_lose_their_places() -> None:
    draw = np.random.default_rng(0)
    labels = np.repeat(draw.integers(3, size=20), draw.integers(5, 40, size=20)).astype(np.int8)
    labels[:30], labels[100:120] = UNLABELLED, UNLABELLED
    test = {"t": labels.copy()}
    problem = Problem(
        name="S1",
        task="S1",
        classes=("a", "b", "c"),
        annotator="",
        overlapping=False,
        train={"v": labels, "w": labels.copy()},
        test=test,
    )
    rolled = permuted(problem, seed=3)
    known = labels != UNLABELLED
    offsets = []
    for name in ("v", "w"):
        after = rolled.train[name]
        np.testing.assert_array_equal(after == UNLABELLED, ~known)
        matches = [
            n for n in range(known.sum()) if np.array_equal(np.roll(labels[known], n), after[known])
        ]
        assert len(matches) == 1
        assert 0.1 * known.sum() - 1 <= matches[0] <= 0.9 * known.sum() + 1
        offsets += matches
    assert offsets[0] != offsets[1], "each video has an offset of its own"
    assert rolled.test is test
    np.testing.assert_array_equal(problem.train["v"], labels)
    np.testing.assert_array_equal(permuted(problem, seed=3).train["v"], rolled.train["v"])
    assert not np.array_equal(permuted(problem, seed=4).train["v"], rolled.train["v"])
    both = np.stack([labels == 0, labels == 1], 1).astype(np.int8)
    overlapping = Problem(
        name="S1",
        task="S1",
        classes=("a", "b"),
        annotator="",
        overlapping=True,
        train={"v": both},
        test={},
    )
    together = permuted(overlapping, seed=3).train["v"]
    assert sorted(map(tuple, together)) == sorted(map(tuple, both)), (
        "behaviours of a frame stay together"
    )


def test_a_budget_below_one_is_refused_and_one_above_all_videos_is_told(tmp_path: Path) -> None:
    store = make(tmp_path / "store", [label("a"), label("b"), label("c", split="test")])
    loaded = problems(store, "S1")
    assert refuse_unfit(loaded, videos=2) == []
    assert refuse_unfit(loaded, videos=3) == [
        "task 'S1': --videos 3, but there are 2 labelled training videos: all are used"
    ]
    for ask in (
        lambda: refuse_unfit(loaded, videos=0),
        lambda: draw_budget(loaded, videos=0, seed=0),
    ):
        with pytest.raises(
            BadInput, match="--videos 0: the label budget must be at least one video"
        ):
            ask()


def test_an_annotator_who_labelled_test_videos_alone_is_refused_or_scored_as_the_mean(
    tmp_path: Path,
) -> None:
    store = make(
        tmp_path / "store",
        [
            label("a", annotator="1"),
            label("a", annotator="2"),
            *(label("b", annotator=name, split="test") for name in "123"),
        ],
    )
    loaded = problems(store, "S1")
    with pytest.raises(
        BadInput,
        match=r"annotator 3: no training video by this annotator .*head.annotator=embedding",
    ):
        refuse_unfit(loaded)
    assert refuse_unfit(loaded, unknown_annotators=True) == [
        "task 'S1', annotator 3: no training video; scored as the mean of the annotators there are"
    ]


def test_an_annotator_of_the_test_store_alone_is_left_out_or_scored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here = make(tmp_path / "here", [label("a", annotator=name) for name in "12"])
    there = make(tmp_path / "there", [label("b", annotator=name) for name in "123"])
    arguments = (problems(here, "S1"), problems(there, "S1"), here, there)
    assert [p.name for p in with_test_of(*arguments)] == ["annotator 1", "annotator 2"]
    assert (
        "annotator 3 has no counterpart among the training labels and is not scored" in caplog.text
    )
    loaded = with_test_of(*arguments, unknown_annotators=True)
    assert [(p.name, len(p.train), list(p.test)) for p in loaded] == [
        ("annotator 1", 1, [f"b{ELSEWHERE}"]),
        ("annotator 2", 1, [f"b{ELSEWHERE}"]),
        ("annotator 3", 0, [f"b{ELSEWHERE}"]),
    ]


def test_validation_of_an_annotator_without_training_videos_is_empty() -> None:
    problem = Problem(
        name="S1",
        task="S1",
        classes=CLASSES,
        annotator="9",
        overlapping=False,
        train={},
        test={"a": halves(0, 1)},
    )
    ((fitted, validation),) = hold_out([problem], share=0.25, seed=0)
    assert (fitted.train, validation) == ({}, {})
