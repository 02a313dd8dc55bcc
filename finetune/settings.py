"""What a task is tuned with: one YAML a task in ``finetune/tasks/``, every key of it typed here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from pretrain.components import (
    Count,
    NotNegative,
    Positive,
    Seed,
    Share,
    ShareBelow1,
    TwoOrMore,
    Whole,
    field_errors,
)
from pretrain.config import make, override, plain
from pretrain.errors import BadInput, refuse
from pretrain.runs import paths

TASKS = Path(__file__).parent / "tasks"


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How heads are fitted, searched and scored."""

    RENAMED: ClassVar[Mapping[str, str]] = {
        "after": "postprocess_folds",
        "beside": "extra_features",
        "focal_gamma": "loss: {name: focal, gamma: …}",
    }
    """Keys of earlier versions, and how to write them now."""

    head: Mapping[str, Any] = field(default_factory=lambda: {"name": "temporal"})
    """``name`` (a file in finetune/heads/) and its settings. ``annotator: embedding``, with any of
    them: annotators share one output and have a learned style each; ``apart``, the default: an
    output for each."""
    start: str | None = None
    """Folder that ethoray meta-learn left: initial weights of the head, learned on other
    behaviours."""
    extra_features: Sequence[str] = ()
    """External features (`ethoray prepare check` lists those of the store) that the head reads next
    to the embedding."""
    frozen: bool = True
    """Whether the encoder stays as it is (its embeddings are then computed once for a search)."""
    optimiser: Literal["adamw", "sgd"] = "adamw"
    """adamw: under a cosine with warm-up; sgd: plain gradient descent at a constant rate, for which
    the weights of ``start`` were learned."""
    lr: Positive = 0.003
    """Peak learning rate of the head."""
    encoder_lr_share: Positive = 0.1
    """Learning rate of an encoder that is not frozen, as a share of ``lr``."""
    weight_decay: NotNegative = 0.01
    steps: Count = 300
    """Optimiser steps, at most: the search may find that fewer do better."""
    batch: Count = 16
    """Windows a step."""
    window: TwoOrMore = 256
    """Frames of a window."""
    class_weight: NotNegative = 0.5
    """Power of the inverse class frequency that weighs the loss: 0 = none, 1 = balanced."""
    class_weights: Mapping[str, float] = field(default_factory=dict)
    """Class to its weight in the loss, instead of ``class_weight``; a class that is not named has
    the weight 1."""
    loss: str | Mapping[str, Any] = "cross_entropy"
    """A file in finetune/fit/losses/: its name, or ``name`` and its settings,
    ``loss: {name: focal, gamma: 1}``."""
    logit_adjustment: NotNegative = 0.0
    """Times the log share of a class, added to its logits while fitting: 1 = decisions as if all
    classes were equally frequent."""
    balanced_sampling: Share = 0.0
    """0: windows are drawn around frames, 1: around classes, each as often as any other."""
    label_smoothing: ShareBelow1 = 0.0
    soft_boundaries: Whole = 0
    """Frames to either side of a transition within which labels change from one class to the
    next."""
    permute_labels: bool = False
    """The control: labels of every training video are shifted in time, so that bouts stay as they
    are but no longer fit what the animals do."""
    validation: float = 0.25
    """Share of the labelled training videos that the search is scored on."""
    evaluations: Count = 6
    """Validation scores taken while a trial is fitted; at each a bad trial may be stopped."""
    postprocess_folds: Whole = 3
    """Folds of the training videos for learning calibration, decision rule and smoothing on videos
    that the network was not fitted on: as many more fits, once for all seeds that learn from the
    same labels. 1: one fit, with the share ``validation`` held out; 0: no postprocessing. A step is
    used only where it helped there. Scores of the protocol are always those of the network
    alone."""
    trials: Count = 8
    search: Mapping[str, Any] = field(default_factory=dict)
    """Dotted key to a list of choices, or to {low, high, log}. A choice that holds keys may hold
    spaces again, which are searched where it is taken:
    ``head: [{name: linear}, {name: temporal, width: [32, 64]}]``."""
    searcher: Literal["random", "optuna", "grid"] = "random"
    """What chooses within the search space: chance; Optuna, which learns from earlier trials; or
    grid: each combination of the lists of ``search`` in turn, the last key varying first. ASHA
    stops bad trials of all three."""
    search_from: int = 1
    """Labelled training videos of a problem from which on the search is made; with fewer, the
    settings stand as they are: what a video or two says of them is chance."""
    search_each_seed: bool = False
    """With a label budget: whether each seed searches on its own labelled videos, at as many times
    the cost. Else the choice made on those of ``first_seed`` scores the others too, and the result
    says so."""
    seeds: Count = 3
    first_seed: Seed = 42
    recipe: str = "contrastive"
    """Whose network ``--encoder none`` starts from random weights."""

    def __post_init__(self) -> None:
        errors = field_errors(self)
        if not 0 < self.validation < 1:
            errors.append(f"validation is {self.validation}; it must lie between 0 and 1")
        errors += [
            f"class_weights: that of {name} is {value}; it must not be negative"
            for name, value in self.class_weights.items()
            if value < 0
        ]
        if not isinstance(self.head.get("name"), str):
            errors.append("head needs a `name`")
        if isinstance(self.loss, Mapping) and not isinstance(self.loss.get("name"), str):
            errors.append("loss needs a `name`: loss: {name: focal, gamma: 1}")
        if self.start is not None:
            # Trials run in other folders.
            object.__setattr__(self, "start", paths.absolute_address(self.start))
        for key, space in self.search.items():
            errors += [f"search key {key!r}: {sentence}" for sentence in _check_space(space)]
        if self.searcher == "grid":
            errors += [
                f"search key {key!r}: a grid takes lists of choices, not {space!r}"
                for key, space in self.search.items()
                if not isinstance(space, list)
            ]
        refuse(errors, about="the tuning settings")
        if self.searcher == "grid" and self.search:
            combinations = math.prod(map(len, self.search.values()))
            object.__setattr__(self, "trials", min(self.trials, combinations))

    @property
    def seed_list(self) -> Sequence[int]:
        """The seeds that are scored on test."""
        return range(self.first_seed, self.first_seed + self.seeds)

    def with_choice(self, choice: Mapping[str, Any]) -> Tuning:
        """These settings with those of a trial in their place.

        Raises:
            BadInput: If a searched key does not exist or a value has the wrong type.
        """
        values = plain(replace(self, search={}))
        override(values, choice, about="search key")
        return make(Tuning, values, about="a trial of the search")


