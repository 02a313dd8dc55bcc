"""Test videos that nothing is learned from, and scores that say whether that was so."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from worlds import wander_store

from finetune.fit.open_encoder import open_encoder, seen_in_words
from pretrain import embed
from pretrain import run as pretraining
from pretrain.data.external_features import append_features
from pretrain.data.leave_out import fingerprints, joined
from pretrain.data.sample import sample
from pretrain.data.store import Store
from pretrain.data.store_writer import StoreWriter
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
    assert plan.frames == 300 + 64 + 700
    whole = BatchPlan.from_chunks(Store(place).chunks, window=50, batch=4, seed=0)
    assert whole.frames == 2564
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


def encoder_of(folder: Path, store: Store, made_by: dict[str, object]) -> str:
    embedder, _ = open_encoder("none", store, recipe="quickstart", seed=0)
    save_encoder(folder, embedder, made_by=made_by)
    return str(folder)


def learned_from(store: Store) -> list[str]:
    return joined(fingerprints(store, store.learned_videos))


def share(
    encoder: str,
    store: Path,
    *,
    extra: tuple[str, ...] = (),
    test: tuple[str, ...] = ("video 1", "video 2"),
) -> float | None:
    _, about = open_encoder(
        encoder,
        Store(store),
        recipe="quickstart",
        seed=0,
        extra_features=extra,
        test=test,
    )
    seen: float | None = about["saw_test"]
    return seen


@pytest.mark.parametrize(
    ("left", "seen"), [((), 1.0), (("video 1",), 0.5), (("video 1", "video 2"), 0.0)]
)
def test_an_encoder_says_which_test_videos_it_saw(
    place: Path, tmp_path: Path, left: tuple[str, ...], seen: float
) -> None:
    store = Store(place, leave_out=left)
    encoder = encoder_of(tmp_path / "encoder", store, {"learned_from": learned_from(store)})
    assert share(encoder, place) == seen
    assert ("transductive" in seen_in_words(seen)) == (seen > 0)
    assert share("none", place) == share("handmade", place) == 0.0


def test_an_encoder_without_the_record(place: Path, tmp_path: Path) -> None:
    """Earlier versions learned from the whole store; of another store nobody can tell."""
    store = Store(place)
    assert share(encoder_of(tmp_path / "a", store, {"data": store.fingerprint}), place) == 1.0
    assert share(encoder_of(tmp_path / "b", store, {"data": "another"}), place) is None
    other_names = {"data": store.fingerprint, "videos": ["0123456789ab"]}
    assert share(encoder_of(tmp_path / "c", store, other_names), place) is None
    assert "may be transductive" in seen_in_words(None)


def test_videos_are_known_again_in_other_stores(place: Path, tmp_path: Path) -> None:
    store = Store(place)
    encoder = encoder_of(tmp_path / "encoder", store, {"learned_from": learned_from(store)})
    videos = [store.read_video(f"video {n}") for n in range(4)]
    shifted = replace(videos[2], position_TMKX=videos[2].position_TMKX + np.float32(1))
    with StoreWriter(tmp_path / "other", store.schema, origin="") as writer:
        writer.add(replace(videos[1], name="called otherwise"))
        writer.add(shifted)
        writer.add(replace(videos[3], name="of one file", source_sha256="ab"))
    with StoreWriter(tmp_path / "again", store.schema, origin="") as writer:
        writer.add(replace(shifted, name="of one file", source_sha256="ab"))
    assert share(encoder, tmp_path / "other", test=("called otherwise",)) == 1.0
    assert share(encoder, tmp_path / "other", test=("video 2",)) == 0.0
    other = Store(tmp_path / "other")
    encoder = encoder_of(tmp_path / "third", other, {"learned_from": learned_from(other)})
    assert share(encoder, tmp_path / "again", test=("of one file",)) == 1.0


def test_features_that_an_encoder_made_carry_what_it_saw(place: Path, tmp_path: Path) -> None:
    """Adding them to the store hides nothing either."""
    stores = tmp_path / "store"
    shutil.copytree(place, stores)
    for name, left in (("all", ()), ("apart", ("video 1", "video 2")), ("half", ("video 1",))):
        store = Store(stores, leave_out=left)
        encoder = encoder_of(tmp_path / name, store, {"learned_from": learned_from(store)})
        words = ["--encoder", encoder, "--data", str(stores), "--as", name, "--components", "2"]
        embed.main(words)
    store = Store(stores)
    append_features(store, "strange", iter([("video 1", np.zeros((1500, 2), np.float32))]))
    assert share(str(tmp_path / "all"), stores) == 1.0
    assert share(str(tmp_path / "apart"), stores) == 0.0
    assert share("none", stores, extra=("all",)) == 1.0
    assert share("none", stores, extra=("apart",)) == 0.0
    assert share(str(tmp_path / "apart"), stores, extra=("half",)) == 0.5
    assert share("none", stores, extra=("strange",)) is None
    assert share("none", stores, extra=("strange", "half")) == 0.5
    with StoreWriter(stores, store.schema, origin="", append=True) as writer:
        writer.add(replace(store.read_video("video 0"), name="new"))
    assert share("none", stores, extra=("half",)) == 0.5
