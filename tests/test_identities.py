"""Identity swaps of a tracker are corrected."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_interaction import RATS, embedded, handmade, wander

from pretrain.data.windows import Pose
from pretrain.transforms import identities
from pretrain.transforms.identities import ELSEWHERE, MEMORY_S, correct_identity_swaps

BODY = torch.tensor(25.0)


def corrected(position_TMKX: torch.Tensor, animals: int = 2) -> torch.Tensor:
    schema = replace(RATS, animals=tuple("abc"[:animals]))
    last = position_TMKX.permute(1, 2, 3, 0).unsqueeze(3)
    return correct_identity_swaps(last, schema, BODY)[:, :, :, 0].permute(3, 0, 1, 2)


def frame_after_frame(position_TMKX: torch.Tensor) -> torch.Tensor:
    """The same, greedily, each frame with what is known so far."""
    given = position_TMKX.numpy()
    out, animals = given.copy(), given.shape[1]
    last: list[tuple[int, np.ndarray] | None] = [None] * animals
    best = tuple(range(animals))
    for t, frame in enumerate(given):
        middle = [np.nanmean(one[:3], 0) if np.isfinite(one[:3]).any() else None for one in frame]
        known = [one is not None and t - one[0] <= MEMORY_S * 30 for one in last]

        def cost(
            one: int,
            called: int,
            middle: list[np.ndarray | None] = middle,
            known: list[bool] = known,
        ) -> float:
            now, was = middle[called], last[one]
            if now is None or not any(known):
                return 0.0
            if was is None or not known[one]:
                return ELSEWHERE
            return float(np.linalg.norm(now - was[1])) / 25

        orders = [best, *itertools.permutations(range(animals))]  # where all cost as much: as it is
        best = min(orders, key=lambda order: sum(map(cost, range(animals), order)))
        for one, called in enumerate(best):
            out[t, one] = frame[called]
            place = middle[called]
            if place is not None:
                last[one] = (t, place)
    return torch.from_numpy(out)


def exchanged(position_TMKX: torch.Tensor, seed: int, share: float) -> torch.Tensor:
    """Every so many frames the names are dealt anew, and stay."""
    rng = np.random.default_rng(seed)
    out, order = position_TMKX.clone(), np.arange(position_TMKX.shape[1])
    for t in range(len(out)):
        if rng.random() < share:
            order = rng.permutation(order)
        out[t] = position_TMKX[t, order]
    return out


@pytest.mark.parametrize("animals", [2, 3])
def test_exchanges_are_undone(animals: int) -> None:
    schema = replace(RATS, animals=tuple("abc"[:animals]))
    true = wander(schema, seconds=20, missing=0.1).position_BTMKX[0]
    done = corrected(true, animals)
    torch.testing.assert_close(corrected(exchanged(true, 0, 0.05), animals), done, equal_nan=True)
    # these pass through each other, and may be taken for each other where they meet
    assert longest_step(done) < 40 < 100 < longest_step(exchanged(true, 0, 0.05))


def longest_step(position_TMKX: torch.Tensor) -> float:
    """Px from one frame to the next, of any animal."""
    step_TMX = (position_TMKX[1:] - position_TMKX[:-1]).nanmean(2)
    return float(step_TMX.norm(dim=-1).nan_to_num(0).max())


@pytest.mark.parametrize("animals", [2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_what_matching_frame_after_frame_gives(
    animals: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = replace(RATS, animals=tuple("abc"[:animals]))
    position = wander(schema, seconds=30, missing=0.1, seed=seed).position_BTMKX[0]
    rng = np.random.default_rng(seed)
    for _ in range(12):  # animals hide
        start, animal = rng.integers(len(position)), rng.integers(animals)
        position[start : start + rng.integers(10, 200), animal] = torch.nan
    nowhere = position[:, :, :3, 0].isnan().all(2)
    position[nowhere] = torch.nan  # it may be called anything
    given = exchanged(position, seed, 0.02)
    expected = frame_after_frame(given)
    done = corrected(given, animals)
    other = (done.nan_to_num(-1) != expected.nan_to_num(-1)).flatten(1).any(1)
    assert (other[1:] != other[:-1]).float().mean() < 0.02, "exchanges that are left"
    monkeypatch.setattr(identities, "PASSES", len(given))
    torch.testing.assert_close(corrected(given, animals), expected, rtol=0, atol=0, equal_nan=True)


def test_the_one_that_is_seen_may_change_its_name_while_the_other_hides() -> None:
    true = wander(RATS, seconds=6, missing=0.0).position_BTMKX[0]
    true[60:100, 1] = torch.nan
    given = true.clone()
    given[60:100:3] = given[60:100:3].flip(1)  # the tracker calls it one, then two
    assert not torch.equal(given.nan_to_num(-1), true.nan_to_num(-1))
    torch.testing.assert_close(corrected(given), true, equal_nan=True)


def test_features_do_not_change_where_names_do() -> None:
    pose = wander(RATS, seconds=40, missing=0.3)
    model = handmade(RATS, pose, "social")
    given = exchanged(pose.position_BTMKX[0], 3, 0.02).unsqueeze(0)
    confidence = (~given[..., 0].isnan()).float() * 0.9
    torch.testing.assert_close(
        embedded(model, Pose(given, confidence)), embedded(model, pose), rtol=1e-3, atol=1e-3
    )


def test_one_animal_and_four_are_left_as_they_are() -> None:
    for animals in (1, 4):
        position = torch.randn(animals, 5, 2, 1, 30)
        assert correct_identity_swaps(position, RATS, BODY) is position


def test_an_exported_program_does_the_same_at_every_length() -> None:
    class Corrected(torch.nn.Module):
        def forward(self, position_MKXBT: torch.Tensor) -> torch.Tensor:
            return correct_identity_swaps(position_MKXBT, RATS, BODY)

    def given(frames: int) -> torch.Tensor:
        true = wander(RATS, seconds=frames / 30, missing=0.2, seed=frames).position_BTMKX[0]
        return exchanged(true, 1, 0.1).permute(1, 2, 3, 0).unsqueeze(3).contiguous()

    length = torch.export.Dim("T", min=16, max=100_000)
    program = torch.export.export(Corrected(), (given(90),), dynamic_shapes=({4: length},))
    for frames in (90, 300):
        torch.testing.assert_close(
            program.module()(given(frames)), Corrected()(given(frames)), equal_nan=True
        )
