"""Losses against closed forms, slow references and torch's own; class frequencies; which windows
are drawn."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from finetune.fit.fit import fit, score_problems
from finetune.fit.frames import Frames
from finetune.fit.losses import (
    Loss,
    binary_cross_entropy,
    binary_focal,
    blurred,
    cross_entropy,
    focal,
    log_priors,
    refuse_weights,
)
from finetune.fit.window_sampler import WindowDraw
from finetune.labels.frame_labels import UNLABELLED
from finetune.labels.problems import Problem
from finetune.settings import TASKS, Tuning
from pretrain.config import read
from pretrain.errors import BadInput

CLASSES = ("attack", "mount", "other")
WEIGHT = torch.tensor([3.0, 0.5, 1.0])


def exclusive(labels: np.ndarray, classes: tuple[str, ...] = CLASSES) -> Problem:
    return Problem(
        name="p",
        task="t",
        classes=classes,
        annotator="",
        overlapping=False,
        train={"v": labels.astype(np.int8)},
        test={},
    )


def overlapping(labels: np.ndarray) -> Problem:
    return replace(exclusive(labels, ("sniff", "chase")), overlapping=True)


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3


@pytest.fixture
def labels() -> torch.Tensor:
    return torch.randint(3, (50,), generator=torch.Generator().manual_seed(1))


def test_cross_entropy_is_that_of_torch(logits: torch.Tensor, labels: torch.Tensor) -> None:
    found = cross_entropy(logits, F.one_hot(labels, 3).double(), WEIGHT.double())
    torch.testing.assert_close(
        found, F.cross_entropy(logits, labels, weight=WEIGHT.double(), reduction="none")
    )
    target = F.one_hot(labels, 2 + 1).double()
    found = binary_cross_entropy(logits, target, WEIGHT.double())
    torch.testing.assert_close(
        found,
        F.binary_cross_entropy_with_logits(
            logits, target, pos_weight=WEIGHT.double(), reduction="none"
        ),
    )


def test_focal_loss_is_the_formula_and_without_gamma_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor
) -> None:
    target, weight = F.one_hot(labels, 3).double(), WEIGHT.double()
    torch.testing.assert_close(
        focal(logits, target, weight, gamma=0.0), cross_entropy(logits, target, weight)
    )
    torch.testing.assert_close(
        binary_focal(logits, target, weight, gamma=0.0),
        binary_cross_entropy(logits, target, weight),
    )
    for row, label, loss in zip(
        logits, labels, focal(logits, target, weight, gamma=2.0), strict=True
    ):
        p = torch.softmax(row, 0)[label].item()
        assert loss.item() == pytest.approx(
            -WEIGHT[label].item() * (1 - p) ** 2 * math.log(p), rel=1e-6, abs=1e-9
        )
    for row, wanted, loss in zip(
        logits, target, binary_focal(logits, target, weight, gamma=1.5), strict=True
    ):
        for c in range(3):
            p = 1 / (1 + math.exp(-row[c].item()))
            slow = (
                -WEIGHT[c].item() * (1 - p) ** 1.5 * math.log(p)
                if wanted[c]
                else -(p**1.5) * math.log(1 - p)
            )
            assert loss[c].item() == pytest.approx(slow, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("kind", [focal, binary_focal])
def test_focal_loss_has_a_slope_where_everything_is_certain(kind: object) -> None:
    certain = torch.tensor([[200.0, -200.0]], requires_grad=True)
    kind(certain, torch.tensor([[1.0, 0.0]]), torch.ones(2), gamma=0.5).sum().backward()  # type: ignore[operator]
    assert torch.isfinite(certain.grad).all()


def test_blurred_targets_are_means_over_the_known_frames_around() -> None:
    draw = np.random.default_rng(0)
    target = torch.from_numpy((draw.random((2, 40, 3)) < 0.5).astype(np.float32))
    known = torch.from_numpy((draw.random((2, 40, 1)) < 0.7).astype(np.float32))
    found = blurred(target, known, reach=4)
    for b in range(2):
        for t in range(40):
            around = [s for s in range(max(0, t - 4), min(40, t + 5)) if known[b, s]]
            if known[b, t]:
                torch.testing.assert_close(found[b, t], target[b, around].mean(0))
    step = F.one_hot(torch.arange(20) // 10, 2).float()[None]
    ramp = blurred(step, torch.ones(1, 20, 1), reach=2)[0, :, 1]
    torch.testing.assert_close(ramp[7:13], torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 1.0]))
    assert torch.equal(ramp[:7], torch.zeros(7))


@pytest.mark.parametrize("settings", [{}, {"label_smoothing": 0.1}, {"class_weight": 0.0}])
def test_the_loss_of_a_problem_is_torchs_over_its_labelled_frames(
    settings: dict[str, float],
) -> None:
    labels = np.array([0, 1, 2, 2, 2, UNLABELLED, 1, 2] * 3)
    tuning = Tuning(**settings)
    loss = Loss.of(exclusive(labels), tuning)
    held = torch.from_numpy(labels).view(3, 8)
    logits = torch.randn(3, 8, 3)
    total, number = loss(logits, held)
    assert number == 21
    own = F.cross_entropy(
        logits.flatten(0, 1),
        held.flatten(),
        weight=loss.weight_C,
        ignore_index=UNLABELLED,
        label_smoothing=tuning.label_smoothing,
        reduction="sum",
    )
    torch.testing.assert_close(total, own)


def test_unlabelled_entries_of_overlapping_behaviours_do_not_count() -> None:
    labels = np.array([[1, 0], [0, UNLABELLED], [1, 1], [UNLABELLED, UNLABELLED], [0, 0]])
    loss = Loss.of(overlapping(labels), Tuning(class_weight=0.0))
    logits = torch.randn(1, 5, 2)
    total, number = loss(logits, torch.from_numpy(labels)[None])
    assert number == 4
    known = labels != UNLABELLED
    each = F.binary_cross_entropy_with_logits(
        logits[0], torch.from_numpy(labels == 1).float(), reduction="none"
    )
    torch.testing.assert_close(total, each[torch.from_numpy(known)].sum() / 2)


def test_published_weights_stand_in_the_task_file_and_count_as_they_are() -> None:
    tuning = read(Tuning, "new_behaviors", TASKS, {})
    published = next(held for held in tuning.search["class_weights"] if held)
    assert published == {
        "approach": 20,
        "disengaged": 50,
        "groom": 5,
        "intromission": 3,
        "mount_attempt": 100,
        "sniff_face": 20,
        "whiterearing": 10,
    }
    chosen = tuning.with_choice({"class_weights": published, "class_weight": 1.0})
    problem = exclusive(np.array([0, 0, 0, 1]), ("other", "mount_attempt"))
    assert Loss.of(problem, chosen).weight_C.tolist() == [1.0, 100.0]
    refuse_weights([problem], chosen)
    with pytest.raises(BadInput, match="the classes of this task are: attack, mount, other"):
        refuse_weights([exclusive(np.array([0, 1, 2]))], chosen)


def test_logit_adjustment_is_the_log_share_and_gives_balanced_decisions() -> None:
    counts = [10, 30, 60]
    problem = exclusive(np.repeat(np.arange(3), counts))
    torch.testing.assert_close(log_priors(problem), torch.log(torch.tensor([0.1, 0.3, 0.6])))
    assert log_priors(exclusive(np.repeat([0, 1], 50)))[2] == 0, "a class never seen is left alone"
    both = np.zeros((100, 2), int)
    both[:20, 0], both[:, 1] = 1, 1
    torch.testing.assert_close(
        log_priors(overlapping(both)), torch.tensor([math.log(20 / 80), 0.0])
    )
    # With an embedding that says nothing the fit can only learn the shares; adjusted, nothing is
    # left to learn.
    material = Frames(place={"v": (0, 100)}, arrays={"z": np.zeros((100, 2), np.float32)})
    mixed = exclusive(np.random.default_rng(0).permutation(problem.train["v"]))
    for tau, wanted in ((0.0, [0.1, 0.3, 0.6]), (1.0, [1 / 3] * 3)):
        tuning = Tuning(
            head={"name": "linear"},
            steps=150,
            window=100,
            batch=2,
            lr=0.1,
            class_weight=0.0,
            weight_decay=0.0,
            logit_adjustment=tau,
        )
        ((_, _, model),) = fit(material, [mixed], tuning, embedder=None, seed=0, stops=[150])
        (found,) = model.predict(material, [mixed], [["v"]])
        np.testing.assert_allclose(found["v"][0], wanted, atol=0.02)


def test_windows_are_drawn_around_classes_as_often_as_the_balance_says() -> None:
    labels = np.zeros(10_000, np.int8)
    labels[:100] = 1  # a hundredth
    material = Frames(
        place={"v": (0, 10_000)}, arrays={"z": np.arange(10_000, dtype=np.float32)[:, None]}
    )
    problem = exclusive(labels, ("other", "rare"))
    for balance, share in ((0.0, 0.01), (0.5, 0.1 / (0.1 + 0.99**0.5)), (1.0, 0.5)):
        windows = WindowDraw(material, [problem], 2, balance=balance)
        ((_, _, held),) = windows.draw(np.random.default_rng(0), 4000).labels
        assert (held == 1).float().mean().item() == pytest.approx(share, abs=0.025)
    both = np.zeros((10_000, 2), np.int8)
    both[:100, 0], both[50:150, 1] = 1, 1
    windows = WindowDraw(material, [overlapping(both)], 2, balance=1.0)
    ((_, _, held),) = windows.draw(np.random.default_rng(0), 3000).labels
    assert (held == 0).all(-1).float().mean().item() == pytest.approx(1 / 3, abs=0.03), (
        "frames without any behaviour are a class too"
    )


SETTINGS = [
    {"loss": "focal"},
    {"logit_adjustment": 1.0},
    {"balanced_sampling": 1.0},
    {"soft_boundaries": 3},
    {"label_smoothing": 0.1},
]


@pytest.mark.parametrize(
    "settings", [*SETTINGS, {name: value for one in SETTINGS for name, value in one.items()}]
)
@pytest.mark.parametrize("overlap", [False, True])
def test_every_loss_learns_a_world_that_can_be_learned(
    settings: dict[str, object], overlap: bool
) -> None:
    draw = np.random.default_rng(0)
    bouts = np.repeat(draw.integers(3, size=60), 10)
    held = F.one_hot(torch.from_numpy(bouts), 3).numpy()[:, :2] if overlap else bouts
    z = F.one_hot(torch.from_numpy(bouts), 3).numpy() + draw.normal(0, 0.2, (600, 3))
    material = Frames(place={"v": (0, 400), "w": (400, 600)}, arrays={"z": z.astype(np.float32)})
    made = overlapping(held) if overlap else exclusive(held)
    asked = replace(
        made, train={"v": held[:400].astype(np.int8)}, test={"w": held[400:].astype(np.int8)}
    )
    tuning = Tuning(head={"name": "linear"}, steps=60, window=50, batch=4, lr=0.05, **settings)
    ((_, _, model),) = fit(material, [asked], tuning, embedder=None, seed=0, stops=[60])
    assert (
        score_problems([asked], model.predict(material, [asked], [["w"]]), [asked.test]).map > 0.97
    )
