"""Columns of raw bytes to arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pretrain.data.schema import Float
from pretrain.errors import BadInput


def binary_column(column: pa.ChunkedArray) -> npt.NDArray[np.uint8]:
    """The bytes of a binary column, rows joined; a view, not a copy, where the column is one
    buffer."""
    pieces = []
    for array in column.chunks:
        if not len(array):
            continue
        offsets = np.frombuffer(array.buffers()[1], np.int32)[
            array.offset : array.offset + len(array) + 1
        ]
        pieces.append(np.frombuffer(array.buffers()[2], np.uint8)[offsets[0] : offsets[-1]])
    return (
        pieces[0]
        if len(pieces) == 1
        else np.concatenate(pieces)
        if pieces
        else np.empty(0, np.uint8)
    )


def float_column(column: pa.ChunkedArray, frames: Sequence[int], *, dim: int, about: str) -> Float:
    """(sum of frames, dim) out of a binary column; NaN where it is null."""
    values = np.full((sum(frames), dim), np.nan, np.float32)
    end = 0
    for cell, count in zip(column, frames, strict=True):
        begin, end = end, end + count
        if cell.is_valid:
            raw = np.frombuffer(cell.as_buffer(), "<f4")
            if len(raw) != count * dim:
                raise BadInput(
                    f"{about}: a chunk has {len(raw)} numbers for {count} frames of {dim}; prepare "
                    "the store again"
                )
            values[begin:end] = raw.reshape(count, dim)
    return values
