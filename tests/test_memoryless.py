"""Poses without memory: every frame is noise that tells nothing of any other frame or view. No
objective may learn to do better than guessing there, by whatever an encoder sees of its window."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from worlds import MICE, windows_of

from pretrain.components import build, names
from pretrain.config import Optimiser
from pretrain.data.schema import Schema
from pretrain.data.window_rng import WindowRNG
from pretrain.data.windows import Pose, Windows
from pretrain.encoders import build_embedder
from pretrain.objectives import AbstractObjective
from pretrain.objectives._actions import shares_below
from pretrain.objectives.multi_timescale import MultiTimescale
from pretrain.objectives.task_programming import TaskProgramming
from pretrain.train.learner import Learner
from pretrain.train.step import OptimiserStep
from pretrain.transforms.augment import Augment

BATCH, FRAMES, JITTER = 24, 48, 60.0
TCN = {"name": "tcn", "width": 32, "layers": 4}  # sees 30 frames to either side
ONE_FRAME = {"name": "fully_connected", "past": 0, "future": 0, "widths": [32], "dim": 16}
FEATURES = {"groups": ["posture", "relation", "confidence"], "lags": []}


def still(step: int) -> Windows:
    """Windows in which nothing ever differs; views get their noise from the augmentation. One in
    four is cut short."""
    shape = (BATCH, FRAMES, *MICE.shape[:2])
    key = torch.arange(BATCH) + 1000 * step
    length = torch.full((BATCH, 1), FRAMES)
    length[::4] = FRAMES - 8
    valid = torch.arange(FRAMES) < length
    pose = Pose(torch.full((*shape, 2), 300.0), torch.ones(shape))
    hidden = (~valid)[:, :, None, None].expand(shape)
    return Windows(pose.hidden(hidden), valid, key, torch.full_like(key, step))


def learner_of(
    objective: Mapping[str, Any],
    encoder: Mapping[str, Any] = TCN,
    world: Callable[[int], Windows] = still,
) -> Learner:
    torch.manual_seed(3)
    augment = Augment(jitter_px=JITTER)
    noise = world(10**6).pose
    if world is still:
        noise = augment(noise, MICE, WindowRNG(torch.arange(BATCH)), view="fit")
    embedder = build_embedder(MICE, features=FEATURES, encoder=encoder)
    embedder.features.fit(noise)
    loss: AbstractObjective = build(
        "pretrain.objectives", objective, AbstractObjective, embedder.dim, MICE
    )
    loss.fit(noise)
    return Learner(embedder, loss, augment, precision="float32")


def after_training(
    learner: Learner,
    *,
    world: Callable[[int], Windows] = still,
    steps: int = 150,
    scored: int = 60,
) -> dict[str, float]:
    """The parts of the loss, averaged over steps of their own after training."""
    step = OptimiserStep(learner, Optimiser(lr=0.003))
    for index in range(steps):
        step(world(index))
    with torch.no_grad():
        parts = [learner(world(steps + index)).parts for index in range(scored)]
    return {name: float(torch.stack([p[name] for p in parts]).mean()) for name in parts[0]}


def guesses(loss: float, found: float, candidates: list[int]) -> None:
    """A retrieval that guesses: candidates has the number for each window of a batch."""
    chance = sum(map(math.log, candidates)) / len(candidates)
    assert loss == pytest.approx(chance, abs=0.05)
    assert found == pytest.approx(sum(1 / n for n in candidates) / len(candidates), abs=0.012)


def candidates(views: int) -> list[int]:
    """Of a window that is cut short those that are as short, of the others the others."""
    short = BATCH // 4
    minus = views - 1
    return [views * short - minus] * short + [views * (BATCH - short) - minus] * (BATCH - short)


def of_contrastive(part: dict[str, float]) -> None:
    guesses(part["contrastive"], part["contrastive_found"], candidates(2))


def of_cpc(part: dict[str, float]) -> None:
    guesses(part["cpc"], part["cpc_found"], candidates(1))


def of_masked(part: dict[str, float], prefix: str = "") -> None:
    assert part["masked"] > 0.98 * part[f"{prefix}masked_blind"]


MASKED = {"name": "masked", "everything": 0.3, "animal": 0.0, "point": 0.0}
CPC = {"name": "cpc", "horizons": [2, 8]}


def contrastive() -> None:
    of_contrastive(after_training(learner_of({"name": "contrastive"})))


def cpc() -> None:
    of_cpc(after_training(learner_of(CPC)))


def masked() -> None:
    of_masked(after_training(learner_of(MASKED)))


def combined() -> None:
    parts = [{"name": "contrastive"}, CPC, MASKED]
    part = after_training(learner_of({"name": "combined", "parts": parts}))
    of_contrastive(part)
    of_cpc(part)
    of_masked(part)


def multi_timescale() -> None:
    """Of an encoder that does not see the frames to come. Latents that should agree have no level
    of chance, as a constant one agrees."""
    settings = {"name": "multi_timescale", "horizons": [5, 20], "latent": 0.0}
    learner = learner_of(settings, ONE_FRAME)
    part = after_training(learner)
    objective = learner.objective
    assert isinstance(objective, MultiTimescale)
    low, high = objective.actions.range_A2.unbind(-1)
    inner = torch.arange(1, objective.bins) / objective.bins
    edge_AE = low[:, None] + (high - low)[:, None] * inner
    for horizon in objective.horizons:
        below, weight = [], []
        for index in range(
            60
        ):  # as many as were scored, the best that one histogram for all can do
            windows = still(5000 + index)
            pose = learner.augment(windows.pose, MICE, WindowRNG(windows.key_B), view="0")
            value = objective.actions(pose).masked_fill(~windows.valid_BT.unsqueeze(-1), torch.nan)
            frame = (
                WindowRNG(windows.key_B).uniform("any", 16) * windows.valid_BT.sum(1, True)
            ).long()
            shares, known = shares_below(value, edge_AE, frame, horizon)
            below.append(shares)
            weight.append(known)
        share, w = torch.cat(below).flatten(0, 1), torch.cat(weight).flatten(0, 1).unsqueeze(-1)
        mean = (w * share).sum(0) / w.sum(0)
        constant = (w * (share - mean).square()).sum((0, 2)) / w.sum((0, 2))
        assert part[f"histogram_{horizon}"] > 0.97 * float(constant.mean())


class Unrelated(Augment):
    """Views of other animals than those that the programs read before noise."""

    def with_tracker_errors(
        self, exact: Pose, schema: Schema, rng: WindowRNG, *, view: str
    ) -> Pose:
        seed = int(rng.uniform("seed", 1)[0, 0] * 10**6)
        return windows_of(MICE, batch=BATCH, frames=32, seed=seed + int(view), missing=0.0).pose


def wandering(step: int) -> Windows:
    return windows_of(MICE, batch=BATCH, frames=32, seed=step, missing=0.0)


def task_programming() -> None:
    """Labels that have nothing to do with what the encoder sees; that a code describes the
    trajectory it was made from is no guess."""
    settings = {"name": "task_programming", "trajectories": 4, "width": 32, "quantiles": [0.5]}
    learner = learner_of({**settings, "decoding": 1.0}, world=wandering)
    learner.augment = Unrelated()
    part = after_training(learner, world=wandering, steps=80, scored=30)
    objective = learner.objective
    assert isinstance(objective, TaskProgramming)
    label_NP = torch.cat(
        [objective.labels(wandering(80 + i).pose.position_BTMKX)[:, 10:-10] for i in range(30)]
    ).flatten(0, 1)
    share_PC = torch.stack([(label_NP == c).double().mean(0) for c in range(2)], 1)
    entropy = float(-(share_PC * share_PC.log()).sum())
    assert part["contrastive"] > 0.995 * len(share_PC) * math.log(2 * BATCH - 1)
    assert part["decoding"] > 0.98 * entropy
    assert part["consistency"] > 0.98 * entropy


GUESSES: Mapping[str, Callable[[], None]] = {
    "combined": combined,
    "contrastive": contrastive,
    "cpc": cpc,
    "masked": masked,
    "multi_timescale": multi_timescale,
    "task_programming": task_programming,
}


@pytest.mark.parametrize("objective", names("pretrain.objectives"))
def test_an_objective_guesses_where_nothing_can_be_known(objective: str) -> None:
    assert objective in GUESSES, "say what its loss is where nothing can be known"
    GUESSES[objective]()
