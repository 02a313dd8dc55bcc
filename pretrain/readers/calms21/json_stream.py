"""Reads a large JSON text forwards, block by block: names, small values, and long arrays of numbers
cut between frames."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, NoReturn, Protocol

import numpy as np
import numpy.typing as npt
import simdjson

from pretrain.errors import BadInput
from pretrain.readers.safe_files.zip import ZIP_ERRORS

BLOCK_BYTES = 2**20
_MAX_ROW_BYTES = 2**20
_MAX_VALUE_BYTES = 2**20
_MAX_SPACE_BYTES = 2**24

_NOT_SPACE = re.compile(rb"[^ \t\r\n]")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_SCALAR = re.compile(rb'[^\s,\]}"]++')
_NESTING = re.compile(
    rb'"(?:[^"\\]|\\.)*+"|["\[\]{}]', re.DOTALL
)  # a lone quote: the text goes on beyond the buffer
_WORD = re.compile(rb"(?<![0-9.A-Za-z])[A-Za-z]+")
_NOT_STRUCTURE = bytes(set(range(256)) - set(b"[],"))


class Bytes(Protocol):
    """What is read from: a binary file, or a member of a zip archive."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; none at the end."""


@dataclass(frozen=True)
class Rows:
    """An array of frames that a sequence may hold."""

    shape: tuple[int, ...]
    """Of one frame."""
    dtype: npt.DTypeLike
    axes: str
    """What a frame holds, in words."""


