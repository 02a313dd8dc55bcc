"""Which windows an epoch is made of: every frame once, no window over the end of a video, the same
batches for any number of workers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from worlds import MICE, RATS, chunks_of, frames_seen, marked, marked_store, wander_store

from pretrain.data import store_writer as stores
from pretrain.data.sample import sample
from pretrain.data.schema import Schema
from pretrain.data.store import Chunks
from pretrain.data.windows import (
    BatchPlan,
    FrameBuffer,
    Pose,
    Windows,
    chunk_offset,
    cover,
    group_frames,
    hash_integers,
)

ONE_POINT = Schema.from_names(animals=("a",), keypoints=("p",), fps=30.0, image_px=(10.0, 10.0))
FEW = settings(max_examples=40, deadline=None)
LENGTHS = st.lists(st.integers(1, 90), min_size=1, max_size=8)


def everything_read(chunks: Chunks, window: int) -> tuple[FrameBuffer, np.ndarray]:
    """A buffer with the marked frames of every row group, and where each chunk begins in it."""
    groups = group_frames(chunks)
    buffer = FrameBuffer(int(groups.sum()), (1, 1, 2), window=window)
    begins = []
    for group in np.unique(chunks.group_id):
        rows = np.flatnonzero(chunks.group_id == group)
        frames = np.concatenate([chunks.first_frame[r] + np.arange(chunks.frames[r]) for r in rows])
        position = torch.tensor(
            np.stack([np.repeat(chunks.video[rows], chunks.frames[rows]), frames], -1),
            dtype=torch.float32,
        )
        begins.append(
            buffer.put(
                position.view(-1, 1, 1, 2),
                torch.full((len(position), 1, 1), 255, dtype=torch.uint8),
            )
        )
    return buffer, np.array(begins)[chunks.group_id] + chunk_offset(chunks)


def epoch_of(plan: BatchPlan, chunks: Chunks, *, epoch: int, workers: int) -> list[list[Windows]]:
    """Every worker's windows of every step."""
    buffer, begin_of_chunk = everything_read(chunks, plan.window)
    steps = []
    for windows in plan.epoch(epoch):
        step = []
        for rank in range(workers):
            mine = windows[plan.lanes_of(rank, workers)]
            row = np.maximum(mine, 0)
            tiles = plan.tiles(row)
            begin = np.where(mine < 0, 0, begin_of_chunk[tiles.chunk] + tiles.start)
            step.append(
                buffer.cut(begin, np.where(mine < 0, 0, tiles.frames), plan.key(row, epoch))
            )
        steps.append(step)
    return steps


@FEW
@given(
    lengths=LENGTHS,
    chunk=st.sampled_from([7, 16, 1024]),
    group=st.integers(1, 4),
    window=st.integers(1, 40),
    epoch=st.integers(0, 3),
)
def test_every_frame_is_seen_exactly_once_an_epoch_by_1_2_and_3_workers(
    lengths: list[int], chunk: int, group: int, window: int, epoch: int
) -> None:
    chunks = chunks_of(lengths, chunk_frames=chunk, group_chunks=group)
    plan = BatchPlan.from_chunks(chunks, window=window, batch=6, seed=3)
    truth = sorted(
        (video, frame) for video, frames in enumerate(lengths) for frame in range(frames)
    )
    batches = []
    for workers in (1, 2, 3):
        steps = epoch_of(plan, chunks, epoch=epoch, workers=workers)
        held = [[window for worker in step for window in frames_seen(worker)] for step in steps]
        for row in (row for step in held for row in step if row):
            assert len({video for video, _ in row}) == 1, (
                "a window crosses from one video into another"
            )
            assert [frame for _, frame in row] == list(range(row[0][1], row[0][1] + len(row)))
        assert sorted(frame for step in held for row in step for frame in row) == truth
        batches.append(held)
    assert batches[0] == batches[1] == batches[2], (
        "the global batches depend on the number of workers"
    )


@FEW
@given(
    lengths=LENGTHS,
    chunk=st.sampled_from([7, 1024]),
    window=st.integers(1, 100),
    batch=st.integers(1, 40),
    seed=st.integers(0, 5),
)
def test_lanes_hold_every_window_once_and_differ_by_one_at_most(
    lengths: list[int], chunk: int, window: int, batch: int, seed: int
) -> None:
    plan = BatchPlan.from_chunks(
        chunks_of(lengths, chunk_frames=chunk), window=window, batch=batch, seed=seed
    )
    tiles = plan.tiles(np.arange(len(plan)))
    per_lane = np.bincount(tiles.lane, minlength=batch)
    assert per_lane.max() - per_lane.min() <= 1
    assert tiles.frames.sum() == plan.frames == sum(lengths)
    assert tiles.frames.min() >= 1
    assert tiles.frames.max() <= window
    grids = [plan.epoch(epoch) for epoch in (0, 0, 1)]
    for grid in grids:
        assert grid.shape == (plan.steps, batch)
        assert sorted(grid[grid >= 0]) == list(range(len(plan)))
        assert (grid[:-1] >= 0).all(), "only the last step may have rows without a window"
        assert (tiles.lane[grid] == np.arange(batch))[grid >= 0].all(), (
            "a worker would need frames of another's lane"
        )
    np.testing.assert_array_equal(grids[0], grids[1])
    for lane in range(batch):
        windows = grids[0][:, lane]
        groups = tiles.group[windows[windows >= 0]]
        runs = 1 + int((np.diff(groups) != 0).sum()) if len(groups) else 0
        assert runs == len(set(groups.tolist())), "a lane comes back to a row group it has left"


