"""Recipes and networks compared: the step is the loop's, frames in memory are those of the stream,
every pair is judged alike, nothing is computed twice."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from worlds import MICE

import finetune.compare
from finetune.compare_objectives.cell import (
    HAND_MADE,
    RANDOM_WEIGHTS,
    Cell,
    ProbeProtocol,
    run_cell,
)
from finetune.compare_objectives.pairs import pairs
from finetune.compare_objectives.table import write_table
from finetune.fit.frames import gather_poses
from finetune.labels.hold_out import hold_out
from finetune.labels.problems import problems
from finetune.settings import Tuning
from pretrain.config import RECIPES, Recipe, read
from pretrain.data.store import Store
from pretrain.errors import BadInput, RunFailed
from pretrain.runs import paths
from pretrain.train import in_memory
from pretrain.train.in_memory import InMemory, learn_in_memory
from pretrain.train.learner import new_learner
from pretrain.train.step import OptimiserStep

TASK = "classic_classification"


def small(name: str = "contrastive", **changed: object) -> Recipe:
    return read(
        Recipe,
        name,
        RECIPES,
        {"encoder": {"name": "tcn", "width": 16, "layers": 2}, "batch": 8, "window": 64, **changed},
    )


@pytest.fixture(scope="module")
def store(own_places: None) -> Store:
    return Store(paths.default_store())


def test_an_epoch_in_memory_holds_every_frame_once(store: Store) -> None:
    frames = InMemory(store, small())
    batches = frames.batches()
    first = [next(batches) for _ in range(frames.plan.steps)]
    assert sum(int(windows.valid_BT.sum()) for windows in first) == store.frames
    seen = (
        torch.cat([windows.pose.position_BTMKX[windows.valid_BT].flatten(1) for windows in first])
        .nan_to_num(-1.0)
        .numpy()
    )
    every = np.concatenate(
        [
            store.read_video(video["name"]).position_TMKX.reshape(video["frames"], -1)
            for video in store.videos
        ]
    )
    every = np.nan_to_num(every, nan=-1.0)
    assert np.array_equal(seen[np.lexsort(seen.T)], every[np.lexsort(every.T)])
    again = next(batches)
    assert not torch.equal(first[0].key_B, again.key_B), "the second epoch draws anew"


def test_a_step_follows_the_schedule_and_refuses_what_is_not_finite(store: Store) -> None:
    recipe = small()
    learner = new_learner(recipe, store)
    optimiser_step = OptimiserStep(learner, recipe.optimiser)
    windows = next(InMemory(store, recipe).batches())
    before = {name: weight.clone() for name, weight in learner.named_parameters()}
    optimiser_step(windows, lr=0.0)
    assert all(torch.equal(weight, before[name]) for name, weight in learner.named_parameters()), (
        "at rate 0 nothing moves"
    )
    optimiser_step(windows)
    assert any(not torch.equal(weight, before[name]) for name, weight in learner.named_parameters())
    before = {name: weight.clone() for name, weight in learner.named_parameters()}
    next(learner.embedder.encoder.parameters()).register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(RunFailed, match="not finite"):
        optimiser_step(windows)
    assert all(torch.equal(weight, before[name]) for name, weight in learner.named_parameters())


def test_time_decides_how_many_steps_are_made_and_learning_is_learning(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small()
    monkeypatch.setattr(in_memory, "_seconds_per_step", lambda *_: 0.5)
    embedder, about = learn_in_memory(recipe, store, seconds=30.0)
    assert (about["steps"], about["windows"], about["frames"]) == (60, 60 * 8, 60 * 8 * 64)
    _, short = learn_in_memory(recipe, store, seconds=0.5)
    assert short["steps"] == 1
    assert about["loss"] < 0.9 * short["loss"]
    assert not embedder.training


def test_what_a_step_costs_leaves_the_learner_alone(store: Store) -> None:
    recipe = small()
    learner, ticks = new_learner(recipe, store), iter([10.0, 18.0])
    before = {name: weight.clone() for name, weight in learner.state_dict().items()}
    assert (
        in_memory._seconds_per_step(recipe, learner, InMemory(store, recipe), lambda: next(ticks))
        == 8.0 / in_memory.TIMED_STEPS
    )
    assert all(torch.equal(weight, before[name]) for name, weight in learner.state_dict().items())


def test_a_cell_is_judged_on_labels_of_its_own_and_random_weights_are_tuned_at_the_whole_rate(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = problems(store, TASK)
    parts = hold_out(loaded, share=0.25, seed=0)
    probe = Tuning(head={"name": "linear"}, steps=30, seeds=2)
    protocol = ProbeProtocol(
        problems=[part for part, _ in parts],
        validation=[validation for _, validation in parts],
        videos=1,
        probe=probe,
        tuned=replace(probe, frozen=False, steps=2),
    )
    assert not {name for part, validation in parts for name in part.train if name in validation}
    cell = Cell(column=RANDOM_WEIGHTS, row="tcn", recipe=small(), learns=False)
    shares = []
    original = finetune.compare_objectives.cell.fit
    monkeypatch.setattr(
        finetune.compare_objectives.cell,
        "fit",
        lambda *a, **k: (shares.append(a[2].encoder_lr_share), original(*a, **k))[1],
    )
    poses = gather_poses(
        store, sorted({name for problem in loaded for name in (*problem.train, *problem.test)})
    )
    result = run_cell(cell, store, poses, protocol, seconds=1.0)
    assert set(result["modes"]) == {"probe", "tuned", "permuted"}
    assert shares == [0.1, 0.1, 1.0, 1.0, 0.1, 0.1]
    assert result["learning"] == {}
    for sides in result["modes"].values():
        assert len(sides["test"]["per_seed"]) == len(sides["validation"]["per_seed"]) == 2
        assert sides["test"]["map"] != sides["validation"]["map"]
    assert result["modes"]["permuted"]["test"]["map"] < result["modes"]["probe"]["test"]["map"]


@pytest.mark.ray
@pytest.mark.slow
def test_a_comparison_from_start_to_end_and_further_cells_later(
    ray_here: None, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "compared"
    words = [
        "--data",
        store.uri,
        "--tasks",
        TASK,
        "--networks",
        "{name: tcn, width: 16, layers: 2}",
        "--minutes",
        "0.02",
        "--videos",
        "2",
        "--seeds",
        "1",
        "--steps",
        "20",
        "--tuned-steps",
        "2",
        "--out",
        str(out),
    ]
    finetune.compare.main([*words, "--recipes", "contrastive"])
    with (out / "table.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {(row["column"], row["mode"]) for row in rows} == {
        *(
            (column, mode)
            for column in (RANDOM_WEIGHTS, "contrastive")
            for mode in ("probe", "tuned", "permuted")
        ),
        (HAND_MADE, "probe"),
        (HAND_MADE, "permuted"),
    }
    result = json.loads(
        (out / "cells" / "contrastive_tcn_(width_16,_layers_2).json").read_text(encoding="utf-8")
    )
    row = next(row for row in rows if (row["column"], row["mode"]) == ("contrastive", "probe"))
    assert float(row["map"]) == result["modes"]["probe"]["test"]["map"]
    assert float(row["validation_map"]) == result["modes"]["probe"]["validation"]["map"]
    assert int(row["steps"]) == result["learning"]["steps"] > 0
    assert (out / "table.png").read_bytes().startswith(b"\x89PNG")
    table = (out / "table.md").read_text(encoding="utf-8")
    assert f"{result['modes']['tuned']['test']['map']:.3f}" in table

    # a further objective: what is there is not computed again and stays in the table
    times = {path: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    finetune.compare.main(
        [*words, "--recipes", "masked", "--resume", "--set", "masked.objective.block=8"]
    )
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert "| encoder | random weights | contrastive | masked |" in (out / "table.md").read_text(
        encoding="utf-8"
    )
    assert (
        json.loads(
            (out / "cells" / "masked_tcn_(width_16,_layers_2).json").read_text(encoding="utf-8")
        )["objective"]["block"]
        == 8
    )
    with pytest.raises(BadInput, match=r"masked x tcn .*: objective .*'block': 8.* then, .* now"):
        finetune.compare.main([*words, "--recipes", "masked", "--resume"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--recipes", "nonsense"], "there is no recipe 'nonsense'"),
        (["--networks", "nonsense"], "there is no 'nonsense'"),
        (["--networks", "{width: 3}"], "give a name"),
        (["--networks", "{name: tcn, widht: 3}"], "widht"),
        (["--set", "objective.block=3"], "RECIPE.KEY=VALUE"),
        (["--set", "masked.objective.blok=3"], "blok"),
        (["--minutes", "0"], "--minutes is 0.0"),
        (["--seeds", "0"], "--seeds is 0"),
        (["--tasks", "nonsense"], "no labels for the task"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(
    store: Store, tmp_path: Path, words: list[str], says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        finetune.compare.main(
            [
                "--data",
                store.uri,
                "--tasks",
                TASK,
                "--recipes",
                "masked",
                "--out",
                str(tmp_path / "compared"),
                *words,
            ]
        )
    assert not (tmp_path / "compared").exists()


def test_the_table_chooses_on_validation_and_an_encoder_brings_the_features_it_needs(
    tmp_path: Path,
) -> None:
    def result(column: str, row: str, test: float, validation: float) -> dict[str, object]:
        side = {
            "macro_f1": test,
            "macro_f1_std": 0.01,
            "map": test,
            "map_std": 0.02,
            "chance_map": 0.2,
        }
        sides = {"test": side, "validation": side | {"macro_f1": validation, "map": validation}}
        return {
            "column": column,
            "row": row,
            "parameters": 5,
            "learning": {},
            "modes": {"probe": sides, "permuted": sides},
        }

    results = [
        result(RANDOM_WEIGHTS, "tcn", 0.3, 0.3),
        result("masked", "tcn", 0.4, 0.6),
        result("cpc", "tcn", 0.5, 0.5),
        result(HAND_MADE, "-", 0.45, 0.4),
    ]
    write_table(
        tmp_path,
        results,
        {"task": TASK, "videos": None, "seeds": 3, "minutes": 1.0},
        origin="somewhere",
    )
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "Best on the validation videos: masked x tcn (0.600" in text
    assert text.count("Best on") == 1, "permuted labels have no best"
    assert "all labelled videos" in text
    assert "0.450 ± 0.010 / 0.450 ± 0.020" in text
    groups = {
        cell.row: cell.recipe.features["groups"]
        for cell in pairs(["masked"], ["msg3d", "tcn"], [], MICE)
    }
    assert "scene" in groups["msg3d"]
    assert "scene" not in groups["tcn"]
    assert groups["-"] == ["social_roles"], "hand-made features"
