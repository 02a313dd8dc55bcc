"""Untrained learners to measure with. No Ray, no MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from walks import sample_pose

from pretrain.components import build
from pretrain.config import RECIPES, Recipe, read
from pretrain.data.schema import CALMS21, Schema
from pretrain.encoders import build_embedder
from pretrain.objectives import AbstractObjective
from pretrain.train.learner import Learner
from pretrain.transforms.augment import Augment


def recipe_of(name: str, changes: Mapping[str, Any]) -> Recipe:
    """A recipe by name, with values laid over it."""
    return read(Recipe, name, RECIPES, dict(changes))


def learner_of(recipe: Recipe, schema: Schema = CALMS21) -> Learner:
    """An untrained learner, as a run would make it, fitted on a walk."""
    torch.manual_seed(recipe.seed)
    embedder = build_embedder(schema, features=recipe.features, encoder=recipe.encoder)
    objective = build(
        "pretrain.objectives", recipe.objective, AbstractObjective, embedder.dim, schema
    )
    pose = sample_pose()
    embedder.features.fit(pose)
    objective.fit(pose)
    return Learner(embedder, objective, Augment(**recipe.augment), precision=recipe.precision)
