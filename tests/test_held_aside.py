"""Which recordings of a new store are kept aside for test: a share, none, or those of a list."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pretrain import prepare
from pretrain.data.store import Store
from pretrain.errors import BadInput
from pretrain.readers.annotations import labels_by_video

NAMES = ("m1", "m2", "m3", "m4", "m5")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Tracks and labels of five recordings."""
    for kind in ("poses", "labels"):
        (tmp_path / kind).mkdir()
    for name in NAMES:
        position = np.full((30, 1, 2, 2), 5, np.float32) + np.arange(30)[:, None, None, None]
        np.savez(tmp_path / f"poses/{name}.npz", position=position, keypoints=("nose", "tail"))
        classes = ["rest", "run"]
        labels = np.arange(30) // 10 % 2
        np.savez(tmp_path / f"labels/{name}.npz", labels=labels, classes=classes, task="move")
    return tmp_path


def kept_aside(folder: Path, *words: str) -> set[str]:
    out = folder / f"store{len(list(folder.iterdir()))}"
    options = ["--poses", str(folder / "poses"), "--labels", str(folder / "labels"), "--fps", "30"]
    prepare.main(["tracks", *options, "--out", str(out), *words])
    found = labels_by_video(Store(out))
    assert set(found) == set(NAMES)
    return {name for name, labels in found.items() if labels[0].split == "test"}


def test_a_share_of_0_keeps_none_aside(folder: Path) -> None:
    assert kept_aside(folder, "--test-share", "0") == set()
    assert len(kept_aside(folder)) == 2


def test_a_list_of_recordings_is_kept_aside(folder: Path) -> None:
    listed = folder / "test.txt"
    listed.write_text("m2\n\n m5 \n")
    assert kept_aside(folder, "--test-videos", str(listed)) == {"m2", "m5"}


def test_a_list_that_names_unknown_recordings_is_refused(folder: Path) -> None:
    listed = folder / "test.txt"
    listed.write_text("m2\nm9\n")
    with pytest.raises(BadInput, match=r"lists m9, of which there are no labels; .*m1, m2, m3"):
        kept_aside(folder, "--test-videos", str(listed))
    with pytest.raises(BadInput, match="cannot be read"):
        kept_aside(folder, "--test-videos", str(folder / "none.txt"))
    with pytest.raises(SystemExit):  # one or the other
        kept_aside(folder, "--test-videos", str(listed), "--test-share", "0")
