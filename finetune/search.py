"""Ray Tune: the search on validation, and the fits over seeds that are scored once on test."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import ray.tune
from ray.tune.schedulers import ASHAScheduler
from tqdm import tqdm

from finetune.fit import Model, Probabilities
from finetune.labels import Problem
from finetune.settings import Tuning
from finetune.trial import final, stops_of, validate
from pretrain.config import Scale
from pretrain.encoders import Embedder
from pretrain.tracking import TrackedRun

log = logging.getLogger(__name__)

_NAME = "search"


def search(
    material: Any, problems: Sequence[Problem], tuning: Tuning, scale: Scale, *, embedder: Embedder | None, out: Path,
    run: TrackedRun | None,
) -> dict[str, Any]:  # fmt: skip
    """Finds the best settings on validation videos; goes on with a search that was interrupted in ``out``.

    Args:
        material: Frames, as Ray holds them (``ray.put``).
        problems: With the training labels of the budget.
        tuning: Settings, search space and number of trials.
        scale: Trials at a time, and their GPUs.
        embedder: To train along, or None where ``material`` holds embeddings.
        out: The run's folder.
        run: Parent of the trials' runs.

    Returns:
        ``choice`` (searched keys to values), ``steps``, ``score`` on validation, and a row for each trial.
    """
    for key, value in tuning.search.items():
        tuning.with_choice({key: _example(value)})
    if tuning.trials == 1 or not tuning.search:
        log.info("one trial: the settings of the task as they are, no search")
        return {"choice": {}, "steps": tuning.steps, "score": None, "trials": []}
    stops = stops_of(tuning)
    share = {"cpu": 1.0, "gpu": scale.gpus_per_trial if scale.gpu else 0.0}
    function = ray.tune.with_parameters(validate, material=material, problems=problems, tuning=tuning, embedder=embedder,
                                        seed=tuning.first_seed, run=run)  # fmt: skip
    trainable = ray.tune.with_resources(function, share)
    folder = out / "tune"
    if ray.tune.Tuner.can_restore(str(folder / _NAME)):
        tuner = ray.tune.Tuner.restore(str(folder / _NAME), trainable=trainable, restart_errored=True)
    else:
        tuner = ray.tune.Tuner(
            trainable,
            param_space={key: _space(value) for key, value in tuning.search.items()},
            tune_config=ray.tune.TuneConfig(
                num_samples=tuning.trials, max_concurrent_trials=scale.concurrent_trials, metric="score", mode="max",
                scheduler=ASHAScheduler(time_attr="steps", max_t=tuning.steps, grace_period=stops[0], reduction_factor=3),
                search_alg=ray.tune.search.BasicVariantGenerator(random_state=tuning.first_seed),
            ),
            run_config=ray.tune.RunConfig(name=_NAME, storage_path=str(folder.absolute()), verbose=0, callbacks=[_Bar(tuning.trials)]),
        )  # fmt: skip
    results = tuner.fit()
    rows: list[dict[str, Any]] = []
    failed: list[str] = []
    for result in results:
        if result.error is not None or "best_score" not in (result.metrics or {}):
            failed.append(str(result.error).strip().splitlines()[-1] if result.error else "it reported nothing")
            continue
        found = result.metrics
        rows.append({"choice": dict(result.config or {}), "steps": int(found["best_steps"]), "score": float(found["best_score"])})
    if not rows:
        raise RuntimeError(f"all {len(failed)} trials failed; the last said: {failed[-1] if failed else 'nothing'}")
    for sentence in sorted(set(failed)):
        log.warning("%d of %d trials failed: %s", failed.count(sentence), tuning.trials, sentence)
    best_row = max(rows, key=lambda row: (row["score"], -row["steps"]))
    return {**best_row, "trials": rows}


def score_seeds(
    material: Any, budgets: Mapping[int, Sequence[Problem]], tuning: Tuning, scale: Scale, *, embedder: Embedder | None, steps: int
) -> dict[int, tuple[Model, Sequence[Probabilities]]]:
    """Fits once a seed on all training labels of its budget and predicts the test videos, as many at a time as trials."""
    fit_one = ray.remote(num_cpus=1, num_gpus=scale.gpus_per_trial if scale.gpu else 0, max_retries=1)(final)
    waiting = dict(budgets)
    running: dict[Any, int] = {}
    done: dict[int, tuple[Model, Sequence[Probabilities]]] = {}
    held = ray.put(embedder)
    with tqdm(total=len(budgets), desc="seeds on test", unit="seed") as bar:
        while waiting or running:
            while waiting and len(running) < scale.concurrent_trials:
                seed = next(iter(waiting))
                running[fit_one.remote(material, waiting.pop(seed), tuning, held, seed, steps)] = seed
            (ready,), _ = ray.wait(list(running), num_returns=1)
            done[running.pop(ready)] = ray.get(ready)
            bar.update()
    return {seed: done[seed] for seed in budgets}


class _Bar(ray.tune.Callback):  # type: ignore[misc]
    """A progress bar over trials, with the best score so far."""

    def __init__(self, trials: int) -> None:
        self._trials, self._best = trials, -math.inf
        self._bar: tqdm[Any] | None = None

    def setup(self, **info: Any) -> None:
        self._bar = tqdm(total=self._trials, desc="trials", unit="trial")

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
        if result.get("score", -math.inf) > self._best and self._bar is not None:
            self._best = result["score"]
            self._bar.set_postfix_str(f"best on validation {self._best:.3f}")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if self._bar is not None:
            self._bar.update()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.on_trial_complete(iteration, trials, trial)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        if self._bar is not None:
            self._bar.close()


def _space(value: Any) -> Any:
    if isinstance(value, list):
        return ray.tune.choice(value)
    low, high = value["low"], value["high"]
    whole = isinstance(low, int) and isinstance(high, int)
    if value.get("log"):
        return ray.tune.lograndint(low, high + 1) if whole else ray.tune.loguniform(low, high)
    return ray.tune.randint(low, high + 1) if whole else ray.tune.uniform(low, high)


def _example(value: Any) -> Any:
    return value[0] if isinstance(value, list) else value["low"]
