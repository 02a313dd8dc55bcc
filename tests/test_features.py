"""Features of animals whose truth is worked out by hand, and what they must not depend on."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from worlds import BODY_KX, MICE, RATS, SKELETONS, line, pose_of, stiff, windows_of

from pretrain.data.schema import Schema
from pretrain.data.windows import Pose
from pretrain.errors import BadInput
from pretrain.transforms.feature_names import feature_names
from pretrain.transforms.features import Features
from pretrain.transforms.geometry import frames_last

# Those whose truth is worked out here; tests/test_contracts.py holds for any group there is.
GROUPS = ("posture", "motion", "relation", "distances", "scene", "place", "confidence")
PLANE = [name for name, schema in SKELETONS.items() if len(schema.coordinates) == 2]
UNIT = 1000.0  # of the columns of `measuring`, so that nothing is clipped


def measuring(
    schema: Schema = MICE, groups: tuple[str, ...] = GROUPS, lags: tuple[int, ...] = (2, 8)
) -> Features:
    """Features that are not standardised: each column in its own unit over UNIT, 0 where
    unknown."""
    features = Features(schema, groups=groups, lags=lags)
    body = (
        BODY_KX
        if schema is MICE
        else np.stack([40 - 20.0 * np.arange(schema.shape[1]), np.zeros(schema.shape[1])], -1)
    )
    features.body_KX.copy_(torch.from_numpy(body - body.mean(0)))
    features.scale_F.fill_(1 / UNIT)
    return features


def columns(features: Features, pose: Pose) -> dict[str, Tensor]:
    """Raw values of each group, (B, T, …)."""
    x = features(pose) * UNIT
    return {group: x[..., where] for group, where in features.columns.items()}


def motion(x: Tensor, animals: int, keypoints: int, lags: int) -> list[dict[str, Tensor]]:
    """The columns of `motion`, for each lag: displacement (M, X), turn as sine and cosine (M),
    speed (M, K)."""
    result = []
    for of_lag in x.chunk(lags, -1):
        moved, sine, cosine, speed = of_lag.split(
            [2 * animals, animals, animals, animals * keypoints], -1
        )
        result.append(
            {
                "moved": moved.unflatten(-1, (animals, 2)),
                "sine": sine,
                "cosine": cosine,
                "speed": speed.unflatten(-1, (animals, -1)),
            }
        )
    return result


def relation(x: Tensor, pairs: int) -> list[dict[str, Tensor]]:
    """The columns of `relation`, for each (me, other): direction (X), distance, heading of the
    other (X), its change a lag."""
    result = []
    for of_pair in x.chunk(pairs, -1):
        towards, distance, heading, closing = of_pair.split([2, 1, 2, of_pair.shape[-1] - 5], -1)
        result.append(
            {"towards": towards, "distance": distance, "heading": heading, "closing": closing}
        )
    return result


def close(result: Tensor, truth: object, within: float = 2e-3) -> None:
    torch.testing.assert_close(
        result, torch.as_tensor(truth, dtype=result.dtype).expand_as(result), atol=within, rtol=0
    )


# -- hand-worked animals ---------------------------------------------------------------------------


def test_a_stiff_mouse_has_one_posture_wherever_it_is_and_looks() -> None:
    frames = 40
    heading = np.linspace(0, 7, frames)
    turning = stiff(
        np.stack([np.linspace(0, 900, frames), np.linspace(400, 100, frames)], -1), heading
    )
    x = columns(measuring(), pose_of(turning, line([500, 300], [0, 1], frames=frames)))
    close(x["posture"].unflatten(-1, (2, 7, 2)), BODY_KX, within=0.02)
    assert (x["visible"] == UNIT).all()
    assert (x["confidence"] == UNIT / UNIT).all()


def test_a_mouse_on_a_line() -> None:
    forward, crab = line([100, 100], [3, 4]), line([500, 300], [0, 2], heading=0.0)
    (short, long) = motion(columns(measuring(), pose_of(forward, crab))["motion"], 2, 7, 2)
    for lag, result in ((2, short), (8, long)):
        inside = slice(lag // 2, 64 - lag // 2)
        close(result["moved"][0, inside, 0], [math.log1p(5 * lag), 0])
        close(
            result["moved"][0, inside, 1], [0, math.log1p(2 * lag)]
        )  # down in the picture is to the right of who looks along +x
        close(result["sine"][0, inside], 0)
        close(result["cosine"][0, inside], 1)
        close(result["speed"][0, inside, 0], math.log1p(5 * lag))
        for values in result.values():
            assert (values[0, : lag // 2] == 0).all(), "before the window nothing is known"
            assert (values[0, -(lag // 2) :] == 0).all()


def test_a_mouse_that_backs_away_moves_backwards() -> None:
    result = motion(
        columns(
            measuring(), pose_of(line([500, 300], [-3, 0], heading=0.0), line([100, 100], [0, 1]))
        )["motion"],
        2,
        7,
        2,
    )
    close(result[0]["moved"][0, 1:-1, 0], [-math.log1p(6), 0])


@pytest.mark.parametrize("turn", [0.05, -0.1])
def test_a_spinner_turns_and_stays(turn: float) -> None:
    spinner = stiff(np.full((64, 2), 300.0), turn * np.arange(64))
    for lag, result in zip(
        (2, 8),
        motion(columns(measuring(), pose_of(spinner, line([0, 0], [1, 0])))["motion"], 2, 7, 2),
        strict=True,
    ):
        inside = slice(lag // 2, 64 - lag // 2)
        close(result["sine"][0, inside, 0], math.sin(turn * lag))
        close(result["cosine"][0, inside, 0], math.cos(turn * lag))
        close(result["moved"][0, inside, 0], 0)
        radius = np.hypot(*BODY_KX.T)
        close(result["speed"][0, inside, 0], np.log1p(2 * radius * abs(math.sin(turn * lag / 2))))


@pytest.mark.parametrize("speed", [2.0, -3.0])
def test_who_approaches_closes_in(speed: float) -> None:
    still, comer = (
        line([100, 200], [0, 0], heading=0.0),
        line([500, 200], [-speed, 0], heading=math.pi / 2),
    )
    mine, theirs = relation(columns(measuring(), pose_of(still, comer))["relation"], 2)
    distance = 400 - speed * torch.arange(64.0)
    for result in (mine, theirs):
        close(result["distance"][0, :, 0], torch.log1p(distance))
        for column, lag in enumerate((2, 8)):
            inside = slice(lag // 2, 64 - lag // 2)
            close(
                result["closing"][0, inside, column],
                -math.copysign(math.log1p(abs(speed) * lag), speed),
            )
    ahead = distance / (1 + distance)
    close(mine["towards"][0], torch.stack([ahead, 0 * ahead], -1))
    close(mine["heading"][0], [0, 1])  # it looks to my right
    close(theirs["towards"][0], torch.stack([0 * ahead, ahead], -1))  # I stand to its right
    close(theirs["heading"][0], [0, -1])


def test_distances_between_points() -> None:
    first, second = (
        line([100, 200], [0, 0], heading=0.0, frames=3),
        line([400, 300], [0, 0], heading=math.pi, frames=3),
    )
    result = columns(measuring(), pose_of(first, second))["distances"].unflatten(-1, (7, 7))
    truth = np.log1p(np.linalg.norm(first[0][:, None] - second[0][None], axis=-1))
    close(result[0], truth)
    nose_to_nose = math.hypot(400 - 37 - (100 + 37), 100)
    assert result[0, 0, 0, 0].item() == pytest.approx(math.log1p(nose_to_nose), abs=1e-3)


def test_the_scene_is_seen_from_the_first_animal() -> None:
    first, second = (
        line([100, 200], [0, 0], heading=math.pi / 2, frames=3),
        line([100, 260], [0, 0], heading=math.pi / 2, frames=3),
    )
    result = columns(measuring(), pose_of(first, second))["scene"].unflatten(-1, (2, 7, 2))
    close(result[0, :, 0], BODY_KX, within=0.02)
    close(result[0, :, 1], BODY_KX + np.array([60, 0]), within=0.02)


def test_place_is_the_share_of_the_image_to_each_wall() -> None:
    result = columns(
        measuring(),
        pose_of(line([256, 57], [0, 0], heading=1.0), line([1024, 570], [0, 0], heading=2.0)),
    )["place"]
    close(result[0], [0.25, 0.1, 1, 1, 0.75, 0.9, 0, 0])


# -- what they must not depend on ------------------------------------------------------------------


def moved(pose: Pose, *, angle: float, by: tuple[float, float]) -> Pose:
    cos, sin = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[cos, sin], [-sin, cos]], dtype=torch.float64)
    return Pose(
        (pose.position_BTMKX.double() @ turn + torch.tensor(by)).float(), pose.confidence_BTMK
    )


@pytest.mark.parametrize("skeleton", PLANE)
@pytest.mark.parametrize(
    ("angle", "by"), [(0.0, (55.0, -31.0)), (math.pi / 2, (0.0, 0.0)), (2.3, (-200.0, 90.0))]
)
def test_moving_or_turning_the_scene_changes_nothing_but_place(
    skeleton: str, angle: float, by: tuple[float, float]
) -> None:
    schema = SKELETONS[skeleton]
    features = measuring(schema)
    pose = windows_of(schema, missing=0.2).pose
    before, after = columns(features, pose), columns(features, moved(pose, angle=angle, by=by))
    for group in set(GROUPS) - {"place"} | {"visible"}:
        close(after[group], before[group], within=0.05 if group in ("posture", "scene") else 0.01)
    assert (after["place"] - before["place"]).abs().max() > 0.05


def mirrored_columns(x: dict[str, Tensor], schema: Schema, lags: int) -> dict[str, Tensor]:
    """What the columns of the mirror image must be: left and right keypoints exchanged, sideways
    signs turned."""
    animals, keypoints, _ = schema.shape
    partner, side = schema.mirrored(), torch.tensor([1.0, -1.0])
    points = {
        group: x[group].unflatten(-1, (animals, keypoints, 2))[..., partner, :] * side
        for group in ("posture", "scene")
    }
    single = {
        group: x[group].unflatten(-1, (animals, keypoints))[..., partner]
        for group in ("confidence", "visible")
    }
    moving = torch.cat(
        [
            torch.cat(
                [
                    (f["moved"] * side).flatten(-2),
                    -f["sine"],
                    f["cosine"],
                    f["speed"][..., partner].flatten(-2),
                ],
                -1,
            )
            for f in motion(x["motion"], animals, keypoints, lags)
        ],
        -1,
    )
    pairs = animals * (animals - 1)
    related = torch.cat(
        [
            torch.cat([f["towards"] * side, f["distance"], f["heading"] * side, f["closing"]], -1)
            for f in relation(x["relation"], pairs)
        ],
        -1,
    )
    apart = (
        x["distances"]
        .unflatten(-1, (keypoints, keypoints))[..., partner, :][..., partner]
        .flatten(-2)
    )
    near, far = x["place"].unflatten(-1, (2, animals, 2)).clone().unbind(-3)
    walls = torch.stack(
        [
            torch.stack([far[..., 0], near[..., 1]], -1),
            torch.stack([near[..., 0], far[..., 1]], -1),
        ],
        -3,
    )
    return {
        name: values.flatten(2)
        for name, values in {
            **points,
            **single,
            "motion": moving,
            "relation": related,
            "distances": apart,
            "place": walls,
        }.items()
    }


@pytest.mark.parametrize("skeleton", PLANE)
def test_a_mirror_turns_sideways_signs_only(skeleton: str) -> None:
    schema = SKELETONS[skeleton]
    features = measuring(schema)
    pose = windows_of(schema, missing=0.2).pose
    position = pose.position_BTMKX[:, :, :, schema.mirrored()] * torch.tensor(
        [-1.0, 1.0]
    ) + torch.tensor([schema.image_px[0], 0.0])
    mirror = columns(features, Pose(position, pose.confidence_BTMK[:, :, :, schema.mirrored()]))
    truth = mirrored_columns(columns(features, pose), schema, lags=2)
    assert set(truth) == set(mirror)
    for group, values in truth.items():
        close(mirror[group], values, within=0.05 if group in ("posture", "scene") else 0.01)


@pytest.mark.parametrize("skeleton", PLANE)
def test_exchanging_animals_exchanges_their_columns(skeleton: str) -> None:
    schema = SKELETONS[skeleton]
    animals, keypoints, _ = schema.shape
    features = measuring(schema)
    pose = windows_of(schema, missing=0.2).pose
    x, y = columns(features, pose), columns(features, Pose(*(part.flip(2) for part in pose[:2])))
    for group, shape in (
        ("posture", (animals, -1)),
        ("confidence", (animals, -1)),
        ("visible", (animals, -1)),
        ("place", (2, animals, 2)),
    ):
        axis = 3 if group == "place" else 2
        close(y[group].unflatten(-1, shape), x[group].unflatten(-1, shape).flip(axis))
    for was, now in zip(
        motion(x["motion"], 2, keypoints, 2), motion(y["motion"], 2, keypoints, 2), strict=True
    ):
        for name in was:
            close(now[name], was[name].flip(2))
    for was, now in zip(relation(x["relation"], 2), relation(y["relation"], 2)[::-1], strict=True):
        for name in was:
            close(now[name], was[name])
    close(
        y["distances"].unflatten(-1, (keypoints, keypoints)),
        x["distances"].unflatten(-1, (keypoints, keypoints)).transpose(-1, -2),
    )


# -- missing points --------------------------------------------------------------------------------


def hidden(pose: Pose, frame: int, animal: int, point: int) -> Pose:
    position, confidence = pose.position_BTMKX.clone(), pose.confidence_BTMK.clone()
    position[:, frame, animal, point], confidence[:, frame, animal, point] = torch.nan, 0
    return Pose(position, confidence)


def test_a_missing_point_takes_only_the_columns_that_need_it() -> None:
    features, frame, nose = measuring(), 30, MICE.keypoint("nose")
    pose = pose_of(line([100, 100], [3, 4]), line([500, 300], [0, 2]))
    x, y = columns(features, pose), columns(features, hidden(pose, frame, 0, nose))

    def differ(group: str, *shape: int) -> set[tuple[int, ...]]:
        # Of a stiff animal the other points give the very same frame, so all else stays (to the
        # rounding of float32).
        apart = (x[group] - y[group]).abs()[0].unflatten(-1, shape) > 0.02
        return {tuple(index) for index in apart.nonzero().tolist()}

    assert differ("visible", 2, 7) == {(frame, 0, nose)}
    assert differ("confidence", 2, 7) == {(frame, 0, nose)}
    assert {index[:3] for index in differ("posture", 2, 7, 2)} == {(frame, 0, nose)}
    assert {index[:3] for index in differ("scene", 2, 7, 2)} == {(frame, 0, nose)}
    assert {index[:2] for index in differ("distances", 7, 7)} == {(frame, nose)}
    assert differ("relation", 2, 7) == differ("place", 2, 4) == set()
    for lag, was, now in zip(
        (2, 8), motion(x["motion"], 2, 7, 2), motion(y["motion"], 2, 7, 2), strict=True
    ):
        apart = ((was["speed"] - now["speed"]).abs()[0] > 0.02).nonzero().tolist()
        assert {tuple(index) for index in apart} == {
            (frame - lag // 2, 0, nose),
            (frame + lag // 2, 0, nose),
        }
        for name in ("moved", "sine", "cosine"):
            close(now[name], was[name], within=0.02)
    for group, where in (
        ("visible", (0, frame, nose)),
        ("posture", (0, frame, 2 * nose)),
        ("distances", (0, frame, 0)),
    ):
        assert y[group][where] == 0, (
            "what is not known must read as the mean, 0, and `visible` must say so"
        )


def test_two_points_give_a_frame_and_one_gives_none() -> None:
    features = measuring(groups=("posture",))
    position = pose_of(
        line([100, 100], [3, 4], frames=2), line([500, 300], [0, 2], frames=2)
    ).position_BTMKX.clone()
    position[:, :, 0, 2:] = torch.nan
    position[:, 1, 0, 1:] = torch.nan
    result = columns(features, Pose(position, torch.ones(position.shape[:4])))["posture"].unflatten(
        -1, (2, 7, 2)
    )
    close(result[0, 0, 0, :2], BODY_KX[:2], within=0.02)
    assert (result[0, 1, 0] == 0).all()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    missing=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    frames=st.sampled_from([1, 2, 9, 40]),
)
def test_whatever_is_missing_features_are_finite_and_visible_is_the_truth(
    seed: int, missing: float, frames: int
) -> None:
    for schema in SKELETONS.values():
        features = Features(schema, groups=GROUPS, lags=(2, 8, 24))
        pose = windows_of(schema, batch=2, frames=frames, seed=seed, missing=missing).pose
        x = features(pose)
        assert x.shape == (2, frames, features.width)
        assert x.isfinite().all()
        assert torch.equal(
            x[..., features.columns["visible"]] == 1,
            pose.position_BTMKX[..., 0].isfinite().flatten(2),
        )
        if missing == 1:
            known = x[..., : features.columns["visible"].start]
            assert (known == 0).all()


def test_a_missing_point_is_not_read_as_the_corner_of_the_image() -> None:
    pose = pose_of(line([100, 100], [3, 4]), line([500, 300], [0, 2]))
    features = measuring()
    gone = hidden(pose, 20, 1, 3)
    corner = Pose(gone.position_BTMKX.nan_to_num(0.0), gone.confidence_BTMK)
    assert (features(gone) - features(corner)).abs().max() * UNIT > 10


# -- standardising, context, settings --------------------------------------------------------------


def test_fitted_features_have_mean_0_and_spread_1() -> None:
    windows = windows_of(MICE, batch=20, frames=64, missing=0.2)
    features = Features(MICE, groups=("posture", "motion", "distances"))
    features.fit(windows.pose)
    x = features(windows.pose)[..., : features.columns["visible"].start].flatten(0, 1)
    values = torch.where(x == 0, torch.nan, x)
    assert values.nanmean(0).abs().max() < 0.05, "beyond what clipping does"
    spread = (values - values.nanmean(0)).square().nanmean(0).sqrt()
    assert 0.9 < spread.min() < spread.max() < 1.05
    assert x.abs().max() <= 6
    body = features.body_KX - torch.from_numpy(BODY_KX)
    assert body.norm(dim=-1).max() < 6, "the mean body of noisy mice is the mouse"


def test_a_column_that_never_varies_is_silent() -> None:
    still = pose_of(line([100, 100], [0, 0], heading=0.0), line([300, 100], [0, 0], heading=0.0))
    features = Features(MICE, groups=("confidence",))
    features.fit(still)
    assert (
        features(Pose(still.position_BTMKX, still.confidence_BTMK * 0.5))[
            ..., features.columns["confidence"]
        ]
        == 0
    ).all()


def test_a_keypoint_that_is_never_seen_is_named() -> None:
    pose = windows_of(MICE).pose
    position = pose.position_BTMKX.clone()
    position[..., MICE.keypoint("left_hip"), :] = torch.nan
    with pytest.raises(BadInput, match="'left_hip' is never seen"):
        Features(MICE).fit(Pose(position, pose.confidence_BTMK))
    with pytest.raises(BadInput, match="no whole body"):
        Features(MICE).fit(Pose(torch.full_like(position, torch.nan), pose.confidence_BTMK * 0))


def test_context_is_as_far_as_features_look() -> None:
    pose = windows_of(MICE, batch=1, frames=80, missing=0).pose
    for groups, lags, context in (
        (("posture", "distances"), (2, 24), 0),
        (GROUPS, (2, 24), 12),
        (("relation",), (8,), 4),
    ):
        features = Features(MICE, groups=groups, lags=lags)
        assert features.context == context
        position = pose.position_BTMKX.clone()
        position[:, 40] += torch.randn(2, 7, 2, generator=torch.Generator().manual_seed(0))
        changed = (
            (features(pose) != features(Pose(position, pose.confidence_BTMK)))
            .any(-1)[0]
            .nonzero()
            .flatten()
            .tolist()
        )
        assert (min(changed), max(changed)) == (40 - context, 40 + context)


def test_columns_tile_the_axis() -> None:
    for schema in SKELETONS.values():
        features = Features(schema, groups=GROUPS)
        ends = 0
        for where in features.columns.values():
            assert where.start == ends
            ends = where.stop
        assert (
            ends
            == features.width
            == Features(schema, groups=GROUPS)(windows_of(schema).pose).shape[-1]
        )


@pytest.mark.parametrize("animals", [1, 3])
def test_other_numbers_of_animals(animals: int) -> None:
    schema = replace(RATS, animals=tuple("abc"[:animals]))
    features = Features(schema, groups=GROUPS)
    windows = windows_of(schema)
    features.fit(windows.pose)
    x = features(windows.pose)
    assert x.isfinite().all()
    keypoints, lags = 5, 3
    assert features.columns["relation"].stop - features.columns["relation"].start == animals * (
        animals - 1
    ) * (5 + lags)
    assert (
        features.columns["distances"].stop - features.columns["distances"].start
        == animals * (animals - 1) // 2 * keypoints**2
    )


@pytest.mark.parametrize(
    ("settings_given", "message"),
    [
        ({"groups": ["posture", "smell"]}, "unknown group 'smell'"),
        ({"lags": [3]}, "lag 3"),
        ({"groups": []}, "no groups"),
    ],
)
def test_settings_that_cannot_be(settings_given: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Features(MICE, **settings_given)  # type: ignore[arg-type]


def test_groups_that_hold_nothing_are_refused() -> None:
    with pytest.raises(BadInput, match="with 1 animal, relation, distances hold nothing"):
        Features(replace(RATS, animals=("a",)), groups=("relation", "distances"))


def test_other_coordinates_are_refused() -> None:
    with pytest.raises(BadInput, match="allowed: x, y and perhaps z"):
        Features(replace(MICE, coordinates=("x", "z")))


def in_space(pose: Pose, height: Tensor) -> Pose:
    """The same pose, each point at a height (B, T, M, K)."""
    height = height.masked_fill(pose.confidence_BTMK == 0, torch.nan)
    position = torch.cat([pose.position_BTMKX, height.unsqueeze(-1)], -1)
    return pose._replace(position_BTMKX=position)


def test_height_adds_to_features_and_changes_nothing_in_the_plane() -> None:
    """Where all is at one height, every column of the plane is what it was, and heights are 0."""
    pose = windows_of(MICE, batch=3, frames=40, seed=4).pose
    space = replace(MICE, coordinates=("x", "y", "z"), image_px=(*MICE.image_px, 300.0))
    flat, solid = (Features(schema, groups=GROUPS) for schema in (MICE, space))
    flat.fit(pose)
    level = in_space(pose, torch.full_like(pose.confidence_BTMK, 70.0))
    solid.fit(level)
    names = feature_names(solid)
    assert len(names) == len(solid.mean_F)
    plane = [
        n
        for n, name in enumerate(names)
        if not (" up " in name or "floor" in name or "ceil" in name)
    ]
    assert [names[n] for n in plane] == feature_names(flat)
    torch.testing.assert_close(
        solid.raw(level)[..., plane], flat.raw(pose), equal_nan=True, rtol=1e-4, atol=1e-4
    )
    upward = [n for n, name in enumerate(names) if " up " in name]
    values = solid.raw(level)[..., upward]
    assert values[values.isfinite()].abs().max() < 1e-4
    # A raised nose is higher by as much, in the frame of its own body.
    raised = pose.confidence_BTMK.new_full(pose.confidence_BTMK.shape, 70.0)
    raised[:, :, 0, 0] += 20.0
    posture = [n for n, name in enumerate(names) if name == "posture: resident nose up (px)"]
    tilted = solid.raw(in_space(pose, raised))[..., posture]
    seen = pose.confidence_BTMK[:, :, 0] > 0
    others = seen.sum(-1)[tilted[..., 0].isfinite()]
    torch.testing.assert_close(
        tilted[tilted.isfinite()], 20.0 - 20.0 / others, rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize(
    "shape",
    [(1, 5, 2, 7, 2), (1, 1, 1, 3, 1), (3, 100, 1, 1, 1), (0, 9, 1, 2, 2), (2, 32, 4, 8, 2)],
)
def test_frames_last_is_a_transposition(shape: tuple[int, ...]) -> None:
    position = torch.arange(float(math.prod(shape))).view(shape)
    result = frames_last(position)
    assert result.is_contiguous()
    assert torch.equal(result, position.permute(2, 3, 4, 0, 1))
    assert torch.equal(frames_last(position.double()), position.double().permute(2, 3, 4, 0, 1))
    through = position.clone().requires_grad_()
    (frames_last(through) * 2).sum().backward()
    assert through.grad is not None
    assert bool((through.grad == 2).all())


@pytest.mark.parametrize("rows", [slice(0, 6), slice(3, 4), slice(7, 12)])
def test_frames_have_the_same_features_in_any_batch(rows: slice) -> None:
    """To the last bit, so that the number of workers changes nothing."""
    pose = windows_of(MICE, batch=12, frames=40, seed=1).pose
    features = Features(MICE, groups=GROUPS)
    features.fit(pose)
    part = Pose(pose.position_BTMKX[rows], pose.confidence_BTMK[rows])
    assert torch.equal(features(part), features(pose)[rows])
