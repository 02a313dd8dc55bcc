"""The vocabulary of pose data: what is refused, what names give away, when two skeletons can
exchange poses."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from worlds import MICE, RATS

from pretrain.data.schema import Schema, Video
from pretrain.errors import BadInput


def test_calms21_is_as_published() -> None:
    assert MICE.shape == (2, 7, 2)
    assert MICE.animals == ("resident", "intruder")
    assert MICE.keypoints == (
        "nose",
        "left_ear",
        "right_ear",
        "neck",
        "left_hip",
        "right_hip",
        "tail_base",
    )
    assert (MICE.fps, MICE.image_px) == (30.0, (1024.0, 570.0))
    assert MICE.mirrored() == [0, 2, 1, 3, 5, 4, 6]


def test_there_and_back() -> None:
    for schema in (MICE, RATS):
        assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema


def test_names_of_calms21_give_its_whole_schema() -> None:
    read = Schema.from_names(
        animals=MICE.animals, keypoints=MICE.keypoints, fps=30, image_px=(1024, 570)
    )
    assert read == MICE


@pytest.mark.parametrize(
    ("keypoints", "pairs", "axis"),
    [
        (("top", "body", "tail", "tail-m", "tail-e"), (), ("tail", "top")),
        (("Nose", "EarL", "EarR", "TailBase"), (("EarL", "EarR"),), ("TailBase", "Nose")),
        (
            ("snout", "l_ear", "r_ear", "hip_l", "hip_r", "rump"),
            (("l_ear", "r_ear"), ("hip_l", "hip_r")),
            ("rump", "snout"),
        ),
        (("a", "b", "c"), (), ("c", "a")),
        (("barrel", "barrer"), (), ("barrer", "barrel")),
        (("only",), (), ("only", "only")),
    ],
)
def test_what_names_give_away(
    keypoints: tuple[str, ...], pairs: object, axis: tuple[str, str]
) -> None:
    schema = Schema.from_names(animals=("a",), keypoints=keypoints, fps=30, image_px=(10, 10))
    assert (schema.mirror_pairs, schema.axis) == (pairs, axis)


def test_every_error_is_named_at_once() -> None:
    with pytest.raises(BadInput) as caught:
        Schema(
            animals=("a", "a"),
            keypoints=("nose", ""),
            fps=float("nan"),
            image_px=(1.0,),
            axis=("tail", "nose"),
        )
    message = str(caught.value)
    assert message.count("\n  - ") == 5
    for part in (
        "animals has an empty or repeated name",
        "keypoints has",
        "fps is nan",
        "image_px is (1.0,)",
        "'tail', which is not a keypoint",
    ):
        assert part in message


@pytest.mark.parametrize(
    "damage",
    [
        {"animals": None},
        {"axis": ["nose"]},
        {"edges": [["nose"]]},
        {"fps": "fast"},
        {"fps": 0},
        {"keypoints": []},
    ],
)
def test_a_damaged_schema_is_refused(damage: dict[str, object]) -> None:
    with pytest.raises(BadInput, match="pose schema"):
        Schema.from_dict(MICE.to_dict() | damage)


def test_a_schema_without_a_field_is_refused() -> None:
    with pytest.raises(BadInput, match="keypoints"):
        Schema.from_dict(
            {key: value for key, value in MICE.to_dict().items() if key != "keypoints"}
        )


def test_differences_show_both_lists() -> None:
    assert MICE.differences(replace(MICE, fps=25.0)) == []
    (animals, keypoints) = MICE.differences(RATS)
    for name in (*MICE.keypoints, *RATS.keypoints):
        assert name in keypoints
    for name in (*MICE.animals, *RATS.animals):
        assert name in animals
    swapped = replace(MICE, keypoints=("left_ear", "nose", *MICE.keypoints[2:]))
    assert len(MICE.differences(swapped)) == 1, "the order of keypoints matters"


def test_a_video_that_cannot_be_is_refused() -> None:
    position, confidence = np.zeros((3, 2, 7, 2), np.float32), np.ones((3, 2, 7), np.float32)
    Video(name="v", position_TMKX=position, confidence_TMK=confidence)
    infinite = position.copy()
    infinite[1, 0, 0, 0] = np.inf
    for bad, message in (
        ({"position_TMKX": position[:2]}, "shape"),
        ({"position_TMKX": position[:0], "confidence_TMK": confidence[:0]}, "no frames"),
        ({"position_TMKX": infinite}, "infinite at frame 1"),
        ({"features": {"f": np.zeros((2, 4), np.float32)}}, "features 'f'"),
    ):
        with pytest.raises(BadInput, match=message):
            Video(
                **(
                    {
                        "name": "v",
                        "source": "v.csv",
                        "position_TMKX": position,
                        "confidence_TMK": confidence,
                    }
                    | bad
                )
            )  # type: ignore[arg-type]
