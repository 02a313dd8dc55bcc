"""Signs of collapse on clouds whose shape is known."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from worlds import MICE, learner_of, windows_of

from pretrain.data.window_rng import WindowRNG
from pretrain.data.windows import Pose
from pretrain.objectives import View
from pretrain.train.diagnostics.collapse_metrics import (
    alignment,
    collapse_metrics,
    effective_rank,
    spread,
    uniformity,
)

NAMES = {"alignment", "uniformity", "effective_rank", "spread_mean", "spread_least"}


def cloud(rows: int, dims: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, dims, generator=torch.Generator().manual_seed(seed))


def test_alignment_of_the_same_the_opposite_and_the_unrelated() -> None:
    z = cloud(4000, 64)
    assert alignment(z, 3 * z).item() == pytest.approx(0, abs=1e-6)
    assert alignment(z, -z).item() == pytest.approx(4, rel=1e-5)
    assert alignment(z, cloud(4000, 64, 1)).item() == pytest.approx(2, abs=0.02)


def test_uniformity_of_one_point_of_two_poles_and_of_a_sphere() -> None:
    assert uniformity(torch.ones(10, 5)).item() == pytest.approx(0, abs=1e-6)
    assert uniformity(torch.tensor([[0.0, 2.0], [0.0, -1.0]])).item() == pytest.approx(-8, rel=1e-5)
    z = cloud(30, 7)
    unit = F.normalize(z, dim=-1).double()
    pairs = [
        math.exp(-2 * float((a - b).square().sum())) for a, b in itertools.combinations(unit, 2)
    ]
    assert uniformity(z).item() == pytest.approx(math.log(sum(pairs) / len(pairs)), rel=1e-4)
    assert (
        uniformity(cloud(500, 64))
        < uniformity(cloud(500, 64) + 3)
        < uniformity(cloud(500, 64) + 30)
        < 0
    )


@pytest.mark.parametrize(("rows", "dims"), [(2000, 16), (40, 64)])
@pytest.mark.parametrize("used", [1, 2, 8])
def test_effective_rank_is_the_number_of_dimensions_in_use(rows: int, dims: int, used: int) -> None:
    axes = torch.linalg.qr(cloud(dims, dims, 2))[0][:used]
    balanced = torch.linalg.qr(cloud(rows, used + 1, 3) - cloud(rows, used + 1, 3).mean(0))[0][
        :, :used
    ]
    balanced = torch.linalg.qr(balanced - balanced.mean(0))[0]
    assert effective_rank(balanced @ axes * 5 + 2).item() == pytest.approx(used, rel=1e-3)


def test_effective_rank_of_unequal_dimensions_and_of_nothing() -> None:
    z = cloud(300, 12) * torch.linspace(0.1, 3, 12)
    power = torch.linalg.svdvals((z - z.mean(0)).double()).square()
    share = power / power.sum()
    assert effective_rank(z).item() == pytest.approx(
        math.exp(-(share * share.log()).sum()), rel=1e-4
    )
    assert effective_rank(torch.full((20, 4), 3.0)) == 0


def test_effective_rank_of_what_is_not_finite_is_not_a_number() -> None:
    z = torch.randn(20, 4, generator=torch.Generator().manual_seed(1))
    z[3, 2] = torch.nan
    assert effective_rank(z).isnan()


def test_a_dead_dimension_has_no_spread() -> None:
    z = cloud(500, 4) * torch.tensor([1.0, 2.0, 3.0, 0.0])
    mean, least = spread(z)
    assert least == 0
    assert mean.item() == pytest.approx(6 / 4, rel=0.05)


def views_of(windows, *embeddings):  # type: ignore[no-untyped-def]
    return [View(windows.pose, z) for z in embeddings]


def test_collapse_is_seen_and_health_as_well() -> None:
    windows = windows_of(MICE, batch=32, frames=24, cut=(10, 1, 0))
    rng = WindowRNG(windows.key_B)
    shape = windows.valid_BT.shape
    generator = torch.Generator().manual_seed(0)
    healthy, beside = (
        torch.randn(*shape, 16, generator=generator),
        torch.randn(*shape, 16, generator=generator),
    )
    well = collapse_metrics(views_of(windows, healthy, healthy + 0.1 * beside), windows, rng)
    assert set(well) == NAMES
    assert well["effective_rank"] > 12
    assert well["alignment"] < 0.05
    assert well["uniformity"] < -2
    point = collapse_metrics(
        views_of(windows, torch.ones(*shape, 16), torch.ones(*shape, 16)), windows, rng
    )
    assert {name: round(value.item(), 5) for name, value in point.items()} == dict.fromkeys(
        NAMES, 0.0
    )
    on_a_line = healthy[..., :1] * torch.linspace(1, 2, 16)
    assert collapse_metrics(views_of(windows, on_a_line), windows, rng)[
        "effective_rank"
    ].item() == pytest.approx(1, abs=1e-3)


def test_frames_that_do_not_exist_or_were_hidden_do_not_count() -> None:
    windows = windows_of(MICE, batch=8, frames=20, cut=(7, 0))
    z = torch.randn(8, 20, 6, generator=torch.Generator().manual_seed(1))
    seen = windows.valid_BT.clone()
    seen[:, 10:] = False
    hidden = Pose(
        windows.pose.position_BTMKX,
        windows.pose.confidence_BTMK.masked_fill(~seen[:, :, None, None], 0.0),
    )
    rng = WindowRNG(windows.key_B)
    one = collapse_metrics([View(hidden, z)], windows, rng)
    other = collapse_metrics([View(hidden, torch.where(seen.unsqueeze(-1), z, 1e4))], windows, rng)
    assert one == other
    nothing = Pose(windows.pose.position_BTMKX, torch.zeros_like(windows.pose.confidence_BTMK))
    assert {
        value.item() for value in collapse_metrics([View(nothing, z)], windows, rng).values()
    } == {0.0}


@pytest.mark.parametrize("objective", ["contrastive", "cpc", "masked"])
def test_a_learner_tells_them_when_it_is_watched(objective: str) -> None:
    windows = windows_of(MICE, batch=6, frames=48)
    learner = learner_of(MICE, "tcn", objective, windows.pose)
    quiet = learner(windows)
    learner.watch = True
    watched = learner(windows)
    assert set(watched.parts) - set(quiet.parts) == NAMES
    assert torch.equal(watched.total, quiet.total)
    assert all(value.isfinite() and not value.requires_grad for value in watched.parts.values())
