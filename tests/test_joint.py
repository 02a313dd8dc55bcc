"""One model for several label sets: who shares what, its loss against a slow reference, and a world
whose truth is known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from worlds import MICE, stiff

from finetune.fit.frames import Frames
from finetune.labels.frame_labels import UNLABELLED
from finetune.labels.problems import Problem
from finetune.paper.joint_fit import (
    annotator_indices,
    epoch_steps,
    fit_member,
    label_steps,
    output_layers,
    unlabelled_videos,
    with_head_inputs,
)
from finetune.paper.joint_model import (
    JointModel,
    JointSettings,
    head_inputs,
    smoothed_cross_entropy,
    validation_f1,
)
from pretrain.errors import BadInput

FOUR = ("attack", "investigation", "mount", "other")
TINY = JointSettings(
    features={"groups": ["motion"], "lags": [2]},
    encoder={"name": "tcn", "width": 16, "layers": 2},
    cpc={"horizons": [4, 8], "projection": 8, "past_only": False},
    window=32,
    labelled=4,
    unlabelled=2,
    epochs=3,
    lr=0.01,
    members=1,
    validation=0.3,
    advance=8,
    task_weight={"new_behaviors": 0.5},
)


def problem(
    name: str,
    classes: tuple[str, ...] = FOUR,
    *,
    task: str = "t",
    annotator: str = "",
    train: object = None,
    test: object = None,
):  # type: ignore[no-untyped-def]
    return Problem(
        name=name,
        task=task,
        classes=classes,
        annotator=annotator,
        overlapping=False,
        train=train or {},
        test=test or {},
    )


PROBLEMS = [
    problem("task 1", task="classic_classification", annotator="0", train={"a": 0}, test={"b": 0}),
    problem(
        "annotator 1",
        task="annotation_style_transfer",
        annotator="1",
        train={"c": 0},
        test={"b": 0},
    ),
    problem("groom", ("other", "groom"), task="new_behaviors", train={"d": 0}, test={"e": 0}),
]


def test_label_sets_with_the_same_classes_share_a_layer() -> None:
    layers = output_layers(PROBLEMS, TINY)
    assert [(layer.problems, layer.weight) for layer in layers] == [((0, 1), 1.0), ((2,), 0.5)]
    assert annotator_indices(PROBLEMS) == [0, 1, 0]
    with pytest.raises(BadInput, match="groom: its behaviours overlap"):
        output_layers([replace(PROBLEMS[2], overlapping=True)], TINY)


def test_test_videos_are_learned_from_only_where_asked_for() -> None:
    every = ["a", "b", "c", "d", "e", "f"]
    assert unlabelled_videos(every, PROBLEMS, transductive=False) == ["f"]
    assert unlabelled_videos(every, PROBLEMS, transductive=True) == ["b", "e", "f"]


def test_batches_of_an_epoch_are_counted_as_the_entry_counts() -> None:
    entry = replace(TINY, labelled=8, each_layer=1, unlabelled=16, advance=256)
    assert epoch_steps(entry, 8, 256 * 32 * 100) == 100


def test_what_only_the_head_sees() -> None:
    position = np.stack(
        [stiff([[100.0, 300.0]] * 5, [0.0] * 5), stiff([[900.0, 500.0]] * 5, [0.0] * 5)], 1
    )
    position[2, 1] = np.nan
    inputs = head_inputs(torch.from_numpy(position), TINY, MICE)
    one, other = position[0][:, [MICE.keypoint("neck"), MICE.keypoint("tail_base")]].mean(1)
    expected = [
        0.0,
        math.tanh(5 / 2300),
        math.tanh(math.hypot(one[0], 570 - one[1]) / 465),
        math.tanh(math.hypot(1024 - other[0], 570 - other[1]) / 465),
    ]
    torch.testing.assert_close(inputs[0], torch.tensor(expected))
    assert inputs[2, 3] == 0
    assert float(inputs[4, 0]) == pytest.approx(math.tanh(4 / 1500))


def test_the_loss_is_the_slow_sum() -> None:
    draw = torch.Generator().manual_seed(0)
    logits, labels = (
        torch.randn(9, 3, generator=draw),
        torch.tensor([0, 1, 2, 2, UNLABELLED, 0, 1, UNLABELLED, 2]),
    )
    prior, weight = torch.tensor([0.2, 0.3, 0.5]), torch.tensor([2.0, 1.0, 0.5])
    expected, number = 0.0, 0
    for row, label in zip(logits, labels.tolist(), strict=True):
        if label != UNLABELLED:
            p = row.exp() / row.exp().sum()
            target = [0.8 * (c == label) + 0.2 * float(prior[c]) for c in range(3)]
            expected -= sum(target[c] * float(weight[c]) * math.log(p[c]) for c in range(3))
            number += 1
    loss = smoothed_cross_entropy(logits, labels, prior_C=prior, weight_C=weight, smoothing=0.2)
    assert float(loss) == pytest.approx(expected / number, rel=1e-5)
    nobody = torch.full((9,), UNLABELLED)
    assert (
        float(smoothed_cross_entropy(logits, nobody, prior_C=prior, weight_C=weight, smoothing=0.2))
        == 0
    )


def test_annotators_have_styles_of_their_own() -> None:
    from worlds import embedder_of, windows_of

    embedder = embedder_of(MICE, "tcn", windows_of(MICE).pose)
    model = JointModel(embedder, classes=[4], annotators=2, annotator_width=2, head_inputs=4)
    assert torch.equal(model.annotators.detach(), torch.eye(2))
    z, extra = (
        torch.randn(1, 3, embedder.dim).expand(2, -1, -1),
        torch.rand(1, 3, 4).expand(2, -1, -1),
    )
    logits = model.label(z, extra, torch.tensor([0, 1]), 0)
    assert not torch.allclose(logits[0], logits[1])
    logits[0].sum().backward()
    assert model.annotators.grad is not None
    assert model.annotators.grad[0].any()
    assert not model.annotators.grad[1].any()


def running(seed: int, frames: int = 160) -> tuple[np.ndarray, np.ndarray]:
    """Two mice; the resident runs or stands, in bouts of 20 frames. Positions and whether it
    runs."""
    draw = np.random.default_rng(seed)
    runs = np.repeat(draw.integers(0, 2, frames // 20), 20)
    runs[:20], runs[20:40] = 0, 1
    way = np.cumsum(runs)[:, None] * np.array([4.0, 0.0]) + draw.normal(scale=0.2, size=(frames, 2))
    still = np.array([500.0, 300.0]) + draw.normal(scale=0.2, size=(frames, 2))
    return np.stack(
        [stiff(way + 100, np.zeros(frames)), stiff(still, np.ones(frames))], 1
    ), runs.astype(np.int8)


@pytest.fixture(scope="module")
def world() -> tuple[Frames, list[Problem]]:
    names = ["a", "b", "c", "d", "e", "test", "free"]
    videos = {name: running(seed) for seed, name in enumerate(names)}
    place = {name: (160 * n, 160 * (n + 1)) for n, name in enumerate(names)}
    position = np.concatenate([videos[name][0] for name in names])
    poses = Frames(
        spans=place,
        arrays={"position": position, "confidence": np.ones(position.shape[:3], np.float32)},
    )
    runs = {name: labels for name, (_, labels) in videos.items()}
    first = problem(
        "runs",
        ("stands", "runs"),
        train={name: runs[name] for name in "abc"},
        test={"test": runs["test"]},
    )
    second = problem(
        "stands",
        ("other", "stands"),
        task="new_behaviors",
        train={n: 1 - runs[n] for n in "de"},
        test={"test": 1 - runs["test"]},
    )
    return with_head_inputs(poses, TINY, MICE), [first, second]


def test_it_learns_both_label_sets_and_never_looks_at_test_labels(
    world: tuple[Frames, list[Problem]],
) -> None:
    frames, problems = world
    steps: list[float] = []
    predicted, about = fit_member(
        frames, problems, ["free"], TINY, MICE, seed=42, member=0, on_progress=steps.append
    )
    for probabilities, problem in zip(predicted, problems, strict=True):
        assert (probabilities["test"].argmax(1) == problem.test["test"]).mean() > 0.85
    assert len(about) == 2
    trained = 3 * epoch_steps(
        TINY, 2, 4 * 160
    )  # of 5 labelled videos 2 are held out; one is unlabelled
    assert sum(steps) == pytest.approx(trained + label_steps(TINY, 2, 2 * 160))
    turned = [replace(p, test={"test": 1 - p.test["test"]}) for p in problems]
    again, _ = fit_member(frames, turned, ["free"], TINY, MICE, seed=42, member=0)
    assert all(
        np.array_equal(one["test"], other["test"])
        for one, other in zip(predicted, again, strict=True)
    )
    other, _ = fit_member(
        frames, problems, ["free"], TINY, MICE, seed=42, member=1, epochs_share=0.2
    )
    assert not np.array_equal(other[0]["test"], predicted[0]["test"])


def test_poses_of_test_videos_do_not_reach_what_is_learned_unless_handed_in(
    world: tuple[Frames, list[Problem]],
) -> None:
    frames, problems = world
    changed = [replace(p, test={**p.test, "free": p.test["test"]}) for p in problems]
    first, end = frames.spans["test"]
    position = frames.arrays["position"].copy()
    position[first:end] = position[first:end][::-1] + 50
    moved = replace(frames, arrays={**frames.arrays, "position": position})

    def of_free(some_frames: Frames, unlabelled: list[str]) -> np.ndarray:
        predicted, _ = fit_member(
            some_frames, changed, unlabelled, TINY, MICE, seed=42, member=0, epochs_share=0.1
        )
        return predicted[0]["free"]

    assert np.array_equal(of_free(frames, []), of_free(moved, []))
    assert not np.array_equal(of_free(frames, ["test"]), of_free(moved, ["test"]))


def test_an_epoch_is_chosen_by_all_classes_of_several_and_by_the_behaviour_of_one() -> None:
    truth = np.array([0, 0, 1, 3, 3, 3], np.int8)
    said = np.array([0, 1, 1, 3, 3, 0])
    one_hot = np.eye(4, dtype=np.float32)[said]
    # attack 2 of (2 said, 2 true) share 1; investigation 1 of (2, 1); other 2 of (2, 3); no mount
    four = [2 * 1 / 4, 2 * 1 / 3, 2 * 2 / 5]
    assert validation_f1([problem("four")], [{"a": one_hot}], [{"a": truth}]) == pytest.approx(
        sum(four) / 3
    )
    groom = problem("groom", ("other", "groom"))
    binary, true = np.array([1, 1, 0, 0, 0, 0]), np.array([1, 0, 0, 0, 0, 0], np.int8)
    assert validation_f1(
        [groom], [{"a": np.eye(2, dtype=np.float32)[binary]}], [{"a": true}]
    ) == pytest.approx(2 / 3)
    assert validation_f1([groom], [{}], [{}]) == 0


def test_all_linear_layers_of_the_head_start_small() -> None:
    from worlds import embedder_of, windows_of

    embedder = embedder_of(MICE, "tcn", windows_of(MICE).pose)
    model = JointModel(embedder, classes=[4, 2], annotators=2, annotator_width=2, head_inputs=4)
    for layer in (model.mix[0], model.mix[2], *model.out):
        assert float(layer.weight.detach().std()) == pytest.approx(0.01, rel=0.35)
        assert not layer.bias.any()
    assert isinstance(model.mix[-1], torch.nn.LeakyReLU)


def test_the_entry_reads_all_91_distances() -> None:
    from finetune.paper.table import read_rows, read_settings
    from pretrain.transforms.feature_names import feature_names
    from pretrain.transforms.features import Features

    settings = read_settings([], read_rows()).joint["joint"]
    names = feature_names(Features(MICE, **settings.features))
    assert sum(name.startswith("all_distances: ") for name in names) == 91


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(BadInput, match=r"(?s)members is 0.*validation is 1.5"):
        replace(TINY, members=0, validation=1.5)
