"""What ``prepare.py check`` says of worlds whose jumps, swaps, gaps and bouts are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worlds import MICE, RATS, line, marked_store, stiff

from pretrain import prepare
from pretrain.arena import noise
from pretrain.arena.motion import draw_scene
from pretrain.arena.noise import watch
from pretrain.arena.timeline import draw_timeline
from pretrain.data import store_writer as stores
from pretrain.data.schema import Float, Schema, Video
from pretrain.data.store import Store
from pretrain.data.store_writer import StoreWriter
from pretrain.errors import BadInput
from pretrain.quality import jumps_and_swaps
from pretrain.quality.check import describe, report
from pretrain.readers.annotations import Labels, write_labels

FRAMES = 300
BODY_PX = 88.0  # of the stiff mouse: nose to tail base


def couple() -> Float:
    """Two mice that walk side by side, 100 px apart: (T, M, K, X)."""
    return np.stack(
        [line((100, 200), (2, 0), frames=FRAMES), line((100, 300), (2, 0), frames=FRAMES)], 1
    )


def store_of(
    folder: Path, *positions: Float, schema: Schema = MICE, labels: list[Labels] | None = None
) -> Store:
    with StoreWriter(folder, schema, origin="hand-made") as writer:
        for number, position in enumerate(positions):
            confidence = np.where(np.isnan(position).any(-1), 0, 1).astype(np.float32)
            writer.add(Video(name=f"v{number}", position_TMKX=position, confidence_TMK=confidence))
        write_labels(writer, labels or [])
    return Store(folder)


@pytest.fixture(params=[1024, 16], ids=["one chunk", "many chunks"])
def chunked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "CHUNK_FRAMES", request.param)
    monkeypatch.setattr(stores, "PART_BYTES", 30_000)
    monkeypatch.setattr(jumps_and_swaps, "_BLOCK_FRAMES", 7 if request.param == 16 else 16_384)


@pytest.mark.usefixtures("chunked")
def test_jumps_are_those_that_were_made(tmp_path: Path) -> None:
    position = couple()
    limit = BODY_PX * jumps_and_swaps.JUMP_BODIES_PER_S / MICE.fps
    position[100, 0, 2, 1] += limit + 3  # there and back: two frames
    position[160:, 1, 6, 0] += limit + 3  # there for good: one
    position[200, 1, 3, 0] += limit - 3  # fast, but not a jump
    position[250, 0, 4] += 500  # beyond a gap nothing is known
    position[[249, 251], 0, 4] = np.nan
    second = couple() + 400  # what the next video begins with is no jump
    found = describe(store_of(tmp_path / "s", position, second))
    assert found["body_length_px"]["resident"] == pytest.approx(BODY_PX, abs=0.1)
    assert found["jumps"]["frames"] == 3
    assert found["jumps"]["first"] == ["v0, frame 100", "v0, frame 101", "v0, frame 160"]
    assert found["jumps"]["share_of_frames"] == pytest.approx(3 / (2 * FRAMES - 2), abs=1e-6)
    by = found["jumps"]["by_keypoint"]
    assert {(a, k) for a, points in by.items() for k, share in points.items() if share} == {
        ("resident", "right_ear"),
        ("intruder", "tail_base"),
    }
    assert by["resident"]["right_ear"] == pytest.approx(2 / (2 * FRAMES - 2), abs=1e-6)
    assert found["swaps"]["frames"] == 0
    assert found["missing_by_keypoint"]["resident"]["left_hip"] == pytest.approx(
        2 / (2 * FRAMES), abs=1e-4
    )


@pytest.mark.usefixtures("chunked")
def test_swaps_are_those_that_were_made(tmp_path: Path) -> None:
    position = couple()
    position[120:130] = position[120:130, ::-1]  # begins and ends
    position[220:] = position[220:, ::-1]  # for good
    position[:, 0, 3] = np.nan  # a point less changes nothing
    found = describe(store_of(tmp_path / "s", position, couple()))
    assert found["swaps"]["first"] == ["v0, frame 120", "v0, frame 130", "v0, frame 220"]
    assert found["swaps"]["frames"] == 3
    assert found["swaps"]["share_of_frames"] == pytest.approx(3 / (2 * FRAMES - 2), abs=1e-6)


def test_honest_motion_is_no_swap(tmp_path: Path) -> None:
    """Two that run through each other, one that turns on the spot next to the other, and two that
    leap past each other."""
    passing = np.stack(
        [line((100, 200), (15, 0), frames=60), line((985, 205), (-15, 0), frames=60)], 1
    )
    spin = np.stack(
        [
            stiff(np.full((60, 2), 300.0), np.arange(60) * 0.7),
            line((330, 300), (0, 0), frames=60, heading=0),
        ],
        1,
    )
    found = describe(store_of(tmp_path / "s", passing, spin))
    assert found["swaps"]["frames"] == 0
    assert found["jumps"]["frames"] == 0
    lunge = np.stack(
        [
            line((100, 200), (0, 0), frames=60, heading=0),
            line((100, 360), (0, 0), frames=60, heading=0),
        ],
        1,
    )
    lunge[30:, 0, :, 1] += (
        112  # exchanged, they would have gone three quarters of the way: too much for a swap
    )
    lunge[30:, 1, :, 1] -= 72
    found = describe(store_of(tmp_path / "lunge", lunge))
    assert (found["swaps"]["frames"], found["jumps"]["frames"]) == (0, 1)


def test_swaps_of_the_arena_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the truth of the simulated tracker: most of what it mixed up is found, and most of
    what is found was mixed up."""
    monkeypatch.setattr(
        noise, "SWAPS_PER_CLOSE_FRAME", 0.006
    )  # more of them: figures of a few would say little
    made, truth = [], []
    for seed in range(3):
        rngs = [np.random.default_rng([seed, layer]) for layer in range(3)]
        timeline = draw_timeline(rngs[0], 9_000, split="train", attack=0.1, mount=0.2)
        position, _, swapped_T = watch(rngs[2], draw_scene(rngs[1], timeline).keypoint_TMK)
        made.append(position)
        truth.append({(seed, int(t)) for t in np.flatnonzero(np.diff(swapped_T)) + 1})
    named: list[tuple[int, int]] = []

    def name(self: Any, kind: str, odd_T: Any, video: str, first_frame: int) -> None:
        if kind == "swaps":
            named.extend((int(video[1:]), first_frame + int(t)) for t in np.flatnonzero(odd_T))

    store = store_of(tmp_path / "s", *made)
    monkeypatch.setattr(jumps_and_swaps.JumpsAndSwaps, "_add_examples", name)
    describe(store)
    happened, found = set().union(*truth), set(named)
    assert len(happened) >= 60, "the world has too few swaps"
    assert len(found & happened) / len(happened) > 0.9
    assert len(found & happened) / len(found) > 0.9


