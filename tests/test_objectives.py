"""Each objective against a slow reference or a closed form, and every mode of it on two workers."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor, nn
from worlds import MICE, RATS, embedder_of, line, pose_of, rows_of, wander, windows_of

from pretrain import distributed
from pretrain.components import build
from pretrain.config import RECIPES, Recipe, read
from pretrain.data.schema import Schema
from pretrain.data.window_rng import WindowRNG
from pretrain.data.windows import Pose, Windows
from pretrain.encoders import build_embedder
from pretrain.errors import BadInput
from pretrain.objectives import AbstractObjective, Loss, View
from pretrain.objectives._actions import Actions, shares_below
from pretrain.objectives._program_losses import Heads, class_surprise, supervised_contrastive
from pretrain.objectives._scene import Scene
from pretrain.objectives._trajectory_state import TrajectoryState
from pretrain.objectives._trajectory_vae import Approximators, Encode, Memory, Policy, Posterior
from pretrain.objectives.combined import Combined
from pretrain.objectives.cpc import CPC
from pretrain.objectives.masked import Masked
from pretrain.objectives.multi_timescale import MultiTimescale
from pretrain.objectives.task_programming import TaskProgramming
from pretrain.train.learner import Learner
from pretrain.transforms import programs
from pretrain.transforms.augment import Augment

D = 8


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def views_of(objective: AbstractObjective, windows: Windows, *, seed: int = 0) -> tuple[View, ...]:
    """Views with random embeddings."""
    return tuple(
        View(windows.pose, noise(*windows.valid_BT.shape, D, seed=seed + v))
        for v in range(objective.views)
    )


def loss_of(
    objective: AbstractObjective, windows: Windows, views: tuple[View, ...] | None = None
) -> Loss:
    result: Loss = objective(
        views or views_of(objective, windows), windows, WindowRNG(windows.key_B)
    )
    return result


# -- contrastive predictive coding -----------------------------------------------------------------


def test_cpc_is_the_formula_term_by_term() -> None:
    windows = windows_of(MICE, batch=8, frames=40, cut=(23, 23, 9, 1, 0))
    objective = CPC(D, MICE, horizons=(3, 8, 15, 90), past_only=False, projection=5)
    views = views_of(objective, windows)
    z, anchors, lengths = (
        views[0].z_BTD,
        objective.anchors(windows),
        windows.valid_BT.sum(1),
    )
    maps = objective.predict.weight.view(4, 5, D)
    terms = []
    for n, horizon in enumerate(objective.horizons):
        fits_any = [i for i in range(8) if anchors[i] + horizon < lengths[i]]
        for i in fits_any:
            fits = [j for j in fits_any if lengths[j] == lengths[i]]
            if len(fits) == 1:
                continue  # nothing to be told from
            cosines = [
                F.cosine_similarity(
                    maps[n] @ z[i, anchors[i]],
                    objective.target.weight @ z[j, anchors[j] + horizon],
                    dim=0,
                )
                / 0.07
                for j in fits
            ]
            terms.append(-cosines[fits.index(i)] + torch.logsumexp(torch.stack(cosines), 0))
    assert len(terms) > 6, "too few windows fit for this to say anything"
    torch.testing.assert_close(
        loss_of(objective, windows, views).total, torch.stack(terms).mean(), atol=1e-4, rtol=1e-4
    )


def test_cpc_where_all_is_alike_guesses() -> None:
    windows = windows_of(MICE, batch=7, frames=32)
    objective = CPC(D, MICE, horizons=(4, 16), past_only=False)
    loss = loss_of(objective, windows, (View(windows.pose, torch.ones(7, 32, D)),))
    assert loss.total.item() == pytest.approx(math.log(7), rel=1e-4)


@pytest.mark.parametrize("frames", [64, 128, 512])
def test_cpc_anchors_leave_room_for_every_horizon_of_half_a_window(frames: int) -> None:
    horizons = tuple(range(32, 225, 32))
    objective, windows = CPC(D, RATS, horizons=horizons), windows_of(RATS, batch=3, frames=frames)
    batches = [
        windows._replace(batch_key_B=torch.full_like(windows.key_B, batch)) for batch in range(200)
    ]
    each = torch.stack([objective.anchors(batch) for batch in batches])
    assert torch.equal(each, each[:, :1].expand(-1, 3)), "one index for all windows of a batch"
    anchors = each[:, 0]
    reach = max(h for h in horizons if h <= frames // 2)
    assert anchors.min() >= 0
    assert anchors.max() + reach < frames
    assert anchors.float().std() > 0.2 * (frames - reach), "anchors should lie anywhere"


def test_cpc_shows_no_frame_to_both_past_and_future() -> None:
    windows = windows_of(MICE, batch=8, frames=48, cut=(20, 0), missing=0.0)
    objective, rng = CPC(D, MICE, horizons=(4, 16)), WindowRNG(windows.key_B)
    past, future = (
        objective.mask(windows.pose, windows, rng, view=v).confidence_BTMK[..., 0, 0] > 0
        for v in (0, 1)
    )
    assert torch.equal(past ^ future, windows.valid_BT)
    anchors = objective.anchors(windows)
    for row in range(7):
        assert past[row, : anchors[row] + 1].all()
        assert not past[row, anchors[row] + 1 :].any()


def test_cpc_cannot_be_solved_by_an_encoder_that_looks_both_ways() -> None:
    """What view 0 shows after the anchor would reach its embedding; masked, the future has no
    gradient into it."""
    windows = windows_of(MICE, batch=4, frames=48, missing=0.0)
    objective, rng = CPC(32, MICE, horizons=(4, 8)), WindowRNG(windows.key_B)
    embedder = embedder_of(MICE, "tcn", windows.pose)
    pose = objective.mask(windows.pose, windows, rng, view=0)
    moved = Pose(
        windows.pose.position_BTMKX + 50 * noise(4, 48, 1, 1, 2), windows.pose.confidence_BTMK
    )
    after = torch.arange(48) > objective.anchors(windows)[:, None]
    other = Pose(
        torch.where(
            after[:, :, None, None, None], moved.position_BTMKX, windows.pose.position_BTMKX
        ),
        moved.confidence_BTMK,
    )
    z = [embedder(p, windows.valid_BT) for p in (pose, objective.mask(other, windows, rng, view=0))]
    torch.testing.assert_close(z[0], z[1])
    assert not torch.allclose(
        embedder(windows.pose, windows.valid_BT)[~after],
        embedder(other, windows.valid_BT)[~after],
        atol=1e-3,
    )


def test_the_entrys_recipe_shares_frames_at_its_shortest_horizon_only() -> None:
    """As its comment and docs/objectives.md say: 15 frames, and none at the others."""
    recipe = read(Recipe, "paper_embedder_contexter", RECIPES, {})
    narrow = {**recipe.encoder, "width": 8, "context_width": 8}
    past, future = build_embedder(MICE, features=recipe.features, encoder=narrow).encoder.context
    shared = [max(0, past + future + 1 - n) for n in recipe.objective["horizons"]]
    assert shared == [15, 0, 0, 0, 0, 0, 0]


def test_cpc_refuses_windows_that_are_too_short() -> None:
    windows = windows_of(MICE, batch=2, frames=16)
    with pytest.raises(
        BadInput, match=r"shortest of the horizons \[32, 64\] does not fit a window of 16 frames"
    ):
        loss_of(CPC(D, MICE, horizons=(32, 64)), windows)


# -- masked modelling ------------------------------------------------------------------------------


def test_masked_is_the_mean_error_of_hidden_points_that_are_known() -> None:
    windows = windows_of(MICE, batch=3, frames=24, cut=(9,), missing=0.2)
    objective = Masked(D, MICE, block=5)
    objective.fit(windows.pose)
    views = views_of(objective, windows)
    masked = objective.masked_points(windows, WindowRNG(windows.key_B))
    truth, guess = (
        objective.scene(windows.pose),
        objective.decode(views[0].z_BTD).view(3, 24, 2, 7, 6),
    )
    errors = [
        (guess[b, t, m, k, v] - truth[b, t, m, k, v]) ** 2
        for b, t, m, k in masked.nonzero().tolist()
        for v in range(6)
        if not truth[b, t, m, k, v].isnan()
    ]
    assert len(errors) > 100
    assert len(errors) < int(masked.sum()) * 6, "some masked points were never known"
    torch.testing.assert_close(
        loss_of(objective, windows, views).total, torch.stack(errors).mean(), atol=1e-5, rtol=1e-4
    )


def test_masked_masks_the_share_that_is_asked_for_in_blocks() -> None:
    windows = windows_of(MICE, batch=300, frames=64, missing=0.0)
    settings = {"everything": 0.1, "animal": 0.2, "point": 0.3}
    masked = Masked(D, MICE, block=8, **settings).masked_points(windows, WindowRNG(windows.key_B))
    assert masked.float().mean().item() == pytest.approx(1 - 0.9 * 0.8 * 0.7, abs=0.01)
    assert masked.all(-1).all(-1).float().mean().item() == pytest.approx(
        0.1 + 0.9 * 0.2**2, abs=0.02
    )
    changes = (masked[:, 1:] != masked[:, :-1]).float().mean((0, 2, 3))
    assert changes.min() > 0, "blocks should begin anywhere"
    assert changes.mean().item() == pytest.approx(
        2 * masked.float().mean().item() * (1 - masked.float().mean().item()) / 8, rel=0.1
    )


def test_masked_only_point_masks_whole_animals_no_more_than_by_chance() -> None:
    windows = windows_of(MICE, batch=200, frames=32, missing=0.0)
    masked = Masked(D, MICE, everything=0.0, animal=0.0, point=0.5).masked_points(
        windows, WindowRNG(windows.key_B)
    )
    assert masked.all(-1).float().mean() < 0.03


def test_a_decoder_that_knows_is_right_and_one_that_knows_nothing_is_blind() -> None:
    windows = windows_of(MICE, batch=16, frames=32)
    objective = Masked(6 * 14, MICE)
    objective.fit(windows.pose)
    objective.decode = nn.Sequential()
    truth = objective.scene(windows.pose).flatten(2).nan_to_num(0.0)
    assert loss_of(objective, windows, (View(windows.pose, truth),)).total.item() == pytest.approx(
        0, abs=1e-8
    )
    blind = loss_of(objective, windows, (View(windows.pose, torch.zeros_like(truth)),))
    assert blind.total == blind.parts["masked_blind"]
    assert blind.total.item() == pytest.approx(1, abs=0.2), "targets have unit spread"


def test_the_scene_does_not_change_when_it_is_moved_and_turned() -> None:
    windows = windows_of(MICE, batch=2, frames=20)
    scene = Scene(MICE)
    scene.fit(windows.pose)
    turn = torch.tensor([[math.cos(1.0), math.sin(1.0)], [-math.sin(1.0), math.cos(1.0)]])
    moved = Pose(windows.pose.position_BTMKX @ turn + 30, windows.pose.confidence_BTMK)
    torch.testing.assert_close(
        scene(moved), scene(windows.pose), atol=2e-3, rtol=1e-3, equal_nan=True
    )


def test_the_scene_tells_where_the_other_is() -> None:
    """The intruder stands 200 px ahead of the resident and looks the same way."""
    pose = pose_of(line((100, 100), (2, 0)), line((300, 100), (2, 0)))
    scene = Scene(MICE, lag=4)
    scene.features.fit(pose)
    result = scene(pose)[0, 30] * 50
    nose = MICE.keypoint("nose")
    torch.testing.assert_close(
        result[0, nose], torch.tensor([37.0, 0, 37 - 200, 0, 8, 0]), atol=1e-2, rtol=0
    )
    torch.testing.assert_close(
        result[1, nose], torch.tensor([37.0, 0, 37 + 200, 0, 8, 0]), atol=1e-2, rtol=0
    )


# -- multi-timescale -------------------------------------------------------------------------------


def test_shares_below_counts_known_frames_of_the_future_only() -> None:
    generator = torch.Generator().manual_seed(3)
    value = torch.randn(2, 30, 3, generator=generator)
    value[torch.rand(2, 30, 3, generator=generator) < 0.3] = math.nan
    value[1, 18:] = math.nan
    edges = torch.tensor([[-1.0, 0.0, 1.0]]).repeat(3, 1)
    frames = torch.tensor([[0, 7, 24, 29], [3, 11, 17, 25]])
    below, weight = shares_below(value, edges, frames, 6)
    for b in range(2):
        for n, t in enumerate(frames[b].tolist()):
            for a in range(3):
                future = [x for x in value[b, t + 1 : t + 7, a].tolist() if not math.isnan(x)]
                assert weight[b, n, a].item() == pytest.approx(len(future) / 6)
                for e, edge in enumerate(edges[a].tolist()):
                    share = sum(x <= edge for x in future) / len(future) if future else 0.0
                    assert below[b, n, a, e].item() == pytest.approx(share, abs=1e-6)


def test_the_weight_is_the_known_share_not_the_missing_one() -> None:
    value = torch.zeros(1, 20, 1)
    value[0, 11:] = math.nan
    _, weight = shares_below(value, torch.zeros(1, 1), torch.tensor([[0, 10, 14]]), 5)
    assert weight.flatten().tolist() == [1.0, 0.0, 0.0]


def test_earth_movers_distance_of_histograms_with_one_bin_each() -> None:
    objective = MultiTimescale(D, MICE, bins=6)
    sure = torch.full((6, 6), -1e4).fill_diagonal_(0.0)
    below = (torch.arange(5) >= torch.arange(6)[:, None]).float()
    for a in range(6):
        for b in range(6):
            assert objective._distance(sure[a], below[b]).item() == pytest.approx(
                abs(a - b), abs=1e-5
            )


def test_cross_entropy_is_that_of_the_histogram() -> None:
    objective = MultiTimescale(D, MICE, bins=4, distance="cross_entropy")
    share, logits = torch.tensor([0.5, 0.0, 0.25, 0.25]), noise(4)
    assert objective._distance(logits, share.cumsum(0)[:-1]).item() == pytest.approx(
        -(share * logits.log_softmax(0)).sum().item(), rel=1e-5
    )


@pytest.mark.parametrize("distance", ["emd", "cross_entropy"])
def test_multi_timescale_is_the_weighted_sum_over_frames_and_actions(distance: Any) -> None:
    windows = windows_of(MICE, batch=4, frames=30, cut=(12, 0), missing=0.3)
    objective = MultiTimescale(
        D, MICE, horizons=(4, 9), bins=5, anchors=3, latent=0.0, distance=distance, histogram=2.0
    )
    objective.fit(windows.pose)
    views, rng = views_of(objective, windows), WindowRNG(windows.key_B)
    actions = objective.actions(windows.pose).masked_fill(~windows.valid_BT.unsqueeze(-1), math.nan)
    low, high = objective.actions.range_A2.unbind(-1)
    frames = (rng.uniform("bams/frame", 3) * windows.valid_BT.sum(1, keepdim=True)).long()
    assert objective.predict is not None
    expected = 0.0
    for h, horizon in enumerate((4, 9)):
        total, weights = 0.0, 0.0
        for b in range(4):
            for t in frames[b].tolist():
                guess = objective.predict(views[0].z_BTD[b, t]).view(2, len(low), 5)[h].softmax(-1)
                for a in range(len(low)):
                    future = actions[b, t + 1 : t + 1 + horizon, a]
                    future = future[~future.isnan()]
                    if not len(future):
                        continue
                    edges = low[a] + (high[a] - low[a]) * torch.arange(1, 5) / 5
                    bins = (future[:, None] > edges).sum(-1)
                    share = torch.bincount(bins, minlength=5) / len(future)
                    apart = (
                        (guess[a].cumsum(0) - share.cumsum(0)).square()[:-1].sum()
                        if distance == "emd"
                        else -(share * guess[a].log()).sum()
                    )
                    total, weights = (
                        total + len(future) / horizon * apart.item(),
                        weights + len(future) / horizon,
                    )
        expected += 2.0 * total / weights
    assert loss_of(objective, windows, views).total.item() == pytest.approx(expected, rel=1e-4)


def test_what_an_approaching_animal_does() -> None:
    """The resident walks 3 px a frame towards a resting intruder and turns by 0.05 rad a frame in
    another window."""
    pose = pose_of(line((100, 200), (3, 0)), line((500, 200), (0, 0), heading=math.pi))
    actions = Actions(MICE, lag=2)
    actions.features.fit(pose)
    result = actions(pose)[0, 20]
    torch.testing.assert_close(
        result, torch.tensor([6.0, 0, 0, 0, 0, 0, 0, 0, 6.0]), atol=1e-2, rtol=0
    )


def test_the_target_of_a_bootstrapped_latent_has_no_gradient() -> None:
    """With one frame to draw for the source and others for the targets, only the source moves."""
    windows = windows_of(MICE, batch=2, frames=40)
    objective = MultiTimescale(D, MICE, anchors=1, histogram=0.0)
    z = noise(2, 40, D).requires_grad_()
    loss_of(objective, windows, (View(windows.pose, z),)).total.backward()
    assert z.grad is not None
    frames = (WindowRNG(windows.key_B).uniform("bams/frame", 1) * 40).long().flatten()
    moved = z.grad.abs().sum(-1) > 0
    assert moved.nonzero().tolist() == [[0, frames[0]], [1, frames[1]]]


# -- task programming ------------------------------------------------------------------------------


@pytest.mark.parametrize("schema", [MICE, RATS])
def test_a_state_with_all_components_is_the_pose(schema: Schema) -> None:
    position = torch.from_numpy(wander(schema, 50, seed=1, missing=0.0)[0])[None]
    pose = Pose(position, torch.ones(position.shape[:4]))
    state = TrajectoryState(schema, components=99)
    for _ in range(2):
        result, known = state(pose)
        assert result.shape == (1, 50, state.size)
        assert known.all()
        torch.testing.assert_close(state.positions(result), position, atol=0.02, rtol=1e-4)
        state.fit(pose)
    spread = state(pose)[0].flatten(0, 1).std(0, correction=0)
    assert ((spread - 1).abs() < 1e-3).sum() > 0.7 * state.size, "what varies is standardised"


def test_five_components_make_the_published_state_of_18_numbers() -> None:
    assert TrajectoryState(MICE).size == 18


def test_actions_lead_from_state_to_state() -> None:
    pose = windows_of(MICE, batch=2, frames=21, missing=0.0).pose
    state = TrajectoryState(MICE)
    state.fit(pose)
    states, known = state(pose)
    actions, acted = state.actions(states, known)
    assert acted.all()
    torch.testing.assert_close(
        state.advance(states[:, 3], actions[:, 3]), states[:, 4], atol=1e-4, rtol=1e-4
    )


def test_an_animal_that_is_not_seen_is_unknown_and_its_actions_too() -> None:
    pose = windows_of(MICE, batch=1, frames=10, missing=0.0).pose
    pose.position_BTMKX[0, 4, 1] = math.nan
    state = TrajectoryState(MICE)
    states, known = state(pose)
    assert states.isfinite().all()
    assert (~known).nonzero()[:, 1].unique().tolist() == [4]
    assert known[0, 4].sum() == 9
    _, acted = state.actions(states, known)
    assert (~acted).any(-1).flatten().nonzero().flatten().tolist() == [3, 4]


def test_memory_led_through_a_recording_is_memory_step_by_step() -> None:
    memory, x, h, before = Memory(5, 7), noise(6, 3, 5), torch.zeros(3, 7), []
    reference = nn.GRUCell(5, 7)
    for mine, theirs in zip(memory.cell.parameters(), reference.parameters(), strict=True):
        theirs.data.copy_(mine)
    for at in range(6):
        before.append(h)
        h = memory.step(x[at], h)
        torch.testing.assert_close(h, reference(x[at], before[-1]), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(memory(x), torch.stack(before), atol=1e-6, rtol=1e-5)


def policy_and_trajectories() -> tuple[Policy, Tensor, Tensor, Tensor, Tensor]:
    windows = windows_of(MICE, batch=3, frames=9, missing=0.05)
    state = TrajectoryState(MICE)
    state.fit(windows.pose)
    torch.manual_seed(1)
    states, known = state(windows.pose)
    return Policy(state, code=4, width=6), states, *state.actions(states, known), noise(3, 4)


def test_surprise_is_the_likelihood_of_step_after_step() -> None:
    policy, states, actions, acted, code = policy_and_trajectories()
    acted = acted.clone()
    acted[1, 2:4] = False
    expected = torch.zeros(3)
    for n in range(3):
        h = torch.zeros(1, 6)
        for t in range(8):
            predicted = (
                policy.from_state(states[n, t])
                + policy.from_code(code[n])
                + policy.from_memory(h[0])
            )
            mean, log_variance = policy.act(predicted).chunk(2)
            each = torch.distributions.Normal(mean, (log_variance / 2).exp()).log_prob(
                actions[n, t]
            )
            expected[n] -= each[acted[n, t]].sum()
            h = policy.memory.step(torch.cat([states[n, t], actions[n, t]])[None], h)
    torch.testing.assert_close(
        policy.surprise(states, actions, acted, code), expected, rtol=1e-4, atol=1e-3
    )


def test_a_rollout_without_noise_repeats_what_the_policy_says_and_lands_there() -> None:
    policy, states, *_, code = policy_and_trajectories()
    rolled, acted = policy.roll_out(states[:, 0], code, noise(3, 5, 18), temperature=0.0)
    assert rolled.shape == (3, 6, 18)
    torch.testing.assert_close(rolled[:, 0], states[:, 0])
    torch.testing.assert_close(
        rolled[:, 1:],
        torch.stack([policy.state.advance(rolled[:, t], acted[:, t]) for t in range(5)], 1),
    )
    again, _ = policy.roll_out(states[:, 0], code, noise(3, 5, 18, seed=1), temperature=0.0)
    assert torch.equal(rolled, again)
    # Teacher-forced on its own rollout, each mean is the action that was taken: only the variances
    # are left.
    surprise = policy.surprise(rolled, acted, torch.ones_like(acted, dtype=torch.bool), code)
    moved = policy.surprise(rolled, acted + 0.1, torch.ones_like(acted, dtype=torch.bool), code)
    assert (moved != surprise).all()


def test_divergence_is_that_of_gaussians_and_free_bits_are_a_floor() -> None:
    posterior = Posterior(noise(5, 6), noise(5, 6, seed=1))
    normal = torch.distributions.Normal
    truth = torch.distributions.kl_divergence(
        normal(posterior.mean, (posterior.log_variance / 2).exp()), normal(0.0, 1.0)
    )
    torch.testing.assert_close(posterior.divergence(0.0), truth.sum(-1), atol=1e-5, rtol=1e-5)
    assert Posterior(torch.zeros(2, 32), torch.zeros(2, 32)).divergence(1 / 32).tolist() == [
        1.0,
        1.0,
    ]
    assert Encode(D, width=5, code=3)(noise(4, D) * 1e6).log_variance.abs().max() <= 16


def test_supervised_contrastive_is_the_formula_term_by_term() -> None:
    g = F.normalize(noise(9, 2, 5), dim=-1)
    labels = torch.tensor(
        [[0, 0], [0, 1], [1, 1], [-1, 2], [1, -1], [0, 0], [2, -1], [1, 0], [-1, 1]]
    )
    strangers = torch.stack(
        [g, F.normalize(noise(9, 2, 5, seed=1), dim=-1)], 1
    )  # two groups; the second has no known class
    totals, numbers = supervised_contrastive(
        strangers, torch.stack([labels, torch.full_like(labels, -1)], 1), classes=3, temperature=0.2
    )
    twice = supervised_contrastive(
        g.unsqueeze(1).repeat(1, 2, 1, 1),
        labels.unsqueeze(1).repeat(1, 2, 1),
        classes=3,
        temperature=0.2,
    )
    torch.testing.assert_close(twice[0], 2 * totals)
    assert torch.equal(twice[1], 2 * numbers)
    for p in range(2):
        known = [i for i in range(9) if labels[i, p] >= 0]
        terms = []
        for i in known:
            others = [k for k in known if k != i]
            positives = [j for j in others if labels[j, p] == labels[i, p]]
            if positives:
                below = sum(math.exp(float(g[i, p] @ g[k, p]) / 0.2) for k in others)
                terms.append(
                    -sum(float(g[i, p] @ g[j, p]) / 0.2 - math.log(below) for j in positives)
                    / len(positives)
                )
        assert numbers[p] == len(terms)
        assert totals[p].item() == pytest.approx(sum(terms), rel=1e-4)


def test_the_gradient_of_supervised_contrastive_is_that_of_its_differences() -> None:
    g, labels = (
        noise(7, 2, 2, 3).double(),
        torch.tensor([0, 1, 0, -1, 1, 1, 2])[:, None, None].expand(7, 2, 2),
    )

    def loss(direction: Tensor) -> Tensor:
        return supervised_contrastive(
            F.normalize(direction, dim=-1), labels, classes=3, temperature=0.3
        )[0]

    assert torch.autograd.gradcheck(loss, (g.requires_grad_(),))


def test_supervised_contrastive_where_all_is_alike_guesses() -> None:
    labels = torch.zeros(8, 1, 1, dtype=torch.long)
    totals, numbers = supervised_contrastive(
        torch.ones(8, 1, 1, 4) / 2, labels, classes=2, temperature=0.07
    )
    assert (totals / numbers).item() == pytest.approx(math.log(7), rel=1e-5)


def test_class_surprise_leaves_out_what_is_unknown() -> None:
    log_share = noise(5, 2, 3).log_softmax(-1)
    log_share[4, 0] = math.nan
    labels = torch.tensor([[0, 2], [-1, 1], [2, 0], [1, -1], [0, 0]])
    usable = torch.tensor([True, True, False, True, True])
    totals, numbers, _ = class_surprise(log_share, labels, usable)
    assert numbers.tolist() == [2, 3]
    assert totals[0].item() == pytest.approx(
        -(log_share[0, 0, 0] + log_share[3, 0, 1]).item(), rel=1e-5
    )
    assert totals[1].item() == pytest.approx(
        -(log_share[0, 1, 2] + log_share[1, 1, 1] + log_share[4, 1, 0]).item(), rel=1e-5
    )


def test_heads_are_one_perceptron_a_program() -> None:
    heads, code = Heads(3, 4, 2), noise(5, 4)
    result = heads(code)
    for p in range(3):
        hidden = F.relu(
            code @ heads.first.weight[p * 4 : p * 4 + 4].T + heads.first.bias[p * 4 : p * 4 + 4]
        )
        torch.testing.assert_close(result[:, p], hidden @ heads.second_PZO[p] + heads.bias_PO[p])


def test_programs_say_of_the_decoded_recording_what_they_say_of_the_recording() -> None:
    """A policy that repeats the recording is consistent: nothing is lost between poses and states
    that matters to labels."""
    windows = windows_of(MICE, batch=40, frames=21, missing=0.0, seed=5)
    objective = TaskProgramming(D, MICE, components=99, softness=0.01)
    objective.fit(windows.pose)
    labels = objective.labels(windows.pose.position_BTMKX)[:, 10]
    states, _ = objective.state(windows.pose)
    rolled = objective.state.positions(states[:, 8:13])
    log_share = programs.log_soft_classes(
        programs.measure(rolled, MICE)[:, 2:3], objective.threshold_PH, softness=0.01
    )[:, 0]
    totals, numbers, hits = class_surprise(log_share, labels, torch.ones(40, dtype=torch.bool))
    assert (hits.sum() / numbers.sum()).item() > 0.98
    assert labels.unique().tolist() == [0, 1, 2]
    assert (totals / numbers).mean() < 0.5


def test_task_programming_is_the_sum_of_its_parts() -> None:
    windows = windows_of(MICE, batch=5, frames=40, cut=(25, 3))
    objective = TaskProgramming(D, MICE, consistency=2.0, contrastive=3.0, decoding=0.5)
    loss = loss_of(objective, windows)
    parts = {name: value.item() for name, value in loss.parts.items()}
    expected = (
        parts["nll"]
        + parts["kl"]
        + 2 * parts["consistency"]
        + 3 * parts["contrastive"]
        + 0.5 * parts["decoding"]
    )
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)
    assert 0 <= parts["agreement"] <= 1


def published(**more: Any) -> tuple[TaskProgramming, Windows, Loss]:
    windows = windows_of(MICE, batch=4, frames=40)
    torch.manual_seed(0)
    objective = TaskProgramming(D, MICE, mode="published", width=8, **more)
    z = noise(4, 40, D).requires_grad_()
    loss = loss_of(objective, windows, (View(windows.pose, z), View(windows.pose, z)))
    loss.total.backward()
    return objective, windows, loss


def test_published_approximators_learn_from_recordings_alone() -> None:
    """Consistency runs through them without moving them: their gradient is that of telling recorded
    labels."""
    with_it, _, loss = published(consistency=1.0)
    weighted, _, _ = published(consistency=100.0)
    assert with_it.approximate is not None
    assert weighted.approximate is not None
    for (name, a), b in zip(
        with_it.approximate.named_parameters(), weighted.approximate.parameters(), strict=True
    ):
        assert a.grad is not None
        assert b.grad is not None
        torch.testing.assert_close(a.grad, b.grad, msg=name)
        assert a.grad.any(), name
    assert with_it.policy.act[1].weight.grad is not None
    apart = with_it.policy.act[1].weight.grad - weighted.policy.act[1].weight.grad
    assert apart.norm() > 0.1 * with_it.policy.act[1].weight.grad.norm(), (
        "consistency should reach the policy"
    )
    assert loss.parts["approximators"].item() == pytest.approx(10 * math.log(3), rel=0.1)


def test_in_the_first_stage_approximators_learn_and_nothing_else() -> None:
    objective, windows, loss = published(first_stage=2)
    assert loss.total == loss.parts["approximators"]
    assert not any(p.grad.any() for p in objective.policy.act.parameters() if p.grad is not None)
    for _ in range(2):
        last = loss_of(objective, windows)
    assert last.total > last.parts["approximators"] + 100
    assert objective.state_dict()["step"] == 3, "the stage should be part of a checkpoint"


def test_approximators_of_programs_with_fewer_classes() -> None:
    predicted = Approximators(3, [3, 2], width=4)(noise(5, 6, 3), noise(5, 5, 3))
    assert predicted.shape == (5, 2, 3)
    torch.testing.assert_close(predicted.exp().sum(-1), torch.ones(5, 2))
    assert (predicted[:, 1, 2] == -math.inf).all()


def test_programs_label_each_view_before_noise_and_dropped_points() -> None:
    windows = windows_of(MICE, batch=4, frames=40, missing=0.0)
    embedder = embedder_of(MICE, "tcn", windows.pose)
    objective = TaskProgramming(embedder.dim, MICE, trajectories=2, width=8)
    read_by_programs: list[Tensor] = []
    labels = objective.labels
    objective.labels = lambda x: (read_by_programs.append(x), labels(x))[1]  # type: ignore[method-assign,func-returns-value]
    noisy = Augment(mirror=0.5, scale=0.2, jitter_px=5.0, drop_points=0.5, drop_frames=0.5)
    Learner(embedder, objective, noisy, precision="float32")(windows)
    rng, moved = WindowRNG(windows.key_B), Augment(mirror=0.5, scale=0.2)
    for view, position in enumerate(read_by_programs):
        exact = moved(windows.pose, MICE, rng, view=str(view)).position_BTMKX
        torch.testing.assert_close(position, exact, atol=0, rtol=0)
        assert not torch.equal(exact, windows.pose.position_BTMKX)
    assert len(read_by_programs) == 2


def test_task_programming_on_programs_that_are_named() -> None:
    windows = windows_of(MICE, batch=2, frames=24)
    for which, columns in (
        ([], programs.names(MICE)),
        (["facing_released"], ["facing_released_resident_intruder"] * 2),
    ):
        objective = TaskProgramming(D, MICE, programs=which, decoding=1.0)
        assert len(objective.threshold_PH) == len(columns)
        loss_of(objective, windows).total.backward()
        gradients = [x.grad for x in objective.parameters() if x.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert gradients
    with pytest.raises(BadInput, match="'running' is none of the programs"):
        TaskProgramming(D, MICE, programs=["running"])


def test_thresholds_from_quantiles_balance_the_labels() -> None:
    windows = windows_of(RATS, batch=60, frames=40, missing=0.1)
    objective = TaskProgramming(D, RATS, quantiles=(0.5, 0.9))
    assert loss_of(objective, windows).total.isfinite(), "before it was fitted"
    objective.fit(windows.pose)
    labels = programs.classes(
        programs.measure(windows.pose.position_BTMKX, RATS), objective.threshold_PH
    )
    shares = [(labels[labels >= 0] == c).float().mean().item() for c in range(3)]
    assert shares == pytest.approx([0.5, 0.4, 0.1], abs=0.02)


def test_task_programming_refuses_windows_shorter_than_a_trajectory() -> None:
    with pytest.raises(BadInput, match="a trajectory of 21 frames does not fit a window of 20"):
        loss_of(TaskProgramming(D, MICE), windows_of(MICE, batch=2, frames=20))


# -- combined --------------------------------------------------------------------------------------


def test_combined_is_the_weighted_sum_of_its_parts() -> None:
    windows = windows_of(MICE, batch=6, frames=40, cut=(20, 0))
    torch.manual_seed(3)
    objective = Combined(
        D,
        MICE,
        parts=[
            {"name": "contrastive", "weight": 2.0, "anchors": 2},
            {"name": "masked", "weight": 0.5},
        ],
    )
    assert objective.views == 2
    views = views_of(objective, windows)
    loss = loss_of(objective, windows, views)
    single = [loss_of(one, windows, views[: one.views]).total for one in objective.parts.values()]  # type: ignore[arg-type, union-attr]
    torch.testing.assert_close(loss.total, 2.0 * single[0] + 0.5 * single[1])
    assert loss.parts["weighted_contrastive"] == 2 * loss.parts["contrastive"]
    assert {"contrastive_found", "masked", "masked_blind", "weighted_masked"} <= set(loss.parts)


def test_an_objective_that_masks_much_gets_views_of_its_own() -> None:
    windows = windows_of(MICE, batch=4, frames=48, missing=0.0)
    names = ["cpc", "contrastive", "task_programming", "masked"]
    objective = Combined(D, MICE, parts=[{"name": name} for name in names])
    assert objective.views == 4
    assert objective.view_ranges == [range(2, 4), range(0, 2), range(0, 2), range(0, 1)]
    rng = WindowRNG(windows.key_B)
    visible = [
        objective.mask(windows.pose, windows, rng, view=v).confidence_BTMK > 0 for v in range(4)
    ]
    assert not (visible[2] & visible[3]).any(), "cpc's own views"
    assert torch.equal(~visible[0], objective.parts["masked"].masked_points(windows, rng))  # type: ignore[operator, union-attr]
    assert visible[1].all()
    loss = loss_of(objective, windows)
    assert len({name for name in loss.parts if name.startswith("weighted_")}) == 4


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "parts is empty"),
        ([{"name": "masked"}, {"name": "masked"}], "'masked' is listed twice"),
        ([{"name": "combined"}], "cannot contain itself"),
        ([{"name": "masked", "weight": 0}], "must be above 0"),
        ([{"name": "masked", "weight": "1"}], "must be a number"),
        ([{"name": "no_such"}], "there is no 'no_such'"),
        ([{"weight": 2}], "there is no None"),
        ([{"name": "masked", "blok": 3}], "unknown setting 'blok'"),
    ],
)
def test_combined_refuses(parts: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Combined(D, MICE, parts=parts)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("cpc", {"horizons": []}, "give at least one"),
        ("cpc", {"horizons": [8, 4]}, "rising"),
        ("cpc", {"temperature": 0.0}, "above 0"),
        ("masked", {"point": 1.5}, "must lie in 0…1"),
        ("masked", {"everything": 0.0, "animal": 0.0, "point": 0.0}, "nothing would be masked"),
        ("masked", {"lag": 3}, "even"),
        ("multi_timescale", {"bins": 1}, "at least 2"),
        ("multi_timescale", {"histogram": 0.0, "latent": 0.0}, "nothing would be learned"),
        ("multi_timescale", {"distance": "l2"}, "must be"),
        ("task_programming", {"frames": 20}, "odd"),
        ("task_programming", {"frames": 3}, "at least 5"),
        ("task_programming", {"quantiles": [0.9, 0.5]}, "must rise"),
        ("task_programming", {"mode": "publisht"}, "must be"),
        ("task_programming", {"first_stage": 5}, "mode: published"),
        ("task_programming", {"contrastive": -1.0}, "contrastive is -1.0; it must be at least 0"),
    ],
)
def test_settings_that_cannot_be(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        build("pretrain.objectives", {"name": name, **settings}, AbstractObjective, D, MICE)


# -- two workers -----------------------------------------------------------------------------------

ALL = ("contrastive", "cpc", "masked", "multi_timescale", "task_programming")
MODES: dict[str, dict[str, Any]] = {
    "published": {"name": "task_programming", "mode": "published", "decoding": 1.0, "width": 16},
    "quantiles": {"name": "task_programming", "quantiles": [0.5, 0.9]},
    "one view": {"name": "cpc", "horizons": [4, 16], "past_only": False},
    "cross-entropy": {"name": "multi_timescale", "distance": "cross_entropy"},
    "everything": {
        "name": "combined",
        "parts": [
            {"name": n}
            for n in ("contrastive", "cpc", "masked", "multi_timescale", "task_programming")
        ],
    },
}
BATCH, SECONDS = 8, 120


@pytest.mark.parametrize("mode", MODES)
def test_half_precision_is_near(mode: str) -> None:
    windows = windows_of(MICE, batch=6, frames=40)
    losses = {}
    for precision in ("float32", "bf16"):
        embedder = embedder_of(MICE, "tcn", windows.pose)
        objective = build("pretrain.objectives", MODES[mode], AbstractObjective, embedder.dim, MICE)
        objective.fit(windows.pose)
        learner = Learner(embedder, objective, Augment(), precision=precision)
        loss = learner(windows)
        loss.total.backward()
        assert loss.total.dtype == torch.float32
        assert all(p.grad is not None and p.grad.isfinite().all() for p in learner.parameters())
        losses[precision] = loss.total.item()
    assert losses["bf16"] == pytest.approx(losses["float32"], rel=0.05)


JOINED = windows_of(MICE, batch=BATCH, frames=40, seed=1, cut=(30, 2, 0))


def learn() -> dict[str, tuple[Tensor, dict[str, Tensor]]]:
    """Loss and gradient of every mode, from this worker's rows."""
    share = BATCH // distributed.count()
    windows = rows_of(JOINED, slice(distributed.rank() * share, (distributed.rank() + 1) * share))
    result = {}
    for mode, spec in MODES.items():
        embedder = embedder_of(MICE, "tcn", JOINED.pose)
        objective = build("pretrain.objectives", spec, AbstractObjective, embedder.dim, MICE)
        objective.fit(JOINED.pose)
        learner = Learner(
            embedder, objective, Augment(mirror=0.5, drop_points=0.1), precision="float32"
        )
        model = nn.parallel.DistributedDataParallel(learner) if distributed.count() > 1 else learner
        loss = model(windows)
        loss.total.backward()
        result[mode] = (
            distributed.mean(loss.total),
            {name: p.grad for name, p in learner.named_parameters() if p.grad is not None},
        )
    return result


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(learn(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("gloo")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    context = mp.spawn(worker, args=(str(folder),), nprocs=2, join=False)
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
    return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(2)]


def test_two_workers_give_the_loss_and_gradient_of_one_in_every_mode(
    two_workers: list[dict[str, Any]],
) -> None:
    single = learn()
    for mode, (loss, gradient) in single.items():
        whole = torch.cat([g.flatten() for g in gradient.values()]).norm()
        assert whole > 1e-3
        for result, mine in (one[mode] for one in two_workers):
            assert result.item() == pytest.approx(loss.item(), rel=2e-5), mode
            assert set(mine) == set(gradient)
            for name in gradient:
                assert (mine[name] - gradient[name]).norm() <= 2e-4 * gradient[
                    name
                ].norm() + 1e-6 * whole, f"{mode}: {name}"
