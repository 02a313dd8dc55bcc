"""External features in a store: chunk for chunk as the poses, NaN where unknown, whole or not at
all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import MICE, marked

from pretrain.data import store_writer as stores
from pretrain.data.schema import Video
from pretrain.data.store import Store
from pretrain.data.store_writer import StoreWriter
from pretrain.errors import BadInput
from pretrain.readers.feature_files import find_features, read_array

Values = npt.NDArray[np.float32]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many chunks, row groups and parts in a store of a few hundred frames."""
    monkeypatch.setattr(stores, "CHUNK_FRAMES", 8)
    monkeypatch.setattr(stores, "PART_BYTES", 20_000)


def ramp(number: int, frames: int, dim: int = 3) -> Values:
    """Features that say which video, frame and column they are of."""
    return (1e6 * number + np.arange(frames)[:, None] + 0.25 * np.arange(dim)).astype(np.float32)


def video(number: int, frames: int, **features: Values) -> Video:
    return Video(**(vars(marked(number, frames)) | {"features": features}))


def write(folder: Path, *videos: Video, append: bool = False) -> Store:
    with StoreWriter(folder, MICE, origin="marked", append=append) as writer:
        for one in videos:
            writer.add(one)
    return Store(folder)


def stored(store: Store, name: str) -> dict[str, Values]:
    """What the files of a feature hold, by video; checks that each lies row for row with its
    poses."""
    found: dict[str, list[Values]] = {one["name"]: [] for one in store.videos}
    feature = store.features[name]
    assert len(feature["parts"]) == len(store.parts)
    for poses, record in zip(store.parts, feature["parts"], strict=True):
        rows = pq.read_table(
            Path(store.path) / poses["file"], columns=["video", "first_frame", "frames"]
        )
        if record is None:
            assert not (
                Path(store.path) / poses["file"].replace("poses", f"features/{name}")
            ).exists()
            continue
        assert record["file"] == poses["file"].replace("poses", f"features/{name}")
        file = pq.ParquetFile(Path(store.path) / record["file"], page_checksum_verification=True)
        assert [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)] == poses[
            "groups"
        ]
        table = file.read()
        assert table.select(["video", "first_frame", "frames"]).equals(rows)
        for row in table.to_pylist():
            found[row["video"]].append(
                np.frombuffer(row["values"], "<f4").reshape(row["frames"], feature["dim"])
            )
    return {key: np.concatenate(pieces) for key, pieces in found.items() if pieces}


def test_they_lie_chunk_for_chunk_as_the_poses(
    tmp_path: Path, small_chunks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "MAX_GROUP_CHUNKS", 3)
    lengths = [2100, 30, 500, 900, 7]
    has = {1: ("b",), 2: ("a", "b"), 4: ("a",)}
    store = write(
        tmp_path / "s",
        *(
            video(n, T, **{key: ramp(n, T, 3 if key == "a" else 1) for key in has.get(n, ())})
            for n, T in enumerate(lengths)
        ),
    )
    assert store.verify() == []
    assert {name: record["dim"] for name, record in store.features.items()} == {"a": 3, "b": 1}
    assert len(store.parts) > 3
    for name, dim in (("a", 3), ("b", 1)):
        assert None in store.features[name]["parts"], "the world has no part without this feature"
        found = stored(store, name)
        for number, frames in enumerate(lengths):
            if name in has.get(number, ()):
                np.testing.assert_array_equal(found[f"video {number}"], ramp(number, frames, dim))
            elif f"video {number}" in found:  # at least all that lies in parts of others is unknown
                assert np.isnan(found[f"video {number}"]).all()


def test_the_reader_gets_them_back(tmp_path: Path, small_chunks: None) -> None:
    store = write(
        tmp_path / "s",
        video(0, 90, a=ramp(0, 90)),
        video(1, 40),
        video(2, 300, a=ramp(2, 300), b=ramp(2, 300, 2)),
    )
    assert store.read_video("video 0").features.keys() == {"a"}
    assert not store.read_video("video 1").features
    found = store.read_video("video 2").features
    np.testing.assert_array_equal(found["a"], ramp(2, 300))
    np.testing.assert_array_equal(found["b"], ramp(2, 300, 2))