def saved_settings(values: Mapping[str, Any], *, about: str) -> Tuning:
    """The settings that a ``result.json`` holds, also of earlier versions.

    Raises:
        BadInput: If a key is unknown or a value has the wrong type.
    """
    new = dict(values)
    gamma = new.pop("focal_gamma", None)
    if gamma is not None and new.get("loss") == "focal":
        new["loss"] = {"name": "focal", "gamma": gamma}
    return make(
        Tuning,
        {Tuning.RENAMED.get(key, key): value for key, value in new.items()},
        about=about,
    )


def _check_space(space: Any) -> list[str]:
    """What is wrong with a search space."""
    if isinstance(space, list) and space:
        return [
            f"{key}: {error}"
            for choice in space
            if isinstance(choice, Mapping)
            for key, inner in choice.items()
            if isinstance(inner, list | Mapping)
            for error in _check_space(inner)
        ]
    if isinstance(space, Mapping) and {"low", "high"} <= set(space) <= {"low", "high", "log"}:
        low, high = space["low"], space["high"]
        if (
            all(isinstance(v, int | float) for v in (low, high))
            and low < high
            and (low > 0 or not space.get("log"))
        ):
            return []
    return [
        f"{space!r}; allowed: a list of choices, or low and high (and log: true, for numbers above "
        "0)"
    ]


def task_file(task: str) -> str:
    """The settings file of a task: its own, or the default for any label set."""
    if "/" in task or not task:
        raise BadInput(f"--task {task!r}: give the name of a label set")
    return task if (TASKS / f"{task}.yaml").is_file() else "default"
