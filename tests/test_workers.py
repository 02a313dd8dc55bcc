"""Two and three gloo workers give the loss and the gradient of one process with the joined
batch."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from worlds import MICE, learner_of, rows_of, windows_of

from pretrain import distributed
from pretrain.components import names
from pretrain.data.windows import Pose, Windows
from pretrain.objectives import Loss
from pretrain.train.learner import Learner
from pretrain.transforms.augment import Augment

WORLDS = (2, 3)
SECONDS = 300
BATCH = 12
AUGMENT = Augment(
    rotate=True,
    mirror=0.5,
    exchange=0.5,
    scale=0.1,
    jitter_px=1.0,
    drop_points=0.1,
    drop_frames=0.1,
)
JOINED = {
    # With three workers the last has cut and empty rows only; with two, four of its six.
    "cut and empty": windows_of(MICE, batch=BATCH, frames=40, seed=1, cut=(39, 3, 1, 0)),
    "whole": windows_of(MICE, batch=BATCH, frames=40, seed=2),
    "nothing at all on the last": windows_of(MICE, batch=BATCH, frames=40, seed=3, cut=(0,) * 6),
}
COMPONENTS = [("tcn", objective) for objective in names("pretrain.objectives")] + [
    (e, "contrastive") for e in names("pretrain.encoders")
]
LEARNERS = [
    (*parts, batch)
    for parts in dict.fromkeys(COMPONENTS)
    for batch in (JOINED if parts == ("tcn", "contrastive") else ["cut and empty"])
]


def loss_and_gradient(model: nn.Module, learner: Learner, windows: Windows) -> dict[str, Any]:
    loss: Loss = model(windows)
    loss.total.backward()
    gradient = {
        name: p.grad.clone() for name, p in learner.named_parameters() if p.grad is not None
    }
    return {
        "loss": distributed.mean(loss.total),
        "parts": {k: distributed.mean(v) for k, v in loss.parts.items()},
        "gradient": gradient,
        "buffers": dict(learner.named_buffers()),  # running averages, which nobody broadcasts
    }


def rows_for(rank: int, world: int) -> slice:
    return slice(rank * BATCH // world, (rank + 1) * BATCH // world)


def learn(world: int) -> dict[str, Any]:
    """In float64: in float32 a maximum or a ReLU tips now and then, as sums of another batch are
    rounded otherwise."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Tensor, "float", Tensor.double
        )  # which is said of what may have been multiplied in bf16
        for encoder, objective, batch in LEARNERS:
            learner = learner_of(MICE, encoder, objective, JOINED["whole"].pose, AUGMENT).double()
            model: nn.Module = learner
            if world > 1:
                model = nn.parallel.DistributedDataParallel(learner, broadcast_buffers=False)
            rows = rows_of(JOINED[batch], rows_for(distributed.rank(), world))
            rows = rows._replace(pose=Pose(*(x.double() for x in rows.pose[:2])))
            found[encoder, objective, batch] = loss_and_gradient(model, learner, rows)
    return found


# -- gather and means, with losses that differ from worker to worker -------------------------------


