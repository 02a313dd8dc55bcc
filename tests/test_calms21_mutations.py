"""Damaged CalMS21 files by the hundred: each is read as a slow reference reads it, or refused by
name.

``ETHORAY_MUTATIONS=2000 pytest tests/test_calms21_mutations.py`` runs as many as asked; a number
names its mutation, so that a failure can be repeated with ``-k``.
"""

import io
import json
import os
import pickle
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pretrain.data.schema import Video
from pretrain.errors import BadInput
from pretrain.readers.annotations import Labels
from pretrain.readers.calms21 import json_stream
from pretrain.readers.calms21.features import FEATURES
from pretrain.readers.calms21.read import read
from pretrain.readers.calms21.sources import find_sources

COUNT = int(os.environ.get("ETHORAY_MUTATIONS", "400"))
FRAMES = 6
NAME = "calms21_task1_train"
CLASSES = ["attack", "investigation", "mount", "other"]
VOCAB = {name: number for number, name in enumerate(CLASSES)}
BATCH = 100

Files = dict[str, bytes]


def base(random: np.random.Generator) -> dict[str, Any]:
    def sequence() -> dict[str, Any]:
        return {
            "keypoints": random.uniform(0, 1024, (FRAMES, 2, 2, 7)).tolist(),
            "scores": random.uniform(0.01, 1, (FRAMES, 2, 7)).tolist(),
            "annotations": random.integers(0, 4, FRAMES).tolist(),
            "metadata": {"annotator-id": 0, "vocab": dict(VOCAB)},
        }

    return {
        "annotator-id_0": {
            f"task1/train/mouse{n:03d}_task1_annotator1": sequence() for n in range(2)
        }
    }


# ---- the reference: json, loops, nothing clever --------------------------------------------------


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key twice")
    return dict(pairs)


def refuse_constant(token: str) -> None:
    raise ValueError(token)


def parsed(data: bytes) -> Any:
    return json.loads(
        data.decode("utf-8-sig"), object_pairs_hook=unique, parse_constant=refuse_constant
    )


def checked(value: Any, shape: tuple[int, ...], largest: float) -> Any:
    """The nested lists as they are, if they have that shape (-1: any length) and hold finite
    numbers."""
    if not shape:
        if type(value) not in (int, float) or not abs(value) <= largest:
            raise ValueError(f"{value} is no number in range")
        return value
    if type(value) is not list or (shape[0] >= 0 and len(value) != shape[0]):
        raise ValueError("wrong form")
    return [checked(item, shape[1:], largest) for item in value]


def reference(data: bytes) -> dict[str, tuple[np.ndarray, np.ndarray, list[str]]]:
    found = {}
    for group, sequences in parsed(data).items():
        for name, held in sequences.items():
            if not (group.startswith("annotator-id_") and group[13:].isdigit()) or name in found:
                raise ValueError("group or name")
            keypoints = np.array(checked(held["keypoints"], (-1, 2, 2, 7), 1e5), np.float64)
            scores = np.array(checked(held["scores"], (-1, 2, 7), 2), np.float64)
            vocabulary = held["metadata"]["vocab"]
            if (
                sorted(vocabulary) != CLASSES
                or len(set(vocabulary.values())) < 4
                or {type(n) for n in vocabulary.values()} != {int}
            ):
                raise ValueError("vocabulary")
            names = {number: name for name, number in vocabulary.items()}
            labels = [names[number] for number in checked(held["annotations"], (-1,), 1e9)]
            if not len(keypoints) == len(scores) == len(labels) > 0:
                raise ValueError("frames")
            position = np.moveaxis(keypoints, 2, 3).astype(np.float32)
            confidence = np.clip(scores.astype(np.float32), 0, 1)
            position[confidence == 0] = np.nan
            found[name] = position, confidence, labels
    if not found:
        raise ValueError("nothing in it")
    return found


# ---- mutations: (random, content) -> files, and whether they must be read ------------------------


def text(content: Any, **how: Any) -> bytes:
    return json.dumps(content, **how).encode()


