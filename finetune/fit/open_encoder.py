"""What ``--encoder`` means: a pretrained one, the same network from random weights, or no network
at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pretrain.config import RECIPES, Recipe, read
from pretrain.data.sample import sample
from pretrain.data.store import Store
from pretrain.encoders import Embedder, build_embedder
from pretrain.train.checkpoint import load_encoder
from pretrain.train.learner import refuse_unlike

RANDOM, HANDMADE = "none", "handmade"


def open_encoder(
    given: str, store: Store, *, recipe: str, seed: int, beside: Sequence[str] = ()
) -> tuple[Embedder, dict[str, Any]]:
    """The encoder of a run.

    Args:
        given: A pretraining run or encoder folder; ``none``: the network of ``recipe`` from random
            weights; ``handmade``: hand-made features and their means over time.
        store: Poses it is to embed; what is not pretrained is fitted to their spread.
        recipe: Whose network ``none`` means: a name, a file, or a pretraining run.
        seed: Of the random weights.
        beside: Features from elsewhere, by their names in the store, that heads see beside what the
            encoder makes.

    Returns:
        The embedder, and what to say of it in ``result.json``.

    Raises:
        BadInput: If there is no such encoder or it does not fit the store's skeleton.
    """
    if given not in (RANDOM, HANDMADE):
        embedder, about = load_encoder(given, store.schema)
        refuse_unlike(embedder.external, store)
        return _with(beside, embedder, store, seed=seed), {
            "kind": "pretrained",
            "folder": given,
            "made_by": about.get("made_by", {}),
        }
    settings = read(Recipe, recipe, RECIPES, {})
    network = settings.encoder if given == RANDOM else {"name": HANDMADE}
    torch.manual_seed(seed)
    embedder = build_embedder(store.schema, features=settings.features, encoder=network).eval()
    refuse_unlike(embedder.features.external, store)
    embedder.features.fit(sample(store, seed=seed, features=tuple(embedder.features.external)))
    kind = "random weights" if given == RANDOM else "hand-made features"
    return _with(beside, embedder, store, seed=seed), {"kind": kind, "encoder": dict(network)}


def _with(names: Sequence[str], embedder: Embedder, store: Store, *, seed: int) -> Embedder:
    """The same with features from elsewhere beside each embedding."""
    if not names:
        return embedder
    extra = {name: int(store.feature(name)["dim"]) for name in names}
    wider = build_embedder(
        embedder.features.schema,
        features=embedder.settings["features"],
        encoder=embedder.settings["encoder"],
        extra_features={**embedder.extra_features, **extra},
    ).eval()
    wider.features.load_state_dict(embedder.features.state_dict())
    wider.encoder.load_state_dict(embedder.encoder.state_dict())
    wider.fit_extra_features(sample(store, seed=seed, features=tuple(wider.external)))
    return wider
