"""benchmarks/accuracy.py: what a fit may see, where errors are counted, and that it goes on."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetune.fit.frames import Frames
from finetune.labels.frame_labels import UNLABELLED, looked_at
from finetune.labels.problems import Problem
from pretrain.data.schema import Schema
from pretrain.encoders import build_embedder
from pretrain.errors import BadInput

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
FPS = 30.0
CLASSES = ("chase", "rest")


@pytest.fixture(autouse=True)
def benchmarks_are_importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def protocol() -> Any:
    return importlib.import_module("accuracy_protocol")


@pytest.fixture
def split_of() -> Any:
    return importlib.import_module("accuracy_split")


def problem(videos: int = 12, frames: int = 3_000) -> Problem:
    """Alternating classes in bouts of 2 s; a margin of 500 frames that nobody looked at."""
    labels = np.repeat(np.arange(frames // 60) % 2, 60).astype(np.int8)
    labels[:500] = UNLABELLED
    return Problem(
        name="S",
        task="S",
        classes=CLASSES,
        annotator="a",
        overlapping=False,
        train={f"v{number:02}": labels.copy() for number in range(videos)},
        test={},
    )


def test_a_recording_is_in_one_fold_alone(protocol: Any, split_of: Any) -> None:
    videos = [f"v{number:02}" for number in range(12)]
    folds = split_of.grouped_folds(videos, lambda video: f"r{int(video[1:]) // 2}", folds=3)
    assert sorted(video for fold in folds for video in fold) == videos
    for fold in folds:
        assert len(fold) == 4
        assert all(f"v{int(video[1:]) ^ 1:02}" in fold for video in fold)
    with pytest.raises(BadInput, match="6 labelled recordings"):
        split_of.grouped_folds(videos, lambda video: f"r{int(video[1:]) // 2}", folds=7)


def test_stretches_of_a_recording_lie_apart_and_keep_their_labels(split_of: Any) -> None:
    whole = problem(videos=2)
    position = np.arange(6_000, dtype=np.float32).reshape(-1, 1, 1, 1)
    frames = Frames(
        spans={"v00": (0, 3_000), "v01": (3_000, 6_000)},
        arrays={"position": position, "confidence": position[..., 0]},
        fps=FPS,
    )
    apart, (cut,) = split_of.cut_into_stretches(frames, [whole], 4)
    assert list(apart.spans)[1:5] == [
        *(f"v00, {n} of 4" for n in (2, 3, 4)),
        "v01, 1 of 4",
    ]
    of_first = [apart.spans[f"v00, {n} of 4"] for n in (1, 2, 3, 4)]
    assert of_first[0][0] == 0
    assert of_first[-1][1] == 3_000
    assert all(b[0] - a[1] == 5 * FPS for a, b in itertools.pairwise(of_first))
    for name, (first, end) in apart.spans.items():
        number = int(name[1:3])
        expected = whole.train[f"v{number:02}"][first - 3_000 * number : end - 3_000 * number]
        assert np.array_equal(cut.train[name], expected)
        assert apart.video(name)["position"][0, 0, 0, 0] == first
    unlabelled = {"v00": np.full(3_000, UNLABELLED, np.int8), "v01": whole.train["v01"]}
    apart, _ = split_of.cut_into_stretches(frames, [replace(whole, train=unlabelled)], 2)
    assert list(apart.spans) == ["v01, 1 of 2", "v01, 2 of 2"]
    assert split_of.cut_into_stretches(frames, [whole], 1) == (frames, [whole])
    with pytest.raises(BadInput, match="v00 has 3000 frames: 11 stretches"):
        split_of.cut_into_stretches(frames, [whole], 11)


def test_a_fit_sees_its_budget_and_nothing_of_its_fold(protocol: Any, split_of: Any) -> None:
    whole = problem()
    folds = split_of.grouped_folds(sorted(whole.train), lambda video: video, folds=3)
    budgets = ["1", "clips", "3", "all"]
    split = split_of.draw_split([whole], folds, budgets=budgets, draws=5, fps=FPS)
    assert [len(split["draws"][budget]) for budget in budgets] == [5, 5, 5, 3]
    row = protocol.rows([], quick=True)[0]
    of_one = {}
    for budget, videos in zip(budgets, (1, 5, 3, 8), strict=True):
        for draw in range(len(split["draws"][budget])):
            cell = split_of.Cell(row=row, budget=budget, draw=draw)
            (own,) = split_of.problems_of([whole], split, cell)
            assert sorted(own.test) == folds[draw % 3]
            assert not set(own.train) & set(own.test)
            assert len(own.train) == videos
            labelled = sum(int(looked_at(labels).sum()) for labels in own.train.values())
            assert labelled == 2_500 * (1 if budget == "clips" else videos)
            if budget == "1":
                of_one[draw] = set(own.train)
            if budget == "3":
                assert of_one[draw] < set(own.train)
    assert len({name for names in of_one.values() for name in names}) > 1
    with pytest.raises(BadInput, match="in one fold"):
        split_of.draw_split([whole], [sorted(whole.train), []], budgets=["1"], draws=1, fps=FPS)
    assert split_of.digest(split) != split_of.digest(
        split_of.draw_split([whole], folds, budgets=budgets, draws=4, fps=FPS)
    )


@pytest.mark.parametrize("videos", [2, 12])
def test_clips_hold_one_videos_minutes(protocol: Any, split_of: Any, videos: int) -> None:
    labels = problem(videos=videos).train
    clips = split_of.draw_clips(labels, np.random.default_rng(0), fps=FPS)
    seen = {name: np.zeros(3_000, int) for name in labels}
    for name, spans in clips.items():
        for first, end in spans:
            assert 0 < end - first <= 510
            seen[name][first:end] += 1
    assert sum(count.sum() for count in seen.values()) == 2_500
    assert all(count.max() <= 1 for count in seen.values())
    assert all((labels[name][count > 0] != UNLABELLED).all() for name, count in seen.items())
    assert len(clips) == min(videos, 5)


def test_permuted_labels_are_not_the_true_ones_of_a_clip(protocol: Any, split_of: Any) -> None:
    whole = problem()
    for labels in whole.train.values():
        labels[500:1_750], labels[1_750:] = 0, 1  # a clip lies in one bout, but for the odd one
    folds = split_of.grouped_folds(sorted(whole.train), lambda video: video, folds=3)
    split = split_of.draw_split([whole], folds, budgets=["clips"], draws=1, fps=FPS)
    right = {}
    for row in protocol.rows([], quick=True):
        (own,) = split_of.problems_of(
            [whole], split, split_of.Cell(row=row, budget="clips", draw=0)
        )
        pairs = [(y[looked_at(y)], whole.train[v][looked_at(y)]) for v, y in own.train.items()]
        assert sum(len(y) for y, _ in pairs) == 2_500
        right[row.name] = sum(int((y == true).sum()) for y, true in pairs) / 2_500
        assert all((own.test[v] == whole.train[v]).all() for v in own.test)
    assert right.pop("permuted labels, stack") < 0.75
    assert set(right.values()) == {1.0}


def test_a_kind_of_a_class_is_fitted_with_its_parent(protocol: Any, split_of: Any) -> None:
    """A draw's parent labels are those of the child's frames, none of the fold's videos."""
    parent = replace(problem(videos=13), name="P", task="P")
    child = replace(problem(), refines=("P", "chase"))
    folds = split_of.grouped_folds(sorted(parent.train), lambda video: video, folds=3)
    budgets = ["1", "clips", "all"]
    split = split_of.draw_split([child, parent], folds, budgets=budgets, draws=2, fps=FPS)
    row = protocol.rows([], quick=True)[0]
    for budget in budgets:
        for draw in range(2):
            cell = split_of.Cell(row=row, budget=budget, draw=draw)
            own, above = split_of.problems_of([child, parent], split, cell)
            assert not set(above.train) & set(folds[draw])
            assert not above.test
            if budget == "all":
                assert set(above.train) == set(parent.train) - set(folds[draw])
                continue
            assert set(above.train) == set(own.train)
            for video, labels in own.train.items():
                assert (looked_at(above.train[video]) == looked_at(labels)).all()


