"""CalMS21 in and out: small files whose every number is known, written by ``json`` and by the
project's own exporter."""

import csv
import hashlib
import json
import pickle
import resource
import subprocess
import sys
import threading
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from pretrain.data.schema import Video
from pretrain.errors import BadInput
from pretrain.readers.annotations import Labels
from pretrain.readers.calms21 import download as calms21_download
from pretrain.readers.calms21 import json_stream
from pretrain.readers.calms21 import sequences as calms21_sequences
from pretrain.readers.calms21.download import Archive, download
from pretrain.readers.calms21.expected_counts import (
    BEHAVIORS,
    CLASSES,
    CLASSIC,
    EXPECTED_FRAMES,
    NEW_BEHAVIORS,
    STYLES,
    count_differences,
)
from pretrain.readers.calms21.features import FEATURES
from pretrain.readers.calms21.read import read
from pretrain.readers.calms21.sources import find_sources, opened, total_bytes
from pretrain.readers.calms21.write import write_official

VOCAB = {"attack": 0, "investigation": 1, "mount": 2, "other": 3}
NAME = "task1/train/mouse001_task1_annotator1"


def walk(
    name: str, frames: int, seed: int, *, missing: float = 0.0, features: bool = False
) -> Video:
    random = np.random.default_rng(seed)
    position = (
        np.cumsum(random.normal(size=(frames, 2, 7, 2)), axis=0) + np.array([512, 285])
    ).astype(np.float32)
    confidence = random.uniform(0.01, 1, (frames, 2, 7)).astype(np.float32)
    gone = random.random((frames, 2, 7)) < missing
    position[gone], confidence[gone] = np.nan, 0
    held = {FEATURES: random.normal(size=(frames, 32)).astype(np.float32)} if features else {}
    return Video(name=name, position_TMKX=position, confidence_TMK=confidence, features=held)


def labelled(
    video: Video, task: str, split: str, annotator: str, classes: tuple[str, ...], seed: int
) -> tuple[Video, list[Labels]]:
    frames = (
        np.random.default_rng(seed)
        .integers(0, len(classes), len(video.position_TMKX))
        .astype(np.int8)
    )
    return video, [
        Labels(
            video=video.name,
            task=task,
            classes=classes,
            frames=frames,
            annotator=annotator,
            split=split,
        )
    ]


def world() -> Iterator[tuple[Video, list[Labels]]]:
    """All groups of the release, interleaved, with missing points and features."""
    for n in range(6):
        yield walk(f"unlabeled_videos/mouse{n:03d}", 30 + 7 * n, n, missing=0.1), []
    for split in ("train", "test"):
        yield labelled(
            walk(f"task1/{split}/mouse001_task1_annotator1", 50, 10, features=True),
            CLASSIC,
            split,
            "0",
            CLASSES,
            1,
        )
        for mouse in (1, 2):
            for a in "12345":
                yield labelled(
                    walk(f"task2/annotator{a}/{split}/mouse{mouse}", 20, 20 + int(a), missing=0.3),
                    STYLES,
                    split,
                    a,
                    CLASSES,
                    mouse,
                )
            for b in NEW_BEHAVIORS:
                yield labelled(
                    walk(f"task3/{b}/{split}/mouse{mouse}", 15, 40),
                    BEHAVIORS,
                    split,
                    "",
                    ("other", b),
                    mouse,
                )


def release(frames: int = 12, **changes: Any) -> dict[str, Any]:
    """One sequence as the release writes it, numbers told by their place."""
    T, M, X, K = np.ogrid[:frames, :2, :2, :7]
    keypoints = T + 100 * M + 50 * X + 0.125 * K
    sequence = {
        "keypoints": keypoints.tolist(),
        "scores": (
            0.5 + 0.01 * (np.arange(frames) % 40)[:, None, None] + np.zeros((frames, 2, 7))
        ).tolist(),
        "annotations": (np.arange(frames) % 4).tolist(),
        "metadata": {"annotator-id": 0, "vocab": VOCAB},
    } | changes
    return {
        "annotator-id_0": {
            NAME: {key: value for key, value in sequence.items() if value is not None}
        }
    }


def written(folder: Path, content: Any, name: str = "calms21_task1_train.json", **how: Any) -> Path:
    path = folder / name
    path.write_text(json.dumps(content, **how))
    return path


def read_all(folder: Path, **how: Any) -> list[tuple[Video, list[Labels]]]:
    return list(read(find_sources(folder), **how))


def same(a: tuple[Video, list[Labels]], b: tuple[Video, list[Labels]]) -> None:
    (video, labels), (other, others) = a, b
    assert video.name == other.name
    np.testing.assert_array_equal(video.position_TMKX, other.position_TMKX)
    np.testing.assert_array_equal(video.confidence_TMK, other.confidence_TMK)
    assert video.features.keys() == other.features.keys()
    for name, values in video.features.items():
        np.testing.assert_array_equal(values, other.features[name])
    assert len(labels) == len(others)
    for mine, theirs in zip(labels, others, strict=True):
        np.testing.assert_array_equal(mine.frames, theirs.frames)
        for field in ("video", "task", "classes", "annotator", "split"):
            assert getattr(mine, field) == getattr(theirs, field)


