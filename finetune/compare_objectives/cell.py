"""One cell of the table: a network that learned by one recipe for a given time, judged by heads on
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

RANDOM_WEIGHTS, HAND_MADE = "random weights", "hand-made features"
Mode = Literal["probe", "tuned", "permuted"]
SCORES = ("macro_f1", "macro_f1_std", "map", "map_std", "chance_map", "per_seed")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is learned, and with which network."""

    column: str
    """Name of the recipe, ``random weights``, or ``hand-made features``."""
    row: str
    """Name of the network."""
    recipe: Recipe
    learns: bool
    """Whether the weights are trained at all."""

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.column} {self.row}".replace(" ", "_").replace("/", "_")


@dataclass(frozen=True, kw_only=True)
class ProbeProtocol:
    """The labels and heads that judge every cell alike."""

    problems: Sequence[Problem]
    """With the videos that labels may be drawn from, and the test videos."""
    validation: Sequence[Labelled]
    """Of each problem: training videos that no head is fitted on, to choose by."""
    videos: int | None
    """Label budget of a seed; None for all."""
    probe: Tuning
    """A linear head on the frozen encoder."""
    tuned: Tuning
    """The same with the encoder trained along."""

    def budget(self, seed: int, *, permute: bool = False) -> list[Problem]:
        """The labels that a seed draws, the same for every cell."""
        return draw_budget(list(self.problems), videos=self.videos, seed=seed, permute=permute)


def run_cell(
    cell: Cell, store: Store, poses: Frames, protocol: ProbeProtocol, *, seconds: float
) -> dict[str, Any]:
    """Pretrains a network on all frames of the store, without a label, for so many seconds of
    processor time, and scores it on the frames of the labelled videos.

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
    scores: dict[str, Any] = {}
    for mode in modes(cell):
        if mode == "tuned":
            # Random weights have nothing to lose: they learn at the head's own rate.
            tuning = protocol.tuned
            if not cell.learns:
                tuning = replace(tuning, encoder_lr_share=1.0)
            scores[mode] = _scores(mode, poses, protocol, tuning, embedder)
        else:
            scores[mode] = _scores(mode, embedded, protocol, protocol.probe, None)
    return {
        "column": cell.column,
        "row": cell.row,
        "encoder": dict(cell.recipe.encoder),
        "objective": dict(cell.recipe.objective),
        "parameters": sum(weight.numel() for weight in embedder.encoder.parameters()),
        "learning": learning,
        "modes": scores,
    }


def modes(cell: Cell) -> list[Mode]:
    """How a cell is judged; hand-made features have no weights to tune."""
    if cell.recipe.encoder["name"] == HANDMADE:
        return ["probe", "permuted"]
    return ["probe", "tuned", "permuted"]


def _scores(
    mode: Mode, frames: Frames, protocol: ProbeProtocol, tuning: Tuning, embedder: Embedder | None
) -> dict[str, Any]:
    """Scores over seeds on test and on validation."""
    test, validation = {}, {}
    for seed in tuning.seed_list:
        budget = protocol.budget(seed, permute=mode == "permuted")
        ((_, _, model),) = fit(
            frames, budget, tuning, embedder=embedder, seed=seed, stops=[tuning.steps]
        )
        test_labels = [problem.test for problem in budget]
        videos = [
            {*labels, *kept} for labels, kept in zip(test_labels, protocol.validation, strict=True)
        ]
        probabilities = model.predict(frames, budget, videos)
        test[seed] = score_problems(budget, probabilities, test_labels)
        validation[seed] = score_problems(budget, probabilities, protocol.validation)
    return {"test": _short(test), "validation": _short(validation)}


def _short(by_seed: Mapping[int, Any]) -> dict[str, Any]:
    values = over_seeds(by_seed).to_dict()
    return {key: values[key] for key in SCORES}
