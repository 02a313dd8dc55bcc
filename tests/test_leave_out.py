"""Test videos that nothing is learned from, and scores that say whether that was so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from worlds import wander_store

from finetune.fit.open_encoder import open_encoder, seen_in_words
from pretrain import run as pretraining
from pretrain.data.leave_out import digests
from pretrain.data.sample import sample
from pretrain.data.store import Store
from pretrain.data.windows import BatchPlan
from pretrain.errors import BadInput, exit_status
from pretrain.train.checkpoint import save_encoder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("left") / "store"
    wander_store(folder, [300, 1500, 64, 700])
    return folder


def test_no_window_and_no_sample_holds_a_frame_of_what_is_left_out(place: Path) -> None:
    store = Store(place, leave_out=["video 1"])
    plan = BatchPlan.from_chunks(store.chunks, window=50, batch=4, seed=0)
    assert set(store.chunks.video[plan.chunk]) == {0, 2, 3}
    assert plan.frames.sum() == 300 + 64 + 700
    whole = BatchPlan.from_chunks(Store(place).chunks, window=50, batch=4, seed=0)
    assert whole.frames.sum() == 2564
    known = {
        tuple(np.nan_to_num(row, nan=-1.0).ravel()[:6].tolist())
        for name in ("video 0", "video 2", "video 3")
        for row in store.read_video(name).position_TMKX
    }
    position = sample(store, seed=0).position_BTMKX.nan_to_num(-1.0).flatten(0, 1).flatten(1)
    rows = [tuple(row[:6].tolist()) for row in position]
    padding = tuple([-1.0] * 6)
    assert {row for row in rows if row != padding} <= known


def test_names_are_checked(place: Path) -> None:
    with pytest.raises(BadInput, match="no video 'video 9'"):
        Store(place, leave_out=["video 9"])
    with pytest.raises(BadInput, match=r"no video of the store .* would remain"):
        Store(place, leave_out=[f"video {n}" for n in range(4)])


def test_the_command_takes_a_file_of_names(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "names.txt").write_text("video 1\n\nvideo 2\n")
    words = ["--data", str(place), "--dry-run", "--set", "window=100"]
    pretraining.main([*words, "--leave-out", str(tmp_path / "names.txt")])
    told = json.loads(capsys.readouterr().out)["arithmetic"]
    assert (told["videos"], told["frames"], told["windows_per_epoch"]) == (2, 1000, 3 + 7)
    assert exit_status(lambda: pretraining.main([*words, "--leave-out", "nowhere.txt"])) == 2
    assert "give test, or a file of names" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("left", "share"), [((), 1.0), (("video 1",), 0.5), (("video 1", "video 2"), 0.0)]
)
def test_an_encoder_tells_which_test_videos_it_saw(
    place: Path, tmp_path: Path, left: tuple[str, ...], share: float
) -> None:
    store = Store(place, leave_out=left)
    embedder, about = open_encoder("none", Store(place), recipe="quickstart", seed=0)
    assert about["saw_test"] == 0.0
    made_by = {"data": store.fingerprint, "videos": digests(store, store.learned_videos)}
    save_encoder(tmp_path / "encoder", embedder, made_by=made_by)
    _, about = open_encoder(
        str(tmp_path / "encoder"),
        Store(place),
        recipe="quickstart",
        seed=0,
        test=["video 1", "video 2"],
    )
    assert about["saw_test"] == share
    assert ("transductive" in seen_in_words(share)) == (share > 0)
    del made_by["videos"], made_by["data"]
    save_encoder(tmp_path / "older", embedder, made_by=made_by)
    _, about = open_encoder(
        str(tmp_path / "older"), Store(place), recipe="quickstart", seed=0, test=["video 1"]
    )
    assert about["saw_test"] is None
    assert "may be transductive" in seen_in_words(None)
