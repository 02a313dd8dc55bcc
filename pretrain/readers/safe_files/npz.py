"""npz files from strangers: nothing unpickled, no bomb unpacked."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt

from pretrain.errors import BadInput, refuse
from pretrain.readers.safe_files.zip import ZIP_ERRORS, refuse_bomb

HEADER_ERRORS = (*ZIP_ERRORS, SyntaxError, TypeError, TokenError)
"""What numpy raises where the header of an array is damaged; it reads the header as Python text."""
_ROOM_BYTES = 2**28  # what fits into any memory


def members(path: Path) -> tuple[str, ...]:
    """Names of the arrays in a zip; empty where it is no zip of arrays."""
    try:
        with zipfile.ZipFile(path) as packed:
            names = packed.namelist()
    except ZIP_ERRORS:
        return ()
    return tuple(name.removesuffix(".npy") for name in names if name.endswith(".npy"))


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Every array of an npz.

    Raises:
        BadInput: If it is damaged, holds pickles, states more than it holds, or has a member twice.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            infos = packed.infolist()
            refuse_bomb(packed, path, room_bytes=_ROOM_BYTES)
            names = [info.filename for info in infos]
            if len(set(names)) < len(names):
                raise BadInput(
                    f"{path}: an array is in it twice "
                    f"({', '.join(sorted(n for n in set(names) if names.count(n) > 1))})"
                )
            return {
                info.filename.removesuffix(".npy"): _array(packed, info, path) for info in infos
            }
    except BadInput:
        raise
    except ZIP_ERRORS as error:
        raise BadInput(
            f"{path}: the npz file is truncated or damaged ({error or type(error).__name__})"
        ) from error


def _array(packed: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> npt.NDArray[Any]:
    name = info.filename
    with packed.open(info) as file:
        try:
            version = np.lib.format.read_magic(file)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, dtype = read_header(file)
        except HEADER_ERRORS as error:
            raise BadInput(
                f"{path}: {name} is not an array of numbers or text ({error})"
            ) from error
        if dtype.hasobject:
            raise BadInput(
                f"{path}: {name} holds pickled objects, which could run code; save arrays of "
                "numbers and text only"
            )
        stated = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if min(shape, default=0) < 0 or stated > info.file_size:
            raise BadInput(
                f"{path}: {name} states shape {shape}, more than its {info.file_size:,} bytes hold"
            )
    with packed.open(info) as file:
        try:
            array: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        except (SyntaxError, TypeError, KeyError, TokenError) as error:
            raise BadInput(f"{path}: {name} is damaged ({error})") from error
    return array


def refuse_unknown(arrays: Iterable[str], allowed: Iterable[str], path: Path) -> None:
    """Refuses arrays of other names, naming each."""
    known = list(allowed)
    refuse(
        [
            f"{name!r} is not known; allowed: {', '.join(known)}"
            for name in sorted(set(arrays) - set(known))
        ],
        about=str(path),
    )


def names_in(arrays: dict[str, npt.NDArray[Any]], key: str, path: Path) -> tuple[str, ...]:
    """A list of names among the arrays.

    Raises:
        BadInput: If it is absent or not text, or a name is empty or repeated.
    """
    array = arrays.get(key)
    if array is None or array.dtype.kind not in "US" or array.ndim > 1:
        problem = "is absent" if array is None else f"holds {array.dtype} of shape {array.shape}"
        raise BadInput(f"{path}: {key} {problem}; wanted a list of names")
    try:
        names = tuple(
            str(value.decode("utf-8") if isinstance(value, bytes) else value)
            for value in np.atleast_1d(array).tolist()
        )
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: {key} is not UTF-8 text ({error})") from error
    if not names or not all(names) or len(set(names)) < len(names):
        raise BadInput(
            f"{path}: {key} are {', '.join(map(repr, names[:20])) or 'none'}; they must be named, "
            "each once"
        )
    return names


def number_in(arrays: dict[str, npt.NDArray[Any]], key: str, path: Path) -> float | None:
    """One positive number among the arrays; None where it is absent.

    Raises:
        BadInput: If it is something else.
    """
    array = arrays.get(key)
    if array is None:
        return None
    if (
        array.size != 1
        or array.dtype.kind not in "iuf"
        or not (np.isfinite(array).all() and (array > 0).all())
    ):
        raise BadInput(
            f"{path}: {key} is {array.reshape(-1)[:3]} of shape {array.shape}; wanted one positive "
            "number"
        )
    return float(array.reshape(()))
