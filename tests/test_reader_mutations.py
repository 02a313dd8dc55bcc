"""Files that were damaged or made to harm: each is read right or refused by one clear message,
whatever was done to it.

ETHORAY_MUTATIONS says how many of each kind of file are tried (default 150). With thousands, HDF5's
own library may not return: it loops for ever over a heap in which an object states the size 0 (seen
once in 3,000 damaged files, HDF5 2.0), or ends the process as it reads texts of a damaged heap
(once in 2,000 files of movement).
"""

from __future__ import annotations

import io
import os
import pickle
import re
import resource
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from reader_files import (
    ANIMALS,
    CALTECH,
    KEYPOINTS,
    LABELS,
    TRACKS,
    deeplabcut_rows,
    each_label_format,
    each_track_format,
    example,
    text_of,
    world,
    write_npz,
)

from pretrain.errors import BadInput
from pretrain.readers.detect import label_format
from pretrain.readers.find_labels import read_label_files
from pretrain.readers.find_tracks import find_tracks, read_tracks, unpacked
from pretrain.readers.tracks import Tracks, conform

h5py = pytest.importorskip("h5py", reason="needs the extra: pip install 'ethoray[trackers]'")
MUTATIONS = int(os.environ.get("ETHORAY_MUTATIONS", "150"))
CELLS = (
    "nan",
    "NaN",
    "inf",
    "-inf",
    "1e308",
    "-1e999",
    "",
    "abc",
    "0x10",
    "1_000",
    "9" * 400,
    '"',
    "\0",
    "１２",
    "-1",
    "0.5",
    "2",
    "=cmd()",
    "é",
    "1e-320",
)
# Where in a text: a line or column; or that the whole is empty, of no known kind, or lacks a part
# that it must have.
PLACE = re.compile(
    r"lines? \d|identity |observation '|BORIS, or damaged|"
    r"column \d|is empty|not a tracks file \(|not a label file|no format known|"
    r"no stream|no line|no heading|annotated from|"
    r"animals? .* has bodyparts|there is no column|twice|belongs to no known recording"
)
BINARY = ("h5", "slp", "nwb", "nc", "npz", "xlsx", "parquet", "zip")
FORBIDDEN = ("pickle.find_class", "os.system", "subprocess.Popen", "os.exec", "socket.connect")
_watched: list[str] = []
_watching = False


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    # Readers run in the main thread; what other tests started may still talk to a server.
    here = threading.current_thread() is threading.main_thread()
    if (
        _watching
        and here
        and (event in FORBIDDEN or (event == "os.mkdir" and "exploded" in str(arguments)))
    ):
        _watched.append(f"{event} {arguments}")


sys.addaudithook(_audit)


class Charge:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("exploded",)


# What is done to the bytes of any file.


def spoil_bytes(raw: bytes, rng: np.random.Generator) -> bytes:
    at, until = sorted(rng.integers(0, len(raw) + 1, 2).tolist())
    short = min(until, at + int(rng.integers(1, 40)))
    match rng.integers(10):
        case 0:
            return raw[:at]
        case 1:
            return raw[:at] + raw[short:]
        case 2:
            return raw[:at] + raw[at:short] * 2 + raw[short:]
        case 3:
            return raw[:at] + rng.bytes(int(rng.integers(1, 30))) + raw[at:]
        case 4:
            return raw[:at] + bytes(short - at) + raw[short:]
        case 5:
            return rng.bytes(at)
        case 6:
            return raw + rng.bytes(int(rng.integers(1, 200)))
        case 7:
            return raw[at:]
        case _:
            spoilt = bytearray(raw)
            for at in rng.integers(0, len(raw), int(rng.integers(1, 12))):
                spoilt[at] = rng.integers(256)
            return bytes(spoilt)


