"""Heads and their fitting, on embeddings whose truth is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import finetune.fit.fit as fit_module
from finetune.fit.fit import fit, initial_head, logits_of, score_problems, validation_score
from finetune.fit.frames import Frames
from finetune.fit.problem_loss import class_weights
from finetune.fit.window_sampler import WindowSampler
from finetune.heads import build_head
from finetune.labels.frame_labels import UNLABELLED
from finetune.labels.problems import Problem, draw_budget
from finetune.settings import TASKS, Tuning, saved_settings
from pretrain.components import names
from pretrain.config import parse_overrides, plain, read
from pretrain.errors import BadInput
from tests.worlds import MICE, embedder_of, windows_of

CLASSES = ("attack", "mount", "other")


def world(
    videos: int = 6, frames: int = 400, *, seed: int = 0, noise: float = 0.5
) -> tuple[Frames, dict[str, np.ndarray]]:
    """Embeddings of eight numbers, three of which say which class it is, in bouts of 20 frames."""
    draw = np.random.default_rng(seed)
    labels = {
        f"v{i}": np.repeat(draw.integers(3, size=frames // 20), 20).astype(np.int8)
        for i in range(videos)
    }
    z = draw.normal(0, noise, (videos * frames, 8)).astype(np.float32)
    for i, shown in enumerate(labels.values()):
        z[i * frames + np.arange(frames), shown] += 2.0
    spans = {name: (i * frames, (i + 1) * frames) for i, name in enumerate(labels)}
    return Frames(
        spans=spans, arrays={"z": z * 30 + 7}
    ), labels  # a head must not need embeddings of unit spread


def problem(
    labels: dict[str, np.ndarray], *, test: tuple[str, ...] = ("v4", "v5"), name: str = "S1"
) -> Problem:
    train = {video: shown for video, shown in labels.items() if video not in test}
    return Problem(
        name=name,
        task="S1",
        classes=CLASSES,
        annotator="",
        overlapping=False,
        train=train,
        test={v: labels[v] for v in test},
    )


EVERY_FRAME = {
    "boosted": {"hz": 30.0, "time": False},
    "logistic": {"hz": 30.0, "time": False, "ridge": 0.003},
    "temporal_wide": {"hz": 30.0, "networks": 1, "width": 32, "blocks": 4, "crop": 200},
    "recurrent": {"hz": 30.0, "networks": 1, "width": 32, "crop": 200},
    "stack": {
        "hz": 30.0,
        "members": [{"name": "boosted", "time": False}, {"name": "logistic", "ridge": 0.003}],
    },
}
"""Settings of heads that read a few frames a second: the bouts of these worlds are shorter."""


@pytest.mark.parametrize("head", names("finetune.heads"))
def test_a_head_learns_what_the_embedding_says_and_no_more_from_noise(head: str) -> None:
    frames, labels = world()
    asked = problem(labels)
    settings = {"name": head, **EVERY_FRAME.get(head, {})}
    tuning = Tuning(head=settings, steps=120, window=64, batch=8, lr=0.01)
    ((_, _, model),) = fit(frames, [asked], tuning, embedder=None, seed=0, stops=[120])
    scores = score_problems([asked], model.predict(frames, [asked], [asked.test]), [asked.test])
    assert scores.macro_f1 > 0.95
    assert scores.map > 0.97
    nothing = Frames(
        spans=frames.spans,
        arrays={"z": np.random.default_rng(1).normal(size=(2400, 8)).astype(np.float32)},
    )
    ((_, _, model),) = fit(nothing, [asked], tuning, embedder=None, seed=0, stops=[120])
    scores = score_problems([asked], model.predict(nothing, [asked], [asked.test]), [asked.test])
    assert scores.map < scores.chance_map + 0.15


def test_test_labels_do_not_reach_the_fit() -> None:
    frames, labels = world()
    asked = problem(labels)
    lies = replace(
        asked, test={name: (shown + 1).astype(np.int8) % 3 for name, shown in asked.test.items()}
    )
    tuning = Tuning(head={"name": "linear"}, steps=10, window=32, batch=4)
    models = [
        next(iter(fit(frames, [p], tuning, embedder=None, seed=3, stops=[10])))[2]
        for p in (asked, lies)
    ]
    for mine, theirs in zip(models[0].head.parameters(), models[1].head.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


def test_the_same_seed_gives_the_same_model_and_stopping_on_the_way_changes_nothing() -> None:
    frames, labels = world(frames=120)
    asked = problem(labels)
    tuning = Tuning(head={"name": "temporal", "width": 8}, steps=12, window=32, batch=4)

    def weights(seed: int, stops: list[int]) -> list[torch.Tensor]:
        return [
            p.detach().clone()
            for _, _, model in fit(frames, [asked], tuning, embedder=None, seed=seed, stops=stops)
            for p in [next(model.head.out.parameters())]
        ][-1:]

    torch.testing.assert_close(weights(1, [12]), weights(1, [4, 8, 12]), rtol=0, atol=0)
    assert not torch.equal(weights(1, [12])[0], weights(2, [12])[0])


def test_unlabelled_frames_teach_nothing() -> None:
    frames, labels = world(frames=120)
    hidden = {
        name: np.where(np.arange(120) < 60, shown, UNLABELLED).astype(np.int8)
        for name, shown in labels.items()
    }
    spoilt = Frames(spans=frames.spans, arrays={"z": frames.arrays["z"].copy()})
    for first, end in spoilt.spans.values():
        spoilt.arrays["z"][first + 60 : end] = 1e6
    tuning = Tuning(head={"name": "linear"}, steps=60, window=20, batch=8, lr=0.01)
    asked = problem(hidden)
    ((_, _, model),) = fit(frames, [asked], tuning, embedder=None, seed=0, stops=[60])
    scores = score_problems([asked], model.predict(frames, [asked], [asked.test]), [asked.test])
    assert scores.frames == 120, "two test videos with sixty labelled frames each"
    assert scores.macro_f1 > 0.9


def test_windows_never_cross_a_video_and_labels_stay_with_their_frames() -> None:
    labels = {"a": np.zeros(30, np.int8), "b": np.ones(500, np.int8), "c": np.full(90, 2, np.int8)}
    spans = {"a": (0, 30), "b": (30, 530), "c": (530, 620)}
    video = np.repeat([0, 1, 2], [30, 500, 90])
    z = np.stack([video, np.arange(620)], 1).astype(np.float32)
    windows = WindowSampler(
        Frames(spans=spans, arrays={"z": z}), [problem(labels, test=())], window=64
    )
    for seed in range(20):
        batch = windows.draw(np.random.default_rng(seed), 16)
        for row in range(16):
            valid = batch.valid_BT[row]
            assert len(batch.arrays["z"][row, valid, 0].unique()) == 1
        ((_, rows, shown),) = batch.labels
        truth = batch.arrays["z"][rows][..., 0].long()
        known = shown != UNLABELLED
        assert torch.equal(shown[known].long(), truth[known])
        assert torch.equal(known, batch.valid_BT[rows])


def test_class_weights_are_shares_to_a_power() -> None:
    labels = np.repeat(np.array([0, 1, 2], np.int8), [10, 30, 60])
    asked = Problem(
        name="p",
        task="t",
        classes=(*CLASSES, "never"),
        annotator="",
        overlapping=False,
        train={"v": labels},
        test={},
    )
    torch.testing.assert_close(class_weights(asked, 0.0), torch.tensor([1.0, 1, 1, 0]))
    torch.testing.assert_close(class_weights(asked, 1.0), torch.tensor([10 / 3, 10 / 9, 5 / 9, 0]))
    both = np.zeros((100, 2), np.int8)
    both[:20, 0], both[:50, 1] = 1, 1
    asked = Problem(
        name="p",
        task="t",
        classes=("sniff", "groom"),
        annotator="",
        overlapping=True,
        train={"v": both},
        test={},
    )
    torch.testing.assert_close(class_weights(asked, 1.0), torch.tensor([4.0, 1.0]))


def test_overlapping_behaviours_are_fitted_apart() -> None:
    draw = np.random.default_rng(0)
    both = (draw.random((2, 300, 2)) < 0.4).astype(np.int8)
    z = (both.reshape(600, 2) * 2.0 + draw.normal(0, 0.2, (600, 2))).astype(np.float32)
    asked = Problem(
        name="p",
        task="t",
        classes=("sniff", "groom"),
        annotator="",
        overlapping=True,
        train={"a": both[0]},
        test={"b": both[1]},
    )
    frames = Frames(spans={"a": (0, 300), "b": (300, 600)}, arrays={"z": z})
    tuning = Tuning(head={"name": "linear"}, steps=100, window=64, batch=8, lr=0.02)
    ((_, _, model),) = fit(frames, [asked], tuning, embedder=None, seed=0, stops=[100])
    scores = score_problems([asked], model.predict(frames, [asked], [asked.test]), [asked.test])
    assert validation_score(scores) > 0.95


def test_unknown_heads_and_settings_are_refused() -> None:
    with pytest.raises(BadInput, match="prototype, recurrent, stack, temporal"):
        build_head({"name": "magic"}, 8, [3])
    with pytest.raises(BadInput, match="unknown setting 'depth'"):
        build_head({"name": "linear", "depth": 3}, 8, [3])


def test_a_searched_key_that_does_not_exist_is_refused() -> None:
    with pytest.raises(BadInput, match="unknown key 'learning_rate'"):
        Tuning().with_choice({"learning_rate": 0.1})
    with pytest.raises(BadInput, match="list of choices"):
        Tuning(search={"lr": {"low": 1, "high": 0.1}})
    chosen = Tuning().with_choice({"head": {"name": "linear"}, "head.dropout": 0.1, "lr": 0.5})
    assert chosen.head == {"name": "linear", "dropout": 0.1}
    assert chosen.lr == 0.5


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("overlap", [False, True])
def test_prototypes_are_class_means_and_scores_are_distances_to_them(
    distance: str, overlap: bool
) -> None:
    frames, labels = world(videos=3, frames=60)
    asked = problem(labels, test=("v2",))
    if overlap:
        both = {
            name: np.stack([shown == 0, shown != 2], 1).astype(np.int8)
            for name, shown in labels.items()
        }
        asked = replace(problem(both, test=("v2",)), overlapping=True, classes=("a", "b"))
    tuning = Tuning(head={"name": "prototype", "distance": distance, "temperature": 0.5}, window=30)
    ((_, _, model),) = fit(frames, [asked], tuning, embedder=None, seed=0, stops=[10])
    z = (frames.arrays["z"] - model.head.mean_D.numpy()) * model.head.scale_D.numpy()
    first, end = frames.spans["v2"]
    shown = np.concatenate([asked.train[name] for name in ("v0", "v1")])

    def far(mean: np.ndarray) -> np.ndarray:
        if distance == "euclidean":
            return ((z[first:end] - mean) ** 2).mean(1)
        return 1 - z[first:end] @ mean / np.linalg.norm(mean) / np.linalg.norm(z[first:end], axis=1)

    chosen = shown.T == 1 if overlap else np.stack([shown == c for c in range(3)])
    score = (
        np.stack(
            [far(z[:120][~rows].mean(0)) * overlap - far(z[:120][rows].mean(0)) for rows in chosen],
            1,
        )
        / 0.5
    )
    expected = (
        1 / (1 + np.exp(-score)) if overlap else np.exp(score) / np.exp(score).sum(1, keepdims=True)
    )
    (found,) = model.predict(frames, [asked], [["v2"]])
    np.testing.assert_allclose(found["v2"], expected, atol=1e-4)


def test_a_class_without_a_training_frame_is_never_the_nearest() -> None:
    frames, labels = world(videos=3, frames=60)
    asked = problem({name: np.minimum(shown, 1) for name, shown in labels.items()}, test=("v2",))
    ((_, _, model),) = fit(
        frames,
        [asked],
        Tuning(head={"name": "prototype"}, window=30),
        embedder=None,
        seed=0,
        stops=[1],
    )
    (found,) = model.predict(frames, [asked], [["v2"]])
    assert (found["v2"][:, 2] == 0).all()
    assert np.isfinite(found["v2"]).all()
    with pytest.raises(BadInput, match="it must be above 0"):
        build_head({"name": "prototype", "temperature": 0.0}, 8, [3])
    with pytest.raises(BadInput, match="dropout is 1"):
        build_head({"name": "mlp", "dropout": 1}, 8, [3])


HEADS = [
    {"name": name, **({"steps": 3} if name in ("temporal_wide", "recurrent") else {})}
    for name in names("finetune.heads")
]
WIDE = {"name": "temporal_wide", "hz": 5.0, "blocks": 3, "steps": 3, "crop": 20, "networks": 1}
LSTM = {"name": "recurrent", "hz": 5.0, "steps": 3, "crop": 11, "networks": 1}


@pytest.mark.parametrize("head", [*HEADS, WIDE, LSTM, {"name": "stack", "members": [WIDE, LSTM]}])
def test_a_long_video_labelled_stretch_by_stretch_is_labelled_as_at_once(
    head: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, labels = world(videos=3, frames=600)
    asked = problem(labels, test=("v2",))
    *_, (_, _, model) = fit(frames, [asked], Tuning(head=head), embedder=None, seed=0, stops=[3])
    (at_once,) = model.predict(frames, [asked], [["v2"]])
    monkeypatch.setattr(fit_module, "ROWS_AT_ONCE", 17)
    z = model.read_embeddings(frames, "v2")
    parts = z.split([1, 40, 3, len(z) - 44])
    ((logits,),) = logits_of([model.head], parts, 600)
    np.testing.assert_allclose(logits.softmax(-1), at_once["v2"], atol=1e-5)


@pytest.mark.parametrize("name", names("finetune.heads"))
def test_frames_beyond_a_video_reach_no_other(name: str) -> None:
    head = build_head({"name": name}, 4, [3]).eval()
    z, valid = torch.randn(2, 40, 4), torch.ones(2, 40, dtype=torch.bool)
    valid[0, 25:] = False
    other = z.clone()
    other[0, 25:] = 1e6
    (one,), (two,) = head(z, valid), head(other, valid)
    torch.testing.assert_close(one[valid], two[valid])
    (whole,) = head(z[1:], valid[1:])
    torch.testing.assert_close(one[1:], whole)


def test_labels_without_their_meaning_leave_nothing_to_learn() -> None:
    frames, labels = world(videos=8, frames=600)
    (rolled,) = draw_budget([problem(labels)], videos=None, seed=0, permute=True)
    tuning = Tuning(head={"name": "linear"}, steps=100, window=64, batch=8, lr=0.01)
    maps = []
    for asked in (problem(labels), rolled):
        ((_, _, model),) = fit(frames, [asked], tuning, embedder=None, seed=0, stops=[100])
        maps.append(
            score_problems([asked], model.predict(frames, [asked], [asked.test]), [asked.test]).map
        )
    assert maps[0] > 0.95
    assert maps[1] < 0.6, "a third of the frames is any class"


def test_an_encoder_is_trained_along_or_its_prototypes_are_taken() -> None:
    pose = windows_of(MICE, batch=1, frames=240).pose
    embedder = embedder_of(MICE, "tcn", pose).eval()
    frames = Frames(
        spans={"v0": (0, 120), "v1": (120, 240)},
        arrays={
            "position": pose.position_BTMKX[0].numpy(),
            "confidence": pose.confidence_BTMK[0].numpy(),
        },
    )
    asked = problem(
        {name: np.arange(120).astype(np.int8) // 60 for name in ("v0", "v1")}, test=("v1",)
    )
    before = [p.clone() for p in embedder.parameters()]
    for name, moves in (("linear", True), ("prototype", False)):
        ((_, loss, model),) = fit(
            frames,
            [asked],
            Tuning(head={"name": name}, steps=2, window=150, batch=2),
            embedder=embedder,
            seed=0,
            stops=[2],
        )
        assert np.isfinite(loss) == moves
        assert model.embedder is not None
        assert moves == any(
            not torch.equal(p, q) for p, q in zip(before, model.embedder.parameters(), strict=True)
        )
        assert all(torch.equal(p, q) for p, q in zip(before, embedder.parameters(), strict=True)), (
            "a copy is trained"
        )
        (found,) = model.predict(frames, [asked], [["v1"]])
        assert found["v1"].shape == (120, 3)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"loss": 3}, "loss is 3; it must be"),
        ({"loss": {"gamma": 1}}, "loss needs a `name`"),
        ({"loss": "focal", "loss.gamma": 1}, "'loss' holds a value, not keys"),
        ({"balanced_sampling": 1.5}, "balanced_sampling is 1.5; it must lie in 0…1"),
        ({"soft_boundaries": 2.5}, "soft_boundaries is 2.5; it must be a whole number"),
        ({"class_weights": {"attack": -2}}, "that of attack is -2; it must not be negative"),
        ({"class_weights": {"attack": "many"}}, "class_weights is"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, object], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        Tuning().with_choice(settings)


@pytest.mark.parametrize(
    ("loss", "says"),
    [
        ("hinge", "there is no 'hinge'; there are: cross_entropy, focal"),
        ({"name": "focal", "gamma": -1.0}, "gamma is -1.0; it must be at least 0"),
        ({"name": "focal", "gamma": "much"}, "gamma is 'much'; it must be a number"),
        ({"name": "cross_entropy", "gamma": 1}, "unknown setting 'gamma'"),
    ],
)
def test_losses_that_cannot_be_are_refused_before_a_fit(loss: object, says: str) -> None:
    _, labels = world(frames=40)
    with pytest.raises(BadInput, match=says):
        initial_head([problem(labels)], Tuning().with_choice({"loss": loss}), 8)


@pytest.mark.parametrize(
    ("old", "new"),
    [("after", "postprocess_folds"), ("beside", "extra_features"), ("focal_gamma", "name: focal")],
)
def test_keys_that_were_renamed_are_refused_with_the_new_one(
    old: str, new: str, tmp_path: Path
) -> None:
    (tmp_path / "task.yaml").write_text(f"{old}: 1\n")
    with pytest.raises(BadInput, match=rf"'{old}' has been renamed: write .*{new}"):
        read(Tuning, str(tmp_path / "task.yaml"), TASKS, {})
    with pytest.raises(BadInput, match=rf"--set {old}=1: .*'{old}' has been renamed: .*{new}"):
        parse_overrides([f"{old}=1"], Tuning)
    with pytest.raises(BadInput, match=new):
        Tuning().with_choice({old: 1})


def test_settings_that_earlier_versions_saved_are_read() -> None:
    saved = plain(Tuning(postprocess_folds=2, extra_features=["clip"]))
    saved |= {
        "after": saved.pop("postprocess_folds"),
        "beside": saved.pop("extra_features"),
        "focal_gamma": 1.5,
    }
    new = saved_settings(saved, about="result.json")
    assert new == Tuning(postprocess_folds=2, extra_features=["clip"])
    focal = saved_settings(saved | {"loss": "focal"}, about="result.json")
    assert focal.loss == {"name": "focal", "gamma": 1.5}


@pytest.mark.parametrize("task", sorted(path.stem for path in TASKS.glob("*.yaml")))
@pytest.mark.parametrize("name", names("finetune.heads"))
def test_any_head_can_be_asked_for_by_its_name_alone(task: str, name: str) -> None:
    build_head(read(Tuning, task, TASKS, {"head.name": name}).head, 8, [3])
