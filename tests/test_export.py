"""A store back into files and into a store again, and the arena in the files of CalMS21's
release."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worlds import MICE, RATS, wander, wander_store

from pretrain import prepare
from pretrain.data import store_writer as stores
from pretrain.data.schema import Schema, Video
from pretrain.data.store import Store
from pretrain.data.store_writer import StoreWriter
from pretrain.errors import BadInput
from pretrain.readers.annotations import Labels, labels_by_video, write_labels
from pretrain.readers.calms21.expected_counts import BEHAVIORS, CLASSIC, EXPECTED_FRAMES, STYLES
from pretrain.readers.calms21.sources import find_sources

_ = -1


def rich_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Missing points, videos in folders, two annotators, behaviours that overlap, unlabelled
    frames, features of some."""
    monkeypatch.setattr(stores, "CHUNK_FRAMES", 64)
    rng = np.random.default_rng(5)
    labels: list[Labels] = []
    schema = Schema(
        **(
            vars(RATS)
            | {
                "edges": (("top", "tail"),),
                "axis": ("tail-e", "top"),
                "mirror_pairs": (("top", "body"),),
            }
        )
    )
    with StoreWriter(folder, schema, origin="rich") as writer:
        for number, (name, frames) in enumerate(
            (("day1/rat.1", 150), ("day2/rat.1", 70), ("rat 3", 1))
        ):
            position, confidence = wander(RATS, frames, seed=number, missing=0.3)
            features = {"a": rng.normal(size=(frames, 4)).astype(np.float32)} if number != 1 else {}
            features |= (
                {"b.c": np.where(rng.random((frames, 1)) < 0.5, np.nan, 1).astype(np.float32)}
                if number == 0
                else {}
            )
            writer.add(
                Video(
                    name=name, position_TMKX=position, confidence_TMK=confidence, features=features
                )
            )
            split = "test" if number == 1 else "train"
            for who in ("ann", "bob"):
                acts = rng.integers(-1, 3, frames).astype(np.int8)
                labels.append(
                    Labels(
                        video=name,
                        task="acts",
                        classes=("run", "other", "hide"),
                        frames=acts,
                        annotator=who,
                        split=split,
                    )
                )
            many = rng.integers(-1, 2, (frames, 2)).astype(np.int8)
            labels.append(
                Labels(video=name, task="S/1", classes=("sniff", "groom"), frames=many, split=split)
            )
            one = rng.integers(0, 2, frames).astype(np.int8)
            labels += [
                Labels(video=name, task="new", classes=("other", act), frames=one, split=split)
                for act in ("rear", "dig")
            ]
        write_labels(writer, labels)
    return Store(folder)


def scored(store: Store) -> dict[tuple[object, ...], list[object]]:
    return {
        (name, h.task, h.annotator, h.classes, h.split, h.overlapping): h.frames.tolist()
        for name, labels in labels_by_video(store).items()
        for h in labels
    }


def test_store_to_npz_to_store_keeps_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = rich_store(tmp_path / "before", monkeypatch)
    prepare.main(["export", str(before.uri), "--out", str(tmp_path / "my files")])
    printed = capsys.readouterr().out.split("ethoray prepare ")[
        1
    ]  # the command that it prints is the one that works
    words = shlex.split(printed)
    assert words[-2:] == ["--out", "STORE"]
    prepare.main([*words[:-1], str(tmp_path / "after")])
    after = Store(tmp_path / "after")
    assert after.schema == before.schema
    assert {v["name"]: v["frames"] for v in after.videos} == {
        v["name"]: v["frames"] for v in before.videos
    }
    for name in ("day1/rat.1", "day2/rat.1", "rat 3"):
        old, new = before.read_video(name), after.read_video(name)
        seen = old.confidence_TMK > 0
        np.testing.assert_array_equal(new.position_TMKX[seen], old.position_TMKX[seen])
        assert np.isnan(new.position_TMKX[~seen]).all()
        np.testing.assert_array_equal(new.confidence_TMK, old.confidence_TMK)
        assert old.features.keys() == new.features.keys()
        for key, values in old.features.items():
            np.testing.assert_array_equal(new.features[key], values)
    assert scored(after) == scored(before)
    assert len(scored(before)) == 15
    with pytest.raises(BadInput, match="already holds something"):
        prepare.main(["export", str(before.uri), "--out", str(tmp_path / "my files")])


