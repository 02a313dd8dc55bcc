"""The search without Ray: what is tried, what is stopped, and that an interruption at any moment
changes nothing."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna import create_study
from optuna.storages.journal._storage import JournalOperation

from finetune.search.space import draw, examples, sampler
from finetune.search.study import SearchStudy
from finetune.settings import Tuning
from pretrain.config import Scale
from pretrain.errors import BadInput

pytest.importorskip("ray.tune")
from finetune.search.ray_tune import SuccessiveHalving, search

SPACE = {
    "head": [
        {"name": "linear"},
        {"name": "temporal", "width": [16, 32], "dropout": {"low": 0.0, "high": 0.5}},
    ],
    "lr": {"low": 0.001, "high": 0.1, "log": True},
    "batch": {"low": 4, "high": 9},
    "class_weight": [0.0, 0.5],
}


LISTS = {"search": {"head": SPACE["head"], "lr": [0.003, 0.02, 0.1], "batch": [4, 9]}}


def tuning(**settings: Any) -> Tuning:
    return Tuning(
        **{"steps": 9, "evaluations": 9, "trials": 12, "search": SPACE, "searcher": "random"}
        | settings
    )


def truth(choice: Mapping[str, Any], steps: int) -> dict[str, float]:
    """A trial whose outcome is known: best near a learning rate of 0.02, slower or quicker by its
    batch, over-fitting in the end."""
    height = -abs(math.log(choice["lr"] / 0.02)) - (choice["head"]["name"] == "linear")
    score = height + steps / choice["batch"] - (steps / 8) ** 2
    return {
        "steps": steps,
        "score": score,
        "macro_f1": math.nan,
        "map": score,
        "training_loss": 1 / steps,
    }


def run_all(study: SearchStudy, settings: Tuning, *, at_once: int = 1) -> None:
    """What Ray does: so many trials at a time, each reporting in turn."""
    running: list[tuple[int, Mapping[str, Any], int]] = []
    started = 0
    while started < settings.trials or running:
        while len(running) < at_once and study.remaining > len(running):
            running.append((*study.ask(), 1))
            started += 1
        if not running:
            return
        still_running = []
        for number, choice, steps in running:
            if study.report(number, truth(choice, steps)):
                study.end(number)
            else:
                assert steps < settings.steps
                still_running.append((number, choice, steps + 1))
        running = still_running


def open_study(folder: Path, settings: Tuning) -> SearchStudy:
    return SearchStudy(
        folder / "search.journal", settings, stop_rule=SuccessiveHalving(settings), run=None
    )


def whole(
    folder: Path, settings: Tuning, *, at_once: int = 1
) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Rows of a search that starts, or goes on, in a folder; and the lines of its journal."""
    folder.mkdir(exist_ok=True)
    study = open_study(folder, settings)
    run_all(study, settings, at_once=at_once)
    assert study.remaining == 0
    return study.rows(), (folder / "search.journal").read_bytes().splitlines(keepends=True)


def events(lines: list[bytes]) -> list[dict[str, Any]]:
    """What a journal says, without who wrote it and when, and without its openings."""
    records = [json.loads(line) for line in lines]
    return [
        {
            key: value
            for key, value in record.items()
            if key not in ("worker_id", "datetime_start", "datetime_complete")
        }
        for record in records
        if record["op_code"] != JournalOperation.CREATE_STUDY
    ]


def test_a_grid_tries_each_combination_once(tmp_path: Path) -> None:
    grid = {
        "head": [{"name": "linear"}, {"name": "mlp", "width": [4, 8]}],
        "batch": [4, 6, 8],
        "lr": [0.02],
    }
    rows, _ = whole(tmp_path, tuning(searcher="grid", trials=50, search=grid, evaluations=1))
    tried = [(row["choice"]["head"]["name"], row["choice"]["batch"]) for row in rows]
    assert sorted(tried) == sorted(itertools.product(("linear", "mlp"), (4, 6, 8)))
    with pytest.raises(BadInput, match="a grid takes lists of choices"):
        tuning(searcher="grid")


