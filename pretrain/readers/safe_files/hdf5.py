"""HDF5 files from strangers: opened read-only, every array checked before it is read, nothing in
them obeyed.

We read the trackers' HDF5 layouts ourselves, with h5py, and hold the outcome against files written
by the trackers' own libraries in the tests: those libraries unpickle (PyTables), reorder keypoints
or return part of a file without a word.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pretrain.errors import BadInput, refuse

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_ROOM_BYTES = 2**28  # an array up to this size is read whatever the size of its file
_EXPANSION = 500  # a larger one may be this many times its file: compressed tracks are mostly NaN


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Opens a file; what h5py cannot make sense of becomes a message that names the file.

    Raises:
        BadInput: If h5py is absent, or the file (or what is read from it inside the block) is
            damaged.
    """
    try:
        import h5py
    except ImportError:
        raise BadInput(
            f"{path} is an HDF5 file; reading it needs h5py: pip install 'ethoray[trackers]'"
        ) from None
    try:
        with h5py.File(path, "r") as file:
            yield file
    except BadInput:
        raise
    except (
        OSError,
        KeyError,
        IndexError,
        RuntimeError,
        ValueError,
        TypeError,
        AttributeError,
        OverflowError,
        MemoryError,
        RecursionError,
    ) as error:
        raise BadInput(
            f"{path}: the HDF5 file is truncated or damaged "
            f"({str(error).splitlines()[0] if str(error) else error!r})"
        ) from error


def node(file: Any, name: str, path: Path) -> Any:
    """The group or dataset of a name, ``/`` between its parts; None where there is none.

    Raises:
        BadInput: If a link on the way leads out of the file.
    """
    import h5py

    here = file
    for step in name.strip("/").split("/"):
        if not isinstance(here, h5py.Group):
            return None
        link = here.get(step, getlink=True)
        if link is None:
            return None
        if isinstance(link, h5py.ExternalLink):
            raise BadInput(
                f"{path}: {name} links to another file ({link.filename}); only whole files are read"
            )
        here = here.get(step)
        if (
            isinstance(link, h5py.SoftLink)
            and here is not None
            and here.file.filename != file.file.filename
        ):
            raise BadInput(
                f"{path}: {name} lies in another file ({here.file.filename}); only whole files "
                "are read"
            )
    return here


def kind(thing: Any) -> str:
    """The type that NWB states of a group or dataset; empty where it states none."""
    value = getattr(thing, "attrs", {}).get("neurodata_type", "")
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def array(file: Any, name: str, path: Path, *, ndim: int | None = None) -> npt.NDArray[Any]:
    """The numbers in a dataset of a file or group, which may have to have ``ndim`` axes.

    Raises:
        BadInput: If it is absent, no dataset of numbers, of another shape, kept in another file, or
            absurdly large.
    """
    import h5py

    dataset = node(file, name, path)
    if not isinstance(dataset, h5py.Dataset):
        raise BadInput(f"{path}: there is no dataset {name}")
    if dataset.external or dataset.is_virtual:
        raise BadInput(f"{path}: {name} is kept in another file; only whole files are read")
    if ndim is not None and dataset.ndim != ndim:
        raise BadInput(f"{path}: {name} has shape {dataset.shape}; wanted {ndim} axes")
    if dataset.dtype.kind not in "biuf" and dataset.dtype.names is None:
        raise BadInput(f"{path}: {name} holds {dataset.dtype}, not numbers")
    refuse_too_large(
        int(np.prod(dataset.shape, dtype=object)) * dataset.dtype.itemsize, name=name, path=path
    )
    values: npt.NDArray[Any] = dataset[()]
    return np.asarray(values)


def refuse_too_large(size: int, *, name: str, path: Path) -> None:
    """Refuses an array of more bytes than its file could expand to (a bomb, or damage)."""
    if size > _ROOM_BYTES and size > _EXPANSION * path.stat().st_size:
        raise BadInput(
            f"{path}: {name} states {size / 2**30:,.0f} GiB in a file of "
            f"{path.stat().st_size / 2**20:,.1f} MiB: damaged"
        )


def texts(file: Any, name: str, path: Path) -> tuple[str, ...]:
    """The list of names in a dataset, stripped of padding.

    Raises:
        BadInput: If they are absent, not text or not UTF-8.
    """
    import h5py

    dataset = node(file, name, path)
    if not isinstance(dataset, h5py.Dataset) or dataset.ndim > 1:
        raise BadInput(f"{path}: there is no list of names {name}")
    if not dataset.size:
        return ()  # an empty list is stored as an array of numbers
    if h5py.check_string_dtype(dataset.dtype) is None and dataset.dtype.kind not in "SUO":
        raise BadInput(f"{path}: {name} holds {dataset.dtype}, not text")
    refuse_too_large(
        int(np.prod(dataset.shape, dtype=object)) * dataset.dtype.itemsize, name=name, path=path
    )
    if dataset.size > 100_000:
        raise BadInput(f"{path}: {name} holds {dataset.size:,} names; damaged")
    return tuple(text(value, name, path) for value in np.atleast_1d(dataset[()]).tolist())


def text(value: Any, name: str, path: Path) -> str:
    """One attribute or cell as text.

    Raises:
        BadInput: If it is not text or not UTF-8.
    """
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadInput(f"{path}: {name} is not UTF-8 text: {error}") from error
    if not isinstance(value, str):
        raise BadInput(f"{path}: {name} holds {type(value).__name__}, not text")
    return value.strip("\0 \t\r\n")


def parsed_json(value: str, name: str, path: Path) -> Any:
    """JSON in a text.

    Raises:
        BadInput: If it is damaged.
    """
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: {name} is damaged JSON ({error})") from error


def refuse_bad_names(path: Path, **lists: tuple[str, ...]) -> None:
    """Refuses lists of names that are empty, or hold an empty or repeated name; names each list."""
    refuse(
        [
            f"{what.replace('_', ' ')} are {', '.join(repr(n) for n in names[:20]) or 'none'}; "
            "they must be named, each once"
            for what, names in lists.items()
            if not names or len(set(names)) < len(names) or not all(names)
        ],
        about=str(path),
    )
