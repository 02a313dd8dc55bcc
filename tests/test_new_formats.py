"""A format is one file: the example in CONTRIBUTING.md, put into the folder, is found, read, named
and asked for an example."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from reader_files import LABEL_FORMATS, LABELS, TRACK_FORMATS, TRACKS, cases, example

from pretrain import prepare
from pretrain.errors import BadInput
from pretrain.readers import detect
from pretrain.readers.find_labels import read_label_files
from pretrain.readers.find_tracks import find_tracks, read_tracks
from pretrain.readers.recording_names import recording_stem

CONTRIBUTING = Path(__file__).parent.parent / "CONTRIBUTING.md"
AUDACITY = "0.2\t0.5\tsniff\n\\\t100.0\t900.0\n0.4\t0.6\tgroom\n0.75\t0.75\tjump\n"
TRACKS_IN_TEN_LINES = '''"""Points, a line a frame."""
import numpy as np
from pretrain.readers.track_formats import AbstractTrackFormat
from pretrain.readers.tracks import Tracks, clean_points, no_frames

class Points(AbstractTrackFormat):
    description = "one point, a line a frame"
    suffixes = (".xy",)
    name_endings = ("mytracker",)

    def recognise(self, file):
        return file.lines[:1] == ["x y"]

    def read(self, path, *, names_only=False):
        position, confidence = no_frames(1, 1, 2)
        if not names_only:
            position = np.loadtxt(path, skiprows=1, ndmin=2)[:, None, None]
            position, confidence = clean_points(
                position, np.ones(position.shape[:3]), about=str(path), where=lambda *at: "line"
            )
        return Tracks(
            name="m1", animals=("fly",), keypoints=("centre",),
            position_TMKX=position, confidence_TMK=confidence,
        )
'''


def add_to_folder(
    package: str, name: str, source: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Puts a file into a package's folder, in all but the place where it lies."""
    folder.mkdir()
    (folder / f"{name}.py").write_text(source)
    module = importlib.import_module(package)
    folders = [*module.__path__, str(folder)]
    monkeypatch.setattr(module, "__path__", folders)
    monkeypatch.setattr(module.__spec__, "submodule_search_locations", folders)
    detect._formats.cache_clear()


@pytest.fixture(autouse=True)
def folders_as_they_were() -> Iterator[None]:
    yield
    detect._formats.cache_clear()
    for name in (f"{LABEL_FORMATS}.audacity", f"{TRACK_FORMATS}.points"):
        sys.modules.pop(name, None)


def example_in_contributing() -> str:
    text = CONTRIBUTING.read_text(encoding="utf-8")
    section = text.split("### A new format of labels in 40 lines")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert "`pretrain/readers/label_formats/audacity.py`" in section
    return str(code)


def test_the_example_in_contributing_is_a_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = tmp_path / "labels"
    labels.mkdir()
    path = labels / "m1_audacity.txt"
    path.write_text(AUDACITY)
    with pytest.raises(BadInput, match="found 0 label files"):
        read_label_files(labels, {"m2": 9}, 10.0)
    add_to_folder(
        LABEL_FORMATS, "audacity", example_in_contributing(), tmp_path / "new", monkeypatch
    )
    (found,), _ = read_label_files(labels, {"m1": 9}, 10.0)
    assert (found.video, found.task, found.classes) == (
        "m1",
        "behaviors",
        ("sniff", "groom", "jump"),
    )
    assert found.frames.T.tolist() == [
        [0, 0, 1, 1, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 1, 0],
    ]
    path.write_text(AUDACITY.replace("0.5\tsniff", "0.1\tsniff"))
    with pytest.raises(BadInput, match=r"m1_audacity\.txt, line 1: stops at 0\.1 s, before"):
        read_label_files(labels, {"m1": 9}, 10.0)
    with pytest.raises(SystemExit):
        prepare.main(["tracks", "--help"])
    assert "Audacity label track" in re.sub(r"\s+", " ", capsys.readouterr().out)
    (tmp_path / "none").mkdir()
    with pytest.raises(BadInput, match="Audacity label track"):
        read_label_files(tmp_path / "none", {"m1": 9}, 10.0)


def test_the_example_in_contributing_is_short_and_clean(tmp_path: Path) -> None:
    code = example_in_contributing()
    assert len([line for line in code.splitlines() if line.strip()]) <= 40
    pytest.importorskip("ruff", reason="ruff is not installed")
    path = tmp_path / "audacity.py"
    path.write_text(code)
    for words in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *words, "--no-cache", "--config"]
        done = subprocess.run(
            [*command, str(CONTRIBUTING.parent / "pyproject.toml"), str(path)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_format_of_tracks_is_one_file_with_its_own_extension(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracks = tmp_path / "tracks"
    tracks.mkdir()
    (tracks / "m1_mytracker.xy").write_text("x y\n1 2\n3 4\n")
    with pytest.raises(BadInput, match="found 0 track files"):
        find_tracks(str(tracks))
    add_to_folder(TRACK_FORMATS, "points", TRACKS_IN_TEN_LINES, tmp_path / "new", monkeypatch)
    (path,) = find_tracks(str(tracks))
    np.testing.assert_array_equal(read_tracks(path).position_TMKX[:, 0, 0], [[1, 2], [3, 4]])
    assert recording_stem("m1_mytracker.xy") == recording_stem("m1.xy") == "m1"
    assert recording_stem("m1.mp4_mytracker.xy") == "m1"


@pytest.mark.parametrize(
    ("package", "examples", "name"),
    [(LABEL_FORMATS, LABELS, "LABELS"), (TRACK_FORMATS, TRACKS, "TRACKS")],
)
def test_a_format_without_an_example_fails_with_what_to_add(
    package: str,
    examples: dict[str, dict[str, object]],
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert set(examples) == {form for form, _ in cases(package, examples)}
    add_to_folder(package, "points", TRACKS_IN_TEN_LINES, tmp_path / "new", monkeypatch)
    assert ("points", "") in cases(package, examples)
    with pytest.raises(
        pytest.fail.Exception, match=f"'points' has no example: add one to {name} in tests/reader"
    ):
        example(examples, "points", "")
