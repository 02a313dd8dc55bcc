"""Embeddings for other tools and for heads: every frame once, the same as the encoder gives, in
files and in the store."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from worlds import MICE, wander

import pretrain.embed
from pretrain.data import external_features
from pretrain.data.external_features import append_features
from pretrain.data.sample import sample
from pretrain.data.schema import Video
from pretrain.data.store import Store
from pretrain.data.store_writer import StoreWriter
from pretrain.encoders import Embedder, build_embedder
from pretrain.errors import BadInput
from pretrain.train.checkpoint import save_encoder
from pretrain.train.embed_video import PrincipalComponents, embed_video

VIDEOS = {"a b/1": 2_500, "c": 300, "d": 1_100}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    with StoreWriter(tmp_path / "store", MICE, origin="wandering animals") as writer:
        for seed, (name, frames) in enumerate(VIDEOS.items()):
            position, confidence = wander(MICE, frames, seed=seed)
            writer.add(Video(name=name, position_TMKX=position, confidence_TMK=confidence))
    return Store(tmp_path / "store")


@pytest.fixture
def encoder(tmp_path: Path, store: Store) -> tuple[str, Embedder]:
    torch.manual_seed(0)
    embedder = build_embedder(
        MICE,
        features={"groups": ["posture", "motion"]},
        encoder={"name": "tcn", "width": 8, "layers": 2},
    )
    embedder.features.fit(sample(store, seed=0))
    save_encoder(tmp_path / "run" / "encoder", embedder.eval(), made_by={})
    return str(tmp_path / "run"), embedder


def expected(embedder: Embedder, store: Store, name: str) -> np.ndarray:
    video = store.read_video(name)
    frames = {
        "position": torch.from_numpy(video.position_TMKX),
        "confidence": torch.from_numpy(video.confidence_TMK.astype(np.float32)),
    }
    return embed_video(embedder, frames).numpy()


def test_files_and_features_are_what_the_encoder_gives(
    store: Store, encoder: tuple[str, Embedder], tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in Path(store.uri).rglob("*.parquet")}
    pretrain.embed.main(
        [
            "--encoder",
            encoder[0],
            "--data",
            store.uri,
            "--out",
            str(tmp_path / "out"),
            "--as",
            "mine",
        ]
    )
    again = Store(store.uri)
    assert again.verify() == []
    assert again.feature("mine")["dim"] == 8
    assert {path: path.read_bytes() for path in before} == before, (
        "what the store held is not touched"
    )
    for name in VIDEOS:
        wanted = expected(encoder[1], store, name)
        assert np.array_equal(np.load(tmp_path / "out" / f"{name}.npy"), wanted)
        assert np.array_equal(again.read_video(name, features=["mine"]).features["mine"], wanted)


def test_videos_that_were_not_embedded_are_unknown(
    store: Store, encoder: tuple[str, Embedder]
) -> None:
    pretrain.embed.main(
        ["--encoder", encoder[0], "--data", store.uri, "--as", "mine", "--videos", "c*"]
    )
    again = Store(store.uri)
    assert np.isnan(again.read_video("d", features=["mine"]).features["mine"]).all()
    assert np.array_equal(
        again.read_video("c", features=["mine"]).features["mine"], expected(encoder[1], store, "c")
    )
    # a second kind beside the first
    pretrain.embed.main(
        ["--encoder", encoder[0], "--data", store.uri, "--as", "few", "--components", "3"]
    )
    again = Store(store.uri)
    assert {name: held["dim"] for name, held in again.features.items()} == {"mine": 8, "few": 3}
    assert again.verify() == []


def test_components_are_the_principal_ones_at_unit_spread() -> None:
    draw = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=draw))[0]
    z_ND = torch.randn(4_000, 4, generator=draw) * torch.tensor([9.0, 3.0, 0.1, 0.1]) @ turn + 5
    components = PrincipalComponents(4, 2)
    assert components.fit(z_ND) == pytest.approx(90 / 90.02, rel=1e-3)
    got = components(z_ND)
    torch.testing.assert_close(got.T.cov(), torch.eye(2), atol=1e-4, rtol=0)
    assert (got.mean(0).abs() < 1e-4).all()
    cosine = (z_ND - z_ND.mean(0)) @ turn[0] / 9
    assert abs(torch.corrcoef(torch.stack([cosine, got[:, 0]]))[0, 1]) > 0.99
    flat = PrincipalComponents(4, 3)
    flat.fit(torch.ones(2, 4))
    assert flat(torch.ones(1, 4)).isfinite().all(), "fewer frames than components"


def test_a_store_stays_as_it_was_when_adding_fails(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in Path(store.uri).rglob("*") if path.is_file()}
    values = {name: np.zeros((frames, 2), np.float32) for name, frames in VIDEOS.items()}

    def broken() -> object:
        yield "a b/1", values["a b/1"]
        raise RuntimeError("the power went")

    with pytest.raises(RuntimeError, match="the power went"):
        append_features(store, "mine", broken())  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=r"300, D"):
        append_features(store, "mine", iter([("c", np.zeros((299, 2), np.float32))]))
    with pytest.raises(BadInput, match="no video"):
        append_features(store, "mine", iter([]))
    monkeypatch.setattr(
        external_features,
        "replace_file",
        lambda *_: (_ for _ in ()).throw(OSError("the disk is full")),
    )
    with pytest.raises(OSError, match="the disk is full"):
        append_features(store, "mine", iter(values.items()))
    assert {
        path: path.read_bytes() for path in Path(store.uri).rglob("*") if path.is_file()
    } == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "--out FOLDER, or --as NAME"),
        (["--as=-x"], "letters, digits"),
        (["--as", "mine", "--components", "9"], "the embedding has 8"),
        (["--as", "mine", "--components", "0"], "at least 1"),
        (["--as", "mine", "--videos", "nobody"], "nobody: no video"),
        (["--out", "{store}"], "already holds something"),
    ],
)
def test_what_is_wrong_is_said(
    store: Store, encoder: tuple[str, Embedder], words: list[str], says: str
) -> None:
    words = [word.format(store=store.uri) for word in words]
    with pytest.raises(BadInput, match=says):
        pretrain.embed.main(["--encoder", encoder[0], "--data", store.uri, *words])
    assert json.loads((Path(store.uri) / "store.json").read_text()).get("features", {}) == {}


def test_what_is_refused_leaves_no_folder(
    store: Store, encoder: tuple[str, Embedder], tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match="the embedding has 8"):
        pretrain.embed.main(
            [
                "--encoder",
                encoder[0],
                "--data",
                store.uri,
                "--out",
                str(tmp_path / "out"),
                "--components",
                "9",
            ]
        )
    assert not (tmp_path / "out").exists()


def test_a_name_is_taken_once(store: Store, encoder: tuple[str, Embedder]) -> None:
    words = ["--encoder", encoder[0], "--data", store.uri, "--as", "mine"]
    pretrain.embed.main(words)
    with pytest.raises(BadInput, match="already has features 'mine'"):
        append_features(Store(store.uri), "mine", iter([]))
    with pytest.raises(BadInput, match="already has features 'mine'"):
        pretrain.embed.main(words)
