"""Clips like an example are found more often than by chance, and planted frames are the ones that
are like nothing else."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from worlds import MICE, wander, wander_store

from finetune.active_learning.similarity import (
    Clip,
    Reference,
    apart,
    most_unlike,
    nearest,
    open_embedder,
    parse_example,
)
from finetune.labels.problems import problems
from finetune.metrics.bouts import bouts
from finetune.similar import main
from pretrain import prepare
from pretrain.data.schema import Video
from pretrain.data.store import Store
from pretrain.data.store_writer import StoreWriter
from pretrain.errors import BadInput, exit_status
from pretrain.readers.score_sheets import CLIP

PLANTED = slice(200, 240)


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("arena") / "store"
    prepare.main(["arena", "--out", str(folder), "--frames", "60000", "--seed", "0"])
    return Store(folder)


def test_bouts_of_the_examples_behaviour_are_found_above_chance(arena: Store) -> None:
    (problem,) = problems(arena, "classic_classification")
    labelled = {**problem.train, **problem.test}
    reference = Reference.of(arena, open_embedder("handmade", arena))
    for behaviour in ("attack", "investigation", "mount"):
        c = problem.classes.index(behaviour)
        examples = [
            Clip(name, int(start), min(int(stop), int(start) + 90))
            for name, labels in labelled.items()
            for start, stop, shown in bouts(labels)
            if shown == c and stop - start >= 20
        ][::2][:2]
        shares = []
        for example in examples:
            clips = nearest(arena, [example], reference, number=60)
            assert [clip.score for clip in clips] == sorted(clip.score for clip in clips)
            assert example not in clips
            others = [
                clip for clip in clips if clip.video in labelled and clip.video != example.video
            ]
            assert len(others) >= 5
            shares += [
                (labelled[clip.video][clip.start : clip.stop] == c).mean() for clip in others[:12]
            ]
        chance = np.concatenate([labels == c for labels in labelled.values()]).mean()
        assert np.mean(shares) > 1.4 * chance, (behaviour, np.mean(shares), chance)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Wandering mice; for a while those of one video are three times as large, and for a while
    nobody is seen."""
    folder = tmp_path_factory.mktemp("planted") / "store"
    with StoreWriter(folder, MICE, origin="wandering mice") as writer:
        for number in range(4):
            position, confidence = wander(MICE, 500, seed=number, missing=0.02)
            if number == 1:
                large = position[PLANTED]
                middle = np.nanmean(large, axis=2, keepdims=True)
                position[PLANTED] = middle + 3 * (large - middle)
                position[300:400], confidence[300:400] = np.nan, 0
            writer.add(
                Video(name=f"day/v{number}", position_TMKX=position, confidence_TMK=confidence)
            )
    return Store(folder)


def test_planted_frames_are_the_most_unlike(planted: Store) -> None:
    reference = Reference.of(planted, open_embedder("handmade", planted))
    clips, scores = most_unlike(planted, reference, length=20, number=5, same_store=True)
    assert clips[0].video == "day/v1"
    assert PLANTED.start - 20 < clips[0].start < PLANTED.stop
    others = np.concatenate([scores[name] for name in scores if name != "day/v1"])
    assert scores["day/v1"][PLANTED].min() > np.nanquantile(others, 0.99)
    assert 0.7 < np.nanmedian(others) < 1.5, "1 is usual"
    assert np.isnan(scores["day/v1"][300:400]).all()
    assert not any(c.video == "day/v1" and c.stop > 300 and c.start < 400 for c in clips)


def test_new_recordings_are_compared_with_those_of_another_store(
    planted: Store, tmp_path: Path
) -> None:
    usual = wander_store(tmp_path / "usual", [600, 600])
    words = ["--data", planted.address, "--unlike", usual.address, "--number", "2"]
    main([*words, "--out", str(tmp_path / "new.csv")])
    with (tmp_path / "new.csv").open() as file:
        first = next(csv.DictReader(file))
    assert first["video"] == "day/v1"
    assert PLANTED.start - 30 < int(first["first_frame"]) < PLANTED.stop
    with np.load(tmp_path / "new.npz") as scores:
        assert set(scores) == {video["name"] for video in planted.videos}
        assert float(first["unlike"]) == pytest.approx(
            scores["day/v1"][int(first["first_frame"]) : int(first["last_frame"]) + 1].mean(), 1e-3
        )


@pytest.mark.parametrize("encoder", ["handmade", "none"])
def test_a_list_and_a_project_are_written(planted: Store, tmp_path: Path, encoder: str) -> None:
    out = tmp_path / "found.csv"
    words = ["--data", planted.address, "--example", "day/v1:6.7-7.9", "--number", "4"]
    main([*words, "--encoder", encoder, "--out", str(out)])
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == list("1234")
    assert all(int(row["last_frame"]) - int(row["first_frame"]) == 35 for row in rows)
    project = json.loads((tmp_path / "found.boris").read_text())
    marks = {
        (name, event[5])
        for name, seen in project["observations"].items()
        for event in seen["events"]
        if event[2] == CLIP
    }
    assert {(row["video"], int(row["first_frame"])) for row in rows} <= marks
    assert exit_status(partial(main, [*words, "--out", str(out)])) == 2, "never over another list"


def test_clips_do_not_overlap() -> None:
    clips = [Clip("v", start, start + 10, score) for start, score in ((0, 3), (5, 1), (15, 2))]
    assert apart([*clips, Clip("w", 5, 15, 4)], 9) == [clips[1], clips[2], Clip("w", 5, 15, 4)]
    assert apart(clips, 9, taken=[Clip("v", 14, 16)]) == [clips[0]]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--example", "v1"], "write VIDEO:START-STOP"),
        (["--example", "day/v9:1-2"], "has no video 'day/v9'"),
        (["--example", "day/v1:2-1"], "must stop after it starts"),
        (["--example", "day/v1:1-99"], "within the 16.7 s"),
        (["--unlike", "--number", "0"], "at least 1"),
        (["--unlike", "--encoder", "nowhere"], "there is no encoder"),
    ],
)
def test_what_cannot_be_looked_for_is_refused(
    planted: Store, tmp_path: Path, words: list[str], says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        main(["--data", planted.address, "--out", str(tmp_path / "o.csv"), *words])


def test_one_video_has_nothing_to_be_unlike(tmp_path: Path) -> None:
    alone = wander_store(tmp_path / "one", [300])
    with pytest.raises(BadInput, match="no video besides 'video 0'"):
        main(["--data", alone.address, "--unlike", "--out", str(tmp_path / "o.csv")])
    assert parse_example("video 0:1-2.5", alone) == Clip("video 0", 30, 75)
