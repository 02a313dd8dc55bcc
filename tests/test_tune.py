"""Tuning end to end on a real Ray, with a real sqlite store of MLflow."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import average_precision_score, f1_score

import finetune.run
import pretrain.run
from finetune.labels.problems import Problem
from finetune.report.model_folder import load_model
from finetune.search.tune import settings_of_first_seed
from pretrain.runs import paths

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TINY = [
    "--set",
    "epochs=1",
    "--set",
    "batch=32",
    "--set",
    "encoder.width=16",
    "--set",
    "encoder.layers=2",
    "--set",
    "cpus=4",
]


@pytest.fixture(scope="module")
def arena(own_places: None) -> str:
    return paths.default_store()


@pytest.fixture(scope="module")
def encoder(ray_here: None, arena: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "pretrained"
    pretrain.run.main(["--recipe", "quickstart", "--data", arena, "--out", str(out), *TINY])
    return out


def run(encoder: Path | str, task: str, arena: str, out: Path, *more: str) -> dict[str, object]:
    finetune.run.main(
        [
            "--encoder",
            str(encoder),
            "--task",
            task,
            "--data",
            arena,
            "--out",
            str(out),
            "--set",
            "steps=12",
            "--set",
            "evaluations=2",
            "--set",
            "window=64",
            *more,
        ]
    )
    return dict(json.loads((out / "result.json").read_text()))


def test_search_finds_and_scores_and_leaves_everything(
    encoder: Path, arena: str, caplog: pytest.LogCaptureFixture
) -> None:
    out = encoder.parent / "task1"
    result = run(encoder, "classic_classification", arena, out, "--trials", "3", "--seeds", "2")
    assert len(result["search"]["trials"]) == 3
    assert result["search"]["score"] == max(trial["score"] for trial in result["search"]["trials"])
    page = (out / "report.html").read_text()
    assert f"{result['macro_f1']:.3f} ± {result['macro_f1_std']:.3f}" in page
    assert "most uncertain" in page
    assert "cannot be written" not in caplog.text
    for name in ("confusion.png", "ethogram.png", "scores.txt"):
        assert (out / name).stat().st_size > 100
    _recompute(out, result)
    card = (out / "model" / "README.md").read_text()
    assert f"{result['macro_f1']:.3f} ± {result['macro_f1_std']:.3f}" in card
    assert "transductive: the encoder was pretrained on the poses" in card
    _runs_in_mlflow(encoder.parent, "finetune classic_classification", children=3 + 2)
    model, problems = load_model(out / "model" / "seed-42")
    assert problems[0]["classes"] == ["attack", "investigation", "mount", "other"]
    assert model.embedder is not None


def _recompute(out: Path, result: dict[str, object]) -> None:
    """Every score of result.json from the predictions alone, by scikit-learn."""
    f1s, maps = [], []
    for seed in (42, 43):
        table = pq.read_table(out / "predictions" / f"seed-{seed}.parquet")
        classes = [name[2:] for name in table.column_names if name.startswith("p_")]
        p = np.stack([table[f"p_{name}"].to_numpy() for name in classes], 1)
        label = np.array(table["label"].to_pylist())
        counted = [name for name in classes if name != "other"]
        chosen = np.array(classes)[p.argmax(1)]
        f1s.append(np.mean([f1_score(label == name, chosen == name) for name in counted]))
        maps.append(
            np.mean(
                [
                    average_precision_score(label == name, p[:, classes.index(name)])
                    for name in counted
                ]
            )
        )
    assert result["macro_f1"] == pytest.approx(np.mean(f1s), abs=1e-6)
    assert result["macro_f1_std"] == pytest.approx(np.std(f1s), abs=1e-6)
    assert result["map"] == pytest.approx(np.mean(maps), abs=1e-6)
    assert result["map_std"] == pytest.approx(np.std(maps), abs=1e-6)


def _runs_in_mlflow(folder: Path, experiment: str, *, children: int) -> None:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    named = client.get_experiment_by_name(experiment)
    runs = client.search_runs([named.experiment_id])
    parents = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    assert len(parents) == 1
    assert (
        sum(r.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id for r in runs)
        == children
    )
    assert all(r.info.status == "FINISHED" for r in runs)
    metrics = parents[0].data.metrics
    assert {"macro_f1", "map", "chance_map", "f1/attack", "ap/attack", "recall/mount"} <= {
        name.removeprefix("test/") for name in metrics if name.startswith("test/")
    }
    assert {"validation/macro_f1", "validation/map"} <= set(metrics)
    assert metrics["test/macro_f1"] == pytest.approx(
        np.mean([r.data.metrics["test/macro_f1"] for r in runs if "seed" in r.data.params])
    )
    assert parents[0].info.run_name.startswith("tcn contrastive, all videos, ")
    assert {"confusion.png", "ethogram.png", "report.html"} <= {
        artifact.path for artifact in client.list_artifacts(parents[0].info.run_id)
    }


@pytest.mark.parametrize(
    ("task", "frozen"), [("annotation_style_transfer", "false"), ("new_behaviors", "true")]
)
def test_tasks_of_several_problems_score_each_and_then_the_mean(
    encoder: Path, arena: str, task: str, frozen: str
) -> None:
    out = encoder.parent / f"{task}-{frozen}"
    result = run(
        encoder,
        task,
        arena,
        out,
        "--trials",
        "1",
        "--seeds",
        "1",
        "--set",
        f"frozen={frozen}",
        "--set",
        "steps=3",
        "--set",
        "postprocess_folds=1",
    )
    assert len(result["problems"]) == {"annotation_style_transfer": 5, "new_behaviors": 7}[task]
    assert result["map"] == pytest.approx(
        np.mean([problem["map"] for problem in result["problems"].values()])
    )
    assert [path.name for path in (out / "predictions").glob("*.parquet")] == ["seed-42.parquet"], (
        "all problems in one file"
    )


def test_random_weights_and_hand_made_features_go_the_same_way(encoder: Path, arena: str) -> None:
    for control in ("none", "handmade"):
        out = encoder.parent / f"control-{control}"
        result = run(
            control,
            "classic_classification",
            arena,
            out,
            "--trials",
            "1",
            "--seeds",
            "1",
            "--set",
            "steps=3",
            "--set",
            "postprocess_folds=0",
            "--videos",
            "2",
        )
        assert result["encoder"]["kind"] in ("random weights", "hand-made features")
        assert len(result["videos_drawn"]["42"]["classic_classification"]) == 2


def test_a_search_on_one_seed_s_videos_is_said(encoder: Path, arena: str) -> None:
    """Or every seed searches on its own, and the trials' runs can be told apart."""
    words = ["--videos", "2", "--seeds", "2", "--trials", "2", "--set", "search_from=1"]
    words += ["--set", "postprocess_folds=0", "--set", "search={lr: [0.001, 0.01]}"]
    words += ["--set", "head={name: linear}"]
    task, out = "classic_classification", encoder.parent
    once = run(encoder, task, arena, out / "once", *words)
    each = run(encoder, task, arena, out / "each", *words, "--set", "search_each_seed=true")
    said = "settings were chosen on the labelled videos of seed 42; seeds 43 drew other videos"
    assert once["videos_drawn"]["42"] != once["videos_drawn"]["43"]
    assert any(note.startswith(said) for note in once["notes"])
    assert said in (out / "once" / "scores.txt").read_text(encoding="utf-8")
    assert (once["search"]["seed"], once["searches"]) == (42, None)
    assert not any("settings were chosen" in note for note in each["notes"])
    assert each["searches"]["42"]["trials"] == once["search"]["trials"]
    assert len(each["searches"]["43"]["trials"]) == 2
    assert each["searches"]["43"]["trials"] != each["searches"]["42"]["trials"]
    records = (out / "each" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    names = {record.get("name") for record in map(json.loads, records)}
    assert {"trial 0", "trial 1", "seed 43, trial 0", "seed 43, trial 1"} <= names


def test_a_search_with_every_label_needs_no_words() -> None:
    def budget(*videos: str) -> list[Problem]:
        labels = np.zeros(3, np.int8)
        problem = Problem(
            name="t",
            task="t",
            classes=("a", "b"),
            annotator="",
            overlapping=False,
            train=dict.fromkeys(videos, labels),
            test={},
        )
        return [problem]

    searched, as_they_are = {"trials": [{"score": 1.0}]}, {"trials": []}

    def notes(one: dict[str, object], *budgets: list[Problem]) -> list[str]:
        seeds = range(42, 42 + len(budgets))
        return settings_of_first_seed(
            dict.fromkeys(seeds, one), dict(zip(seeds, budgets, strict=True)), 42
        )

    assert notes(searched, budget("a", "b"), budget("b", "a")) == []
    assert notes(as_they_are, budget("a"), budget("b")) == []
    assert (
        "seeds 43, 45 drew"
        in notes(searched, budget("a"), budget("b"), budget("a"), budget("c"))[0]
    )
