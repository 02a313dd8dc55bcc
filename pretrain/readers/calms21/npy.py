"""Reads the npy form of CalMS21 (``np.save`` of a dictionary, which is a pickle)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pretrain.errors import BadInput
from pretrain.readers.calms21.sequences import Sequence
from pretrain.readers.safe_files.pickle import PickledArray, PickleRefused, load

MAX_BYTES = 768 * 2**20  # a pickle is read as a whole
_HEADER = re.compile(rb"\{'descr': '\|O', 'fortran_order': (?:True|False), 'shape': \(\), \} *\n")


def read_npy(path: Path, *, on_progress: Callable[[int], None] | None = None) -> Iterator[Sequence]:
    """Yields the sequences of one npy file.

    Raises:
        BadInput: Naming the file and the byte, if it is too large, damaged, or holds anything but
            dictionaries, text and arrays of numbers.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise BadInput(
            f"{path} has {size:,} bytes; an npy file must be held whole, allowed: {MAX_BYTES:,}. "
            "Give the JSON file instead"
        )
    with path.open("rb") as file:
        try:
            _read_header(file)
            content = load(file)
            groups = content.item() if isinstance(content, PickledArray) else content
            if file.read(1):
                raise PickleRefused("there is more after its end")
        except PickleRefused as error:
            raise BadInput(
                f"{path}, byte {file.tell():,}: {error}. Only the npy form of the official JSON is "
                "read (a dictionary of dictionaries of numeric arrays); anything else in a pickle "
                "could run code and is refused"
            ) from error
    if on_progress:
        on_progress(size)
    if not isinstance(groups, dict) or not groups:
        raise BadInput(f"{path}: it does not hold a dictionary of groups")
    for group in list(groups):
        members = groups.pop(group)
        if not isinstance(group, str) or not isinstance(members, dict):
            raise BadInput(f"{path}: group {_named(group)} is not a dictionary of sequences")
        for name in list(members):
            yield _sequence(path, group, name, members.pop(name))


def _sequence(path: Path, group: str, name: Any, content: Any) -> Sequence:
    where = f"{path}: sequence {_named(name)} in group {group!r}"
    if not isinstance(name, str) or not isinstance(content, dict):
        raise BadInput(f"{where} is not a dictionary")
    sequence = Sequence(group, name)
    for key, value in content.items():
        if not isinstance(key, str):
            raise BadInput(f"{where}: a dictionary whose keys are not text")
        try:
            if isinstance(value, PickledArray):
                sequence.arrays[key] = value.numpy()
            else:
                sequence.values[key] = value
        except PickleRefused as error:
            raise BadInput(f"{where}, {key}: {error}") from error
    return sequence


def _named(name: Any) -> str:
    """A key in words; one that is no text may be nested deeply."""
    return repr(name) if isinstance(name, str) else f"({type(name).__name__})"


def _read_header(file: BinaryIO) -> None:
    magic = file.read(8)
    if magic[:6] != b"\x93NUMPY" or magic[6:] not in (b"\1\0", b"\2\0", b"\3\0"):
        raise PickleRefused("it is not an npy file")
    length = int.from_bytes(file.read(2 if magic[6] == 1 else 4), "little")
    if length > 10_000 or not _HEADER.fullmatch(file.read(length)):
        raise PickleRefused("it is an npy file, but not of one dictionary")