def test_appending_keeps_and_extends_them(tmp_path: Path, small_chunks: None) -> None:
    folder = tmp_path / "s"
    before = write(folder, video(0, 300, a=ramp(0, 300)), video(1, 20, b=ramp(1, 20)))
    kept = {path: path.read_bytes() for path in folder.rglob("*.parquet")}
    parts = len(before.parts)
    store = write(folder, video(2, 200, b=ramp(2, 200), c=ramp(2, 200, 5)), append=True)
    assert store.verify() == []
    assert all(path.read_bytes() == data for path, data in kept.items())
    added = len(store.parts) - parts
    assert added > 0
    assert store.features["a"]["parts"][parts:] == [None] * added
    assert store.features["c"]["parts"][:parts] == [None] * parts
    np.testing.assert_array_equal(stored(store, "a")["video 0"], ramp(0, 300))
    np.testing.assert_array_equal(stored(store, "b")["video 1"], ramp(1, 20))
    np.testing.assert_array_equal(stored(store, "b")["video 2"], ramp(2, 200))
    np.testing.assert_array_equal(stored(store, "c")["video 2"], ramp(2, 200, 5))
    again = write(folder, video(3, 9), append=True)
    assert again.features["c"]["parts"][:-1] == store.features["c"]["parts"]
    with pytest.raises(BadInput, match=r"'b' have 4 numbers a frame, those of the store 3"):
        write(folder, video(4, 9, b=ramp(4, 9, 4)), append=True)
    assert Store(folder).verify() == []


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"../up": ramp(1, 9)}, "no safe|letters, digits"),
        ({".hidden": ramp(1, 9)}, "letters, digits"),
        ({"a/b": ramp(1, 9)}, "letters, digits"),
        ({"position": ramp(1, 9)}, "not one of"),
        (
            {"a": ramp(1, 9, 4)},
            r"video 1.*\n.*'a' have 4 numbers a frame, those of video 'video 0' 3",
        ),
        ({"a": ramp(1, 9, 0)}, "have 0 numbers"),
        ({"a": np.full((9, 3), np.inf, np.float32)}, "frame 0: a number is infinite"),
    ],
)
def test_features_that_cannot_be_written_are_refused(
    tmp_path: Path, features: dict[str, Values], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        write(tmp_path / "s", video(0, 9, a=ramp(0, 9)), video(1, 9, **features))
    assert not (tmp_path / "s").exists()


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    store = write(tmp_path / "s", video(0, 90, a=ramp(0, 90)))
    record = store.features["a"]["parts"][0]
    file = tmp_path / "s" / record["file"]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert [record["file"] in sentence for sentence in Store(tmp_path / "s").verify()] == [True]
    assert json.loads((tmp_path / "s/store.json").read_text())["features"]["a"]["dim"] == 3


# -- files -----------------------------------------------------------------------------------------


def put(folder: Path, **arrays: Values) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
    return folder


def test_files_find_their_recording_and_take_its_length(tmp_path: Path) -> None:
    folder = put(tmp_path / "emb", m1_features=ramp(1, 5), m2_features=ramp(2, 9))
    np.savez(folder / "m3_features.npz", features=ramp(3, 7), times=np.arange(7))
    found = find_features(f"clip={folder}", ["m1", "m2", "m3", "m4"])
    assert (found.name, found.read("m4", frames=3)) == ("clip", (None, ""))
    short, note = found.read("m1", frames=7)
    assert short is not None
    np.testing.assert_array_equal(short[:5], ramp(1, 5))
    assert np.isnan(short[5:]).all()
    assert "m1_features.npy" in note
    assert "end 2 frames before it; those are unknown" in note
    long, note = found.read("m2", frames=7)
    np.testing.assert_array_equal(long, ramp(2, 7))
    assert "end 2 frames after it" in note
    exact, note = found.read("m3", frames=7)
    np.testing.assert_array_equal(exact, ramp(3, 7))
    assert note == ""
    assert find_features(str(folder), ["m1", "m2", "m3"]).name == "emb"


def test_files_that_fit_no_recording_or_two_are_refused(tmp_path: Path) -> None:
    folder = put(tmp_path / "emb", m1=ramp(1, 5), m9_late=ramp(9, 5))
    with pytest.raises(
        BadInput,
        match=r"m9_late.npy belongs to no known recording; recordings: m1, m9. If it is m9",
    ):
        find_features(str(folder), ["m1", "m9"])
    np.savez(folder / "m1.npz", ramp(1, 5))
    (folder / "m9_late.npy").unlink()
    with pytest.raises(BadInput, match="'m1' has two files"):
        find_features(str(folder), ["m1"])
    for address, message in (
        (f"a b={folder}", "no name for features"),
        ("x=nowhere", "no folder"),
        (str(put(tmp_path / "none")), "found 0"),
    ):
        with pytest.raises(BadInput, match=message):
            find_features(address, ["m1"])


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("was-executed"),)


def test_nothing_in_a_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("m.npy", np.array([Evil()], object), allow_pickle=True)
    np.savez("m.npz", features=np.array([Evil()], object), allow_pickle=True)
    for name in ("m.npy", "m.npz"):
        with pytest.raises(BadInput, match="could run code"):
            read_array(Path(name), "x")
    assert not Path("was-executed").exists()


@settings(max_examples=150, deadline=None)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::SyntaxWarning")
@given(data=st.data(), packed=st.booleans())
def test_damaged_files_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, packed: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.bin"
    with path.open("wb") as file:
        (np.savez if packed else np.save)(file, ramp(1, 20))
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(raw) - 1))
        how = data.draw(st.sampled_from(["flip", "cut", "insert"]))
        if how == "cut" and position:
            raw = raw[:position]
        elif how == "insert":
            raw[position:position] = data.draw(st.binary(max_size=6))
        else:
            raw[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(raw)
    try:
        message, dims = str(path), read_array(path, "x").ndim
    except BadInput as error:
        message, dims = str(error), 2
    assert str(path) in message
    assert dims == 2