def one_file(data: bytes) -> Files:
    return {f"{NAME}.json": data}


def untouched(random: np.random.Generator, content: Any) -> tuple[Files, bool]:
    how: dict[str, Any] = [
        {},
        {"indent": int(random.integers(0, 5))},
        {"separators": (",", ":")},
        {"indent": "\t"},
    ][random.integers(4)]
    return one_file(text(content, **how)), True


def shuffled_keys(random: np.random.Generator, content: Any) -> tuple[Files, bool]:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            keys = list(value)
            return {keys[i]: shuffled(value[keys[i]]) for i in random.permutation(len(keys))}
        return value

    return one_file(text(shuffled(content))), True


def byte_order_mark(random: np.random.Generator, content: Any) -> tuple[Files, bool]:
    return one_file(text(content).decode().encode("utf-8-sig")), True


def truncated(random: np.random.Generator, content: Any) -> tuple[Files, bool]:
    data = text(content)
    return one_file(data[: random.integers(len(data))]), False


def bytes_changed(random: np.random.Generator, content: Any) -> tuple[Files, bool]:
    data = bytearray(text(content))
    for _ in range(random.integers(1, 4)):
        data[random.integers(len(data))] = random.choice(
            [random.integers(256), *b'[]{},:" 0123456789.eE+-\\\n\0']
        )
    return one_file(bytes(data)), False


def bytes_inserted_or_removed(random: np.random.Generator, content: Any) -> tuple[Files, bool]:
    data = text(content)
    at = int(random.integers(len(data)))
    put = bytes(random.choice(list(b'[]{},:" 1.e-'), random.integers(0, 3)).astype(np.uint8))
    return one_file(data[:at] + put + data[at + int(random.integers(0, 3)) :]), False


def punctuation_changed(random: np.random.Generator, content: Any) -> tuple[Files, bool]:
    """Next to a name in quotes, where the reader walks on its own feet."""
    data = bytearray(text(content))
    quotes = [at for at, byte in enumerate(data) if byte == ord('"')]
    near = int(random.choice(quotes))
    places = [
        at for at in range(max(0, near - 6), min(len(data), near + 6)) if data[at] in b'[]{},:"'
    ]
    data[random.choice(places)] = random.choice(list(b'[]{},:;;;" '))
    return one_file(bytes(data)), False


def more_at_the_end(random: np.random.Generator, content: Any) -> tuple[Files, bool]:
    tail = [b"}", b"]", b"{}", b",", b"x", b"\0", b" \n null", b"\n" + text(content), b'"a"'][
        random.integers(9)
    ]
    return one_file(text(content) + tail), False


def slices_moved(random: np.random.Generator, content: Any) -> tuple[Files, bool]:
    data = text(content)
    a, b, c, d = sorted(int(n) for n in random.integers(0, len(data), 4))
    return one_file(data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]), False


def some_array(random: np.random.Generator, content: Any) -> tuple[list[Any], dict[str, Any], str]:
    """A list somewhere inside an array of a sequence."""
    sequence = list(content["annotator-id_0"].values())[random.integers(2)]
    key = str(random.choice(["keypoints", "scores", "annotations"]))
    held = sequence[key]
    while isinstance(held[0], list) and random.random() < 0.7:
        held = held[random.integers(len(held))]
    return held, sequence, key


def counts_changed(random: np.random.Generator, content: Any) -> tuple[Files, bool]:
    held, _, _ = some_array(random, content)
    if random.random() < 0.5:
        del held[random.integers(len(held)) :: int(random.integers(1, 9))]
    else:
        held.insert(int(random.integers(len(held))), held[0])
    return one_file(text(content)), False


