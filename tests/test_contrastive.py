"""NT-Xent against closed forms and against a slow reference that follows the paper's sum term by
term."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from worlds import MICE

from pretrain.data.window_rng import WindowRNG
from pretrain.data.windows import Pose, Windows
from pretrain.errors import BadInput
from pretrain.objectives import Loss, View
from pretrain.objectives.contrastive import Contrastive, _Anchors


def windows_with(lengths: list[int], frames: int) -> Windows:
    """Windows of which only lengths and seeds matter."""
    shape = (len(lengths), frames, *MICE.shape[:2])
    valid = torch.arange(frames) < torch.tensor(lengths)[:, None]
    return Windows(
        Pose(torch.zeros(*shape, 2), torch.ones(shape)), valid, torch.arange(len(lengths)) * 977
    )


def bare(dim: int, **settings: float) -> Contrastive:
    """The objective without its projection head."""
    model = Contrastive(dim, MICE, **settings)  # type: ignore[arg-type]
    model.head = nn.Sequential()
    return model


def loss_of(objective: Contrastive, one: Tensor, other: Tensor, windows: Windows) -> Loss:
    result: Loss = objective(
        (View(windows.pose, one), View(windows.pose, other)), windows, WindowRNG(windows.key_B)
    )
    return result


def of_single_frames(
    one: Tensor, other: Tensor, *, temperature: float = 0.5, lengths: list[int] | None = None
) -> Loss:
    """Windows of one frame leave nothing to draw: each window is one anchor, its other view the
    positive."""
    windows = windows_with(lengths or [1] * len(one), 1)
    return loss_of(
        bare(one.shape[1], anchors=1, slack=0, near=0, temperature=temperature),
        one[:, None],
        other[:, None],
        windows,
    )


# -- closed forms ----------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("batch", [1, 2, 8])
def test_views_that_agree_and_windows_that_do_not(batch: int, temperature: float) -> None:
    z = torch.eye(8)[:batch] * 3  # cosines do not see lengths
    loss = of_single_frames(z, z * 7, temperature=temperature)
    assert loss.total.item() == pytest.approx(
        math.log1p((2 * batch - 2) * math.exp(-1 / temperature)), rel=1e-5, abs=1e-6
    )
    assert loss.parts["contrastive_found"] == 1


@pytest.mark.parametrize("batch", [2, 5])
def test_where_all_is_alike_the_loss_is_that_of_guessing(batch: int) -> None:
    loss = of_single_frames(torch.ones(batch, 4), torch.ones(batch, 4))
    assert loss.total.item() == pytest.approx(math.log(2 * batch - 1), rel=1e-5)


def test_a_negative_that_is_nearer_than_the_positive_is_not_found() -> None:
    z = torch.eye(4)
    loss = of_single_frames(z, z.roll(1, 0), temperature=0.5)
    # Each anchor's positive is at cosine 0, one negative of the other view at 1, the rest at 0.
    assert loss.total.item() == pytest.approx(math.log(math.exp(2) + 6), rel=1e-5)
    assert loss.parts["contrastive_found"] == 0


def test_empty_rows_do_not_count() -> None:
    z = torch.eye(4)
    loss = of_single_frames(z, z, lengths=[1, 0, 1, 0])
    assert loss.total.item() == pytest.approx(math.log1p(2 * math.exp(-2)), rel=1e-5)
    assert of_single_frames(z, z, lengths=[0] * 4).total == 0


def test_one_window_whose_anchors_are_all_neighbours_has_no_negatives() -> None:
    windows = windows_with([10], 10)
    z = torch.randn(1, 10, 6, generator=torch.Generator().manual_seed(0))
    assert loss_of(
        bare(6, anchors=4, near=10), z, z.flip(1), windows
    ).total.item() == pytest.approx(0, abs=1e-6)


# -- slow reference --------------------------------------------------------------------------------


def reference(
    g: Tensor,
    window: list[int],
    frame: list[int],
    exists: list[bool],
    *,
    temperature: float,
    near: int,
) -> float:
    """Equation 1 of SimCLR in loops. The first half are anchors, the second half their positives,
    in the same order."""
    half, terms = len(g) // 2, []
    for i in range(len(g)):
        if not exists[i]:
            continue
        partner = (i + half) % len(g)
        below = 0.0
        for k in range(len(g)):
            neighbour = window[i] == window[k] and abs(frame[i] - frame[k]) <= near
            if k != i and exists[k] and (k == partner or not neighbour):
                below += math.exp(torch.cosine_similarity(g[i], g[k], dim=0).item() / temperature)
        above = math.exp(torch.cosine_similarity(g[i], g[partner], dim=0).item() / temperature)
        terms.append(-math.log(above / below))
    return sum(terms) / len(terms)


def recorded(objective: Contrastive, monkeypatch: pytest.MonkeyPatch) -> list[_Anchors]:
    """The anchors of each loss that is computed from now on."""
    calls: list[_Anchors] = []
    compute = objective.sum_of_terms

    def spy(mine: _Anchors, all_anchors: _Anchors) -> tuple[Tensor, Tensor, Tensor]:
        calls.append(mine)
        return compute(mine, all_anchors)

    monkeypatch.setattr(objective, "sum_of_terms", spy)
    return calls


@pytest.mark.parametrize(("near", "slack"), [(0, 0), (5, 3), (40, 0)])
def test_it_is_the_sum_of_the_paper(near: int, slack: int, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = windows_with([30, 30, 12, 1, 0], 30)
    generator = torch.Generator().manual_seed(near)
    one, other = (
        torch.randn(5, 30, 6, generator=generator),
        torch.randn(5, 30, 6, generator=generator),
    )
    objective = bare(6, anchors=3, near=near, slack=slack, temperature=0.3)
    calls = recorded(objective, monkeypatch)
    loss = loss_of(objective, one, other, windows).total
    (mine,) = calls
    truth = reference(
        mine.g,
        mine.window.tolist(),
        mine.frame.tolist(),
        mine.exists.tolist(),
        temperature=0.3,
        near=near,
    )
    assert loss.item() == pytest.approx(truth, rel=1e-5)
    # And the anchors are the frames they say they are, of the views they say.
    picked = torch.where(
        torch.arange(len(mine.g))[:, None] < 15,
        one[mine.window, mine.frame],
        other[mine.window, mine.frame],
    )
    torch.testing.assert_close(mine.g, nn.functional.normalize(picked, dim=-1))


def test_anchors_lie_in_their_window_and_positives_within_the_slack(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lengths = [40] * 300 + [7] * 300
    windows, objective = windows_with(lengths, 40), bare(2, anchors=4, slack=3)
    calls = recorded(objective, monkeypatch)
    z = torch.ones(600, 40, 2)
    loss_of(objective, z, z, windows)
    frame, moved = calls[0].frame.view(2, 600, 4)
    length = torch.tensor(lengths)[:, None]
    for drawn in (frame, moved):
        assert drawn.min() == 0
        assert (drawn < length).all()
    assert (moved - frame).abs().max() == 3
    assert set((moved - frame)[:300].unique().tolist()) == set(range(-3, 4))
    counts = torch.bincount(frame[:300].flatten(), minlength=40)
    assert counts.min() > 5, "anchors lie anywhere in the window"
    assert counts.max() < 70


def test_the_gradient_pulls_views_together_and_windows_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 6, 1, 4, generator=generator).requires_grad_()
    windows, objective = (
        windows_with([1] * 6, 1),
        bare(4, anchors=1, slack=0, near=0, temperature=0.5),
    )
    optimiser = torch.optim.SGD([z], lr=1.0)
    for _ in range(200):
        optimiser.zero_grad()
        loss_of(objective, z[0], z[1], windows).total.backward()
        optimiser.step()
    result = nn.functional.normalize(z.detach()[:, :, 0], dim=-1)
    assert (result[0] * result[1]).sum(-1).min() > 0.95
    across = result[0] @ result[0].T - 2 * torch.eye(6)
    assert across.max() < 0.3


@pytest.mark.parametrize(
    ("setting", "value"),
    [("temperature", 0.0), ("anchors", 0), ("slack", -1), ("near", -1), ("projection", 0)],
)
def test_settings_that_cannot_be(setting: str, value: float) -> None:
    with pytest.raises(BadInput, match=setting):
        Contrastive(4, MICE, **{setting: value})  # type: ignore[arg-type]
