"""What a classifier is said to look at is what it looks at, on models that read one thing only."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_model_card import result
from test_report import Page
from torch import Tensor
from worlds import MICE, embedder_of, stiff, wander, windows_of

from finetune.explain import main
from finetune.explanation.gradients import RealPoses, ascend, integrated_gradients, real_clips
from finetune.explanation.sensitivity import passes_of, sensitivities
from finetune.explanation.stretches import Stretch, _most_shown, filled
from finetune.fit.fit import Model
from finetune.heads import LabelledVideo, build_head
from finetune.inference.model import LoadedModel, as_tensors
from finetune.labels.frame_labels import UNLABELLED
from finetune.labels.problems import Problem
from finetune.postprocess.postprocessing import Postprocessing
from finetune.report.model_folder import save_model
from finetune.report.predictions import write_predictions
from pretrain.components import names
from pretrain.data.schema import Video
from pretrain.data.store_writer import StoreWriter
from pretrain.data.windows import Pose
from pretrain.encoders import AbstractEncoder, Embedder, build_embedder
from pretrain.errors import BadInput
from pretrain.train.embed_video import embed_video
from pretrain.transforms.geometry import rotate_back

NOSE = MICE.keypoint("nose")
PROBLEM = Problem(
    name="acts",
    task="acts",
    classes=("right", "other"),
    annotator="",
    overlapping=False,
    train={},
    test={},
)


class Unused(AbstractEncoder):
    dim = 1

    def __init__(self, delay: int) -> None:
        super().__init__()
        self.context = (delay, 0)

    def forward(self, x_BTF: Tensor, valid_BT: Tensor) -> Tensor:
        raise NotImplementedError


class OnlyNose(Embedder):
    """Where the resident's nose was ``delay`` frames before, and nothing else."""

    def forward(self, pose: Pose, valid_BT: Tensor) -> Tensor:
        delay = self.encoder.context[0]
        x_BT = (pose.position_BTMKX[:, :, 0, NOSE, 0] / 100 - 5).nan_to_num(0.0)
        return torch.nn.functional.pad(x_BT, (delay, 0))[:, : x_BT.shape[1]].unsqueeze(-1)


def only_nose(delay: int) -> LoadedModel:
    features = embedder_of(MICE, "tcn", windows_of(MICE).pose).features
    embedder = OnlyNose(features, Unused(delay), settings={}).eval()
    head = build_head({"name": "linear"}, 1, [2]).eval()
    with torch.no_grad():
        (out,) = head.out
        out.weight.copy_(torch.tensor([[1.0], [0.0]]))
        out.bias.zero_()
    return loaded(Model(head, embedder))


def loaded(model: Model) -> LoadedModel:
    return LoadedModel(
        models=[model],
        postprocessing=[[Postprocessing(overlapping=False)]],
        all_problems=[PROBLEM],
        selected=[0],
        schema=MICE,
        folder="",
    )


def stretches(number: int = 2, frames: int = 1200) -> list[Stretch]:
    made = []
    for seed in range(number):
        position, confidence = wander(MICE, frames, seed=seed, missing=0.02)
        labels = np.full(frames, UNLABELLED, np.int8)
        labels[300:700], labels[700:900] = 1, 0
        made.append(
            Stretch(
                video=f"v{seed}",
                start=0,
                arrays=as_tensors({"position": position, "confidence": confidence}),
                labels=[labels],
            )
        )
    return made


@pytest.mark.parametrize("delay", [0, 30])
def test_a_model_that_reads_one_keypoint_depends_on_that_alone(delay: int) -> None:
    model, passes = only_nose(delay), list[int]()
    some = stretches()
    base = [model.predict(one.arrays) for one in some]
    (found,) = sensitivities(model, some, base, on_progress=lambda: passes.append(1))
    assert len(passes) == passes_of(model)
    change = dict(zip(zip(found.kinds, found.rows, strict=True), found.change_RC, strict=True))
    on = {row for row, change_C in change.items() if change_C.max() > 0}
    assert on == {("animal", "resident")}
    assert change["animal", "resident"].min() > 0.001
    lost = found.ap_lost_RC[found.rows.index("intruder")]
    np.testing.assert_array_equal(lost, 0)
    by_point = dict(zip(found.points, found.change_PCL, strict=True))
    assert {name for name, change_CL in by_point.items() if np.nanmax(change_CL) > 0} == {
        "all points",
        "resident nose",
    }
    lag = int(np.flatnonzero(np.isclose(found.lag_s, -delay / MICE.fps))[0])
    read_CL = by_point["resident nose"]
    assert read_CL[:, lag].min() > 0.01
    assert np.delete(read_CL, lag, 1).max() == 0


