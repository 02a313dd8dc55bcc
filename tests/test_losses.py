"""Losses against closed forms, slow references and torch's own; class frequencies; which windows
are drawn."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from finetune.fit.fit import fit, score_problems
from finetune.fit.frames import Frames
from finetune.fit.losses import AbstractLoss, build_loss
from finetune.fit.losses.cross_entropy import CrossEntropy
from finetune.fit.losses.focal import Focal
from finetune.fit.problem_loss import ProblemLoss, blurred, log_priors, refuse_loss
from finetune.fit.window_sampler import WindowSampler
from finetune.labels.frame_labels import UNLABELLED
from finetune.labels.problems import Problem
from finetune.settings import TASKS, Tuning
from pretrain.components import names
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
    found = CrossEntropy().exclusive(logits, F.one_hot(labels, 3).double(), WEIGHT.double())
    torch.testing.assert_close(
        found, F.cross_entropy(logits, labels, weight=WEIGHT.double(), reduction="none")
    )
    target = F.one_hot(labels, 2 + 1).double()
    found = CrossEntropy().overlapping(logits, target, WEIGHT.double())
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
        Focal(gamma=0.0).exclusive(logits, target, weight),
        CrossEntropy().exclusive(logits, target, weight),
    )
    torch.testing.assert_close(
        Focal(gamma=0.0).overlapping(logits, target, weight),
        CrossEntropy().overlapping(logits, target, weight),
    )
    for row, label, loss in zip(
        logits, labels, Focal(gamma=2.0).exclusive(logits, target, weight), strict=True
    ):
        p = torch.softmax(row, 0)[label].item()
        assert loss.item() == pytest.approx(
            -WEIGHT[label].item() * (1 - p) ** 2 * math.log(p), rel=1e-6, abs=1e-9
        )
    for row, expected, loss in zip(
        logits, target, Focal(gamma=1.5).overlapping(logits, target, weight), strict=True
    ):
        for c in range(3):
            p = 1 / (1 + math.exp(-row[c].item()))
            slow = (
                -WEIGHT[c].item() * (1 - p) ** 1.5 * math.log(p)
                if expected[c]
                else -(p**1.5) * math.log(1 - p)
            )
            assert loss[c].item() == pytest.approx(slow, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("name", names("finetune.fit.losses"))
@pytest.mark.parametrize("kind", ["exclusive", "overlapping"])
def test_a_loss_is_small_where_the_network_is_right_and_weighs_classes(
    name: str, kind: str
) -> None:
    loss = build_loss(name)
    assert build_loss({"name": name}) == loss
    each = getattr(loss, kind)
    target, ones = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.ones(2)
    right = torch.tensor([[4.0, -4.0], [-4.0, 4.0]])
    shape = (2,) if kind == "exclusive" else (2, 2)
    assert each(right, target, ones).shape == shape
    assert (each(right, target, ones) >= 0).all()
    assert each(right, target, ones).sum() < each(-right, target, ones).sum()
    heavy = each(-right, target, torch.tensor([3.0, 1.0])) / each(-right, target, ones)
    expected = torch.tensor([3.0, 1.0]) if kind == "exclusive" else torch.tensor([[3.0, 1], [1, 1]])
    torch.testing.assert_close(heavy, expected)


@pytest.mark.parametrize("name", names("finetune.fit.losses"))
@pytest.mark.parametrize("kind", ["exclusive", "overlapping"])
def test_a_loss_has_a_finite_slope_where_everything_is_certain(name: str, kind: str) -> None:
    for loss in (build_loss(name), Focal(gamma=0.5)):
        certain = torch.tensor([[200.0, -200.0]], requires_grad=True)
        getattr(loss, kind)(certain, torch.tensor([[1.0, 0.0]]), torch.ones(2)).sum().backward()
        assert torch.isfinite(certain.grad).all()


def test_a_loss_is_a_file(add_component: Callable[[str, str, str], None]) -> None:
    add_component(
        "finetune.fit.losses",
        "brier",
        """
from dataclasses import dataclass
from finetune.fit.losses import AbstractLoss

@dataclass(frozen=True, kw_only=True)
class Brier(AbstractLoss):
    power: float = 2.0

    def exclusive(self, logits_NC, target_NC, weight_C):
        return (weight_C * (logits_NC.softmax(-1) - target_NC).abs() ** self.power).sum(-1)

    def overlapping(self, logits_NC, target_NC, weight_C):
        return weight_C * (logits_NC.sigmoid() - target_NC).abs() ** self.power
