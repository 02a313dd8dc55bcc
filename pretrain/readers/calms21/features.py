"""Per-frame features of a CalMS21 file (``taskprog_features_*.json``), read beside the poses they
belong to."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Self

import numpy as np

from pretrain.data.schema import Float
from pretrain.errors import BadInput
from pretrain.readers.calms21.json_stream import Rows
from pretrain.readers.calms21.sequences import Sequence, read_sequences
from pretrain.readers.calms21.sources import Source, opened

FEATURE_DIMENSIONS = 32
_ROWS = {"features": Rows((FEATURE_DIMENSIONS,), np.float32, f"{FEATURE_DIMENSIONS} numbers")}
_MAX_WAITING_BYTES = 400 * 2**20


class FeaturesInStep:
    """Both files are read forwards, once; use it in a ``with`` block.

    Args:
        source: The file of features; none where the release has none for these poses.
        progress: Called with the bytes read since the last call.
    """

    def __init__(
        self, source: Source | None, progress: Callable[[int], None] | None = None
    ) -> None:
        self._place = source.place if source else ""
        self._rest = _read(source, progress)
        self._waiting: dict[tuple[str, str], Float] = {}
        self._bytes = 0
        self._without: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._rest.close()

    def take(self, wanted: Sequence, frames: int) -> Float | None:
        """The features (T, 32) of a sequence, or None; those of others met on the way wait for
        their turn.

        Raises:
            BadInput: If they do not have that many frames, or the file is damaged.
        """
        key = wanted.group, wanted.name
        while key not in self._waiting:
            found = next(self._rest, None)
            if found is None:
                self._without.append(wanted.name)
                return None
            self._keep(found)
        values = self._waiting.pop(key)
        self._bytes -= values.nbytes
        if len(values) != frames:
            raise BadInput(
                f"{self._named(*key)}: {len(values):,} frames of features for {frames:,} frames of "
                "pose"
            )
        return values

    def notes(self, poses: Source) -> list[str]:
        """What did not find its counterpart, in sentences; reads the file to its end."""
        for found in self._rest:
            self._keep(found)
        said = []
        if self._place and self._without:
            said.append(f"{self._place}: no features for {_some(self._without)} of {poses.place}")
        if self._waiting:
            said.append(
                f"{self._place}: features without poses for "
                f"{_some([name for _, name in self._waiting])}"
            )
        return said

    def _keep(self, found: Sequence) -> None:
        values = found.arrays.get("features")
        if values is None or not np.isfinite(values).all():
            raise BadInput(
                f"{self._named(found.group, found.name)}: it has no 'features', or they are not "
                "finite"
            )
        self._waiting[found.group, found.name] = values
        self._bytes += values.nbytes
        if self._bytes > _MAX_WAITING_BYTES:
            raise BadInput(
                f"{self._named(found.group, found.name)}: the order of sequences is too unlike "
                "that of the poses to read both at once"
            )

    def _named(self, group: str, name: str) -> str:
        return f"{self._place}: sequence {name!r} in group {group!r}"


def _read(source: Source | None, progress: Callable[[int], None] | None) -> Generator[Sequence]:
    if source:
        with opened(source) as stream:
            yield from read_sequences(stream, _ROWS, where=source.place, progress=progress)


def _some(names: list[str]) -> str:
    return f"{len(names)} sequences ({', '.join(names[:3])}{'…' if len(names) > 3 else ''})"