def spoil_text(raw: bytes, rng: np.random.Generator, delimiter: str = ",") -> bytes:
    text = raw.decode()
    lines = text.split("\n")
    match rng.integers(9):
        case 0:
            return spoil_bytes(raw, rng)
        case 1:
            return text.encode(
                str(rng.choice(["utf-16", "utf-16-le", "utf-32", "cp037", "utf-8-sig"]))
            )
        case 2:
            return text.replace(str(rng.choice(list("aeo"))), "ö").encode("latin-1", "replace")
        case 3:
            order = rng.permutation(len(lines))
            return "\n".join(lines[i] for i in order).encode()
        case 4:
            return "\n".join(line for line in lines if rng.random() > 0.15).encode()
        case 5:
            width = lines[0].count(delimiter) + 1
            drop = int(rng.integers(width))
            return "\n".join(
                delimiter.join(c for i, c in enumerate(line.split(delimiter)) if i != drop)
                for line in lines
            ).encode()
        case 6:
            return text.replace(
                delimiter, str(rng.choice([";", "\t", "|", delimiter * 2]))
            ).encode()
        case _:
            for _ in range(int(rng.integers(1, 4))):
                row = int(rng.integers(len(lines)))
                cells = lines[row].split(delimiter)
                cells[int(rng.integers(len(cells)))] = str(rng.choice(CELLS))
                lines[row] = delimiter.join(cells)
            return "\n".join(lines).encode()


# What is done to arrays with a name.


