"""Features that do not ask who is called the first: exchanged, turned, mirrored, slowed down."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from worlds import wander_store, windows_of

from finetune.fit.open_encoder import handmade_features, open_encoder
from pretrain.data.schema import Schema
from pretrain.data.windows import Pose, cover
from pretrain.encoders import Embedder, build_embedder
from pretrain.errors import BadInput
from pretrain.train.embed_video import embed_video
from pretrain.transforms.feature_names import feature_names
from pretrain.transforms.features import Features
from pretrain.transforms.interaction import Interaction, have_roles, points_of

RATS = Schema.from_names(
    animals=("one", "two"),
    keypoints=("top", "body", "tail", "tail-m", "tail-e"),
    fps=30.0,
    image_px=(600.0, 400.0),
)


def wander(schema: Schema, *, seconds: float, missing: float, seed: int = 0) -> Pose:
    """The same motion at any frame rate: sums of slow waves."""
    frames = round(seconds * schema.fps)
    rng = np.random.default_rng(seed)
    t = np.arange(frames)[:, None, None] / schema.fps
    animals, keypoints, _ = schema.shape

    def path(scale: float, shape: tuple[int, int]) -> np.ndarray:
        speed, phase = rng.uniform(0.2, 1.5, (4, *shape)), rng.uniform(0, 6.3, (4, *shape))
        return scale * sum(np.sin(w * t + p) for w, p in zip(speed, phase, strict=True))

    centre = np.stack([300 + path(60, (animals, 1)), 200 + path(40, (animals, 1))], -1)
    offset = np.stack([path(6, (animals, keypoints)), path(6, (animals, keypoints))], -1)
    offset[..., 0] -= 25 * np.arange(keypoints)
    position = torch.from_numpy((centre + offset).astype(np.float32))
    lost = torch.rand(frames, animals, keypoints, generator=torch.Generator().manual_seed(seed))
    position[lost < missing] = torch.nan
    confidence = (~position[..., 0].isnan()).float() * 0.9
    return Pose(position.unsqueeze(0), confidence.unsqueeze(0))


def handmade(schema: Schema, pose: Pose, group: str = "interaction") -> Embedder:
    embedder = build_embedder(
        schema, features={"groups": [group]}, encoder={"name": "handmade"}
    ).eval()
    embedder.features.fit(pose)
    return embedder


def embedded(model: Embedder, pose: Pose) -> torch.Tensor:
    return embed_video(
        model, {"position": pose.position_BTMKX[0], "confidence": pose.confidence_BTMK[0]}
    )


@pytest.mark.parametrize("group", ["interaction", "social"])
@pytest.mark.parametrize("animals", [2, 3])
def test_exchanging_animals_changes_nothing(animals: int, group: str) -> None:
    schema = replace(RATS, animals=tuple("abc"[:animals]))
    pose = wander(schema, seconds=8, missing=0.2)
    model = handmade(schema, pose, group)
    other = Pose(pose.position_BTMKX.flip(2), pose.confidence_BTMK.flip(2))
    assert torch.equal(embedded(model, other), embedded(model, pose))


def test_social_is_interaction_without_arena_position_and_tracker() -> None:
    pose = wander(RATS, seconds=8, missing=0.2)
    every, lean = (handmade(RATS, pose, group).features for group in ("interaction", "social"))
    names, kept = ([one.partition(": ")[2] for one in feature_names(f)] for f in (every, lean))
    gone = [name for name in names if name not in kept]
    assert kept == [name for name in names if name not in gone]
    places = [name for name in gone if name.startswith(("wall", "from the centre"))]
    assert len(places) == 4
    for name in set(gone) - set(places):
        assert "seen" in name or name.partition(",")[0] in ("confidence", "unseen for", "exchanged")
    raw = every.raw(pose)[..., [names.index(name) for name in kept]]
    torch.testing.assert_close(
        lean.raw(pose)[..., : len(kept)], raw, rtol=0, atol=0, equal_nan=True
    )
    assert handmade(RATS, pose, "social").encoder.dim == 16 * len(kept)


@pytest.mark.parametrize(("animals", "group"), [(1, "interaction"), (2, "social"), (3, "social")])
def test_handmade_reads_arena_positions_only_of_a_single_animal(animals: int, group: str) -> None:
    schema = replace(RATS, animals=tuple("abc"[:animals]))
    assert handmade_features({"lags": [2]}, schema) == {"lags": [2], "groups": [group]}


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        (("resident", "intruder"), True),
        (("adult", "juvenile"), True),
        (("male", "female"), True),
        (("black_mouse", "white_mouse"), True),
        (("rat1", "rat2"), False),
        (("individual_1", "individual_2"), False),
        (("mouse", "mouse2"), False),
        (("ind_a", "ind_b"), False),
        (("a", "b"), False),
        (("one", "two"), False),
        (("resident",), False),
        (("male", "female", "pup"), False),
    ],
)
def test_names_are_roles_or_numbers(names: tuple[str, ...], roles: bool) -> None:
    schema = replace(RATS, animals=names)
    assert have_roles(schema) == roles
    group = handmade_features({}, schema)["groups"][0]
    assert (group == "social_roles") == roles


def test_animals_with_roles_have_columns_of_their_own() -> None:
    """The same quantities; the other way round where the animals trade places."""
    schema = replace(RATS, animals=("resident", "intruder"))
    pose = wander(schema, seconds=8, missing=0.0)
    other = Pose(pose.position_BTMKX.flip(2), pose.confidence_BTMK.flip(2))
    same = partial(torch.testing.assert_close, equal_nan=True)  # at the edges
    named = {}
    for group in ("social", "social_roles"):
        features = handmade(schema, pose, group).features
        names = [one.partition(": ")[2] for one in feature_names(features)]
        for way, one in (("", pose), (" exchanged", other)):
            named[group + way] = dict(zip(names, features.raw(one).unbind(-1), strict=False))
    roles, exchanged, social = (
        named[key] for key in ("social_roles", "social_roles exchanged", "social")
    )
    assert len(roles) == len(social)
    ordered = [name.removesuffix(", resident") for name in roles if name.endswith("resident")]
    assert "facing the other" in ordered
    assert "speed over 1 s" in ordered
    for name in ordered:
        mine, theirs = roles[f"{name}, resident"], roles[f"{name}, intruder"]
        assert not torch.equal(mine, theirs)
        same(exchanged[f"{name}, intruder"], mine)
        if name.startswith(("distance ", "length", "facing", "bend")):  # no swap can change them
            same(social[f"{name}, least"], torch.minimum(mine, theirs))
            same(social[f"{name}, greatest"], torch.maximum(mine, theirs))
    same(roles["distance, of any two points"], social["distance, of any two points"])


def columns_of(schema: Schema, position_BTMKX: torch.Tensor) -> dict[str, torch.Tensor]:
    last = position_BTMKX.permute(2, 3, 4, 0, 1)
    confidence = 1 - last[:, :, 0].isnan().float()
    return Interaction(last, confidence, schema, torch.tensor(25.0)).compute()


@pytest.mark.parametrize("animals", [2, 3])
def test_exchanged_identities_of_a_tracker_change_no_speed(animals: int) -> None:
    schema = replace(RATS, animals=tuple("abc"[:animals]))
    position = wander(schema, seconds=8, missing=0.0).position_BTMKX
    swapped = position.clone()
    swapped[:, 100:] = swapped[:, 100:].roll(1, dims=2)
    before, after = columns_of(schema, position), columns_of(schema, swapped)
    for name in (name for name in before if name.startswith(("speed", "turn", "towards"))):
        torch.testing.assert_close(after[name], before[name], equal_nan=True)
    assert before["exchanged"].sum() == 0
    assert after["exchanged"].sum() == 1


def test_moving_turning_and_mirroring_change_what_belongs_to_the_place_alone() -> None:
    pose = wander(RATS, seconds=8, missing=0.1)
    model = handmade(RATS, pose)
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]]) @ torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    turned = Pose(pose.position_BTMKX @ turn.T + 37, pose.confidence_BTMK)
    change = (
        (model.features.raw(turned) - model.features.raw(pose)).abs().nan_to_num(0).amax((0, 1))
    )
    places = 4  # wall and centre, the least and the greatest
    assert int((change > 1e-3).sum()) == places
    social = handmade(RATS, pose, "social").features
    raw = social.raw(pose)[..., : social.columns["social"].stop]
    torch.testing.assert_close(
        social.raw(turned)[..., : raw.shape[-1]], raw, rtol=1e-3, atol=1e-3, equal_nan=True
    )


def test_a_frame_rate_changes_little() -> None:
    fast = replace(RATS, fps=60.0)
    slow_pose = wander(RATS, seconds=20, missing=0.0)
    fast_pose = wander(fast, seconds=20, missing=0.0)
    model = handmade(RATS, slow_pose)
    twice = build_embedder(
        fast, features={"groups": ["interaction"]}, encoder={"name": "handmade"}
    ).eval()
    twice.features.load_state_dict(model.features.state_dict())
    a, b = embedded(model, slow_pose)[60:-60], embedded(twice, fast_pose)[::2][60:-60]
    assert (a - b).abs().median() < 0.02
    assert torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] > 0.98


def test_columns_do_not_grow_with_points_or_animals() -> None:
    many = Schema.from_names(
        animals=tuple("abcd"),
        keypoints=tuple(f"p{n}" for n in range(30)),
        fps=30.0,
        image_px=(600.0, 400.0),
    )
    model = handmade(many, windows_of(many, batch=1, frames=60, missing=0.2).pose)
    assert len(points_of(many)) == 5
    assert model.dim < 2500
    three = replace(RATS, animals=tuple("abc"))
    four = replace(RATS, animals=tuple("abcd"))
    dims = [
        handmade(schema, wander(schema, seconds=3, missing=0.0)).dim for schema in (three, four)
    ]
    assert dims[1] <= dims[0]


def test_mirrored_points_of_a_mouse_are_looked_at_by_their_midpoints() -> None:
    mouse = Schema.from_names(
        animals=("a", "b"),
        keypoints=("nose", "left_ear", "right_ear", "neck", "left_hip", "right_hip", "tail_base"),
        fps=30.0,
        image_px=(1024.0, 570.0),
    )
    assert list(points_of(mouse).values())[:3] == [(0,), (3,), (6,)]
    assert set(list(points_of(mouse).values())[3:]) == {(1, 2), (4, 5)}


def test_pieces_of_a_long_video_equal_the_whole() -> None:
    pose = wander(RATS, seconds=60, missing=0.3)
    pose.position_BTMKX[:, 700:900, 0] = torch.nan
    pose.confidence_BTMK[:, 700:900, 0] = 0
    model = handmade(RATS, pose)
    frames = pose.position_BTMKX.shape[1]
    whole = model(pose, torch.ones(1, frames, dtype=torch.bool))[0]
    pieces = []
    for windows, _, inside in cover(pose, window=1200, overlap=model.overlap):
        pieces.append(model.embed(windows)[0, inside])
    assert len(pieces) > 2
    torch.testing.assert_close(torch.cat(pieces), whole, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("animals", [1, 2, 3])
@pytest.mark.parametrize("keypoints", [1, 2, 5])
def test_animals_of_any_number_of_points_say_something(animals: int, keypoints: int) -> None:
    schema = Schema.from_names(
        animals=tuple("abc"[:animals]),
        keypoints=RATS.keypoints[:keypoints],
        fps=30.0,
        image_px=(600.0, 400.0),
    )
    pose = wander(schema, seconds=8, missing=0.1)
    model = handmade(schema, pose)
    columns = dict(zip(feature_names(model.features), model.features(pose)[0].T, strict=False))
    for name in ["speed over 1 s"] + ["distance, of any two points"] * (animals > 1):
        matching = [x for key, x in columns.items() if key.startswith(f"interaction: {name}")]
        assert matching
        assert all(x.std() > 0.5 for x in matching), name
    assert embedded(model, pose).isfinite().all()


def test_in_space_a_turn_changes_what_belongs_to_the_place_alone() -> None:
    schema = replace(RATS, coordinates=("x", "y", "z"), image_px=(600.0, 400.0, 300.0))
    flat = wander(RATS, seconds=8, missing=0.1).position_BTMKX
    height = wander(RATS, seconds=8, missing=0.0, seed=1).position_BTMKX[..., :1]
    position = torch.cat([flat, height], -1)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))
    before, after = columns_of(schema, position), columns_of(schema, position @ turn)
    for name in (name for name in before if not name.startswith(("wall", "from the centre"))):
        torch.testing.assert_close(
            after[name], before[name], atol=2e-3, rtol=1e-3, equal_nan=True, msg=name
        )


def test_columns_have_names_of_their_own() -> None:
    features = Features(RATS, groups=["interaction"])
    names = feature_names(features)
    assert len(names) == len(set(names)) == features.columns["interaction"].stop
    assert "interaction: speed over 1 s, greatest" in names


def test_other_groups_have_the_means_of_earlier_versions() -> None:
    schema = replace(RATS, fps=25.0)
    made = build_embedder(schema, features={"groups": ["posture"]}, encoder={"name": "handmade"})
    assert made.dim == 3 * made.features.width
    assert made.encoder.context == (60, 60)


def test_too_many_columns_and_stretches_in_frames_are_refused() -> None:
    many = Schema.from_names(
        animals=tuple("abcd"),
        keypoints=tuple(f"p{n}" for n in range(30)),
        fps=30.0,
        image_px=(600.0, 400.0),
    )
    with pytest.raises(BadInput, match=r"19,152 columns .* at most 8,192: .*social"):
        build_embedder(many, features={}, encoder={"name": "handmade"})
    with pytest.raises(BadInput, match=r"means has 60; a stretch is in seconds"):
        build_embedder(RATS, features={}, encoder={"name": "handmade", "means": [15, 60]})


def test_a_run_says_which_points_are_looked_at(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        open_encoder("handmade", wander_store(tmp_path, [300]), recipe="contrastive", seed=0)
    points = "nose, neck, tail_base, left_ear/right_ear, left_hip/right_hip"
    assert f"896 columns a frame, from {points} (of 7 keypoints; at most 5" in caplog.text
