"""Pairs of recipe and network: which they are, how they are judged, and the comparison itself."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from finetune.compare_objectives.cell import HAND_MADE, RANDOM_WEIGHTS, Cell, ProbeProtocol
from finetune.compare_objectives.jobs import run_cells
from finetune.compare_objectives.table import write_table
from finetune.fit.frames import gather_poses, recordings
from finetune.fit.open_encoder import HANDMADE, handmade_features
from finetune.labels.hold_out import hold_out
from finetune.labels.problems import problems, refuse_unfit, with_some_test
from finetune.settings import TASKS, Tuning, task_file
from pretrain.cluster.join import cluster
from pretrain.config import RECIPES, Recipe, Scale, plain, read
from pretrain.data.schema import Schema
from pretrain.data.store import Store
from pretrain.errors import BadInput, refuse
from pretrain.runs.folder import open_run_folder
from pretrain.runs.tracked_run import open_tracking
from pretrain.train.learner import build_unfitted

log = logging.getLogger(__name__)


def pairs(
    recipes: Sequence[str], networks: Sequence[str], changes: Sequence[str], schema: Schema
) -> list[Cell]:
    """All pairs, with random weights of every network first and hand-made features last.

    Args:
        recipes: Names or files.
        networks: Names of encoders, or ``{name: lstm, width: 64}``.
        changes: ``RECIPE.KEY=VALUE``.
        schema: Of the recordings.

    Raises:
        BadInput: If a recipe, a network or a change cannot be read.
    """
    changed = _by_recipe(changes, [Path(name).stem for name in recipes])
    read_recipes = {
        Path(name).stem: read(Recipe, name, RECIPES, changed.get(Path(name).stem, {}))
        for name in recipes
    }
    first = next(iter(read_recipes.values()))
    cells = [
        Cell(column=column, row=row, recipe=replace(recipe, encoder=network), learns=learns)
        for column, recipe, learns in (
            (RANDOM_WEIGHTS, first, False),
            *((name, recipe, True) for name, recipe in read_recipes.items()),
        )
        for row, network in dict(map(_network, networks)).items()
    ]
    hand_made = replace(
        first, encoder={"name": HANDMADE}, features=handmade_features(first.features, schema)
    )
    return [*cells, Cell(column=HAND_MADE, row="-", recipe=hand_made, learns=False)]


def _network(text: str) -> tuple[str, Mapping[str, Any]]:
    """Name in the table and settings, from a name or ``{name: lstm, width: 64}``."""
    try:
        settings = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadInput(f"--networks {text}: cannot be read: {error}") from error
    settings = {"name": settings} if isinstance(settings, str) else settings
    if not isinstance(settings, dict) or not isinstance(settings.get("name"), str):
        raise BadInput(
            f"--networks {text}: give a name, or its settings with a name: "
            "'{name: lstm, width: 64}'"
        )
    others = ", ".join(f"{key} {value}" for key, value in settings.items() if key != "name")
    return settings["name"] + (f" ({others})" if others else ""), settings


def _by_recipe(changes: Sequence[str], recipes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``RECIPE.KEY=VALUE`` by recipe."""
    changed: dict[str, dict[str, Any]] = {}
    for change in changes:
        dotted, equals, text = change.partition("=")
        name, _, key = dotted.partition(".")
        if not equals or name not in recipes or not key:
            raise BadInput(
                f"--set {change}: write it as RECIPE.KEY=VALUE, with a recipe of --recipes: "
                f"{', '.join(recipes)}"
            )
        changed.setdefault(name, {})[key] = yaml.safe_load(text)
    return changed


def refuse_changed(cells: Sequence[Cell], out: Path) -> None:
    """Refuses to go on where a cell that was computed before had another network or objective;
    names both settings."""
    errors = []
    for cell in cells:
        file = out / "cells" / f"{cell.name}.json"
        if not file.is_file():
            continue
        before = json.loads(file.read_text(encoding="utf-8"))
        now = {"encoder": cell.recipe.encoder, "objective": cell.recipe.objective}
        errors += [
            f"{cell.column} x {cell.row}: {key} {before[key]} then, {dict(now[key])} now"
            for key in (now if cell.learns else ["encoder"])
            if before[key] != now[key]
        ]
    refuse(errors, about=f"--resume: cells of {out} had other settings; choose another --out")