TOKENS = [
    *(
        "NaN",
        "Infinity",
        "-Infinity",
        "nan",
        "null",
        "None",
        "true",
        "false",
        "{}",
        "[]",
        "[1]",
        '"1"',
        "'1'",
        "",
        "@",
    ),
    *(
        "1e999",
        "-1e999",
        "1e300",
        "1e39",
        "-1e30",
        "100001",
        "-100000",
        "12345678901234567890",
        "-9223372036854775808",
        "1e-400",
    ),
    *(
        "01",
        "+1",
        ".5",
        "1.",
        "1.e5",
        "0x10",
        "1e",
        "1e+",
        "-",
        "--1",
        "1_000",
        "\u0661",
        "1\u00a0",
        "\x0b1",
        "/**/1",
        "1//",
    ),
    *(
        "-0",
        "-0.0",
        "1E2",
        "0.1e1",
        "1",
        "2",
        "3",
        "1,2",
        "1 2",
        "]",
        "[",
        "1][",
        "[1]]",
        "1]",
        "[1",
    ),
    *("9" * 400, "1" + "0" * 30, "0." + "3" * 500, "1" * 20),
]


def token_put(random: np.random.Generator, content: Any) -> tuple[Files, bool]:
    held, _, _ = some_array(random, content)
    held[random.integers(len(held))] = "@"
    return one_file(text(content).replace(b'"@"', str(random.choice(TOKENS)).encode())), False


def foreign_encoding(random: np.random.Generator, content: Any) -> tuple[Files, bool]:
    content["annotator-id_0"]["souris \u00e9"] = next(iter(content["annotator-id_0"].values()))
    encoding = str(
        random.choice(["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp037", "utf-7"])
    )
    return one_file(json.dumps(content, ensure_ascii=False).encode(encoding)), False


def hardly_a_file(random: np.random.Generator, content: Any) -> tuple[Files, bool]:
    candidates = [
        b"",
        b" ",
        b"\n" * 5000,
        b"null",
        b"{}",
        b"[]",
        b'{"a"',
        b"\0" * 300,
        b"}",
        b'"',
        b"{" * 3000,
        b"[" * 3000,
        b"<html>",
        b"1",
    ]
    candidates += [
        b'{"a":' * 2000,
        b'{"annotator-id_0": null}',
        b'{"annotator-id_0": {"a": []}}',
        random.bytes(500),
        b'{"annotator-id_0": {"a": {}}}',
    ]
    return one_file(candidates[random.integers(len(candidates))]), False


def garbage(random: np.random.Generator, depth: int = 0) -> Any:
    kind = random.integers(8 if depth < 5 else 5)
    if kind >= 5:
        items = [garbage(random, depth + 1) for _ in range(random.integers(0, 5))]
        return items if kind > 5 else {str(n): item for n, item in enumerate(items)}
    return [None, 1, "]}", -2.5, True][kind]


def garbage_put(random: np.random.Generator, content: Any) -> tuple[Files, bool]:
    group = content["annotator-id_0"]
    sequence = next(iter(group.values()))
    where = [content, group, sequence, sequence["metadata"], sequence["metadata"]["vocab"]][
        random.integers(5)
    ]
    key = str(random.choice([*where, "new"]))
    where[key] = garbage(random)
    return one_file(text(content)), False


def keys_changed(random: np.random.Generator, content: Any) -> tuple[Files, bool]:
    group = content["annotator-id_0"]
    sequence = next(iter(group.values()))
    where = [content, group, sequence, sequence["metadata"], sequence["metadata"]["vocab"]][
        random.integers(5)
    ]
    key = str(random.choice(list(where)))
    change = random.integers(3)
    if change == 0:
        del where[key]
    elif change == 1:
        where[f"{key}x"] = where.pop(key)
    else:  # the same key twice
        return one_file(
            text(content).replace(f'"{key}": '.encode(), f'"{key}": 1, "{key}": '.encode(), 1)
        ), False
    return one_file(text(content)), False


