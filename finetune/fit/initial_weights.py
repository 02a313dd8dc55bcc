"""Initial weights of a head that `ethoray meta-learn` learned on other behaviours."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from finetune.heads import AbstractHead, without_annotators
from finetune.labels.problems import Problem
from pretrain.errors import BadInput, refuse

REST, BEHAVIOUR = 0, 1
"""The two outputs of a head that was trained on one behaviour against the rest."""


def save_initial_weights(
    folder: Path, head: AbstractHead, *, head_settings: Mapping[str, Any], about: Mapping[str, Any]
) -> None:
    """Writes ``start.json`` (``behaviours`` learned from, head, whatever else ``about`` says) and
    ``start.safetensors``."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: x.detach().cpu().contiguous() for name, x in head.state_dict().items()}
    safetensors.torch.save_file(state, folder / "start.safetensors")
    (folder / "start.json").write_text(
        json.dumps({"head": dict(head_settings), **about}, indent=1) + "\n", encoding="utf-8"
    )


def load_initial_weights(
    folder: str, head: AbstractHead, head_settings: Mapping[str, Any], problems: Sequence[Problem]
) -> None:
    """Gives a head, in place, the weights of a folder: every behaviour begins as the behaviour they
    were learned on, the rest class as its rest.

    Raises:
        BadInput: If the folder holds no weights, those of another head or width, or some that were
            learned on a behaviour of these problems.
    """
    path = Path(folder)
    try:
        about = json.loads((path / "start.json").read_text(encoding="utf-8"))
        state = safetensors.torch.load_file(path / "start.safetensors")
        learned_on, settings = set(about["behaviours"]), dict(about["head"])
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise BadInput(
            f"start: {path} holds no initial weights (`ethoray meta-learn` makes them): {error}"
        ) from error
    needed = without_annotators(head_settings)
    behaviours = {name for problem in problems for name in problem.classes if name != problem.rest}
    errors = []
    if seen := sorted(behaviours & learned_on):
        errors.append(f"they were learned on {', '.join(seen)}, which this task asks for")
    if settings != needed:
        errors.append(f"they are for the head {settings}, this one is {needed}")
    elif state["mean_D"].shape != head.mean_D.shape:
        errors.append(
            f"they are for embeddings of {len(state['mean_D'])} numbers, these have "
            f"{len(head.mean_D)}"
        )
    refuse(errors, about=f"start: the initial weights in {path} cannot be used")
    shared = {name: x for name, x in state.items() if not name.startswith("out.")}
    head.load_state_dict(head.state_dict() | shared)
    with torch.no_grad():
        for problem, out in zip(problems, head.out, strict=False):
            for name, parameter in out.named_parameters():
                parameter.copy_(_rows(state[f"out.0.{name}"], problem))


def _rows(two: Tensor, problem: Problem) -> Tensor:
    """Parameters of the outputs of a problem, from those of (rest, behaviour)."""
    if problem.overlapping:
        return (two[BEHAVIOUR] - two[REST]).expand(len(problem.classes), *two.shape[1:])
    return two[[REST if name == problem.rest else BEHAVIOUR for name in problem.classes]]
