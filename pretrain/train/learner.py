"""Windows in, loss out: views, one encoder pass over all of them, objective. No Ray."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import manual_seed, nn

from pretrain.components import build
from pretrain.config import Precision, Recipe
from pretrain.data.sample import sample
from pretrain.data.store import Store
from pretrain.data.window_rng import WindowRNG
from pretrain.data.windows import Windows, concatenate
from pretrain.encoders import Embedder, build_embedder
from pretrain.errors import BadInput, refuse
from pretrain.objectives import AbstractObjective, Loss, View
from pretrain.train.diagnostics.collapse_metrics import collapse_metrics
from pretrain.train.torch_setup import matmul_precision, one_thread
from pretrain.transforms.augment import Augment


class Learner(nn.Module):
    """Everything that is trained, as one module: what is wrapped, stepped and checkpointed.

    Args:
        embedder: Features and encoder; what remains in the end.
        objective: Its loss, with the heads that belong to it.
        augment: How views differ. An objective of one view gets one augmented view as well.
        precision: Of matrix products (pretrain/train/torch_setup.py); losses and weights are
            float32.

    Attributes:
        watch: Whether the next step also measures signs of collapse; to be set where a step's
            values are logged.
    """

    def __init__(
        self,
        embedder: Embedder,
        objective: AbstractObjective,
        augment: Augment,
        *,
        precision: Precision = "auto",
    ) -> None:
        super().__init__()
        self.embedder, self.objective = embedder, objective
        self.augment, self.precision = augment, precision
        self.watch = False

    def forward(self, windows: Windows) -> Loss:
        """The loss of this worker's rows."""
        rng = WindowRNG(windows.key_B)
        schema = self.embedder.features.schema
        names = [str(view) for view in range(self.objective.views)]
        exact = [self.augment.exact(windows.pose, schema, rng, view=name) for name in names]
        poses = [
            self.augment.with_tracker_errors(pose, schema, rng, view=name)
            for name, pose in zip(names, exact, strict=True)
        ]
        inputs = [
            self.objective.mask(pose, windows, rng, view=view) for view, pose in enumerate(poses)
        ]
        with matmul_precision(self.precision, windows.valid_BT.device.type):
            z = self.embedder(concatenate(inputs), windows.valid_BT.repeat(len(poses), 1))
            views = tuple(
                View(pose, z_BTD.float(), before)
                for pose, z_BTD, before in zip(poses, z.chunk(len(poses)), exact, strict=True)
            )
            loss: Loss = self.objective(views, windows, rng)
        if self.watch:
            encoded = [View(pose, view.z_BTD) for pose, view in zip(inputs, views, strict=True)]
            loss = Loss(loss.total, {**loss.parts, **collapse_metrics(encoded, windows, rng)})
        return loss


def new_learner(recipe: Recipe, store: Store) -> Learner:
    """An untrained learner: weights from the seed, scales fitted on a sample of the store.

    Raises:
        BadInput: If the recipe names what there is not, or does not fit the store's skeleton.
    """
    embedder, objective = build_unfitted(recipe, store)
    with one_thread():
        poses = sample(store, seed=recipe.seed, features=tuple(embedder.features.external))
        embedder.features.fit(poses)
        objective.fit(poses)
    return Learner(embedder, objective, Augment(**recipe.augment), precision=recipe.precision)


def build_unfitted(recipe: Recipe, store: Store) -> tuple[Embedder, AbstractObjective]:
    """The parts of a learner before any pose is read: enough to refuse a recipe by.

    Raises:
        BadInput: As :func:`new_learner`.
    """
    manual_seed(recipe.seed)
    embedder = build_embedder(store.schema, features=recipe.features, encoder=recipe.encoder)
    objective: AbstractObjective = build(
        "pretrain.objectives", recipe.objective, AbstractObjective, embedder.dim, store.schema
    )
    check_external_features(embedder.features.external, store)
    return embedder, objective


def restore(learner: Learner, state: Mapping[str, Any]) -> None:
    """Gives it the state of a checkpoint.

    Raises:
        BadInput: If it is of another network.
    """
    try:
        learner.load_state_dict(state)
    except RuntimeError as error:
        raise BadInput(
            "the checkpoint is of an earlier release in which this encoder or objective was "
            f"another network: finish the run with that release, or choose another --out. {error}"
        ) from error


def check_external_features(external: Mapping[str, int], store: Store) -> None:
    """Refuses external features that a store does not have.

    Args:
        external: Name to dimension.
        store: The store.

    Raises:
        BadInput: If one is not there or has another dimension.
    """
    refuse(
        [
            f"{name} has dimension {dim} here, {store.feature(name)['dim']} in the store"
            for name, dim in external.items()
            if store.feature(name)["dim"] != dim
        ],
        about=f"external features (features.external) do not fit the store {store.uri}",
    )