def test_epochs_and_seeds_are_in_other_orders() -> None:
    chunks = chunks_of([5000])
    plan, other = (BatchPlan.from_chunks(chunks, window=16, batch=4, seed=seed) for seed in (0, 1))
    assert (plan.epoch(0) != plan.epoch(1)).mean() > 0.9
    assert (plan.epoch(0) != other.epoch(0)).mean() > 0.9


@pytest.mark.parametrize(
    ("lengths", "window", "batch", "steps"),
    [([1], 64, 8, 1), ([64], 64, 8, 1), ([65], 64, 1, 2), ([1] * 9, 5, 8, 2)],
)
def test_small_stores(lengths: list[int], window: int, batch: int, steps: int) -> None:
    plan = BatchPlan.from_chunks(chunks_of(lengths), window=window, batch=batch, seed=0)
    assert plan.steps == steps == len(plan.epoch(0))


def test_a_seed_of_draws_names_one_window_of_one_epoch() -> None:
    plan = BatchPlan.from_chunks(chunks_of([30_000, 30_000]), window=16, batch=4, seed=0)
    everyone = np.arange(len(plan))
    keys = np.concatenate([plan.key(everyone, epoch) for epoch in range(5)])
    assert len(np.unique(keys)) == len(keys) == 5 * len(plan)
    again = BatchPlan.from_chunks(chunks_of([30_000, 30_000]), window=16, batch=12, seed=0)
    there, here = (one.tiles(np.arange(len(one))) for one in (again, plan))
    keys = again.key(np.arange(len(again)), 2)
    where = {(c, s): key for c, s, key in zip(there.chunk, there.start, keys, strict=True)}
    assert [where[c, s] for c, s in zip(here.chunk, here.start, strict=True)] == list(
        plan.key(everyone, 2)
    ), "draws depend on the batch"


