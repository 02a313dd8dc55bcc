"""Videos of a store embedded, whole or as their principal components. Plain torch."""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch import Tensor

from pretrain.data.sample import sample
from pretrain.data.schema import Float
from pretrain.data.store import Store
from pretrain.encoders import Embedder
from pretrain.train.embed_video import PrincipalComponents, embed_video
from pretrain.transforms.units import at_learned_scale, pixel

log = logging.getLogger(__name__)


def embed_stored(
    embedder: Embedder,
    store: Store,
    name: str,
    components: PrincipalComponents | None = None,
    *,
    device: str = "cpu",
) -> Float:
    """Embeds every frame of a video.

    Args:
        embedder: In evaluation mode.
        store: Holds the video and the external features that the encoder reads.
        name: Of the video.
        components: Turn embeddings into principal components, where they are asked for.
        device: Where to compute.

    Returns:
        (T, D).
    """
    features = tuple(embedder.external)
    video = store.read_video(name, features=features)
    extra = np.concatenate([video.features[key] for key in features], 1) if features else None
    position = at_learned_scale(video.position_TMKX, embedder.features, store=store, video=name)
    frames = _frames(
        torch.from_numpy(position),
        torch.from_numpy(video.confidence_TMK.astype(np.float32)),
        None if extra is None else torch.from_numpy(extra),
    )
    z_TD = embed_video(embedder, frames, device=device).cpu()
    return (z_TD if components is None else components(z_TD)).numpy()


def fit_components(
    embedder: Embedder, store: Store, number: int, *, device: str = "cpu"
) -> PrincipalComponents:
    """The first principal components of the embeddings of frames from all over a store."""
    pose = sample(store, seed=0, features=tuple(embedder.external))
    body, px_per_cm = pose.position_BTMKX, store.schema.px_per_cm
    scale = pixel(embedder.features, px_per_cm=px_per_cm, body=body, where=store.uri)
    pieces = []
    for b in range(len(pose.position_BTMKX)):
        frames = _frames(
            pose.position_BTMKX[b] * scale,
            pose.confidence_BTMK[b],
            None if pose.extra_BTE is None else pose.extra_BTE[b],
        )
        # Where nothing was seen there is nothing to learn.
        seen_T = frames["position"].isfinite().flatten(1).any(1)
        pieces.append(embed_video(embedder, frames, device=device).cpu()[seen_T])
    components = PrincipalComponents(embedder.dim, number)
    share = components.fit(torch.cat(pieces))
    log.info(
        "%d principal components hold %.1f %% of the variance of the embedding", number, 100 * share
    )
    return components


def _frames(
    position_TMKX: Tensor, confidence_TMK: Tensor, extra_TE: Tensor | None
) -> dict[str, Tensor]:
    frames = {"position": position_TMKX, "confidence": confidence_TMK}
    return frames if extra_TE is None else {**frames, "extra": extra_TE}
