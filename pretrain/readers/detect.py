"""Which format a file has, by its content and never by its name.

A format is a file in ``track_formats/`` or ``label_formats/``; a new one is found by being there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import ExitStack
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pretrain.components import find, names
from pretrain.errors import BadInput
from pretrain.readers.safe_files import hdf5, npz, parquet, xlsx

if TYPE_CHECKING:
    from pretrain.readers.label_formats import AbstractLabelFormat
    from pretrain.readers.track_formats import AbstractTrackFormat

_HEAD_BYTES = 4096
_LINES_BYTES = 1 << 18
_LINES = 256  # of a workbook or parquet


class UnknownFile:
    """A file whose format is not known yet: what can be told without reading all of it. Use it in a
    ``with`` block.

    Raises:
        BadInput: If it cannot be opened, or is HDF5 and damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.head = self._read(_HEAD_BYTES)
        """The first 4096 bytes."""
        self._closing = ExitStack()

    def _read(self, size: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                return file.read(size)
        except OSError as error:
            raise BadInput(f"{self.path} cannot be read: {error.strerror or error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._closing.__exit__(*error)

    @cached_property
    def lines(self) -> list[str]:
        """The first lines of a text, up to 256 KiB, or of a workbook or parquet; none where it is
        none of them or begins with a blank line."""
        if self.parquet:
            return parquet.csv_lines(self.path, rows=_LINES)
        if self.head.startswith(b"PK"):
            return xlsx.csv_lines(self.path, rows=_LINES)
        start = self._read(_LINES_BYTES)
        encoding = "utf-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        lines = start.decode(encoding, "replace").splitlines()
        if len(start) == _LINES_BYTES:
            del lines[-1:]  # it may be cut
        return lines if lines and lines[0].strip() and "\0" not in lines[0] else []

    @cached_property
    def hdf5(self) -> Any:
        """The file opened by h5py; an empty dictionary where it is no HDF5."""
        if not self.head.startswith(hdf5.SIGNATURE):
            return {}
        return self._closing.enter_context(hdf5.open_hdf5(self.path))

    @cached_property
    def npz(self) -> tuple[str, ...]:
        """Names of the arrays in an npz; none where it is no npz."""
        return npz.members(self.path) if self.head.startswith(b"PK") else ()

    @cached_property
    def parquet(self) -> tuple[str, ...]:
        """Names of the columns of a parquet; none where it is none, or damaged."""
        return parquet.columns(self.path) if self.head.startswith(parquet.SIGNATURE) else ()


class AbstractFormat(ABC):
    """What every format says of itself; it has no state."""

    description: str
    """A few words for people, in messages and ``--help``: ``DeepLabCut CSV``."""
    suffixes: tuple[str, ...]
    """With a dot, lower case. In a folder only files with such an ending are looked at."""
    name_endings: tuple[str, ...] = ()
    """What its tool adds to the name of a recording, as regular expressions: with ``boris``,
    ``m1_boris.csv`` belongs to the recording ``m1``."""
    priority: int = 0
    """Formats of a higher priority are tried first, those of one priority in the order of their
    files' names. Below 0 where files of other formats would be recognised, too."""

    @abstractmethod
    def recognise(self, file: UnknownFile) -> bool:
        """Whether a file has this format. A damaged one should be recognised, too, so that reading
        it can say what is wrong."""


@cache
def _formats(folder: str) -> Any:
    package = f"{__package__}.{folder}"
    every = [find(package, name, AbstractFormat)() for name in names(package)]
    return tuple(sorted(every, key=lambda fmt: -fmt.priority))


def track_formats() -> tuple[AbstractTrackFormat, ...]:
    """All formats of tracks, in the order in which they are tried."""
    out: tuple[AbstractTrackFormat, ...] = _formats("track_formats")
    return out


def label_formats() -> tuple[AbstractLabelFormat, ...]:
    """All formats of labels, in the order in which they are tried."""
    out: tuple[AbstractLabelFormat, ...] = _formats("label_formats")
    return out


def descriptions(formats: Iterable[AbstractFormat]) -> str:
    """For people, the surest first."""
    return ", ".join(fmt.description for fmt in formats)


def suffixes(formats: Iterable[AbstractFormat]) -> frozenset[str]:
    """Endings of the files in which they come."""
    return frozenset(suffix for fmt in formats for suffix in fmt.suffixes)


def track_format(path: Path) -> AbstractTrackFormat | None:
    """The format of a tracker's file; None where it is no such file.

    Raises:
        BadInput: If it cannot be opened, or is HDF5 but damaged.
    """
    with UnknownFile(path) as file:
        return next((fmt for fmt in track_formats() if fmt.recognise(file)), None)


def label_format(path: Path) -> AbstractLabelFormat | None:
    """The format of a label file; None where it is no such file, and where it is a tracker's that
    has no labels beside its poses.

    Raises:
        BadInput: If it cannot be opened, or is HDF5 but damaged.
    """
    with UnknownFile(path) as file:
        has_poses = any(fmt.recognise(file) for fmt in track_formats())
        formats = (fmt for fmt in label_formats() if fmt.beside_poses or not has_poses)
        return next((fmt for fmt in formats if fmt.recognise(file)), None)


def describe_start(path: Path) -> str:
    """What a file that has no known format begins with, in words."""
    with UnknownFile(path) as file:
        if not file.head:
            return "it is empty"
        if file.head.startswith(hdf5.SIGNATURE):
            return "HDF5 of a layout not known"
        if file.head.startswith(b"PK"):
            return f"a zip with {', '.join(file.npz[:5]) or 'no arrays that can be listed'}"
        first = file.head.split(b"\n", 1)[0][:60].decode("utf-8", "replace")
        return f"line 1 begins {first!r}"
