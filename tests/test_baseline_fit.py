"""The paper's networks trained and put to use: against windows one by one, closed forms, and worlds
whose truth is known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from finetune.labels.problems import Problem
from finetune.paper.baselines import Baseline, build_baseline, label_every_frame
from finetune.paper.fit import (
    InitialWeights,
    Phase,
    label_steps,
    label_videos,
    phase_steps,
    train_network,
)
from finetune.paper.windows import Windows
from pretrain.errors import BadInput

SMALL = Baseline(
    network="conv1d",
    widths=[8, 6, 4],
    past=20,
    future=20,
    skip=1,
    lr=0.01,
    dropout=0.0,
    epochs=1,
    batch=32,
)
SIDES = ("left", "right")


def swinging(frames: int = 400, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The resident swings from side to side of the image; the class is the side. Inputs (T, 28) and
    labels."""
    side = np.sin(np.arange(frames) * (2 * math.pi / 40) + 0.1)
    x = np.random.default_rng(seed).normal(0.5, 0.03, (frames, 2, 7, 2))
    x[:, 0, :, 0] += 0.3 * side[:, None]
    return x.reshape(frames, 28).astype(np.float32), (side > 0).astype(np.int8)


def problem(
    train: dict[str, np.ndarray],
    test: dict[str, np.ndarray] | None = None,
    classes: tuple[str, ...] = SIDES,
) -> Problem:
    return Problem(
        name="sides",
        task="sides",
        classes=classes,
        annotator="",
        overlapping=False,
        train=train,
        test=test or {},
    )


def trained(
    changed: Baseline = SMALL, *, seed: int = 42, epochs: int = 12, **more: object
) -> tuple[nn.Module, dict[str, np.ndarray]]:
    x, labels = swinging()
    phases = [Phase(epochs=epochs, lr=0.01)]
    return train_network(
        {"a": x}, problem({"a": labels}), changed, phases, seed=seed, coordinates=28, **more
    ), {"a": x}


