"""Recordings by any name go through every command, each into files of its own that come back."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import test_predict
from hypothesis import given
from hypothesis import strategies as st
from test_predict import LABELS, MOUSE, ethogram, tracks, written

import pretrain.embed
import pretrain.prepare
from finetune.predict import main as predict
from finetune.report.tables import write_csv
from pretrain import run as pretraining
from pretrain.data.recording_file import recording_file
from pretrain.data.store import Store
from pretrain.errors import exit_status
from pretrain.readers.find_labels import read_label_files

run = test_predict.run
NAMES = [
    *(".", "..", "a/../b", "a/b", "/etc/passwd", "a//b", "a\\..\\b", "C:\\x", ".hidden"),
    *(
        "nul\0in it",
        "line\nbreak",
        "%2E",
        "$x$ $",
        "小鼠の行動" * 20,
        "=1+1",
        "-cmd",
        "m1.csv/2",
        "m1",
    ),
    *("x" * 300, "x" * 301, "鼠" * 100),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Of one recording by each name, prepared from track files."""
    folder = tmp_path_factory.mktemp("names")
    for number, name in enumerate(NAMES):
        tracks(folder / "tracks", f"r{number}", frames=70 + number, seed=number, name=name)
    words = ["tracks", "--poses", str(folder / "tracks"), "--fps", "30"]
    pretrain.prepare.main([*words, "--out", str(folder / "store")])
    return Store(folder / "store")


def frames(store: Store) -> dict[str, int]:
    return {video["name"]: video["frames"] for video in store.videos}


def inside(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_embeddings_and_exports_come_back(store: Store, run: Path, tmp_path: Path) -> None:
    assert set(frames(store)) == set(NAMES)
    words = ["--encoder", str(run / "model" / "seed-42"), "--data", store.uri]
    pretrain.embed.main([*words, "--out", str(tmp_path / "embedded")])
    assert len(inside(tmp_path / "embedded")) == len(NAMES)
    pretrain.prepare.main(["export", store.uri, "--out", str(tmp_path / "exported")])
    words = ["tracks", "--poses", str(tmp_path / "exported" / "tracks"), "--fps", "30"]
    words += ["--features", f"mine={tmp_path / 'embedded'}", "--out", str(tmp_path / "again")]
    pretrain.prepare.main(words)
    again = Store(tmp_path / "again")
    assert frames(again) == frames(store)
    for name in NAMES:
        assert np.isfinite(again.read_video(name, features=["mine"]).features["mine"]).all(), name


def test_predictions_are_one_file_each_and_nothing_leads_elsewhere(
    store: Store, run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "er" / "out"
    words = ["--model", str(run), "--poses", store.uri, "--labels-of", "task", "--out", str(out)]
    predict([*words, "--format", "csv", "boris", "annot", "nwb"])
    assert {path.relative_to(tmp_path).parts[0] for path in inside(tmp_path)} == {"deep"}
    for folder in ("csv", "boris", "annot", "nwb", "ethograms"):
        assert len(inside(out / folder)) == len(NAMES)
    for name, count in frames(store).items():
        with recording_file(out / "csv", name, ".csv").open() as file:
            assert len(list(csv.reader(file))) == count + 1, name
    with (out / "summary.csv").open() as file:
        shown = {row["video"] for row in csv.DictReader(file)}
    assert len(shown) == len(NAMES)
    assert {"'=1+1", "'-cmd", "m1"} <= shown


@pytest.mark.parametrize("out", ["file/x", "file"])
@pytest.mark.parametrize("command", ["embed", "predict", "export", "tracks", "pretrain"])
def test_a_place_that_cannot_be_written_is_one_sentence(
    command: str,
    out: str,
    store: Store,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").touch()
    poses = ["--poses", str(tracks(tmp_path / "tracks")), "--fps", "30"]
    words = {
        "embed": ["--encoder", str(run / "model" / "seed-42"), "--data", store.uri],
        "predict": ["--model", str(run), *poses],
        "export": ["export", store.uri],
        "tracks": ["tracks", *poses],
        "pretrain": ["--data", store.uri],
    }[command]
    main = {"embed": pretrain.embed.main, "predict": predict, "pretrain": pretraining.main}
    does = main.get(command, pretrain.prepare.main)
    assert exit_status(lambda: does([*words, "--out", str(tmp_path / out)])) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / "file") in error
    assert "Traceback" not in error


def test_a_full_disk_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(lambda: print(Path("/dev/full").write_text("x"))) == 1
    said = "the run failed: [Errno 28] No space left on device: make room there"
    assert capsys.readouterr().err.strip() == said


def test_storage_is_tried_before_anything_starts(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    words = ["--data", store.uri, "--out", str(tmp_path / "run")]
    words += ["--set", f"storage={tmp_path / 'file' / 'x'}"]
    assert exit_status(lambda: pretraining.main(words)) == 2
    assert "scale key storage: cannot write to" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("form", LABELS)
def test_behaviours_that_look_like_formulas_come_back(form: str, tmp_path: Path) -> None:
    problem = MOUSE.__class__(**(vars(MOUSE) | {"classes": ("=HYPERLINK(1)", "@sniff", "other")}))
    path = written(form, ethogram(problem), tmp_path)
    if path.suffix == ".csv":
        with path.open() as file:
            cells = {cell for row in csv.reader(file) for cell in row}
        assert not [cell for cell in cells if cell.startswith(("=", "@"))]
        assert any("=HYPERLINK(1)" in cell for cell in cells)
    (labels,), _ = read_label_files(tmp_path, {"m1": 280}, 30.0)
    assert set(labels.classes) >= {"=HYPERLINK(1)", "@sniff"}


def test_numbers_stay_numbers(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [{"video": "=x", "score": -0.5}])
    assert (tmp_path / "a.csv").read_text().split() == ["video,score", "'=x,-0.5"]


def test_a_name_of_bytes_that_are_no_text_is_read(tmp_path: Path) -> None:
    path = tracks(tmp_path / "tracks", "m1")
    os.rename(path, os.fsencode(tmp_path / "tracks") + b"/m\xff.npz")
    words = ["tracks", "--poses", str(tmp_path / "tracks"), "--fps", "30"]
    words += ["--out", str(tmp_path / "store")]
    assert exit_status(lambda: pretrain.prepare.main(words)) == 0
    assert list(frames(Store(tmp_path / "store"))) == ["m?"]


@given(st.lists(st.text(max_size=300), min_size=2, max_size=2, unique=True))
def test_two_names_are_two_files_below_the_folder(names: list[str]) -> None:
    folder = Path("/out")
    files = [recording_file(folder, name, ".csv") for name in names]
    assert files[0] != files[1]
    assert files[0] not in files[1].parents
    for file in files:
        assert Path(os.path.normpath(file)).is_relative_to(folder)
        assert max(len(os.fsencode(part)) for part in file.parts) <= 255
