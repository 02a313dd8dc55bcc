"""Pickles: plain values and arrays come through, nothing is run, no size that a file states is
believed."""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pretrain.readers.safe_files import pickle as safe_pickle
from pretrain.readers.safe_files.pickle import PickledArray, PickleRefused, load

PLAIN = {
    "text": "nose",
    "söme": ["a", ("b", "c", ("d",)), (1, 2, 3, 4), [], ()],
    "numbers": [0, -1, 300, 70_000, 2**40, 0.5, True, False, None],
}
ARRAYS = {
    "float64": np.arange(24.0).reshape(2, 3, 4),
    "columns first": np.asfortranarray(np.arange(6.0, dtype=np.float32).reshape(2, 3)),
    "big-endian": np.arange(5, dtype=">i4"),
    "bool": np.array([True, False]),
    "uint8": np.arange(3, dtype=np.uint8),
    "empty": np.empty((0, 2, 7)),
    "0-dimensional": np.array(3.5),
}
KINDS = ("ndarray", "dtype", "scalar", "_reconstruct")


def loaded(raw: bytes) -> Any:
    return load(io.BytesIO(raw))


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where a charge that goes off leaves a folder behind."""
    monkeypatch.chdir(tmp_path)
    yield
    assert list(tmp_path.iterdir()) == [], "a pickle has run something"


@pytest.mark.parametrize("protocol", range(5))
def test_plain_values_come_through(protocol: int) -> None:
    names = [("scorer", "mouse", "nose", axis) for axis in ("x", "y", "likelihood")]
    assert loaded(pickle.dumps(names, protocol)) == names
    if protocol > 1:  # dictionaries and booleans have instructions of their own since
        assert loaded(pickle.dumps(PLAIN, protocol)) == PLAIN


def test_text_of_python_2_comes_through() -> None:
    assert loaded(b"(lp0\nS'nose'\np1\na(S'x'\nVy\ntp2\naI01\na.") == ["nose", ("x", "y"), True]


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_come_through(name: str, protocol: int) -> None:
    content = loaded(pickle.dumps({"a": ARRAYS[name], "n": np.float32(0.25)}, protocol))
    np.testing.assert_array_equal(content["a"].numpy(), ARRAYS[name])
    assert content["a"].numpy().dtype == ARRAYS[name].dtype
    assert content["n"] == 0.25
    old = pickle.dumps(ARRAYS[name], 3).replace(b"numpy._core.", b"numpy.core.")
    np.testing.assert_array_equal(loaded(old).numpy(), ARRAYS[name])


def test_reading_ends_where_the_pickle_ends() -> None:
    file = io.BytesIO(b"before" + pickle.dumps(PLAIN) + b"after")
    file.seek(6)
    assert load(file) == PLAIN
    assert file.read() == b"after"


class Charge:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("exploded",)


class New(dict):  # type: ignore[type-arg]
    """Pickled by NEWOBJ."""


HOSTILE = {
    "REDUCE, protocol 0": pickle.dumps(Charge(), 0),
    "REDUCE, protocol 2": pickle.dumps(Charge(), 2),
    "REDUCE, protocol 4": pickle.dumps([PLAIN, Charge()], 4),
    "GLOBAL": b"cos\nmkdir\n.",
    "GLOBAL of a name within numpy": b"cnumpy\nload\n.",
    "GLOBAL of an attribute": b"cnumpy.core.multiarray\n_reconstruct.__init__\n.",
    "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93\x8c\x08exploded\x85R.",
    "STACK_GLOBAL of what is no text": b"\x80\x04K\x01K\x02\x93.",
    "INST": b"(S'exploded'\nios\nmkdir\n.",
    "OBJ": b"(cos\nmkdir\nS'exploded'\no.",
    "NEWOBJ": pickle.dumps(New(), 2),
    "NEWOBJ_EX": b"\x80\x04cos\nmkdir\n)}\x92.",
    "EXT1": b"\x80\x02\x82\xf0(S'exploded'\ntR.",
    "EXT2": b"\x80\x02\x83\xf0\x00(S'exploded'\ntR.",
    "EXT4": b"\x80\x02\x84\xf0\x00\x00\x00(S'exploded'\ntR.",
    "PERSID": b"Pexploded\n.",
    "BINPERSID": b"S'exploded'\nQ.",
    "out-of-band buffer": b"\x80\x05\x97.",
    "bytearray": b"\x80\x05\x96\x01\0\0\0\0\0\0\0a.",
    "an array of objects": pickle.dumps(np.array([Charge(), Charge()], dtype=object)),
    "a call of text": b"S'a'\n)R.",
    "a call without a tuple": b"cnumpy\ndtype\nS'f8'\nR.",
    "a call of ndarray": b"cnumpy\nndarray\n(tR.",
    "an array of another class": b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\ndtype\n\x85R.",
    "a type by number": b"cnumpy\ndtype\nK\x01\x85R.",
    "a number of no type": b"cnumpy.core.multiarray\nscalar\n)R.",
    "a number too short": b"cnumpy.core.multiarray\nscalar\n"
    b"cnumpy\ndtype\nS'f8'\n\x85RC\x01a\x86R.",
    "attributes of text": b"S'a'\n}S'b'\nS'c'\nsb.",
    "a list as a dictionary": b"]S'a'\nS'b'\ns.",
    "a dictionary as a list": b"}S'a'\na.",
    "keys that cannot be": b"}]]s.",
    "values that are not there": b"u.",
    "nothing remembered": b"g7\n.",
    "no end": b"]",
    "nothing": b"",
    "no pickle": b"\x89HDF\r\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_more_than_values_is_refused(name: str) -> None:
    copyreg.add_extension("os", "mkdir", 0xF0)
    try:
        pickle.loads(b"\x80\x02\x82\xf0.")  # from now on Python has it ready without a look-up
        with pytest.raises(PickleRefused):
            loaded(HOSTILE[name])
    finally:
        copyreg.remove_extension("os", "mkdir", 0xF0)


@pytest.mark.parametrize("protocol", range(6))
def test_the_charge_is_live(protocol: int) -> None:
    pickle.loads(pickle.dumps(Charge(), protocol))
    Path("exploded").rmdir()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("state", [b"}S'numpy'\nNs", b"N}S'numpy'\nNs\x86", b"N}S'_state'\nNs\x86"])
def test_a_pickle_cannot_change_what_its_names_lead_to(kind: str, state: bytes) -> None:
    module = b"numpy" if kind in ("ndarray", "dtype") else b"numpy.core.multiarray"
    before = {name: dict(vars(value)) for name, value in safe_pickle._NAMES.items()}
    with pytest.raises(PickleRefused):
        loaded(b"c" + module + b"\n" + kind.encode() + b"\n" + state + b"b.")
    assert {name: dict(vars(value)) for name, value in safe_pickle._NAMES.items()} == before


def array_with(state: object, kind: str = "f8") -> PickledArray:
    dtype = safe_pickle._Dtype(kind)
    array = PickledArray(safe_pickle._Ndarray)
    array.__setstate__(tuple(dtype if part == "dtype" else part for part in state))  # type: ignore[attr-defined]
    return array


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ((1, (3,), "dtype", False, bytes(16)), "f8"),
        ((1, (2**61,), "dtype", False, bytes(16)), "f8"),
        ((1, (-2,), "dtype", False, bytes(16)), "f8"),
        ((1, (True, 2), "dtype", False, bytes(16)), "f8"),
        ((1, [2], "dtype", False, bytes(16)), "f8"),
        ((1, (1,) * 9, "dtype", False, bytes(8)), "f8"),
        ((1, (2,), "f8", False, bytes(16)), "f8"),
        ((1, (2,), "dtype", False, [0.0, 1.0]), "f8"),
        ((1, (2,), "dtype", False, bytes(16)), "O8"),
        ((1, (2,), "dtype", False, bytes(16)), "V8"),
        ((1, (2,), "dtype", False, bytes(16)), "f8,f8"),
        ((1, (2,), "dtype", False, bytes(16)), "M8[s]"),
    ],
)
def test_an_array_that_does_not_fit_its_description_is_refused(state: object, kind: str) -> None:
    assert array_with((1, (2,), "dtype", False, bytes(16))).numpy().tolist() == [0, 0]
    with pytest.raises(PickleRefused):
        array_with(state, kind).numpy()


def test_records_are_refused() -> None:
    with pytest.raises(PickleRefused, match="an array of records"):
        loaded(pickle.dumps(np.zeros(2, "f8,i4")))


NESTED = 1_000_000
LARGE = {
    "bytes": b"\x80\x04\x8e" + b"\x7f" * 8,
    "bytes of 64 GiB": b"\x80\x04\x8e" + (2**36).to_bytes(8, "little"),
    "text": b"\x80\x04\x8d" + (2**36).to_bytes(8, "little"),
    "a frame": b"\x80\x04\x95" + (2**36).to_bytes(8, "little") + b"].",
    "a frame as long as the file": b"\x80\x04\x95" + (2**24).to_bytes(8, "little") + bytes(2**24),
    "a remembered value": b"\x80\x04]r\xff\xff\xff\x7f.",
    "a remembered value, protocol 0": b"]p2147483647\n.",
    "a remembered value below nothing": b"]p-1\n.",
    "a line": b"c" + b"a" * 2**24,
    "a number of a million digits": b"L" + b"9" * 10**6 + b"L\n.",
    "many instructions": b"]" * (safe_pickle._MAX_INSTRUCTIONS + 2) + b".",
    "tuples in tuples as a key": b"}" + b")" + b"\x85" * NESTED + b"K\x01s.",
    "tuples in tuples as a key, through memory": b"})" + b"q\0h\0\x86" * NESTED + b"K\x01s.",
    "marks": b"(" * NESTED + b".",
}


@pytest.mark.parametrize("name", LARGE)
def test_a_small_file_takes_little_memory_and_does_not_end_the_process(name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(PickleRefused):
        loaded(LARGE[name])
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200 * 2**10 * (1 if sys.platform == "linux" else 2**10)


def test_lists_in_lists_are_read_without_recursion() -> None:
    value = loaded(b"]" * 5000 + b"a" * 4999 + b".")
    for _ in range(4999):
        (value,) = value
    assert value == []


def test_a_list_within_itself_is_read() -> None:
    ring: list[Any] = []
    ring.append(ring)
    value = loaded(pickle.dumps(ring))
    assert value[0] is value


def test_damaged_pickles_are_read_or_refused() -> None:
    rng, refused = np.random.default_rng(3), 0
    raw = pickle.dumps({"a": ARRAYS["float64"], "plain": PLAIN}, 4)
    for _ in range(3000):
        spoilt = bytearray(raw)
        for at in rng.integers(0, len(raw), int(rng.integers(1, 6))):
            spoilt[at] = rng.choice([rng.integers(256), *b"(.RbcRPQio\x81\x82\x85\x86\x92\x93\x94"])
        try:
            content = loaded(bytes(spoilt[: len(raw) - int(rng.integers(0, 3))]))
            if isinstance(content, dict) and isinstance(content.get("a"), PickledArray):
                content["a"].numpy()
        except PickleRefused:
            refused += 1
    assert 1500 < refused < 3000
