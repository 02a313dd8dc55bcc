"""Torch functions of planes made C loops: the same numbers, or a clear word why not."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pretrain.frame_loop import frame_loop

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
REACH = 3


def arithmetic(planes_NKBT: Tensor) -> Tensor:
    """All operations that are known, some along the points, some on what lies frames away."""
    first, second = planes_NKBT.unbind(0)
    mean, total = planes_NKBT.mean(1), first.sum(0, keepdim=True)
    moved = mean[..., 4:] - mean[..., :-4]
    moved = torch.cat([moved.new_full((2, 1, 2), torch.nan), moved, moved.new_full((2, 1, 2), torch.nan)], -1)
    again = (moved * 2)[..., 1:]
    again = torch.cat([again, again.new_zeros((2, 1, 1))], -1)
    seen = (planes_NKBT == planes_NKBT).to(planes_NKBT.dtype).sum(1)
    angle = torch.atan2(first, second)
    parts = [
        moved.abs() + 1, again.flip(0), total / 3, mean.addcmul(mean, mean, value=-1), seen, angle, -first[:2],
        second[2].unsqueeze(0).clone(), torch.where(first > second, first, -1.5), torch.where(first <= 0.3, second, torch.inf),
        torch.where(first.ne(second), first.square(), 0.0), torch.where(second < first, 1.0, first.abs().sqrt()),
        torch.where(second >= 0, second, -torch.inf), torch.where(first.eq(0), 1, first),
        planes_NKBT.nan_to_num(0.0).sum((0, 1)).unsqueeze(0),
    ]  # fmt: skip
    return torch.cat(parts).squeeze(1)


def poses(frames: int, numbers: tuple[int, ...], dtype: torch.dtype, missing: float) -> Tensor:
    generator = torch.Generator().manual_seed(frames)
    position = torch.randn(frames, *numbers, generator=generator, dtype=torch.float64).to(dtype)
    return position.masked_fill_(torch.rand(position.shape, generator=generator) < missing, torch.nan)


def as_planes(position: Tensor) -> Tensor:
    return position.movedim(0, -1).unsqueeze(-2).contiguous()


@needs_compiler
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 2e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("points", [3, 4])
def test_a_loop_does_what_torch_does(dtype: torch.dtype, within: float, points: int) -> None:
    """Tiles, what is left of them, numbers that are no multiple of four, with gaps and without."""
    loop = frame_loop(arithmetic, arithmetic, (2, points), dtype, reach=REACH)
    for frames, missing in ((7, 0.0), (128, 0.3), (700, 0.0), (701, 0.01)):
        position = poses(frames, (2, points), dtype, missing)
        wanted = arithmetic(as_planes(position))
        results = torch.full((len(wanted), frames + 5), -9.0, dtype=dtype)
        for first, last in ((REACH, 4), (4, 4), (4, frames - REACH)):
            loop(position, results[:, 2:-3], first, last)
        inside = slice(REACH, frames - REACH)
        torch.testing.assert_close(results[:, 2:-3][:, inside], wanted[:, inside], atol=within, rtol=within, equal_nan=True)
        around = torch.cat([results[:, : 2 + REACH], results[:, 2 + frames - REACH :]], 1)
        assert (around == -9).all(), "nothing else was written"


@needs_compiler
def test_arctangents_in_all_directions() -> None:
    def angle(planes_KBT: Tensor) -> Tensor:
        return torch.atan2(planes_KBT[0], planes_KBT[1])

    directions = [(y, x) for y in (-2.0, -1.0, -1e-30, 0.0, 1e-30, 1.0, 2.0) for x in (-2.0, -1.0, 0.0, 1e-30, 1.0, 3.0)]
    for dtype, within in ((torch.float32, 3e-7), (torch.float64, 1e-15)):
        position = torch.tensor([*directions, (torch.nan, 1.0), (1.0, torch.nan)], dtype=dtype)
        found = torch.empty(1, len(position), dtype=dtype)
        frame_loop(angle, angle, (2,), dtype, reach=0)(position, found, 0, len(position))
        wanted = torch.atan2(position[:, 0], position[:, 1])
        torch.testing.assert_close(found[0], wanted, atol=within, rtol=within, equal_nan=True)


@needs_compiler
def test_gaps_choose_the_loop() -> None:
    """Tile by tile: one number that is missing is enough, also among the neighbours that a frame looks at."""
    loop = frame_loop(lambda x: x[0] * 0 + 1, lambda x: x[0] * 0 + x[1] * 0 + 2, (5,), torch.float32, reach=1)
    position = poses(1000, (5,), torch.float32, 0.0)
    position[500, 4] = torch.nan
    found = torch.empty(1, 1000)
    loop(position, found, 1, 999)
    assert set(found[0, 1:999].tolist()) == {1.0, 2.0}
    assert (found[0, 499:502] == 2).all()
    assert (found[0, 1:300] == 1).all()
    assert (found[0, 700:999] == 1).all()


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda x: x[0].cumsum(-1), "cumsum"),
        (lambda x: x[0].sum(-1, keepdim=True), "along time"),
        (lambda x: x[0] - x.sum(), "along time"),
        (lambda x: x[0].flip(-1), "along time"),
        (lambda x: x[0][..., 1:], "each frame its number"),
        (lambda x: torch.cat([x[0][..., 1:], x[0][..., :1]], -1), "pieces of time"),
        (lambda x: torch.cat([x[0][..., 5:], x[0][..., :5] * 0 * torch.nan], -1), "pieces of time"),
        (lambda x: torch.cat([x[0][..., 5:], x[0].new_zeros(1, 5)], -1), "looks 3 frames away, not 5"),
        (lambda x: torch.cat([x[0].new_zeros(1, 10), x[0][..., 10:]], -1), "looks 3 frames away, not 10"),
        (lambda x: torch.cat([x[0][..., :-10], x[0].new_zeros(1, 10)], -1), "looks 3 frames away, not 10"),
        (lambda x: torch.cat([x[0].new_zeros(1, 2), torch.cat([x[0].new_zeros(1, 2), x[0][..., 2:]], -1)[..., :-2]], -1), "not 4"),
        (lambda x: torch.cat([x[0].new_zeros(1, 60), x[0].new_ones(1, 4)], -1), "pieces of time"),
        (lambda x: x[0].unsqueeze(-1).sum(-2), "time last"),
        (lambda x: x[0].double().float(), "float64"),
        (lambda x: torch.add(x[0], x[1], alpha=2).div(2, rounding_mode="floor"), "cannot do"),
    ],
)
def test_what_no_loop_over_frames_can_do(function: Callable[[Tensor], Tensor], says: str) -> None:
    with pytest.raises(NotImplementedError, match=says):
        frame_loop(function, function, (2,), torch.float32, reach=REACH)


def test_compilers_that_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def first(x: Tensor) -> Tensor:
        return x[0]

    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(RuntimeError, match=r"there is no C compiler 'no-such-compiler'; CC names another"):
        frame_loop(first, first, (2,), torch.float32, reach=0)
    monkeypatch.setenv("CC", "false --option")
    with pytest.raises(RuntimeError, match="false failed"):
        frame_loop(first, first, (2,), torch.float32, reach=0)
