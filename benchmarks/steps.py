"""What a run does between two batches: an untrained learner of a recipe, and the steps of the training loop. No Ray, no MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from walks import sample_pose

from pretrain.components import build
from pretrain.config import RECIPES, Recipe, read
from pretrain.encoders import build_embedder
from pretrain.learner import Learner
from pretrain.objectives import AbstractObjective
from pretrain.pose.schema import CALMS21, Schema
from pretrain.pose.windows import Windows


def recipe_of(name: str, changes: Mapping[str, Any]) -> Recipe:
    """A recipe by name, with values laid over it."""
    return read(Recipe, name, RECIPES, dict(changes))


def learner_of(recipe: Recipe, schema: Schema = CALMS21) -> Learner:
    """An untrained learner, as a run would make it, fitted on a walk."""
    torch.manual_seed(recipe.seed)
    embedder = build_embedder(schema, features=recipe.features, encoder=recipe.encoder)
    objective = build("pretrain.objectives", recipe.objective, AbstractObjective, embedder.dim, schema)
    pose = sample_pose()
    embedder.features.fit(pose)
    objective.fit(pose)
    return Learner(embedder, objective, recipe.augment, precision=recipe.precision)


class Training:
    """The steps of the training loop on resident windows: views, loss, gradient, clipping, optimiser.

    Args:
        recipe: What is learned.
        learner: Compiled or not.
    """

    def __init__(self, recipe: Recipe, learner: torch.nn.Module) -> None:
        self.recipe, self.learner = recipe, learner
        settings = recipe.optimiser
        self.optimiser = torch.optim.AdamW(learner.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True)

    def step(self, windows: Windows) -> torch.Tensor:
        """One step, as in pretrain/loop.py."""
        loss: torch.Tensor = self.learner(windows).total
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.learner.parameters(), self.recipe.optimiser.clip or torch.inf)
        if not norm.isfinite():
            raise FloatingPointError(f"the gradient is {norm.item()}")
        self.optimiser.step()
        return loss.detach()
