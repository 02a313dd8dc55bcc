"""Programs against animals worked out by hand, against a slow reference, and their labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from worlds import BODY_KX, MICE, RATS, line, pose_of, stiff, wander

from pretrain.data.schema import Schema
from pretrain.errors import BadInput
from pretrain.transforms import programs
from pretrain.transforms.animal import SPAN, Animal, length
from pretrain.transforms.landmarks import Landmarks

FRAMES = 64
INSIDE = slice(SPAN, -SPAN)
STILL = stiff(np.tile([700.0, 400.0], (FRAMES, 1)), np.full(FRAMES, 0.3))


def columns(position_BTMKX: Tensor, schema: Schema = MICE) -> dict[str, Tensor]:
    """Each program over the first window, (T,)."""
    value = programs.measure(position_BTMKX, schema)[0]
    return dict(zip(programs.names(schema), value.unbind(-1), strict=True))


def of(*animals_TKX: np.ndarray) -> dict[str, Tensor]:
    return columns(pose_of(*animals_TKX).position_BTMKX)


def holds(result: Tensor, truth: float | Tensor, *, within: float = 2e-3) -> None:
    torch.testing.assert_close(
        result,
        torch.as_tensor(truth, dtype=result.dtype).expand(result.shape),
        atol=within,
        rtol=1e-5,
    )


def soft_classes(value_BTP: Tensor, threshold_PH: Tensor, **softness: float) -> Tensor:
    return programs.log_soft_classes(value_BTP, threshold_PH, **softness).exp()


# -- animals worked out by hand --------------------------------------------------------------------


def test_the_ten_programs_and_their_published_thresholds() -> None:
    assert programs.names(MICE) == [
        "speed_resident",
        "speed_intruder",
        "facing_resident_intruder",
        "facing_intruder_resident",
        "nose_movement_resident",
        "nose_movement_intruder",
        "nose_to_nose_resident_intruder",
        "nose_to_tail_resident_intruder",
        "head_to_body_resident",
        "head_to_body_intruder",
    ]
    cuts = [[10, 20]] * 2 + [[0.5, 1.5]] * 2 + [[5, 8]] * 2 + [[60, 200]] * 2 + [[-0.5, 0.5]] * 2
    assert programs.thresholds(MICE).tolist() == [list(map(float, cut)) for cut in cuts]
    assert all(one.unit for one in programs.all_programs())


def test_approach() -> None:
    """The resident walks along +x at 3 px a frame towards an intruder that looks at it from 400 px
    away."""
    me, other = (
        line((100, 200), (3, 0)),
        stiff(np.tile([500.0, 200.0], (FRAMES, 1)), np.full(FRAMES, math.pi)),
    )
    result = of(me, other)
    holds(result["speed_resident"][INSIDE], 12.0)
    holds(result["speed_intruder"][INSIDE], 0.0)
    for name in (
        "facing_resident_intruder",
        "facing_intruder_resident",
        "head_to_body_resident",
        "head_to_body_intruder",
    ):
        holds(result[name], 0.0)
    for name in ("nose_movement_resident", "nose_movement_intruder"):
        holds(result[name][INSIDE], 0.0)
    gone = 3.0 * torch.arange(FRAMES)
    holds(result["nose_to_nose_resident_intruder"], 400 - gone - 2 * 37)
    holds(result["nose_to_tail_resident_intruder"], 400 - gone - 37 + 51)
    labels = programs.classes(
        programs.measure(pose_of(me, other).position_BTMKX, MICE), programs.thresholds(MICE)
    )[0, 30]
    assert labels.tolist() == [1, 0, 0, 0, 0, 0, 2, 2, 1, 1]


def test_chase() -> None:
    """The resident follows 120 px behind, both at 6 px a frame down a slope: its nose stays as far
    from the tail base."""
    direction = np.array([0.6, 0.8])
    result = of(line((100, 50), 6 * direction), line((100, 50) + 120 * direction, 6 * direction))
    holds(result["nose_to_tail_resident_intruder"], 120 - 37 - 51)
    holds(result["nose_to_nose_resident_intruder"], 120)
    holds(result["speed_resident"][INSIDE], 24.0)
    holds(result["facing_resident_intruder"], 0.0)
    holds(result["facing_intruder_resident"], math.pi)


def test_spinner() -> None:
    """An animal that turns on the spot: the body stays, the nose runs along a circle of 37 px."""
    turn = 0.05
    me = stiff(np.tile([300.0, 300.0], (FRAMES, 1)), turn * np.arange(FRAMES))
    result = of(me, stiff(np.tile([600.0, 300.0], (FRAMES, 1)), np.zeros(FRAMES)))
    holds(result["speed_resident"][INSIDE], 0.0)
    holds(result["nose_movement_resident"][INSIDE], 2 * 37 * math.sin(2 * turn))
    turned = turn * torch.arange(FRAMES)
    holds(result["facing_resident_intruder"], torch.minimum(turned, 2 * math.pi - turned))
    holds(result["head_to_body_resident"], 0.0)


def test_a_head_to_the_right_is_negative_and_a_mirror_makes_it_positive() -> None:
    bent = STILL.copy()
    neck = bent[:, MICE.keypoint("neck")]
    angle = (
        0.3 + 0.7
    )  # the body looks along 0.3; y points down, so the animal's right is towards larger angles
    bent[:, MICE.keypoint("nose")] = neck + 25 * np.array([math.cos(angle), math.sin(angle)])
    pose = pose_of(bent, line((100, 100), (2, 1)))
    result = columns(pose.position_BTMKX)
    holds(result["head_to_body_resident"], -0.7)
    mirrored = pose.position_BTMKX[:, :, :, MICE.mirrored()] * torch.tensor(
        [-1.0, 1.0]
    ) + torch.tensor([MICE.image_px[0], 0.0])
    for name, value in columns(mirrored).items():
        sign = -1 if name.startswith("head_to_body") else 1
        torch.testing.assert_close(value, sign * result[name], atol=2e-3, rtol=1e-5, equal_nan=True)


def test_nothing_changes_when_the_scene_is_moved_and_turned() -> None:
    position, _ = wander(MICE, FRAMES, seed=4, missing=0.0)
    whole = torch.from_numpy(position)[None].double()
    cos, sin = math.cos(2.2), math.sin(2.2)
    moved = whole @ torch.tensor([[cos, sin], [-sin, cos]], dtype=torch.float64) + torch.tensor(
        [40.0, -7.0]
    )
    torch.testing.assert_close(
        programs.measure(moved, MICE), programs.measure(whole, MICE), equal_nan=True
    )


# -- a slow reference ------------------------------------------------------------------------------


def slowly(position_TMKX: np.ndarray, nose: int, neck: int, tail: int) -> np.ndarray:
    """The ten programs of two animals, frame by frame, from the definitions."""
    x = position_TMKX.astype(float)
    out = np.full((len(x), 10), np.nan)

    def angle(a: np.ndarray, b: np.ndarray) -> float:
        return (
            math.atan2(a[0] * b[1] - a[1] * b[0], a @ b)
            if np.isfinite([*a, *b]).all()
            else math.nan
        )

    def mean(points: np.ndarray) -> np.ndarray:
        seen = points[np.isfinite(points).all(-1)]
        return seen.mean(0) if len(seen) else np.full(2, np.nan)

    for t in range(len(x)):
        for me in (0, 1):
            axis = x[t, me, neck] - x[t, me, tail]
            out[t, 2 + me] = abs(angle(axis, mean(x[t, 1 - me]) - mean(x[t, me])))
            out[t, 8 + me] = angle(x[t, me, nose] - x[t, me, neck], axis)
            if 2 <= t < len(x) - 2:
                moved = mean(x[t + 2, me] - x[t - 2, me])
                out[t, me] = np.linalg.norm(moved)
                out[t, 4 + me] = np.linalg.norm(x[t + 2, me, nose] - x[t - 2, me, nose] - moved)
        out[t, 6] = np.linalg.norm(x[t, 0, nose] - x[t, 1, nose])
        out[t, 7] = np.linalg.norm(x[t, 1, tail] - x[t, 0, nose])
    return out


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize(("schema", "marks"), [(MICE, (0, 3, 6)), (RATS, (0, 1, 2))])
def test_they_are_what_the_definitions_say(
    schema: Schema, marks: tuple[int, int, int], missing: float
) -> None:
    position, _ = wander(schema, 80, seed=2, missing=missing)
    result = programs.measure(torch.from_numpy(position)[None], schema)[0].numpy()
    truth = slowly(position, *marks)
    assert np.array_equal(np.isnan(result), np.isnan(truth))
    # Angles near pi may fall on either side.
    apart = np.abs(result - truth)
    apart[:, 8:] = np.minimum(apart[:, 8:], 2 * np.pi - apart[:, 8:])
    assert np.nanmax(apart) < 2e-3


def released(one_KX: np.ndarray, other_KX: np.ndarray) -> tuple[float, float]:
    """The facing angle and the angle of the head that the released task programming computes of
    mice of seven points, nose 0, neck 3 and tail base 6: written down from its description in
    docs/objectives.md, with complex numbers."""
    (nose, neck, tail), other = one_KX[[0, 3, 6]] @ [1, 1j], (other_KX @ [1, 1j]).mean()
    way = np.angle((one_KX @ [1, 1j]).mean() - other)
    way = np.pi * ((way + 2 * np.pi) - 2 * math.floor((way + 2 * np.pi) / 2))
    turned = np.exp(1j * way) / np.exp(1j * np.angle(np.conj(neck - tail)))
    return abs(np.angle(turned)), np.angle((neck - tail) / (nose - neck))


def test_programs_that_are_said_to_be_the_released_ones_are() -> None:
    rng = np.random.default_rng(0)
    position = rng.uniform(0, 1000, (500, 2, 7, 2))
    which = programs.programs_named(["facing_released", "head_to_body"])
    assert programs.names(MICE, which) == [
        "facing_released_resident_intruder",
        "facing_released_intruder_resident",
        "head_to_body_resident",
        "head_to_body_intruder",
    ]
    assert programs.thresholds(MICE, which).tolist() == [[0.5, 1.5]] * 2 + [[-0.5, 0.5]] * 2
    result = programs.measure(torch.from_numpy(position)[None], MICE, which)[0]
    truth = np.array([[*released(a, b), *released(b, a)] for a, b in position])[:, [0, 2, 1, 3]]
    torch.testing.assert_close(result, torch.from_numpy(truth), atol=1e-12, rtol=0)
    facing = programs.measure(torch.from_numpy(position)[None], MICE)[0][:, 2:4]
    cut = programs.thresholds(MICE)[2:4]
    same = programs.classes(facing[None], cut) == programs.classes(result[None, :, :2], cut)
    assert same.double().mean() < 0.45, "ours is another angle: classes agree by chance"


def test_programs_are_chosen_by_name() -> None:
    assert "facing_released" not in [one.name for one in programs.programs_named()]
    with pytest.raises(BadInput, match=r"(?s)'sped' is none of the programs .*'speed' is named tw"):
        programs.programs_named(["sped", "speed", "speed"])
    position, _ = wander(MICE, FRAMES, seed=1)
    whole = torch.from_numpy(position)[None]
    some = programs.measure(whole, MICE, programs.programs_named(["nose_to_nose", "speed"]))
    torch.testing.assert_close(some, programs.measure(whole, MICE)[..., [0, 1, 6]], equal_nan=True)


def test_windows_are_measured_apart() -> None:
    position, _ = wander(MICE, 60, seed=5)
    both = torch.from_numpy(position).view(2, 30, 2, 7, 2)
    value = programs.measure(both, MICE)
    for window in range(2):
        torch.testing.assert_close(
            value[window : window + 1],
            programs.measure(both[window : window + 1], MICE),
            equal_nan=True,
        )
    assert value[:, [0, 1, -2, -1], :2].isnan().all(), (
        "movement cannot be known at the edges of a window"
    )


# -- skeletons -------------------------------------------------------------------------------------


def marks_of(schema: Schema) -> list[str]:
    marks = Landmarks.of(schema)
    return [schema.keypoints[index] for index in (marks.nose, marks.neck, marks.tail_base)]


def named(*keypoints: str, **more: object) -> Schema:
    return Schema.from_names(animals=("a",), keypoints=keypoints, fps=30.0, image_px=(10.0, 10.0))


def test_who_plays_nose_neck_and_tail_base() -> None:
    assert marks_of(MICE) == ["nose", "neck", "tail_base"]
    assert marks_of(RATS) == ["top", "body", "tail"]
    assert marks_of(named("tail_base", "Neck", "ear", "Snout")) == ["Snout", "Neck", "tail_base"]
    assert marks_of(named("head", "tail")) == ["head", "head", "tail"]


def test_a_skeleton_without_a_neck_has_no_head_angle_and_all_else() -> None:
    schema = named("head", "tail")
    value = programs.measure(torch.randn(1, 12, 1, 2, 2) * 20 + 100, schema)
    assert programs.names(schema) == ["speed_a", "nose_movement_a", "head_to_body_a"]
    assert value[..., 2].isnan().all()
    assert value[:, INSIDE, :2].isfinite().all()


def test_three_animals_meet_each_other() -> None:
    schema = Schema.from_names(
        animals=("a", "b", "c"), keypoints=MICE.keypoints, fps=30.0, image_px=MICE.image_px
    )
    names = programs.names(schema)
    assert len(names) == 3 + 6 + 3 + 3 + 2 + 3
    position = torch.from_numpy(
        np.concatenate([wander(MICE, 30, seed=s, missing=0.0)[0] for s in (1, 2)], 1)[:, :3]
    )[None]
    result = columns(position, schema)
    for pair in ((0, 1), (0, 2), (1, 2)):
        two = columns(position[:, :, list(pair)])
        a, b = ("abc"[index] for index in pair)
        torch.testing.assert_close(
            result[f"nose_to_nose_{a}_{b}"], two["nose_to_nose_resident_intruder"]
        )
        torch.testing.assert_close(result[f"facing_{b}_{a}"], two["facing_intruder_resident"])


def test_a_new_program_is_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    @programs.program(of="animal", unit="px", thresholds=(80.0,))
    def body_length(me: Animal) -> Tensor:
        return length(me.axis)

    monkeypatch.setattr(programs, "body_length", body_length, raising=False)
    result = of(STILL, STILL)
    holds(result["body_length_intruder"], 63.0)
    cuts = programs.thresholds(MICE)
    assert cuts[-1].tolist() == [80.0, math.inf]
    soft = soft_classes(torch.tensor([[[0.0] * 10 + [63.0, 63.0]]]), cuts)
    assert soft[..., -1, 2].item() == 0
    assert soft[..., -1, :].sum().item() == pytest.approx(1)


# -- labels ----------------------------------------------------------------------------------------


def test_a_class_is_the_number_of_thresholds_strictly_below() -> None:
    value = torch.tensor([9.0, 10.0, 10.001, 20.0, 21.0, math.nan]).view(1, 6, 1)
    assert programs.classes(value, torch.tensor([[10.0, 20.0]])).flatten().tolist() == [
        0,
        0,
        1,
        1,
        2,
        -1,
    ]


def test_soft_labels_become_the_hard_ones() -> None:
    cuts = torch.tensor([[10.0, 20.0], [-0.5, 0.5]])
    value = torch.tensor([[[3.0, -3.0], [14.0, 0.1], [26.0, 0.6]]])
    soft = soft_classes(value, cuts, softness=1e-3)
    torch.testing.assert_close(soft.argmax(-1), programs.classes(value, cuts))
    torch.testing.assert_close(soft.amax(-1), torch.ones(1, 3, 2))
    wide = soft_classes(value, cuts, softness=0.5)
    torch.testing.assert_close(wide.sum(-1), torch.ones(1, 3, 2))
    by_hand = torch.sigmoid(torch.tensor((14 - 10) / 5)) - torch.sigmoid(
        torch.tensor((14 - 20) / 5)
    )
    assert wide[0, 1, 0, 1].item() == pytest.approx(by_hand.item(), rel=1e-5)
    half = soft_classes(torch.tensor([[[10.0, 0.0]]]), cuts, softness=0.01)
    assert half[0, 0, 0].tolist() == pytest.approx([0.5, 0.5, 0.0], abs=1e-6)


def test_far_from_a_threshold_the_gradient_still_shows_the_way() -> None:
    value = torch.tensor([[[500.0]]], requires_grad=True)
    log_share = programs.log_soft_classes(value, torch.tensor([[10.0, 20.0]]))
    assert log_share.isfinite().all()
    assert log_share[0, 0, 0, 0].item() == pytest.approx(-490 / 1.0, rel=1e-3)
    (grad,) = torch.autograd.grad(log_share[0, 0, 0, 1], value)
    assert grad.item() == pytest.approx(-1.0, rel=1e-3)


def test_unknown_stays_unknown() -> None:
    soft = soft_classes(torch.tensor([[[math.nan]]]), torch.tensor([[1.0, 2.0]]))
    assert soft.isnan().all()


def test_quantiles_cut_the_data_into_the_shares_asked_for() -> None:
    position = torch.from_numpy(wander(MICE, 4000, seed=8, missing=0.1)[0]).view(4, 1000, 2, 7, 2)
    value = programs.measure(position, MICE)
    cuts = programs.quantile_thresholds(value, (0.5, 0.9))
    labels = programs.classes(value, cuts)
    for program in range(10):
        known = labels[..., program][labels[..., program] >= 0]
        shares = [(known == c).float().mean().item() for c in range(3)]
        assert shares == pytest.approx([0.5, 0.4, 0.1], abs=0.01)
    assert programs.quantile_thresholds(torch.full((1, 5, 1), math.nan), (0.5, 0.9)).isinf().all()


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_gradients_are_finite_and_right(missing: float) -> None:
    position = (
        torch.from_numpy(wander(MICE, 7, seed=9, missing=missing)[0])[None]
        .double()
        .requires_grad_()
    )

    def known(x: Tensor) -> Tensor:
        return programs.measure(x, MICE).nan_to_num(0.0)

    if missing:
        known(position).sum().backward()
        assert position.grad is not None
        assert position.grad.isfinite().all()
    else:
        assert torch.autograd.gradcheck(known, position, atol=1e-4)


def test_animals_that_stand_still_or_on_top_of_each_other_have_a_finite_gradient() -> None:
    position = pose_of(STILL[:8], STILL[:8]).position_BTMKX.clone().requires_grad_()
    value = programs.measure(position, MICE)
    value.nan_to_num(0.0).sum().backward()
    assert position.grad is not None
    assert position.grad.isfinite().all()
    learning = dict(zip(programs.names(MICE), value[0].unbind(-1), strict=True))
    for result in (learning, columns(position.detach())):
        assert result["facing_resident_intruder"].isnan().all(), (
            "there is no way from a place to itself"
        )
        assert result["speed_resident"][INSIDE].eq(0).all()


def test_the_body_of_the_worlds_is_what_these_tests_take_it_for() -> None:
    assert BODY_KX.mean(0).tolist() == [0, 0]
