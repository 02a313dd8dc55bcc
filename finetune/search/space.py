"""Search spaces: what a task file says may be tried, and the choice of one trial, drawn by
Optuna."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import optuna

from finetune.settings import Tuning


def sampler(tuning: Tuning, *, number: int) -> optuna.samplers.BaseSampler:
    """Who chooses what a trial tries: ``random``, or ``optuna``'s tree of Parzen estimators
    (Bergstra et al. 2011), random at first.

    Every trial has its own, seeded by its number, so that its choice depends on nothing that is
    lost when a search is interrupted.
    """
    seed = int(np.random.SeedSequence([tuning.first_seed, number]).generate_state(1)[0])
    if tuning.searcher == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    # Optuna's own ten random trials are more than many a search has.
    startup = max(3, min(10, tuning.trials // 4))
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup)


def draw(space: Mapping[str, Any], trial: optuna.Trial) -> dict[str, Any]:
    """A value for every searched key.

    Args:
        space: Dotted key to a list of choices, or to {low, high, log}. A choice that holds keys may
            hold spaces again, ``head: [{name: linear}, {name: temporal, width: [32, 64]}]``; they
            are searched where that choice is taken.
        trial: Optuna's.
    """
    return {key: _value(key, held, trial) for key, held in space.items()}


def _value(name: str, space: Any, trial: optuna.Trial) -> Any:
    if isinstance(space, list):
        place = trial.suggest_categorical(name, list(range(len(space))))
        return _inside(f"{name}[{place}]", space[place], trial)
    low, high, log = space["low"], space["high"], bool(space.get("log"))
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(name, low, high, log=log)
    return trial.suggest_float(name, low, high, log=log)


def _inside(name: str, choice: Any, trial: optuna.Trial) -> Any:
    if not isinstance(choice, Mapping):
        return choice
    return {
        key: _value(f"{name}.{key}", held, trial) if _is_space(held) else held
        for key, held in choice.items()
    }


def examples(space: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Choices that use each alternative of each key, so that one that cannot be is found before a
    search starts."""
    every = {key: list(_examples(held)) for key, held in space.items()}
    for key, alternatives in every.items():
        for alternative in alternatives:
            yield {other: alternative if other == key else held[0] for other, held in every.items()}


def _examples(space: Any) -> Iterator[Any]:
    if not isinstance(space, list):
        yield from (space["low"], space["high"])
        return
    for choice in space:
        inside = (
            {key: list(_examples(held)) for key, held in choice.items() if _is_space(held)}
            if isinstance(choice, Mapping)
            else {}
        )
        if not inside:
            yield choice
        for key, alternatives in inside.items():
            for alternative in alternatives:
                yield {
                    **choice,
                    **{other: held[0] for other, held in inside.items()},
                    key: alternative,
                }


def _is_space(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, Mapping) and {"low", "high"} <= set(value))
