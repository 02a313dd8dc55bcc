"""Search spaces of task files, and the choice of one trial, drawn by Optuna."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import optuna

from finetune.settings import Tuning


def sampler(tuning: Tuning, *, number: int) -> optuna.samplers.BaseSampler:
    """Chooses the values of one trial: ``random``, or ``optuna``'s tree-structured Parzen estimator
    (Bergstra et al. 2011), random at first.

    Every trial has its own, seeded by its number, so that its choice depends on nothing that is
    lost when a search is interrupted.
    """
    seed = int(np.random.SeedSequence([tuning.first_seed, number]).generate_state(1)[0])
    if tuning.searcher != "optuna":
        return optuna.samplers.RandomSampler(seed=seed)
    # Optuna's own ten random trials are more than many a search has.
    startup = max(3, min(10, tuning.trials // 4))
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup)


def grid_point(tuning: Tuning, *, number: int) -> dict[str, int]:
    """The indices of a trial's choices, the last key varying first; of ``grid`` only. Spaces inside
    a choice are drawn at random."""
    indices: dict[str, int] = {}
    rest = number
    for key in reversed(list(tuning.search) if tuning.searcher == "grid" else []):
        rest, indices[key] = divmod(rest, len(tuning.search[key]))
    return indices


def only_choice(tuning: Tuning) -> dict[str, Any] | None:
    """What a grid of one combination holds; None where there is something to choose."""
    if tuning.searcher != "grid":
        return None
    every = list(examples(tuning.search))
    return every[0] if every and all(one == every[0] for one in every) else None


def draw(space: Mapping[str, Any], trial: optuna.Trial) -> dict[str, Any]:
    """A value for every searched key.

    Args:
        space: Dotted key to a list of choices, or to {low, high, log}. A choice that holds keys may
            hold spaces again, ``head: [{name: linear}, {name: temporal, width: [32, 64]}]``; they
            are searched where it is drawn.
        trial: Optuna's.
    """
    return {key: _draw_value(key, values, trial) for key, values in space.items()}


def _draw_value(name: str, space: Any, trial: optuna.Trial) -> Any:
    if isinstance(space, list):
        index = trial.suggest_categorical(name, list(range(len(space))))
        return _draw_inside(f"{name}[{index}]", space[index], trial)
    low, high, log = space["low"], space["high"], bool(space.get("log"))
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(name, low, high, log=log)
    return trial.suggest_float(name, low, high, log=log)


def _draw_inside(name: str, choice: Any, trial: optuna.Trial) -> Any:
    if not isinstance(choice, Mapping):
        return choice
    return {
        key: _draw_value(f"{name}.{key}", value, trial) if _is_space(value) else value
        for key, value in choice.items()
    }


def examples(space: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Choices that use each alternative of each key, so that an impossible one is refused before a
    search starts."""
    alternatives = {key: list(_alternatives(values)) for key, values in space.items()}
    first = {key: values[0] for key, values in alternatives.items()}
    for key, values in alternatives.items():
        for value in values:
            yield {**first, key: value}


def _alternatives(space: Any) -> Iterator[Any]:
    if not isinstance(space, list):
        yield from (space["low"], space["high"])
        return
    for choice in space:
        inner = (
            {key: value for key, value in choice.items() if _is_space(value)}
            if isinstance(choice, Mapping)
            else {}
        )
        if inner:
            yield from ({**choice, **values} for values in examples(inner))
        else:
            yield choice


def _is_space(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, Mapping) and {"low", "high"} <= set(value))
