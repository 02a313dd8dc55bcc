"""The pose store: what goes in comes out, whole or not at all, and damage is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import MICE, RATS, marked, marked_store, wander

from pretrain.data import store_writer as stores
from pretrain.data.schema import Video
from pretrain.data.store import Store
from pretrain.data.store_writer import StoreWriter
from pretrain.errors import BadInput


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many chunks, row groups and parts in a store of a few hundred frames."""
    monkeypatch.setattr(stores, "CHUNK_FRAMES", 8)
    monkeypatch.setattr(stores, "PART_BYTES", 20_000)


def files(folder: Path) -> set[str]:
    return (
        {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        if folder.exists()
        else set()
    )


@pytest.mark.parametrize("lengths", [[1], [8, 9, 7], [30, 1, 200]])
def test_there_and_back(tmp_path: Path, small_chunks: None, lengths: list[int]) -> None:
    given = [
        Video(
            name=f"v{n}", position_TMKX=p, confidence_TMK=c, source="there.csv", source_sha256="ab"
        )
        for n, frames in enumerate(lengths)
        for p, c in [wander(RATS, frames, seed=n)]
    ]
    with StoreWriter(tmp_path / "s", RATS, origin="test") as writer:
        for video in given:
            writer.add(video)
    store = Store(tmp_path / "s")
    assert (store.frames, store.schema, store.origin) == (sum(lengths), RATS, "test")
    assert store.verify() == []
    for before, after in zip(
        given, map(store.read_video, [held["name"] for held in store.videos]), strict=True
    ):
        np.testing.assert_array_equal(after.position_TMKX, before.position_TMKX)
        np.testing.assert_allclose(after.confidence_TMK, before.confidence_TMK, atol=0.5 / 255)
        np.testing.assert_array_equal(after.confidence_TMK == 0, before.confidence_TMK == 0)
        assert (after.name, after.source, after.source_sha256) == (before.name, "there.csv", "ab")


def test_chunks_tell_where_frames_lie(
    tmp_path: Path, small_chunks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "MAX_GROUP_CHUNKS", 3)
    lengths = [2100, 3, 900]
    store = marked_store(tmp_path / "s", lengths)
    chunks = store.chunks
    assert len(store.parts) > 2
    assert int(chunks.frames.sum()) == store.frames == sum(lengths)
    assert len(np.unique(chunks.group_id)) < len(chunks), (
        "the world has no row group of several chunks"
    )
    for part in range(len(store.parts)):
        table = store.read_groups(part)
        rows = np.flatnonzero(chunks.part == part)
        position, _ = store.decode(table)
        np.testing.assert_array_equal(
            position[:, 0, 0, 0], np.repeat(chunks.video[rows], chunks.frames[rows])
        )
        truth = np.concatenate([chunks.first_frame[r] + np.arange(chunks.frames[r]) for r in rows])
        np.testing.assert_array_equal(position[:, 0, 0, 1], truth)
        one = store.read_groups(part, [int(chunks.group[rows[-1]])])
        assert one["first_frame"].to_pylist()[-1] == chunks.first_frame[rows[-1]]
    middle = store.read_video("video 2")
    np.testing.assert_array_equal(
        middle.position_TMKX[:, 0, 0], np.stack([np.full(900, 2), np.arange(900)], -1)
    )


@settings(max_examples=60, deadline=None)
@given(value=st.floats(0, 1, width=32), missing=st.booleans())
def test_confidence_rounds_to_its_steps_and_never_to_missing(value: float, missing: bool) -> None:
    position = np.full((1, 1, 1, 2), np.nan if missing else 5, np.float32)
    confidence = np.full((1, 1, 1), value, np.float32)
    step = int(
        stores.confidence_steps(confidence, np.isnan(position).any(-1) | ~(confidence > 0)).item()
    )
    if missing or value == 0:
        assert step == 0
    else:
        assert abs(step / 255 - value) <= 1 / 255
        assert step > 0


ONE = RATS.from_names(animals=("a",), keypoints=("p",), fps=1.0, image_px=(9.0, 9.0))


def test_a_point_of_which_one_coordinate_is_missing_is_missing(tmp_path: Path) -> None:
    position = np.ones((2, 1, 1, 2), np.float32)
    position[1, 0, 0, 1] = np.nan
    with StoreWriter(tmp_path / "s", ONE, origin="") as writer:
        writer.add(
            Video(name="v", position_TMKX=position, confidence_TMK=np.ones((2, 1, 1), np.float32))
        )
    assert Store(tmp_path / "s").read_video("v").confidence_TMK.ravel().tolist() == [1, 0]


def test_the_fingerprint_names_the_poses(tmp_path: Path) -> None:
    one, same, other = (
        marked_store(tmp_path / name, lengths).fingerprint
        for name, lengths in (("a", [9, 4]), ("b", [9, 4]), ("c", [9, 5]))
    )
    assert one == same != other


def test_an_error_leaves_nothing(tmp_path: Path, small_chunks: None) -> None:
    def half(out: Path) -> None:
        with StoreWriter(out, MICE, origin="") as writer:
            for number in range(6):
                writer.add(marked(number, 100))
            assert files(out), "the world wrote no part before the error"
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        half(tmp_path / "fresh")
    assert not (tmp_path / "fresh").exists()
    (tmp_path / "there").mkdir()
    with pytest.raises(RuntimeError):
        half(tmp_path / "there")
    assert list((tmp_path / "there").iterdir()) == []


def test_no_videos_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no videos"), StoreWriter(tmp_path / "s", MICE, origin=""):
        pass
    assert not (tmp_path / "s").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    before = marked_store(tmp_path / "s", [9]).fingerprint
    with pytest.raises(BadInput, match="already holds a store"):
        StoreWriter(tmp_path / "s", MICE, origin="")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    with pytest.raises(BadInput, match="already holds other files"):
        StoreWriter(tmp_path / "other", MICE, origin="")
    with pytest.raises(BadInput, match="is a file"):
        StoreWriter(tmp_path / "other" / "thesis.tex", MICE, origin="")
    assert Store(tmp_path / "s").fingerprint == before
    assert (tmp_path / "other" / "thesis.tex").read_text() == "years of work"


def test_appending_adds_or_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    marked_store(folder, [9, 4])
    before = {name: (folder / name).read_bytes() for name in files(folder)}

    def half() -> None:
        with StoreWriter(folder, MICE, origin="more", append=True) as writer:
            writer.add(marked(2, 30))
            writer._end_group()
            writer._end_part()
            assert files(folder) > set(before)
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        half()
    assert {name: (folder / name).read_bytes() for name in files(folder)} == before
    with StoreWriter(folder, MICE, origin="more", append=True) as writer:
        writer.add(marked(2, 30))
    store = Store(folder)
    assert [video["frames"] for video in store.videos] == [9, 4, 30]
    assert store.read_video("video 2").position_TMKX[29, 0, 0].tolist() == [2, 29]
    assert store.origin == "marked frames; more"
    assert all(
        (folder / name).read_bytes() == data
        for name, data in before.items()
        if name != "store.json"
    )
    with pytest.raises(BadInput, match="keypoints differ"):
        StoreWriter(folder, RATS, origin="", append=True)
    with (
        StoreWriter(folder, MICE, origin="", append=True) as writer,
        pytest.raises(BadInput, match="two videos are named 'video 1'"),
    ):
        writer.add(marked(1, 30))


def test_a_video_of_another_shape_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(BadInput, match="the store"),
        StoreWriter(tmp_path / "s", MICE, origin="") as writer,
    ):
        writer.add(marked(0, 5, RATS))
    assert not (tmp_path / "s").exists()


