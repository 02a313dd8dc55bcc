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
