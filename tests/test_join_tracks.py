"""Pieces of tracks, joined into the animals they are of."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import pytest
from reader_files import KEYPOINTS, world

from finetune.inference.recording_options import add_options
from finetune.inference.recordings import recordings
from pretrain.data.store import Store
from pretrain.errors import BadInput
from pretrain.prepare import main as prepare
from pretrain.quality.join_tracks import joined, warn_of_pieces
from pretrain.readers.tracks import Tracks

FRAMES = 200


def in_pieces(*, gaps: bool) -> tuple[Tracks, np.ndarray]:
    """Two animals 100 px apart; each gets a new track every 30 or 50 frames, after a gap of 3.
    Where there are no gaps, both are lost and found in the same frames."""
    truth = world(FRAMES).position.astype(np.float32)
    pieces = []
    for animal, length in enumerate((30, 50 if gaps else 30)):
        for start in range(0, FRAMES, length):
            piece = np.full((FRAMES, *truth.shape[2:]), np.nan, np.float32)
            stop = start + length - 3 * gaps
            piece[start:stop] = truth[start:stop, animal]
            pieces.append(piece)
    order = np.random.default_rng(0).permutation(len(pieces))
    position = np.stack([pieces[i] for i in order], axis=1)
    tracks = Tracks(
        name="m1",
        path=Path("m1.slp"),
        animals=tuple(f"track_{i}" for i in range(len(pieces))),
        keypoints=KEYPOINTS,
        position_TMKX=position,
        confidence_TMK=np.where(np.isnan(position).any(-1), 0, 0.5).astype(np.float32),
    )
    return tracks, truth


@pytest.mark.parametrize("gaps", [True, False])
def test_pieces_become_the_animals_they_are_of(
    gaps: bool, caplog: pytest.LogCaptureFixture
) -> None:
    tracks, truth = in_pieces(gaps=gaps)
    warn_of_pieces(tracks)
    assert f"{len(tracks.animals)} tracks, at most 2 at once" in caplog.text
    found = joined(tracks, 2)
    assert found.animals == ("animal1", "animal2")
    assert f"{len(tracks.animals) - 2} joins\n" in caplog.text
    first = np.nanargmin(np.abs(found.position_TMKX[0, :, 0, 0] - truth[0, 0, 0, 0]))
    for animal, of in enumerate((int(first), 1 - int(first))):
        seen = ~np.isnan(found.position_TMKX[:, of])
        assert seen.mean() > (0.85 if gaps else 0.98)
        np.testing.assert_array_equal(
            found.position_TMKX[:, of][seen], truth[:, animal][seen], strict=True
        )
    assert ((found.confidence_TMK > 0) == ~np.isnan(found.position_TMKX).any(-1)).all()


def test_of_more_tracks_at_once_the_longer_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    tracks, _ = in_pieces(gaps=False)
    ghost = np.full_like(tracks.position_TMKX[:, :1], np.nan)
    ghost[50:55] = 7.0
    with_ghost = Tracks(
        name="m1",
        animals=("ghost", *tracks.animals),
        keypoints=KEYPOINTS,
        position_TMKX=np.concatenate([ghost, tracks.position_TMKX], axis=1),
        confidence_TMK=np.concatenate([(ghost[..., 0] > 0) * 0.5, tracks.confidence_TMK], axis=1),
    )
    expected = joined(tracks, 2).position_TMKX
    np.testing.assert_array_equal(joined(with_ghost, 2).position_TMKX, expected)
    assert "1.2% of what was tracked is left out" in caplog.text


def test_as_many_tracks_as_animals_stay_what_they_are() -> None:
    w = world(FRAMES)
    position = w.position.astype(np.float32)
    position[:100, 0], position[100:, 1] = np.nan, np.nan  # never both: not one animal for that
    tracks = Tracks(
        name="m1",
        animals=("a", "b"),
        keypoints=KEYPOINTS,
        position_TMKX=position,
        confidence_TMK=np.where(np.isnan(position).any(-1), 0, 1).astype(np.float32),
    )
    found = joined(tracks, 3)
    np.testing.assert_array_equal(found.position_TMKX[:, :2], position)
    assert not found.confidence_TMK[:, 2].any()


def test_prepare_joins(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracks, _ = in_pieces(gaps=True)
    (tmp_path / "poses").mkdir()
    for name in ("m1", "m2"):
        count = len(tracks.animals) if name == "m1" else 5
        np.savez(
            tmp_path / "poses" / f"{name}.npz",
            position=tracks.position_TMKX[:, :count],
            keypoints=np.array(KEYPOINTS),
            animals=np.array(tracks.animals[:count]),
        )
    words = ["tracks", "--poses", str(tmp_path / "poses"), "--fps", "30"]
    with caplog.at_level(logging.WARNING):
        prepare([*words, "--join-tracks", "2", "--out", str(tmp_path / "store")])
    assert "joined into 2 animals" in caplog.text
    store = Store(str(tmp_path / "store"))
    assert store.schema.animals == ("animal1", "animal2")
    parser = argparse.ArgumentParser()
    add_options(parser, required=True)
    words = ["--poses", str(tmp_path / "poses"), "--join-tracks", "2"]
    with recordings(parser.parse_args(words), store.schema, {}) as opened:  # as predict.py does
        for one in opened:
            position = one.read()[0]["position"].numpy()
            np.testing.assert_array_equal(position, store.read_video(one.name).position_TMKX)
    with (
        pytest.raises(BadInput, match="or join pieces of tracks with --join-tracks"),
        recordings(parser.parse_args(words[:2]), store.schema, {}),
    ):
        pass
