"""Encoders one by one: what is known of each beyond the contract that all must hold."""

from __future__ import annotations

import pytest
import torch
from worlds import FEATURES, MICE, embedder_of, windows_of

from pretrain.components import names
from pretrain.data.windows import Pose, cover
from pretrain.encoders import Embedder, build_embedder
from pretrain.errors import BadInput

WINDOWS = windows_of(MICE, batch=4, frames=40, seed=2, cut=(25,))


def embedder(encoder: str, **settings: object) -> Embedder:
    torch.manual_seed(0)
    model = build_embedder(MICE, features=FEATURES, encoder={"name": encoder, **settings})
    model.features.fit(WINDOWS.pose)
    return model.eval()


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_the_reach_of_the_tcn_is_exactly_what_its_docstring_says(layers: int) -> None:
    model = embedder("tcn", width=8, layers=layers)
    reach = 2**layers - 1
    assert model.encoder.context == (reach, reach)
    x = torch.randn(
        1,
        2 * reach + 11,
        model.features.width,
        generator=torch.Generator().manual_seed(0),
        requires_grad=True,
    )
    z = model.encoder(x, torch.ones(x.shape[:2], dtype=torch.bool))
    at = reach + 5
    (z[0, at] * torch.randn(8)).sum().backward()
    assert x.grad is not None
    reached = x.grad[0].abs().sum(-1).nonzero().flatten()
    assert reached.tolist() == list(range(at - reach, at + reach + 1))


def test_the_tcn_has_the_width_asked_for() -> None:
    assert embedder("tcn", width=24, layers=2).embed(WINDOWS).shape == (4, 40, 24)


def by_hand(x_TF: torch.Tensor, frame: int, reach: int) -> torch.Tensor:
    return x_TF[max(0, frame - reach) : frame + reach + 1]


@pytest.mark.parametrize("kind", ["means", "spreads", "extremes", "shifts"])
@pytest.mark.parametrize("reaches", [(3,), (2, 7)])
def test_handmade_is_the_features_and_what_becomes_of_them(
    kind: str, reaches: tuple[int, ...]
) -> None:
    none: dict[str, list[float]] = {"means": [], "spreads": [], "extremes": [], "shifts": []}
    seconds = [reach / MICE.fps for reach in reaches]
    settings = {**none, kind: seconds} | ({"means": [1 / MICE.fps]} if kind == "shifts" else {})
    model = embedder("handmade", **settings)
    assert not list(model.parameters())
    x, z = model.features(WINDOWS.pose), model.embed(WINDOWS)
    width = model.features.width
    assert z.shape[-1] == model.dim
    valid = WINDOWS.valid_BT
    torch.testing.assert_close(z[..., :width][valid], x[valid])
    for row, frame in ((0, 0), (0, 20), (3, 24), (1, 39)):
        known = x[row, : int(WINDOWS.valid_BT[row].sum())]
        last = len(known) - 1
        if frame > last:
            continue
        expected = []
        for reach in reaches:
            around = by_hand(known, frame, reach)
            if kind == "means":
                expected.append(around.mean(0))
            elif kind == "spreads":
                expected.append(around.std(0, correction=0))
            elif kind == "extremes":
                expected += [around.amax(0), around.amin(0)]
            else:
                places = (max(0, frame - reach), min(last, frame + reach))
                expected += [by_hand(known, place, 1).mean(0) for place in places]
        if kind == "shifts":
            expected.insert(0, by_hand(known, frame, 1).mean(0))
        torch.testing.assert_close(z[row, frame, width:], torch.cat(expected), atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("encoder", names("pretrain.encoders"))
def test_a_video_in_pieces_is_embedded_as_in_one(encoder: str) -> None:
    model = embedder_of(MICE, encoder, WINDOWS.pose).eval()
    frames = 2 * model.overlap + 150
    video = windows_of(MICE, batch=1, frames=frames, seed=4)
    position, confidence = video.pose.position_BTMKX[0], video.pose.confidence_BTMK[0]
    with torch.no_grad():
        whole = model.embed(video)[0]
        joined = torch.full_like(whole, torch.nan)
        pieces = 0
        for windows, kept, inside in cover(
            Pose(position[None], confidence[None]),
            window=2 * model.overlap + 40,
            overlap=model.overlap,
        ):
            joined[kept] = model.embed(windows)[0, inside]
            pieces += 1
    assert pieces >= 4
    torch.testing.assert_close(joined, whole, atol=1e-4, rtol=1e-4)


def test_overlap_is_the_reach_of_network_and_features_together() -> None:
    model = embedder("tcn", width=8, layers=3)
    assert model.overlap == 7 + 12
    pose = windows_of(MICE, batch=1, frames=80, missing=0).pose
    position = pose.position_BTMKX.clone()
    position[:, 40] += 30 * torch.randn(2, 7, 2, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(1, 80, dtype=torch.bool)
    changed = (
        (model(pose, valid) != model(Pose(position, pose.confidence_BTMK), valid))
        .any(-1)[0]
        .nonzero()
        .flatten()
        .tolist()
    )
    assert (changed[0], changed[-1]) == (40 - 19, 40 + 19)


def test_what_does_not_exist_lists_what_does() -> None:
    with pytest.raises(BadInput, match=r"there is no 'transfromer'; there are: .*handmade.*tcn"):
        build_embedder(MICE, features={}, encoder={"name": "transfromer"})
    with pytest.raises(BadInput) as caught:
        build_embedder(MICE, features={}, encoder={"name": "tcn", "width": "wide", "depth": 3})
    assert "width is 'wide'; it must be a whole number" in str(caught.value)
    assert "unknown setting 'depth'; allowed: width=96, layers=6" in str(caught.value)
    with pytest.raises(BadInput, match="unknown setting 'lag'"):
        build_embedder(MICE, features={"lag": 3}, encoder={"name": "tcn"})
