"""The examples of docs/python.md, run as they stand."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ethoray
from finetune.heads import build_head
from finetune.labels.problems import problems
from finetune.report.model_folder import save_model
from pretrain import prepare
from pretrain.config import RECIPES, Recipe, read
from pretrain.data.schema import Video
from pretrain.data.store import Store
from pretrain.train.checkpoint import save_encoder
from pretrain.train.in_memory import learn_in_memory

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "python.md").read_text(encoding="utf-8")
TASK = "classic_classification"


@pytest.fixture(scope="module")
def folder(own_places: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the page's commands leave, made in seconds: simulated mice, an encoder that learned for
    a second, a linear classifier on its embeddings, and a track file."""
    folder = tmp_path_factory.mktemp("notebook")
    prepare.main(["arena", "--out", str(folder / "stores" / "mice"), "--frames", "15000"])
    store = Store(folder / "stores" / "mice")
    recipe = read(Recipe, "quickstart", RECIPES, {})
    embedder, _ = learn_in_memory(recipe, store, seconds=1.0)
    save_encoder(folder / "runs" / "mine", embedder, made_by={})
    (problem,) = problems(store, TASK)
    encoder = ethoray.load_encoder(folder / "runs" / "mine")
    embedded, labels = [], []
    for name, labels_T in problem.train.items():
        video = store.read_video(name)
        embedded.append(encoder.embed(video.position_TMKX, video.confidence_TMK))
        labels.append(labels_T)
    z_ND, labels_N = torch.tensor(np.concatenate(embedded)), torch.tensor(np.concatenate(labels))
    head = build_head({"name": "linear"}, embedder.dim, [len(problem.classes)])
    head.standardise(z_ND)
    fit_linear(head, z_ND, labels_N.long())
    save_model(
        folder / "runs" / "task1" / "model" / "seed-42",
        head,
        embedder,
        [problem],
        head_settings={"name": "linear"},
        made_by={},
    )
    video = store.read_video(store.videos[0]["name"])
    (folder / "new").mkdir()
    names = ["snout", *store.schema.keypoints[1:]]
    write_deeplabcut(folder / "new" / "m1.csv", video, store.schema.animals, names, frames=300)
    return folder


def write_deeplabcut(
    path: Path, video: Video, animals: Sequence[str], keypoints: Sequence[str], *, frames: int
) -> None:
    columns = list(itertools.product(animals, keypoints, ("x", "y", "likelihood")))
    rows = [["scorer", *["net"] * len(columns)]]
    for i, name in enumerate(("individuals", "bodyparts", "coords")):
        rows.append([name, *(column[i] for column in columns)])
    values = np.concatenate([video.position_TMKX, video.confidence_TMK[..., None]], axis=3)
    for t, numbers in enumerate(values[:frames].reshape(frames, -1).tolist()):
        rows.append([str(t), *("" if math.isnan(x) else f"{x:.3f}" for x in numbers)])
    path.write_text("".join(",".join(row) + "\n" for row in rows), encoding="utf-8")


def fit_linear(head: Any, z_ND: torch.Tensor, labels_N: torch.Tensor) -> None:
    optimiser = torch.optim.Adam(head.parameters(), lr=0.05)
    valid = torch.ones(1, len(z_ND), dtype=torch.bool)
    for _ in range(60):
        (logits,) = head(z_ND[None], valid)
        loss = torch.nn.functional.cross_entropy(logits[0], labels_N, ignore_index=-1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


@pytest.mark.slow
def test_the_examples_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 8
    notebook: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), notebook)
    said = capsys.readouterr().out
    assert "attack" in said
    assert " px apart" in said
    assert notebook["tracks"].keypoints == notebook["store"].schema.keypoints
    assert notebook["z_TD"].shape == (len(notebook["video"].position_TMKX), notebook["encoder"].dim)
    assert len(notebook["labels"]) == len(notebook["z_new_TD"]) == 359, "300 frames, at 25 to 30"


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MPLBACKEND", "agg")
    cells = json.loads((DOCS / "tour.ipynb").read_text(encoding="utf-8"))["cells"]
    notebook: dict[str, Any] = {}
    for cell in (cell for cell in cells if cell["cell_type"] == "code"):
        assert not cell["outputs"], "outputs are not kept: they would not be those of this version"
        exec(compile("".join(cell["source"]), "docs/tour.ipynb", "exec"), notebook)
    assert "most alike" in capsys.readouterr().out
    pyplot = notebook["plt"]
    assert len(pyplot.get_fignums()) == 3
    pyplot.close("all")


@pytest.mark.slow
def test_the_model_of_the_examples_labels_what_it_learned(folder: Path) -> None:
    store = Store(folder / "stores" / "mice")
    model = ethoray.load_model(folder / "runs" / "task1")
    (problem,) = problems(store, TASK)
    assert model.classes == problem.classes
    right = total = 0
    for name, labels_T in problem.train.items():
        video = store.read_video(name)
        labels, _ = model.predict(video.position_TMKX, video.confidence_TMK)
        right += int((labels == labels_T)[labels_T >= 0].sum())
        total += int((labels_T >= 0).sum())
    most = max(np.mean(np.concatenate(list(problem.train.values())) == c) for c in range(4))
    assert right / total > most + 0.02, "no better than the commonest class"


def test_the_page_names_everything_that_there_is() -> None:
    for name in ethoray.__all__:
        if name not in ("Encoder", "Model"):
            assert f"ethoray.{name}" in PAGE or f"{name}(" in PAGE, name