def test_an_ablation_leaves_out_what_it_says(protocol: Any, split_of: Any) -> None:
    ablation = importlib.import_module("accuracy_ablation")
    schema = Schema(
        animals=("a", "b"),
        keypoints=("nose", "neck", "left hip", "right hip", "tail"),
        edges=(),
        mirror_pairs=(("left hip", "right hip"),),
        image_px=(400, 300),
        fps=FPS,
        axis=("nose", "tail"),
    )
    embedder = build_embedder(schema, features={"groups": ["social"]}, encoder={"name": "handmade"})
    columns = ablation.columns_of(embedder)
    z = np.arange(2 * embedder.dim, dtype=np.float32).reshape(2, -1)
    frames = Frames(spans={"v": (0, 2)}, arrays={"z": z})
    every = len(columns)
    for name, one in ablation.ABLATIONS.items():
        left, leading = ablation.without(frames, columns, name)
        kept = left.arrays["z"][0].astype(int)
        gone = [columns[c] for c in range(every) if c not in set(kept.tolist())]
        assert all(one.drops(*column) for column in gone)
        changes = [bool(gone), bool(one.head), bool(one.member)]
        assert sum(changes) == 1, f"{name} takes nothing, or two things at once"
        assert leading == (kept < ablation.LEADING).sum()
    few = protocol.head_settings("stack", "2", 9, {"time": False, "columns": 1.0})
    boosted, logistic = few["members"]
    assert (boosted["time"], boosted["columns"], logistic["time"]) == (False, 1.0, False)
    assert "columns" not in logistic
    many = protocol.head_settings("stack", "all", 9, {"time": False})
    assert many["members"][2] == {"name": "recurrent", "networks": 1, "columns": 9}
    for budget in ("3", "clips"):
        assert many == protocol.head_settings("stack", budget, 9, {"time": False})
    assert (len(few["members"]), len(many["members"])) == (2, 3)
    for number, member in enumerate(many["members"]):
        fewer = protocol.head_settings("stack", "all", 9, dropped=member["name"])
        assert [one["name"] for one in fewer["members"]] == [
            one["name"] for n, one in enumerate(many["members"]) if n != number
        ]
        for key in ("weights", "weights_for_many_labels"):
            assert fewer[key] == [w for n, w in enumerate(many[key]) if n != number]