@pytest.mark.parametrize("delay", [0, 30])
def test_integrated_gradients_say_the_same(delay: int) -> None:
    model, shown = only_nose(delay), [np.ones((1200, 2), bool)] * 2
    saliency = integrated_gradients(
        model.models[0], PROBLEM, 0, stretches(), shown, fps=MICE.fps, examples=4, steps=8
    )
    total_LMK = saliency.attribution_CLMK.sum(0)
    lag = int(np.flatnonzero(np.isclose(saliency.lag_s, -delay / MICE.fps))[0])
    assert total_LMK[lag, 0, NOSE] > 0
    assert total_LMK.sum() == pytest.approx(total_LMK[lag, 0, NOSE])


def test_integrated_gradients_add_up_to_the_change_from_the_baselines() -> None:
    """Of one frame all contributions together are f(x) - E f(baseline)."""
    model, some = only_nose(0), stretches(1)
    shown = np.zeros((1200, 2), bool)
    shown[600, 0] = True
    saliency = integrated_gradients(
        model.models[0], PROBLEM, 0, some, [shown], fps=MICE.fps, examples=1, steps=400
    )
    p_T = model.predict(some[0].arrays)[0].probabilities_TC[:, 0]
    expected = abs(p_T[600] - p_T.mean())
    assert np.nansum(saliency.attribution_CLMK[0]) == pytest.approx(expected, abs=0.05)
    assert np.isnan(saliency.attribution_CLMK[1]).all(), "no frame shows it"


def test_the_clips_that_excite_a_class_and_the_way_up_from_there() -> None:
    model, some = only_nose(0), stretches(3)
    probabilities = [model.predict(one.arrays)[0].probabilities_TC for one in some]
    best = real_clips(some, probabilities, 0, fps=MICE.fps)
    assert best.real_p == sorted(best.real_p, reverse=True)
    assert best.real_p[0] == pytest.approx(
        max(np.convolve(p[:, 0], np.ones(60) / 60, "valid").max() for p in probabilities), abs=1e-5
    )
    of_video = next(one for one in some if one.video == best.videos[0])
    np.testing.assert_array_equal(
        best.real_NTMKX[0], of_video.arrays["position"][best.start[0] : best.start[0] + 60]
    )
    real = RealPoses(model.models[0], some, fps=MICE.fps)
    found = ascend(model.models[0], PROBLEM, 0, 0, real, best, some)
    assert found.ascended_p > found.start_p
    assert found.ascended_TMKX is not None
    own, origin, heading = real.own(filled(torch.from_numpy(best.real_NTMKX[0])))
    start = real.clip(real.components(own), origin, heading)
    moved = found.ascended_TMKX - start[0].numpy()
    assert np.abs(moved).max() > 1
    # back in the space of components, seen from where the ascent began, every one is in its bounds
    there = torch.from_numpy(found.ascended_TMKX) - origin
    scores = real.unbounded(rotate_back(there, heading.expand(*there.shape[:3], 2)))
    assert (scores >= real.low_C - 1e-3).all()
    assert (scores <= real.high_C + 1e-3).all()


def test_missing_points_are_filled_in_a_straight_line() -> None:
    x = torch.tensor([torch.nan, 1, torch.nan, 3]).view(4, 1, 1, 1).expand(4, 1, 1, 2)
    assert filled(x)[:, 0, 0, 1].tolist() == [1, 1, 2, 3]
    assert not filled(torch.full((3, 1, 1, 2), torch.nan)).any()


@pytest.mark.parametrize("name", names("finetune.heads"))
def test_heads_say_whether_gradients_reach_the_embeddings(name: str) -> None:
    torch.manual_seed(0)
    head = build_head({"name": name}, 6, [3]).eval()
    z = torch.randn(1, 80, 6, requires_grad=True)
    with torch.no_grad():
        head.standardise(z[0])
        for one in head.parameters():
            one.add_(torch.randn_like(one))
    try:
        score = head(z, torch.ones(1, 80, dtype=torch.bool))[0].softmax(-1)[..., 0].sum()
        (gradient,) = torch.autograd.grad(score, z, allow_unused=True)
    except RuntimeError:
        gradient = None
    if name == "prototype":  # has means once it is fitted
        assert head.differentiable
    else:
        assert head.differentiable == (gradient is not None and bool(gradient.any()))


