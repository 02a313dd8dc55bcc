"""Where a head starts from: weights that finetune/meta_learn.py learned on other behaviours."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from finetune.heads import AbstractHead
from finetune.labels.problems import Problem
from pretrain.errors import BadInput, refuse

REST, BEHAVIOUR = (
    0,
    1,
)  # places of the two outputs of a head that was trained on one behaviour against the rest


def save_start(
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


def begin_from(
    folder: str, head: AbstractHead, spec: Mapping[str, Any], problems: Sequence[Problem]
) -> None:
    """Gives a head the weights of a start: every behaviour begins as the behaviour of the start,
    the rest class as its rest.

    Args:
        folder: As :func:`save_start` left it.
        head: Changed in place.
        spec: Its settings.
        problems: Its problems.

    Raises:
        BadInput: If the folder holds no start, one of another head or width, or one that has seen a
            behaviour of these problems.
    """
    place = Path(folder)
    try:
        about = json.loads((place / "start.json").read_text(encoding="utf-8"))
        state = safetensors.torch.load_file(place / "start.safetensors")
        learned, made_with = set(about["behaviours"]), dict(about["head"])
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise BadInput(
            f"start: {place} holds nothing to start from (finetune/meta_learn.py makes such a "
            f"folder): {error}"
        ) from error
    asked = {
        key: value for key, value in spec.items() if key not in ("annotator", "annotator_width")
    }
    seen = sorted(
        {name for problem in problems for name in problem.classes if name != problem.rest} & learned
    )
    trouble = [f"it was learned on {', '.join(seen)}, which this task asks for"] if seen else []
    if made_with != asked:
        trouble.append(f"it is for the head {made_with}, asked for is {asked}")
    elif state["mean_D"].shape != head.mean_D.shape:
        trouble.append(
            f"it is for embeddings of {len(state['mean_D'])} numbers, these have {len(head.mean_D)}"
        )
    refuse(trouble, about=f"cannot start from {place}")
    own = head.state_dict()
    head.load_state_dict(
        own | {name: x for name, x in state.items() if not name.startswith("out.")}
    )
    with torch.no_grad():
        for p, out in enumerate(head.out):
            for name, parameter in out.named_parameters():
                parameter.copy_(_rows(state[f"out.0.{name}"], problems[p]))


def _rows(two: Tensor, problem: Problem) -> Tensor:
    if problem.overlapping:
        return (two[BEHAVIOUR] - two[REST]).expand(len(problem.classes), *two.shape[1:])
    return two[[REST if name == problem.rest else BEHAVIOUR for name in problem.classes]]
