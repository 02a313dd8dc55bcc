"""Predictions on disk, from which every number can be had again; scores beyond frames; agreement of
annotators."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from recompute import predictions, recomputed
from sklearn.metrics import cohen_kappa_score, f1_score
from test_fit import CLASSES, problem, world
from test_labels import still

import finetune.run
from finetune.fit.fit import score_problems
from finetune.fit.frames import Frames, recordings
from finetune.labels.frame_labels import UNLABELLED
from finetune.labels.problems import Problem
from finetune.metrics.frame_metrics import over_seeds
from finetune.postprocess.calibrations.temperature import Temperature
from finetune.postprocess.learn import LearnedPostprocessing
from finetune.postprocess.postprocessing import Postprocessing
from finetune.postprocess.smoothers.moving import Moving
from finetune.report.annotator_agreement import (
    agreement,
    agreement_between_annotators,
)
from finetune.report.extended_scores import extended_metrics, extended_scores, mean_of
from finetune.report.predictions import write_predictions
from finetune.report.scores_text import class_table, extended_lines
from pretrain.data.schema import CALMS21
from pretrain.data.store_writer import StoreWriter
from pretrain.readers.annotations import Labels, write_labels


def guesses(asked: Problem, *, seed: int) -> dict[str, np.ndarray]:
    """Probabilities that know something."""
    draw = np.random.default_rng(seed)
    probabilities = {}
    for video, labels in asked.test.items():
        if asked.overlapping:
            probabilities[video] = np.clip(
                draw.random(labels.shape) * 0.7 + 0.3 * labels, 0, 1
            ).astype(np.float32)
        else:
            raw = draw.random((len(labels), len(asked.classes))) + 0.6 * (
                labels[:, None] == np.arange(len(asked.classes))
            )
            probabilities[video] = (raw / raw.sum(1, keepdims=True)).astype(np.float32)
    return probabilities


def exclusive() -> Problem:
    _, labels = world(videos=6, frames=400)
    asked = problem(labels)
    asked.test["v4"][:50] = UNLABELLED
    return asked


def overlapping() -> Problem:
    draw = np.random.default_rng(3)
    labels = {
        name: np.repeat((draw.random((30, 2)) < 0.4), 10, axis=0).astype(np.int8)
        for name in ("a", "b")
    }
    labels["b"][:20] = UNLABELLED
    return Problem(
        name="both",
        task="t",
        classes=("sniff", "rear up"),
        annotator="",
        overlapping=True,
        train={},
        test=labels,
    )


def several() -> list[Problem]:
    asked = exclusive()
    binary = {name: (frames == 0).astype(np.int8) for name, frames in asked.test.items()}
    return [
        replace(asked, name="attack", classes=("other", "attack"), test=binary),
        replace(asked, name="annotator 2", annotator="2"),
        overlapping(),
    ]


@pytest.mark.parametrize(
    "asked",
    [[exclusive()], [overlapping()], several()],
    ids=["exclusive", "overlapping", "several"],
)
@pytest.mark.parametrize("learned", [False, True])
def test_every_number_can_be_had_again_from_the_files(
    asked: list[Problem], learned: bool, tmp_path: Path
) -> None:
    budgets = {42: asked, 43: asked}
    probabilities = {seed: [guesses(p, seed=seed) for p in asked] for seed in budgets}
    postprocessing = (
        {
            seed: [
                LearnedPostprocessing(
                    postprocessing=Postprocessing(
                        smoother=Moving(frames=5, overlapping=p.overlapping),
                        calibration=Temperature(temperature=2.0, overlapping=p.overlapping),
                        overlapping=p.overlapping,
                    ),
                    name="x",
                    scores={},
                    videos=1,
                    frames=1,
                )
                for p in asked
            ]
            for seed in budgets
        }
        if learned
        else {}
    )
    material = Frames(spans={}, arrays={"z": np.zeros((1, 1), np.float32)})
    more, decided = extended_scores(budgets, probabilities, postprocessing, material, fps=30)
    scores = over_seeds(
        {
            seed: score_problems(asked, probabilities[seed], [p.test for p in asked])
            for seed in budgets
        }
    )
    for seed in budgets:
        path = write_predictions(
            tmp_path / "predictions",
            asked,
            probabilities[seed],
            seed=seed,
            decided=decided.get(seed),
        )
        assert path.name == f"seed-{seed}.parquet"
        for p, (about, found_labels, scored, chosen) in enumerate(predictions(path)):
            assert about == {
                "name": asked[p].name,
                "classes": list(asked[p].classes),
                "overlapping": asked[p].overlapping,
            }
            for video, labels in asked[p].test.items():
                assert np.array_equal(found_labels[video], labels)
                assert np.array_equal(scored[video], probabilities[seed][p][video])
                if learned:
                    assert chosen is not None
                    assert np.array_equal(chosen[video], decided[seed][p][video])
            assert (chosen is not None) == learned
    again = recomputed(tmp_path / "predictions")
    for name in ("macro_f1", "macro_f1_std", "map", "map_std"):
        assert again[name] == pytest.approx(getattr(scores, name), abs=1e-7), name
    if learned:
        assert again["after"] == pytest.approx(more["after"]["macro_f1"], abs=1e-7)
        assert again["after_std"] == pytest.approx(more["after"]["macro_f1_std"], abs=1e-7)
        assert more["after"]["macro_f1"] != pytest.approx(scores.macro_f1)
    else:
        assert more["after"] is None
    assert {"video", "frame", "task", "annotator", "label"} <= set(pq.read_schema(path).names)
    json.dumps(more, allow_nan=False)
    assert extended_lines(more)[0].startswith("bouts: F1")
    assert f"{scores.macro_f1:.3f} ± {scores.macro_f1_std:.3f}" in class_table(scores)
    assert all(np.isfinite(value) for value in extended_metrics(more).values())


def test_means_are_taken_number_by_number() -> None:
    parts = [
        {"a": 1.0, "deep": {"x": 2, "y": None}},
        {"a": None, "deep": {"x": 4, "y": None}, "b": 5},
    ]
    assert mean_of(parts) == {"a": 1.0, "deep": {"x": 3.0, "y": None}, "b": 5.0}


def test_bouts_are_counted_after_smoothing_as_well() -> None:
    labels = np.repeat(np.array([0, 2, 1, 2], np.int8), 50)
    p = np.full((200, 3), 0.1, np.float32)
    p[np.arange(200), labels] = 0.8
    p[10:50:10] = (0.1, 0.1, 0.8)  # flickers inside the first bout
    asked = Problem(
        name="p",
        task="t",
        classes=CLASSES,
        annotator="",
        overlapping=False,
        train={},
        test={"v": labels},
    )
    steps = LearnedPostprocessing(
        postprocessing=Postprocessing(smoother=Moving(frames=5)),
        name="x",
        scores={},
        videos=1,
        frames=1,
    )
    material = Frames(spans={}, arrays={"z": np.zeros((1, 1), np.float32)})
    more, _ = extended_scores({0: [asked]}, {0: [{"v": p}]}, {0: [steps]}, material, fps=10)
    assert more["bouts"]["macro_f1"]["0.5"] == pytest.approx((0 / 6 + 1) / 2), (
        "five pieces, none of which is half of the bout"
    )
    assert more["after"]["bouts"]["macro_f1"]["0.5"] == 1
    assert more["after"]["bouts"]["onset_mean_abs_frames"] == 0


def test_agreement_of_two_labellings_by_scikit_learn_and_by_hand() -> None:
    draw = np.random.default_rng(0)
    one, other = draw.integers(3, size=(2, 500)).astype(np.int8)
    other[:250] = one[:250]
    one[-20:] = UNLABELLED
    asked = problem({"v": one}, test=())
    scores = agreement(asked, one, other)
    known = slice(0, 480)
    assert scores["frames"] == 480
    assert scores["kappa"] == pytest.approx(cohen_kappa_score(one[known], other[known]))
    assert scores["macro_f1"] == pytest.approx(
        np.mean([f1_score(one[known] == c, other[known] == c) for c in (0, 1)])
    )
    assert agreement(asked, other, one)["macro_f1"] == pytest.approx(scores["macro_f1"])
    assert agreement(asked, one, np.full_like(one, UNLABELLED)) == {}
    hand = agreement(asked, np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0]))
    assert hand["kappa"] == pytest.approx((0.75 - 0.5) / (1 - 0.5))


def test_one_recording_under_two_names_is_found_by_its_frames() -> None:
    z = np.random.default_rng(0).normal(size=(90, 4)).astype(np.float32)
    z[30:60] = z[:30]
    material = Frames(spans={"a1": (0, 30), "a2": (30, 60), "b2": (60, 90)}, arrays={"z": z})
    truth = np.repeat(np.array([0, 2], np.int8), 15)
    first = Problem(
        name="annotator 1",
        task="t",
        classes=CLASSES,
        annotator="1",
        overlapping=False,
        train={"a1": truth},
        test={},
    )
    second = replace(
        first,
        name="annotator 2",
        annotator="2",
        train={"b2": truth},
        test={"a2": np.roll(truth, 3)},
    )
    (pair,) = agreement_between_annotators([first, second], recordings(material))
    assert (pair["annotators"], pair["videos"], pair["frames"]) == (["1", "2"], 1, 30)
    assert pair["macro_f1"] == pytest.approx(2 * 12 / 30)
    assert (
        agreement_between_annotators([first, replace(second, test={})], recordings(material)) == []
    )


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_on_overlapping_labels_and_on_annotators_of_the_same_videos(
    ray_here: None, tmp_path: Path
) -> None:
    draw = np.random.default_rng(0)
    videos = [f"v{i}" for i in range(6)]
    labels = []
    with StoreWriter(tmp_path / "store", CALMS21, origin="still mice") as writer:
        for number, name in enumerate(videos):
            writer.add(still(name, 240))
            split = "test" if number > 3 else "train"
            both = np.repeat(draw.random((12, 2)) < 0.4, 20, axis=0).astype(np.int8)
            labels.append(
                Labels(
                    video=name, task="both", classes=("sniff", "groom"), frames=both, split=split
                )
            )
            style = np.repeat(draw.integers(3, size=12), 20).astype(np.int8)
            labels += [
                Labels(
                    video=name,
                    task="style",
                    classes=CLASSES,
                    annotator=who,
                    frames=np.roll(style, shift),
                    split=split,
                )
                for who, shift in (("1", 0), ("2", 5))
            ]
        write_labels(writer, labels)
    for task in ("both", "style"):
        out = tmp_path / task
        finetune.run.main(
            [
                "--encoder",
                "handmade",
                "--task",
                task,
                "--data",
                str(tmp_path / "store"),
                "--out",
                str(out),
                "--trials",
                "1",
                "--seeds",
                "2",
                "--set",
                "steps=3",
                "--set",
                "window=64",
                "--set",
                "postprocess_folds=2",
            ]
        )
        result = json.loads((out / "result.json").read_text())
        again = recomputed(out / "predictions")
        for name in ("macro_f1", "macro_f1_std", "map", "map_std"):
            assert again[name] == pytest.approx(result[name], abs=1e-7), name
        assert again["after"] == pytest.approx(result["after"]["macro_f1"], abs=1e-7)
        assert len(json.loads((out / "model" / "seed-42" / "after.json").read_text())) == len(
            result["after"]["learned"]["42"]
        )
        assert "calibration error" in (out / "scores.txt").read_text()
    (pair,) = result["annotators"]["pairs"]
    assert pair["videos"] == 6
    assert 0.5 < pair["macro_f1"] < 0.9
    assert result["annotators"]["ours_kappa"] < 0.5
    assert "annotators among each other" in (out / "scores.txt").read_text()