def run_with(folder: Path, head_settings: dict[str, object], embedder: Embedder) -> Path:
    """A finished run whose head learned when the resident runs; the intruder sits there."""
    out, rng, fitted, test = folder / "run", np.random.default_rng(0), [], {}
    with StoreWriter(folder / "store", MICE, origin="mice that run and stop") as writer:
        for name, frames in (("v0", 900), ("v1", 900), ("v2", 600)):
            runs_T = np.repeat(rng.random(frames // 60) < 0.5, 60)
            heading_T = np.repeat(rng.uniform(-np.pi, np.pi, frames // 60), 60)
            step_TX = 5 * np.stack([np.cos(heading_T), np.sin(heading_T)], 1) * runs_T[:, None]
            mice = [
                stiff(np.cumsum(step_TX, 0) + 500, heading_T),
                stiff(np.full((frames, 2), 200.0), np.zeros(frames)),
            ]
            position = np.stack(mice, 1) + rng.normal(size=(frames, 2, 7, 2)).astype(np.float32)
            confidence = np.ones(position.shape[:3], np.float32)
            writer.add(Video(name=name, position_TMKX=position, confidence_TMK=confidence))
            test[name] = np.where(runs_T, 0, 1).astype(np.int8)
            arrays = as_tensors({"position": position, "confidence": confidence})
            fitted.append((arrays, test[name]))
    head = build_head(head_settings, embedder.dim, [2])
    z = [embed_video(embedder, arrays, stride=head.stride) for arrays, _ in fitted]
    if head.by_gradient:
        head.standardise(torch.cat(z))
        torch.nn.init.normal_(head.out[0].weight)  # type: ignore[arg-type]
    else:
        labelled = [
            LabelledVideo(one, torch.from_numpy(np.eye(2, dtype=np.int8)[shown[:: head.stride]]))
            for one, (_, shown) in zip(z, fitted, strict=True)
        ]
        head.fit_videos(0, labelled, overlapping=False, seed=0)
    save_model(
        out / "model" / "seed-1",
        head,
        embedder,
        [PROBLEM],
        head_settings=head_settings,
        made_by={},
    )
    p = {name: np.full((len(y), 2), 0.5, np.float32) for name, y in test.items()}
    write_predictions(out / "predictions", [replace(PROBLEM, test=test)], [p], seed=1)
    values = result(data=str(folder / "store"), test_data=None, bouts=None)
    (out / "result.json").write_text(json.dumps(values))
    return out


def test_trees_on_handmade_features_depend_on_the_group_that_tells(tmp_path: Path) -> None:
    short = {"means": [0.3], "spreads": [], "extremes": [], "shifts": []}
    embedder = build_embedder(
        MICE, features={"groups": ["interaction"]}, encoder={"name": "handmade", **short}
    ).eval()
    embedder.features.fit(windows_of(MICE, frames=256).pose)
    settings = {"name": "boosted", "trees": 30, "seeds": 1, "time": False}
    out = run_with(tmp_path, settings, embedder)
    main([str(out), "--minutes", "0.5"])
    with np.load(out / "explanation" / "acts.npz") as found:
        groups = found["kind_R"] == "feature group"
        change = dict(zip(found["row_R"][groups], found["change_RC"][groups].mean(1), strict=True))
        assert max(change, key=lambda name: change[name]) == "speed", change
        assert change["tracking"] < 0.3 * change["speed"]
        lost = dict(zip(found["row_R"], found["ap_lost_RC"].mean(1), strict=True))
        assert lost["speed"] > 0.02
        assert "saliency_CLMK" not in found
        assert "ascended_p_C" not in found
        assert found["clip_position_CNTMKX"].shape[2:] == (60, 2, 7, 2)
    page = Page(out / "report.html")
    page.check()
    assert "acts: what it looked at" in page.words
    assert "This head has no gradients" in "\n".join(page.words)
    assert "what excites right most" in page.captions


def test_a_differentiable_model_is_explained_by_gradients_as_well(tmp_path: Path) -> None:
    out = run_with(
        tmp_path, {"name": "linear"}, embedder_of(MICE, "tcn", windows_of(MICE).pose).eval()
    )
    main([str(out), "--minutes", "0.5", "--data", str(tmp_path / "store")])
    with np.load(out / "explanation" / "acts.npz") as found:
        assert found["saliency_CLMK"].shape[0] == 2
        assert found["saliency_CLMK"].shape[1:] == (len(found["saliency_lag_s"]), 2, 7)
        assert np.isfinite(found["saliency_CLMK"]).all()
        assert (found["saliency_CLMK"].sum((1, 2, 3)) > 0).all()
        assert (found["saliency_CLMK"].sum((0, 1)) > 0).all(), "this network reads every point"
        assert (found["ascended_p_C"] > found["ascent_start_p_C"]).all()
    captions = Page(out / "report.html").captions
    assert any(caption.startswith("integrated gradients") for caption in captions)


def test_what_is_no_run_is_not_explained(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no model at"):
        main([str(tmp_path)])
    with pytest.raises(BadInput, match="--minutes is 0"):
        main([str(tmp_path), "--minutes", "0"])


def test_a_rare_behaviour_gets_its_stretch_and_the_rest_class_none() -> None:
    labels = {f"v{i}": np.zeros(1000, np.int8) for i in range(6)}
    for name, shown in labels.items():
        shown[300:700] = 1
        shown[:100] = UNLABELLED
        if name == "v4":
            shown[620:640] = 2
    problem = Problem(
        name="p",
        task="t",
        classes=("other", "sniff", "attack"),
        annotator="",
        overlapping=False,
        train={},
        test=labels,
    )
    found = _most_shown(sorted(labels), [problem], [labels], number=3, longest=200)
    assert len(found) == 3
    assert found["v4"] <= 620 <= 640 <= found["v4"] + 200
    assert all(300 <= start <= 500 for name, start in found.items() if name != "v4")
    assert _most_shown(["v0"], [problem], [{}], number=3, longest=200) == {}
