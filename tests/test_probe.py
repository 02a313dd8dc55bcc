"""What can be read from a frozen embedding, measured while it is learned."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from worlds import MICE, marked_store, wander_store

from pretrain.data.sample import sample
from pretrain.data.store import Store
from pretrain.encoders import Embedder, build_embedder
from pretrain.train.diagnostics.probe import MAX_TIMES, Probe, as_metrics, is_due, open_probe

LENGTHS = [2900, 2700, 2800, 3000]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    wander_store(made := tmp_path_factory.mktemp("probe") / "store", LENGTHS)
    return made


def opened(store: Store) -> Probe:
    probe = open_probe(store, seed=0)
    assert probe is not None
    return probe


def handmade(folder: Path, means: list[float]) -> Embedder:
    empty: dict[str, list[float]] = {"spreads": [], "extremes": [], "shifts": []}
    encoder = {"name": "handmade", "means": means, **empty}
    embedder = build_embedder(MICE, features={"groups": ["interaction"]}, encoder=encoder)
    embedder.features.fit(sample(Store(folder), seed=0))
    return embedder


class Noise(Embedder):
    """As good as no encoder."""

    def embed(self, windows: object) -> Tensor:
        z: Tensor = super().embed(windows)  # type: ignore[arg-type]
        return torch.rand(z.shape, generator=torch.Generator().manual_seed(z.shape[1]))


def test_features_are_read_from_themselves_and_not_from_noise(folder: Path) -> None:
    probe = opened(Store(folder))
    whole = probe.measure(handmade(folder, [2.0, 8.0]), epoch=0)
    assert min(as_metrics(whole).values()) > 0.9
    lone = probe.measure(handmade(folder, [2.0]), epoch=0)
    assert lone["2_s"] > 0.9
    assert lone["8_s"] < whole["8_s"] - 0.1, "8 s are not known from 2 s"
    noise = handmade(folder, [2.0, 8.0])
    noise.__class__ = Noise
    assert max(as_metrics(probe.measure(noise, epoch=0)).values()) < 0.1


def test_it_leaves_the_embedder_and_the_random_numbers_as_they_were(folder: Path) -> None:
    embedder = build_embedder(
        MICE,
        features={"groups": ["posture"]},
        encoder={"name": "self_attention"},
    ).train()
    probe, before = opened(Store(folder)), {k: v.clone() for k, v in embedder.state_dict().items()}
    drawn = torch.random.get_rng_state()
    measured = probe.measure(embedder, epoch=3)
    assert measured == probe.measure(embedder, epoch=3)
    assert measured["epoch"] == 3
    assert embedder.training
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert all(torch.equal(before[name], x) for name, x in embedder.state_dict().items())


def test_videos_that_are_left_out_are_the_ones_it_looks_at(folder: Path, tmp_path: Path) -> None:
    names = [video["name"] for video in Store(folder).videos]
    left_out = opened(Store(folder, leave_out=names[:2]))
    assert sorted(len(video["position"]) for video in left_out.videos) == sorted(LENGTHS[:2])
    summary = left_out.summary(
        [left_out.measure(handmade(folder, [2.0, 8.0]), epoch=e) for e in (0, 1, 2)]
    )
    assert "2 videos left out" in summary
    assert "more epochs would add little" in summary
    one = opened(Store(folder, leave_out=names[:1]))
    assert sorted(len(video["position"]) for video in one.videos) == sorted(LENGTHS[1:])
    assert open_probe(marked_store(tmp_path / "lone", [50]), seed=0) is None


def test_what_still_grows_is_not_called_enough(folder: Path) -> None:
    measured = [
        {"epoch": e, "frame": e / 10, "2_s": e / 10, "8_s": 0.0} for e in (0.0, 2.0, 4.0, 6.0)
    ]
    summary = opened(Store(folder)).summary(measured)
    assert "0.000 after epoch 0, 0.267 after epoch 4" in summary
    assert "0.400 in the end" in summary
    assert "add little" not in summary


@pytest.mark.parametrize("epochs", [1, 7, 20, 21, 1000])
def test_it_is_measured_in_the_end_and_not_at_every_epoch_of_many(epochs: int) -> None:
    due = [epoch for epoch in range(1, epochs + 1) if is_due(epoch, epochs)]
    assert due[-1] == epochs
    assert min(epochs, MAX_TIMES) / 2 <= len(due) <= MAX_TIMES + 1
