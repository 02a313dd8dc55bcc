"""What to label next: uncertain, unlike, never what is labelled; and the simulation that says
whether it pays."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_fit import problem
from test_predict import MOUSE, run, tracks  # noqa: F401
from worlds import MICE, wander

from finetune.active_learning.query_rules import query_rule
from finetune.active_learning.segments import (
    Segment,
    labelled_embeddings,
    split_into_segments,
    uncertainty,
)
from finetune.active_learning.simulate import (
    RANDOM,
    SUGGESTED,
    curve_figure,
    curve_table,
    fits_of,
    simulate,
)
from finetune.fit.frames import Frames
from finetune.labels.frame_labels import UNLABELLED
from finetune.labels.problems import Problem, problems
from finetune.settings import Tuning
from finetune.suggest import main
from pretrain import prepare
from pretrain.components import names
from pretrain.config import plain
from pretrain.data.schema import Video
from pretrain.data.store import Store
from pretrain.data.store_writer import StoreWriter
from pretrain.errors import BadInput, exit_status
from pretrain.readers.annotations import Labels, write_labels
from pretrain.readers.score_sheets import CLIP

RULES = names("finetune.active_learning.query_rules")
NOTHING = np.empty((0, 2), np.float32)


def segment(z: list[float], unsure: float, *, start: int = 0) -> Segment:
    return Segment(
        video="v",
        start=start,
        stop=start + 10,
        guess="a",
        rival="b",
        mean_probabilities=(0.5, 0.4),
        uncertainty=unsure,
        z_D=np.array(z, np.float32),
    )


def test_uncertainty_is_one_minus_the_margin() -> None:
    p = np.array([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0], [0.4, 0.4, 0.2]])
    np.testing.assert_allclose(uncertainty(p, overlapping=False), [0.8, 0, 1])
    np.testing.assert_allclose(
        uncertainty(np.array([[0.9, 0.5], [0.1, 0.8]]), overlapping=True), [1, 0.4]
    )


def test_a_video_is_cut_into_predicted_bouts() -> None:
    labels = np.array([2] * 100 + [0] * 3 + [2] * 20 + [0] * 30 + [1] * 47)
    p = np.full((200, 3), 0.2)
    p[np.arange(200), labels] = 0.6
    z = np.arange(200, dtype=np.float32)[:, None]
    found = split_into_segments("v", MOUSE, labels, p, z, shortest=10, longest=60)
    # Three frames of attack go with what follows; what is longer than two seconds is parted evenly.
    assert [(one.start, one.stop) for one in found] == [
        (0, 50),
        (50, 100),
        (100, 123),
        (123, 153),
        (153, 200),
    ]
    assert [one.guess for one in found] == ["other", "other", "other", "attack", "sniff face"]
    np.testing.assert_allclose([one.uncertainty for one in found], 0.6)
    np.testing.assert_allclose(found[-1].z_D, [176])
    free = np.ones(200, bool)
    free[50:160] = False
    for one in split_into_segments(
        "v", MOUSE, labels, p, z, shortest=10, longest=60, unlabelled_T=free
    ):
        assert free[one.start : one.stop].all()
    ends = np.array([0] * 50 + [1] * 4)
    assert [
        (one.start, one.stop)
        for one in split_into_segments("v", MOUSE, ends, p[:54], z[:54], shortest=10, longest=60)
    ] == [(0, 54)]


def test_of_the_uncertain_those_unlike_each_other_and_the_labelled_come_first() -> None:
    rule = query_rule("uncertain_and_diverse")
    near = [segment([0, 0.01 * i], 0.9, start=10 * i) for i in range(5)]
    far, sure = segment([5, 5], 0.8), segment([-9, 9], 0.0)
    first, second = rule.choose([*near, far, sure], number=2, labelled_ND=NOTHING)
    assert first in near
    assert second is far
    (only,) = rule.choose([*near, far], number=1, labelled_ND=np.array([[5.0, 5.0]], np.float32))
    assert only in near
    crowd = [segment([0.0, 0.0], 0.9 - 0.001 * i, start=10 * i) for i in range(8)]
    strange = segment([99.0, 0.0], 0.1)
    assert rule.choose([*crowd, strange], number=1, labelled_ND=NOTHING) != [strange], (
        "what is sure is not suggested, however strange"
    )


def test_a_rule_follows_uncertainty_or_distance_alone_where_its_name_says_so() -> None:
    sure_and_far, unsure_and_near = segment([9, 9], 0.1), segment([0, 0.1], 0.9, start=10)
    middling = segment([1, 0], 0.5, start=20)
    offered, labelled = [middling, sure_and_far, unsure_and_near], np.zeros((1, 2), np.float32)
    by_doubt = query_rule("uncertain").choose(offered, number=3, labelled_ND=labelled)
    assert by_doubt == [unsure_and_near, middling, sure_and_far]
    by_distance = query_rule("diverse").choose(offered, number=3, labelled_ND=labelled)
    assert by_distance == [sure_and_far, middling, unsure_and_near]


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("labelled", [0, 3])
def test_a_rule_chooses_each_segment_once_and_no_more_than_there_are(
    name: str, labelled: int
) -> None:
    draw = np.random.default_rng(0)
    offered = [segment(draw.normal(size=2).tolist(), draw.random(), start=10 * i) for i in range(7)]
    known = draw.normal(size=(labelled, 2)).astype(np.float32)
    rule = query_rule(name)
    assert rule.choose([], number=3, labelled_ND=known) == []
    for number in (1, 4, 7, 50):
        chosen = rule.choose(offered, number=number, labelled_ND=known)
        starts = [one.start for one in chosen]
        assert len(starts) == min(number, 7)
        assert len(set(starts)) == len(starts)
        assert {one.start for one in offered} >= set(starts)
        again = rule.choose(offered, number=number, labelled_ND=known)
        assert [one.start for one in again] == starts


def test_a_rule_is_a_file_that_the_command_offers(
    run: Path,  # noqa: F811
    tmp_path: Path,
    add_component: Callable[[str, str, str], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    add_component(
        "finetune.active_learning.query_rules",
        "earliest",
        '''"""What comes first in the video."""
from finetune.active_learning.query_rules import AbstractQueryRule

class Earliest(AbstractQueryRule):
    def choose(self, segments, *, number, labelled_ND):
        return sorted(segments, key=lambda one: (one.video, one.start))[:number]
''',
    )
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "earliest: What comes first in the video." in " ".join(capsys.readouterr().out.split())
    words = ["--model", str(run), "--poses", str(tracks(tmp_path / "new")), "--labels-of", "task"]
    main([*words, "--number", "3", "--out", str(tmp_path / "o.csv"), "--rule", "earliest"])
    with (tmp_path / "o.csv").open() as file:
        firsts = [int(row["first_frame"]) for row in csv.DictReader(file)]
    assert firsts[0] == 0
    assert firsts == sorted(firsts)
    with pytest.raises(BadInput, match="there is no 'magic'; there are: diverse, earliest, un"):
        query_rule("magic")


def test_labelled_bouts_are_what_distances_are_from() -> None:
    z = np.array([[0.0], [2.0], [4.0], [9.0]], np.float32)
    np.testing.assert_allclose(labelled_embeddings(np.array([1, 1, UNLABELLED, 0]), z), [[1], [9]])


def rare_world(videos: int = 7, frames: int = 1200) -> tuple[Frames, Problem]:
    """``attack`` is rare, in bouts of 15 frames, and shows in the embedding; ``mount`` is
    common."""
    draw = np.random.default_rng(0)
    labels, z = {}, []
    for i in range(videos):
        shown = np.where(np.repeat(draw.random(frames // 60) < 0.5, 60), 1, 2).astype(np.int8)
        for start in draw.integers(frames - 15, size=3):
            shown[start : start + 15] = 0
        labels[f"v{i}"] = shown
        z.append(
            np.eye(3)[shown] @ np.array([[2.0, 1.0, 0, 0], [0, 2.0, 0, 0], [0, 0, 2.0, 0]])
            + draw.normal(0, 0.8, (frames, 4))
        )
    spans = {name: (i * frames, (i + 1) * frames) for i, name in enumerate(labels)}
    return Frames(spans=spans, arrays={"z": np.concatenate(z).astype(np.float32)}), problem(
        labels, test=()
    )


def test_the_simulation_reveals_only_what_was_asked_for_and_costs_the_same_both_ways() -> None:
    frames, asked = rare_world()
    tuning = Tuning(head={"name": "linear"}, steps=60, window=64, batch=8, lr=0.02)
    rule = query_rule("uncertain_and_diverse")
    calls: list[int] = []
    rows = simulate(
        frames,
        asked,
        tuning,
        rule,
        rounds=2,
        number=4,
        seeds=[0, 1],
        shortest=15,
        longest=60,
        on_progress=lambda: calls.append(1),
    )
    assert len(calls) == fits_of(rounds=2, seeds=2) == 10
    assert len(rows) == 2 * 3 * 2
    for seed in (0, 1):
        for turn in range(3):
            one, other = (
                [
                    row
                    for row in rows
                    if (row["seed"], row["round"], row["way"]) == (seed, turn, way)
                ]
                for way in (SUGGESTED, RANDOM)
            )
            assert abs(one[0]["frames"] - other[0]["frames"]) <= 0.05 * one[0]["frames"], (
                "both ways cost the same"
            )
            if turn == 0:
                assert one[0]["macro_f1"] == other[0]["macro_f1"]
            assert one[0]["frames"] <= 1200 + turn * 4 * 60
    table = curve_table(rows, fps=30)
    assert len(table.splitlines()) == 4
    assert len(curve_figure(rows, title="x", fps=30).axes) == 2
    lies = replace(asked, test={"v0": np.zeros(1200, np.int8)})
    assert simulate(
        frames, lies, tuning, rule, rounds=1, number=4, seeds=[0], shortest=15, longest=60
    ) == [row for row in rows if row["seed"] == 0 and row["round"] < 2], (
        "test labels change nothing"
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four labelled videos of wandering mice, two without labels, one labelled in part."""
    folder = tmp_path_factory.mktemp("store") / "store"
    draw = np.random.default_rng(0)
    labels = []
    with StoreWriter(folder, MICE, origin="wandering mice") as writer:
        for i in range(7):
            position, confidence = wander(MICE, 300, seed=i)
            writer.add(Video(name=f"day/v{i}", position_TMKX=position, confidence_TMK=confidence))
            shown = np.repeat(draw.integers(3, size=10), 30).astype(np.int8)
            if i == 4:
                shown[150:] = UNLABELLED
            if i < 5:
                labels.append(
                    Labels(video=f"day/v{i}", task="task", classes=MOUSE.classes, frames=shown)
                )
        write_labels(writer, labels)
    return str(folder)


