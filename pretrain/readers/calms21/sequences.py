"""The official CalMS21 JSON, one sequence at a time, in memory that does not grow with the file.

A file is ``{group: {sequence: {key: value}}}``, and nearly all of its bytes are arrays of numbers.
Inside such an array there is neither a quote nor a brace, so its end is found by looking for the
next of those; it is then cut between frames into blocks of about a megabyte, each parsed by
simdjson into one flat buffer. What remains, names and metadata, is small and goes through ``json``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pretrain.readers.calms21.json_stream import Bytes, JsonStream, Rows

MAX_FRAMES = (
    1_000_000  # of one sequence, nine hours at 30 frames/s: its arrays must fit into memory
)
MAX_SEQUENCES = 1_000_000


@dataclass
class Sequence:
    """One recording as the file gives it; nothing but its shape has been checked."""

    group: str
    name: str
    arrays: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    """Each (T, …)."""
    values: dict[str, Any] = field(default_factory=dict)
    """Everything that is not an array of frames."""


def read_sequences(
    stream: Bytes,
    rows: Mapping[str, Rows],
    *,
    where: str,
    on_progress: Callable[[int], None] | None = None,
) -> Iterator[Sequence]:
    """Yields the sequences of one file in its order; ``rows`` are the arrays that a sequence may
    hold, by key, the rest as of :class:`JsonStream`.

    Raises:
        BadInput: Naming file, sequence and byte, if it is not of that form or ends too early.
    """
    text = JsonStream(stream, where=where, on_progress=on_progress)
    text.skip_byte_order_mark()
    total, groups = 0, set[str]()
    for group in text.members():
        if group in groups:
            text.fail(f"the group {group!r} appears twice")
        groups.add(group)
        names = set[str]()
        for name in text.members():
            text.section = f", sequence {name!r} in group {group!r}"
            if name in names:
                text.fail("a sequence of this name came before in the same group")
            names.add(name)
            total += 1
            if total > MAX_SEQUENCES:
                text.fail(f"more than {MAX_SEQUENCES:,} sequences")
            yield _read_sequence(text, Sequence(group, name), rows)
            text.section = f", group {group!r}"
        text.section = ""
    text.finish()
    if not total:
        text.fail("it holds no sequence")


def _read_sequence(text: JsonStream, sequence: Sequence, rows: Mapping[str, Rows]) -> Sequence:
    for key in text.members():
        if key in sequence.arrays or key in sequence.values:
            text.fail(f"the key {key!r} appears twice")
        if key not in rows:
            sequence.values[key] = text.value(key)
            continue
        form, pieces, frames = rows[key], [], 0
        for piece in text.rows(key, form):
            frames += len(piece)
            if frames > MAX_FRAMES:
                text.fail(
                    f"{key} holds more than {MAX_FRAMES:,} frames: split this recording into "
                    "several sequences"
                )
            with np.errstate(over="ignore"):  # what becomes infinite is refused by the reader
                pieces.append(piece.astype(form.dtype))
        empty = np.empty((0, *form.shape), form.dtype)
        sequence.arrays[key] = (
            pieces[0] if len(pieces) == 1 else np.concatenate(pieces) if pieces else empty
        )
    return sequence