def test_the_command_line_exports(tmp_path: Path) -> None:
    """In a process of its own, which has imported nothing that the command does not."""
    store = wander_store(tmp_path / "s", [40, 30])
    command = [
        sys.executable,
        "pretrain/prepare.py",
        "export",
        store.uri,
        "--out",
        str(tmp_path / "files"),
    ]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "70 frames of 2 videos; back into a store: ethoray prepare tracks" in done.stdout
    assert len(list((tmp_path / "files/tracks").iterdir())) == 2


def test_names_in_an_export_lead_nowhere(tmp_path: Path) -> None:
    position, confidence = wander(RATS, 3)
    with StoreWriter(tmp_path / "s", RATS, origin="") as writer:
        for name in ("../../up", "/abs", "a/./b"):
            writer.add(Video(name=name, position_TMKX=position, confidence_TMK=confidence))
    prepare.main(["export", str(tmp_path / "s"), "--out", str(tmp_path / "deep/er/files")])
    assert {path.name for path in tmp_path.iterdir()} == {"s", "deep"}
    assert len(list((tmp_path / "deep/er/files/tracks").rglob("*.npz"))) == 3
    prepare.main(
        [
            "tracks",
            "--poses",
            str(tmp_path / "deep/er/files/tracks"),
            "--fps",
            "30",
            "--out",
            str(tmp_path / "t"),
        ]
    )
    assert {video["name"] for video in Store(tmp_path / "t").videos} == {
        "../../up",
        "/abs",
        "a/./b",
    }


def test_an_export_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = rich_store(tmp_path / "s", monkeypatch)

    def full(self: Store, name: str, **more: object) -> Video:
        if name == "rat 3":
            raise OSError("no space left on device")
        return whole(self, name)

    whole = Store.read_video
    monkeypatch.setattr(Store, "read_video", full)
    with pytest.raises(BadInput, match="no space left"):
        prepare.main(["export", store.uri, "--out", str(tmp_path / "files")])
    assert not (tmp_path / "files").exists()


def mice_store(folder: Path) -> Store:
    """What CalMS21's format can say: two annotators of one video, two behaviours that overlap in
    it, features, missing points."""
    rng = np.random.default_rng(2)
    four = ("attack", "investigation", "mount", "other")
    labels = []
    with StoreWriter(folder, MICE, origin="mice") as writer:
        for number, name in enumerate(("m1", "m2", "m3")):
            position, confidence = wander(MICE, 90 + number, seed=number)
            features = (
                {"task_programming": rng.normal(size=(90 + number, 32)).astype(np.float32)}
                if number < 2
                else {}
            )
            writer.add(
                Video(
                    name=name, position_TMKX=position, confidence_TMK=confidence, features=features
                )
            )
            split = ("train", "test", "")[number]
            frames = rng.integers(0, 4, (3, 90 + number)).astype(np.int8)
            if split:
                labels += [
                    Labels(
                        video=name,
                        task=CLASSIC,
                        classes=four,
                        frames=frames[0],
                        annotator="0",
                        split=split,
                    )
                ]
                labels += [
                    Labels(
                        video=name,
                        task=STYLES,
                        classes=four,
                        frames=frames[n],
                        annotator=str(n),
                        split=split,
                    )
                    for n in (1, 2)
                ]
                labels += [
                    Labels(
                        video=name,
                        task=BEHAVIORS,
                        classes=("other", act),
                        frames=(frames[n] > 1).astype(np.int8),
                        split=split,
                    )
                    for n, act in enumerate(("groom", "approach"))
                ]
        write_labels(writer, labels)
    return Store(folder)


@pytest.mark.parametrize("zipped", [False, True])
def test_store_to_official_json_to_store(tmp_path: Path, zipped: bool) -> None:
    before = mice_store(tmp_path / "before")
    prepare.main(
        [
            "export",
            before.uri,
            "--as",
            "calms21-json",
            "--out",
            str(tmp_path / "files"),
            *(["--zipped"] if zipped else []),
        ]
    )
    prepare.main(["calms21", "--source", str(tmp_path / "files"), "--out", str(tmp_path / "after")])
    after = Store(tmp_path / "after")
    assert after.schema == before.schema
    assert after.origin == before.origin

    def plain(store: Store) -> dict[tuple[object, ...], list[object]]:
        # A recording under several label sets is in the file of each, and told apart by what
        # follows its name.
        return {(key[0].split(" ")[0], *key[1:]): frames for key, frames in scored(store).items()}  # type: ignore[attr-defined]

    assert plain(after) == plain(before)
    for name in (video["name"] for video in after.videos):
        old, new = before.read_video(name.split(" ")[0]), after.read_video(name)
        seen = old.confidence_TMK > 0
        np.testing.assert_array_equal(new.position_TMKX[seen], old.position_TMKX[seen])
        np.testing.assert_array_equal(new.confidence_TMK, old.confidence_TMK)
        assert old.features.keys() == new.features.keys()
        for key, values in old.features.items():
            np.testing.assert_array_equal(new.features[key], values)