def test_the_surest_wrong_bouts_are_drawn(tmp_path: Path) -> None:
    report = importlib.import_module("accuracy_report")
    whole = problem(videos=2)
    step = 6
    probabilities = {v: np.eye(2)[y[::step].clip(0)] * 0.8 + 0.1 for v, y in whole.train.items()}
    position = np.random.default_rng(0).normal(100, 30, (6_000, 2, 3, 2)).astype(np.float32)
    poses = Frames(spans={"v00": (0, 3_000), "v01": (3_000, 6_000)}, arrays={"position": position})
    schema = Schema(
        animals=("a", "b"),
        keypoints=("nose", "neck", "tail"),
        edges=(("nose", "neck"),),
        image_px=(400, 300),
        fps=FPS,
        axis=("nose", "tail"),
    )
    file = tmp_path / "bouts.png"
    assert not report.draw_failing_bouts(file, whole, probabilities, poses, schema, step)
    assert not file.exists()
    probabilities["v01"][120:160] = 1 - probabilities["v01"][120:160]
    assert report.draw_failing_bouts(file, whole, probabilities, poses, schema, step)
    assert file.stat().st_size > 5_000


def test_errors_are_counted_where_they_are(protocol: Any, split_of: Any) -> None:
    whole = problem(videos=1)
    probabilities = np.eye(2)[whole.train["v00"][::6].clip(0)]
    near = np.arange(540, 3_000, 60) // 6  # the first frame read of each later bout
    probabilities[near] = 1 - probabilities[near]
    unseen = np.zeros(3_000, bool)
    unseen[2_000:] = True
    table = protocol.failures(
        whole, {"v00": probabilities}, fps=FPS, step=6, unseen=lambda video: unseen
    )
    by_kind = {line["frames that are"]: line for line in table}
    assert by_kind["all frames"]["wrong"] == pytest.approx(len(near) / 416, abs=2e-3)
    assert by_kind["within 0.5 s of a change"]["share of errors"] == 1
    assert by_kind["farther from any change"]["wrong"] == 0
    assert by_kind["in a bout of 1 to 3 s"]["share of frames"] == 1
    assert by_kind["an animal unseen"]["share of frames"] == pytest.approx(0.4, abs=0.01)