def zipped(members: dict[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> Files:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return {"task1_classic_classification.zip": sink.getvalue()}


def archive(random: np.random.Generator, content: Any) -> tuple[Files, bool]:
    return zipped(
        {f"task1/{NAME}.json": text(content)},
        method=[zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED][random.integers(2)],
    ), True


def archive_damaged(random: np.random.Generator, content: Any) -> tuple[Files, bool]:
    ((name, data),) = archive(random, content)[0].items()
    damaged = bytearray(data)
    if random.random() < 0.3:
        del damaged[random.integers(len(damaged)) :]
    for _ in range(random.integers(0, 4)):
        if damaged:
            damaged[random.integers(len(damaged))] = random.integers(256)
    return {name: bytes(damaged)}, False


def archive_hostile(random: np.random.Generator, content: Any) -> tuple[Files, bool]:
    good, kind = text(content), random.integers(5)
    if kind == 0:
        outside = str(random.choice(["../x.json", "/x.json", "a/../../x", "..\\x", "C:/x"]))
        return zipped({f"{NAME}.json": good, outside: b"x"}), False
    if kind == 1:  # says that it is small
        size = len(good + b" " * 300_000)
        files = zipped({f"{NAME}.json": good + b" " * 300_000})
        return {
            name: data.replace(size.to_bytes(4, "little"), (random.integers(1, 999)).tobytes()[:4])
            for name, data in files.items()
        }, False
    if kind == 2:
        return zipped({f"{NAME}.json": good[:500] + b" " * 2**25}), False
    if kind == 3:
        return zipped(
            {f"{NAME}.json": good}, method=[zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2][random.integers(2)]
        ), False
    return zipped({f"{NAME}.json": bytes_changed(random, content)[0][f"{NAME}.json"]}), False


def npy(content: Any) -> bytes:
    arrays = {
        group: {
            name: {k: np.array(v) if isinstance(v, list) else v for k, v in held.items()}
            for name, held in sequences.items()
        }
        for group, sequences in content.items()
    }
    sink = io.BytesIO()
    np.save(sink, arrays, allow_pickle=True)
    return sink.getvalue()


def npy_file(random: np.random.Generator, content: Any) -> tuple[Files, bool]:
    return {f"{NAME}.npy": npy(content)}, True


def npy_damaged(random: np.random.Generator, content: Any) -> tuple[Files, bool]:
    data = bytearray(npy(content))
    if random.random() < 0.3:
        del data[random.integers(len(data)) :]
    for _ in range(random.integers(1, 6)):
        if len(data) > 128:  # mostly in the pickle's instructions, which lie at the array's edges
            data[random.integers(128, min(len(data), 700))] = random.choice(
                [random.integers(256), *b"(.RbcR\x93\x85\x86\x87}]aeusjhr\x8c\x8e\x94"]
            )
    return {f"{NAME}.npy": bytes(data)}, False


def npy_hostile(random: np.random.Generator, content: Any) -> tuple[Files, bool]:
    bodies = [
        b"cos\nsystem\n(S'touch it-ran'\ntR.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0ctouch it-ran\x85R.",
        b"cbuiltins\nopen\n(Vit-ran\nVw\ntR.",
        b"\x80\x04r\xff\xff\xff\xff.",
        b"\x80\x04]" + b"]a" * 5000 + b".",
        b"\x80\x04)" + b"0)" * 100 + b".",
        b"\x80\x04)" + b"\x85" * 50_000 + b"}\x8c\x01a\x94s.",
        b"(" * 5000 + b".",
        b"\x80\x04}" + b"\x94h\x00" * 100 + b".",
        b"cnumpy\nndarray\n(tR.",
        b"cnumpy.core.multiarray\n_reconstruct\n)R.",
        b"cnumpy\ndtype\n(VO8\ntR}b.",
        pickle.dumps({1: 2}),
        pickle.dumps([]),
        pickle.dumps({"a": {"b": {"c": object}}}),
    ]
    return {f"{NAME}.npy": npy({})[:128] + bodies[random.integers(len(bodies))]}, False


def features_damaged(random: np.random.Generator, content: Any) -> tuple[Files, bool]:
    features = {
        "annotator-id_0": {
            name: {"features": random.normal(size=(FRAMES, 32)).tolist()}
            for name in content["annotator-id_0"]
        }
    }
    data = bytearray(text(features))
    if random.random() < 0.3:
        del data[random.integers(len(data)) :]
    for _ in range(random.integers(0, 3)):
        if data:
            data[random.integers(len(data))] = random.choice(list(b'[]{},:" 0123456789.eE+-\\\xff'))
    return one_file(text(content)) | {"taskprog_features_task1_train.json": bytes(data)}, False


MUTATIONS: list[Callable[[np.random.Generator, Any], tuple[Files, bool]]] = [
    untouched,
    shuffled_keys,
    byte_order_mark,
    truncated,
    bytes_changed,
    bytes_inserted_or_removed,
    punctuation_changed,
    more_at_the_end,
    slices_moved,
    counts_changed,
    token_put,
    token_put,
    foreign_encoding,
    hardly_a_file,
    garbage_put,
    keys_changed,
    archive,
    archive_damaged,
    archive_hostile,
    npy_file,
    npy_damaged,
    npy_hostile,
    features_damaged,
]


# ---- the property --------------------------------------------------------------------------------


def attempt(folder: Path) -> tuple[list[tuple[Video, list[Labels]]] | None, str]:
    started = time.perf_counter()
    try:
        return list(read(find_sources(folder))), ""
    except BadInput as error:
        return None, str(error)
    finally:
        assert time.perf_counter() - started < 20


def outcome(folder: Path, number: int) -> bool:
    """Makes the mutation of that number, reads it, and returns whether it was read."""
    random = np.random.default_rng(number)
    content = base(random)
    good = text(content)
    files, must_be_read = MUTATIONS[number % len(MUTATIONS)](random, content)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    found, refusal = attempt(folder)
    assert not list(folder.rglob("*it-ran*"))
    if found is None:
        assert not must_be_read, f"refused although it is good: {refusal}"
        assert any(name in refusal for name in files), (
            f"the message does not name the file: {refusal}"
        )
        return False
    (name, data) = next(iter(files.items()))
    if name.endswith(".npy"):
        if must_be_read:
            compared(found, reference(good))
        # a changed byte inside an array gives other numbers, and no reference may unpickle the file
        return True
    if name.endswith(".zip"):
        with zipfile.ZipFile(folder / name) as archive:
            data = archive.read(archive.namelist()[0])
    compared(found, reference(data))
    if "taskprog_features_task1_train.json" in files:
        wanted = parsed(files["taskprog_features_task1_train.json"])["annotator-id_0"]
        for video, _ in found:
            if FEATURES in video.features:
                expected = checked(wanted[video.name]["features"], (FRAMES, 32), 3e38)
                np.testing.assert_array_equal(
                    video.features[FEATURES], np.array(expected, np.float32)
                )
            else:
                assert video.name not in wanted
    return True


def compared(found: Any, wanted: dict[str, tuple[np.ndarray, np.ndarray, list[str]]]) -> None:
    assert [video.name for video, _ in found] == list(wanted)
    for video, (labels,) in found:
        position, confidence, names = wanted[video.name]
        np.testing.assert_array_equal(video.position_TMKX, position)
        np.testing.assert_array_equal(video.confidence_TMK, confidence)
        assert [labels.classes[n] for n in labels.frames] == names


@pytest.mark.parametrize("batch", range(-(-COUNT // BATCH)))
def test_every_damaged_file_is_read_right_or_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.chdir(tmp_path)
    if batch % 2:  # damage at every distance from a cut
        monkeypatch.setattr(json_stream, "BLOCK_BYTES", 97 + batch)
        monkeypatch.setattr(json_stream, "_MAX_ROW_BYTES", 5_000)
        monkeypatch.setattr(json_stream, "_MAX_SPACE_BYTES", 5_000)
    done = {True: 0, False: 0}
    for number in range(batch * BATCH, min(COUNT, (batch + 1) * BATCH)):
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            done[outcome(folder, number)] += 1
        except Exception as error:
            raise AssertionError(
                f"mutation {number}, {MUTATIONS[number % len(MUTATIONS)].__name__}: {error!r}"
            ) from error
        for path in folder.iterdir():
            path.unlink()
    assert done[False] > done[True] > 0  # the mutations do bite, and the good ones do pass
