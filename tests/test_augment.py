"""Each augmentation by itself does what it says, as often as it says, and its draws belong to the
window."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated

import pytest
import torch
from torch import Tensor
from worlds import MICE, RATS, rows_of, windows_of

from pretrain.components import Limit
from pretrain.config import Recipe, make
from pretrain.data.schema import Schema
from pretrain.data.window_rng import WindowRNG
from pretrain.data.windows import Pose, Windows
from pretrain.errors import BadInput
from pretrain.transforms import augment
from pretrain.transforms.augment import Augment

MANY = windows_of(MICE, batch=600, frames=16, missing=0.1)
WHOLE = windows_of(MICE, batch=200, frames=16, missing=0.0)
ALL = Augment(
    rotate=True,
    mirror=0.5,
    exchange=0.5,
    scale=0.2,
    jitter_px=2.0,
    drop_points=0.1,
    drop_frames=0.2,
)


def view(
    augmented: Augment, windows: Windows = MANY, *, name: str = "0", schema: Schema = MICE
) -> Pose:
    return augmented(windows.pose, schema, WindowRNG(windows.key_B), view=name)


def same(a: Tensor, b: Tensor) -> Tensor:
    """Per window, whether all is equal (missing equals missing)."""
    return ((a == b) | (a.isnan() & b.isnan())).flatten(1).all(1)


def often(result: Tensor, probability: float) -> None:
    share, spread = (
        result.float().mean().item(),
        math.sqrt(probability * (1 - probability) / result.numel()),
    )
    assert abs(share - probability) < 4.5 * spread, f"{share} of {result.numel()}"


def between(position: Tensor) -> Tensor:
    """Distances between all points of each frame."""
    points = position.flatten(2, 3)
    return torch.cdist(points, points)


def test_zeros_leave_it_as_it_is() -> None:
    for part, before in zip(view(Augment())[:2], MANY.pose[:2], strict=True):
        assert torch.equal(part.nan_to_num(-1), before.nan_to_num(-1))


def test_mirror() -> None:
    once = view(Augment(mirror=1.0))
    left, right = MICE.keypoint("left_ear"), MICE.keypoint("right_ear")
    x, y = MANY.pose.position_BTMKX[..., left, :].unbind(-1)
    torch.testing.assert_close(
        once.position_BTMKX[..., right, :], torch.stack([1024 - x, y], -1), equal_nan=True
    )
    nose = MICE.keypoint("nose")
    torch.testing.assert_close(
        once.confidence_BTMK[..., nose], MANY.pose.confidence_BTMK[..., nose]
    )
    twice = Augment(mirror=1.0)(once, MICE, WindowRNG(MANY.key_B), view="1")
    torch.testing.assert_close(twice, MANY.pose, equal_nan=True, atol=1e-3, rtol=0)


def test_mirror_takes_whole_windows_as_often_as_it_says() -> None:
    result = view(Augment(mirror=0.3))
    unchanged = same(result.position_BTMKX, MANY.pose.position_BTMKX)
    often(~unchanged, 0.3)
    all_mirrored = view(Augment(mirror=1.0))
    assert (unchanged | same(result.position_BTMKX, all_mirrored.position_BTMKX)).all(), (
        "a window is mirrored in part"
    )
    assert (same(result.confidence_BTMK, MANY.pose.confidence_BTMK) == unchanged).all()


@pytest.mark.parametrize("probability", [0.4, 1.0])
def test_exchange_trades_places_as_often_as_it_says(probability: float) -> None:
    result = view(Augment(exchange=probability))
    traded = same(result.position_BTMKX, MANY.pose.position_BTMKX.flip(2)) & same(
        result.confidence_BTMK, MANY.pose.confidence_BTMK.flip(2)
    )
    unchanged = same(result.position_BTMKX, MANY.pose.position_BTMKX)
    assert (traded | unchanged).all()
    often(traded, probability) if probability < 1 else None
    assert probability < 1 or traded.all(), "where animals trade places for sure, none may stay"


def test_exchange_of_three_animals_keeps_each_whole() -> None:
    schema = replace(RATS, animals=("a", "b", "c"))
    windows = windows_of(schema, batch=300, frames=4)
    result = view(Augment(exchange=1.0), windows, schema=schema)
    came_from = torch.stack(
        [
            torch.stack(
                [
                    same(result.position_BTMKX[:, :, [m]], windows.pose.position_BTMKX[:, :, [n]])
                    for n in range(3)
                ],
                -1,
            )
            for m in range(3)
        ],
        1,
    )
    assert (came_from.sum(1) == 1).all()
    assert (came_from.sum(2) == 1).all()
    assert not came_from.diagonal(dim1=1, dim2=2).all(1).any(), (
        "where animals trade places for sure, some window stayed as it was"
    )
    one = replace(RATS, animals=("a",))
    single = windows_of(one, batch=2)
    assert same(
        view(Augment(exchange=1.0), single, schema=one).position_BTMKX, single.pose.position_BTMKX
    ).all()


def test_rotate_turns_the_scene_about_the_centre_by_any_angle() -> None:
    result = view(Augment(rotate=True), WHOLE)
    torch.testing.assert_close(
        between(result.position_BTMKX), between(WHOLE.pose.position_BTMKX), atol=0.1, rtol=0
    )
    centre = torch.tensor(MICE.image_px) / 2
    before, after = (
        torch.view_as_complex((p - centre).contiguous())
        for p in (WHOLE.pose.position_BTMKX, result.position_BTMKX)
    )
    turned = (after / before).flatten(1)
    torch.testing.assert_close(turned.abs(), torch.ones_like(turned.abs()), atol=1e-2, rtol=0)
    assert (turned - turned[:, :1]).abs().max() < 0.05, "one angle for all of a window"
    angles = turned[:, 0].angle() / (2 * math.pi) % 1
    assert all(20 < n < 85 for n in torch.histc(angles, 4, 0, 1).tolist())


def test_scale_multiplies_the_scene() -> None:
    result = view(Augment(scale=0.2), WHOLE)
    share = (
        between(result.position_BTMKX)[:, :, 0, 1:]
        / between(WHOLE.pose.position_BTMKX)[:, :, 0, 1:]
    )
    size = share.flatten(1).median(1).values
    torch.testing.assert_close(
        share.flatten(1), size[:, None].expand_as(share.flatten(1)), atol=1e-2, rtol=1e-2
    )
    log = size.log()
    assert abs(log.mean()) < 4.5 * 0.2 / math.sqrt(200)
    assert 0.8 < log.std() / 0.2 < 1.2


def test_jitter_is_noise_on_every_point_in_px() -> None:
    noise = view(Augment(jitter_px=3.0)).position_BTMKX - MANY.pose.position_BTMKX
    assert torch.equal(noise.isnan(), MANY.pose.position_BTMKX.isnan()), (
        "noise made a missing point appear or a visible one go"
    )
    noise = noise[noise.isfinite()]
    assert abs(noise.mean()) < 4.5 * 3 / math.sqrt(len(noise))
    assert 2.97 < noise.std() < 3.03
    grid = view(Augment(jitter_px=3.0), WHOLE).position_BTMKX - WHOLE.pose.position_BTMKX
    for axis in (1, 2, 3, 4):
        one, other = grid.unbind(axis)[:2]
        assert abs(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]) < 0.05, (
            f"noise repeats along axis {axis}"
        )


def test_drop_points_hides_a_keypoint_for_the_whole_window() -> None:
    result = view(Augment(drop_points=0.2), WHOLE)
    gone = result.position_BTMKX.isnan().any(-1)
    assert torch.equal(gone, result.confidence_BTMK == 0)
    assert (gone.all(1) == gone.any(1)).all()
    often(gone[:, 0], 0.2)
    unchanged = ~gone
    assert torch.equal(result.position_BTMKX[unchanged], WHOLE.pose.position_BTMKX[unchanged])
    assert torch.equal(result.confidence_BTMK[unchanged], WHOLE.pose.confidence_BTMK[unchanged])


@pytest.mark.parametrize("block", [1, 5, 16, 40])
def test_drop_frames_hides_an_animal_in_blocks(block: int) -> None:
    result = view(Augment(drop_frames=0.3, drop_block=block), WHOLE)
    gone = result.position_BTMKX.isnan().any(-1)
    assert torch.equal(gone, result.confidence_BTMK == 0)
    assert (gone.all(3) == gone.any(3)).all(), "an animal is hidden in part"
    for begin in range(0, 16, block):
        piece = gone[:, begin : begin + block, :, 0]
        assert (piece.all(1) == piece.any(1)).all()
    often(gone[:, ::block, :, 0], 0.3)


def test_all_together_stay_consistent() -> None:
    result = view(ALL)
    assert torch.equal(result.position_BTMKX.isnan().any(-1), result.confidence_BTMK == 0)
    assert (result.position_BTMKX.isnan().any(-1) == result.position_BTMKX.isnan().all(-1)).all()
    assert result.position_BTMKX.dtype == result.confidence_BTMK.dtype == torch.float32


def test_draws_belong_to_the_window() -> None:
    order = torch.randperm(600, generator=torch.Generator().manual_seed(0))
    whole, shuffled = view(ALL), view(ALL, rows_of(MANY, order))
    assert same(shuffled.position_BTMKX, whole.position_BTMKX[order]).all()
    assert same(shuffled.confidence_BTMK, whole.confidence_BTMK[order]).all()
    assert same(
        view(ALL, rows_of(MANY, slice(10, 13))).position_BTMKX, whole.position_BTMKX[10:13]
    ).all()


def test_views_of_other_names_differ_and_of_one_name_agree() -> None:
    one, again, other = view(ALL), view(ALL), view(ALL, name="1")
    assert same(one.position_BTMKX, again.position_BTMKX).all()
    assert not same(one.position_BTMKX, other.position_BTMKX).any()


Small = Annotated[float, Limit("lie in 0…50", lambda px: 0 <= px <= 50)]


def test_an_augmentation_is_added_by_being_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def shift(pose: Pose, schema: Schema, rng: WindowRNG, *, shift_px: Small = 0.0) -> Pose:
        moved = rng.uniform("shift", 1, 1, 1, 2) * shift_px
        return pose._replace(position_BTMKX=pose.position_BTMKX + moved)

    monkeypatch.setattr(augment, "shift", augment.augmentation()(shift), raising=False)
    moved = view(Augment(shift_px=10.0), WHOLE).position_BTMKX - WHOLE.pose.position_BTMKX
    assert 4 < moved.mean() < 6
    assert not torch.allclose(
        moved, view(Augment(shift_px=10.0), WHOLE, name="1").position_BTMKX - moved
    )
    recipe = {"encoder": {"name": "tcn"}, "objective": {"name": "masked"}}
    asked = make(Recipe, {**recipe, "augment": {"shift_px": 3.0}}, about="a recipe")
    assert asked.augment["shift_px"] == 3.0
    assert make(Recipe, recipe, about="a recipe").augment["shift_px"] == 0.0
    with pytest.raises(BadInput, match=r"augment: shift_px is 60.0; it must lie in 0…50"):
        make(Recipe, {**recipe, "augment": {"shift_px": 60.0}}, about="a recipe")


def test_a_seed_gives_the_same_view_in_every_version() -> None:
    """Recorded once: sums of the coordinates of each window, how many points it misses, and one of
    its points."""
    windows = windows_of(MICE, batch=3, frames=12, seed=3, missing=0.1)
    truth = {
        "0": (
            [[64247.07, 21922.62], [55193.12, 43862.33], [77295.87, 52229.08]],
            [70, 49, 33],
            [[646.5195, 219.7961], [474.5378, 417.8960], [594.2185, 401.5527]],
        ),
        "1": (
            [[39123.73, 29754.38], [45104.99, 46131.1], [48719.1, 21446.03]],
            [70, 59, 92],
            [[407.5269, 335.8131], [466.4566, 390.4001], [math.nan, math.nan]],
        ),
    }
    for name, (sums, missing, point) in truth.items():
        result = view(ALL, windows, name=name)
        position = result.position_BTMKX
        total = position.double().nan_to_num(0.0).sum((1, 2, 3))
        torch.testing.assert_close(total, torch.tensor(sums).double(), atol=0.05, rtol=0)
        assert (result.confidence_BTMK == 0).sum((1, 2, 3)).tolist() == missing
        torch.testing.assert_close(
            position[:, 0, 0, 0], torch.tensor(point), atol=1e-3, rtol=0, equal_nan=True
        )


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("mirror", 1.5),
        ("mirror", math.nan),
        ("exchange", -0.1),
        ("scale", -1.0),
        ("scale", "much"),
        ("rotate", 1),
        ("jitter_px", -1.0),
        ("drop_block", 0),
        ("drop_block", 2.5),
        ("blur", 1.0),
    ],
)
def test_settings_that_cannot_be(setting: str, value: object) -> None:
    with pytest.raises(BadInput, match=setting):
        Augment(**{setting: value})
