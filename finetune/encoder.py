"""What ``--encoder`` means: a pretrained one, the same network from random weights, or no network at all."""

from __future__ import annotations

from typing import Any

import torch

from pretrain.checkpoint import load_encoder
from pretrain.config import RECIPES, Recipe, read
from pretrain.encoders import Embedder, build_embedder
from pretrain.learner import refuse_unlike
from pretrain.pose.sampling import sample
from pretrain.pose.store import Store

RANDOM, HANDMADE = "none", "handmade"


def open_encoder(given: str, store: Store, *, recipe: str, seed: int) -> tuple[Embedder, dict[str, Any]]:
    """The encoder of a run.

    Args:
        given: A pretraining run or encoder folder; ``none``: the network of ``recipe`` from random weights; ``handmade``:
            hand-made features and their means over time.
        store: Poses it is to embed; what is not pretrained is fitted to their spread.
        recipe: Whose network ``none`` means: a name, a file, or a pretraining run.
        seed: Of the random weights.

    Returns:
        The embedder, and what to say of it in ``result.json``.

    Raises:
        BadInput: If there is no such encoder or it does not fit the store's skeleton.
    """
    if given not in (RANDOM, HANDMADE):
        embedder, about = load_encoder(given, store.schema)
        refuse_unlike(embedder.features.external, store)
        return embedder, {"kind": "pretrained", "folder": given, "made_by": about.get("made_by", {})}
    settings = read(Recipe, recipe, RECIPES, {})
    network = settings.encoder if given == RANDOM else {"name": HANDMADE}
    torch.manual_seed(seed)
    embedder = build_embedder(store.schema, features=settings.features, encoder=network).eval()
    refuse_unlike(embedder.features.external, store)
    embedder.features.fit(sample(store, seed=seed, features=tuple(embedder.features.external)))
    return embedder, {"kind": "random weights" if given == RANDOM else "hand-made features", "encoder": dict(network)}