def test_what_the_official_format_cannot_say_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rats = rich_store(tmp_path / "rats", monkeypatch)
    with pytest.raises(BadInput, match=r"--as npz writes any store\):\n.*animals differ"):
        prepare.main(["export", rats.uri, "--as", "calms21-json", "--out", str(tmp_path / "files")])
    with StoreWriter(tmp_path / "mice", MICE, origin="") as writer:
        position, confidence = wander(MICE, 5)
        writer.add(Video(name="m", position_TMKX=position, confidence_TMK=confidence))
        write_labels(
            writer,
            [
                Labels(
                    video="m",
                    task="S1",
                    classes=("a", "b"),
                    frames=np.array([0, 1, 0, _, 1], np.int8),
                )
            ],
        )
    with pytest.raises(
        BadInput,
        match=(
            r"'S1' overlap or leave frames unlabelled(.|\n)*it has labels under 'S1'; that "
            r"format has classic"
        ),
    ):
        prepare.main(
            [
                "export",
                str(tmp_path / "mice"),
                "--as",
                "calms21-json",
                "--out",
                str(tmp_path / "files"),
            ]
        )
    assert not (tmp_path / "files").exists()


# -- the arena as the release has it ---------------------------------------------------------------


@pytest.mark.parametrize("zipped", [False, True])
def test_the_arena_as_official_files(tmp_path: Path, zipped: bool) -> None:
    words = ["arena", "--frames", "15000", "--seed", "3"]
    prepare.main(
        [
            *words,
            "--as",
            "calms21-json",
            "--out",
            str(tmp_path / "files"),
            *(["--zipped"] if zipped else []),
        ]
    )
    assert {path.suffix for path in (tmp_path / "files").iterdir()} == {
        ".zip" if zipped else "",
        ".txt",
    }
    assert {source.task for source in find_sources(tmp_path / "files")} == {0, 1, 2, 3}
    if zipped:
        return
    prepare.main(["calms21", "--source", str(tmp_path / "files"), "--out", str(tmp_path / "read")])
    prepare.main([*words, "--out", str(tmp_path / "made")])
    read, made = Store(tmp_path / "read"), Store(tmp_path / "made")
    assert read.origin == made.origin
    assert "simulated" in read.origin
    assert scored(read) == scored(made)
    for record in made.videos[::7]:
        old, new = made.read_video(record["name"]), read.read_video(record["name"])
        np.testing.assert_array_equal(new.confidence_TMK, old.confidence_TMK)
        np.testing.assert_array_equal(
            new.position_TMKX[old.confidence_TMK > 0], old.position_TMKX[old.confidence_TMK > 0]
        )


def test_the_full_arena_has_the_frames_of_the_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[Any] = []

    def write(folder: Path, recordings: Any, **more: object) -> list[Path]:
        return []

    def made(plan: Any) -> list[Any]:
        planned.extend(plan)
        return []

    monkeypatch.setattr("pretrain.readers.calms21.write.write_official", write)
    monkeypatch.setattr("pretrain.arena.write.arena", made)
    monkeypatch.setattr(prepare, "OFFICIAL_BYTES", 0)
    prepare.main(
        ["arena", "--as", "calms21-json", "--frames", "full", "--out", str(tmp_path / "files")]
    )
    sums: dict[tuple[str, str, str], int] = {}
    for one in planned:
        key = (one.task, one.behaviour or one.annotator, one.split)
        sums[key] = sums.get(key, 0) + one.frames
    assert sums.pop(("", "", "train")) == 6_000_000
    assert sums == {key: sum(counts.values()) for key, counts in EXPECTED_FRAMES.items()}
    monkeypatch.setattr(prepare, "OFFICIAL_BYTES", 10**12)
    with pytest.raises(BadInput, match="are free there"):
        prepare.main(["arena", "--as", "calms21-json", "--out", str(tmp_path / "more")])