def probe_protocol(
    store: Store, task: str, *, videos: int | None, seeds: int, steps: int, tuned_steps: int
) -> tuple[ProbeProtocol, list[str]]:
    """The labels and heads of a task, and sentences on what a reader should know of them.
    ``videos`` is the label budget of a seed, None for all; ``tuned_steps`` are those of a fit that
    trains the encoder along.

    Raises:
        BadInput: If the store has no such labels, or nothing can be learned from them.
    """
    loaded, notes = with_some_test(problems(store, task), fps=store.schema.fps)
    notes += refuse_unfit(loaded, videos=videos)
    changes = {
        "head": {"name": "linear"},
        "search": {},
        "steps": steps,
        "seeds": seeds,
        "trials": 1,
    }
    probe = read(Tuning, task_file(task), TASKS, changes)
    labelled = {video for problem in loaded for video in problem.train}
    parts = hold_out(
        loaded,
        share=probe.validation,
        seed=0,
        recording=recordings(gather_poses(store, sorted(labelled))),
    )
    protocol = ProbeProtocol(
        problems=[problem for problem, _ in parts],
        validation=[labels for _, labels in parts],
        videos=videos,
        probe=probe,
        tuned=replace(probe, frozen=False, steps=tuned_steps),
    )
    return protocol, notes


def compare_pairs(
    cells: Sequence[Cell],
    store: Store,
    scale: Scale,
    *,
    task: str,
    videos: int | None,
    minutes: float,
    seeds: int,
    steps: int,
    tuned_steps: int,
    out: Path,
    resume: bool,
) -> None:
    """Pretrains every cell for so many minutes of one processor, and judges it with the labels and
    heads of :func:`probe_protocol`; writes the table after each.

    Raises:
        BadInput: If a pair, the labels or the folder will not do, before anything starts.
    """
    for cell in cells:
        build_unfitted(cell.recipe, store)
    protocol, notes = probe_protocol(
        store, task, videos=videos, seeds=seeds, steps=steps, tuned_steps=tuned_steps
    )
    for sentence in notes:
        log.warning("%s", sentence)
    refuse_changed(cells, out)
    settings = {
        "fingerprint": store.fingerprint,
        "task": task,
        "videos": videos,
        "minutes": minutes,
        "seeds": seeds,
        "steps": steps,
        "tuned_steps": tuned_steps,
    }
    params = {**settings, "cells": {cell.name: plain(cell.recipe) for cell in cells}}
    gpus = scale.gpus_per_trial if scale.gpu else 0
    opened = partial(open_tracking, scale.tracking, runs_folder=out.parent)
    with (
        open_run_folder(out, settings, resume=resume),
        cluster(scale, cpus_wanted=1, gpus_wanted=gpus, meanwhile=opened) as tracking,
        tracking.start(
            f"compare {task}", out.name, params=params, folder=out, resume=resume
        ) as run,
    ):
        origin = store.origin or store.uri
        run.log_dataset(origin, store.fingerprint, store.uri)
        labelled = {
            name
            for problem, kept in zip(protocol.problems, protocol.validation, strict=True)
            for name in (*problem.train, *problem.test, *kept)
        }
        poses = gather_poses(store, sorted(labelled))
        results: list[dict[str, Any]] = []

        def add(result: dict[str, Any]) -> None:
            results.append(result)
            write_table(out, results, settings, origin=origin)
            for mode, scores in result["modes"].items():
                name = f"{result['column']}/{result['row']}/{mode}"
                test = {f"{name} {key}": scores["test"][key] for key in ("macro_f1", "map")}
                run.log_metrics(test, step=0)

        run_cells(
            cells, store, poses, protocol, scale, out=out, seconds=60 * minutes, on_result=add
        )
        for file in ("table.md", "table.csv", "table.png"):
            run.log_artifact(out / file)
    log.info("compare runs: %s", tracking.ui_command(run.experiment))