@pytest.mark.parametrize(("past", "future", "skip"), [(20, 20, 1), (22, 21, 2), (40, 0, 3)])
@pytest.mark.parametrize("frames", [1, 7, 150])
def test_every_frame_at_once_equals_one_window_a_frame(
    past: int, future: int, skip: int, frames: int
) -> None:
    settings = replace(SMALL, past=past, future=future, skip=skip)
    torch.manual_seed(0)
    network = build_baseline(settings, inputs=5, classes=3)
    for module in network.modules():
        if isinstance(
            module, nn.BatchNorm1d
        ):  # as training leaves them: a zero in the padding is no zero after the norm
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    x = torch.randn(frames, 5)
    network.eval()
    with torch.no_grad():
        slow = torch.cat([network(window) for window in Windows([x], settings).in_order(64)])
    torch.testing.assert_close(label_every_frame(network, x, settings), slow, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", ["conv1d", "fully_connected"])
def test_what_was_trained_labels_another_video(network: str) -> None:
    model, _ = trained(replace(SMALL, network=network))
    x, labels = swinging(seed=1)
    steps: list[float] = []
    (probabilities,) = label_videos(
        model, {"b": x}, ["b"], replace(SMALL, network=network), on_progress=steps.append
    ).values()
    assert sum(steps) == pytest.approx(label_steps(replace(SMALL, network=network), len(x)))
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert (probabilities.argmax(1) == labels).mean() > 0.9


def test_the_same_seed_trains_the_same_network_and_another_does_not() -> None:
    one, same, other = (
        trained(replace(SMALL, dropout=0.3, augment=True), seed=seed, epochs=1)[0].state_dict()
        for seed in (42, 42, 43)
    )
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    assert not torch.equal(one["1.conv.weight"], other["1.conv.weight"])


def test_test_labels_are_not_looked_at() -> None:
    x, labels = swinging()
    phases = [Phase(epochs=1, lr=0.01)]
    states = [
        train_network(
            {"a": x, "b": x},
            problem({"a": labels}, {"b": value}),
            SMALL,
            phases,
            seed=42,
            coordinates=28,
        ).state_dict()
        for value in (labels, 1 - labels)
    ]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_class_weights_shift_what_is_said_of_frames_that_look_alike() -> None:
    """Where inputs say nothing, the best share of a class that makes up q of the frames is w q / (w
    q + 1 - q)."""
    settings = replace(SMALL, network="fully_connected", widths=[4], past=0, future=0, batch=100)
    labels = np.tile(np.array([1, 0, 0, 0], np.int8), 100)
    phases = [Phase(epochs=60, lr=0.05)]
    inputs = {"a": np.zeros((400, 28), np.float32)}
    for weight in (1.0, 9.0):
        model = train_network(
            inputs,
            problem({"a": labels}),
            settings,
            phases,
            seed=1,
            coordinates=28,
            class_weight={"right": weight},
        )
        probabilities = label_videos(model, inputs, ["a"], settings)["a"][0, 1]
        assert probabilities == pytest.approx(weight * 0.25 / (weight * 0.25 + 0.75), abs=0.03)


def test_the_probe_changes_the_last_layer_and_batch_norms_alone() -> None:
    model, inputs = trained(epochs=2)
    before = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    _, labels = swinging()
    start = InitialWeights(weights=before, classes=SIDES)
    after = train_network(
        inputs,
        problem({"a": labels}),
        SMALL,
        [Phase(epochs=1, lr=0.01, last_layer_only=True), Phase()],
        seed=42,
        coordinates=28,
        start=start,
    ).state_dict()
    changed = {
        name for name, value in after.items() if not np.array_equal(value.numpy(), before[name])
    }
    assert {"5.weight", "5.bias"} <= changed
    assert {name for name in changed if not name.startswith("5.")} == {
        name for name in before if "norm" in name
    }


def test_weights_to_start_from_label_as_they_did_and_other_classes_get_a_new_last_layer() -> None:
    model, inputs = trained(epochs=2)
    before = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    _, labels = swinging()
    none = [Phase(last_layer_only=True), Phase()]
    same = train_network(
        inputs,
        problem({"a": labels}),
        SMALL,
        none,
        seed=7,
        coordinates=28,
        start=InitialWeights(weights=before, classes=SIDES),
    )
    np.testing.assert_array_equal(
        label_videos(same, inputs, ["a"], SMALL)["a"],
        label_videos(model, inputs, ["a"], SMALL)["a"],
    )
    new = train_network(
        inputs,
        problem({"a": labels}, classes=("other", "groom")),
        SMALL,
        none,
        seed=7,
        coordinates=28,
        start=InitialWeights(weights=before, classes=SIDES),
    ).state_dict()
    changed = {
        name for name, value in new.items() if not np.array_equal(value.numpy(), before[name])
    }
    assert "5.weight" in changed
    assert changed <= {"5.weight", "5.bias"}
    with pytest.raises(BadInput, match="weights to start from are of another network"):
        train_network(
            inputs,
            problem({"a": labels}),
            replace(SMALL, past=25),
            none,
            seed=7,
            coordinates=28,
            start=InitialWeights(weights=before, classes=SIDES),
        )


def test_a_share_of_the_epochs_is_a_share_of_the_steps() -> None:
    counted: list[int] = []
    trained(epochs=4, epochs_share=0.5, on_progress=counted.append)
    assert sum(counted) == 4 * 13 // 2  # 400 frames are 13 batches of 32
    assert phase_steps(13, Phase(epochs=0), 1.0) == 0
    assert phase_steps(13, Phase(epochs=1), 0.0001) == 1


def test_overlapping_behaviours_are_refused() -> None:
    x, labels = swinging(50)
    both = replace(problem({"a": np.stack([labels, labels], 1)}), overlapping=True)
    with pytest.raises(BadInput, match="overlap"):
        train_network({"a": x}, both, SMALL, [(Phase(epochs=1), False)], seed=1, coordinates=28)


def test_one_optimiser_goes_through_all_phases() -> None:
    (x, labels), settings = swinging(), replace(SMALL, dropout=0.3)

    def weights(*epochs: int) -> dict[str, torch.Tensor]:
        network = train_network(
            {"a": x},
            problem({"a": labels}),
            settings,
            [Phase(epochs=number, lr=0.01) for number in epochs],
            seed=42,
            coordinates=28,
        )
        return network.state_dict()

    at_once, in_two = weights(4), weights(2, 2)
    assert all(torch.equal(value, in_two[name]) for name, value in at_once.items())