def test_one_animal_and_one_point_have_no_swaps_and_no_body(tmp_path: Path) -> None:
    fly = Schema.from_names(
        animals=("fly",), keypoints=("centre",), fps=30.0, image_px=(50.0, 50.0)
    )
    found = describe(
        store_of(
            tmp_path / "s",
            np.random.default_rng(0).uniform(0, 50, (40, 1, 1, 2)).astype(np.float32),
            schema=fly,
        )
    )
    assert (found["jumps"]["frames"], found["swaps"]["frames"]) == (0, 0)
    assert found["body_length_px"] == {"fly": None}
    assert "no body length" in report(found)
    assert "swaps" not in report(found)


def test_classes_and_bouts(tmp_path: Path) -> None:
    T = FRAMES
    frames = np.zeros(T, np.int8)
    for start, length in ((10, 3), (50, 6), (100, 30)):
        frames[start : start + length] = 1
    frames[200:] = -1
    many = np.zeros((T, 2), np.int8)
    many[5:20, 0] = many[10:40, 1] = 1
    labels = [
        Labels(video="v0", task="acts", classes=("other", "run"), frames=frames, annotator="a"),
        Labels(
            video="v1",
            task="acts",
            classes=("other", "run"),
            frames=np.ones(T, np.int8),
            annotator="b",
            split="test",
        ),
        Labels(video="v0", task="many", classes=("sniff", "groom"), frames=many),
    ]
    store = store_of(tmp_path / "s", couple(), couple(), labels=labels)
    found = describe(store)
    acts, both = found["labels"]["acts"], found["labels"]["many"]
    assert acts["frames"] == {"other": {"train": 161, "test": 0}, "run": {"train": 39, "test": 300}}
    assert (acts["unlabelled"], acts["annotators"], acts["videos"]) == (
        100,
        ["a", "b"],
        {"train": 1, "test": 1},
    )
    assert acts["bouts"]["run"]["count"] == 4
    seconds = acts["bouts"]["run"]["seconds"]
    assert [round(seconds[key] * 30) for key in ("shortest", "longest")] == [3, 300]
    assert seconds["median"] == pytest.approx(18 / 30)
    assert [both["bouts"][name]["seconds"]["median"] for name in ("sniff", "groom")] == [0.5, 1.0]
    text = report(found)
    for expected in (
        "acts: 1 videos to train, 1 to test, annotators a, b; 100 frames unlabelled",
        "0.01 hours",
        "0.60 (",
    ):
        assert expected in text


def test_a_picture_beside_the_store_or_where_one_wants_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = [
        Labels(
            video="v0",
            task="acts",
            classes=("other", "run", "never"),
            frames=np.arange(FRAMES, dtype=np.int64).astype(np.int8) // 100 % 2,
        )
    ]
    store = store_of(tmp_path / "s", couple(), labels=labels)
    prepare.main(["check", store.uri])
    assert (tmp_path / "s/check.png").read_bytes().startswith(b"\x89PNG")
    assert Store(store.uri).verify() == []
    (tmp_path / "s/check.png").rename(tmp_path / "before.png")
    prepare.main(["check", store.uri, "--picture", str(tmp_path / "p.png")])
    assert (tmp_path / "p.png").read_bytes() == (tmp_path / "before.png").read_bytes()
    assert not (tmp_path / "s/check.png").exists()
    with pytest.raises(BadInput, match="cannot be written"):
        prepare.main(["check", store.uri, "--picture", str(tmp_path / "nowhere/p.png")])
    with pytest.raises(BadInput, match=r"cannot be written.*\.png, \.pdf"):
        prepare.main(["check", store.uri, "--picture", str(tmp_path / "p.doc")])
    plain = marked_store(tmp_path / "plain", [9], RATS)
    capsys.readouterr()
    prepare.main(["check", plain.uri, "--json"])
    assert json.loads(capsys.readouterr().out)["frames"] == 9
    assert not (tmp_path / "plain/check.png").exists()