def spoil_array(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    spoilt = np.array(values)
    match rng.integers(9):
        case 0 if spoilt.ndim:
            return spoilt[: int(rng.integers(len(spoilt) + 1))]
        case 1:
            return spoilt.T
        case 2:
            return spoilt[None]
        case 3 if spoilt.size:
            return spoilt.reshape(-1)
        case 4:
            return np.array(["a", "b"], "S") if spoilt.dtype.kind in "biuf" else np.arange(3.0)
        case 5 if spoilt.ndim:
            return np.concatenate([spoilt, spoilt])
        case 6:
            return np.empty((0,) * spoilt.ndim, spoilt.dtype)
        case _:
            if spoilt.dtype.kind == "f" and spoilt.size:
                spoilt.reshape(-1)[rng.integers(spoilt.size)] = rng.choice(
                    [np.inf, -np.inf, 1e300, -5.0, np.nan, 1e-320]
                )
            elif spoilt.dtype.kind in "iu" and spoilt.size:
                spoilt.reshape(-1)[rng.integers(spoilt.size)] = rng.choice(
                    [0, 1, 255 if spoilt.itemsize == 1 else 9999]
                )
            elif spoilt.dtype.names and spoilt.size:
                field = str(rng.choice(spoilt.dtype.names))
                spoilt[field].reshape(-1)[rng.integers(spoilt[field].size)] = rng.choice(
                    [0, 1, 200]
                )
            elif spoilt.dtype.kind == "S" and spoilt.size:
                spoilt.reshape(-1)[rng.integers(spoilt.size)] = rng.choice(
                    [b"", b"\xff\xfe", b"nose", b"[", b"{}"]
                )
            return spoilt


def spoil_hdf5(raw: bytes, rng: np.random.Generator) -> bytes:
    if rng.random() < 0.4:
        return spoil_bytes(raw, rng)
    buffer = io.BytesIO(raw)
    with h5py.File(buffer, "a") as file:
        things: list[str] = []
        file.visit(things.append)
        name = str(rng.choice(things))
        thing = file[name]
        if isinstance(thing, h5py.Dataset) and rng.random() < 0.7:
            attributes, values = dict(thing.attrs), thing[()]
            values = (
                np.array(values, "S")
                if getattr(values, "dtype", np.array(values).dtype).kind in "OU"
                else np.array(values)
            )
            del file[name]
            match rng.integers(8):
                case 0:
                    return _closed(file, buffer)
                case 1:
                    file[name] = h5py.ExternalLink("/etc/passwd", "/")
                case 2:
                    file.create_dataset(
                        name, shape=(10**9, *values.shape[1:]), dtype=values.dtype, chunks=True
                    )
                case 3:
                    file[name] = h5py.SoftLink("/" + name)
                case 4:
                    file.create_group(name)
                case _:
                    file[name] = spoil_array(values, rng)
                    for key, value in attributes.items():
                        file[name].attrs[key] = value
        elif thing.attrs and rng.random() < 0.8:
            key = str(rng.choice(list(thing.attrs)))
            replacements = [
                pickle.dumps([Charge()], 0),
                pickle.dumps([("a", "b", "c", "x")], 0),
                b"[1, 2",
                b"{}",
                "x",
                7,
                np.nan,
                -1,
                b"\xff",
                None,
            ]
            value = replacements[rng.integers(len(replacements))]
            del thing.attrs[key]
            if value is not None:
                thing.attrs[key] = np.bytes_(value) if isinstance(value, bytes) else value
        else:
            del file[name]
        return _closed(file, buffer)


def _closed(file: object, buffer: io.BytesIO) -> bytes:
    file.close()  # type: ignore[attr-defined]
    return buffer.getvalue()


def spoil_npz(raw: bytes, rng: np.random.Generator) -> bytes:
    if rng.random() < 0.4:
        return spoil_bytes(raw, rng)
    with np.load(io.BytesIO(raw)) as packed:
        arrays = dict(packed)
    name = str(rng.choice(list(arrays)))
    out = io.BytesIO()
    match rng.integers(6):
        case 0:
            del arrays[name]
        case 1:
            arrays[name] = np.array([Charge(), Charge()], dtype=object)
        case 2:
            odd = (np.array([0.0]), np.array(["ü", ""]), np.array([]))
            arrays[str(rng.choice(["extra", "fps", "animals", "axes", "task"]))] = odd[
                rng.integers(len(odd))
            ]
        case 3:  # a header that states more than there is, or a bomb
            with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed_again:
                for key, values in arrays.items():
                    member = io.BytesIO()
                    np.lib.format.write_array_header_1_0(
                        member, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
                    )
                    np.save(whole := io.BytesIO(), values)
                    packed_again.writestr(
                        f"{key}.npy",
                        member.getvalue() + bytes(2**22) if key == name else whole.getvalue(),
                    )
            return out.getvalue()
        case _:
            arrays[name] = spoil_array(arrays[name], rng)
    np.savez(out, **arrays)
    return out.getvalue()


def spoiler_of(name: str) -> Callable[[bytes, np.random.Generator], bytes]:
    if name.endswith(BINARY[:4]):
        return spoil_hdf5
    if name.endswith("npz"):
        return spoil_npz
    if name.endswith(("xlsx", "parquet")):
        return spoil_bytes
    return lambda raw, rng: spoil_text(raw, rng, "\t" if name.endswith(("txt", "annot")) else ",")


def assert_is_sound(tracks: Tracks) -> None:
    assert tracks.frames > 0
    assert tracks.position_TMKX.dtype == tracks.confidence_TMK.dtype == np.float32
    assert tracks.position_TMKX.shape == (
        tracks.frames,
        len(tracks.animals),
        len(tracks.keypoints),
        len(tracks.coordinates),
    )
    missing = np.isnan(tracks.position_TMKX).any(-1)
    assert (missing == (tracks.confidence_TMK == 0)).all()
    assert not np.isinf(tracks.position_TMKX).any()
    assert (tracks.confidence_TMK <= 1).all()
    assert len(set(tracks.animals)) == len(tracks.animals)
    assert all(tracks.animals)
    assert all(tracks.keypoints)


def watched(read: Callable[[], object], path: Path) -> object:
    """What the reader gives, or None where it refused in a fair way."""
    global _watching
    message = None
    _watching = True
    try:
        found = read()
    except BadInput as error:
        message, found = str(error), None
    finally:
        _watching = False
    assert not _watched, _watched
    if message is not None:
        assert path.name in message, f"the file is not named: {message}"
        reason = message.split(path.name, 1)[1].strip(": \n")
        assert len(reason) > 8, f"no reason: {message}"
        if not path.name.endswith(BINARY):
            assert PLACE.search(message), f"no place: {message}"
    return found


@each_track_format
def test_spoilt_tracks_are_read_right_or_refused(
    form: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = example(TRACKS, form, file)(tmp_path / f"whole {file}", world()).read_bytes()
    path = tmp_path / f"spoilt {file}"
    rng, spoil = np.random.default_rng(list(form.encode())), spoiler_of(file)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0
    for _ in range(MUTATIONS):
        path.write_bytes(spoil(whole, rng))
        found = watched(lambda: read_tracks(path), path)
        if found is None:
            refused += 1
        else:
            assert isinstance(found, Tracks)
            assert_is_sound(found)
            names = read_tracks(path, names_only=True)
            assert (names.animals, names.keypoints) == (found.animals, found.keypoints)
        watched(lambda: find_tracks(str(path)), path)
    assert refused > MUTATIONS / 4
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2 * 2**20, (
        "more than 2 GiB for a file of a few KiB"
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted((path.name, f"whole {file}"))


@each_label_format
def test_spoilt_labels_are_read_right_or_refused(
    form: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole, path = example(LABELS, form, file), tmp_path / file
    rng, spoil = np.random.default_rng(list(form.encode())), spoiler_of(file)
    refused = 0
    for _ in range(MUTATIONS):
        path.write_bytes(spoil(whole, rng))
        found = watched(lambda: read_label_files(path, {"m1": 10, "m2": 12}, 10.0), path)
        watched(lambda: label_format(path), path)
        if found is None:
            refused += 1
            continue
        labels, _mismatches = found  # type: ignore[misc]
        for each in labels:
            assert len(each.frames) == {"m1": 10, "m2": 12}[each.video]
            top = 1 if each.overlapping else len(each.classes) - 1
            assert each.frames.dtype == np.int8
            assert each.frames.min() >= -1
            assert each.frames.max() <= top
            assert len(set(each.classes)) == len(each.classes)
            assert all(each.classes)
            assert each.task
            assert each.split in ("", "train", "test")
    assert refused > MUTATIONS / 5
    assert list(tmp_path.iterdir()) == [path]


def test_spoilt_zips_of_recordings_are_unpacked_or_refused(tmp_path: Path) -> None:
    buffer, rng, path = io.BytesIO(), np.random.default_rng(8), tmp_path / "all.zip"
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("tracks/m1.csv", text_of(deeplabcut_rows(world())))
        packed.writestr("labels/m1_annot.txt", CALTECH)

    def count() -> int:
        with unpacked(str(path)) as folder:
            return len(find_tracks(folder))

    for _ in range(MUTATIONS):
        path.write_bytes(
            spoil_bytes(buffer.getvalue(), rng) if rng.random() < 0.9 else buffer.getvalue()
        )
        assert watched(count, path) in (1, None)
    assert list(tmp_path.iterdir()) == [path]


def test_harmless_changes_change_nothing(tmp_path: Path) -> None:
    """Columns in any order, another line break, a byte-order mark: the same world."""
    w, rng, path = world(), np.random.default_rng(5), tmp_path / "m1.csv"
    for _ in range(max(20, MUTATIONS // 10)):
        rows = deeplabcut_rows(w)
        order = [0, *(1 + rng.permutation(len(rows[0]) - 1))]
        text = text_of(
            [[row[i] for i in order] for row in rows], end=str(rng.choice(["\n", "\r\n"]))
        )
        path.write_bytes(text.encode(str(rng.choice(["utf-8", "utf-8-sig"]))))
        found = conform(read_tracks(path), animals=ANIMALS, keypoints=KEYPOINTS)
        np.testing.assert_array_equal(found.position_TMKX, w.position.astype(np.float32))
        axes = list(rng.permutation(4))
        letters = "".join("TMKX"[axis] for axis in axes)
        npz = write_npz(
            tmp_path / "m1.npz",
            w,
            position=w.position.transpose(axes),
            axes=letters,
            confidence=w.confidence.transpose([axis for axis in axes if axis < 3]),
        )
        np.testing.assert_array_equal(read_tracks(npz).position_TMKX, w.position.astype(np.float32))
        np.testing.assert_allclose(read_tracks(npz).confidence_TMK, w.confidence)
