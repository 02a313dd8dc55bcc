"""Initial weights learned on other behaviours: the gradient by a closed form, what they may see,
and a world where they help."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import finetune.meta_learn
from finetune.fit.fit import Model, fit, initial_head, score_problems
from finetune.fit.frames import Frames
from finetune.fit.initial_weights import save_initial_weights
from finetune.fit.meta_learning import Episodes, adapted, meta_learn, other_behaviours
from finetune.heads import build_head
from finetune.labels.frame_labels import UNLABELLED
from finetune.labels.problems import Problem
from finetune.settings import Tuning
from pretrain.data.schema import CALMS21, Video
from pretrain.data.store_writer import StoreWriter
from pretrain.errors import BadInput
from pretrain.readers.annotations import Labels, write_labels
from tests.worlds import wander

HEAD = {"name": "mlp", "width": 16, "dropout": 0.0}
FRAMES = 200


def test_the_gradient_through_the_steps_is_that_of_the_closed_form() -> None:
    """On a(w - b)²/2 each step takes w - b times (1 - lr a), so the slope at the end is (1 - lr
    a)^steps times the slope there."""
    a, b, lr, steps = 0.7, 2.0, 0.3, 3
    for first_order in (False, True):
        start = torch.tensor(b + 1, requires_grad=True)
        (then,) = adapted(
            lambda weights: a / 2 * (weights["w"] - b) ** 2,
            {"w": start},
            lr=lr,
            steps=steps,
            first_order=first_order,
        ).values()
        assert then.item() == pytest.approx(b + (1 - lr * a) ** steps)
        (a / 2 * (then - b) ** 2).backward()
        through = 1.0 if first_order else (1 - lr * a) ** steps
        assert start.grad is not None
        assert start.grad.item() == pytest.approx(a * (then.item() - b) * through)


def test_meta_learning_that_diverges_is_refused() -> None:
    frames, problems = few_shot_world()
    model = Model(build_head(HEAD, 40, [2]), None)
    with pytest.raises(BadInput, match="has diverged: try a smaller inner_lr than 1e"):
        meta_learn(
            model,
            frames,
            problems[:2],
            Tuning(head=HEAD, window=32),
            Episodes(meta_steps=2, inner_lr=1e38),
            seed=0,
        )


def few_shot_world() -> tuple[Frames, list[Problem]]:
    """Forty numbers a frame, of which behaviours are read off three: seven directions among these,
    the rest is noise."""
    draw = np.random.default_rng(0)
    directions = draw.normal(size=(7, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    hidden = np.repeat(draw.normal(size=(8 * FRAMES // 10, 3)), 10, axis=0)
    z = (
        np.concatenate([hidden, draw.normal(size=(len(hidden), 37))], 1)
        @ np.linalg.qr(draw.normal(size=(40, 40)))[0]
    )
    spans = {f"v{i}": (i * FRAMES, (i + 1) * FRAMES) for i in range(8)}
    problems = []
    for k, direction in enumerate(directions):
        labels = {
            name: (hidden[first:end] @ direction > 0).astype(np.int8)
            for name, (first, end) in spans.items()
        }
        test = {name: labels.pop(name) for name in ("v6", "v7")}
        problems.append(
            Problem(
                name=f"b{k}",
                task="new",
                classes=("other", f"b{k}"),
                annotator="",
                overlapping=False,
                train=labels,
                test=test,
            )
        )
    return Frames(spans=spans, arrays={"z": z.astype(np.float32)}), problems


def average_precision(frames: Frames, problem: Problem, tuning: Tuning) -> float:
    ((_, _, model),) = fit(frames, [problem], tuning, embedder=None, seed=1, stops=[tuning.steps])
    return score_problems(
        [problem], model.predict(frames, [problem], [problem.test]), [problem.test]
    ).map


def test_weights_learned_on_other_behaviours_need_few_labels(tmp_path: Path) -> None:
    frames, problems = few_shot_world()
    target = problems[0]
    behaviours = other_behaviours(problems, [target])
    assert {problem.classes[1] for problem in behaviours} == {f"b{k}" for k in range(1, 7)}
    tuning = Tuning(head=HEAD, window=32, steps=10, batch=4, optimiser="sgd", balanced_sampling=1.0)
    torch.manual_seed(0)
    head = build_head(HEAD, 40, [2])
    losses, lr = meta_learn(
        Model(head, None),
        frames,
        behaviours,
        tuning,
        Episodes(meta_steps=100, inner_steps=3, inner_lr=0.4, outer_lr=0.01),
        seed=0,
    )
    assert np.mean(losses[-20:]) < np.mean(losses[:20]) - 0.1
    save_initial_weights(
        tmp_path, head, head_settings=HEAD, about={"behaviours": [f"b{k}" for k in range(1, 7)]}
    )
    tuning = replace(tuning, lr=lr)
    labels = target.train["v0"].copy()
    labels[60:] = UNLABELLED
    few = replace(target, train={"v0": labels})  # six bouts
    chance = np.mean([labels.mean() for labels in target.test.values()])
    from_weights = average_precision(frames, few, replace(tuning, start=str(tmp_path)))
    from_nothing = average_precision(frames, few, tuning)
    assert from_weights > chance + 0.2
    assert from_weights > from_nothing + 0.08


def test_every_behaviour_begins_as_the_behaviour_and_the_rest_as_the_rest(tmp_path: Path) -> None:
    head = build_head(HEAD, 8, [2])
    head.standardise(torch.randn(50, 8) * 3 + 1)
    save_initial_weights(tmp_path, head, head_settings=HEAD, about={"behaviours": ["groom"]})
    kinds = {
        "classes": ("mount", "attack", "other"),
        "annotator": "",
        "task": "t",
        "train": {},
        "test": {},
    }
    exclusive = Problem(name="a", overlapping=False, **kinds)
    overlapping = Problem(name="b", overlapping=True, **kinds | {"classes": ("sniff", "chase")})
    whole = initial_head([exclusive, overlapping], Tuning(head=HEAD, start=str(tmp_path)), 8)
    z, valid = torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)
    (two,), (three, both) = head(z, valid), whole(z, valid)
    torch.testing.assert_close(three, two[..., [1, 1, 0]])
    torch.testing.assert_close(both, (two[..., 1] - two[..., 0]).unsqueeze(-1).expand(-1, -1, 2))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"head": {"name": "linear"}}, "they are for the head"),
        ({"start": "nowhere"}, "holds no initial weights"),
        ({}, "they were learned on mount, which this task asks for"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    tmp_path: Path, change: dict[str, object], says: str
) -> None:
    save_initial_weights(
        tmp_path,
        build_head(HEAD, 8, [2]),
        head_settings=HEAD,
        about={"behaviours": ["mount", "other"]},
    )
    asked = Problem(
        name="a",
        task="t",
        classes=("mount", "other"),
        annotator="",
        overlapping=False,
        train={},
        test={},
    )
    with pytest.raises(BadInput, match=says):
        initial_head([asked], Tuning(**{"head": HEAD, "start": str(tmp_path)} | change), 8)
    with pytest.raises(BadInput, match="embeddings of 8 numbers, these have 9"):
        initial_head(
            [replace(asked, classes=("bite", "other"))], Tuning(head=HEAD, start=str(tmp_path)), 9
        )


def test_meta_training_never_sees_what_is_asked_for_nor_its_test_videos() -> None:
    half = np.repeat(np.array([0, 1], np.int8), 50)

    def problem(
        task: str, classes: tuple[str, ...], train: tuple[str, ...], test: tuple[str, ...] = ()
    ) -> Problem:
        sides = ({name: np.tile(half, 2) for name in side} for side in (train, test))
        return Problem(
            name=task,
            task=task,
            classes=classes,
            annotator="",
            overlapping=False,
            **dict(zip(("train", "test"), sides, strict=True)),
        )

    target = problem("one", ("attack", "other"), ("a",), ("b",))
    every = [
        target,
        problem(
            "two", ("attack", "sniff", "other"), ("a", "c")
        ),  # attack again, by another name of the label set
        problem("three", ("groom", "other"), ("a", "b", "c")),  # b is a test video of the target
        problem("four", ("rear", "other"), ("b",)),
    ]
    found = other_behaviours(every, [target])
    assert {p.name for p in found} == {"sniff (two)", "groom (three)"}
    assert all("b" not in p.train for p in found)
    assert all(p.test == {} for p in found)
    with pytest.raises(BadInput, match="nothing to learn from"):
        other_behaviours([target], [target])
    with pytest.raises(BadInput, match=r"no behaviour bite; it has: attack"):
        other_behaviours(every, [target], behaviours=["bite"])


@pytest.mark.parametrize("method", ["anil", "maml"])
def test_the_command_leaves_an_encoder_and_initial_weights(
    tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    half = np.repeat(np.array([0, 1, 0, 1], np.int8), 25)
    with StoreWriter(tmp_path / "store", CALMS21, origin="wandering animals") as writer:
        for name in "abc":
            position, confidence = wander(CALMS21, 100, seed=ord(name))
            writer.add(Video(name=name, position_TMKX=position, confidence_TMK=confidence))
        write_labels(
            writer,
            [
                Labels(
                    video=video,
                    task=task,
                    classes=("other", behaviour),
                    frames=half,
                    split="test" if video == "c" else "train",
                )
                for task, behaviour in (("S1", "mount"), ("S2", "groom"))
                for video in "abc"
            ],
        )
    (tmp_path / "net.yaml").write_text(
        "encoder: {name: tcn, width: 8, layers: 1}\nobjective: {name: contrastive}\n"
    )
    words = [
        "--encoder",
        "none",
        "--data",
        str(tmp_path / "store"),
        "--task",
        "S1",
        "--method",
        method,
        "--out",
        str(tmp_path / "start"),
    ]
    words += [
        word
        for pair in (
            f"recipe={tmp_path / 'net.yaml'}",
            "meta_steps=2",
            "window=32",
            "head.name=mlp",
            "head.width=4",
        )
        for word in ("--set", pair)
    ]
    finetune.meta_learn.main(words)
    about = json.loads((tmp_path / "start" / "start.json").read_text())
    assert about["behaviours"] == ["groom"]
    assert "groom (S2)" in capsys.readouterr().out
    head = initial_head(
        [
            Problem(
                name="S1",
                task="S1",
                classes=("other", "mount"),
                annotator="",
                overlapping=False,
                train={},
                test={},
            )
        ],
        Tuning(head=about["head"], start=str(tmp_path / "start")),
        8,
    )
    assert torch.isfinite(next(head.parameters())).all()
    assert (tmp_path / "start" / "encoder.safetensors").is_file()
    with pytest.raises(BadInput, match="holds initial weights already"):
        finetune.meta_learn.main(words)
