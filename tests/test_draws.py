"""Draws belong to a window: the same numbers whatever else was drawn, in whatever batch; and
they are random numbers."""

from __future__ import annotations

import math

import pytest
import torch

from pretrain.data.window_rng import WindowRNG

KEYS = torch.arange(4000, dtype=torch.int64) * 7_919_777_777_777 - 3


def test_a_window_draws_the_same_in_any_batch() -> None:
    order = torch.randperm(len(KEYS), generator=torch.Generator().manual_seed(0))
    for draw in (
        lambda d: d.uniform("u", 3, 2),
        lambda d: d.normal("n", 5),
        lambda d: d.chance("c", 0.3, 4),
    ):
        whole = draw(WindowRNG(KEYS))
        assert torch.equal(draw(WindowRNG(KEYS[order])), whole[order])
        assert torch.equal(draw(WindowRNG(KEYS[17:18])), whole[17:18])


def test_another_name_or_key_draws_otherwise() -> None:
    draws = WindowRNG(KEYS)
    one, other = draws.uniform("one"), draws.uniform("other")
    assert (one != other).float().mean() > 0.999
    assert abs(torch.corrcoef(torch.stack([one, other]))[0, 1].item()) < 0.05
    beside = WindowRNG(KEYS + 1).uniform("one")
    assert abs(torch.corrcoef(torch.stack([one, beside]))[0, 1].item()) < 0.05
    high = WindowRNG(KEYS + (1 << 40)).uniform("one")
    assert (one != high).float().mean() > 0.999, "the upper half of the key is not used"


def test_uniform_is_uniform() -> None:
    drawn = WindowRNG(KEYS).uniform("u", 50)
    assert drawn.shape == (4000, 50)
    assert drawn.dtype == torch.float32
    assert drawn.min() >= 0
    assert drawn.max() < 1
    for sample in (drawn.flatten(), drawn[:, 0], drawn[0].repeat(1)):
        expected = 1 / 12 / len(sample)
        assert abs(sample.mean() - 0.5) < 5 * math.sqrt(expected)
    counts = torch.histc(drawn, 100, 0, 1)
    chi2 = ((counts - 2000) ** 2 / 2000).sum().item()
    assert 40 < chi2 < 180, "99 degrees of freedom"


@pytest.mark.parametrize("number", [1, 7, 64])
def test_normal_is_normal_and_independent(number: int) -> None:
    drawn = WindowRNG(KEYS).normal("n", number)
    assert drawn.shape == (4000, number)
    assert drawn.isfinite().all()
    spread = 1 / math.sqrt(drawn.numel())
    assert abs(drawn.mean()) < 5 * spread
    assert abs(drawn.square().mean() - 1) < 5 * math.sqrt(2) * spread
    assert abs((drawn**4).mean() - 3) < 5 * math.sqrt(96) * spread
    if number > 1:
        correlation = torch.corrcoef(drawn.T) - torch.eye(number)
        assert correlation.abs().max() < 6 / math.sqrt(4000)
        squares = torch.corrcoef(drawn.T.square()) - torch.eye(number)
        assert squares.abs().max() < 8 / math.sqrt(4000)


@pytest.mark.parametrize("probability", [0.0, 0.05, 0.5, 1.0])
def test_chance_happens_as_often_as_it_says(probability: float) -> None:
    found = WindowRNG(KEYS).chance("c", probability, 20).float().mean().item()
    assert abs(found - probability) <= 5 * math.sqrt(probability * (1 - probability) / 80_000)


def test_shapes_without_axes_and_with_many() -> None:
    draws = WindowRNG(KEYS[:3])
    assert draws.uniform("u").shape == (3,)
    assert draws.normal("n").shape == (3,)
    assert draws.normal("n", 2, 1, 3).shape == (3, 2, 1, 3)
