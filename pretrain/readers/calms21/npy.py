"""Reads the npy form of CalMS21 (``np.save`` of a dictionary, which is a pickle) without unpickling
anything.

A pickle is a program, and the usual reader runs it. Here its instructions are decoded one at a time
and carried out on plain values only: dictionaries, lists, tuples, text, numbers, and arrays of
numbers. Nothing is imported, nothing is called, no numpy object is built from the file's own idea
of its inside; an instruction or a name outside of a short list ends the reading.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from pretrain.errors import BadInput
from pretrain.readers.calms21.sequences import Sequence

MAX_BYTES = 768 * 2**20  # a pickle has to be held whole
_MAX_INSTRUCTIONS = 2_000_000
_MAX_LINE = 256
_HEADER = re.compile(rb"\{'descr': '\|O', 'fortran_order': (?:True|False), 'shape': \(\), \} *\n")
_NUMBERS = re.compile(r"[<>|=]?(?:f[248]|[iu][1248]|b1)")

_PUSHED = {
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "BINFLOAT",
    "SHORT_BINUNICODE",
    "BINUNICODE",
    "BINUNICODE8",
    "SHORT_BINBYTES",
    "BINBYTES",
    "BINBYTES8",
}
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NAMES = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("numpy.core.multiarray", "_reconstruct"): "_reconstruct",
    ("numpy._core.multiarray", "_reconstruct"): "_reconstruct",
    ("numpy.core.multiarray", "scalar"): "scalar",
    ("numpy._core.multiarray", "scalar"): "scalar",
}


class _Refused(ValueError):
    """The pickle wants something that a file of poses does not need."""


@dataclass(frozen=True)
class _Name:
    text: str


@dataclass
class _Dtype:
    kind: str
    order: str = "="

    def numpy(self) -> np.dtype[Any]:
        if not _NUMBERS.fullmatch(self.kind):
            raise _Refused(f"an array of type {self.kind!r}; allowed: numbers")
        return np.dtype(self.kind).newbyteorder(self.order if self.order in "<>" else "=")  # type: ignore[arg-type]


@dataclass
class _Array:
    state: tuple[Any, ...] = ()

    def held(self) -> Any:
        """What a 0-dimensional array of objects holds; the form in which ``np.save`` writes a
        dictionary."""
        _, shape, dtype, _, data = self.state
        if not (
            isinstance(dtype, _Dtype)
            and dtype.kind == "O8"
            and shape == ()
            and isinstance(data, list)
            and len(data) == 1
        ):
            raise _Refused("it does not hold one dictionary")
        return data[0]

    def numpy(self) -> npt.NDArray[Any]:
        _, shape, dtype, fortran, data = self.state or (None,) * 5
        if not (
            isinstance(shape, tuple)
            and len(shape) <= 8
            and all(type(n) is int and n >= 0 for n in shape)
            and isinstance(dtype, _Dtype)
        ):
            raise _Refused("an array without shape or type")
        kind = dtype.numpy()
        if not isinstance(data, bytes) or len(data) != prod(shape) * kind.itemsize:
            raise _Refused(f"an array of shape {shape} whose bytes do not match")
        return np.frombuffer(data, kind).reshape(shape, order="F" if fortran is True else "C")


class _Limited:
    """A file that cannot be asked for more than it has."""

    def __init__(self, file: BinaryIO, size: int, progress: Callable[[int], None] | None) -> None:
        self._file, self._size, self._progress = file, size, progress

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int) -> bytes:
        if size > self._size - self._file.tell():
            raise _Refused("it ends too early")
        if self._progress:
            self._progress(size)
        return self._file.read(size)

    def readline(self) -> bytes:
        line = self._file.readline(_MAX_LINE)
        if not line.endswith(b"\n"):
            raise _Refused("a name that does not end")
        return line


def read_npy(path: Path, *, progress: Callable[[int], None] | None = None) -> Iterator[Sequence]:
    """Yields the sequences of one npy file.

    Args:
        path: The file.
        progress: Called with the number of bytes read since the last call.

    Raises:
        BadInput: Naming the file and the byte, if it is too large to be held, damaged, or holds
            anything but dictionaries, text and arrays of numbers.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise BadInput(
            f"{path} has {size:,} bytes; an npy file must be held whole, allowed: {MAX_BYTES:,}. "
            "Give the JSON file instead"
        )
    with path.open("rb") as file:
        limited = _Limited(file, size, progress)
        try:
            _read_header(limited)
            groups = _run(limited)
            if limited.tell() != size:
                raise _Refused("there is more after its end")
        except (
            ValueError,
            IndexError,
            KeyError,
            TypeError,
            AttributeError,
            OverflowError,
            MemoryError,
        ) as error:
            problem = (
                str(error) if isinstance(error, _Refused) else f"its pickle is damaged ({error!r})"
            )
            raise BadInput(
                f"{path}, byte {limited.tell():,}: {problem}. Only the npy form of the official "
                "JSON is read "
                "(a dictionary of dictionaries of numeric arrays); anything else in a pickle could "
                "run code and is refused"
            ) from error
    if not isinstance(groups, dict) or not groups:
        raise BadInput(f"{path}: it does not hold a dictionary of groups")
    for group in list(groups):
        members = groups.pop(group)
        if not isinstance(group, str) or not isinstance(members, dict):
            raise BadInput(f"{path}: group {group!r} is not a dictionary of sequences")
        for name in list(members):
            yield _sequence(path, group, name, members.pop(name))


