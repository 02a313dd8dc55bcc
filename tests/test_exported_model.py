"""A whole fitted model as ONNX and as a program of torch: the probabilities of ``predict``, for
every head there is, alone or in the stack, on other lengths than the traced one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from worlds import MICE, wander

from finetune.export import main
from finetune.heads import LabelledVideo, build_head
from finetune.inference.model import open_model
from finetune.labels.problems import Problem
from finetune.postprocess.calibrations.temperature import Temperature
from finetune.postprocess.postprocessing import Postprocessing
from finetune.report.model_folder import save_model
from pretrain.components import names
from pretrain.encoders import Embedder, build_embedder
from pretrain.errors import BadInput
from pretrain.train.embed_video import as_pose, embed_video

pytestmark = pytest.mark.slow
MEMBERS: list[dict[str, Any]] = [
    {"name": "boosted", "trees": 8, "seeds": 1},
    {"name": "temporal_wide", "steps": 5, "blocks": 2, "crop": 60, "networks": 1},
]
SMALL: dict[str, dict[str, Any]] = {
    # torch.export goes through every step of a window
    "recurrent": {"steps": 5, "crop": 20, "networks": 1, "width": 16},
    "stack": {"members": MEMBERS},
}
OF_RANKS = "logistic"
"""Reads ranks: rounding may move a number to the next."""
# An exclusive label set, one of a single pair, and acts that refine a class of the first.
PROBLEMS = [
    ("task", ("attack", "sniff", "other"), False, None),
    ("pair", ("rear", "other"), False, None),
    ("acts", ("bite", "kick"), True, ("task", "attack")),
]


def poses(frames: int, seed: int) -> dict[str, torch.Tensor]:
    """Two mice, unseen for a second (which is bridged) and for two, and at the end."""
    position, confidence = wander(MICE, frames, seed=seed)
    for start, stop in ((40, 70), (90, 150), (frames - 31, frames)):
        position[start:stop] = np.nan
    confidence[np.isnan(position).any(-1)] = 0
    return {"position": torch.from_numpy(position), "confidence": torch.from_numpy(confidence)}


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    settings = {"groups": ["posture"], "lags": [2]}
    torch.manual_seed(7)
    embedder = build_embedder(
        MICE, features=settings, encoder={"name": "tcn", "width": 24, "layers": 2}
    )
    embedder.features.fit(as_pose({k: v[None] for k, v in poses(400, 1).items()}))
    return embedder.eval()


def saved_model(folder: Path, embedder: Embedder, head_settings: dict[str, Any]) -> None:
    """Fitted to labels that are a coarse function of the poses."""
    problems = [
        Problem(
            name=name,
            task=name,
            classes=classes,
            annotator="",
            overlapping=overlapping,
            refines=refines,
            train={},
            test={},
        )
        for name, classes, overlapping, refines in PROBLEMS
    ]
    torch.manual_seed(0)
    head = build_head(head_settings, embedder.dim, [len(p.classes) for p in problems])
    z_TD = embed_video(embedder, poses(600, 2))[:: head.stride]
    if head.by_gradient:
        head.standardise(z_TD)
        for out in head.out:
            torch.nn.init.normal_(out.weight, std=1.0)
    else:
        near_T = z_TD[:, :20].sum(1).argsort().argsort()
        for p, problem in enumerate(problems):
            number = len(problem.classes)
            shown = (near_T * number // len(z_TD))[:, None] == torch.arange(number)
            video = LabelledVideo(z_TD, shown.to(torch.int8))
            head.fit_videos(p, [video], overlapping=problem.overlapping, seed=0)
    steps = [
        Postprocessing(
            calibration=Temperature(temperature=1.7, overlapping=p.overlapping),
            overlapping=p.overlapping,
        )
        for p in problems
    ]
    save_model(
        folder,
        head.eval(),
        embedder,
        problems,
        head_settings=head_settings,
        made_by={},
        postprocessing=steps,
    )


@pytest.mark.parametrize(
    "name", sorted(set(names("finetune.heads")) - {str(one["name"]) for one in MEMBERS})
)
def test_what_is_written_gives_what_predict_gives(
    name: str, embedder: Embedder, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    head = {"name": name, **SMALL.get(name, {})}
    saved_model(tmp_path / "model" / "seed-42", embedder, head)
    main([str(tmp_path), "--onnx", str(tmp_path / "m.onnx")])
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    said = json.loads(session.get_modelmeta().custom_metadata_map["ethoray"])
    assert said["problems"] == {name: list(classes) for name, classes, *_ in PROBLEMS}
    assert [output.name for output in session.get_outputs()] == ["z_BTD", "task", "pair", "acts"]
    pt2 = None
    if name == "stack":
        main([str(tmp_path), "--pt2", str(tmp_path / "m.pt2")])
        more = {"ethoray.json": ""}
        pt2 = torch.export.load(tmp_path / "m.pt2", extra_files=more).module()
        assert json.loads(more["ethoray.json"]) == said
    model = open_model(str(tmp_path))
    for frames in (203, 700):
        arrays = poses(frames, seed=frames)
        inputs = {f"{k}_BTMK{'X' * (k == 'position')}": v[None] for k, v in arrays.items()}
        given = session.run(None, {k: v.numpy() for k, v in inputs.items()})
        for prediction, theirs in zip(model.predict(arrays), given[1:], strict=True):
            ours = prediction.probabilities_TC
            alike = np.isclose(theirs[0], ours, atol=1e-4, equal_nan=True)
            assert alike.mean() >= (0.98 if name == OF_RANKS else 1)
            np.testing.assert_allclose(theirs[0], ours, atol=0.05)
            assert np.isnan(ours[90:150]).all()
            assert np.nanstd(ours, axis=0).min() > 1e-3, "nothing to compare"
        if pt2 is not None:
            for one, other in zip(pt2(*inputs.values()), given, strict=True):
                np.testing.assert_allclose(one.detach().numpy(), other, atol=0.05)


def test_what_cannot_be_written_is_told_in_a_sentence(
    embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved_model(tmp_path / "model" / "seed-42", embedder, {"name": "linear"})
    with pytest.raises(BadInput, match=r"end in \.pt2"):
        main([str(tmp_path), "--pt2", str(tmp_path / "m.onnx")])

    def follows_the_numbers(z: torch.Tensor, _: torch.Tensor) -> list[torch.Tensor]:
        return [z if z.mean() > 0 else -z]

    monkeypatch.setattr(
        "finetune.heads.linear.Linear.forward", lambda _, *x: follows_the_numbers(*x)
    )
    with pytest.raises(BadInput, match=r"tcn with head Linear cannot be written.*mlflow_model"):
        main([str(tmp_path), "--onnx", str(tmp_path / "m.onnx")])
    assert not (tmp_path / "m.onnx").exists()
