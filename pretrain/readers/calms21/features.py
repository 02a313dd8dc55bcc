"""Per-frame features of CalMS21 (``taskprog_features_*.json``), read in step with the poses they
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

FEATURES = "task_programming"
"""What they are called in a store."""
FEATURE_DIMENSIONS = 32
_ROWS = {"features": Rows((FEATURE_DIMENSIONS,), np.float32, f"{FEATURE_DIMENSIONS} numbers")}
_MAX_WAITING_BYTES = 400 * 2**20


class FeaturesInStep:
    """Both files are read forwards, once; use it in a ``with`` block. Without a ``source`` the
    release has no features for these poses."""

    def __init__(
        self, source: Source | None, on_progress: Callable[[int], None] | None = None
    ) -> None:
        self._where = source.where if source else ""
        self._rest = _read(source, on_progress)
        self._waiting: dict[tuple[str, str], Float] = {}
        self._bytes = 0
        self._without: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._rest.close()

    def take(self, pose: Sequence, frames: int) -> Float | None:
        """The features (T, 32) of a sequence of poses, or None; those of others met on the way wait
        for their turn.

        Raises:
            BadInput: If they do not have that many frames, or the file is damaged.
        """
        key = pose.group, pose.name
        while key not in self._waiting:
            following = next(self._rest, None)
            if following is None:
                self._without.append(pose.name)
                return None
            self._keep(following)
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
        for following in self._rest:
            self._keep(following)
        notes = []
        if self._where and self._without:
            notes.append(f"{self._where}: no features for {_some(self._without)} of {poses.where}")
        if self._waiting:
            notes.append(
                f"{self._where}: features without poses for "
                f"{_some([name for _, name in self._waiting])}"
            )
        return notes

    def _keep(self, features: Sequence) -> None:
        values = features.arrays.get("features")
        if values is None or not np.isfinite(values).all():
            raise BadInput(
                f"{self._named(features.group, features.name)}: it has no 'features', or they are "
                "not finite"
            )
        self._waiting[features.group, features.name] = values
        self._bytes += values.nbytes
        if self._bytes > _MAX_WAITING_BYTES:
            raise BadInput(
                f"{self._named(features.group, features.name)}: the order of sequences is too "
                "unlike that of the poses to read both at once"
            )

    def _named(self, group: str, name: str) -> str:
        return f"{self._where}: sequence {name!r} in group {group!r}"


def _read(source: Source | None, on_progress: Callable[[int], None] | None) -> Generator[Sequence]:
    if source:
        with opened(source) as stream:
            yield from read_sequences(stream, _ROWS, where=source.where, on_progress=on_progress)


def _some(names: list[str]) -> str:
    return f"{len(names)} sequences ({', '.join(names[:3])}{'…' if len(names) > 3 else ''})"
