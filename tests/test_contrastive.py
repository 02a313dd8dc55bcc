"""NT-Xent against closed forms and against a slow reference that follows the paper's sum term by
term."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from worlds import MICE

from pretrain.components import build
from pretrain.data.window_rng import WindowRNG
from pretrain.data.windows import Pose, Windows
from pretrain.errors import BadInput
from pretrain.objectives import Loss, View
from pretrain.objectives.contrastive import Contrastive


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
        bare(one.shape[1], anchors=1, slack=0, temperature=temperature),
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
    assert loss.parts["contrastive_found"] == (batch > 1), "one window has nothing to be told from"


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


def test_windows_of_a_length_of_their_own_do_not_count() -> None:
    windows = windows_with([10, 10, 9, 7], 10)
    z = torch.randn(4, 10, 6, generator=torch.Generator().manual_seed(0))
    loss = loss_of(bare(6, anchors=4), z, z.flip(1), windows)
    pair = Windows(
        Pose(*(x[:2] for x in windows.pose[:2])), windows.valid_BT[:2], windows.key_B[:2]
    )
    torch.testing.assert_close(
        loss.total, loss_of(bare(6, anchors=4), z[:2], z[:2].flip(1), pair).total
    )
    assert loss_of(bare(6), z[1:], z[1:], windows_with([10, 9, 7], 10)).total == 0


# -- slow reference --------------------------------------------------------------------------------


def reference(
    views: list[Tensor], lengths: list[int], frames: Tensor, moved: Tensor, *, temperature: float
) -> float:
    """Equation 1 of SimCLR in loops: an anchor in a view, and both views of the moment its positive
    lies at, in its own window and in those that are as long."""
    terms = []
    for i, a, v in itertools.product(range(len(lengths)), range(frames.shape[1]), range(2)):
        others = [j for j in range(len(lengths)) if lengths[j] == lengths[i] > 0]
        if len(others) < 2:
            continue
        anchor = views[v][i, frames[i, a]]
        exponential = {
            (j, w): math.exp(
                torch.cosine_similarity(anchor, views[w][j, moved[j, a]], dim=0).item()
                / temperature
            )
            for j, w in itertools.product(others, range(2))
            if (j, w) != (i, v)
        }
        terms.append(-math.log(exponential[i, 1 - v] / sum(exponential.values())))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("slack", [0, 3])
def test_it_is_the_sum_of_the_paper(slack: int) -> None:
    lengths = [30, 30, 30, 12, 12, 1, 0]
    windows = windows_with(lengths, 30)
    generator = torch.Generator().manual_seed(slack)
    views = [torch.randn(7, 30, 6, generator=generator) for _ in range(2)]
    objective = bare(6, anchors=3, slack=slack, temperature=0.3)
    frames, moved = objective.frames(windows)
    assert (slack > 0) == bool((frames != moved).any())
    truth = reference(views, lengths, frames, moved, temperature=0.3)
    assert loss_of(objective, *views, windows).total.item() == pytest.approx(truth, rel=1e-5)


def test_anchors_lie_anywhere_in_their_window_and_at_one_index_in_windows_of_one_length() -> None:
    lengths, drawn = [40] * 3 + [7] * 3, []
    objective = bare(2, anchors=4, slack=3)
    for batch in range(400):
        windows = windows_with(lengths, 40)
        windows = windows._replace(batch_key_B=torch.full_like(windows.key_B, batch))
        frame, moved = objective.frames(windows)
        for index in (frame, moved):
            assert torch.equal(index[:3], index[:1].expand(3, -1))
            assert torch.equal(index[3:], index[3:4].expand(3, -1))
        drawn.append((frame[[0, 3]], moved[[0, 3]]))
    frame, moved = (torch.stack(x) for x in zip(*drawn, strict=True))
    for index in (frame, moved):
        assert index.min() == 0
        assert (index.amax((0, 2)) == torch.tensor([39, 6])).all()
    assert set((moved - frame)[:, 0].unique().tolist()) == set(range(-3, 4))
    counts = torch.bincount(frame[:, 0].flatten(), minlength=40)
    assert counts.min() > 15, "anchors lie anywhere in the window"
    assert counts.max() < 75


def test_the_gradient_pulls_views_together_and_windows_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 6, 1, 4, generator=generator).requires_grad_()
    windows, objective = (
        windows_with([1] * 6, 1),
        bare(4, anchors=1, slack=0, temperature=0.5),
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
    [("temperature", 0.0), ("anchors", 0), ("slack", -1), ("projection", 0)],
)
def test_settings_that_cannot_be(setting: str, value: float) -> None:
    with pytest.raises(BadInput, match=setting):
        build("pretrain.objectives", {"name": "contrastive", setting: value}, Contrastive, 4, MICE)
