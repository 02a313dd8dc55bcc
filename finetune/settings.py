"""What a task is tuned with: one YAML a task in ``finetune/tasks/``, every key of it typed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pretrain.config import make, plain
from pretrain.errors import BadInput, refuse

TASKS = Path(__file__).parent / "tasks"


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How heads are fitted, searched and scored."""

    head: Mapping[str, Any] = field(default_factory=lambda: {"name": "temporal"})
    """``name`` (linear, temporal) and its settings."""
    frozen: bool = True
    """Whether the encoder stays as it is (its embeddings are then computed once a search)."""
    lr: float = 0.003
    """Peak learning rate of the head."""
    encoder_lr_share: float = 0.1
    """Learning rate of an encoder that is not frozen, as a share of ``lr``."""
    weight_decay: float = 0.01
    steps: int = 300
    """Optimiser steps, at most: the search may find that fewer do better."""
    batch: int = 16
    """Windows a step."""
    window: int = 256
    """Frames of a window."""
    class_weight: float = 0.5
    """Power of the inverse class frequency that weighs the loss: 0 = none, 1 = balanced."""
    label_smoothing: float = 0.0
    validation: float = 0.25
    """Share of the labelled training videos that the search is scored on."""
    evaluations: int = 6
    """Validation scores taken while a trial is fitted; each is a place where a bad trial is stopped."""
    trials: int = 8
    search: Mapping[str, Any] = field(default_factory=dict)
    """Dotted key to a list of choices, or to {low, high, log}."""
    seeds: int = 3
    first_seed: int = 42
    recipe: str = "contrastive"
    """Whose network ``--encoder none`` starts from random weights."""

    def __post_init__(self) -> None:
        least = {"steps": 1, "batch": 1, "window": 2, "trials": 1, "seeds": 1, "evaluations": 1}
        problems = [
            f"{name} is {getattr(self, name)}; it must be at least {low}" for name, low in least.items() if getattr(self, name) < low
        ]
        problems += [f"{name} must be above 0" for name in ("lr", "encoder_lr_share") if not getattr(self, name) > 0]
        if not 0 < self.validation < 1:
            problems.append(f"validation is {self.validation}; it must lie between 0 and 1")
        if not 0 <= self.label_smoothing < 1:
            problems.append(f"label_smoothing is {self.label_smoothing}; it must lie in 0…1")
        if not isinstance(self.head.get("name"), str):
            problems.append("head needs a `name`")
        for key, space in self.search.items():
            problems += [f"search key {key!r}: {sentence}" for sentence in _check_space(space)]
        refuse(problems, about="the tuning settings")

    @property
    def seed_list(self) -> Sequence[int]:
        """The seeds that are scored on test."""
        return range(self.first_seed, self.first_seed + self.seeds)

    def with_choice(self, choice: Mapping[str, Any]) -> Tuning:
        """These settings with a trial's values laid over them.

        Raises:
            BadInput: If a searched key does not exist or a value has the wrong type.
        """
        values = plain(replace(self, search={}))
        for dotted, value in choice.items():
            *path, last = dotted.split(".")
            inside = values
            for word in path:
                inside = inside.setdefault(word, {})
            inside[last] = value
        return make(Tuning, values, about="a trial of the search")


Kind = Literal["choice", "range"]


def _check_space(space: Any) -> list[str]:
    if isinstance(space, list) and space:
        return []
    if isinstance(space, Mapping) and {"low", "high"} <= set(space) <= {"low", "high", "log"}:
        low, high = space["low"], space["high"]
        if all(isinstance(v, int | float) for v in (low, high)) and low < high and (low > 0 or not space.get("log")):
            return []
    return [f"{space!r}; allowed: a list of choices, or low and high (and log: true, for numbers above 0)"]


def task_file(task: str) -> str:
    """The settings file of a task: its own, or the default for any label set."""
    if "/" in task or not task:
        raise BadInput(f"--task {task!r}: give the name of a label set")
    return task if (TASKS / f"{task}.yaml").is_file() else "default"