@pytest.mark.parametrize("searcher", ["random", "optuna", "grid"])
def test_a_search_killed_after_any_line_of_its_journal_ends_as_if_it_had_not_been(
    tmp_path: Path, searcher: str
) -> None:
    settings = tuning(searcher=searcher, trials=8, **LISTS if searcher == "grid" else {})
    rows, lines = whole(tmp_path, settings)
    assert len(rows) == settings.trials
    assert len({row["fitted"] for row in rows}) > 1, (
        "nothing was stopped early, so nothing is shown"
    )
    for number in range(len(lines)):
        for part in (0, len(lines[number]) // 2):  # between two lines; in the middle of one
            folder = tmp_path / f"{number}-{part}"
            folder.mkdir()
            (folder / "search.journal").write_bytes(b"".join(lines[:number]) + lines[number][:part])
            (folder / "search.journal.lock").touch()  # of the killed process
            again, lines_again = whole(folder, settings)
            assert again == rows, (number, part)
            assert lines_again[:number] == lines[:number]
            assert events(lines_again) == events(lines), "something was written twice, or otherwise"


@pytest.mark.parametrize("searcher", ["random", "optuna"])
def test_trials_at_once_are_each_asked_and_ended_once_whenever_it_was_killed(
    tmp_path: Path, searcher: str
) -> None:
    settings = tuning(searcher=searcher)
    rows, lines = whole(tmp_path, settings, at_once=3)
    stopped = {row["fitted"] for row in rows}
    assert len(stopped) > 2, "nothing was stopped early, so nothing is shown"
    for number in range(0, len(lines), 5):
        (tmp_path / "search.journal").write_bytes(b"".join(lines[:number]))
        again, lines_again = whole(tmp_path, settings, at_once=3)
        assert lines_again[:number] == lines[:number]
        kinds = [event["op_code"] for event in events(lines_again)]
        assert (kinds.count(JournalOperation.CREATE_TRIAL), len(again)) == (settings.trials,) * 2
        assert kinds.count(JournalOperation.SET_TRIAL_STATE_VALUES) == settings.trials
        reports = [
            (event["trial_id"], event["step"])
            for event in events(lines_again)
            if event["op_code"] == JournalOperation.SET_TRIAL_INTERMEDIATE_VALUE
        ]
        assert len(reports) == len(set(reports)), "a trial was scored twice for the same steps"
        if searcher == "random":
            assert [row["choice"] for row in again] == [row["choice"] for row in rows]


def test_a_decision_to_stop_is_kept_though_others_went_on_meanwhile(tmp_path: Path) -> None:
    """Killed between a trial's last report and its end, with several at once; the rule, asked
    again, would now decide otherwise."""
    decisions = {0: False, 1: True}

    def opened() -> SearchStudy:
        return SearchStudy(
            tmp_path / "search.journal",
            tuning(trials=2),
            stop_rule=lambda number, report: decisions[number],
            run=None,
        )

    study = opened()
    choices = dict(study.ask() for _ in range(2))
    assert study.report(1, truth(choices[1], 1))
    assert not study.report(0, truth(choices[0], 1))
    decisions = {0: False, 1: False}
    again = opened()
    assert (again.remaining, again.rows()[0]["choice"]) == (1, choices[1])
    assert again.ask() == (0, choices[0])


def test_a_trial_that_failed_is_tried_again_by_a_search_that_goes_on(tmp_path: Path) -> None:
    settings = tuning(trials=3)
    rows, _ = whole(tmp_path / "whole", settings)
    study = open_study(tmp_path, settings)
    number, choice = study.ask()
    study.report(number, truth(choice, 1))
    study.end(number, failed=True)
    assert (study.rows(), study.remaining) == ([], 3)
    again, _ = whole(tmp_path, settings)
    assert again == rows


def test_a_search_of_an_earlier_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "search.jsonl").touch()
    with pytest.raises(BadInput, match=r"earlier version began \(search\.jsonl\)"):
        search(None, [], tuning(), Scale(), embedder=None, out=tmp_path, run=None)


def test_optuna_finds_more_than_chance(tmp_path: Path) -> None:
    means: dict[str, list[float]] = {"random": [], "optuna": []}
    for searcher, scores in means.items():
        for seed in range(5):
            settings = tuning(
                searcher=searcher,
                trials=40,
                first_seed=seed,
                search={**SPACE, "lr": {"low": 1e-5, "high": 1.0, "log": True}},
            )
            folder = tmp_path / f"{searcher}-{seed}"
            scores.append(np.mean([row["score"] for row in whole(folder, settings)[0][20:]]))
    assert min(np.array(means["optuna"]) - means["random"]) > 0, means


def test_searched_keys_of_a_choice_are_searched_where_it_is_taken() -> None:
    def drawn_by(seed: int) -> list[dict[str, Any]]:
        return [
            draw(SPACE, create_study(sampler=sampler(tuning(first_seed=seed), number=number)).ask())
            for number in range(60)
        ]

    drawn = drawn_by(0)
    assert {choice["head"]["name"] for choice in drawn} == {"linear", "temporal"}
    assert all(
        ("width" in choice["head"]) == (choice["head"]["name"] == "temporal") for choice in drawn
    )
    assert {choice["head"].get("width") for choice in drawn} == {None, 16, 32}
    assert {choice["batch"] for choice in drawn} == {4, 5, 6, 7, 8, 9}, (
        "both ends belong to a range"
    )
    logs = [math.log10(choice["lr"]) for choice in drawn]
    assert all(-3 <= value <= -1 for value in logs)
    assert abs(np.mean(logs) + 2) < 0.25, "not spread over the logarithm"
    assert not [choice for choice in drawn_by(1) if choice in drawn], "seeds share their draws"
    assert SPACE["head"][1]["width"] == [16, 32], "the space itself was changed"


def test_every_alternative_is_tried_before_a_search_starts() -> None:
    tried = list(examples(SPACE))
    heads = [choice["head"] for choice in tried]
    for head in (
        {"name": "linear"},
        {"name": "temporal", "width": 32, "dropout": 0.0},
        {"name": "temporal", "width": 16, "dropout": 0.5},
    ):
        assert head in heads
    assert {choice["lr"] for choice in tried} == {0.001, 0.1}


@pytest.mark.parametrize(
    "space",
    [
        [],
        {"low": 2, "high": 1},
        {"low": 0, "high": 1, "log": True},
        {"low": 0},
        [{"name": "temporal", "width": []}],
        [{"name": "temporal", "dropout": {"low": 1, "high": 0}}],
    ],
)
def test_a_space_that_cannot_be_is_refused(space: Any) -> None:
    with pytest.raises(BadInput, match="allowed: a list of choices, or low and high"):
        tuning(search={"head": space})
