"""What encoders see, what they must not see, and that the paper's networks are the
paper's."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from worlds import GROUPS

from finetune.paper.baselines import Baseline, build_baseline
from finetune.paper.windows import Windows
from pretrain import distributed
from pretrain.components import names
from pretrain.data.schema import CALMS21, Schema
from pretrain.encoders import AbstractEncoder, build_embedder
from pretrain.encoders._batch_norm import BatchNorm
from pretrain.encoders._graph import (
    edges,
    hop_distances,
    scale_adjacency,
    space_time_hops,
)
from pretrain.encoders._over_time import each_channel_over_time, over_time
from pretrain.encoders.conv1d import Conv1d
from pretrain.encoders.fully_connected import FullyConnected
from pretrain.encoders.lstm import LSTM
from pretrain.encoders.msg3d import MSG3D
from pretrain.encoders.self_attention import SelfAttention, attend_nearby
from pretrain.errors import BadInput
from pretrain.train.checkpoint import load_encoder, save_encoder
from pretrain.transforms.features import Features

RATS = Schema.from_names(
    animals=("one", "two"),
    keypoints=("nose", "earL", "earR", "back", "tail"),
    fps=30.0,
    image_px=(640.0, 480.0),
)
ALONE = Schema.from_names(
    animals=("one",), keypoints=("nose", "tail"), fps=30.0, image_px=(640.0, 480.0)
)
THREE = Schema.from_names(
    animals=("a", "b", "c"), keypoints=("nose", "neck", "tail"), fps=25.0, image_px=(640.0, 480.0)
)

# Narrow where width does not matter to what is tested; the reach is that of the defaults.
NARROW: Mapping[str, Mapping[str, Any]] = {
    "conv1d": {"widths": [12, 8, 6], "dim": 7},
    "embedder_contexter": {"width": 8, "context_width": 12},
    "fully_connected": {"widths": [12, 8], "dim": 7},
    "gated_conv": {"width": 8, "inner": 10},
    "lstm": {"width": 10, "widths": [8, 6], "dim": 7},
    "msg3d": {"dim": 7},
    "self_attention": {"widths": [12, 8, 6], "dim": 7},
    "tcn": {"width": 8},
    "two_rate": {"width": 8, "narrow": 6, "dim": 7},
}
LEARNED = sorted(set(names("pretrain.encoders")) - {"handmade"})
NORMALISED_BY_BATCH = ["conv1d", "fully_connected", "lstm", "self_attention"]


def encoder(name: str, schema: Schema = RATS, **settings: Any) -> AbstractEncoder:
    torch.manual_seed(3)
    model = build_embedder(
        schema,
        features={"groups": list(GROUPS)},
        encoder={"name": name, **NARROW.get(name, {}), **settings},
    ).encoder
    return model


def read(schema: Schema, batch: int, frames: int, seed: int = 0) -> Tensor:
    return torch.randn(
        batch,
        frames,
        Features(schema, groups=GROUPS).width,
        generator=torch.Generator().manual_seed(seed),
    )


@pytest.mark.parametrize("name", LEARNED)
def test_an_embedding_depends_on_its_context_and_on_nothing_else(name: str) -> None:
    model = encoder(name).eval()
    past, future = model.context
    frames = past + future + 11
    before, after = [], []
    for at in range(past + 5, past + 5 + model.grid):  # every place in a patch
        x = read(RATS, 16, frames).requires_grad_()
        z = model(x, torch.ones(16, frames, dtype=torch.bool))
        (z[:, at] * torch.randn(z[:, at].shape)).sum().backward()
        assert x.grad is not None
        reached = (x.grad.abs().amax((0, 2)) > 0).nonzero().flatten()
        before.append(at - int(reached.min()))
        after.append(int(reached.max()) - at)
    assert (max(before), max(after)) == (past, future)


@pytest.mark.parametrize("name", LEARNED)
def test_a_frame_alone_in_its_context_is_embedded_as_in_the_recording(name: str) -> None:
    model = encoder(name).eval()
    past, future = model.context
    frames = past + future + 30
    x = read(RATS, 2, frames)
    with torch.no_grad():
        whole = model(x, torch.ones(2, frames, dtype=torch.bool))
        for at in (past, past + 13, past + 29):
            begin = (at - past) // model.grid * model.grid
            piece = x[:, begin : at + future + 1]
            single = model(piece, torch.ones(piece.shape[:2], dtype=torch.bool))
            torch.testing.assert_close(single[:, at - begin], whole[:, at], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", LEARNED)
def test_frames_that_do_not_exist_reach_no_other(name: str, training: bool) -> None:
    model = encoder(name).train(training)
    x = read(RATS, 3, 60)
    valid = torch.ones(3, 60, dtype=torch.bool)
    valid[0, 20:], valid[1, :4], valid[2] = False, False, False
    junk = torch.where(valid.unsqueeze(-1), x, 1e3 * read(RATS, 3, 60, seed=1)).requires_grad_()
    one, other = model(x, valid), model(junk, valid)
    torch.testing.assert_close(one[valid], other[valid])
    other[valid].square().sum().backward()
    assert junk.grad is not None
    assert not junk.grad[~valid].any()
    assert junk.grad[valid].isfinite().all()
    assert junk.grad[valid].any()
    assert other.isfinite().all()


@pytest.mark.parametrize("name", LEARNED)
def test_a_window_cut_short_is_a_shorter_window(name: str) -> None:
    model = encoder(name).eval()
    x = read(RATS, 2, 40)
    valid = torch.arange(40).expand(2, 40) < 25
    with torch.no_grad():
        torch.testing.assert_close(
            model(x, valid)[:, :25], model(x[:, :25], valid[:, :25]), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(
    "schema", [CALMS21, RATS, ALONE, THREE], ids=["mice", "rats", "alone", "three"]
)
@pytest.mark.parametrize("name", LEARNED)
def test_any_animals_any_keypoints_any_length(name: str, schema: Schema) -> None:
    model = encoder(name, schema)
    for frames in (1, 2, 33):
        x = read(schema, 2, frames)
        z = model(x, torch.ones(2, frames, dtype=torch.bool))
        assert z.shape == (2, frames, model.dim)
        z.square().mean().backward()
    lacking = [
        key
        for key, weight in model.named_parameters()
        if weight.grad is None or not weight.grad.isfinite().all()
    ]
    assert not lacking


@torch.no_grad()
@pytest.mark.parametrize("name", LEARNED)
def test_bfloat16_products_change_an_embedding_little(name: str) -> None:
    model, x, valid = encoder(name).eval(), read(RATS, 2, 40), torch.ones(2, 40, dtype=torch.bool)
    whole = model(x, valid)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(x, valid).float()
    assert float((half - whole).norm() / whole.norm()) < 0.05


@pytest.mark.parametrize("name", LEARNED)
def test_default_settings_reach_as_documented(name: str) -> None:
    reach = {
        "conv1d": (50, 49),
        "embedder_contexter": (40, 6),
        "fully_connected": (50, 50),
        "gated_conv": (63, 63),
        "lstm": (50, 50),
        "msg3d": (60, 60),
        "self_attention": (48, 55),
        "tcn": (63, 63),
        "two_rate": (63, 63),
    }
    assert encoder(name).context == reach[name]


# The paper's networks, window by window, against the dense ones.


def shaken(network: nn.Module) -> nn.Module:
    """Every weight and every running average away from its start, so that none could be left out
    unnoticed."""
    draw = torch.Generator().manual_seed(5)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=draw)
            tensor.copy_(0.5 + noise.abs() if "var" in name else 0.3 * noise)
    return network.eval()


def normed(to: BatchNorm, like: nn.BatchNorm1d, repeated: int = 1) -> None:
    to.eps = like.eps
    pairs = zip(
        (to.weight, to.bias, to.mean_C, to.variance_C),
        (like.weight, like.bias, like.running_mean, like.running_var),
        strict=True,
    )
    for mine, theirs in pairs:
        assert theirs is not None
        mine.data.copy_(theirs.view(repeated, -1)[0])


def by_windows(network: nn.Module, x_BTF: Tensor, settings: Baseline) -> Tensor:
    return torch.stack(
        [network(next(Windows([x_TF], settings).in_order(len(x_TF)))) for x_TF in x_BTF]
    )


def windows_of(
    network: str, past: int, future: int, skip: int, widths: tuple[int, ...]
) -> Baseline:
    return Baseline(
        network=network,
        widths=widths,
        past=past,
        future=future,
        skip=skip,
        lr=1,
        dropout=0.5,
        epochs=1,
        state=9,
    )


@torch.no_grad()
@pytest.mark.parametrize(
    ("past", "future", "skip"), [(50, 50, 1), (100, 100, 2), (100, 0, 2), (60, 15, 3)]
)
def test_dense_conv1d_is_the_papers_network_at_every_frame(
    past: int, future: int, skip: int
) -> None:
    settings = windows_of("conv1d", past, future, skip, (7, 6, 5))
    features = Features(RATS, groups=("posture", "confidence"))
    dense = Conv1d(
        features, widths=settings.widths, past=past, future=future, skip=skip, dim=4
    ).eval()
    network = shaken(build_baseline(settings, inputs=features.width, classes=4))
    inwards, *layers, _, last = network.children()
    normed(dense.norm, inwards.norm)
    for conv, norm, layer in zip(dense.convs, dense.norms, layers, strict=True):
        conv.load_state_dict(layer.conv.state_dict())
        normed(norm, layer.norm)
    dense.leave.weight.copy_(last.weight.view(4, -1, 5).transpose(1, 2))
    dense.leave.bias.copy_(last.bias)
    x = torch.randn(2, 150, features.width)
    torch.testing.assert_close(
        dense(x, torch.ones(2, 150, dtype=torch.bool)),
        by_windows(network, x, settings),
        rtol=1e-4,
        atol=1e-4,
    )


@torch.no_grad()
@pytest.mark.parametrize(("past", "future", "skip"), [(10, 10, 2), (0, 0, 1), (7, 2, 3)])
def test_dense_fully_connected_is_the_papers_network_at_every_frame(
    past: int, future: int, skip: int
) -> None:
    settings = windows_of("fully_connected", past, future, skip, (9, 8, 7))
    features = Features(RATS, groups=("posture", "confidence"))
    dense = FullyConnected(
        features, widths=settings.widths, past=past, future=future, skip=skip, dim=4
    ).eval()
    network = shaken(build_baseline(settings, inputs=features.width, classes=4))
    _, inwards, *layers, last = network.children()
    for tensor in (
        inwards.weight,
        inwards.bias,
        inwards.running_mean,
        inwards.running_var,
    ):  # ours is the same at every step of the window
        tensor.copy_(tensor.view(settings.window, -1)[0].repeat(settings.window))
    normed(dense.norm, inwards, settings.window)
    dense.enter.weight.copy_(layers[0].linear.weight.view(9, settings.window, -1).transpose(1, 2))
    dense.enter.bias.copy_(layers[0].linear.bias)
    for mine, norm, layer in zip([None, *dense.layers], dense.norms, layers, strict=True):
        normed(norm, layer.norm)
        if mine is not None:
            mine.load_state_dict(layer.linear.state_dict())
    dense.leave.load_state_dict(last.state_dict())
    x = torch.randn(2, 60, features.width)
    torch.testing.assert_close(
        dense(x, torch.ones(2, 60, dtype=torch.bool)),
        by_windows(network, x, settings),
        rtol=1e-4,
        atol=1e-4,
    )


@torch.no_grad()
@pytest.mark.parametrize(("past", "future", "skip"), [(10, 10, 2), (0, 0, 1), (7, 2, 3)])
def test_dense_lstm_is_the_papers_network_at_every_frame(past: int, future: int, skip: int) -> None:
    settings = windows_of("lstm", past, future, skip, (8, 7))
    features = Features(RATS, groups=("posture", "confidence"))
    dense = LSTM(
        features, width=9, widths=settings.widths, past=past, future=future, skip=skip, dim=4
    ).eval()
    network = shaken(build_baseline(settings, inputs=features.width, classes=4))
    inwards, state, *layers, last = network.children()
    normed(dense.norm, inwards.norm)
    enter, recur, bias, second_bias = state.parameters()
    dense.enter.weight.copy_(enter)
    dense.enter.bias.copy_(bias + second_bias)
    dense.recur.weight.copy_(recur)
    for mine, norm, layer in zip(dense.layers, dense.norms, layers, strict=True):
        mine.load_state_dict(layer.linear.state_dict())
        normed(norm, layer.norm)
    dense.leave.load_state_dict(last.state_dict())
    x = torch.randn(2, 60, features.width)
    torch.testing.assert_close(
        dense(x, torch.ones(2, 60, dtype=torch.bool)),
        by_windows(network, x, settings),
        rtol=1e-4,
        atol=1e-4,
    )


def test_lstm_states_computed_in_parts_and_again_give_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x, valid = encoder("lstm"), read(RATS, 5, 20), torch.ones(5, 20, dtype=torch.bool)
    model(x, valid).square().sum().backward()
    whole = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
    model.zero_grad()
    monkeypatch.setattr("pretrain.encoders.lstm._STATES", 2 * 20 * 11 * 10)  # two windows at a time
    model(x, valid).square().sum().backward()
    for one, weight in zip(whole, model.parameters(), strict=True):
        torch.testing.assert_close(weight.grad, one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("frames", "reach", "step"), [(23, 5, 1), (23, 8, 4), (3, 6, 2), (32, 8, 2)]
)
def test_attention_is_over_the_existing_frames_nearby(frames: int, reach: int, step: int) -> None:
    draw = torch.Generator().manual_seed(0)
    query, value = torch.randn(2, 2, frames, 4, generator=draw)
    valid = torch.rand(2, frames, generator=draw) < 0.7
    met = attend_nearby(query, value, valid, reach=reach, step=step)
    for row, at in itertools.product(range(2), range(frames)):
        if valid[row, at]:
            others = [
                t
                for t in range(frames)
                if abs(t - at) <= reach and (t - at) % step == 0 and valid[row, t]
            ]
            weight = torch.softmax(
                torch.tensor([float(query[row, at] @ value[row, t]) for t in others]), 0
            )
            torch.testing.assert_close(
                met[row, at], weight @ value[row, others], rtol=1e-4, atol=1e-5
            )


def test_self_attention_layers_are_those_of_the_paper() -> None:
    model = SelfAttention(Features(RATS))
    widths, inputs = (128, 64, 32), model.norm.weight.numel()
    counted = 2 * inputs + 33 * 96
    for before, after in itertools.pairwise((inputs, *widths)):
        counted += 2 * (before + 1) * after + (after + 1) * after + 2 * after
    assert sum(weight.numel() for weight in model.parameters()) == counted


def test_embedder_contexter_has_the_entrys_layers() -> None:
    model = build_embedder(CALMS21, features={}, encoder={"name": "embedder_contexter"}).encoder
    inputs = Features(CALMS21).width

    def block(width: int, kernel: int) -> int:
        return 2 * (width * width * kernel + width + 2 * width)

    embedder = (inputs + 1) * 128 + 2 * block(128, 1) + 3 * block(128, 3)
    contexter = (3 * 128 + 1) * 512 + 8 * block(512, 3)
    assert sum(weight.numel() for weight in model.parameters()) == embedder + contexter + 2 * 512
    assert model.dim == 512


def test_embedder_contexter_keeps_its_layers_order() -> None:
    """Against the entry's description written down once more, channels first and without
    padding."""
    model = encoder("embedder_contexter", width=6, context_width=5).eval()
    shaken(model)
    x = read(RATS, 2, 9)
    h = nn.functional.pad(x.transpose(1, 2), (40, 6))
    state = model.state_dict()

    def conv(h: Tensor, key: str) -> Tensor:
        return nn.functional.conv1d(h, state[f"{key}.conv.weight"], state[f"{key}.conv.bias"])

    def residual(h: Tensor, key: str, left: int, right: int) -> Tensor:
        y = h
        for index in range(2):
            weight, bias = (
                state[f"{key}.norms.{index}.{kind}"].view(-1, 1) for kind in ("weight", "bias")
            )
            y = (y - y.mean(1, keepdim=True)) / (
                y.var(1, keepdim=True, correction=0) + 1e-5
            ).sqrt() * weight + bias
            y = conv(torch.where(y > 0, y, 0.01 * y), f"{key}.convs.{index}")
        return h[..., left : h.shape[-1] - right] + y

    h = conv(h, "embed.0")
    for index, lost in ((1, 0), (2, 0), (3, 2), (4, 2), (5, 2)):
        h = residual(h, f"embed.{index}", lost, lost)
    h = conv(h, "relate.0")
    for index in range(1, 9):
        h = residual(h, f"relate.{index}", 4, 0)
    expected = nn.functional.layer_norm(
        h.transpose(1, 2), (5,), state["leave.weight"], state["leave.bias"]
    )
    torch.testing.assert_close(
        model(x, torch.ones(2, 9, dtype=torch.bool)), expected, rtol=1e-3, atol=1e-4
    )


# Convolutions laid out otherwise.


@pytest.mark.parametrize(
    ("frames", "kernel", "step"), [(20, 3, 1), (21, 3, 4), (5, 7, 8), (1, 5, 2), (64, 7, 8)]
)
def test_convolutions_over_time_are_those_of_torch(frames: int, kernel: int, step: int) -> None:
    x = torch.randn(2, frames, 6)
    full = nn.Conv1d(6, 4, kernel, padding=kernel // 2 * step, dilation=step)
    torch.testing.assert_close(over_time(full, x), full(x.transpose(1, 2)).transpose(1, 2))
    each = nn.Conv1d(6, 6, kernel, padding=kernel // 2 * step, dilation=step, groups=6, bias=False)
    torch.testing.assert_close(
        each_channel_over_time(each, x), each(x.transpose(1, 2)).transpose(1, 2)
    )


# The graph of MS-G3D.


def shortest(joined: set[frozenset[int]], start: int, end: int, points: int) -> float:
    """Breadth first, one neighbour at a time."""
    ring, seen, steps = {start}, {start}, 0
    while ring:
        if end in ring:
            return steps
        ring = {
            other
            for point in ring
            for other in range(points)
            if frozenset((point, other)) in joined
        } - seen
        seen |= ring
        steps += 1
    return math.inf


@pytest.mark.parametrize(
    "schema", [CALMS21, RATS, ALONE, THREE], ids=["mice", "rats", "alone", "three"]
)
def test_adjacency_is_that_of_the_definition(schema: Schema) -> None:
    points = len(schema.animals) * len(schema.keypoints)
    joined = {frozenset(pair) for pair in edges(schema)}
    result = scale_adjacency(hop_distances(points, edges(schema)), 5)
    for k in range(5):
        member = [
            [shortest(joined, i, j, points) == k or i == j for j in range(points)]
            for i in range(points)
        ]
        degree = [sum(row) for row in member]
        for i, j in itertools.product(range(points), repeat=2):
            assert float(result[k, i, j]) == pytest.approx(
                member[i][j] / math.sqrt(degree[i] * degree[j]), abs=1e-6
            )


def test_the_graph_joins_both_animals() -> None:
    named = {frozenset((divmod(a, 7), divmod(b, 7))) for a, b in edges(CALMS21)}
    at = CALMS21.keypoint
    assert len(named) == 2 * 8 + 7 + 2
    assert frozenset(((0, at("nose")), (0, at("left_ear")))) in named
    assert frozenset(((1, at("tail_base")), (1, at("right_hip")))) in named
    assert all(frozenset(((0, k), (1, k))) in named for k in range(7))
    assert frozenset(((0, at("neck")), (1, at("tail_base")))) in named
    assert frozenset(((1, at("neck")), (0, at("tail_base")))) in named
    assert not [pair for pair in named if len(pair) != 2]


def test_points_that_bones_do_not_reach_have_no_distance() -> None:
    apart = hop_distances(4, [(0, 1), (2, 3)])
    assert apart[0, 1] == 1
    assert apart[0, 2] == math.inf
    assert torch.equal(scale_adjacency(apart, 2)[1][:2, 2:], torch.zeros(2, 2))


def released_scales(joined: np.ndarray, number: int) -> np.ndarray:
    """The scales that the released MS-G3D makes of a graph's matrix, which may hold the points
    themselves: by powers of the matrix, who is reached in k steps and not in fewer, and oneself;
    of no steps the identity."""
    itself = np.eye(len(joined))
    reached = [np.linalg.matrix_power(joined + itself, k) > 0 for k in range(number)]
    member = [itself] + [(reached[k] & ~reached[k - 1]) | (itself > 0) for k in range(1, number)]
    degrees = [np.diag(m.sum(1) ** -0.5) for m in member]
    return np.stack([d @ m @ d for d, m in zip(degrees, member, strict=True)])


def matrix_of(schema: Schema) -> np.ndarray:
    points = len(schema.animals) * len(schema.keypoints)
    joined = np.zeros((points, points))
    for a, b in edges(schema):
        joined[a, b] = joined[b, a] = 1
    return joined


@pytest.mark.parametrize(
    "schema", [CALMS21, RATS, ALONE, THREE], ids=["mice", "rats", "alone", "three"]
)
@pytest.mark.parametrize("window", [1, 3, 5])
def test_the_graphs_are_those_of_the_release(schema: Schema, window: int) -> None:
    """In space, and in space and time, where it tiles A + I over the frames and then takes hops."""
    joined = matrix_of(schema)
    apart = hop_distances(len(joined), edges(schema))
    near = {"rtol": 0, "atol": 1e-7, "check_dtype": False}
    torch.testing.assert_close(
        scale_adjacency(apart, 5), torch.from_numpy(released_scales(joined, 5)), **near
    )
    tiled = np.tile(joined + np.eye(len(joined)), (window, window))
    result = scale_adjacency(space_time_hops(apart, window), 5)
    torch.testing.assert_close(result, torch.from_numpy(released_scales(tiled, 5)), **near)
    assert torch.equal(result[0], torch.eye(len(tiled)))


def test_g3d_is_a_graph_convolution_over_the_points_of_several_frames() -> None:
    torch.manual_seed(0)
    width, window, step, frames, points = 6, 3, 2, 9, 2
    features = Features(ALONE, groups=("scene", "confidence"))
    model = MSG3D(features, width=width, dilations=(step,), hops=1, window=window)
    layer = model.blocks[0].space_time
    layer.residual_WSL.data.normal_()
    h = torch.randn(points, 1, frames, width)
    result = layer(h, torch.ones(1, frames, dtype=torch.bool))
    total = window * points
    scales = released_scales(np.tile(matrix_of(ALONE) + np.eye(points), (window, window)), 2)
    for t in range(frames):
        at = [t + (index - 1) * step for index in range(window)]
        x = torch.stack(
            [
                h[n, 0, s] if 0 <= s < frames else torch.zeros(width)
                for s in at
                for n in range(points)
            ]
        )
        y = torch.zeros(total, width)
        for k in range(2):
            residual = (
                layer.residual_WSL.view(window, total, 2, points)[:, :, k]
                .transpose(0, 1)
                .reshape(total, total)
            )
            y = y + (torch.from_numpy(scales[k]).float() + residual) @ x @ layer.weight[k]
        y = torch.relu(layer.norm(y)).view(window, points, width)
        together = layer.leave(layer.join(y.transpose(0, 1).flatten(1)))
        torch.testing.assert_close(result[:, 0, t], together, rtol=1e-4, atol=1e-5)


def test_the_frame_itself_passes_the_temporal_convolution_without_activation() -> None:
    torch.manual_seed(0)
    layer = MSG3D(Features(ALONE, groups=("scene", "confidence")), width=6).blocks[0].after
    layer.leave = torch.nn.Identity()
    h = torch.randn(2, 3, 20, 6)
    branches = (layer(h, torch.ones(3, 20, dtype=torch.bool)) - h).detach()
    before = layer.norm(layer.enter(h)).detach()
    torch.testing.assert_close(branches[..., 5], before[..., 5], rtol=1e-4, atol=1e-5)
    assert before[..., 5].min() < 0
    assert branches[..., 4].min() >= 0, "the greatest of three frames is taken after activation"


def test_an_msg3d_of_the_earlier_graph_is_refused(tmp_path: Path) -> None:
    features = {"groups": ["scene", "confidence"]}
    model = build_embedder(RATS, features=features, encoder={"name": "msg3d", "width": 6})
    save_encoder(tmp_path, model, made_by={})
    load_encoder(tmp_path)
    weights = safetensors.torch.load_file(tmp_path / "encoder.safetensors")
    earlier = {name.replace("time.residual_", "time.also_"): x for name, x in weights.items()}
    safetensors.torch.save_file(earlier, tmp_path / "encoder.safetensors")
    with pytest.raises(BadInput, match=r"(?s)do not fit msg3d.*pretrain it anew"):
        load_encoder(tmp_path)


def test_msg3d_brings_the_features_along_that_it_reads() -> None:
    asked = {"groups": ["posture", "confidence"], "lags": [2]}
    for features in (asked, {}):
        model = build_embedder(RATS, features=features, encoder={"name": "msg3d"})
        assert {"scene", "confidence"} <= set(model.features.groups)
        assert model.settings["features"]["groups"] == list(model.features.groups)
    whole = {"groups": ["confidence", "scene"], "lags": [2]}
    model = build_embedder(RATS, features=whole, encoder={"name": "msg3d"})
    assert model.settings["features"] == whole, "nothing lacks, nothing is added"
    assert asked == {"groups": ["posture", "confidence"], "lags": [2]}, "what was given stays"
    with pytest.raises(BadInput, match=r"(?s)multiple of 6.*window is 4"):
        build_embedder(RATS, features=asked, encoder={"name": "msg3d", "width": 8, "window": 4})


def test_msg3d_takes_nothing_from_a_point_that_is_not_seen() -> None:
    features = Features(RATS, groups=("scene", "confidence"))
    model = MSG3D(features, width=6).eval()
    x, valid = torch.randn(1, 12, features.width), torch.ones(1, 12, dtype=torch.bool)
    x[..., features.columns["visible"]] = torch.tensor([1.0] * 3 + [0.0] + [1.0] * 6)
    other = x.clone()
    other[..., features.columns["scene"]][..., 6:8] += 3
    other[..., features.columns["confidence"]][..., 3] += 3
    torch.testing.assert_close(model(x, valid), model(other, valid))
    x[..., features.columns["scene"]][..., 8] += 3
    assert not torch.allclose(model(x, valid), model(other, valid))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "conv1d", "past": 5, "future": 5}, "too short"),
        ({"name": "conv1d", "skip": 0, "widths": []}, "(?s)skip is 0.*widths"),
        ({"name": "fully_connected", "past": -1, "widths": [0]}, "(?s)past is -1.*widths"),
        ({"name": "lstm", "width": 0, "skip": 0}, "(?s)width is 0.*skip is 0"),
        ({"name": "self_attention", "reach": 3}, "at least 4"),
        ({"name": "embedder_contexter", "contexter": -1}, "contexter is -1"),
        ({"name": "gated_conv", "kernel": 4, "dilations": [0]}, "(?s)odd.*at least 1"),
        ({"name": "msg3d", "dilations": [0]}, "dilations"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        build_embedder(RATS, features={"groups": list(GROUPS)}, encoder=settings)


# Batch normalisation over the frames that exist, on all workers.


def test_batch_norm_counts_existing_frames_as_torch_would() -> None:
    ours, theirs = BatchNorm(5), nn.BatchNorm1d(5)
    x = (torch.randn(4, 7, 5) * torch.tensor([1.0, 2, 3, 4, 5]) + 100).requires_grad_()
    valid = torch.rand(4, 7, generator=torch.Generator().manual_seed(0)) < 0.6
    again = x.detach().clone().requires_grad_()
    one, other = ours(x, valid), theirs(again[valid])
    torch.testing.assert_close(one[valid], other, rtol=1e-4, atol=1e-4)
    weight = torch.randn(other.shape)
    (one[valid] * weight).sum().backward()
    (other * weight).sum().backward()
    torch.testing.assert_close(x.grad, again.grad, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ours.mean_C, theirs.running_mean)
    torch.testing.assert_close(ours.variance_C, theirs.running_var)
    torch.testing.assert_close(
        ours.eval()(x, valid),
        theirs.eval()(again.flatten(0, 1)).view(x.shape),
        rtol=1e-4,
        atol=1e-3,
    )


def test_a_batch_without_frames_moves_no_average() -> None:
    norm = BatchNorm(3)
    assert norm(torch.randn(2, 4, 3), torch.zeros(2, 4, dtype=torch.bool)).isfinite().all()
    assert torch.equal(norm.mean_C, torch.zeros(3))
    assert torch.equal(norm.variance_C, torch.ones(3))


def one_step(rows: slice) -> dict[str, Tensor]:
    """Loss, gradients and running averages after a step on some rows of the same batch."""
    x = read(RATS, 6, 30)
    valid = torch.arange(30).expand(6, 30) < torch.tensor([30, 30, 11, 30, 0, 5]).unsqueeze(1)
    result: dict[str, Tensor] = {}
    for name in NORMALISED_BY_BATCH:
        model = encoder(name)
        z = model(x[rows], valid[rows])
        aim = torch.randn(6, 30, model.dim, generator=torch.Generator().manual_seed(9))[rows]
        each = (z - aim).square().sum(-1)[valid[rows]]
        loss = distributed.mean_over_workers(each.sum(), torch.tensor(len(each)))
        loss.backward()
        result[f"{name} loss"] = distributed.mean(loss)
        result |= {
            f"{name} {key}": distributed.mean(weight.grad)
            for key, weight in model.named_parameters()
            if weight.grad is not None
        }
        result |= {f"{name} {key}": value.clone() for key, value in model.named_buffers()}
    return result


def work(rank: int, folder: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    patience = timedelta(seconds=120)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=patience
    )
    try:
        torch.save(one_step(slice(rank * 3, rank * 3 + 3)), f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def test_two_workers_normalise_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    single = one_step(slice(0, 6))
    other = mp.get_context("spawn").Process(target=work, args=(1, str(tmp_path)))
    other.start()
    try:
        work(0, str(tmp_path))
        other.join(60)
        assert other.exitcode == 0
    finally:
        other.kill()
        other.join()
    for rank in range(2):
        result = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert result.keys() == single.keys()
        for key, value in single.items():
            torch.testing.assert_close(
                result[key],
                value,
                rtol=2e-3,
                atol=2e-5,
                msg=lambda message, key=key: f"{key}: {message}",
            )