# ---- reading -------------------------------------------------------------------------------------


def test_axes_labels_and_names_are_those_of_the_release(tmp_path: Path) -> None:
    path = written(tmp_path, release())
    ((video, (labels,)),) = read_all(tmp_path)
    assert video.name == labels.video == NAME
    assert video.position_TMKX.shape == (12, 2, 7, 2)
    T, M, K, X = np.ogrid[:12, :2, :7, :2]
    np.testing.assert_array_equal(video.position_TMKX, T + 100 * M + 0.125 * K + 50 * X)
    assert video.confidence_TMK[3, 1, 6] == np.float32(0.53)
    assert (labels.task, labels.annotator, labels.split, labels.classes) == (
        CLASSIC,
        "0",
        "train",
        CLASSES,
    )
    assert labels.frames.tolist() == [0, 1, 2, 3] * 3
    assert video.source_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_labels_follow_the_vocabulary_not_its_numbers(tmp_path: Path) -> None:
    vocabulary = {"other": 0, "mount": 7, "investigation": 2, "attack": 1}
    written(
        tmp_path,
        release(4, annotations=[7, 0, 1, 2], metadata={"annotator-id": 0, "vocab": vocabulary}),
    )
    ((_, (labels,)),) = read_all(tmp_path)
    assert [labels.classes[n] for n in labels.frames] == [
        "mount",
        "other",
        "attack",
        "investigation",
    ]


@pytest.mark.parametrize(
    "how", [{}, {"indent": 4}, {"separators": (",", ":")}, {"sort_keys": True}]
)
@pytest.mark.parametrize("block", [1, 7, 100, 3000, 2**20])
def test_spacing_key_order_and_block_size_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Any, block: int
) -> None:
    content = release(9)
    content["annotator-id_3"] = {
        'quo"ted ] } name \\': release(5)["annotator-id_0"][NAME]
        | {"more": [{"a": "]}"}, 1.5e3, None], "note": "two ]} words", "n": 12}
    }
    wanted = read_all(written(tmp_path, content).parent)
    monkeypatch.setattr(json_stream, "BLOCK_BYTES", block)
    written(tmp_path, content, **how)
    found = read_all(tmp_path)
    assert len(found) == 2
    for a, b in zip(found, wanted, strict=True):
        same(a, b)


def test_a_point_with_score_zero_is_missing(tmp_path: Path) -> None:
    scores = np.ones((4, 2, 7))
    scores[2, 1, 3] = 0
    written(tmp_path, release(4, scores=scores.tolist()))
    ((video, _),) = read_all(tmp_path)
    assert np.argwhere(np.isnan(video.position_TMKX)).tolist() == [[2, 1, 3, 0], [2, 1, 3, 1]]


def test_two_recordings_of_one_name_in_different_groups_are_kept_apart(tmp_path: Path) -> None:
    content = release() | {"annotator-id_1": release(5)["annotator-id_0"]}
    written(tmp_path, content)
    notes: list[str] = []
    found = read_all(tmp_path, notes=notes)
    assert [len(v.position_TMKX) for v, _ in found] == [12, 5]
    assert (
        [v.name for v, _ in found]
        == [NAME, f"{NAME} (annotator-id_1, task1_train)"]
        == [labels.video for _, (labels,) in found]
    )
    assert "came before" in notes[0]