def _sequence(path: Path, group: str, name: Any, held: Any) -> Sequence:
    if not isinstance(name, str) or not isinstance(held, dict):
        raise BadInput(f"{path}: sequence {name!r} in group {group!r} is not a dictionary")
    sequence = Sequence(group, name)
    for key, value in held.items():
        try:
            if isinstance(value, _Array):
                sequence.arrays[str(key)] = value.numpy()
            else:
                sequence.values[str(key)] = value
        except ValueError as error:
            raise BadInput(
                f"{path}: sequence {name!r} in group {group!r}, {key}: {error}"
            ) from error
    return sequence


def _read_header(file: _Limited) -> None:
    magic = file.read(8)
    if magic[:6] != b"\x93NUMPY" or magic[6:] not in (b"\1\0", b"\2\0", b"\3\0"):
        raise _Refused("it is not an npy file")
    length = int.from_bytes(file.read(2 if magic[6] == 1 else 4), "little")
    if length > 10_000 or not _HEADER.fullmatch(file.read(length)):
        raise _Refused("it is an npy file, but not of one dictionary")


def _run(file: _Limited) -> Any:
    """Carries out a pickle's instructions on plain values."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    for count, (instruction, given, _) in enumerate(pickletools.genops(cast("BinaryIO", file))):
        name, argument = instruction.name, cast("Any", given)
        if count > _MAX_INSTRUCTIONS:
            raise _Refused("it holds its numbers one by one, not as arrays")
        if name in ("PROTO", "FRAME"):
            continue
        if name == "STOP":
            (outer,) = stack
            return outer.held() if isinstance(outer, _Array) else outer
        if name in _PUSHED:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE"):
            stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[name]())
        elif name == "MARK":
            marks.append(len(stack))
        elif name in _TUPLES or name == "TUPLE":
            stack.append(
                tuple(
                    _popped(stack, len(stack) - _TUPLES[name] if name in _TUPLES else marks.pop())
                )
            )
        elif name in ("SETITEM", "SETITEMS", "APPEND", "APPENDS"):
            start = {"SETITEM": len(stack) - 2, "APPEND": len(stack) - 1}.get(name)
            _fill(stack, _popped(stack, marks.pop() if start is None else start), "ITEM" in name)
        elif name in ("MEMOIZE", "BINPUT", "LONG_BINPUT"):
            memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "GLOBAL":
            stack.append(_known(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            stack.append(_known(*_popped(stack, len(stack) - 2)))
        elif name == "REDUCE":
            stack.append(_made(*_popped(stack, len(stack) - 2)))
        elif name == "BUILD":
            state = stack.pop()
            _build(stack[-1], state)
        else:
            raise _Refused(f"the instruction {name}")
    raise _Refused("it ends too early")


def _popped(stack: list[Any], start: int) -> list[Any]:
    if not 0 <= start <= len(stack):
        raise _Refused("it takes what is not there")
    taken = stack[start:]
    del stack[start:]
    return taken


def _fill(stack: list[Any], items: list[Any], pairs: bool) -> None:
    target = stack[-1]
    if not pairs and isinstance(target, list):
        target.extend(items)
    elif (
        pairs
        and isinstance(target, dict)
        and all(isinstance(key, str) for key in items[::2])
        and len(items) % 2 == 0
    ):
        target.update(zip(items[::2], items[1::2], strict=True))
    else:
        raise _Refused("a dictionary whose keys are not text, or a list that is none")


def _known(module: Any, attribute: Any) -> _Name:
    if not (
        isinstance(module, str) and isinstance(attribute, str) and (module, attribute) in _NAMES
    ):
        raise _Refused(f"it asks for {module}.{attribute}")
    return _Name(_NAMES[module, attribute])


def _made(name: Any, arguments: Any) -> Any:
    """What one of the few allowed calls would give; an inert stand-in."""
    if not (isinstance(name, _Name) and isinstance(arguments, tuple)):
        raise _Refused("it calls something")
    if name.text == "_reconstruct" and arguments and arguments[0] == _Name("ndarray"):
        return _Array()
    if name.text == "dtype" and arguments and isinstance(arguments[0], str):
        return _Dtype(arguments[0])
    if (
        name.text == "scalar"
        and len(arguments) == 2
        and isinstance(arguments[0], _Dtype)
        and isinstance(arguments[1], bytes)
    ):
        kind = arguments[0].numpy()
        if len(arguments[1]) == kind.itemsize:
            return np.frombuffer(arguments[1], kind)[0].item()
    raise _Refused(f"it calls numpy's {name.text} in an unusual way")


def _build(target: Any, state: Any) -> None:
    if isinstance(target, _Array) and isinstance(state, tuple) and len(state) == 5:
        target.state = state
    elif (
        isinstance(target, _Dtype)
        and isinstance(state, tuple)
        and len(state) >= 2
        and state[1] in ("<", ">", "|", "=")
    ):
        if any(part is not None for part in state[2:5]):
            raise _Refused("an array of records")
        target.order = state[1]
    else:
        raise _Refused("it sets the inside of something that is no array")
