"""The trials of a search: which is tried next, which is stopped early, and how an interrupted
search goes on. Plain Python; ``ray_tune.py`` drives it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from finetune.labels.frame_labels import plain
from finetune.report.run_log import fit_params
from finetune.search.space import draw, grid_point, sampler
from finetune.settings import Tuning
from pretrain.runs.tracked_run import TrackedRun

log = logging.getLogger(__name__)

_STOPPED = "stopped_after"  # steps
_DETAILS = ("macro_f1", "map")  # what the score is made of


class SearchStudy:
    """An Optuna study in a journal file, logged to MLflow and shown by a progress bar (in a
    ``with`` block).

    What a trial tries is a function of its number and of the journal before it; a decision to stop
    a trial is in the journal before it has an effect. A search that opens the journal again
    therefore goes on exactly where the interrupted one was.

    Args:
        path: The journal; what it holds is taken up.
        tuning: Search space, sampler, number of trials.
        stop_rule: Whether a trial is stopped, of its number and its latest scores; called once for
            each. What it remembers must not depend on the order between trials.
        run: Parent of the trials' runs. The driver logs them: trials need no way to MLflow, and
            none waits for it.
        name: What their names begin with.
    """

    def __init__(
        self,
        path: Path,
        tuning: Tuning,
        *,
        stop_rule: Callable[[int, Mapping[str, float]], bool],
        run: TrackedRun | None,
        name: str = "",
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._tuning, self._stop_rule, self._run, self._name = tuning, stop_rule, run, name
        self._study = optuna.create_study(
            storage=_open_journal(path),
            study_name="search",
            direction="maximize",
            sampler=optuna.samplers.RandomSampler(),  # never asked: see _draw_trial
            load_if_exists=True,
        )
        self._child_runs: dict[int, TrackedRun] = {}
        self._bar: tqdm[Any] | None = None
        trials = self._study.trials
        for trial in trials:
            for steps, score in trial.intermediate_values.items():
                stop_rule(trial.number, {"steps": steps, "score": score})
        interrupted = [trial for trial in trials if trial.state == TrialState.RUNNING]
        self._interrupted = [trial.number for trial in interrupted if not _is_stopped(trial)]
        for trial in interrupted:
            if _is_stopped(trial):  # the interruption came between its last report and its end
                self._start_child_run(trial, resume=True)
                self.end(trial.number)
        if trials:
            log.info(
                "the search goes on: %d of %d trials are done",
                tuning.trials - self.remaining,
                tuning.trials,
            )

    @property
    def remaining(self) -> int:
        """Trials that have not ended."""
        return self._tuning.trials - len(self._ended())

    def rows(self) -> list[dict[str, Any]]:
        """Every trial that ended: its choice, the score and the steps that were best, the steps it
        was fitted for."""
        return [
            {
                "choice": trial.user_attrs["choice"],
                "steps": _best_steps(trial),
                "score": trial.value,
                "fitted": trial.last_step,
                "validation": trial.user_attrs.get("details", {}).get(str(_best_steps(trial))),
            }
            for trial in self._ended()
        ]

    def ask(self) -> tuple[int, Mapping[str, Any]]:
        """Number and choice of the next trial; those that were interrupted come first."""
        resume = bool(self._interrupted)
        trial = self._trial(self._interrupted.pop(0)) if resume else self._draw_trial()
        self._start_child_run(trial, resume=resume)
        return trial.number, trial.user_attrs["choice"]

    def report(self, number: int, scores: Mapping[str, float]) -> bool:
        """Takes a trial's scores on validation after so many ``steps``; whether it is stopped."""
        trial, steps = self._trial(number), int(scores["steps"])
        if steps in trial.intermediate_values:
            return False  # an interrupted trial fits again what it had fitted
        if number in self._child_runs:
            metrics = {f"validation/{key}": scores[key] for key in ("score", *_DETAILS)}
            self._child_runs[number].log_metrics(
                metrics | {"training_loss": scores["training_loss"]}, step=steps
            )
        stopped = self._stop_rule(number, scores) or trial.user_attrs.get(_STOPPED) == steps
        running = optuna.trial.Trial(self._study, trial._trial_id)
        if stopped and _STOPPED not in trial.user_attrs:
            running.set_user_attr(_STOPPED, steps)
        details = trial.user_attrs.get("details", {})
        if str(steps) not in details:  # else a kill came before the report
            now = plain({key: scores.get(key) for key in _DETAILS})
            running.set_user_attr("details", details | {str(steps): now})
        running.report(float(scores["score"]), steps)
        self._show(0)
        return stopped

    def end(self, number: int, *, failed: bool = False) -> None:
        """Ends a trial. One that failed stays open in the journal: a search that goes on tries it
        again."""
        trial = self._trial(number)
        score = max(trial.intermediate_values.values(), default=None)
        if (child := self._child_runs.pop(number, None)) is not None:
            if score is not None:
                best = {"best_score": score, "best_steps": _best_steps(trial)}
                child.log_metrics(
                    {f"validation/{key}": value for key, value in best.items()},
                    step=trial.last_step,
                )
            if _STOPPED in trial.user_attrs:
                child.set_tags({"ethoray.stopped_after_steps": trial.user_attrs[_STOPPED]})
            child.finish("FAILED" if failed else "FINISHED")
        if not failed:
            assert score is not None, "a trial ended without a score"
            self._study.tell(number, score)
        self._show(1)

    def _trial(self, number: int) -> FrozenTrial:
        return self._study.get_trials(deepcopy=False)[number]

    def _ended(self) -> list[FrozenTrial]:
        return list(self._study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]))

    def _draw_trial(self) -> FrozenTrial:
        """A new trial. It is drawn in memory, so that it enters the journal whole, in one line."""
        before = self._study.trials
        in_memory = optuna.create_study(
            direction="maximize", sampler=sampler(self._tuning, number=len(before))
        )
        in_memory.add_trials(before)
        if fixed := grid_point(self._tuning, number=len(before)):
            in_memory.enqueue_trial(fixed)
        trial = in_memory.ask()
        trial.set_user_attr("choice", draw(self._tuning.search, trial))
        self._study.add_trial(in_memory.trials[-1])
        return self._trial(trial.number)

    def _start_child_run(self, trial: FrozenTrial, *, resume: bool) -> None:
        if self._run is not None:
            name = f"{self._name}trial {trial.number:0{len(str(self._tuning.trials - 1))}}"
            self._child_runs[trial.number] = self._run.tracking.start(
                self._run.experiment,
                name,
                parent=self._run,
                params=fit_params(self._tuning.with_choice(trial.user_attrs["choice"])),
                resume=resume,
            )

    def _show(self, ended: int) -> None:
        if self._bar is not None:
            scores = [
                score
                for trial in self._study.get_trials(deepcopy=False)
                for score in trial.intermediate_values.values()
            ]
            self._bar.set_postfix_str(
                f"best on validation {max(scores):.3f}" if scores else "", refresh=not ended
            )
            self._bar.update(ended)

    def __enter__(self) -> None:
        total, ended = self._tuning.trials, self._tuning.trials - self.remaining
        self._bar = tqdm(total=total, initial=ended, desc="trials", unit="trial")

    def __exit__(self, *error: object) -> None:
        assert self._bar is not None
        self._bar.close()


def _open_journal(path: Path) -> optuna.storages.JournalStorage:
    """The journal, without what a kill may have left of its last line and its lock."""
    if path.is_file():
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    return optuna.storages.JournalStorage(
        JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path)))
    )


def _is_stopped(trial: FrozenTrial) -> bool:
    return bool(trial.intermediate_values) and trial.user_attrs.get(_STOPPED) == trial.last_step


def _best_steps(trial: FrozenTrial) -> int:
    """Steps of the highest score, the fewest of equals."""
    scores = trial.intermediate_values
    return int(max(scores, key=lambda steps: (scores[steps], -steps)))
