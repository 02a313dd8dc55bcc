"""The paper's settings and figures as they stand in files, and the arithmetic that compares with
them."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from finetune.labels.problems import problems
from finetune.metrics.frame_metrics import over_seeds, score
from finetune.paper.report import TableNotes, compare_with, lines_of, write_table
from finetune.paper.row_folder import scores_from_dict
from finetune.paper.table import (
    PAPER,
    about_data,
    choose_rows,
    read_published,
    read_rows,
    read_settings,
)
from pretrain.arena.plan import recordings
from pretrain.arena.write import write_arena
from pretrain.data.store import Store
from pretrain.errors import BadInput

TASKS = ["classic_classification", "annotation_style_transfer", "new_behaviors"]


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = tmp_path_factory.mktemp("arena") / "store"
    write_arena(path, recordings(15_000))
    return Store(path)


def test_settings_are_those_published() -> None:
    rows, settings = read_rows(), read_settings([], read_rows())
    assert {
        name: (n.past, n.future, n.skip, n.lr, n.dropout, n.epochs, n.augment, n.batch)
        for name, n in settings.networks.items()
    } == {
        "conv1d": (100, 100, 2, 1e-3, 0.5, 15, False, 128),
        "conv1d_augmented": (50, 50, 1, 1e-3, 0.5, 50, True, 128),
        "conv1d_causal": (100, 0, 2, 1e-3, 0.5, 15, False, 128),
        "lstm": (50, 50, 1, 1e-3, 0.5, 20, False, 128),
        "self_attention": (50, 50, 1, 1e-3, 0.5, 20, False, 128),
        "fully_connected": (100, 100, 2, 3e-4, 0.5, 15, False, 128),
        "single_frame": (0, 0, 1, 5e-3, 0.2, 15, False, 128),
    }
    phases = {
        name: [
            (phase.epochs, phase.lr, phase.last_layer_only)
            for phase in row.phases(settings.networks["conv1d_augmented"])
            if phase.epochs
        ]
        for name, row in rows.items()
        if row.start
    }
    last, slower = [(30, 1e-3, True)], [(20, 5e-5, False)]
    as_run = {
        "task2_zero_shot": [],
        "task2_transfer": [(15, 1e-3, False)],
        "task2_transfer_features": [(9, 1e-3, False)],
        "task3_transfer": [(30, 1e-3, False), *slower],
        "task3_transfer_features": [(30, 1e-3, False), *slower],
    }
    as_written = {
        "task2_transfer": [(5, 1e-3, True), (10, 1e-3, False)],
        "task2_transfer_features": [(3, 1e-3, True), (6, 1e-3, False)],
        "task3_transfer": last + slower,
        "task3_transfer_features": last + slower,
    }
    assert phases == as_run | {f"{name}_as_written": phase for name, phase in as_written.items()}
    for name in as_written:
        run, written = rows[name], rows[f"{name}_as_written"]
        assert (run.start, run.features, run.class_weight) == (
            written.start,
            written.features,
            written.class_weight,
        )
        assert run.published
        assert not written.published
        assert written.only_by_name
    weights = {
        "approach": 20,
        "disengaged": 50,
        "groom": 5,
        "intromission": 3,
        "mount_attempt": 100,
        "sniff_face": 20,
        "whiterearing": 10,
    }
    assert {name for name, row in rows.items() if row.class_weight} == {
        name for name in phases if name.startswith("task3")
    }
    assert rows["task3_transfer"].class_weight == weights
    joint = settings.joint["joint"]
    assert (
        joint.window,
        joint.labelled + 8 * joint.each_layer + joint.unlabelled,
        joint.epochs,
        joint.members,
    ) == (512, 32, 40, 32)
    assert joint.cpc["horizons"] == [32, 64, 96, 128, 160, 192, 224]
    assert rows["joint_transductive"].only_by_name
    assert "TRANSDUCTIVE" in rows["joint_transductive"].title


def test_published_means_are_the_means_of_their_parts() -> None:
    """The protocol: over classes in Task 1, over annotators in Task 2, over behaviours in Task
    3."""
    checked = 0
    for name, entry in read_published().items():
        for task in TASKS:
            published = entry.get(task, {})
            for score_name, of_class in (("f1", "f1"), ("map", "ap")):
                parts = [scores[of_class][0] for scores in published.get("classes", {}).values()]
                parts += [
                    scores[score_name][0] for scores in published.get("problems", {}).values()
                ]
                if parts:
                    assert np.mean(parts) == pytest.approx(published[score_name][0], abs=0.0012), (
                        name,
                        task,
                        score_name,
                    )
                    checked += 1
    assert checked == 20


def test_every_row_compares_with_what_there_is() -> None:
    published, rows = read_published(), read_rows()
    assert {row.published for row in rows.values()} - {""} == set(published)
    assert all(
        set(row.tasks) <= set(published[row.published]) for row in rows.values() if row.published
    )


def test_the_difference_is_in_standard_deviations_of_the_difference() -> None:
    compared = compare_with(0.80, 0.03, [0.75, 0.04])
    assert compared["difference"] == pytest.approx(0.05)
    assert compared["difference_in_std"] == pytest.approx(1.0)
    assert compare_with(0.80, 0.02, [0.75, None])["difference_in_std"] == pytest.approx(2.5)
    assert compare_with(0.80, 0.0, [0.75, None])["difference_in_std"] is None
    assert compare_with(math.nan, 0.0, [0.75, 0.1])["published"] is None
    assert compare_with(0.80, 0.01, None)["difference"] is None


def test_rows_that_cannot_run_are_left_out_with_a_reason(arena: Store) -> None:
    rows = read_rows()
    chosen, left_out = choose_rows(rows, None, has_tasks=TASKS, store=arena, encoder=False)
    assert "joint_transductive" not in chosen
    assert left_out == {
        **{
            name: "the store has no features 'task_programming'"
            for name in rows
            if name.endswith("_features")
        },
        "encoder": "no --encoder was given",
    }
    assert choose_rows(rows, ["task3_transfer"], has_tasks=TASKS, store=arena, encoder=False)[
        0
    ] == [
        "task1_conv1d_augmented",
        "task3_transfer",
    ]
    chosen, left_out = choose_rows(rows, None, has_tasks=TASKS[:1], store=arena, encoder=True)
    assert left_out["task2_transfer"] == "the store has no labels for annotation_style_transfer"
    assert {"joint_inductive", "encoder"} <= set(chosen)
    with pytest.raises(BadInput, match=r"there is no row 'task9'; there are: task1_conv1d, "):
        choose_rows(rows, ["task9"], has_tasks=TASKS, store=arena, encoder=False)
    with pytest.raises(BadInput, match="nothing can be run"):
        choose_rows(rows, None, has_tasks=[], store=arena, encoder=False)


def test_settings_are_changed_by_file_and_key() -> None:
    rows = read_rows()
    settings = read_settings(["conv1d.epochs=2", "joint.encoder.width=8"], rows)
    assert (
        settings.networks["conv1d"].epochs,
        settings.networks["lstm"].epochs,
        settings.joint["joint"].encoder["width"],
    ) == (2, 20, 8)
    for wrong in (
        "epochs=2",
        "conv2d.epochs=2",
        "conv1d.epoch=2",
        "joint.members=many",
        "conv1d.epochs=0",
        "conv1d.dropout=1.0",
    ):
        with pytest.raises(BadInput):
            read_settings([wrong], rows)


def test_it_says_on_which_data_it_ran(arena: Store) -> None:
    every_problem = [problem for task in TASKS for problem in problems(arena, task)]
    description, comparable = about_data(arena, every_problem)
    assert not comparable
    assert "SIMULATED MICE: NOT COMPARABLE" in description
    assert arena.fingerprint in description


def test_scores_survive_being_written_down() -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 3, 50)
    labels[labels == 2] = 0  # a class without a frame: NaN
    whole = score(
        probabilities_TC=draw.random((50, 4)), labels=labels, classes=("a", "b", "c", "other")
    )
    back = scores_from_dict(whole.to_dict())
    assert back.to_dict() == whole.to_dict()
    assert math.isnan(back.per_class["c"].ap)
    assert over_seeds({1: back, 2: back}).to_dict() == over_seeds({1: whole, 2: whole}).to_dict()


def test_the_table_shows_ours_the_papers_and_the_difference(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 4, 400)
    classes = ("attack", "investigation", "mount", "other")
    guesses = {seed: np.random.default_rng(seed).random((400, 4)) for seed in (42, 43)}
    scores = over_seeds(
        {
            seed: score(probabilities_TC=p, labels=labels, classes=classes)
            for seed, p in guesses.items()
        }
    ).to_dict()
    result = {
        "title": "Guessing",
        "tasks": {"classic_classification": scores},
        "epochs_share": 0.5,
        "folder": "rows/guess",
    }
    lines = list(lines_of("guess", result, read_published()["task1_conv1d"]))
    assert len(lines) == 2 + 2 * 4
    write_table(
        tmp_path,
        lines,
        TableNotes(
            data="guesses",
            left_out={"encoder": "no --encoder was given"},
            changed=["conv1d.epochs=2"],
        ),
    )
    with (tmp_path / "table.csv").open(encoding="utf-8") as file:
        (row,) = [
            line for line in csv.DictReader(file) if line["part"] == "" and line["score"] == "MAP"
        ]
    assert float(row["ours"]) == pytest.approx(scores["map"], abs=1e-5)
    assert float(row["difference"]) == pytest.approx(scores["map"] - 0.8557, abs=1e-5)
    assert float(row["difference_in_std"]) == pytest.approx(
        (scores["map"] - 0.8557) / math.hypot(scores["map_std"], 0.01), rel=1e-3
    )
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    for part in (
        "Data: guesses",
        "SHORTENED: 0.5 of",
        "CHANGED from the published settings: conv1d.epochs=2",
        "0.856 ± 0.010",
        "no --enc",
        f"| Guessing | 0.5 | {scores['macro_f1']:.3f} ± ",
    ):
        assert part in text
    assert (tmp_path / "table.png").read_bytes().startswith(b"\x89PNG")


def test_no_other_file_lies_with_the_papers_settings() -> None:
    assert {path.name for path in PAPER.glob("*.yaml")} == {
        "table.yaml",
        "published.yaml",
        "joint.yaml",
    }
