"""Labels for other toolboxes: movement (xarray) and pynapple."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

    from pretrain.data.schema import Schema


def to_dataset(
    position_TMKX: npt.ArrayLike,
    confidence_TMK: npt.ArrayLike | None = None,
    *,
    schema: Schema,
    labels: npt.ArrayLike | None = None,
    probabilities_TC: npt.ArrayLike | None = None,
    classes: Sequence[str] = (),
) -> Any:
    """Poses as the dataset of movement, with labels and probabilities as coordinates on time.

    Args:
        position_TMKX: (T, M, K, X) in pixels, NaN = missing.
        confidence_TMK: (T, M, K) from 0 to 1; left out: 1 wherever there is a position.
        schema: Of a store, an encoder, a model or tracks: names and frame rate.
        labels: As ``model.predict`` gives them.
        probabilities_TC: As ``model.predict`` gives them.
        classes: ``model.classes``.

    Returns:
        An ``xarray.Dataset`` with position (time, space, keypoints, individuals) and confidence.
        The coordinate ``label`` is the name of the class on (time), empty where there is none; of
        overlapping behaviours 1, 0 or -1 on (time, behavior). ``probability`` is on (time,
        behavior).

    Raises:
        BadInput: If xarray is not installed, or arrays do not fit the schema or each other.
    """
    import numpy as np

    from finetune.inference.toolboxes import dataset_of
    from pretrain.data.arrays import as_frames
    from pretrain.readers.tracks import Tracks

    frames = as_frames(position_TMKX, confidence_TMK, schema=schema)
    tracks = Tracks(
        name="",
        animals=schema.animals,
        keypoints=schema.keypoints,
        coordinates=schema.coordinates,
        position_TMKX=frames["position"].numpy(),
        confidence_TMK=frames["confidence"].numpy(),
    )
    return dataset_of(
        tracks,
        fps=schema.fps,
        labels=None if labels is None else np.asarray(labels),
        probabilities_TC=None if probabilities_TC is None else np.asarray(probabilities_TC),
        classes=classes,
    )


def to_intervals(labels: npt.ArrayLike, *, classes: Sequence[str], fps: float) -> dict[str, Any]:
    """The bouts of each class as a ``pynapple.IntervalSet``, by name.

    An interval holds the times of just the frames of its bout, frame n being at n / fps.

    Args:
        labels: As ``model.predict`` gives them.
        classes: ``model.classes``.
        fps: Frames per second.

    Raises:
        BadInput: If pynapple is not installed.
    """
    import numpy as np

    from finetune.inference.toolboxes import intervals_of, required

    pynapple = required("pynapple", by="to_intervals()", install="pynapple")
    spans = intervals_of(np.asarray(labels), classes=classes, fps=fps)
    return {name: pynapple.IntervalSet(*ends) for name, ends in spans.items()}
