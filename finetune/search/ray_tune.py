"""Ray Tune: the search on validation, and the fits over seeds that are scored once on test.

An interrupted search goes on from its own history (``search.jsonl``): Optuna's choices and ASHA's
stops are functions of what the two were told, so telling them again puts them where they stood.
Ray's own way, ``Tuner.restore``, forgets the stopping rule's past, whatever happened since its last
snapshot, and everything where the kill tore one.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import ray
import ray.tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from tqdm import tqdm

from finetune.fit.frames import Frames, embed
from finetune.labels.problems import Problem
from finetune.search.history import History
from finetune.search.study import Course
from finetune.search.trial import embed_there, stops_of, validate
from finetune.settings import Tuning
from pretrain.config import Scale
from pretrain.encoders import Embedder
from pretrain.runs.tracked_run import TrackedRun

log = logging.getLogger(__name__)
T = TypeVar("T")

_WORKPLACE = "tune"  # of Ray; after a search it holds nothing that the history does not


def search(
    material: Any,
    problems: Sequence[Problem],
    tuning: Tuning,
    scale: Scale,
    *,
    embedder: Embedder | None,
    out: Path,
    run: TrackedRun | None,
) -> dict[str, Any]:
    """Finds the best settings on validation videos; goes on with a search that was interrupted in
    ``out``.

    Args:
        material: Frames, as Ray holds them (``ray.put``): one copy a machine, read in place by its
            trials.
        problems: With the training labels of the budget.
        tuning: Settings, search space, who searches and number of trials.
        scale: Trials at a time, and their GPUs.
        embedder: To train along, or None where ``material`` holds embeddings.
        out: The run's folder.
        run: Parent of the trials' runs.

    Returns:
        ``choice`` (searched keys to values), ``steps``, ``score`` on validation, and a row for each
        trial.
    """
    if tuning.trials == 1 or not tuning.search:
        log.info("one trial: the settings of the task as they are, no search")
        return {"choice": {}, "steps": tuning.steps, "score": None, "trials": []}
    course = Course(History(out / "search.jsonl"), tuning, stops=SuccessiveHalving(tuning), run=run)
    errors: list[str] = []
    if course.missing:
        function = ray.tune.with_parameters(
            validate,
            material=material,
            problems=problems,
            tuning=tuning,
            embedder=embedder,
            seed=tuning.first_seed,
        )
        share = {"cpu": 1.0, "gpu": scale.gpus_per_trial if scale.gpu else 0.0}
        with course:
            results = ray.tune.Tuner(
                ray.tune.with_resources(function, share),
                tune_config=ray.tune.TuneConfig(
                    num_samples=course.missing,
                    max_concurrent_trials=scale.concurrent_trials,
                    metric="score",
                    mode="max",
                    search_alg=_Asks(course),
                    scheduler=_Stops(course),
                    reuse_actors=True,  # a process takes seconds to start
                ),
                run_config=ray.tune.RunConfig(
                    name=_WORKPLACE,
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
        if course.missing > len(errors):
            raise KeyboardInterrupt  # which Ray answers by ending early, as if all were well
        if not errors:
            shutil.rmtree(out / _WORKPLACE, ignore_errors=True)
    for sentence in sorted(set(errors)):
        log.warning("%d of %d trials failed: %s", errors.count(sentence), tuning.trials, sentence)
    rows = course.rows()
    if not rows:
        raise RuntimeError(
            f"all {len(errors)} trials failed; the last said: {errors[-1] if errors else 'nothing'}"
        )
    best = max(rows, key=lambda row: (row["score"], -row["steps"]))
    return {
        "choice": best["choice"],
        "steps": best["steps"],
        "score": best["score"],
        "trials": rows,
    }


class SuccessiveHalving:
    """Asynchronous successive halving (Li et al. 2020), by our numbers of trials: Ray's names do
    not outlive an interruption."""

    def __init__(self, tuning: Tuning) -> None:
        self._rule = ASHAScheduler(
            metric="score",
            mode="max",
            time_attr="steps",
            max_t=tuning.steps,
            grace_period=stops_of(tuning)[0],
            reduction_factor=3,
        )
        self._known: set[int] = set()

    def __call__(self, number: int, report: Mapping[str, float]) -> bool:
        """Whether a trial is stopped at its latest report."""
        named = SimpleNamespace(trial_id=str(number))
        if number not in self._known:
            self._known.add(number)
            self._rule.on_trial_add(None, named)
        return bool(self._rule.on_trial_result(None, named, dict(report)) == TrialScheduler.STOP)


class _Asks(Searcher):  # type: ignore[misc]
    """What Ray Tune asks for the next trial."""

    def __init__(self, course: Course) -> None:
        super().__init__(metric="score", mode="max")
        self._course: Course | None = course
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> dict[str, Any]:
        assert self._course is not None
        number, choice = self._course.ask()
        self._numbers[trial_id] = number
        return {"number": number, "choice": dict(choice)}

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        assert self._course is not None
        if error or (result or {}).get("done"):  # else Ray clears up after an interruption
            self._course.end(self._numbers[trial_id], failed=error)

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).touch()

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {
            "_course": None
        }  # Ray keeps a copy that nobody reads; the history is what counts


class _Stops(FIFOScheduler):  # type: ignore[misc]
    """What Ray Tune asks whether a trial goes on."""

    def __init__(self, course: Course) -> None:
        super().__init__()
        self._course: Course | None = course

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
        assert self._course is not None
        stopped = self._course.score(trial.config["number"], result)
        return str(TrialScheduler.STOP if stopped else TrialScheduler.CONTINUE)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_course": None}


def embedded(
    poses: Frames, embedder: Embedder, scale: Scale, *, on_progress: Callable[[int], object]
) -> Frames:
    """Embeddings of all frames, each computed once for all trials and seeds: on a GPU where the
    scale has them, else here."""
    if not scale.gpu:
        return embed(poses, embedder, on_progress=on_progress)
    there = ray.remote(num_cpus=1, num_gpus=scale.gpus_per_trial, max_retries=1)(embed_there)
    made: Frames = ray.get(there.remote(poses, embedder))
    on_progress(len(made.arrays["z"]))
    return made


def each_seed(
    work: Callable[..., T],
    material: Any,
    budgets: Mapping[int, Sequence[Problem]],
    tuning: Tuning,
    scale: Scale,
    *,
    embedder: Embedder | None,
    steps: int,
    says: str,
) -> dict[int, T]:
    """One fit a seed on all training labels of its budget, as many at a time as trials.

    Args:
        work: ``trial.final``, which predicts the test videos, or ``trial.after``.
        material: Frames, as Ray holds them.
        budgets: Seed to its problems.
        tuning: Best settings of the search.
        scale: Fits at a time, and their GPUs.
        embedder: To train along, or None where ``material`` holds embeddings.
        steps: To fit for.
        says: What the progress bar calls it.

    Returns:
        Seed to what ``work`` returned.
    """
    remote = ray.remote(
        num_cpus=1, num_gpus=scale.gpus_per_trial if scale.gpu else 0, max_retries=1
    )(work)
    waiting, running, done = dict(budgets), dict[Any, int](), dict[int, T]()
    held = ray.put(embedder)
    with tqdm(total=len(budgets), desc=says, unit="seed") as bar:
        while waiting or running:
            while waiting and len(running) < scale.concurrent_trials:
                seed = next(iter(waiting))
                running[remote.remote(material, waiting.pop(seed), tuning, held, seed, steps)] = (
                    seed
                )
            (ready,), _ = ray.wait(list(running), num_returns=1)
            done[running.pop(ready)] = ray.get(ready)
            bar.update()
    return {seed: done[seed] for seed in budgets}