def test_damage_is_named(tmp_path: Path, small_chunks: None) -> None:
    store = marked_store(tmp_path / "s", [400, 400])
    part = tmp_path / "s" / store.parts[1]["file"]
    whole = part.read_bytes()

    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 1
    part.write_bytes(bytes(flipped))
    assert [store.parts[1]["file"] in sentence for sentence in Store(tmp_path / "s").verify()] == [
        True
    ]
    with pytest.raises(BadInput, match=r"part-00001\.parquet is damaged"):
        Store(tmp_path / "s").read_groups(1)

    part.write_bytes(whole[:-7])
    with pytest.raises(BadInput, match=r"part-00001\.parquet has .* bytes; store.json says"):
        Store(tmp_path / "s")
    part.unlink()
    with pytest.raises(BadInput, match=r"part-00001\.parquet is missing"):
        Store(tmp_path / "s")


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ("{", "not JSON"),
        ("[]", "version None"),
        ('{"version": 99}', "version 99"),
        ('{"version": 1}', "no 'schema'"),
        (
            '{"version": 1, "schema": {}, "chunk_frames": 1024, "videos": [], "parts": []}',
            "pose schema is damaged",
        ),
        (b"\xff\xfe\x00", "not JSON"),
    ],
)
def test_a_damaged_description_is_refused(tmp_path: Path, about: str | bytes, said: str) -> None:
    marked_store(tmp_path / "s", [9])
    (tmp_path / "s" / "store.json").write_bytes(
        about if isinstance(about, bytes) else about.encode()
    )
    with pytest.raises(BadInput, match=said):
        Store(tmp_path / "s")


def test_videos_that_do_not_match_the_parts_are_refused(tmp_path: Path) -> None:
    marked_store(tmp_path / "s", [9, 9])
    about = tmp_path / "s" / "store.json"
    held = json.loads(about.read_text())
    about.write_text(json.dumps(held | {"videos": held["videos"][:1]}))
    with pytest.raises(BadInput, match="its parts hold 2 chunks, its videos need 1"):
        _ = Store(tmp_path / "s").chunks


def test_what_is_no_store_says_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"there is no store at .*arena --out"):
        Store(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="is not a pose store"):
        Store(tmp_path)
    (tmp_path / "half" / "poses").mkdir(parents=True)
    with pytest.raises(BadInput, match="half-written"):
        Store(tmp_path / "half")
    with pytest.raises(BadInput, match="cannot open gopher"):
        Store("gopher://lab/store")
    with pytest.raises(BadInput, match="no video 'x'"):
        marked_store(tmp_path / "s", [9]).read_video("x")


def test_what_is_missing_has_no_coordinates_in_a_store(tmp_path: Path) -> None:
    position, confidence = np.ones((5, 2, 7, 2), np.float32), np.ones((5, 2, 7), np.float32)
    confidence[1, 0, 3] = 0
    position[2, 1, 4, 0] = np.nan
    with StoreWriter(tmp_path / "s", MICE, origin="test") as writer:
        writer.add(Video(name="one", position_TMKX=position, confidence_TMK=confidence))
    assert position[1, 0, 3, 0] == 1, "what was given is not changed"
    read = Store(tmp_path / "s").read_video("one")
    expected = np.zeros((5, 2, 7), bool)
    expected[1, 0, 3] = expected[2, 1, 4] = True
    for axis in (0, 1):
        np.testing.assert_array_equal(np.isnan(read.position_TMKX[..., axis]), expected)
    np.testing.assert_array_equal(read.confidence_TMK == 0, expected)
