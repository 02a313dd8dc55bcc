"""Poses of one rig at the scale of another, so that an encoder that learned on the first serves the
second.

Features are standardised with the means and spreads of the poses that they were fitted on, and
distances of the group ``interaction`` are in body lengths: what is left of the pixel is the scale
of those poses. With ``features.units`` ``cm`` or ``body`` other poses are brought to it as they
are read, by how long a centimetre or a body is in both; with ``px`` (the default) they are taken
as they are. Bodies are measured in each recording by itself, wherever it is read: to be embedded,
to fit heads or an encoder to labels, to be predicted. So recordings of several rigs may share a
store, and a recording is read the same whatever lies beside it.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pretrain.data.schema import Float, Schema
from pretrain.data.store import Store
from pretrain.errors import BadInput
from pretrain.transforms.features import Features

Units = Literal["px", "body", "cm"]


def body_px(position: Tensor, schema: Schema) -> float:
    """How long a body is: from the back to the front of its axis, on the mean over frames and
    animals in which both are seen.

    Args:
        position: (…, M, K, X) px.
        schema: Names the axis.

    Raises:
        BadInput: If no body is seen, or it has no length.
    """
    front, back = (position[..., schema.keypoint(name), :] for name in reversed(schema.axis))
    offset = (front - back).flatten(0, -2).double()
    parts = [torch.hypot(offset[:, 0], offset[:, 1]), *offset[:, 2:].unbind(-1)]
    length = math.hypot(*(float(part.nanmean()) for part in parts))
    if not (math.isfinite(length) and length > 0):
        raise BadInput(
            f"no body length: {schema.axis[0]} and {schema.axis[1]} are never seen apart"
        )
    return length


def pixel(features: Features, *, px_per_cm: float | None, body: Tensor | None, where: str) -> float:
    """Pixels of the poses that features were fitted on in a pixel of other poses.

    Args:
        features: They say the units.
        px_per_cm: Of the other poses, where it is known.
        body: Those poses, or a sample, (…, M, K, X); needed in body lengths.
        where: What they are of, for messages.

    Raises:
        BadInput: If the length of a unit is not known on either side.
    """
    if features.units == "px":
        return 1.0
    if features.units == "body":
        assert body is not None
        try:
            return features.body_length_px / body_px(body, features.schema)
        except BadInput as error:
            raise BadInput(f"{where}: {error}") from error
    learned = features.schema.px_per_cm
    if learned is None or px_per_cm is None:
        unknown = where if learned else "the store that the encoder learned on"
        raise BadInput(
            f"the encoder's features are in cm, and how many pixels a cm has is not known of "
            f"{unknown}: say it with --px-per-cm"
        )
    return learned / px_per_cm


def at_learned_scale(
    position_TMKX: Float, features: Features, *, store: Store, video: str
) -> Float:
    """Positions of a video of a store at the scale that features were fitted on.

    Raises:
        BadInput: As :func:`pixel`.
    """
    if features.units == "px":
        return position_TMKX
    body, where = torch.from_numpy(position_TMKX), f"{store.uri}, {video}"
    factor = pixel(features, px_per_cm=store.schema.px_per_cm, body=body, where=where)
    return position_TMKX * np.float32(factor)


def refuse_unknown_scale(features: Features, store: Store) -> None:
    """Refuses a store that does not say how long a centimetre is where features ask for it."""
    if features.units == "cm":
        pixel(features, px_per_cm=store.schema.px_per_cm, body=None, where=store.uri)
