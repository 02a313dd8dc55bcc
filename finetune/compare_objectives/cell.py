"""One cell of a grid: an encoder that learned by one recipe for a given time, judged by heads on
few labels. Plain torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from finetune.fit.fit import fit, score_problems
from finetune.fit.frames import Frames, embed
from finetune.fit.open_encoder import HANDMADE
from finetune.labels.problems import Labelled, Problem, draw_budget
from finetune.metrics.frame_metrics import over_seeds
from finetune.settings import Tuning
from pretrain.config import Recipe
from pretrain.data.store import Store
from pretrain.encoders import Embedder
from pretrain.train.in_memory import learn_in_memory
from pretrain.train.learner import new_learner
from pretrain.train.torch_setup import configure_torch

Mode = Literal["probe", "tuned", "permuted"]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is learned, and with which network."""

    column: str
    """Name of the recipe, ``random weights``, or ``hand-made features``."""
    row: str
    """Name of the encoder."""
    recipe: Recipe
    learns: bool
    """Whether the weights are trained at all."""

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.column} {self.row}".replace(" ", "_").replace("/", "_")


@dataclass(frozen=True, kw_only=True)
class ProbeProtocol:
    """The heads that judge every cell alike."""

    problems: Sequence[Problem]
    """With the videos that labels may be drawn from, and the test videos."""
    validation: Sequence[Labelled]
    """Of each problem: training videos that no head is fitted on, to choose by."""
    videos: int | None
    probe: Tuning
    """A linear head on the frozen encoder."""
    tuned: Tuning
    """The same with the encoder trained along."""

    def budget(self, seed: int, *, permute: bool = False) -> list[Problem]:
        """The labels that a seed draws, the same for every cell."""
        return draw_budget(list(self.problems), videos=self.videos, seed=seed, permute=permute)


def work(
    cell: Cell, store: Store, poses: Frames, judges: ProbeProtocol, *, seconds: float
) -> dict[str, Any]:
    """Learns and is judged.

    Args:
        cell: What.
        store: Where it learns from: all frames, no label.
        poses: Frames of the labelled videos.
        judges: The heads.
        seconds: Processor time of learning.

    Returns:
        Plain values: ``learning`` (steps, loss…), ``parameters``, and for each mode the scores on
        ``validation`` and ``test``.
    """
    configure_torch()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if cell.learns:
        embedder, learning = learn_in_memory(cell.recipe, store, seconds=seconds, device=device)
    else:
        embedder, learning = new_learner(cell.recipe, store).embedder.eval(), {}
    embedded = embed(poses, embedder, device=device)
    embedder = embedder.to("cpu")
    found: dict[str, Any] = {}
    for mode in modes(cell):
        found[mode] = _judged(
            mode,
            embedded if mode != "tuned" else poses,
            judges,
            embedder=embedder if mode == "tuned" else None,
            whole_rate=not cell.learns,
        )
    return {
        "column": cell.column,
        "row": cell.row,
        "encoder": dict(cell.recipe.encoder),
        "objective": dict(cell.recipe.objective),
        "parameters": sum(weight.numel() for weight in embedder.encoder.parameters()),
        "learning": learning,
        "modes": found,
    }


def modes(cell: Cell) -> list[Mode]:
    """How a cell is judged; features made by hand have no weights to tune."""
    return (
        ["probe", "permuted"]
        if cell.recipe.encoder["name"] == HANDMADE
        else ["probe", "tuned", "permuted"]
    )


def _judged(
    mode: Mode,
    frames: Frames,
    judges: ProbeProtocol,
    *,
    embedder: Embedder | None,
    whole_rate: bool,
) -> dict[str, Any]:
    tuning = judges.tuned if mode == "tuned" else judges.probe
    if mode == "tuned" and whole_rate:
        tuning = replace(tuning, encoder_lr_share=1.0)  # random weights have nothing to lose
    test, validation = {}, {}
    for seed in tuning.seed_list:
        budget = judges.budget(seed, permute=mode == "permuted")
        ((_, _, model),) = fit(
            frames, budget, tuning, embedder=embedder, seed=seed, stops=[tuning.steps]
        )
        wanted = [{**p.test, **held} for p, held in zip(budget, judges.validation, strict=True)]
        found = model.predict(frames, budget, wanted)
        test[seed] = score_problems(budget, found, [p.test for p in budget])
        validation[seed] = score_problems(budget, found, judges.validation)
    return {
        side: _short(over_seeds(held).to_dict())
        for side, held in (("test", test), ("validation", validation))
    }


def _short(held: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: held[key]
        for key in ("macro_f1", "macro_f1_std", "map", "map_std", "chance_map", "per_seed")
    }
