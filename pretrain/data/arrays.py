"""Arrays of a notebook to the tensors that encoders and models take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pretrain.data.schema import Float, Schema
from pretrain.errors import BadInput, refuse
from pretrain.readers.tracks import clean_points


def as_frames(
    position_TMKX: npt.ArrayLike,
    confidence_TMK: npt.ArrayLike | None = None,
    external: Mapping[str, npt.ArrayLike] | None = None,
    *,
    schema: Schema,
    dims: Mapping[str, int] | None = None,
) -> dict[str, Tensor]:
    """One video, checked.

    Args:
        position_TMKX: Pixels, NaN = missing.
        confidence_TMK: 0 to 1; None: 1 wherever there is a position.
        external: External features by name, each (T, D); those that ``dims`` does not name are
            passed over.
        schema: What the axes mean.
        dims: The external features that are needed, name to D.

    Returns:
        ``position``, ``confidence``, and ``extra`` (T, E) where external features are needed.

    Raises:
        BadInput: If a shape does not fit, a number cannot be a position or a confidence, or
            external features are missing.
    """
    position = _array(position_TMKX)
    if position.ndim != 4 or position.shape[1:] != schema.shape or not len(position):
        wanted = f"(T, {', '.join(map(str, schema.shape))})"
        raise BadInput(
            f"the positions have shape {position.shape}; it must be {wanted}: frames, at least "
            f"one; animals {', '.join(schema.animals)}; keypoints {', '.join(schema.keypoints)}; "
            f"coordinates {', '.join(schema.coordinates)}"
        )
    confidence = np.ones(position.shape[:3]) if confidence_TMK is None else _array(confidence_TMK)
    if confidence.shape != position.shape[:3]:
        raise BadInput(
            f"the confidence has shape {confidence.shape}; it must be {position.shape[:3]}, a "
            "number for each point"
        )

    def where(frame: int, animal: int, keypoint: int, _: int) -> str:
        return f"frame {frame}, {schema.keypoints[keypoint]} of {schema.animals[animal]}"

    position, confidence = clean_points(position, confidence, where=where, about="the poses")
    arrays = [position, confidence]
    if dims:
        arrays.append(_extra(external or {}, dims, len(position)))
    names = ("position", "confidence", "extra")
    return dict(zip(names, map(torch.from_numpy, arrays), strict=False))


def _extra(external: Mapping[str, npt.ArrayLike], dims: Mapping[str, int], frames: int) -> Float:
    arrays = {name: _array(external[name]) for name in dims if name in external}
    refuse(
        [
            f"external features {name!r} are missing: external={{{name!r}: (T, {dim})}}"
            if name not in arrays
            else f"external features {name!r} have shape {arrays[name].shape}; it must be "
            f"{(frames, dim)}"
            for name, dim in dims.items()
            if name not in arrays or arrays[name].shape != (frames, dim)
        ],
        about="the encoder reads external features",
    )
    return np.concatenate([arrays[name] for name in dims], axis=1).astype(np.float32)


def _array(values: Any) -> npt.NDArray[np.floating]:
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    try:
        return np.asarray(values, dtype=None if isinstance(values, np.ndarray) else float)
    except (TypeError, ValueError) as error:
        raise BadInput(f"these are no numbers: {error}") from error