BAD = {
    "ragged frame": (
        dict(
            keypoints=[*np.ones((4, 2, 2, 7)).tolist(), [[[1.0] * 7] * 2, [[1.0] * 7, [1.0] * 6]]]
        ),
        ["keypoints, frame 4", "2 mice x 2 coordinates x 7 parts"],
    ),
    "three mice": (
        dict(keypoints=np.zeros((12, 3, 2, 7)).tolist()),
        ["keypoints, frame 0", "2 mice"],
    ),
    "same count, other form": (
        dict(keypoints=np.ones((12, 7, 2, 2)).tolist()),
        ["keypoints, frame 0"],
    ),
    "frames differ": (
        dict(scores=np.ones((11, 2, 7)).tolist()),
        ["keypoints 12, scores 11, annotations 12"],
    ),
    "no keypoints": (dict(keypoints=None), ["it has no 'keypoints'"]),
    "two things missing": (
        dict(scores=None, annotations=None),
        ["it has no 'scores'", "it has no 'annotations'"],
    ),
    "no frames": (dict(keypoints=[], scores=[], annotations=[]), ["no frames"]),
    "NaN": (
        dict(annotations=[0] * 9 + [float("nan")] * 3),
        ["annotations, frame 9", "'NaN' is not a number"],
    ),
    "null": (
        dict(annotations=[0] * 5 + [None] * 7),
        ["annotations, frame 5", "'null' is not a number"],
    ),
    "text": (dict(annotations=["a"] * 12), ["annotations"]),
    "huge": (
        dict(keypoints=np.full((12, 2, 2, 7), 1e300).tolist()),
        ["keypoints, frame 0", "allowed: up to 100,000 px"],
    ),
    "larger than any float": (
        dict(annotations=[0, 10**400] + [0] * 10),
        ["annotations, frame", "too large"],
    ),
    "score": (dict(scores=np.full((12, 2, 7), 55.5).tolist()), ["scores, frame 0", "55.5"]),
    "unknown label": (
        dict(annotations=[0] * 10 + [9, 0]),
        ["annotations, frame 10", "9 is not in its vocabulary"],
    ),
    "half a label": (dict(annotations=[0] * 11 + [0.5]), ["annotations, frame 11"]),
    "unknown class": (
        dict(metadata={"vocab": VOCAB | {"sleep": 4}}),
        ["sleep", "this set has attack"],
    ),
    "vocabulary of text": (dict(metadata={"vocab": {"attack": "0"}}), ["whole number"]),
    "one number twice": (
        dict(metadata={"vocab": {**VOCAB, "other": 0}}),
        ["whole number of its own"],
    ),
    "no metadata": (dict(metadata=None), ["vocab"]),
    "metadata is a list": (dict(metadata=[1]), ["vocab"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_sequence_is_refused_with_file_sequence_and_place(tmp_path: Path, case: str) -> None:
    changes, fragments = BAD[case]
    path = written(tmp_path, release(**changes))
    with pytest.raises(BadInput) as caught:
        read_all(tmp_path)
    for fragment in (str(path), NAME, *fragments):
        assert fragment in str(caught.value)


ONE = json.dumps(release(2)["annotator-id_0"][NAME]).encode()
CYCLE = json.dumps(release(annotations=[1, 2, 3] * 4)).encode()
FILES = {
    "empty": (b"", "the file ends"),
    "a list": (b"[1, 2]", "'{' should be"),
    "no sequence": (b'{"annotator-id_0": {}}', "holds no sequence"),
    "utf-16": (json.dumps(release()).encode("utf-16"), "not UTF-8"),
    "latin-1": ('{"annotator-id_0": {"souris \xe9": {}}}'.encode("latin-1"), "cannot be read"),
    "more after the end": (json.dumps(release()).encode() + b"{}", "more text after the end"),
    "a group twice": (b'{"annotator-id_0": {}, "annotator-id_0": {}}', "appears twice"),
    "a sequence twice": (
        b'{"annotator-id_0": {"a": %s, "a": %s}}' % (ONE, ONE),
        "came before in the same group",
    ),
    "a key twice": (
        b'{"annotator-id_0": {"a": {"scores": [], "scores": []}}}',
        "'scores' appears twice",
    ),
    "unknown group": (
        json.dumps({"mice": release()["annotator-id_0"]}).encode(),
        "annotator-id_ and a number",
    ),
    "deep": (
        b'{"annotator-id_0": {"a": {"metadata": ' + b"[" * 50_000 + b"]" * 50_000 + b"}}}",
        "cannot be read",
    ),
    "deep numbers": (
        b'{"annotator-id_0": {"a": {"scores": ' + b"[" * 50_000 + b"]" * 50_000 + b"}}}",
        "scores, frame 0",
    ),
    "surrogate": (b'{"annotator-id_0": {"\\ud800": {}}}', "cannot be read"),
    "brackets out of place": (CYCLE.replace(b"[1, 2, 3, 1", b"[1, [2, 3], 1"), "annotations"),
    "semicolon": (CYCLE.replace(b', "scores"', b'; "scores"'), "a comma or the closing brace"),
    "semicolon for colon": (CYCLE.replace(b'"scores":', b'"scores";'), "':' should be"),
    "no value": (
        CYCLE.replace(b'"metadata": {"annotator-id": 0,', b'"extra":, "metadata": {'),
        "the value of 'extra'",
    ),
    "not closed": (CYCLE.replace(b'3], "metadata"', b'3, "metadata"'), "annotations"),
    "wide": (
        b'{"annotator-id_0": {"a": {"annotations": [' + b" " * 2**25 + b"1]}}}",
        "blanks in a row",
    ),
    "endless row": (
        b'{"annotator-id_0": {"a": {"scores": [[[' + b"1," * 2_000_000,
        "frame takes more than",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_bad_file_is_refused_by_name(tmp_path: Path, case: str) -> None:
    content, fragment = FILES[case]
    (tmp_path / "calms21_task1_train.json").write_bytes(content)
    with pytest.raises(BadInput, match=r"calms21_task1_train.json") as caught:
        read_all(tmp_path)
    assert fragment in str(caught.value)


def test_task_3_behaviour_must_be_one_of_seven(tmp_path: Path) -> None:
    written(tmp_path, {"sleep": release()["annotator-id_0"]}, "calms21_task3_test.json")
    with pytest.raises(BadInput, match=r"no behaviour 'sleep'.*approach, disengaged"):
        read_all(tmp_path)


def test_a_sequence_longer_than_memory_allows_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, release())
    monkeypatch.setattr(calms21_sequences, "MAX_FRAMES", 11)
    with pytest.raises(BadInput, match="more than 11 frames"):
        read_all(tmp_path)


MEMORY = """
import resource, sys
from pretrain.readers.calms21.read import read
from pretrain.readers.calms21.sources import find_sources
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
frames = sum(len(video.position_TMKX) for video, _ in read(find_sources(sys.argv[1])))
print(frames, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss differs")
@pytest.mark.parametrize("packed", [False, True])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, packed: bool) -> None:
    sequence = json.dumps(release(2000)["annotator-id_0"][NAME]).encode()
    with (tmp_path / "calms21_task1_train.json").open("wb") as file:
        file.write(
            b'{"annotator-id_0": {'
            + b",".join(b'"%d": %s' % (n, sequence) for n in range(100))
            + b"}}"
        )
    size = file_bytes = (tmp_path / "calms21_task1_train.json").stat().st_size
    if packed:
        with zipfile.ZipFile(
            tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1
        ) as archive:
            archive.write(tmp_path / "calms21_task1_train.json", "calms21_task1_train.json")
        (tmp_path / "calms21_task1_train.json").unlink()
    answer = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, check=True
    ).stdout.split()
    assert int(answer[0]) == 200_000
    assert file_bytes > 50e6
    assert int(answer[1]) * 1024 < min(30e6, size / 2)


# ---- the exporter --------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [False, True])
def test_what_is_written_is_read_back_to_the_last_bit(tmp_path: Path, zipped: bool) -> None:
    wanted = {video.name: (video, labels) for video, labels in world()}
    counted, done = [0], [0]
    write_official(
        tmp_path / "out",
        world(),
        zipped=zipped,
        on_progress=lambda n: counted.__setitem__(0, counted[0] + n),
    )
    sources = find_sources(tmp_path / "out")
    found = list(read(sources, on_progress=lambda n: done.__setitem__(0, done[0] + n)))
    assert len(found) == len(wanted) == 6 + 2 * (1 + 2 * (5 + 7))
    for video, labels in found:
        same((video, labels), wanted[video.name])
    assert done[0] == total_bytes(sources)
    assert counted[0] == sum(len(video.position_TMKX) for video, _ in found)
    assert not list((tmp_path / "out").glob(".*"))


def test_files_have_the_names_groups_and_keys_of_the_release(tmp_path: Path) -> None:
    files = write_official(tmp_path, world())
    assert {str(path.relative_to(tmp_path)) for path in files} == {
        *(
            f"task1_classic_classification/{kind}_task1_{split}.json"
            for kind in ("calms21", "taskprog_features")
            for split in ("train", "test")
        ),
        *(f"task2_annotation_styles/calms21_task2_{split}.json" for split in ("train", "test")),
        *(f"task3_new_behaviors/calms21_task3_{split}.json" for split in ("train", "test")),
        *(f"unlabeled_videos/calms21_unlabeled_videos_part{n}.json" for n in (1, 2, 3, 4)),
    }
    held = {path.name: json.loads(path.read_text()) for path in files}
    sequence = held["calms21_task1_test.json"]["annotator-id_0"][
        "task1/test/mouse001_task1_annotator1"
    ]
    assert set(sequence) == {"keypoints", "scores", "annotations", "metadata"}
    assert sequence["metadata"] == {"annotator-id": 0, "vocab": VOCAB}
    assert np.shape(sequence["keypoints"]) == (50, 2, 2, 7)
    assert np.shape(sequence["scores"]) == (50, 2, 7)
    assert list(held["calms21_task2_train.json"]) == [f"annotator-id_{n}" for n in range(1, 6)]
    assert list(held["calms21_task3_train.json"]) == list(NEW_BEHAVIORS)
    assert held["calms21_task3_train.json"]["groom"]["task3/groom/train/mouse1"]["metadata"][
        "vocab"
    ] == {"other": 0, "groom": 1}
    assert {"unlabeled_videos"} == {
        group for n in (1, 2, 3, 4) for group in held[f"calms21_unlabeled_videos_part{n}.json"]
    }
    assert np.isfinite(
        held["calms21_unlabeled_videos_part1.json"]["unlabeled_videos"][
            "unlabeled_videos/mouse000"
        ]["keypoints"]
    ).all()


def test_a_gap_is_written_as_the_last_place_with_score_zero(tmp_path: Path) -> None:
    position = np.arange(4 * 28, dtype=np.float32).reshape(4, 2, 7, 2)
    confidence = np.ones((4, 2, 7), np.float32)
    position[2, 0, 3], confidence[2, 0, 3] = np.nan, 0
    position[0, 1, 1], confidence[0, 1, 1] = np.nan, 0
    write_official(
        tmp_path, [(Video(name="a", position_TMKX=position, confidence_TMK=confidence), [])]
    )
    (sequence,) = json.loads(
        (tmp_path / "unlabeled_videos/calms21_unlabeled_videos_part1.json").read_text()
    )["unlabeled_videos"].values()
    points = np.array(sequence["keypoints"])
    assert points[2, 0, :, 3].tolist() == position[1, 0, 3].tolist()
    assert points[0, 1, :, 1].tolist() == [512, 285]
    assert np.argwhere(np.array(sequence["scores"]) == 0).tolist() == [[0, 1, 1], [2, 0, 3]]


def test_a_failed_export_leaves_nothing(tmp_path: Path) -> None:
    def breaks() -> Iterator[tuple[Video, list[Labels]]]:
        yield from list(world())[:9]
        raise RuntimeError("the simulator broke")

    with pytest.raises(RuntimeError):
        write_official(tmp_path / "new", breaks())
    (tmp_path / "old").mkdir()
    (tmp_path / "old/mine.txt").write_text("stays")
    with pytest.raises(BadInput, match=r"recording 'b'.*three|recording 'b'"):
        write_official(
            tmp_path / "old",
            [
                (walk("a", 3, 0), []),
                (
                    walk("b", 3, 0),
                    [Labels(video="b", task="S1", classes=("x",), frames=np.zeros(3, np.int8))],
                ),
            ],
        )
    with pytest.raises(BadInput, match="no recordings"):
        write_official(tmp_path / "none", [])
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == [
        "old",
        "old/mine.txt",
    ]


def test_an_export_does_not_overwrite(tmp_path: Path) -> None:
    write_official(tmp_path, [(walk("a", 3, 0), [])])
    with pytest.raises(BadInput, match="is there already"):
        write_official(tmp_path, [(walk("a", 3, 0), [])])


# ---- features ------------------------------------------------------------------------------------


def features_file(folder: Path, lengths: dict[str, int], seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    values = {name: random.normal(size=(n, 32)) for name, n in lengths.items()}
    content = {"annotator-id_0": {name: {"features": v.tolist()} for name, v in values.items()}}
    (folder / "taskprog_features_task1_train.json").write_text(json.dumps(content))
    return values


def test_features_find_their_sequence_in_any_order_and_strays_are_named(tmp_path: Path) -> None:
    one = release(6)["annotator-id_0"][NAME]
    written(tmp_path, {"annotator-id_0": {name: one for name in "abcd"}})
    values = features_file(tmp_path, {"c": 6, "x": 3, "a": 6, "b": 6})
    notes: list[str] = []
    found = {video.name: video for video, _ in read_all(tmp_path, notes=notes)}
    for name in "abc":
        np.testing.assert_array_equal(
            found[name].features[FEATURES], values[name].astype(np.float32)
        )
    assert not found["d"].features
    assert len(notes) == 2
    assert "no features for 1 sequences (d)" in notes[0]
    assert "features without poses for 1 sequences (x)" in notes[1]


def test_features_of_another_length_are_refused(tmp_path: Path) -> None:
    written(tmp_path, release(6))
    features_file(tmp_path, {NAME: 5})
    with pytest.raises(
        BadInput,
        match=r"taskprog_features_task1_train.json: sequence '.*5 frames of features for 6",
    ):
        read_all(tmp_path)


# ---- npy -----------------------------------------------------------------------------------------


def as_npy(folder: Path, content: Any, name: str = "calms21_task1_train.npy") -> Path:
    np.save(folder / name, content, allow_pickle=True)
    return folder / name


def arrays(content: dict[str, Any]) -> dict[str, Any]:
    return {
        group: {
            name: {
                key: np.array(value) if isinstance(value, list) else value
                for key, value in sequence.items()
            }
            for name, sequence in sequences.items()
        }
        for group, sequences in content.items()
    }


def test_npy_release_equals_the_json(tmp_path: Path) -> None:
    written(tmp_path, release())
    wanted = read_all(tmp_path)
    (tmp_path / "calms21_task1_train.json").unlink()
    content = arrays(release())
    content["annotator-id_0"][NAME]["metadata"]["annotator-id"] = np.int64(3)
    path = as_npy(tmp_path, content)
    same(read_all(tmp_path)[0], wanted[0])
    old = path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    head = old.index(b"\x80\x04\x95")  # numpy 1 called the module so; lengths in the pickle follow
    fixed = old[:head] + pickle_of_old_numpy(content)
    path.write_bytes(fixed)
    same(read_all(tmp_path)[0], wanted[0])
    assert total_bytes(find_sources(tmp_path)) == len(fixed)


def pickle_of_old_numpy(content: Any) -> bytes:
    outer = np.array(content, dtype=object)
    data = pickle.dumps(outer, protocol=3)
    return data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def test_npy_with_features_laid_beside_the_pose(tmp_path: Path) -> None:
    content = arrays(release())
    sequence = content["annotator-id_0"][NAME]
    features = np.random.default_rng(0).normal(size=(12, 32))
    sequence["features"] = np.concatenate(
        [sequence.pop("keypoints").reshape(12, -1), features], axis=1
    )
    as_npy(tmp_path, content, "calms21_task1_train_features.npy")
    ((video, _),) = read_all(tmp_path)
    written(tmp_path, release())
    ((plain, _),) = read_all(tmp_path)
    np.testing.assert_array_equal(video.position_TMKX, plain.position_TMKX)
    np.testing.assert_array_equal(video.features[FEATURES], features.astype(np.float32))


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    "where", ["in place of the dictionary", "in an array of objects", "as metadata"]
)
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path, where: str) -> None:
    trace = tmp_path / "it-ran"
    content: Any = arrays(release())
    if where == "in place of the dictionary":
        content = Evil(trace)
    elif where == "in an array of objects":
        content["annotator-id_0"][NAME]["keypoints"] = np.array([Evil(trace)] * 2, dtype=object)
    else:
        content["annotator-id_0"][NAME]["metadata"] = Evil(trace)
    path = as_npy(tmp_path, content)
    with pytest.raises(BadInput, match=r"calms21_task1_train.npy.*(could run code|array of type)"):
        read_all(tmp_path)
    assert not trace.exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.load(path, allow_pickle=True)
    assert trace.exists(), "the bait was not live: this test proves nothing"


NPY = {
    "numbers": lambda path: np.save(path, np.zeros(3)),
    "objects": lambda path: np.save(path, np.array([{}, {}], dtype=object)),
    "a list": lambda path: np.save(path, np.array([[1, "a", []]], dtype=object)),
    "numbers as keys": lambda path: np.save(path, {1: {}}),
    "sequence is text": lambda path: np.save(path, {"annotator-id_0": {"a": "b"}}),
    "text array": lambda path: np.save(
        path, {"annotator-id_0": {"a": {"scores": np.array(["a"])}}}
    ),
    "object array": lambda path: np.save(
        path, {"annotator-id_0": {"a": {"scores": np.array([None], dtype=object)}}}
    ),
    "record array": lambda path: np.save(
        path, {"annotator-id_0": {"a": {"scores": np.zeros(2, "f8,i4")}}}
    ),
    "cut": lambda path: (
        np.save(path, arrays(release())),
        path.write_bytes(path.read_bytes()[:900]),
    ),
    "more": lambda path: (
        np.save(path, arrays(release())),
        path.write_bytes(path.read_bytes() + b"x"),
    ),
    "empty": lambda path: path.write_bytes(b""),
    "claims 8 exabytes": lambda path: (
        np.save(path, {}),
        path.write_bytes(path.read_bytes()[:128] + b"\x80\4\x8e" + b"\x7f" * 8),
    ),
}


@pytest.mark.parametrize("case", NPY)
def test_other_npy_files_are_refused_by_name(tmp_path: Path, case: str) -> None:
    NPY[case](tmp_path / "calms21_task1_train.npy")
    with pytest.raises(BadInput, match=r"calms21_task1_train\.npy"):
        read_all(tmp_path)


# ---- finding -------------------------------------------------------------------------------------


def test_nothing_found_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(BadInput) as caught:
        find_sources(tmp_path)
    for fragment in (
        str(tmp_path),
        "notes.txt",
        "calms21_task1_train.json",
        "task1_classic_classification.zip",
        "--download",
    ):
        assert fragment in str(caught.value)
    with pytest.raises(BadInput, match="there is no"):
        find_sources(tmp_path / "absent")


def test_a_part_is_read_once_and_unpacked_files_come_first(tmp_path: Path) -> None:
    write_official(tmp_path / "a", world(), zipped=True)
    write_official(tmp_path / "b", world())
    as_npy(tmp_path, arrays(release()))
    sources = find_sources(tmp_path)
    assert len({source.part for source in sources}) == len(sources) == 10
    assert all(source.path.suffix == ".json" for source in sources)
    assert [s.task for s in sources] == [1, 1, 2, 2, 3, 3, 0, 0, 0, 0]
    assert [s.split for s in sources[:6]] == ["train", "test"] * 3
    assert [s.features is not None for s in sources] == [True, True] + [False] * 8


def archive_with(folder: Path, member: zipfile.ZipInfo | str, data: bytes = b"{}") -> Path:
    path = folder / "task1_classic_classification.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/calms21_task1_train.json", json.dumps(release()))
        archive.writestr(member, data, zipfile.ZIP_DEFLATED)
    return path


def link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("x/taskprog_features_task1_train.json")
    info.external_attr = 0o120777 << 16
    return info


@pytest.mark.parametrize(
    "member",
    [
        "../outside.json",
        "x/../../outside.json",
        "/etc/outside.json",
        "C:\\outside.json",
        "..\\outside.json",
        link(),
    ],
)
def test_archives_that_would_leave_their_folder_are_refused(tmp_path: Path, member: Any) -> None:
    path = archive_with(tmp_path, member)
    with pytest.raises(
        BadInput, match=r"(?s)task1_classic_classification.zip.*(leave the folder|is a link)"
    ):
        find_sources(path)


def test_shadow_files_of_macos_are_passed_over(tmp_path: Path) -> None:
    archive_with(tmp_path, "__MACOSX/x/calms21_task1_test.json", b"\0\5")
    assert len(read_all(tmp_path)) == 1


def test_a_member_that_grows_like_a_bomb_is_refused(tmp_path: Path) -> None:
    archive_with(tmp_path, "x/calms21_task1_test.json", b" " * 2**27)
    with pytest.raises(BadInput, match="grows from"):
        find_sources(tmp_path)


def test_a_member_that_lies_about_its_size_is_refused_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "task1_classic_classification.zip"
    body = json.dumps(release()).encode() + b" " * 2**26
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("calms21_task1_train.json", body)
    size = len(body).to_bytes(4, "little")
    assert path.read_bytes().count(size) == 2
    path.write_bytes(path.read_bytes().replace(size, (5000).to_bytes(4, "little")))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(
        BadInput, match=r"task1_classic_classification.zip: calms21_task1_train.json"
    ):
        read_all(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    path = archive_with(tmp_path, "y", b"")
    data = bytearray(path.read_bytes())
    data[200:260] = bytes(60)
    path.write_bytes(data)
    with pytest.raises(BadInput, match=r"task1_classic_classification.zip"):
        read_all(tmp_path)
    path.write_bytes(bytes(data[:-50]))
    with pytest.raises(BadInput, match="not a whole zip archive"):
        find_sources(tmp_path)


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_member_is_read_whole_and_its_checksum_is_compared(tmp_path: Path, packing: int) -> None:
    path, body = tmp_path / "task1_classic_classification.zip", json.dumps(release(6_000)).encode()
    assert len(body) > 2 * 2**20, "the world fits one block"
    with zipfile.ZipFile(path, "w", packing) as archive:
        archive.writestr("calms21_task1_train.json", body)
    (source,) = find_sources(tmp_path)
    pieces = []
    with opened(source) as stream:
        while piece := stream.read(2**16):
            assert len(piece) <= 2**16
            pieces.append(piece)
    assert b"".join(pieces) == body
    good = zlib.crc32(body).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(good, bytes(byte ^ 1 for byte in good)))
    with pytest.raises(
        BadInput,
        match=r"task1_classic_classification.zip: calms21_task1_train.json.*cannot be read on",
    ):
        read_all(tmp_path)


# ---- counts --------------------------------------------------------------------------------------


def of_release(key: tuple[str, str, str]) -> Labels:
    classes = tuple(EXPECTED_FRAMES[key])
    frames = np.repeat(np.arange(len(classes)), list(EXPECTED_FRAMES[key].values())).astype(np.int8)
    return Labels(
        video="v",
        task=key[0],
        classes=classes,
        frames=frames,
        annotator="" if key[0] == BEHAVIORS else key[1],
        split=key[2],
    )


def test_counts_of_the_release_are_found_equal_and_one_frame_is_missed() -> None:
    totals: dict[tuple[str, str], int] = {}
    for (task, _, split), counts in EXPECTED_FRAMES.items():
        totals[task, split] = totals.get((task, split), 0) + sum(counts.values())
    assert totals[CLASSIC, "train"] == 507_738
    assert totals[CLASSIC, "test"] == 262_107
    assert (totals[STYLES, "train"], totals[STYLES, "test"]) == (582_873, 954_989)
    everything = [of_release(key) for key in EXPECTED_FRAMES]
    assert count_differences(everything) == []
    changed = of_release((BEHAVIORS, "groom", "test"))
    (said,) = count_differences([Labels(**{**vars(changed), "frames": changed.frames[:-1]})])
    assert said == (
        "new_behaviors, behaviour groom, test: frames differ from the release: groom "
        "8,539 instead of 8,540"
    )


def test_counts_are_those_of_the_real_timelines_of_task_1(real_data: Path) -> None:
    folder = real_data / "calms21_labels"
    for split in ("train", "test"):
        frames: list[int] = []
        with (folder / f"mice_{split}_annotations.csv").open() as file:
            for row in csv.DictReader(file):
                if row["actor"] == "resident":
                    label = CLASSES.index("other" if row["category"] == "none" else row["category"])
                    frames += [label] * (int(row["stop"]) - int(row["start"]) + 1)
        expected = np.array(list(EXPECTED_FRAMES[CLASSIC, "0", split].values()))
        assert len(frames) == expected.sum()
        # Those timelines were made bout by bout, and some boundary frames have moved.
        assert np.abs(np.bincount(frames) - expected).max() < 25


# ---- downloading ---------------------------------------------------------------------------------


class Deposit(BaseHTTPRequestHandler):
    """A server with byte ranges that can break off, forget ranges, or fail."""

    files: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[str]] = []
    break_after: ClassVar[list[int]] = []
    ranges: ClassVar[bool] = True

    def do_GET(self) -> None:
        name, content = self.path.strip("/").split("/")
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.asked.append(f"{name} {start}")
        data = self.files.get(name)
        if data is None or content != "content":
            self.send_error(404)
            return
        if self.ranges and start >= len(data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = data[start:] if self.ranges else data
        self.send_response(206 if self.ranges and start else 200)
        self.send_header("Content-Length", str(len(body)))
        if self.ranges and start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.break_after:
            self.wfile.write(body[: self.break_after.pop(0)])
            self.close_connection = True
            return
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def deposit(tmp_path: Path) -> Iterator[tuple[str, dict[str, Archive], dict[str, bytes]]]:
    write_official(tmp_path / "made", world(), zipped=True)
    files = {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}
    archives = {
        path.split("_")[0]: Archive(path, hashlib.md5(data).hexdigest())
        for path, data in files.items()
    }
    Deposit.files, Deposit.asked, Deposit.break_after, Deposit.ranges = dict(files), [], [], True
    server = ThreadingHTTPServer(("127.0.0.1", 0), Deposit)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", archives, files
    server.shutdown()
    server.server_close()
    thread.join()


def test_download_then_read(tmp_path: Path, deposit: Any) -> None:
    url, archives, files = deposit
    paths = download(
        tmp_path / "got", base_url=url, archives=archives, tasks=archives, show_progress=False
    )
    assert {path.name: path.read_bytes() for path in paths} == files
    assert {path.name for path in (tmp_path / "got").iterdir()} == set(files)
    assert len(read_all(tmp_path / "got")) == 6 + 2 * 25
    Deposit.asked.clear()
    download(
        tmp_path / "got",
        base_url=url,
        archives=archives,
        tasks=["task1", "task2"],
        show_progress=False,
    )
    assert Deposit.asked == []  # they were there


def test_download_goes_on_where_it_broke_off(
    tmp_path: Path, deposit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, archives, files = deposit
    name = archives["task2"].name
    Deposit.break_after = [1000, 0, 500]
    monkeypatch.setattr(calms21_download, "_PIECE_BYTES", 100)
    (path,) = download(
        tmp_path / "got",
        base_url=url,
        archives=archives,
        tasks=["task2"],
        show_progress=False,
        pause_s=0.001,
    )
    assert path.read_bytes() == files[name]
    assert Deposit.asked == [f"{name} 0", f"{name} 1000", f"{name} 1000", f"{name} 1500"]


@pytest.mark.parametrize("ranges", [True, False])
def test_download_takes_up_what_an_earlier_run_left(
    tmp_path: Path, deposit: Any, ranges: bool
) -> None:
    url, archives, files = deposit
    Deposit.ranges = ranges
    name = archives["task1"].name
    for left in (files[name][:2000], files[name], files[name] + b"too long"):
        folder = tmp_path / str(len(left))
        folder.mkdir()
        (folder / f"{name}.part").write_bytes(left)
        (path,) = download(
            folder,
            base_url=url,
            archives=archives,
            tasks=["task1"],
            show_progress=False,
            pause_s=0.001,
        )
        assert path.read_bytes() == files[name]
        assert [p.name for p in folder.iterdir()] == [name]
    assert Deposit.asked[0] == f"{name} 2000"


def test_a_wrong_archive_is_refused_and_removed(tmp_path: Path, deposit: Any) -> None:
    url, archives, _ = deposit
    Deposit.files[archives["task1"].name] = b"something else"
    with pytest.raises(BadInput, match="not the published archive"):
        download(
            tmp_path / "got", base_url=url, archives=archives, tasks=["task1"], show_progress=False
        )
    assert list((tmp_path / "got").iterdir()) == []


def test_an_archive_that_would_leave_its_folder_is_refused(tmp_path: Path, deposit: Any) -> None:
    url, _, _ = deposit
    data = archive_with(tmp_path, "../outside.json").read_bytes()
    Deposit.files["evil.zip"] = data
    with pytest.raises(BadInput, match="leave the folder"):
        download(
            tmp_path / "got",
            base_url=url,
            archives={"evil": Archive("evil.zip", hashlib.md5(data).hexdigest())},
            tasks=["evil"],
            show_progress=False,
        )


def test_without_a_connection_the_message_says_what_to_fetch_by_hand(
    tmp_path: Path, deposit: Any
) -> None:
    url, archives, _ = deposit
    with pytest.raises(BadInput) as caught:
        download(
            tmp_path / "got",
            base_url="http://127.0.0.1:1",
            archives=archives,
            show_progress=False,
            tasks=archives,
            pause_s=0.001,
        )
    for archive in archives.values():
        assert f"{archive.name}/content" in str(caught.value)
        assert archive.md5 in str(caught.value)
    assert "no connection" in str(caught.value)
    assert str(tmp_path / "got") in str(caught.value)
    del Deposit.files[archives["task3"].name]
    with pytest.raises(BadInput, match="answered 404"):
        download(
            tmp_path / "got", base_url=url, archives=archives, tasks=["task3"], show_progress=False
        )
    with pytest.raises(BadInput, match="no archive 'task9'; there are"):
        download(tmp_path / "got", tasks=["task9"])
