"""netCDF of the toolbox movement, with poses: what ``ds.to_netcdf`` writes.

The variables position and confidence name their axes (time, space, keypoints, individuals); rate is
the attribute ``fps``. A confidence that is unknown (NaN) counts as 1 where there is a position.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pretrain.errors import BadInput
from pretrain.readers.detect import UnknownFile
from pretrain.readers.recording_names import recording_stem
from pretrain.readers.safe_files.hdf5 import array, node, open_hdf5, refuse_bad_names, texts
from pretrain.readers.track_formats import AbstractTrackFormat
from pretrain.readers.tracks import Tracks, clean_points, no_frames

_AXES = ("time", "individuals", "keypoints", "space")


class Movement(AbstractTrackFormat):
    """Axes are known by their names, in any order."""

    description = "movement netCDF"
    suffixes = (".nc",)

    def recognise(self, file: UnknownFile) -> bool:
        """By its variables."""
        return {"position", "individuals", "space"} <= set(file.hdf5)

    def read(self, path: Path, *, names_only: bool = False) -> Tracks:
        """Errors name frame, individual and keypoint."""
        with open_hdf5(path) as file:
            animals, keypoints, space = (
                texts(file, name, path) for name in ("individuals", "keypoints", "space")
            )
            refuse_bad_names(path, individuals=animals, keypoints=keypoints)
            if space not in (("x", "y"), ("x", "y", "z")):
                raise BadInput(f"{path}: space is {', '.join(space)}; wanted x, y and perhaps z")
            fps = float(np.ravel(file.attrs["fps"])[0]) if "fps" in file.attrs else 0.0
            points = no_frames(len(animals), len(keypoints), len(space))
            if not names_only:
                time = array(file, "time", path, ndim=1)
                steps = np.diff(time)
                if len(steps) and not np.allclose(steps, steps[0], rtol=0.01):
                    raise BadInput(f"{path}: time does not rise by one step throughout")
                shape = (len(time), len(animals), len(keypoints), len(space))
                position = _ordered(file, "position", _AXES, shape, path)
                confidence = np.ones(shape[:3])
                if node(file, "confidence", path) is not None:
                    confidence = _ordered(file, "confidence", _AXES[:3], shape[:3], path)
                points = clean_points(
                    position,
                    confidence,
                    about=str(path),
                    where=lambda t, m, k, x: f"frame {t}, {animals[m]}, {keypoints[k]}",
                )
        return Tracks(
            name=recording_stem(path),
            animals=animals,
            keypoints=keypoints,
            coordinates=space,
            fps=fps if np.isfinite(fps) and fps > 0 else None,
            position_TMKX=points[0],
            confidence_TMK=points[1],
        )


def _ordered(
    file: Any, name: str, axes: tuple[str, ...], shape: tuple[int, ...], path: Path
) -> Any:
    """A variable with its axes in this order."""
    # By its references: HDF5's own library of scales crashes on damaged ones.
    references = node(file, name, path).attrs.get("DIMENSION_LIST", ())
    named = [str(file[of_axis[0]].name).rpartition("/")[2] for of_axis in references]
    if sorted(named) != sorted(axes):
        raise BadInput(f"{path}: {name} has axes {', '.join(named)}; wanted {', '.join(axes)}")
    values = array(file, name, path).transpose([named.index(axis) for axis in axes])
    if values.shape != shape or not len(values):
        raise BadInput(f"{path}: {name} has shape {values.shape}; its axes are {shape} long")
    return values.astype(np.float64)