def test_what_is_fitted_is_not_fitted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracy = importlib.import_module("accuracy")
    fitted: list[str] = []

    def one_after_another(function: Any, jobs: Any, arguments: Any, **words: Any) -> Any:
        for job in jobs:
            fitted.append(job.name)
            yield job, function(**arguments(job), **words["shared"])

    monkeypatch.setattr(accuracy, "run_jobs", one_after_another)
    monkeypatch.setattr(accuracy, "cluster", lambda *_, **__: contextlib.nullcontext())
    out = tmp_path / "accuracy"
    words = ["--quick", "--budgets", "3", "--draws", "1", "--folds", "2", "--out", str(out)]
    accuracy.main(words)
    cells = sorted((out / "cells").glob("*.json"))
    assert len(cells) == len(set(fitted)) == 5
    split = json.loads((out / "split.json").read_text())["split"]
    assert split["draws"].keys() == {"3"}
    result = json.loads((out / "result.json").read_text())
    assert result["split"] == split
    scores = {line["row"]: line["map"] for line in result["rows"]}
    assert scores["features, stack"] > scores["chance"] + 0.2
    assert scores["permuted labels, stack"] < scores["features, stack"] - 0.2
    assert scores["features, stack, postprocessed"] > scores["chance"] + 0.2
    table = (out / "table.md").read_text()

    cells[0].unlink()
    accuracy.main(words)
    assert fitted[5:] == [cells[0].stem]
    assert (out / "table.md").read_text().splitlines()[:7] == table.splitlines()[:7]

    with pytest.raises(BadInput, match="results of another split"):
        accuracy.main([*words[:4], "2", *words[5:]])


def test_what_the_protocol_cannot_do_is_refused() -> None:
    accuracy = importlib.import_module("accuracy")
    with pytest.raises(BadInput) as error:
        accuracy.parse(["--budgets", "0", "some", "--folds", "1", "--prepare", "--fps 30"])
    assert all(word in str(error.value) for word in ("0:", "some:", "--folds", "--prepare"))
    rows = importlib.import_module("accuracy_protocol").rows([], quick=True)
    assert [row.name for row in accuracy.only(rows, ["old features, boosted"])] == [
        "features, stack",
        "old features, boosted",
    ]
    assert accuracy.only(rows, None) == rows
    with pytest.raises(BadInput, match="no features, forest; there are: features, stack"):
        accuracy.only(rows, ["features, forest"])
    with pytest.raises(BadInput, match="two folders have one name"):
        accuracy.named(["a/mine", "b/mine"])


def test_budgets_are_read_as_they_are_written(split_of: Any) -> None:
    read = split_of.parse_budget
    assert [read(b) for b in ("1", "12", "clips", "3clips", "2planned", "all")] == [
        (1, "videos"),
        (12, "videos"),
        (1, "clips"),
        (3, "clips"),
        (2, "planned"),
        (1, "all"),
    ]
    for wrong in ("", "0", "0clips", "3all", "clip", "1.5"):
        with pytest.raises(ValueError, match="^" + re.escape(wrong) + "$"):
            read(wrong)


