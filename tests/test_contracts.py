"""What every encoder, objective, augmentation and feature group must hold. They are found as users
find them, so a new one is tested without being mentioned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from worlds import FEATURES, GROUPS, RATS, SKELETONS, embedder_of, learner_of, rows_of, windows_of

from pretrain.components import find, names, setting_errors, settings_of
from pretrain.data.window_rng import WindowRNG
from pretrain.data.windows import Pose, Windows
from pretrain.encoders import AbstractEncoder, Embedder, build_embedder
from pretrain.errors import BadInput
from pretrain.objectives import AbstractObjective, Loss, View
from pretrain.train.learner import Learner
from pretrain.transforms.augment import Augment, all_augmentations
from pretrain.transforms.feature_groups import all_groups
from pretrain.transforms.features import Features

ENCODERS, OBJECTIVES = names("pretrain.encoders"), names("pretrain.objectives")
AUGMENTATIONS = {one.name: one for one in all_augmentations()}
FRAMES = 48
AUGMENT = Augment(mirror=0.5, jitter_px=1.0, drop_points=0.1, drop_frames=0.1)

each_encoder = pytest.mark.parametrize("encoder", ENCODERS)
each_objective = pytest.mark.parametrize("objective", OBJECTIVES)
each_augmentation = pytest.mark.parametrize("augmentation", AUGMENTATIONS)
each_group = pytest.mark.parametrize("group", GROUPS)
each_skeleton = pytest.mark.parametrize("skeleton", SKELETONS)


def test_at_least_these_are_found() -> None:
    assert {"tcn", "handmade"} <= set(ENCODERS)
    assert {"contrastive"} <= set(OBJECTIVES)
    assert {"mirror", "jitter", "drop"} <= set(AUGMENTATIONS)
    assert {"posture", "motion", "relation", "confidence"} <= set(GROUPS)


@cache
def world(skeleton: str) -> Windows:
    """Six windows: whole, cut, of one frame, empty; a tenth of the points missing."""
    return windows_of(SKELETONS[skeleton], batch=6, frames=FRAMES, seed=3, cut=(20, 1, 0))


def stirred(module: nn.Module) -> nn.Module:
    """Moves every parameter a little, so that nothing hides behind a weight that starts at zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return module


@cache
def embedder(skeleton: str, encoder: str) -> Embedder:
    model = embedder_of(SKELETONS[skeleton], encoder, world(skeleton).pose)
    stirred(model)
    return model.eval()


def learner(
    skeleton: str, objective: str, encoder: str = "tcn", augment: Augment = AUGMENT
) -> Learner:
    model = learner_of(SKELETONS[skeleton], encoder, objective, world(skeleton).pose, augment)
    stirred(model)
    return model


def missing_everywhere(windows: Windows, rows: slice) -> Windows:
    position, confidence = (x.clone() for x in windows.pose[:2])
    position[rows], confidence[rows] = torch.nan, 0
    return windows._replace(pose=Pose(position, confidence))


def gradients(module: nn.Module) -> dict[str, Tensor | None]:
    return {name: p.grad for name, p in module.named_parameters() if p.requires_grad}


# -- encoders --------------------------------------------------------------------------------------


@each_encoder
def test_an_encoder_is_named_by_its_file_and_built_from_its_signature(encoder: str) -> None:
    kind = find("pretrain.encoders", encoder, AbstractEncoder)
    assert all(setting.default is not setting.empty for setting in settings_of(kind).values()), (
        "a setting without a default"
    )
    with pytest.raises(BadInput, match="unknown setting 'no_such_thing'"):
        build_embedder(
            SKELETONS["mice"], features=FEATURES, encoder={"name": encoder, "no_such_thing": 1}
        )


@each_encoder
@each_skeleton
def test_one_finite_embedding_a_frame(skeleton: str, encoder: str) -> None:
    model, windows = embedder(skeleton, encoder), world(skeleton)
    z = model.embed(windows)
    assert z.shape == (6, FRAMES, model.dim)
    assert z.dtype == torch.float32
    assert z[windows.valid_BT].isfinite().all()
    assert z[windows.valid_BT].std(0).mean() > 0, "every frame has the same embedding"