def inputs(world: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of all workers, (world, 4, 3); something added after gathering, and weights of each
    worker's loss, (world, world * 4, 3)."""
    generator = torch.Generator().manual_seed(world)
    return tuple(
        torch.randn(*shape, generator=generator)
        for shape in ((world, 4, 3), (world, world * 4, 3), (world, world * 4, 3))
    )  # type: ignore[return-value]


def term(joined: Tensor, mine: Tensor, weight: Tensor) -> Tensor:
    return ((joined @ joined.T).tanh() @ (joined * weight)).sum() + (mine.square() @ joined.T).sum()


def gathering(world: int) -> dict[str, Any]:
    rank = distributed.rank()
    x, added, weight = inputs(world)
    mine = x[rank].clone().requires_grad_()
    term(distributed.gather(mine), mine, weight[rank]).backward()

    again, beside = x[rank].clone().requires_grad_(), added[rank].clone().requires_grad_()
    earlier = beside * 1.0  # so that its turn in the backward pass comes after gather's
    ((distributed.gather(again) + earlier) * weight[rank]).sum().backward()

    column = x[rank].clone().requires_grad_()
    distributed.gather(column.T.contiguous().T)[:, 1].sum().backward()
    total = (x[rank, : rank + 1] * 2).sum().requires_grad_()
    share = distributed.mean_over_workers(total, torch.tensor(3 * (rank + 1)))
    share.backward()
    return {
        "joined": distributed.gather(x[rank]),
        "gradient": mine.grad,
        "shared": (again.grad, beside.grad),
        "column": column.grad,
        "bool": distributed.gather(x[rank] > 0),
        "int": distributed.gather((x[rank] * 100).long()),
        "rank": (rank, distributed.count()),
        "mean": distributed.mean(torch.tensor(float(rank))),
        "share": (share.detach(), total.grad),
        "nothing": distributed.mean_over_workers(torch.zeros(()), torch.tensor(0)),
    }


def worker(place: int, folder: str) -> None:
    """One process: first a world of two (without the third process), then one of three."""
    torch.set_num_threads(1)
    for world in WORLDS:
        if place < world:
            dist.init_process_group(
                "gloo", init_method=f"file://{folder}/meet-{world}", rank=place, world_size=world
            )
            torch.save(
                {"gather": gathering(world), "learn": learn(world)}, f"{folder}/{world}-{place}.pt"
            )
            dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    """What every worker of every world found."""
    folder = tmp_path_factory.mktemp("gloo")
    if "lo" not in [name for _, name in socket.if_nameindex()]:
        pytest.skip("there is no loopback interface named lo")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    context = mp.spawn(worker, args=(str(folder),), nprocs=max(WORLDS), join=False)
    try:
        until = time.monotonic() + SECONDS
        while not context.join(timeout=1):
            if time.monotonic() > until:
                pytest.fail(f"the workers have not come to an end after {SECONDS} s")
    finally:
        for process in context.processes:
            if process.is_alive():
                process.kill()
                process.join()
    return {
        world: [
            torch.load(Path(folder) / f"{world}-{rank}.pt", weights_only=False)
            for rank in range(world)
        ]
        for world in WORLDS
    }


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """What one process finds with the joined batch."""
    return learn(1)


def near(found: Tensor, truth: Tensor, *, within: float = 2e-5) -> None:
    """Equal up to float32's rounding of sums, relative to the largest entry."""
    scale = truth.abs().max().item()
    torch.testing.assert_close(found, truth, rtol=0, atol=within * max(scale, 1e-6))


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(("encoder", "objective", "batch"), LEARNERS)
def test_workers_give_the_loss_and_gradient_of_the_joined_batch(
    found: dict[int, Any],
    alone: dict[str, Any],
    world: int,
    encoder: str,
    objective: str,
    batch: str,
) -> None:
    truth = alone[encoder, objective, batch]
    assert truth["loss"] > 0
    for rank in range(world):
        mine = found[world][rank]["learn"][encoder, objective, batch]
        assert mine["loss"].dtype == torch.float64
        near(mine["loss"], truth["loss"], within=1e-12)
        for name, part in truth["parts"].items():
            near(mine["parts"][name], part, within=1e-12)
        assert set(mine["gradient"]) == set(truth["gradient"])
        assert truth["gradient"], "nothing has a gradient"
        for name, value in truth["buffers"].items():
            torch.testing.assert_close(mine["buffers"][name], value, rtol=1e-10, atol=1e-12)
        whole = torch.cat([g.flatten() for g in truth["gradient"].values()])
        assert whole.norm() > 1e-3
        for name, gradient in truth["gradient"].items():
            apart = (mine["gradient"][name] - gradient).norm()
            assert apart <= 1e-11 * gradient.norm() + 1e-14 * whole.norm(), (
                f"{name}: {apart} of {gradient.norm()}"
            )


def test_the_comparison_would_see_negatives_that_are_not_gathered(alone: dict[str, Any]) -> None:
    learner = learner_of(MICE, "tcn", "contrastive", JOINED["whole"].pose, AUGMENT)
    halves = [learner(rows_of(JOINED["whole"], rows_for(rank, 2))).total for rank in range(2)]
    apart = abs(sum(halves).item() / 2 - alone["tcn", "contrastive", "whole"]["loss"].item())
    assert apart > 0.05


@pytest.mark.parametrize("world", WORLDS)
def test_gather_joins_in_order_of_rank(found: dict[int, Any], world: int) -> None:
    x, _, _ = inputs(world)
    for rank in range(world):
        mine = found[world][rank]["gather"]
        assert mine["rank"] == (rank, world)
        assert torch.equal(mine["joined"], x.flatten(0, 1))
        assert torch.equal(mine["bool"], x.flatten(0, 1) > 0)
        assert mine["bool"].dtype == torch.bool
        assert torch.equal(mine["int"], (x.flatten(0, 1) * 100).long())


@pytest.mark.parametrize("world", WORLDS)
def test_the_gradient_of_gather_is_autograds_on_the_joined_tensor(
    found: dict[int, Any], world: int
) -> None:
    x, _, weight = inputs(world)
    whole = x.clone().requires_grad_()
    sum(term(whole.flatten(0, 1), whole[rank], weight[rank]) for rank in range(world)).backward()  # type: ignore[union-attr]
    for rank in range(world):
        near(found[world][rank]["gather"]["gradient"], whole.grad[rank])  # type: ignore[index]
        assert torch.equal(
            found[world][rank]["gather"]["column"], torch.tensor([0.0, world, 0.0]).expand(4, 3)
        )


@pytest.mark.parametrize("world", WORLDS)
def test_gather_leaves_the_gradients_of_others_alone(found: dict[int, Any], world: int) -> None:
    _, _, weight = inputs(world)
    for rank in range(world):
        rows, beside = found[world][rank]["gather"]["shared"]
        near(rows, weight.sum(0).view(world, 4, 3)[rank])
        assert torch.equal(beside, weight[rank])


@pytest.mark.parametrize("world", WORLDS)
def test_mean_over_workers_is_the_mean_of_the_joined_terms(
    found: dict[int, Any], world: int
) -> None:
    x, _, _ = inputs(world)
    number = sum(3 * (rank + 1) for rank in range(world))
    total = sum((x[rank, : rank + 1] * 2).sum() for rank in range(world))
    shares = [found[world][rank]["gather"]["share"] for rank in range(world)]
    torch.testing.assert_close(sum(share for share, _ in shares) / world, total / number)
    for rank in range(world):
        torch.testing.assert_close(shares[rank][1] / world, torch.tensor(1 / number))
        assert found[world][rank]["gather"]["mean"] == (world - 1) / 2
        assert found[world][rank]["gather"]["nothing"] == 0


@pytest.mark.parametrize(
    "call",
    [
        distributed.gather,
        distributed.mean,
        lambda x: distributed.mean_over_workers(x.sum(), torch.tensor(1)),
    ],
)
def test_one_worker_needs_no_process_group(call: Callable[[Tensor], Tensor]) -> None:
    assert not dist.is_initialized()
    assert torch.equal(call(torch.ones(1)).flatten(), torch.ones(1))
    assert (distributed.rank(), distributed.count()) == (0, 1)
