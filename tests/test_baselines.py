"""The paper's networks and the windows they read, against hand computation and against one window
at a time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from finetune.paper.baselines import NETWORKS as FILES
from finetune.paper.baselines import Baseline, build_baseline, published_network
from finetune.paper.windows import Samples, Windows, augmented, scaled, standardised
from pretrain.errors import BadInput

PAPER = {path.stem: published_network(path.stem) for path in sorted(FILES.glob("*.yaml"))}
NETWORKS = list(PAPER)


def small(network: str = "conv1d", **changed: object) -> Baseline:
    settings = {
        "widths": (6, 5, 4),
        "past": 20,
        "future": 20,
        "skip": 1,
        "lr": 1e-2,
        "dropout": 0.0,
        "epochs": 1,
        "batch": 16,
        "state": 7,
    }
    return Baseline(network=network, **{**settings, **changed})


def wander(frames: int, seed: int = 0) -> Tensor:
    steps = torch.randn(frames, 2, 7, 2, generator=torch.Generator().manual_seed(seed))
    return steps.cumsum(0) + torch.tensor([500.0, 300.0])


def dense(inputs: int, width: int) -> int:
    return inputs * width + width


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # input norm; convolutions of 5 taps, each with its norm; 201 steps -> 197 98 -> 94 47 -> 43
        # 21 of 32 channels
        (
            "conv1d",
            2 * 28
            + (28 * 128 * 5 + 128 + 256)
            + (128 * 64 * 5 + 64 + 128)
            + (64 * 32 * 5 + 32 + 64)
            + dense(21 * 32, 4),
        ),
        # 101 -> 97 48 -> 44 22 -> 18 9
        (
            "conv1d_augmented",
            2 * 28
            + (28 * 128 * 5 + 128 + 256)
            + (128 * 64 * 5 + 64 + 128)
            + (64 * 32 * 5 + 32 + 64)
            + dense(9 * 32, 4),
        ),
        # 101 -> 9 as well
        (
            "conv1d_causal",
            2 * 28
            + (28 * 128 * 5 + 128 + 256)
            + (128 * 64 * 5 + 64 + 128)
            + (64 * 32 * 5 + 32 + 64)
            + dense(9 * 32, 4),
        ),
        (
            "lstm",
            2 * 28
            + 4 * (256 * (28 + 256) + 256)
            + dense(256, 256)
            + 512
            + dense(256, 128)
            + 256
            + dense(128, 4),
        ),
        # query and value, then the 1x1 convolution and its norm; 101 -> 50 -> 25 -> 12
        (
            "self_attention",
            2 * 28
            + (2 * dense(28, 128) + dense(128, 128) + 256)
            + (2 * dense(128, 64) + dense(64, 64) + 128)
            + (2 * dense(64, 32) + dense(32, 32) + 64)
            + dense(12 * 32, 4),
        ),
        (
            "fully_connected",
            2 * 201 * 28
            + dense(201 * 28, 512)
            + 1024
            + dense(512, 256)
            + 512
            + dense(256, 128)
            + 256
            + dense(128, 4),
        ),
        (
            "single_frame",
            2 * 28
            + dense(28, 512)
            + 1024
            + dense(512, 256)
            + 512
            + dense(256, 128)
            + 256
            + dense(128, 64)
            + 128
            + dense(64, 4),
        ),
    ],
)
def test_parameters_are_those_counted_by_hand(name: str, expected: int) -> None:
    network = build_baseline(PAPER[name], inputs=28, classes=4)
    assert (
        sum(weight.numel() for weight in network.parameters() if weight.requires_grad) == expected
    )


def test_every_published_setting_has_its_hand_count() -> None:
    marks = test_parameters_are_those_counted_by_hand.pytestmark
    assert sorted(name for name, _ in marks[0].args[1]) == NETWORKS


@pytest.mark.parametrize("inputs", [28, 60])
@pytest.mark.parametrize("name", NETWORKS)
def test_windows_to_logits(name: str, inputs: int) -> None:
    settings = PAPER[name]
    network = build_baseline(settings, inputs=inputs, classes=4)
    logits = network(torch.randn(3, settings.window, inputs))
    assert logits.shape == (3, 4)
    logits.square().sum().backward()
    assert all(
        weight.grad is not None and weight.grad.any()
        for weight in network.parameters()
        if weight.requires_grad
    )


def test_window_lengths_are_those_published() -> None:
    assert {name: network.window for name, network in PAPER.items()} == {
        "conv1d": 201,
        "conv1d_augmented": 101,
        "conv1d_causal": 101,
        "lstm": 101,
        "self_attention": 101,
        "fully_connected": 201,
        "single_frame": 1,
    }


def test_attention_is_unscaled_and_its_keys_are_its_values() -> None:
    settings = small("self_attention", widths=(6,), past=3, future=3)
    torch.manual_seed(0)
    network = build_baseline(settings, inputs=5, classes=2).eval()
    block = list(network.children())[1]
    x = torch.randn(1, 7, 5)
    query, value = block.query(x)[0], block.value(x)[0]
    weight = (query @ value.T).exp()
    met = block.mix(weight / weight.sum(1, keepdim=True) @ value)
    each = torch.relu(met / math.sqrt(1 + 1e-3))  # fresh batch norm in evaluation
    expected = torch.stack([torch.maximum(each[2 * i], each[2 * i + 1]) for i in range(3)])
    torch.testing.assert_close(block(x)[0], expected, rtol=1e-4, atol=1e-5)


def test_lstm_starts_as_keras_does() -> None:
    state = next(
        m
        for m in build_baseline(PAPER["lstm"], inputs=28, classes=4).modules()
        if isinstance(m, nn.LSTM)
    )
    assert torch.equal(state.bias_ih_l0[256:512], torch.ones(256))
    assert float(state.bias_ih_l0.detach().abs().sum()) == 256
    assert not state.bias_hh_l0.any()
    recur = state.weight_hh_l0.detach()
    torch.testing.assert_close(recur.T @ recur, torch.eye(256), atol=1e-4, rtol=0)
    assert float(state.weight_ih_l0.detach().abs().max()) <= math.sqrt(6 / (1024 + 28))


def test_a_window_too_short_for_its_poolings_is_refused() -> None:
    with pytest.raises(BadInput, match="a window of 9 steps is too short for 3 layers of conv1d"):
        build_baseline(small(past=4, future=4), inputs=28, classes=4)


@pytest.mark.parametrize(("past", "future", "skip"), [(3, 3, 1), (4, 2, 3), (2, 0, 2), (0, 0, 1)])
def test_every_frame_has_the_window_around_it(past: int, future: int, skip: int) -> None:
    videos = [scaled(wander(frames, seed)) for seed, frames in enumerate((11, 1, 6))]
    windows = Windows(videos, small(past=past, future=future, skip=skip))
    cut = torch.cat(list(windows.in_order(4)))
    assert len(windows) == len(cut) == 18
    frame = 0
    for video in videos:
        for t in range(len(video)):
            steps = [t + step * skip for step in range(-past, future + 1)]
            expected = torch.stack(
                [video[s] if 0 <= s < len(video) else torch.zeros(28) for s in steps]
            )
            assert torch.equal(cut[frame], expected)
            frame += 1


def test_coordinates_are_shares_of_the_image_mouse_by_mouse() -> None:
    position = torch.zeros(1, 2, 7, 2)
    position[0, 1, 3] = torch.tensor([512.0, 285.0])
    coordinates = scaled(position)[0].view(2, 7, 2)
    assert coordinates[1, 3].tolist() == [0.5, 0.5]
    assert float(coordinates.sum()) == 1.0
    assert scaled(position, (512.0, 570.0))[0].view(2, 7, 2)[1, 3].tolist() == [1.0, 0.5]


def test_a_missing_point_stays_where_it_was_last_seen() -> None:
    nan = math.nan
    x = torch.tensor([[nan, 10.0, nan], [1.0, nan, nan], [nan, 12.0, nan], [3.0, nan, nan]])
    position = torch.stack([x, x], -1).unsqueeze(1)
    coordinates = scaled(position, (100.0, 100.0)).view(4, 3, 2)
    assert torch.equal(coordinates[..., 0], coordinates[..., 1])
    expected = [[0.01, 0.10, 0.5], [0.01, 0.10, 0.5], [0.01, 0.12, 0.5], [0.03, 0.12, 0.5]]
    torch.testing.assert_close(coordinates[..., 0], torch.tensor(expected))


def test_an_epoch_holds_every_labelled_frame_once_with_its_label() -> None:
    frames = (40, 33)
    videos = [
        torch.arange(n).view(-1, 1, 1, 1).expand(n, 2, 7, 2) + 1000.0 * number
        for number, n in enumerate(frames)
    ]
    labels = [torch.arange(n) % 5 - 1 for n in frames]  # a fifth is unlabelled
    settings = small(past=0, future=0)
    draw = torch.Generator().manual_seed(0)
    samples = Samples(
        [scaled(video, (1.0, 1.0)) for video in videos], labels, settings, coordinates=28
    )
    epochs = [list(samples.epoch(draw)) for _ in range(2)]
    order = []
    for epoch in epochs:
        x, y = torch.cat([x for x, _ in epoch])[:, 0, 0], torch.cat([y for _, y in epoch])
        named = {(int(v) // 1000, int(v) % 1000): int(label) for v, label in zip(x, y, strict=True)}
        assert named == {
            (number, t): int(labels[number][t])
            for number in range(2)
            for t in range(frames[number])
            if labels[number][t] >= 0
        }
        assert len(x) == len(named)
        order.append(x.tolist())
    assert order[0] != order[1]
    assert [len(y) for _, y in epochs[0]] == [16, 16, 16, len(order[0]) - 48]


def test_one_window_alone_joins_the_batch_before_it() -> None:
    sizes = [
        len(y)
        for _, y in Samples([scaled(wander(33))], [torch.zeros(33)], small(), coordinates=28).epoch(
            torch.Generator()
        )
    ]
    assert sizes == [16, 17]


def test_the_same_generator_gives_the_same_epoch() -> None:
    samples = Samples([scaled(wander(50))], [torch.zeros(50)], small(augment=True), coordinates=28)
    epochs = [list(samples.epoch(torch.Generator().manual_seed(seed))) for seed in (1, 1, 2)]
    assert all(torch.equal(a[0], b[0]) for a, b in zip(epochs[0], epochs[1], strict=True))
    assert not torch.equal(epochs[0][0][0], epochs[2][0][0])


def test_augmentation_turns_about_the_origin_and_moves_whole_windows() -> None:
    x = torch.rand(4000, 3, 6, generator=torch.Generator().manual_seed(0))
    result = augmented(x, torch.Generator().manual_seed(1), coordinates=4)
    assert torch.equal(result[..., 4:], x[..., 4:])
    before, after = (
        torch.view_as_complex(values[..., :4].reshape(4000, 6, 2).contiguous())
        for values in (x, result)
    )
    turn = (after[:, 1] - after[:, 0]) / (before[:, 1] - before[:, 0])
    torch.testing.assert_close(turn.abs(), torch.ones(4000), rtol=1e-2, atol=1e-3)
    moved = after - turn.unsqueeze(1) * before
    torch.testing.assert_close(moved, moved[:, :1].expand(4000, 6), rtol=1e-2, atol=1e-2)
    angle, shift = turn.angle(), torch.view_as_real(moved[:, 0])
    # Uniform: mean square of U(-a, a) is a^2 / 3.
    assert float(angle.square().mean()) == pytest.approx(math.pi**2 / 3, rel=0.05)
    assert float(angle.abs().max()) <= math.pi
    assert abs(float(angle.mean())) < 0.1
    assert shift.mean(0).abs().tolist() == pytest.approx([0, 0], abs=0.01)
    assert shift.square().mean(0).tolist() == pytest.approx([0.25**2 / 3] * 2, rel=0.06)
    assert float(shift.abs().max()) <= 0.26
    assert abs(float((shift[:, 0] * shift[:, 1]).mean())) < 0.001


def test_external_features_come_after_the_coordinates_and_are_not_rotated() -> None:
    video, extra = wander(20), torch.randn(20, 3)
    settings = small(past=0, future=0, augment=True, batch=20)
    samples = Samples(
        [torch.cat([scaled(video), extra], 1)], [torch.arange(20)], settings, coordinates=28
    )
    ((x, y),) = samples.epoch(torch.Generator())
    assert x.shape == (20, 1, 31)
    assert torch.equal(x[:, 0, 28:], extra[y])
    assert not torch.allclose(x[:, 0, :28], scaled(video)[y])


def test_standardised_features_have_mean_0_and_spread_1() -> None:
    x = torch.randn(500, 3) * torch.tensor([3.0, 0.1, 0.0]) + 5
    result = standardised(x, x.mean(0), x.std(0))
    torch.testing.assert_close(result.mean(0), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(result.std(0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-3, rtol=0)


def test_videos_of_which_no_frame_is_labelled_are_refused() -> None:
    with pytest.raises(BadInput, match="no frame is labelled"):
        Samples([scaled(wander(20))], [torch.full((20,), -1)], small(), coordinates=28)


@pytest.mark.parametrize("network", ["conv1d", "lstm", "self_attention", "fully_connected"])
def test_each_network_learns_what_its_window_shows(network: str) -> None:
    """The resident swings from side to side of the image; the class is the side."""
    torch.manual_seed(0)
    swing = 300 * torch.sin(torch.arange(400) * (2 * math.pi / 40) + 0.1)
    video = torch.tensor([512.0, 285.0]) + torch.randn(400, 2, 7, 2) * 20
    video[:, 0, :, 0] += swing.unsqueeze(1)
    label = (swing > 0).long()
    settings = small(network, widths=(16, 8), past=8, future=8, batch=64)
    model, samples = (
        build_baseline(settings, inputs=28, classes=2),
        Samples([scaled(video)], [label], settings, coordinates=28),
    )
    adam, draw = (
        torch.optim.Adam(model.parameters(), lr=settings.lr),
        torch.Generator().manual_seed(0),
    )
    for _ in range(12):
        for x, y in samples.epoch(draw):
            adam.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            adam.step()
    with torch.no_grad():
        chosen = torch.cat(
            [model(x).argmax(1) for x in Windows([scaled(video)], settings).in_order(100)]
        )
    assert float((chosen == label).float().mean()) > 0.9
