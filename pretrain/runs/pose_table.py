"""Networks for those who have tables: a row a frame, a column a coordinate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from pretrain.data.arrays import as_frames
from pretrain.data.schema import Float, Schema
from pretrain.errors import refuse

Columns = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class TableModel:
    """Poses of one video in, a value of each output for every frame out."""

    schema: Schema
    """What it was trained on; the frames are to come at its rate."""
    external: Mapping[str, int]
    """External features that it reads: name to dimension."""
    apply: Callable[[dict[str, Tensor]], Columns]
    """Of ``position``, ``confidence`` and, where needed, ``extra``."""

    @property
    def columns(self) -> dict[str, bool]:
        """The columns it reads, ``mouse.nose.x``, and whether it cannot do without."""
        points = [f"{animal}.{k}" for animal in self.schema.animals for k in self.schema.keypoints]
        needed = [f"{point}.{x}" for point in points for x in self.schema.coordinates]
        needed += [f"{name}.{i}" for name, dim in self.external.items() for i in range(dim)]
        optional = [f"{point}.confidence" for point in points]
        return dict.fromkeys(needed, True) | dict.fromkeys(optional, False)

    def __call__(self, table: Any) -> Columns:
        """Applies it to a table: a DataFrame, or a mapping of columns.

        Coordinates are pixels, NaN or empty = missing; confidence is 0 to 1, left out: 1 wherever
        there is a position.

        Raises:
            BadInput: If a column is missing or holds what cannot be a position or a confidence.
        """
        lacking = [name for name, needed in self.columns.items() if needed and name not in table]
        refuse(
            [f"columns are missing: {', '.join(lacking)}"] if lacking else [],
            about="poses come as a row a frame",
        )

        def read(names: list[str], *shape: int) -> Float:
            values = [np.asarray(table[name], np.float32) for name in names]
            return np.stack(values, axis=1).reshape(-1, *shape)

        names = [name for name, needed in self.columns.items() if needed]
        of_points = [name for name in self.columns if name.endswith(".confidence")]
        position = read(names[: int(np.prod(self.schema.shape))], *self.schema.shape)
        confidence = None
        if any(name in table for name in of_points):
            ones = np.ones(len(position), np.float32)
            kept = {name: table.get(name, ones) for name in of_points}
            table = {name: table[name] for name in names} | kept
            confidence = read(of_points, *self.schema.shape[:2])
        external = {
            name: read([f"{name}.{i}" for i in range(dim)], dim)
            for name, dim in self.external.items()
        }
        return self.apply(
            as_frames(position, confidence, external, schema=self.schema, dims=self.external)
        )

    def example(self, frames: int = 32) -> dict[str, Float]:
        """Made-up poses: bodies that drift through the image, one point of them missing once."""
        names = [name for name, needed in self.columns.items() if needed]
        time_T = np.arange(frames, dtype=np.float32)
        table = {name: 100 + 7 * i + time_T * (1 + i % 3) for i, name in enumerate(names)}
        for name in names[: len(self.schema.coordinates)]:
            table[name][frames // 2] = np.nan
        return table