def test_planned_clips_are_of_the_budget_and_unlike_each_other(split_of: Any) -> None:
    """Half of the clips look alike; the others, each of its own kind, are taken before them."""
    whole = problem(videos=9)
    folds = split_of.grouped_folds(sorted(whole.train), lambda video: video, folds=3)
    names = sorted(whole.train)
    z = np.zeros((9 * 500, 40), np.float32)
    rng = np.random.default_rng(0)
    for v in range(9):
        if v % 2:
            z[v * 500 : (v + 1) * 500] = np.repeat(rng.normal(0, 1, (10, 40)), 50, 0)
    features = Frames(
        spans={name: (500 * v, 500 * (v + 1)) for v, name in enumerate(names)},
        arrays={"z": z},
        stride=6,
        lengths=dict.fromkeys(names, 3_000),
    )
    split = split_of.draw_split(
        [whole], folds, budgets=["planned", "clips"], draws=3, fps=FPS, features=features
    )
    share = {}
    for budget in ("planned", "clips"):
        own = [draw["labelled"]["S"] for draw in split["draws"][budget]]
        frames = [sum(e - f for spans in one.values() for f, e in spans) for one in own]
        assert all(abs(n - 2_500) <= 510 for n in frames)
        distinct = [sum(len(s) for v, s in one.items() if int(v[1:]) % 2) for one in own]
        share[budget] = sum(distinct) / sum(len(s) for one in own for s in one.values())
    assert share["planned"] > share["clips"] + 0.2


def test_a_split_of_a_file_is_taken_as_it_is_or_refused(split_of: Any, tmp_path: Path) -> None:
    asked = problem()
    folds = split_of.grouped_folds(sorted(asked.train), str, folds=3)
    drawn = split_of.draw_split([asked], folds, budgets=["1", "all"], draws=2, fps=30.0)
    file = tmp_path / "split.json"
    file.write_text(json.dumps({"task": "t", "split": drawn}))
    assert split_of.read_split(str(file), [asked], budgets=["1", "all"]) == drawn
    assert set(split_of.read_split(str(file), [asked], budgets=["1"])["draws"]) == {"1"}
    with pytest.raises(BadInput, match="no budget 3; it has: 1, all"):
        split_of.read_split(str(file), [asked], budgets=["3"])
    some, other = asked.only(list(asked.train)[1:]), next(iter(asked.train))
    with pytest.raises(BadInput, match=f"{other} is in a fold and not labelled"):
        split_of.read_split(str(file), [some], budgets=["1"])
    more = replace(asked, train={**asked.train, "new": asked.train[other]})
    with pytest.raises(BadInput, match="new is labelled and in no fold"):
        split_of.read_split(str(file), [more], budgets=["1"])
    for wrong in ("{}", "no JSON", '{"split": 1}'):
        file.write_text(wrong)
        with pytest.raises(BadInput, match=r"no split\.json"):
            split_of.read_split(str(file), [asked], budgets=["1"])


@pytest.mark.parametrize(
    "file", sorted((BENCHMARKS / "splits").glob("*.json")), ids=lambda f: f.stem
)
def test_splits_that_are_kept_hold_their_folds_apart(file: Path) -> None:
    split = json.loads(file.read_text())["split"]
    folds = [set(fold) for fold in split["folds"]]
    assert sum(map(len, folds)) == len(set.union(*folds))
    for draws in split["draws"].values():
        for one in draws:
            (labelled,) = one["labelled"].values()
            assert set(labelled) <= set.union(*folds) - folds[one["fold"]]
            assert all(0 <= first < end for spans in labelled.values() for first, end in spans)
    assert [one["fold"] for one in split["draws"]["all"]] == [0, 1, 2]


def test_a_fold_without_any_behaviour_does_not_count(split_of: Any, tmp_path: Path) -> None:
    report = importlib.import_module("accuracy_report")
    row = split_of.Row(name="features, stack", inputs=("features",))
    scored = {"macro_f1": 0.5, "map": 0.25, "chance_map": 0.125}
    nothing: dict[str, Any] = dict.fromkeys(scored)
    results = {
        split_of.Cell(row=row, budget="1", draw=draw): {"scores": one, "core_seconds": 1.0}
        for draw, one in enumerate((scored, nothing, {**scored, "map": 0.75}))
    }
    line, chance = report.summaries(tmp_path, results, [], 6)
    assert (line["macro_f1"], line["map"], line["chance"]) == (0.5, 0.5, 0.125)
    assert (line["map_std"], chance["map"], line["fits"]) == (0.25, 0.125, 3)
    assert report._gain(results, row.name, row.name, "1") == "+0.000 ± 0.000"
    alone = {cell: one for cell, one in results.items() if one["scores"] is nothing}
    line, chance = report.summaries(tmp_path, alone, [], 6)
    assert (line["map"], line["chance"], chance["map"]) == (None, None, None)