@each_encoder
@each_skeleton
def test_a_gradient_reaches_every_weight(skeleton: str, encoder: str) -> None:
    model, windows = (
        embedder_of(SKELETONS[skeleton], encoder, world(skeleton).pose),
        world(skeleton),
    )
    if not list(model.parameters()):
        assert encoder == "handmade", "an encoder without a weight learns nothing"
        return
    stirred(model)
    z = model.embed(windows)
    (z * torch.randn(z.shape, generator=torch.Generator().manual_seed(1)))[
        windows.valid_BT
    ].sum().backward()
    silent = [
        name
        for name, grad in gradients(model).items()
        if grad is None or not grad.isfinite().all() or not grad.any()
    ]
    assert not silent


@each_encoder
def test_the_same_seed_gives_the_same_weights_and_embeddings(encoder: str) -> None:
    one, two = (embedder_of(SKELETONS["mice"], encoder, world("mice").pose) for _ in range(2))
    for (name, a), b in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    for mode in (True, False):
        assert torch.equal(
            one.train(mode).embed(world("mice")), two.train(mode).embed(world("mice"))
        )


@each_encoder
def test_missing_points_are_tolerated(encoder: str) -> None:
    windows = missing_everywhere(world("mice"), slice(0, 3))
    model = embedder_of(SKELETONS["mice"], encoder, world("mice").pose)
    z = model.embed(windows)
    assert z.isfinite().all()
    if z.requires_grad:
        z.square().sum().backward()
    assert all(grad is None or grad.isfinite().all() for grad in gradients(model).values())


@each_encoder
@pytest.mark.parametrize("training", [False, True])
def test_frames_that_do_not_exist_reach_no_other(encoder: str, training: bool) -> None:
    model, windows = embedder_of(SKELETONS["mice"], encoder, world("mice").pose), world("mice")
    stirred(model)
    x = model.features(windows.pose).detach()
    valid = windows.valid_BT.clone()
    valid[0, :7] = False  # a window may also begin before its video
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)) * 100
    network = model.encoder.train(training)
    one, two = network(x, valid), network(torch.where(valid.unsqueeze(-1), x, noise), valid)
    torch.testing.assert_close(one[valid], two[valid], atol=1e-5, rtol=1e-4)


@each_encoder
def test_other_windows_do_not_change_an_embedding(encoder: str) -> None:
    model, windows = embedder("mice", encoder), world("mice")
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    valid = windows.valid_BT[order]
    torch.testing.assert_close(
        model.embed(rows_of(windows, order))[valid],
        model.embed(windows)[order][valid],
        atol=1e-5,
        rtol=1e-4,
    )
    torch.testing.assert_close(
        model.embed(rows_of(windows, slice(1, 2))), model.embed(windows)[1:2], atol=1e-5, rtol=1e-4
    )


@each_encoder
def test_where_a_window_is_cut_short_does_not_matter(encoder: str) -> None:
    """A frame followed by frames that do not exist is embedded as one at the end of a shorter
    window."""
    model, windows = embedder("mice", encoder), world("mice")
    x = model.features(windows.pose)[3:4]
    whole = model.encoder(x, windows.valid_BT[3:4])[:, :20]
    torch.testing.assert_close(
        model.encoder(x[:, :20], windows.valid_BT[3:4, :20]), whole, atol=1e-5, rtol=1e-4
    )


