"""A fitted classifier on disk: an encoder folder that holds a head as well."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch

from finetune.fit.fit import Model
from finetune.heads import AbstractHead, build_head
from finetune.labels.problems import Problem
from finetune.postprocess.postprocessing import Postprocessing
from pretrain.encoders import Embedder
from pretrain.errors import BadInput
from pretrain.redact import write_json
from pretrain.train.checkpoint import load_encoder, save_encoder


def save_model(
    folder: Path,
    head: AbstractHead,
    embedder: Embedder,
    problems: Sequence[Problem],
    *,
    head_settings: Mapping[str, Any],
    made_by: Mapping[str, Any],
    postprocessing: Sequence[Postprocessing] | None = None,
) -> None:
    """Writes ``encoder.json``, ``encoder.safetensors``, ``head.json`` (problems, classes,
    settings), ``head.safetensors``, ``after.json``.

    Args:
        folder: Made if it is not there.
        head: Fitted.
        embedder: The encoder under it.
        problems: What the head answers.
        head_settings: ``name`` and settings that :func:`finetune.heads.build_head` takes.
        made_by: What to say of the encoder.
        postprocessing: For each problem; None writes no ``after.json``.
    """
    save_encoder(folder, embedder, made_by=made_by)
    about = {
        "head": dict(head_settings),
        "problems": [
            {
                "name": p.name,
                "task": p.task,
                "classes": list(p.classes),
                "annotator": p.annotator,
                "overlapping": p.overlapping,
                "refines": p.refines,
            }
            for p in problems
        ],
    }
    write_json(folder / "head.json", about)
    safetensors.torch.save_file(
        {name: x.detach().cpu().contiguous() for name, x in head.state_dict().items()},
        folder / "head.safetensors",
    )
    if postprocessing is not None:
        assert len(postprocessing) == len(problems), "one for each problem"
        (folder / "after.json").write_text(
            json.dumps([steps.to_dict() for steps in postprocessing], indent=1) + "\n",
            encoding="utf-8",
        )


def load_postprocessing(folder: Path, problems: int) -> list[Postprocessing] | None:
    """The postprocessing of each of so many problems; None where the model was saved without.

    Raises:
        BadInput: If it is damaged.
    """
    path = folder / "after.json"
    if not path.is_file():
        return None
    try:
        postprocessing = [
            Postprocessing.from_dict(values)
            for values in json.loads(path.read_text(encoding="utf-8"))
        ]
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(f"the model {folder} is damaged: after.json: {error}") from error
    if len(postprocessing) != problems:
        raise BadInput(
            f"the model {folder} is damaged: after.json has {len(postprocessing)} entries for "
            f"{problems} problems"
        )
    return postprocessing


def load_model(folder: Path) -> tuple[Model, list[dict[str, Any]]]:
    """Reads what :func:`save_model` wrote: the model, and the ``problems`` of its head.json.

    Raises:
        BadInput: If the folder holds no model, or a damaged one.
    """
    embedder, _ = load_encoder(folder)
    try:
        about = json.loads((folder / "head.json").read_text(encoding="utf-8"))
        head = build_head(
            about["head"],
            embedder.dim,
            [len(problem["classes"]) for problem in about["problems"]],
            fps=embedder.features.schema.fps,
        )
        head.load_state_dict(safetensors.torch.load_file(folder / "head.safetensors"))
    except BadInput:
        raise
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RuntimeError,
        safetensors.SafetensorError,
    ) as error:
        raise BadInput(f"the model {folder} is damaged: {error}") from error
    return Model(head.eval(), embedder), about["problems"]
