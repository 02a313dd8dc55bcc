"""Ray Tune: the search on validation videos.

An interrupted search goes on from its Optuna journal (``search.journal``; see ``study.py``). Ray's
own way, ``Tuner.restore``, forgets the stopping rule's past, whatever happened since its last
snapshot, and everything where the kill tore one.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray.tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from finetune.labels.problems import Problem
from finetune.search.space import only_choice
from finetune.search.study import SearchStudy
from finetune.search.trial import evaluation_steps, run_trial
from finetune.settings import Tuning
from pretrain.config import Scale
from pretrain.encoders import Embedder
from pretrain.errors import BadInput
from pretrain.runs.tracked_run import TrackedRun

log = logging.getLogger(__name__)

_RAY_FOLDER = "tune"  # after a search it holds nothing that the journal does not


def search(
    frames: Any,
    problems: Sequence[Problem],
    tuning: Tuning,
    scale: Scale,
    *,
    embedder: Embedder | None,
    out: Path,
    run: TrackedRun | None,
    name: str = "",
) -> dict[str, Any]:
    """Finds the best settings on validation videos; goes on with a search that was interrupted in
    ``out``.

    Args:
        frames: Frames, as Ray holds them (``ray.put``): one copy a machine, read in place by its
            trials.
        problems: With the training labels of the budget.
        tuning: Settings, search space, sampler and number of trials.
        scale: Trials at a time, and their GPUs.
        embedder: To train along, or None where ``frames`` holds embeddings.
        out: The run's folder.
        run: Parent of the trials' runs.
        name: What the names of the trials' runs begin with, where ``run`` has several searches.

    Returns:
        ``choice`` (searched keys to values), ``steps``, ``score`` on validation and what it is made
        of, and a row for each trial.

    Raises:
        BadInput: If an earlier version began the search.
    """
    labelled = max((len(problem.train) for problem in problems), default=tuning.search_from)
    choice = only_choice(tuning) if labelled >= tuning.search_from else {}
    if tuning.trials == 1 or not tuning.search:
        choice = choice or {}
    if choice is not None:
        log.info("the settings of the task as they are, no search")
        return {"choice": choice, "steps": tuning.steps, "score": None, "trials": []}
    if (out / "search.jsonl").exists():
        raise BadInput(
            f"{out} holds a search that an earlier version began (search.jsonl); this version "
            "cannot go on with it: choose another --out, or finish it with that version"
        )
    study = SearchStudy(
        out / "search.journal", tuning, stop_rule=SuccessiveHalving(tuning), run=run, name=name
    )
    errors: list[str] = []
    if study.remaining:
        trainable = ray.tune.with_parameters(
            run_trial,
            frames=frames,
            problems=problems,
            tuning=tuning,
            embedder=embedder,
            seed=tuning.first_seed,
        )
        resources = {"cpu": 1.0, "gpu": scale.gpus_per_trial if scale.gpu else 0.0}
        with study:
            results = ray.tune.Tuner(
                ray.tune.with_resources(trainable, resources),
                tune_config=ray.tune.TuneConfig(
                    num_samples=study.remaining,
                    max_concurrent_trials=scale.concurrent_trials,
                    metric="score",
                    mode="max",
                    search_alg=_StudySearcher(study),
                    scheduler=_StudyScheduler(study),
                    reuse_actors=True,  # a process takes seconds to start
                ),
                run_config=ray.tune.RunConfig(
                    name=_RAY_FOLDER,
                    storage_path=str(out.absolute()),
                    verbose=0,
                    failure_config=ray.tune.FailureConfig(max_failures=scale.retries),
                ),
            ).fit()
        errors = [
            str(result.error).strip().splitlines()[-1]
            for result in results
            if result.error is not None
        ]
        if study.remaining > len(errors):
            raise KeyboardInterrupt  # which Ray answers by ending early, as if all were well
        if not errors:
            shutil.rmtree(out / _RAY_FOLDER, ignore_errors=True)
    for error in sorted(set(errors)):
        log.warning("%d of %d trials failed: %s", errors.count(error), tuning.trials, error)
    rows = study.rows()
    if not rows:
        raise RuntimeError(
            f"all {len(errors)} trials failed; the last said: {errors[-1] if errors else 'nothing'}"
        )
    best = max(rows, key=lambda row: (row["score"], -row["steps"]))
    return {
        "choice": best["choice"],
        "steps": best["steps"],
        "score": best["score"],
        "validation": best["validation"],
        "trials": rows,
    }


class SuccessiveHalving:
    """Asynchronous successive halving (Li et al. 2020), by our numbers of trials: Ray's names do
    not outlive an interruption.

    What it remembers, a score for each trial and rung, does not depend on the order between trials.
    Optuna's own pruner does not fit: a decision it took is lost when the search is killed before
    the trial has ended.
    """

    def __init__(self, tuning: Tuning) -> None:
        self._rule = ASHAScheduler(
            metric="score",
            mode="max",
            time_attr="steps",
            max_t=tuning.steps,
            grace_period=evaluation_steps(tuning)[0],
            reduction_factor=3,
        )
        self._known: set[int] = set()

    def __call__(self, number: int, report: Mapping[str, float]) -> bool:
        """Whether a trial is stopped at its latest report."""
        trial = SimpleNamespace(trial_id=str(number))
        if number not in self._known:
            self._known.add(number)
            self._rule.on_trial_add(None, trial)
        return bool(self._rule.on_trial_result(None, trial, dict(report)) == TrialScheduler.STOP)


class _StudySearcher(Searcher):  # type: ignore[misc]
    """Where Ray Tune gets its next trial."""

    def __init__(self, study: SearchStudy) -> None:
        super().__init__(metric="score", mode="max")
        self._study: SearchStudy | None = study
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> dict[str, Any]:
        assert self._study is not None
        number, choice = self._study.ask()
        self._numbers[trial_id] = number
        return {"number": number, "choice": dict(choice)}

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        assert self._study is not None
        if error or (result or {}).get("done"):  # else Ray clears up after an interruption
            self._study.end(self._numbers[trial_id], failed=error)

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).touch()

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_study": None}  # Ray keeps a copy that nobody reads


class _StudyScheduler(FIFOScheduler):  # type: ignore[misc]
    """Where Ray Tune asks whether a trial goes on."""

    def __init__(self, study: SearchStudy) -> None:
        super().__init__()
        self._study: SearchStudy | None = study

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
        assert self._study is not None
        stopped = self._study.report(trial.config["number"], result)
        return str(TrialScheduler.STOP if stopped else TrialScheduler.CONTINUE)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_study": None}
