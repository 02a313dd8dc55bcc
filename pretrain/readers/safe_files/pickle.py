"""Pickles from strangers: plain values and arrays of numbers; nothing in them is run.

A pickle is a program. Its instructions are checked before the first is carried out, and it may name
nothing but the few numpy objects that stand in the pickle of an array. Those names lead to classes
of this file that check and keep their arguments, so that numpy never builds an object from the
file's own idea of its inside.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from math import prod
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

_INSTRUCTIONS = {
    *("PROTO", "FRAME", "MARK", "STOP"),
    *("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"),
    *("NONE", "NEWTRUE", "NEWFALSE"),
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
    *("LIST", "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS"),
    *("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_TUPLE"),
    *("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"),
}
_MAX_INSTRUCTIONS = 2_000_000
# Python hashes nested tuples by recursion in C without a limit: about 100,000 levels end the
# process. An array takes six tuples.
_MAX_TUPLES = 10_000
_MAX_LINE_BYTES = 4096
_MAX_FRAME_BYTES = 2**20  # pickle closes a frame at 64 KiB; long bytes stand outside of frames
_NUMBERS = re.compile(r"[<>|=]?(?:f[248]|[iu][1248]|b1)")


class PickleRefused(ValueError):
    """A pickle is damaged, or wants something that plain values and arrays do not need."""


def load(file: BinaryIO) -> Any:
    """Reads the pickle that begins here; the file is left where reading ended.

    Returns:
        Lists, tuples, dictionaries, text, bytes and numbers, with a :class:`PickledArray` in place
        of each array.

    Raises:
        PickleRefused: If it is damaged, too long, or holds anything else.
    """
    begin = file.tell()
    bounded = _Bounded(file)
    try:
        _check_instructions(bounded)
        file.seek(begin)
        return _Unpickler(cast("Any", bounded), encoding="utf-8").load()
    except PickleRefused:
        raise
    except Exception as error:  # a damaged pickle may raise anything
        raise PickleRefused(f"its pickle is damaged ({error!r})") from error


class _Bounded:
    """A file that cannot be asked for more than it has."""

    def __init__(self, file: BinaryIO) -> None:
        here = file.tell()
        self._file, self._size = file, file.seek(0, io.SEEK_END)
        file.seek(here)

    def _refuse_beyond_end(self, size: int) -> None:
        if size > self._size - self._file.tell():
            raise PickleRefused("it ends too early")

    def read(self, size: int) -> bytes:
        self._refuse_beyond_end(size)
        return self._file.read(size)

    def readinto(self, buffer: memoryview) -> int:
        self._refuse_beyond_end(len(buffer))
        return cast("io.BufferedReader", self._file).readinto(buffer)

    def readline(self) -> bytes:
        line = self._file.readline(_MAX_LINE_BYTES)
        if not line.endswith(b"\n"):
            raise PickleRefused("a name that does not end")
        return line


def _check_instructions(file: _Bounded) -> None:
    tuples = 0
    for count, (instruction, argument, _) in enumerate(pickletools.genops(cast("BinaryIO", file))):
        name, number = instruction.name, cast("Any", argument)
        tuples += name.startswith("TUPLE")
        if name not in _INSTRUCTIONS:
            raise PickleRefused(f"the instruction {name}")
        if count > _MAX_INSTRUCTIONS:
            raise PickleRefused("it holds its numbers one by one, not as arrays")
        if tuples > _MAX_TUPLES:
            raise PickleRefused(f"it holds more than {_MAX_TUPLES:,} tuples")
        # The unpickler's table of remembered values is as long as the largest index in it.
        if name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= number <= count:
            raise PickleRefused("it is damaged: it remembers a value at an index out of range")
        if name == "FRAME" and number > _MAX_FRAME_BYTES:
            raise PickleRefused(f"a frame of {number:,} bytes")


class _StandIn:
    """What a name in a pickle leads to. It has no attributes of its own that a pickle could set."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise PickleRefused("it sets the inside of something that is no array")


class _Ndarray(_StandIn):
    """``numpy.ndarray``, which a pickle may name and not call."""

    __slots__ = ()

    def __new__(cls, *arguments: Any) -> _Ndarray:
        raise PickleRefused("it calls numpy's ndarray in an unusual way")


class _Dtype(_StandIn):
    """``numpy.dtype``."""

    __slots__ = ("kind", "order")

    def __init__(self, kind: Any, *_: Any) -> None:
        if not isinstance(kind, str):
            raise PickleRefused("it calls numpy's dtype in an unusual way")
        self.kind, self.order = kind, "="

    def __setstate__(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) >= 2 and state[1] in ("<", ">", "|", "=")):
            super().__setstate__(state)
        if any(part is not None for part in state[2:5]):
            raise PickleRefused("an array of records")
        self.order = state[1]

    def numpy(self) -> np.dtype[Any]:
        if not _NUMBERS.fullmatch(self.kind):
            raise PickleRefused(f"an array of type {self.kind[:20]!r}; allowed: numbers")
        return np.dtype(self.kind).newbyteorder(self.order if self.order in "<>" else "=")  # type: ignore[arg-type]


class PickledArray(_StandIn):
    """``numpy.core.multiarray._reconstruct``: an array as its pickle describes it."""

    __slots__ = ("_state",)

    def __init__(self, kind: Any = None, *_: Any) -> None:
        if kind is not _Ndarray:
            raise PickleRefused("it calls numpy's _reconstruct in an unusual way")
        self._state: tuple[Any, ...] = (None,) * 5

    def __setstate__(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) == 5):
            super().__setstate__(state)
        self._state = state

    def item(self) -> Any:
        """What a 0-dimensional array of objects holds, the form in which ``np.save`` writes a
        dictionary."""
        _, shape, dtype, _, values = self._state
        if not (
            isinstance(dtype, _Dtype)
            and dtype.kind == "O8"
            and shape == ()
            and isinstance(values, list)
            and len(values) == 1
        ):
            raise PickleRefused("it does not hold one dictionary")
        return values[0]

    def numpy(self) -> npt.NDArray[Any]:
        """The array.

        Raises:
            PickleRefused: If it is no array of numbers, or its bytes do not fit its shape.
        """
        _, shape, dtype, fortran, data = self._state
        if not (
            isinstance(shape, tuple)
            and len(shape) <= 8
            and all(type(length) is int and length >= 0 for length in shape)
            and isinstance(dtype, _Dtype)
        ):
            raise PickleRefused("an array without shape or type")
        kind = dtype.numpy()
        if not isinstance(data, bytes) or len(data) != prod(shape) * kind.itemsize:
            raise PickleRefused(f"an array of shape {shape} whose bytes do not match")
        return np.frombuffer(data, kind).reshape(shape, order="F" if fortran is True else "C")


class _Scalar(_StandIn):
    """``numpy.core.multiarray.scalar``: gives a Python number."""

    __slots__ = ()

    def __new__(cls, dtype: Any = None, data: Any = None) -> Any:
        if isinstance(dtype, _Dtype) and isinstance(data, bytes):
            kind = dtype.numpy()
            if len(data) == kind.itemsize:
                return np.frombuffer(data, kind)[0].item()
        raise PickleRefused("it calls numpy's scalar in an unusual way")


_NAMES = {
    ("numpy", "ndarray"): _Ndarray,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): PickledArray,
    ("numpy._core.multiarray", "_reconstruct"): PickledArray,
    ("numpy.core.multiarray", "scalar"): _Scalar,
    ("numpy._core.multiarray", "scalar"): _Scalar,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise PickleRefused(f"it asks for {module[:100]}.{name[:100]}")
        return _NAMES[module, name]