class JsonStream:
    """A position in a JSON text that is read block by block. Messages name the file ``where``;
    ``on_progress`` is told the bytes read since the last call."""

    def __init__(
        self, stream: Bytes, *, where: str, on_progress: Callable[[int], None] | None = None
    ) -> None:
        self.section = ""
        """Where in the file, in words, for messages."""
        self._stream, self._where, self._on_progress = stream, where, on_progress
        self._text, self._at = b"", 0
        """The buffer and the position in it."""
        self._dropped = 0
        """Bytes before the buffer."""
        self._parser: Any = simdjson.Parser()

    def fail(self, error: str, *, at: int | None = None) -> NoReturn:
        """Raises BadInput with file, sequence and byte."""
        byte = self._dropped + (self._at if at is None else at)
        raise BadInput(f"{self._where}{self.section}, byte {byte:,}: {error}") from None

    def skip_byte_order_mark(self) -> None:
        """Passes over UTF-8's mark and refuses the encodings of two or four bytes a letter."""
        self._more()
        head = self._text[:4]
        if head[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in head:
            self.fail(
                "this is not UTF-8 text (UTF-16 or binary?); the official files are JSON in UTF-8"
            )
        if head[:3] == b"\xef\xbb\xbf":
            self._at = 3

    def members(self) -> Iterator[str]:
        """The names in the object that begins here; between two of them the caller must read the
        value."""
        self._expect(b"{")
        if self._peek() == b"}":
            self._at += 1
            return
        while True:
            if self._peek() != b'"':
                self._unexpected("a name in quotes")
            key = self._string()
            self._expect(b":")
            yield key
            if self._peek() == b",":
                self._at += 1
            elif self._peek() == b"}":
                self._at += 1
                return
            else:
                self._unexpected("a comma or the closing brace of an object")

    def finish(self) -> None:
        """Refuses anything after the end."""
        if self._peek():
            self.fail("there is more text after the end of the JSON object")

    def value(self, key: str) -> Any:
        """A small value (metadata), through ``json``."""
        opening = self._peek()
        if opening in (b"", b",", b":", b"]", b"}"):
            self._unexpected(f"the value of {key!r}")
        end = self._value_end(key, nested=opening in (b"{", b"["))
        try:
            text = self._text[self._at : end].decode("utf-8")
            value = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_no_repeats)
        except (ValueError, RecursionError) as error:
            self.fail(f"the value of {key!r} cannot be read: {_short(error)}")
        self._at = end
        return value

    def rows(self, key: str, rows: Rows) -> Iterator[npt.NDArray[np.float64]]:
        """The array of frames that begins here, in pieces (n, *shape)."""
        if self._peek() != b"[":
            self._unexpected(f"the array {key}")
        self._at += 1
        frames_read = 0
        if self._peek() == b"]":
            self._at += 1
            return
        while True:
            close = self._array_close(key)
            cut = close if close >= 0 else self._last_row_end(len(rows.shape))
            if cut >= 0:
                piece = self._parse(self._text[self._at : cut], key, rows, frames_read)
                self._at = cut + 1
                frames_read += len(piece)
                yield piece
                if close >= 0:
                    return
            elif len(self._text) - self._at > BLOCK_BYTES + _MAX_ROW_BYTES:
                self.fail(
                    f"{key}, frame {frames_read:,}: a frame takes more than {_MAX_ROW_BYTES:,} "
                    "bytes"
                )
            if not self._more():
                self.fail(
                    f"the file ends inside {key}, after {frames_read:,} frames; is it complete?",
                    at=len(self._text),
                )

    def _parse(
        self, block: bytes, key: str, rows: Rows, frames_read: int
    ) -> npt.NDArray[np.float64]:
        size = prod(rows.shape)
        try:
            values = np.frombuffer(self._parser.parse(b"[" + block + b"]").as_buffer(of_type="d"))
        except (ValueError, TypeError, RuntimeError) as error:
            self._bad_number(block, key, size, frames_read, error)
        # simdjson flattens arrays of any form; the form is in the brackets and commas.
        structure, frame = block.translate(None, _NOT_STRUCTURE), _structure(rows.shape) + b","
        count = max(1, len(values) // size)
        if structure != (frame * count)[:-1] or len(values) != count * size:
            pairs = enumerate(zip(structure, frame * (count + 1), strict=False))
            bad = next((i for i, (a, b) in pairs if a != b), len(structure))
            self.fail(
                f"{key}, frame {frames_read + bad // len(frame):,}: does not hold {rows.axes}"
            )
        return values.reshape(-1, *rows.shape)

    def _bad_number(
        self, block: bytes, key: str, size: int, frames_read: int, error: Exception
    ) -> NoReturn:
        at = 0
        if word := _WORD.search(block):
            at = word.start()
            sentence = f"{word.group().decode()!r} is not a number; every value must be finite"
        else:
            try:
                json.loads(b"[" + block + b"]")
                sentence = "a number cannot be read or is too large"
                sentence += f" ({_short(error)}) in this frame or a later one"
            except json.JSONDecodeError as detail:
                at, sentence = max(0, detail.pos - 1), f"not an array of numbers: {detail.msg}"
            except (ValueError, RecursionError):
                sentence = f"not an array of numbers ({_short(error)})"
        frame = frames_read + block.count(b",", 0, at) // size
        self.fail(f"{key}, frame {frame:,}: {sentence}", at=self._at + at)

    def _array_close(self, key: str) -> int:
        """Index of the bracket that closes the array of numbers we are in; -1 if the end is not in
        the buffer yet."""
        quote = self._text.find(b'"', self._at)
        brace = self._text.find(b"}", self._at, quote if quote >= 0 else len(self._text))
        stop = brace if brace >= 0 else quote
        if stop < 0:
            return -1
        close = self._text.rfind(b"]", self._at, stop)
        if close < 0:
            self.fail(f"{key}: the array is not closed, or holds text", at=stop)
        return close

    def _last_row_end(self, depth: int) -> int:
        """Index of the last comma in the buffer that surely separates two frames; -1 if there is
        none."""
        # What follows is looked at because a comma at the end may already stand behind the whole
        # array.
        row_end = re.compile(rb"((?:\]\s*+){%d}),\s*+%s" % (depth, rb"\[" if depth else rb"[-0-9]"))
        window = 2**11
        while True:
            start = max(self._at, len(self._text) - window)
            ends = [match.end(1) for match in row_end.finditer(self._text, start)]
            if ends or start == self._at:
                return ends[-1] if ends else -1
            window *= 8

    def _more(self) -> bool:
        """Appends a block to the buffer and drops what lies behind; False at the end of the
        file."""
        try:
            data = self._stream.read(BLOCK_BYTES)
        except ZIP_ERRORS as error:
            self.fail(
                f"the file cannot be read on, it is damaged or incomplete ({_short(error)})",
                at=len(self._text),
            )
        if not data:
            return False
        self._text = self._text[self._at :] + data
        self._dropped += self._at
        self._at = 0
        if self._on_progress:
            self._on_progress(len(data))
        return True

    def _peek(self) -> bytes:
        """Passes over space and returns the next byte, which stays; nothing at the end of the
        file."""
        skipped = 0
        while True:
            match = _NOT_SPACE.search(self._text, self._at)
            if match:
                self._at = match.start()
                return match.group()
            skipped += len(self._text) - self._at
            self._at = len(self._text)
            if skipped > _MAX_SPACE_BYTES:
                self.fail(f"more than {_MAX_SPACE_BYTES:,} blanks in a row")
            if not self._more():
                return b""

    def _expect(self, byte: bytes) -> None:
        if self._peek() != byte:
            self._unexpected(repr(byte.decode()))
        self._at += 1

    def _unexpected(self, expected: str) -> NoReturn:
        if not self._peek():
            self.fail(f"the file ends where {expected} should be; is it complete?")
        self.fail(
            f"found {self._text[self._at : self._at + 20].decode('utf-8', 'replace')!r} where "
            f"{expected} should be"
        )

    def _string(self) -> str:
        while not (match := _STRING.match(self._text, self._at)):
            if len(self._text) - self._at > _MAX_VALUE_BYTES or not self._more():
                self.fail("a name in quotes does not end")
        try:
            text = json.loads(match.group().decode("utf-8"))
            text.encode("utf-8")
        except ValueError as error:
            self.fail(f"a name cannot be read: {_short(error)}")
        assert isinstance(text, str)
        self._at = match.end()
        return text

    def _value_end(self, key: str, *, nested: bool) -> int:
        while True:
            depth = 0
            for match in _NESTING.finditer(self._text, self._at) if nested else ():
                if match.group() == b'"':
                    break
                depth += {b"{": 1, b"[": 1, b"}": -1, b"]": -1}.get(match.group(), 0)
                if not depth:
                    return match.end()
            single = _STRING.match(self._text, self._at) or _SCALAR.match(self._text, self._at)
            if single and not nested and single.end() < len(self._text):
                return single.end()
            if len(self._text) - self._at > BLOCK_BYTES + _MAX_VALUE_BYTES:
                self.fail(
                    f"the value of {key!r} takes more than a megabyte, and it is no array that "
                    "this format has"
                )
            if not self._more():
                self.fail(
                    f"the file ends inside the value of {key!r}; is it complete?",
                    at=len(self._text),
                )


def _structure(shape: tuple[int, ...]) -> bytes:
    """The brackets and commas of one frame: (2, 3) gives ``[[,,],[,,]]``."""
    inner = b""
    for count in reversed(shape):
        inner = b"[" + b",".join([inner] * count) + b"]"
    return inner


def _no_constant(token: str) -> NoReturn:
    raise ValueError(f"{token} is not JSON")


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a key appears twice")
    return members


def _short(error: BaseException) -> str:
    return (str(error) or type(error).__name__).split("\n")[0][:120]
