"""What ``--encoder`` means: a pretrained one, the same network from random weights, or none."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from pretrain.config import RECIPES, Recipe, read
from pretrain.data.leave_out import fingerprints, joined, share_seen
from pretrain.data.sample import sample
from pretrain.data.schema import Schema
from pretrain.data.store import Store
from pretrain.encoders import Embedder, build_embedder
from pretrain.train.checkpoint import load_encoder
from pretrain.train.learner import check_external_features
from pretrain.transforms.interaction import MAX_POINTS, have_roles, points_of
from pretrain.transforms.units import refuse_unknown_scale

log = logging.getLogger(__name__)

RANDOM, HANDMADE = "none", "handmade"


def open_encoder(
    source: str,
    store: Store,
    *,
    recipe: str,
    seed: int,
    extra_features: Sequence[str] = (),
    test: Iterable[str] = (),
    fit_to_test: bool = False,
    test_store: Store | None = None,
) -> tuple[Embedder, dict[str, Any]]:
    """The encoder of a run.

    Args:
        source: A pretraining run or encoder folder; ``none``: the network of ``recipe`` from random
            weights; ``handmade``: hand-made features and their means over time.
        store: Poses it is to embed; what is not pretrained is fitted to their spread.
        recipe: Whose network ``none`` means: a name, a file, or a pretraining run.
        seed: Of the random weights.
        extra_features: External features, by their names in the store, that heads read next to what
            the encoder makes.
        test: Videos that scores are to be made on; what is not pretrained is not fitted to their
            spread either.
        fit_to_test: Whether it is fitted to theirs as well, where every video is one in its turn.
        test_store: Where they are, if not in ``store``.

    Returns:
        The embedder, and its description for ``result.json``.

    Raises:
        BadInput: If there is no such encoder or it does not fit the store's skeleton.
    """
    about: dict[str, Any]
    test = set(test)
    apart = store
    if test_store is None and not fit_to_test and 0 < len(test) < len(store.videos):
        apart = Store(store.address, leave_out=test)
    if source not in (RANDOM, HANDMADE):
        embedder, saved = load_encoder(source, store.schema)
        check_external_features(embedder.external, store)
        for one in (store, test_store or store):
            refuse_unknown_scale(embedder.features, one)
        made_by = saved.get("made_by", {})
        records = [_learned_from(made_by, store)]
        made_by = {k: v for k, v in made_by.items() if k not in ("learned_from", "videos")}
        about = {"kind": "pretrained", "folder": source, "made_by": made_by}
    else:
        settings = read(Recipe, recipe, RECIPES, {})
        network, features = settings.encoder, settings.features
        if source == HANDMADE:
            network = {"name": HANDMADE}
            features = handmade_features(features, store.schema)
        torch.manual_seed(seed)
        embedder = build_embedder(store.schema, features=features, encoder=network).eval()
        check_external_features(embedder.features.external, store)
        embedder.features.fit(sample(apart, seed=seed, features=tuple(embedder.features.external)))
        if source == HANDMADE:
            points = list(points_of(store.schema))
            log.info(
                "hand-made features: %d columns a frame, from %s%s%s",
                embedder.encoder.dim,
                ", ".join(points),
                ""
                if len(store.schema.keypoints) <= len(points)
                else f" (of {len(store.schema.keypoints)} keypoints; at most {MAX_POINTS} points "
                "are looked at)",
                f"; columns of {' and of '.join(store.schema.animals)}, as their names are roles"
                if have_roles(store.schema)
                else "",
            )
        kind = "random weights" if source == RANDOM else "hand-made features"
        about = {"kind": kind, "encoder": dict(network)}
        records = []
    if extra_features:
        embedder = _with_extra(extra_features, embedder, apart, seed=seed)
    records += [
        one.feature(name).get("learned_from")
        for one in (store, test_store or store)
        for name in embedder.external
    ]
    about["saw_test"] = share_seen(records, test_store or store, test)
    return embedder, about


def handmade_features(
    features: Mapping[str, Any], schema: Schema, *, roles: bool = True
) -> dict[str, Any]:
    """Settings of features with the group that hand-made features are made of, and no other: of
    one animal, whose position in the arena counts, ``interaction``; of several ``social``; of two
    with roles, unless ``roles`` is false, ``social_roles``."""
    several = "social_roles" if roles and have_roles(schema) else "social"
    return {**features, "groups": [several if len(schema.animals) > 1 else "interaction"]}


def _learned_from(made_by: Mapping[str, Any], store: Store) -> Sequence[str] | None:
    """Fingerprints of the videos that an encoder was pretrained on; None where an earlier version
    made it and nobody can tell."""
    if "learned_from" in made_by:
        return list(made_by["learned_from"])
    # "videos" are names that another version gave, which this one cannot compare
    if "videos" in made_by or made_by.get("data") != store.fingerprint:
        return None
    return joined(fingerprints(store, [video["name"] for video in store.videos]))


def seen_in_words(share: float | None) -> str:
    """What a reader of scores should know of the poses that an encoder has seen."""
    if share is None:
        return (
            "the encoder, or external features, do not say which videos they were learned from: "
            "scores may be transductive"
        )
    if not share:
        return ""
    return (
        f"transductive: the encoder was pretrained on the poses (not the labels) of {share:.0%} of "
        "the test videos; pretrain with --leave-out test for scores on animals that it never saw"
    )


def _with_extra(names: Sequence[str], embedder: Embedder, store: Store, *, seed: int) -> Embedder:
    """The same with external features appended to each embedding."""
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