@FEW
@given(
    lengths=LENGTHS,
    group=st.integers(1, 4),
    window=st.integers(1, 40),
    batch=st.integers(1, 40),
    left_out=st.integers(0, 2),
)
def test_the_plan_is_what_a_table_of_all_windows_would_be(
    lengths: list[int], group: int, window: int, batch: int, left_out: int
) -> None:
    """Written down for every window of the store, as releases before did: old runs go on."""
    chunks = chunks_of([*lengths, 33], chunk_frames=16, group_chunks=group)
    if left_out < len(lengths):
        chunks = replace(chunks, left_out=chunks.video == left_out)
    plan = BatchPlan.from_chunks(chunks, window=window, batch=batch, seed=5)
    groups = np.unique(chunks.group_id)
    ranks = dict(zip(groups[np.argsort(hash_integers(5, 1, groups))], range(99), strict=False))
    table = [
        (c, start, min(window, int(chunks.frames[c]) - start), int(chunks.group_id[c]))
        for c in sorted(range(len(chunks.frames)), key=lambda c: ranks[chunks.group_id[c]])
        for start in range(0, int(chunks.frames[c]), window)
        if chunks.left_out is None or not chunks.left_out[c]
    ]
    bounds = [lane * len(table) // batch for lane in range(batch + 1)]
    lanes = [lane for lane in range(batch) for _ in range(bounds[lane], bounds[lane + 1])]
    assert list(zip(*plan.tiles(np.arange(len(plan))), strict=True)) == [
        (*row, lane) for row, lane in zip(table, lanes, strict=True)
    ]
    grid = np.full((-(-len(table) // batch), batch), -1)
    for lane in range(batch):
        order = sorted(
            range(bounds[lane], bounds[lane + 1]),
            key=lambda w: (hash_integers(5, 2, 7, lane, table[w][3]), hash_integers(5, 3, 7, w)),
        )
        grid[: len(order), lane] = order
    np.testing.assert_array_equal(plan.epoch(7), grid)
    some = slice(batch // 3, batch)
    np.testing.assert_array_equal(plan.epoch(7, some), grid[:, some])


def test_a_plan_takes_a_small_part_of_what_a_table_would() -> None:
    plan = BatchPlan.from_chunks(chunks_of([4_000_000]), window=64, batch=8, seed=0)
    arrays = (plan.chunk, plan.chunk_frames, plan.chunk_group, plan.first)
    assert sum(array.nbytes for array in arrays) < 3 * len(plan), "bytes a window; a table had 40"


def test_mix_spreads_neighbours() -> None:
    hashes = hash_integers(0, np.arange(20_000))
    bits = (hashes[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert np.abs(bits.mean(0) - 0.5).max() < 0.02
    assert len(np.unique(hashes)) == 20_000
    assert hash_integers(1, 2) != hash_integers(2, 1)


def test_lanes_must_divide_among_workers() -> None:
    with pytest.raises(AssertionError, match="8 lanes cannot be divided among 3"):
        BatchPlan.from_chunks(chunks_of([100]), window=4, batch=8, seed=0).lanes_of(0, 3)


def test_cut_windows_are_missing_beyond_their_end() -> None:
    video = marked(3, 40)
    buffer = FrameBuffer(40, MICE.shape, window=16)
    begin = buffer.put(
        torch.from_numpy(video.position_TMKX),
        torch.from_numpy((video.confidence_TMK * 255).astype(np.uint8)),
    )
    windows = buffer.cut(
        np.array([begin + 4, begin + 36, 0]), np.array([16, 4, 0]), np.array([1, 2, 3])
    )
    assert frames_seen(windows) == [
        [(3, f) for f in range(4, 20)],
        [(3, f) for f in range(36, 40)],
        [],
    ]
    assert windows.valid_BT.sum(1).tolist() == [16, 4, 0]
    beyond = ~windows.valid_BT
    assert windows.pose.position_BTMKX[beyond].isnan().all()
    assert (windows.pose.confidence_BTMK[beyond] == 0).all()
    assert windows.key_B.tolist() == [1, 2, 3]


def test_a_missing_point_is_nan_never_a_coordinate() -> None:
    buffer = FrameBuffer(4, (1, 2, 2), window=4)
    confidence = torch.tensor([[[255, 0]], [[0, 128]], [[1, 255]], [[0, 0]]], dtype=torch.uint8)
    buffer.put(
        torch.zeros(4, 1, 2, 2).masked_fill(confidence.unsqueeze(-1) == 0, torch.nan), confidence
    )
    pose = buffer.cut(np.array([0]), np.array([4]), np.array([0])).pose
    torch.testing.assert_close(pose.position_BTMKX.isnan().all(-1)[0], confidence == 0)
    torch.testing.assert_close(pose.confidence_BTMK[0], confidence / 255)


def test_what_is_cut_is_a_copy() -> None:
    buffer = FrameBuffer(8, (1, 1, 2), window=4)
    buffer.put(torch.ones(8, 1, 1, 2), torch.full((8, 1, 1), 255, dtype=torch.uint8))
    first = buffer.cut(np.array([0]), np.array([4]), np.array([0]))
    first.pose.position_BTMKX.fill_(7)
    second = buffer.cut(np.array([2]), np.array([4]), np.array([0]))
    assert (second.pose.position_BTMKX == 1).all()


def test_slots_are_used_again_and_a_full_buffer_says_so() -> None:
    def frames(value: float, number: int) -> tuple[Tensor, Tensor]:
        return torch.full((number, 1, 1, 2), float(value)), torch.full(
            (number, 1, 1), 255, dtype=torch.uint8
        )

    buffer = FrameBuffer(20, (1, 1, 2), window=4, slot=10)
    first, second = buffer.put(*frames(1, 10)), buffer.put(*frames(2, 6))
    buffer.drop(first)
    third = buffer.put(*frames(3, 8))
    assert third == first
    cut = buffer.cut(
        np.array([second, third]), np.array([4, 4]), np.array([0, 0])
    ).pose.position_BTMKX
    assert cut[:, :, 0, 0, 0].tolist() == [[2] * 4, [3] * 4]
    with pytest.raises(AssertionError, match="more frames"):
        FrameBuffer(20, (1, 1, 2), window=4, slot=10).put(*frames(1, 11))


@FEW
@given(total=st.integers(1, 80), window=st.integers(1, 40), overlap=st.integers(0, 12))
def test_cover_answers_for_every_frame_once_with_its_context(
    total: int, window: int, overlap: int
) -> None:
    position = torch.arange(total, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 1, 1, 2)
    answered = []
    for windows, kept, inside in cover(
        Pose(position[None], torch.ones(1, total, 1, 1)), window=window, overlap=overlap
    ):
        frames = windows.pose.position_BTMKX[0, :, 0, 0, 0].long().tolist()
        assert frames[inside] == list(range(total))[kept]
        assert frames[0] == max(0, kept.start - overlap)
        assert frames[-1] == min(total, kept.stop + overlap) - 1
        answered += frames[inside]
    assert answered == list(range(total))


def test_a_sample_is_the_same_for_all_who_ask_and_from_everywhere(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(stores, "CHUNK_FRAMES", 16)
    store = marked_store(tmp_path / "store", [70, 5, 100], RATS)
    one, two = (sample(store, seed=1, windows=9, frames=8) for _ in range(2))
    torch.testing.assert_close(one, two, equal_nan=True)
    starts = {tuple(row[0]) for row in one.position_BTMKX[:, :, 0, 0].nan_to_num(-1).tolist()}
    assert len(starts) == 9, "two stretches come from one chunk"
    assert all(frame % 16 == 0 for _, frame in starts)
    assert len({video for video, _ in starts}) > 1
    whole = sample(wander_store(tmp_path / "short", [5]), seed=0)
    assert whole.position_BTMKX.shape == (1, 256, *MICE.shape)
    assert whole.position_BTMKX[0, 5:].isnan().all()