def test_a_list_is_written_of_what_nobody_labelled(run: Path, store: str, tmp_path: Path) -> None:  # noqa: F811
    out = tmp_path / "list.csv"
    main(
        [
            "--model",
            str(run),
            "--data",
            store,
            "--number",
            "9",
            "--labels-of",
            "task",
            "--out",
            str(out),
            "--shortest",
            "0.5",
        ]
    )
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == [str(i) for i in range(1, 10)]
    for row in rows:
        first, last = int(row["first_frame"]), int(row["last_frame"])
        assert row["video"] in ("day/v4", "day/v5", "day/v6")
        assert 0 <= first <= last < 300
        assert row["video"] != "day/v4" or first >= 150, "the labelled half is not asked for again"
        assert float(row["start_s"]) == pytest.approx(first / 30, abs=1e-3)
        assert row["guess"] in MOUSE.classes
        assert row["guess"] in row["why"]
    with (tmp_path / "list_boris.csv").open() as file:
        events = list(csv.DictReader(file))
    starts = [
        (e["Observation id"], int(e["Image index"]), e["Behavior"])
        for e in events
        if e["Behavior type"] == "START"
    ]
    spans = [(row["video"], int(row["first_frame"])) for row in rows]
    guesses = [(*span, row["guess"]) for span, row in zip(spans, rows, strict=True)]
    assert sorted(starts) == sorted(
        [(*span, CLIP) for span in spans] + [g for g in guesses if g[-1] != "other"]
    )
    # What comes back unchanged is the guess, in the suggested frames and in no others.
    with (tmp_path / "filled.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows([row | {"behaviour": row["guess"]} for row in rows])
    for name in ("list.boris", "list_boris.csv", "filled.csv"):
        copy = shutil.copytree(store, tmp_path / f"store of {name}")
        words = ["--append", "--labels", str(tmp_path / name), "--out", str(copy)]
        prepare.main(["tracks", *words, *["--task", "task"] * (name == "filled.csv")])
        before = problems(Store(store), "task")[0].train
        (after,) = problems(Store(copy), "task")
        for video in ("day/v4", "day/v5", "day/v6"):
            expected = np.array(before.get(video, np.full(300, UNLABELLED)))
            for row in rows:
                if row["video"] == video:
                    span = slice(int(row["first_frame"]), int(row["last_frame"]) + 1)
                    expected[span] = MOUSE.classes.index(row["guess"])
            found = {**after.train, **after.test}.get(video, np.full(300, UNLABELLED))
            assert np.array_equal(found, expected)


def test_recordings_that_nobody_labelled_are_taken_as_they_are(run: Path, tmp_path: Path) -> None:  # noqa: F811
    path = tracks(tmp_path / "new", frames=200, fps=60.0)
    out = tmp_path / "list"
    main(
        [
            "--model",
            str(run),
            "--poses",
            str(path),
            "--number",
            "3",
            "--labels-of",
            "task",
            "--out",
            str(out),
            "--shortest",
            "0.3",
        ]
    )
    with (tmp_path / "list.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    assert all(float(row["stop_s"]) <= 200 / 60 + 1e-3 for row in rows)


def test_the_simulation_is_a_command(run: Path, store: str, tmp_path: Path) -> None:  # noqa: F811
    tuning = Tuning(head={"name": "linear"}, steps=3, window=64, batch=4)
    (run / "result.json").write_text(json.dumps({"settings": {"chosen": plain(tuning)}}))
    out = tmp_path / "curve.csv"
    words = [
        "--model",
        str(run),
        "--data",
        store,
        "--simulate",
        "--labels-of",
        "task",
        "--number",
        "2",
        "--out",
        str(out),
    ]
    main([*words, "--rounds", "1", "--seeds", "1"])
    with out.open() as file:
        assert len(list(csv.DictReader(file))) == 4
    assert (tmp_path / "curve.png").stat().st_size > 1000
    (run / "result.json").write_text(
        json.dumps({"settings": {"chosen": plain(replace(tuning, frozen=False))}})
    )
    assert exit_status(lambda: main([*words[:-1], str(tmp_path / "other.csv")])) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--number", "0", "--data", "x"], "--number is 0"),
        ([], "--data STORE or --poses"),
        (["--data", "x", "--poses", "y"], "one of them"),
        (["--poses", "y", "--simulate"], "--simulate needs --data"),
        (["--data", "x", "--shortest", "20"], "--shortest is 20"),
        (["--data", "x"], "choose one with --labels-of: task, acts"),
        (["--data", "nowhere", "--labels-of", "task"], "there is no store"),
        (["--poses", "nowhere.csv", "--labels-of", "task"], "found 0 track files"),
    ],
)
def test_bad_input_is_refused(
    run: Path,  # noqa: F811
    tmp_path: Path,
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert (
        exit_status(lambda: main(["--model", str(run), "--out", str(tmp_path / "o.csv"), *words]))
        == 2
    )
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown
    assert not list(tmp_path.iterdir())
