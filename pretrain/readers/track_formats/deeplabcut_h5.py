"""DeepLabCut's h5: a pandas table, read with h5py alone.

PyTables keeps the column names as pickles, which are read without running anything. Both of pandas'
layouts are read: ``table`` (what DeepLabCut writes) and ``fixed``.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pretrain.errors import BadInput
from pretrain.readers.detect import UnknownFile
from pretrain.readers.safe_files.hdf5 import array, node, open_hdf5, text, texts
from pretrain.readers.safe_files.pickle import PickleRefused, load
from pretrain.readers.track_formats import AbstractTrackFormat
from pretrain.readers.track_formats._deeplabcut import Layout, first_index
from pretrain.readers.tracks import Tracks


class DeepLabCutH5(AbstractTrackFormat):
    """Columns as in the CSV."""

    description = "DeepLabCut h5"
    suffixes = (".h5", ".hdf5")
    priority = -1  # any table of pandas

    def recognise(self, file: UnknownFile) -> bool:
        """By what pandas notes beside a table."""
        return _key(file.hdf5) is not None

    def read(self, path: Path, *, names_only: bool = False) -> Tracks:
        """Errors name frame and column."""
        with open_hdf5(path) as file:
            key = _key(file)
            if key is None:
                raise BadInput(f"{path}: there is no pandas table in it")
            group = node(file, key, path)
            levels, columns, cells, index = (
                _fixed if node(group, "axis1", path) is not None else _table
            )(group, path, names_only)
        if len(levels) not in (3, 4) or any(len(column) != len(levels) for column in columns):
            raise BadInput(
                f"{path}: its columns have {len(levels)} levels ({', '.join(levels)}); DeepLabCut "
                "has scorer, individuals, bodyparts, coords"
            )
        four = [
            (c[0], c[1], c[2], c[3]) if len(levels) == 4 else (c[0], "", c[1], c[2])
            for c in columns
        ]
        layout = Layout(
            [(c[1], c[2], c[3]) for c in four], path=path, scorer=four[0][0] if four else ""
        )
        if names_only:
            return layout.no_tracks()
        if cells.shape != (len(index), len(columns)) or not len(index):
            raise BadInput(
                f"{path}: {len(columns)} columns and {len(index)} frames are named, but its "
                f"numbers have shape {cells.shape}"
            )
        first = first_index(index, lambda frame: f"{path}, row {frame + 1}")
        points = layout.points(
            cells,
            lambda column, frame: (
                f"frame {frame}, column {column + 1} "
                f"({', '.join(filter(None, columns[column][1:]))})"
            ),
        )
        return layout.tracks(*points, counted_from=first)


def _key(file: Any) -> str | None:
    for key in file:
        kind = getattr(file.get(key), "attrs", {}).get("pandas_type")
        if kind in (b"frame_table", "frame_table", b"frame", "frame"):
            return str(key)
    return None


_Frame = tuple[tuple[str, ...], list[tuple[str, ...]], npt.NDArray[np.float64], npt.NDArray[Any]]
"""Names of the levels, columns, cells (T, columns), index (T,)."""


def _table(group: Any, path: Path, names_only: bool) -> _Frame:
    table = node(group, "table", path)
    if table is None or getattr(table, "dtype", None) is None or table.dtype.names is None:
        raise BadInput(f"{path}: there is no table in {group.name}")
    blocks = sorted(
        (name for name in table.dtype.names if name.startswith("values_block_")),
        key=lambda n: int(n.rsplit("_", 1)[1]),
    )
    columns: list[tuple[str, ...]] = []
    for block in blocks:
        columns += [
            tuple(map(str, c))
            for c in _unpickled(table.attrs.get(f"{block}_kind"), f"{block}_kind", path)
            if isinstance(c, tuple)
        ]
    levels = (
        ("scorer", "individuals", "bodyparts", "coords")
        if columns and len(columns[0]) == 4
        else ("scorer", "bodyparts", "coords")
    )
    if names_only:
        return levels, columns, np.empty((0, len(columns))), np.empty(0)
    fields = table.dtype.names
    if "index" not in fields or not blocks:
        raise BadInput(
            f"{path}: its table has columns {', '.join(fields)}; wanted index and values_block_0"
        )
    rows = array(group, "table", path, ndim=1)
    cells = np.concatenate([rows[block].reshape(len(rows), -1) for block in blocks], axis=1).astype(
        np.float64
    )
    return levels, columns, cells, rows["index"]


def _fixed(group: Any, path: Path, names_only: bool) -> _Frame:
    levels: tuple[str, ...] = ()
    columns: list[tuple[str, ...]] = []
    cells = []
    for block in range(_whole(group.attrs.get("nblocks", 1), path)):
        depth = _whole(group.attrs.get(f"block{block}_items_nlevels", 0), path)
        names, codes = [], []
        for level in range(depth):
            names.append(texts(group, f"block{block}_items_level{level}", path))
            codes.append(array(group, f"block{block}_items_label{level}", path, ndim=1))
        if (
            any(
                len(c) and not 0 <= c.min() <= c.max() < len(n)
                for c, n in zip(codes, names, strict=True)
            )
            or len({len(c) for c in codes}) > 1
        ):
            raise BadInput(f"{path}: the column names of block {block} are damaged")
        columns += [
            tuple(n[i] for n, i in zip(names, row, strict=True)) for row in zip(*codes, strict=True)
        ]
        levels = tuple(
            text(
                node(group, f"block{block}_items_level{i}", path).attrs.get("name", ""),
                "name",
                path,
            )
            for i in range(depth)
        )
        if not names_only:
            cells.append(array(group, f"block{block}_values", path, ndim=2).astype(np.float64))
    if names_only or not cells:
        return levels, columns, np.empty((0, len(columns))), np.empty(0)
    return levels, columns, np.concatenate(cells, axis=1), array(group, "axis1", path, ndim=1)


def _whole(value: Any, path: Path) -> int:
    number = int(value)
    if not 0 <= number <= 16:
        raise BadInput(f"{path}: {number} blocks or levels; damaged")
    return number


def _unpickled(value: Any, attribute: str, path: Path) -> list[Any]:
    """The pickled list of column names in an attribute."""
    if isinstance(value, str):
        value = value.encode("utf-8")
    elif isinstance(value, np.void | np.ndarray):
        value = value.tobytes()
    try:
        columns = load(io.BytesIO(value if isinstance(value, bytes) else b""))
    except PickleRefused as error:
        raise BadInput(
            f"{path}: {attribute} is no list of column names ({error}); anything else in a pickle "
            "could run code and is refused"
        ) from error
    if not isinstance(columns, list):
        raise BadInput(f"{path}: {attribute} is {type(columns).__name__}, wanted a list of columns")
    return columns