""",
    )
    labels = np.repeat(np.arange(3), 20)
    tuning = Tuning(loss={"name": "brier", "power": 1.0}, class_weight=0.0)
    loss = ProblemLoss.of(exclusive(labels), tuning)
    assert isinstance(loss.loss, AbstractLoss)
    total, number = loss(torch.zeros(1, 60, 3), torch.from_numpy(labels)[None])
    assert total / number == pytest.approx(4 / 3)
    with pytest.raises(BadInput, match="power is 'x'; it must be a number"):
        refuse_loss([exclusive(labels)], Tuning(loss={"name": "brier", "power": "x"}))


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
    loss = ProblemLoss.of(exclusive(labels), tuning)
    shown = torch.from_numpy(labels).view(3, 8)
    logits = torch.randn(3, 8, 3)
    total, number = loss(logits, shown)
    assert number == 21
    own = F.cross_entropy(
        logits.flatten(0, 1),
        shown.flatten(),
        weight=loss.weight_C,
        ignore_index=UNLABELLED,
        label_smoothing=tuning.label_smoothing,
        reduction="sum",
    )
    torch.testing.assert_close(total, own)


def test_unlabelled_entries_of_overlapping_behaviours_do_not_count() -> None:
    labels = np.array([[1, 0], [0, UNLABELLED], [1, 1], [UNLABELLED, UNLABELLED], [0, 0]])
    loss = ProblemLoss.of(overlapping(labels), Tuning(class_weight=0.0))
    logits = torch.randn(1, 5, 2)
    total, number = loss(logits, torch.from_numpy(labels)[None])
    assert number == 3.5
    known = labels != UNLABELLED
    each = F.binary_cross_entropy_with_logits(
        logits[0], torch.from_numpy(labels == 1).float(), reduction="none"
    )
    torch.testing.assert_close(total, each[torch.from_numpy(known)].sum() / 2)


def test_published_weights_stand_in_the_task_file_and_count_as_they_are() -> None:
    tuning = read(Tuning, "new_behaviors", TASKS, {})
    published = next(weights for weights in tuning.search["class_weights"] if weights)
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
    assert ProblemLoss.of(problem, chosen).weight_C.tolist() == [1.0, 100.0]
    refuse_loss([problem], chosen)
    with pytest.raises(BadInput, match="the classes of this task are: attack, mount, other"):
        refuse_loss([exclusive(np.array([0, 1, 2]))], chosen)


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
    frames = Frames(spans={"v": (0, 100)}, arrays={"z": np.zeros((100, 2), np.float32)})
    mixed = exclusive(np.random.default_rng(0).permutation(problem.train["v"]))
    for tau, expected in ((0.0, [0.1, 0.3, 0.6]), (1.0, [1 / 3] * 3)):
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
        ((_, _, model),) = fit(frames, [mixed], tuning, embedder=None, seed=0, stops=[150])
        (found,) = model.predict(frames, [mixed], [["v"]])
        np.testing.assert_allclose(found["v"][0], expected, atol=0.02)


def test_windows_are_drawn_around_classes_as_often_as_the_balance_says() -> None:
    labels = np.zeros(10_000, np.int8)
    labels[:100] = 1  # a hundredth
    frames = Frames(
        spans={"v": (0, 10_000)}, arrays={"z": np.arange(10_000, dtype=np.float32)[:, None]}
    )
    problem = exclusive(labels, ("other", "rare"))
    for balance, share in ((0.0, 0.01), (0.5, 0.1 / (0.1 + 0.99**0.5)), (1.0, 0.5)):
        windows = WindowSampler(frames, [problem], 2, balance=balance)
        ((_, _, shown),) = windows.draw(np.random.default_rng(0), 4000).labels
        assert (shown == 1).float().mean().item() == pytest.approx(share, abs=0.025)
    both = np.zeros((10_000, 2), np.int8)
    both[:100, 0], both[50:150, 1] = 1, 1
    windows = WindowSampler(frames, [overlapping(both)], 2, balance=1.0)
    ((_, _, shown),) = windows.draw(np.random.default_rng(0), 3000).labels
    assert (shown == 0).all(-1).float().mean().item() == pytest.approx(1 / 3, abs=0.03), (
        "frames without any behaviour are a class too"
    )


SETTINGS = [
    *({"loss": name} for name in names("finetune.fit.losses")),
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
    shown = F.one_hot(torch.from_numpy(bouts), 3).numpy()[:, :2] if overlap else bouts
    z = F.one_hot(torch.from_numpy(bouts), 3).numpy() + draw.normal(0, 0.2, (600, 3))
    frames = Frames(spans={"v": (0, 400), "w": (400, 600)}, arrays={"z": z.astype(np.float32)})
    problem = overlapping(shown) if overlap else exclusive(shown)
    asked = replace(
        problem, train={"v": shown[:400].astype(np.int8)}, test={"w": shown[400:].astype(np.int8)}
    )
    tuning = Tuning(head={"name": "linear"}, steps=60, window=50, batch=4, lr=0.05, **settings)
    ((_, _, model),) = fit(frames, [asked], tuning, embedder=None, seed=0, stops=[60])
    assert score_problems([asked], model.predict(frames, [asked], [["w"]]), [asked.test]).map > 0.97
