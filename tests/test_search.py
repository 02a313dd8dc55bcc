"""The search without Ray: who is asked, who is stopped, and that an interruption at any moment
changes nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.search.history import History
from finetune.search.space import draw, examples, study
from finetune.search.study import Course
from finetune.settings import Tuning
from pretrain.errors import BadInput

pytest.importorskip("ray.tune")
from finetune.search.ray_tune import SuccessiveHalving

SPACE = {
    "head": [
        {"name": "linear"},
        {"name": "temporal", "width": [16, 32], "dropout": {"low": 0.0, "high": 0.5}},
    ],
    "lr": {"low": 0.001, "high": 0.1, "log": True},
    "batch": {"low": 4, "high": 9},
    "class_weight": [0.0, 0.5],
}


Running = tuple[int, Mapping[str, Any], int]
"""Number, choice, the steps it reports next."""


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


def fits(course: Course, settings: Tuning, *, at_once: int = 1) -> None:
    """What Ray does: so many trials at a time, each reporting in turn."""
    running: list[Running] = []
    for _ in range(course.missing):
        running.append((*course.ask(), 1))
        while len(running) >= at_once:
            running = goes_on(course, running, settings)
    while running:
        running = goes_on(course, running, settings)


def goes_on(
    course: Course, running: list[tuple[int, Mapping[str, Any], int]], settings: Tuning
) -> list[tuple[int, Mapping[str, Any], int]]:
    left = []
    for number, choice, steps in running:
        if course.score(number, truth(choice, steps)):
            course.end(number)
        else:
            assert steps < settings.steps
            left.append((number, choice, steps + 1))
    return left


def course_of(folder: Path, settings: Tuning) -> Course:
    return Course(
        History(folder / "search.jsonl"), settings, stops=SuccessiveHalving(settings), run=None
    )


def whole(
    folder: Path, settings: Tuning, *, at_once: int = 1
) -> tuple[list[dict[str, Any]], list[bytes]]:
    folder.mkdir(exist_ok=True)
    course = course_of(folder, settings)
    fits(course, settings, at_once=at_once)
    return course.rows(), (folder / "search.jsonl").read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize("searcher", ["random", "optuna"])
def test_a_search_killed_after_any_word_of_its_history_ends_as_if_it_had_not_been(
    tmp_path: Path, searcher: str
) -> None:
    settings = tuning(searcher=searcher, trials=8)
    rows, lines = whole(tmp_path, settings)
    assert len(rows) == settings.trials
    assert len({row["fitted"] for row in rows}) > 1, (
        "nothing was stopped early, so nothing is shown"
    )
    for number in range(len(lines)):
        for part in (0, len(lines[number]) // 2):  # between two lines; in the middle of one
            folder = tmp_path / f"{number}-{part}"
            folder.mkdir()
            (folder / "search.jsonl").write_bytes(b"".join(lines[:number]) + lines[number][:part])
            again, told = whole(folder, settings)
            assert again == rows, (number, part)
            assert [line for line in told if line != lines[number][:part] + b"\n"] == lines, (
                "something was told twice, or otherwise"
            )


@pytest.mark.parametrize("searcher", ["random", "optuna"])
def test_trials_at_once_are_each_asked_and_ended_once_whenever_it_was_killed(
    tmp_path: Path, searcher: str
) -> None:
    settings = tuning(searcher=searcher)
    rows, lines = whole(tmp_path, settings, at_once=3)
    for number in range(0, len(lines), 5):
        (tmp_path / "search.jsonl").write_bytes(b"".join(lines[:number]))
        again, told = whole(tmp_path, settings, at_once=3)
        kinds = [json.loads(line)["kind"] for line in told]
        assert (kinds.count("asked"), kinds.count("ended"), len(again)) == (settings.trials,) * 3
        assert told[:number] == lines[:number]
        if searcher == "random":
            assert [row["choice"] for row in again] == [row["choice"] for row in rows]


def test_a_trial_that_failed_is_tried_again_by_a_search_that_goes_on(tmp_path: Path) -> None:
    settings = tuning(trials=3)
    rows, _ = whole(tmp_path / "whole", settings)
    course = course_of(tmp_path, settings)
    number, choice = course.ask()
    course.score(number, truth(choice, 1))
    course.end(number, failed=True)
    assert (course.rows(), course.missing) == ([], 3)
    again, _ = whole(tmp_path, settings)
    assert again == rows


def test_optuna_finds_more_than_chance(tmp_path: Path) -> None:
    found: dict[str, list[float]] = {"random": [], "optuna": []}
    for searcher, scores in found.items():
        for seed in range(5):
            settings = tuning(
                searcher=searcher,
                trials=40,
                first_seed=seed,
                search={**SPACE, "lr": {"low": 1e-5, "high": 1.0, "log": True}},
            )
            folder = tmp_path / f"{searcher}-{seed}"
            scores.append(np.mean([row["score"] for row in whole(folder, settings)[0][20:]]))
    assert min(np.array(found["optuna"]) - found["random"]) > 0, found


def test_searched_keys_of_a_choice_are_searched_where_it_is_taken() -> None:
    asked = study("random", seed=0, trials=60)
    drawn = [draw(SPACE, asked.ask()) for _ in range(60)]
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
    assert drawn != [draw(SPACE, study("random", seed=1, trials=60).ask())] * 60
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
