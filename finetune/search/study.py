"""The course of a search: who is asked next, who is stopped, and how an interrupted search goes on.
Plain Python; Ray drives it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from tqdm import tqdm

from finetune.search.history import History
from finetune.search.space import draw, study
from finetune.settings import Tuning
from pretrain.runs.tracked_run import TrackedRun

log = logging.getLogger(__name__)

_KEPT = ("steps", "score", "macro_f1", "map", "training_loss")


class Course:
    """The course of a search, kept in its history, logged to MLflow and shown by a bar (in a
    ``with`` block).

    Choices and stops are functions of what was told before. Told its history again, in order, a
    search stands where it stood.

    Args:
        history: Of this search; what it holds is taken up.
        tuning: Search space, who searches, number of trials.
        stops: Of a trial's number and its latest report, whether it is stopped there; asked once a
            report, in order.
        run: Parent of the trials' runs. The driver logs them: trials need no way to MLflow, and
            none waits for it.
    """

    def __init__(
        self,
        history: History,
        tuning: Tuning,
        *,
        stops: Callable[[int, Mapping[str, float]], bool],
        run: TrackedRun | None,
    ) -> None:
        self._history, self._tuning, self._stops, self._run = history, tuning, stops, run
        self._study = study(tuning.searcher, seed=tuning.first_seed, trials=tuning.trials)
        self._asked: list[optuna.Trial] = []
        self._children: dict[int, TrackedRun] = {}
        self._bar: tqdm[Any] | None = None
        stopped: set[int] = set()
        for event in history.replay():
            if event["kind"] == "asked":
                self._draw()
            elif event["kind"] == "scored" and stops(event["trial"], event["report"]):
                stopped.add(event["trial"])
            elif event["kind"] == "ended":
                self._tell(event["trial"])
        for number in sorted(
            stopped
        ):  # the interruption came between a trial's last score and its end
            if not history.trials[number].ended:
                history.ended(number)
                self._tell(number)
        self._again = [tried.number for tried in history.trials if not tried.ended]
        if history.trials:
            log.info(
                "the search goes on: %d of %d trials are done",
                tuning.trials - self.missing,
                tuning.trials,
            )

    @property
    def missing(self) -> int:
        """Trials that have not ended."""
        return self._tuning.trials - sum(tried.ended for tried in self._history.trials)

    def rows(self) -> list[dict[str, Any]]:
        """Every trial that ended: its choice, the score and the steps that were best, the steps it
        was fitted for."""
        return [
            {
                "choice": dict(tried.choice),
                "steps": int(tried.best["steps"]),
                "score": tried.best["score"],
                "fitted": int(tried.fitted),
            }
            for tried in self._history.trials
            if tried.ended and tried.reports
        ]

    def ask(self) -> tuple[int, Mapping[str, Any]]:
        """Number and choice of the next trial; those that were interrupted come first."""
        known = bool(self._again)
        tried = (
            self._history.trials[self._again.pop(0)] if known else self._history.asked(self._draw())
        )
        if self._run is not None:
            name = f"trial {tried.number:0{len(str(self._tuning.trials - 1))}}"
            self._children[tried.number] = self._run.tracking.start(
                self._run.experiment, name, parent=self._run, params=tried.choice, resume=known
            )
        return tried.number, tried.choice

    def score(self, number: int, report: Mapping[str, float]) -> bool:
        """Takes a trial's report; whether the trial is stopped there."""
        if report["steps"] <= self._history.trials[number].fitted:
            return False  # it was not before the interruption, and fits again what it fitted then
        kept = {key: float(report[key]) for key in _KEPT}
        if number in self._children:
            named = {
                key if key == "training_loss" else f"validation_{key}": value
                for key, value in kept.items()
                if key != "steps"
            }
            self._children[number].log_metrics(named, step=int(kept["steps"]))
        self._history.scored(number, kept)
        self._show(0)
        return self._stops(number, kept)

    def end(self, number: int, *, failed: bool = False) -> None:
        """A trial is over. One that failed is not over for the history: a search that goes on tries
        it again."""
        tried = self._history.trials[number]
        if failed:
            self._study.tell(self._asked[number], state=optuna.trial.TrialState.FAIL)
        else:
            self._history.ended(number)
            self._tell(number)
        if (child := self._children.pop(number, None)) is not None:
            if tried.reports:
                child.log_metrics(
                    {"best_score": tried.best["score"], "best_steps": tried.best["steps"]},
                    step=int(tried.fitted),
                )
            child.finish("FAILED" if failed else "FINISHED")
        self._show(1)

    def _draw(self) -> dict[str, Any]:
        self._asked.append(self._study.ask())
        return draw(self._tuning.search, self._asked[-1])

    def _tell(self, number: int) -> None:
        tried = self._history.trials[number]
        if tried.reports:
            self._study.tell(self._asked[number], tried.best["score"])
        else:
            self._study.tell(self._asked[number], state=optuna.trial.TrialState.FAIL)

    def _show(self, more: int) -> None:
        scores = [tried.best["score"] for tried in self._history.trials if tried.reports]
        if self._bar is not None:
            self._bar.set_postfix_str(
                f"best on validation {max(scores):.3f}" if scores else "", refresh=not more
            )
            self._bar.update(more)

    def __enter__(self) -> None:
        done = self._tuning.trials - self.missing
        self._bar = tqdm(total=self._tuning.trials, initial=done, desc="trials", unit="trial")

    def __exit__(self, *error: object) -> None:
        assert self._bar is not None
        self._bar.close()
