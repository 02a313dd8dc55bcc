"""Behaviours that only some recordings were scored for: unlabelled elsewhere, for that behaviour
alone, from the label files to the scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from reader_files import KEYPOINTS, world

from finetune.fit.frames import Frames
from finetune.fit.problem_loss import ProblemLoss
from finetune.fit.window_sampler import WindowSampler
from finetune.labels.problems import Problem, problems
from finetune.metrics.bouts import score_bouts
from finetune.metrics.calibration_error import expected_calibration_error
from finetune.metrics.frame_metrics import score
from finetune.postprocess.calibrations.temperature import Temperature
from finetune.postprocess.decision_rules import candidates
from finetune.settings import Tuning
from pretrain import prepare
from pretrain.data.store import Store
from pretrain.errors import BadInput
from pretrain.quality.check import describe, report
from pretrain.readers.annotations import UNLABELLED, Labels, labels_by_video

FRAMES = 40
OVERLAPPING = "start_frame,end_frame,behavior\n5,14,attack\n10,19,sniff\n30,34,groom\n"


def prepared(folder: Path, *options: str, table: str = OVERLAPPING) -> Store:
    """Four recordings, a1, a2, b1 and b2, with the same labels."""
    (folder / "in").mkdir()
    for name in ("a1", "a2", "b1", "b2"):
        (folder / "in" / f"{name}_labels.csv").write_text(table)
        np.savez(
            folder / "in" / f"{name}.npz",
            position=world(FRAMES).position,
            keypoints=np.array(KEYPOINTS),
        )
    poses = ["--poses", str(folder / "in"), "--labels", str(folder / "in"), "--fps", "30"]
    prepare.main(["tracks", *poses, "--out", str(folder / "store"), *options])
    return Store(folder / "store")


def labels_of(store: Store) -> dict[str, Labels]:
    return {name: labels for name, (labels,) in labels_by_video(store).items()}


def test_what_a_recording_was_not_scored_for_is_unlabelled_in_it(tmp_path: Path) -> None:
    store = prepared(tmp_path, "--scored", "a*=attack,sniff", "--scored", "b*=groom")
    labels = labels_of(store)
    assert labels["a1"].classes == ("attack", "sniff", "groom")
    marks = labels["a1"].frames
    assert np.flatnonzero(marks[:, 0] == 1).tolist() == list(range(5, 15))
    assert (marks[:, :2] != UNLABELLED).all()
    assert (marks[:, 2] == UNLABELLED).all()
    assert (labels["b2"].frames[:, :2] == UNLABELLED).all()
    assert np.flatnonzero(labels["b2"].frames[:, 2] == 1).tolist() == list(range(30, 35))
    facts = describe(store)
    task = facts["labels"]["behaviors"]
    assert sum(task["scored"]["attack"].values()) == 2 * FRAMES
    assert sum(task["frames"]["attack"].values()) == 2 * 10
    assert "25.0%" in report(facts)  # 10 of 40 frames, wherever it was scored


def test_exported_and_prepared_again_it_is_the_same(tmp_path: Path) -> None:
    store = prepared(tmp_path, "--scored", "attack,sniff", "--scored", "b*=groom")
    out = str(tmp_path / "exported")
    prepare.main(["export", str(tmp_path / "store"), "--out", out])
    words = ["--poses", f"{out}/tracks", "--labels", f"{out}/labels", "--fps", "30"]
    prepare.main(["tracks", *words, "--out", str(tmp_path / "again")])
    again = labels_of(Store(tmp_path / "again"))
    for name, labels in labels_of(store).items():
        assert again[name].classes == labels.classes
        np.testing.assert_array_equal(again[name].frames, labels.frames)


def test_a_behaviour_that_no_recording_was_scored_for_is_no_class(tmp_path: Path) -> None:
    store = prepared(tmp_path, "--scored", "attack,sniff")
    assert {labels.classes for labels in labels_of(store).values()} == {("attack", "sniff")}


def test_what_is_added_is_unlabelled_for_what_it_was_not_scored_for(tmp_path: Path) -> None:
    prepared(tmp_path)
    (tmp_path / "in").rename(tmp_path / "first")
    (tmp_path / "in").mkdir()
    for ending in (".npz", "_labels.csv"):
        (tmp_path / "first" / f"a1{ending}").rename(tmp_path / "in" / f"c1{ending}")
    words = ["--poses", str(tmp_path / "in"), "--labels", str(tmp_path / "in"), "--fps", "30"]
    words += ["--out", str(tmp_path / "store"), "--append", "--scored", "sniff"]
    prepare.main(["tracks", *words])
    labels = labels_of(Store(tmp_path / "store"))
    assert labels["c1"].classes == labels["a1"].classes == ("attack", "sniff", "groom")
    assert (labels["c1"].frames[:, [0, 2]] == UNLABELLED).all()
    np.testing.assert_array_equal(labels["c1"].frames[:, 1], labels["a1"].frames[:, 1])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("attack,bite", "there is no behaviour 'bite'; there are attack, sniff, groom"),
        ("c*=attack", r"no labelled recording fits 'c\*'"),
    ],
)
def test_what_is_not_there_is_refused(tmp_path: Path, words: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        prepared(tmp_path, "--scored", words)


def test_of_exclusive_classes_it_cannot_be_said(tmp_path: Path) -> None:
    rows = [",base,attack", *(f"{t},{int(t < 20)},{int(t >= 20)}" for t in range(FRAMES))]
    with pytest.raises(BadInput, match="shows one of base, attack: of such labels it cannot be"):
        prepared(tmp_path, "--scored", "attack", table="\n".join(rows) + "\n")


def test_it_counts_in_no_loss_window_score_or_calibration(tmp_path: Path) -> None:
    """Whatever stands in the labels where a behaviour was not scored, nothing changes."""
    store = prepared(tmp_path, "--scored", "a*=sniff", "--scored", "b*=groom")
    (problem,) = problems(store, "behaviors")
    assert problem.classes == ("sniff", "groom")
    videos = {**problem.train, **problem.test}
    labels = np.concatenate([videos[name] for name in sorted(videos)])
    rng = np.random.default_rng(0)
    p = rng.uniform(0.01, 0.99, labels.shape)
    other = np.where(labels == UNLABELLED, rng.uniform(0.01, 0.99, labels.shape), p)
    chosen = {"classes": problem.classes, "labels": labels}
    loss = ProblemLoss.of(problem, Tuning(class_weight=0.0))
    as_batch = torch.from_numpy(labels)[None]

    def numbers(p_TC: np.ndarray) -> list[float]:
        total, number = loss(torch.logit(torch.from_numpy(p_TC))[None], as_batch)
        scores = score(probabilities_TC=p_TC, **chosen)
        bouts = score_bouts(
            labels={"v": labels}, predicted={"v": p_TC > 0.5}, classes=problem.classes, fps=30
        )
        rules = candidates(probabilities_TC=p_TC, rest="", **chosen)
        decided = [rule.apply(p) for _, rule in sorted(rules.items())]
        return [
            *(float(total), float(number), scores.macro_f1, scores.map),
            *bouts.macro_f1.values(),
            expected_calibration_error(probabilities_TC=p_TC, labels=labels),
            Temperature.fit(probabilities_TC=p_TC, **chosen).temperature,
            *(float(value) for one in decided for value in one.ravel()),
        ]

    np.testing.assert_allclose(numbers(other), numbers(p), rtol=1e-9)
    assert loss(torch.zeros(1, *labels.shape), as_batch)[1] == len(labels) / 2


def test_windows_are_drawn_where_any_behaviour_was_scored() -> None:
    labels = np.full((30, 2), UNLABELLED, np.int8)
    labels[10:20, 1] = 0
    problem = Problem(
        name="t",
        task="t",
        classes=("a", "b"),
        annotator="",
        overlapping=True,
        train={"v": labels},
        test={},
    )
    frames = Frames(spans={"v": (0, 30)}, arrays={"z": np.zeros((30, 1), np.float32)})
    sampler = WindowSampler(frames, [problem], 1)
    ((_, _, shown),) = sampler.draw(np.random.default_rng(0), 50).labels
    assert (shown[..., 1] == 0).all()