@each_encoder
def test_context_is_what_gradients_say(encoder: str) -> None:
    model = embedder("mice", encoder)
    before, after = model.encoder.context
    frames = min(before + after + 9, 1024)
    at = min(before + 4, frames // 2)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, frames, model.features.width, generator=generator, requires_grad=True)
    z = model.encoder(x, torch.ones(1, frames, dtype=torch.bool))
    (z[0, at] * torch.randn(model.dim, generator=generator)).sum().backward()
    assert x.grad is not None
    # running sums leave the last digits of what cancels out
    reached = (x.grad[0].abs().sum(-1) > 1e-9).nonzero().flatten().tolist()
    assert reached, "an embedding depends on nothing"
    assert at - reached[0] <= before, f"it looks {at - reached[0]} frames back, it says {before}"
    assert reached[-1] - at <= after, f"it looks {reached[-1] - at} frames ahead, it says {after}"
    if before + after + 9 <= 1024:
        assert at - reached[0] >= before // 2, "it promises a far longer past than it uses"
        assert reached[-1] - at >= after // 2, "it promises a far longer future than it uses"


@each_encoder
def test_changing_a_frame_beyond_the_context_changes_nothing(encoder: str) -> None:
    model = embedder("mice", encoder)
    frames = 2 * model.overlap + 21
    windows = windows_of(SKELETONS["mice"], batch=1, frames=frames, seed=5)
    at = frames // 2
    position = windows.pose.position_BTMKX.clone()
    position[:, : at - model.overlap] += 50 * torch.randn(
        1, at - model.overlap, 2, 7, 2, generator=torch.Generator().manual_seed(0)
    )
    position[:, at + model.overlap + 1 :] = torch.nan
    changed = windows._replace(pose=Pose(position, windows.pose.confidence_BTMK))
    torch.testing.assert_close(
        model.embed(changed)[0, at], model.embed(windows)[0, at], atol=1e-5, rtol=1e-4
    )
    assert (model.embed(changed)[0, -1] != model.embed(windows)[0, -1]).any(), (
        "the change is one that can be seen"
    )


@each_encoder
def test_half_precision_is_near(encoder: str) -> None:
    model, windows = embedder("mice", encoder), world("mice")
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        half = model.embed(windows).float()
    z = model.embed(windows)
    valid = windows.valid_BT
    assert half[valid].isfinite().all()
    assert (half[valid] - z[valid]).norm() < 0.1 * z[valid].norm()


# -- groups of features ----------------------------------------------------------------------------


@each_group
@each_skeleton
def test_a_group_is_finite_and_0_where_nothing_is_known(skeleton: str, group: str) -> None:
    windows, features = world(skeleton), Features(SKELETONS[skeleton], groups=[group])
    features.fit(windows.pose)
    x = features(windows.pose)[..., features.columns[group]]
    assert x.shape[-1] > 0
    assert x.isfinite().all()
    assert x.std() > 0.1, "it says nothing"
    nothing = missing_everywhere(windows, slice(0, 6)).pose
    if group not in ("confidence", "interaction"):  # that nothing is seen is known
        assert (features(nothing)[..., features.columns[group]] == 0).all()


@each_group
@pytest.mark.parametrize("animals", [1, 3])
def test_a_group_takes_any_number_of_animals(group: str, animals: int) -> None:
    schema = replace(RATS, animals=tuple("abc"[:animals]))
    groups = {group, "posture"}  # of a single animal some groups hold nothing
    features, pose = Features(schema, groups=[*groups]), windows_of(schema, batch=2, frames=30).pose
    features.fit(pose)
    assert features(pose).shape == (2, 30, features.width)
    assert features(pose).isfinite().all()


@each_group
def test_a_group_looks_as_far_as_it_says(group: str) -> None:
    features = Features(SKELETONS["mice"], groups=[group], lags=(2, 8))
    pose = windows_of(SKELETONS["mice"], batch=1, frames=40, missing=0).pose
    noise = torch.randn(2, 7, 2, generator=torch.Generator().manual_seed(0))
    position, confidence = (x.clone() for x in pose[:2])
    position[:, 20] += 5 * noise
    confidence[:, 20] *= 0.5
    changed = features(pose) != features(Pose(position, confidence))
    reached = changed[0, :, features.columns[group]].any(-1).nonzero().flatten().tolist()
    if all_groups()[group].reach_s:  # farther only where points are missing
        assert 20 - features.context <= reached[0] < 20 < reached[-1] <= 20 + features.context
        return
    assert (reached[0], reached[-1]) == (20 - features.context, 20 + features.context)
    assert features.context == (4 if all_groups()[group].uses_lags else 0)


# -- augmentations ---------------------------------------------------------------------------------


def strong(augmentation: str) -> dict[str, float | bool]:
    """Settings with which it does something to many windows."""
    return {
        name: True if isinstance(setting.default, bool) else 0.5
        for name, setting in AUGMENTATIONS[augmentation].settings.items()
        if not isinstance(setting.default, int) or isinstance(setting.default, bool)
    }


def view_of(windows: Windows, settings: Mapping[str, Any], skeleton: str, name: str = "0") -> Pose:
    return Augment(**settings)(
        windows.pose, SKELETONS[skeleton], WindowRNG(windows.key_B), view=name
    )


def test_settings_of_augmentations_have_defaults_and_belong_to_one() -> None:
    settings = [name for one in AUGMENTATIONS.values() for name in one.settings]
    assert len(settings) == len(set(settings))
    for one in AUGMENTATIONS.values():
        assert all(setting.default is not setting.empty for setting in one.settings.values())
        defaults = {name: setting.default for name, setting in one.settings.items()}
        assert setting_errors(one.settings, defaults) == []


@each_augmentation
@each_skeleton
def test_an_augmentation_changes_the_view_not_the_recording(
    skeleton: str, augmentation: str
) -> None:
    windows = windows_of(SKELETONS[skeleton], batch=24, frames=FRAMES, cut=(20, 1, 0))
    before = [part.clone() for part in windows.pose[:2]]
    view = view_of(windows, strong(augmentation), skeleton)
    for part, was in zip(windows.pose[:2], before, strict=True):
        assert torch.equal(part.nan_to_num(-1), was.nan_to_num(-1))
    assert not torch.equal(view.position_BTMKX.nan_to_num(-1), before[0].nan_to_num(-1))
    assert view.position_BTMKX.shape == before[0].shape
    assert view.position_BTMKX.dtype == view.confidence_BTMK.dtype == torch.float32
    assert torch.equal(view.position_BTMKX.isnan().any(-1), view.confidence_BTMK == 0)
    assert view.position_BTMKX[~windows.valid_BT].isnan().all(), (
        "a frame that did not exist appeared"
    )


@each_augmentation
def test_draws_of_an_augmentation_belong_to_window_and_view(augmentation: str) -> None:
    settings, order = strong(augmentation), torch.arange(24).flip(0)
    windows = windows_of(SKELETONS["mice"], batch=24, frames=FRAMES)
    one = view_of(windows, settings, "mice").position_BTMKX.nan_to_num(-1)
    shuffled = view_of(rows_of(windows, order), settings, "mice").position_BTMKX.nan_to_num(-1)
    assert torch.equal(shuffled, one[order])
    other = view_of(windows, settings, "mice", name="1").position_BTMKX.nan_to_num(-1)
    assert not torch.equal(other, one), "two views with the same draws"


@each_augmentation
@pytest.mark.parametrize("animals", [1, 3])
def test_an_augmentation_takes_any_number_of_animals(augmentation: str, animals: int) -> None:
    schema = replace(RATS, animals=tuple("abc"[:animals]))
    windows = windows_of(schema, batch=2, frames=30)
    view = Augment(**strong(augmentation))(windows.pose, schema, WindowRNG(windows.key_B), view="0")
    assert view.position_BTMKX.shape == windows.pose.position_BTMKX.shape


# -- objectives ------------------------------------------------------------------------------------


@each_objective
def test_an_objective_is_named_by_its_file_and_built_from_its_signature(objective: str) -> None:
    kind = find("pretrain.objectives", objective, AbstractObjective)
    assert all(setting.default is not setting.empty for setting in settings_of(kind).values()), (
        "a setting without a default"
    )
    assert learner("mice", objective).objective.views >= 1


@each_objective
@each_skeleton
def test_a_finite_loss_whose_gradient_reaches_every_weight(skeleton: str, objective: str) -> None:
    model = learner(skeleton, objective)
    loss: Loss = model(world(skeleton))
    assert loss.total.shape == ()
    assert loss.total.isfinite()
    assert loss.total > 0
    for name, part in loss.parts.items():
        assert part.shape == (), name
        assert part.isfinite(), name
        assert not part.requires_grad, f"{name} drags a graph along"
    loss.total.backward()
    silent = [
        name
        for name, grad in gradients(model).items()
        if grad is None or not grad.isfinite().all() or not grad.any()
    ]
    assert not silent


@each_objective
def test_the_same_seed_gives_the_same_loss(objective: str) -> None:
    one, two = (learner("mice", objective)(world("mice")).total for _ in range(2))
    assert torch.equal(one, two)


@each_objective
def test_another_epoch_draws_otherwise(objective: str) -> None:
    model, windows = learner("mice", objective), world("mice")
    assert model(windows).total != model(windows._replace(key_B=windows.key_B + 1)).total


@each_objective
def test_the_order_of_windows_does_not_matter(objective: str) -> None:
    model, windows = learner("mice", objective), world("mice")
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    torch.testing.assert_close(
        model(rows_of(windows, order)).total, model(windows).total, atol=1e-5, rtol=1e-4
    )


@each_objective
def test_empty_rows_do_not_count(objective: str) -> None:
    model, windows = learner("mice", objective), world("mice")
    assert not windows.valid_BT[5].any(), "the last row is to be an empty one"
    torch.testing.assert_close(
        model(rows_of(windows, slice(0, 5))).total, model(windows).total, atol=1e-5, rtol=1e-4
    )
    nothing = model(rows_of(windows, torch.tensor([5, 5])))
    assert nothing.total == 0
    nothing.total.backward()
    assert all(grad is None or not grad.any() for grad in gradients(model).values())


@each_objective
def test_frames_that_do_not_exist_do_not_count(objective: str) -> None:
    """What lies in a frame that does not exist is nobody's business: here other embeddings are put
    there."""
    model, windows = learner("mice", objective, augment=Augment()), world("mice")
    rng = WindowRNG(windows.key_B)
    poses = [
        model.objective.mask(windows.pose, windows, rng, view=view)
        for view in range(model.objective.views)
    ]

    def loss(filling: float) -> Tensor:
        result = []
        for pose in poses:
            z = model.embedder(pose, windows.valid_BT)
            result.append(View(pose, torch.where(windows.valid_BT.unsqueeze(-1), z, filling)))
        return model.objective(tuple(result), windows, rng).total

    torch.testing.assert_close(loss(30.0), loss(0.0), atol=1e-6, rtol=1e-5)


@each_objective
def test_windows_in_which_nothing_was_seen_are_tolerated(objective: str) -> None:
    model = learner("mice", objective)
    for rows in (slice(0, 2), slice(0, 6)):
        loss = model(missing_everywhere(world("mice"), rows)).total
        assert loss.isfinite()
        model.zero_grad()
        loss.backward()
        assert all(grad is None or grad.isfinite().all() for grad in gradients(model).values())


@each_objective
def test_what_is_masked_is_missing_not_zero_and_the_recording_stays(objective: str) -> None:
    model, windows = learner("mice", objective), world("mice")
    before = windows.pose.position_BTMKX.clone()
    for view in range(model.objective.views):
        pose = model.objective.mask(windows.pose, windows, WindowRNG(windows.key_B), view=view)
        assert torch.equal(pose.position_BTMKX.isnan().any(-1), pose.confidence_BTMK == 0)
        visible = pose.confidence_BTMK > 0
        assert torch.equal(pose.position_BTMKX[visible], before[visible])
    model(windows)
    assert torch.equal(windows.pose.position_BTMKX.nan_to_num(-1), before.nan_to_num(-1))


@each_objective
def test_training_on_one_batch_lowers_its_loss(objective: str) -> None:
    model, windows = (
        learner("mice", objective, augment=Augment()),
        windows_of(SKELETONS["mice"], batch=8, frames=FRAMES, seed=9),
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = model(windows).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0], losses[::10]
