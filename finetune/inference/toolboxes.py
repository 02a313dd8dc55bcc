"""Labels as other toolboxes hold them: xarray datasets of movement, intervals of pynapple."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from finetune.labels.frame_labels import Ints, Reals
from finetune.metrics.bouts import bouts
from pretrain.errors import BadInput

if TYPE_CHECKING:
    from pretrain.readers.tracks import Tracks

Times = npt.NDArray[np.float64]
_RESOLUTION_S = 1e-6
"""Intervals of pynapple hold both their ends: each ends this long before the next frame."""


def required(module: str, *, by: str, install: str = "'ethoray[trackers]'") -> Any:
    """A module that not everybody needs.

    Raises:
        BadInput: If it is not installed; says how to.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BadInput(f"{by} needs {module}: pip install {install}") from error


def dataset_of(
    tracks: Tracks,
    *,
    fps: float,
    labels: Ints | None = None,
    probabilities_TC: Reals | None = None,
    classes: Sequence[str] = (),
) -> Any:
    """Poses as movement's dataset, with labels and probabilities as coordinates on time.

    Coordinates are ``label``, on (time) the name of the class, empty without a label, or, where
    behaviours overlap, on (time, behavior) 1, 0 or -1; and ``probability`` on (time, behavior).

    Raises:
        BadInput: If xarray is missing, or arrays do not fit each other.
    """
    xarray = required("xarray", by="to_dataset()")
    coordinates: dict[str, Any] = {
        "time": np.arange(tracks.frames) / fps,
        "space": list(tracks.coordinates),
        "keypoints": list(tracks.keypoints),
        "individuals": list(tracks.animals),
    }
    shape = tracks.frames, len(classes)
    if classes:
        coordinates["behavior"] = list(classes)
    if labels is not None:
        _refuse_unlike(labels, "labels", shape[: labels.ndim])
        names = np.array([*classes, ""], object)  # UNLABELLED, -1, takes the last
        coordinates["label"] = (
            ("time", names[labels].astype(str))
            if labels.ndim == 1
            else (("time", "behavior"), labels.astype(np.int8))
        )
    if probabilities_TC is not None:
        _refuse_unlike(probabilities_TC, "probabilities", shape)
        coordinates["probability"] = ("time", "behavior"), probabilities_TC.astype(np.float32)
    axes = "time", "space", "keypoints", "individuals"
    return xarray.Dataset(
        {
            "position": (axes, tracks.position_TMKX.transpose(0, 3, 2, 1)),
            "confidence": ((axes[0], *axes[2:]), tracks.confidence_TMK.transpose(0, 2, 1)),
        },
        coordinates,
        {
            "fps": float(fps),
            "time_unit": "seconds",
            "source_software": "ethoray",
            "ds_type": "poses",
        },
    )


def _refuse_unlike(values: Reals, what: str, shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise BadInput(f"{what} have shape {values.shape}; poses and classes ask for {shape}")


def intervals_of(
    labels: Ints, *, classes: Sequence[str], fps: float
) -> dict[str, tuple[Times, Times]]:
    """Start and end (s) of the bouts of each class; an interval holds the times of just the frames
    of its bout, frame n being at n / fps."""
    runs = bouts(labels)
    return {
        name: (of[:, 0] / fps, of[:, 1] / fps - _RESOLUTION_S)
        for c, name in enumerate(classes)
        for of in [runs[runs[:, 2] == c]]
    }
