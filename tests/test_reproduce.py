"""The whole table, with small networks, end to end on a real Ray; and going on with one that was
interrupted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recompute import predictions

import finetune.reproduce
from finetune.fit.fit import score_problems
from finetune.labels.problems import Problem
from finetune.metrics.frame_metrics import over_seeds
from finetune.paper.baselines import build_baseline, published_network
from finetune.paper.fit import label_videos, read_inputs
from finetune.paper.row_folder import RowFolder
from pretrain.arena.plan import recordings
from pretrain.arena.write import ORIGIN, arena
from pretrain.data.schema import CALMS21
from pretrain.data.store import Store
from pretrain.data.store_writer import StoreWriter
from pretrain.errors import BadInput
from pretrain.readers.annotations import write_labels

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TINY = [
    "conv1d.widths=[4,4,4]",
    "conv1d_augmented.widths=[4,4,4]",
    "joint.window=64",
    "joint.cpc.horizons=[8]",
    "joint.encoder.width=8",
    "joint.encoder.context_width=8",
    "joint.encoder.contexter=1",
    "joint.members=2",
    "joint.epochs=2",
]
SMALL = [
    "--seeds",
    "2",
    "--epochs-share",
    "0.002",
    *(word for pair in TINY for word in ("--set", pair)),
]
ROWS = [
    "task1_conv1d",
    "task1_conv1d_features",
    "task2_zero_shot",
    "task2_transfer",
    "task3_transfer",
    "joint_inductive",
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An arena with 32 external features, like the task-programming ones."""
    path = tmp_path_factory.mktemp("arena") / "store"
    draw, labels = np.random.default_rng(0), []
    with StoreWriter(path, CALMS21, origin=ORIGIN) as writer:
        for video, noted in arena(recordings(15_000)):
            features = draw.normal(size=(len(video.position_TMKX), 32)).astype(np.float32)
            writer.add(replace(video, features={"task_programming": features}))
            labels += noted
        write_labels(writer, labels)
    return str(path)


def results(out: Path) -> dict[str, dict[str, object]]:
    return {
        path.parent.name: json.loads(path.read_text())
        for path in (out / "rows").glob("*/result.json")
    }


def problem_of(about: dict[str, Any], task: str) -> Problem:
    classes, overlapping = tuple(about["classes"]), about["overlapping"]
    return Problem(
        name=about["name"],
        task=task,
        classes=classes,
        annotator="",
        overlapping=overlapping,
        train={},
        test={},
    )


def test_the_whole_table_from_start_to_end(
    ray_here: None, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "paper"
    finetune.reproduce.main(["--data", store, "--out", str(out), *SMALL, "--rows", *ROWS])
    rows = results(out)
    assert set(rows) == {*ROWS, "task1_conv1d_augmented"}
    assert (out / "table.png").read_bytes().startswith(b"\x89PNG")
    assert "NOT COMPARABLE" in capsys.readouterr().out
    for name, row in rows.items():
        for task, scores in row["tasks"].items():
            by_seed = {}
            for seed in (42, 43):
                path = out / "rows" / name / task / "predictions" / f"seed-{seed}.parquet"
                problems, labels, probabilities = zip(
                    *(
                        (problem_of(about, task), truth, p)
                        for about, truth, p, _ in predictions(path)
                    ),
                    strict=True,
                )
                by_seed[seed] = score_problems(problems, probabilities, labels)
            again = over_seeds(by_seed)
            assert (
                len(again.problems)
                == {
                    "classic_classification": 0,
                    "annotation_style_transfer": 5,
                    "new_behaviors": 7,
                }[task]
            )
            for key in ("macro_f1", "macro_f1_std", "map", "map_std", "chance_map"):
                assert scores[key] == pytest.approx(getattr(again, key), abs=1e-9), (
                    name,
                    task,
                    key,
                )
    assert {"classic_classification", "annotation_style_transfer", "new_behaviors"} == set(
        rows["joint_inductive"]["tasks"]
    )
    assert not list(out.rglob("*.npz")), "probabilities of finished seeds are kept twice"

    # Zero-shot is Task 1's network of the same seed, as it is.
    zero, transferred = (
        next(
            predictions(
                out
                / "rows"
                / name
                / "annotation_style_transfer"
                / "predictions"
                / "seed-43.parquet"
            )
        )[2]
        for name in ("task2_zero_shot", "task2_transfer")
    )
    settings = published_network("conv1d_augmented", {"widths": [4, 4, 4]})
    network = build_baseline(settings, inputs=28, classes=4)
    weights = RowFolder(out, "task1_conv1d_augmented").weights(43)
    network.load_state_dict({key: torch.tensor(value) for key, value in weights.items()})
    video = sorted(zero)[0]
    expected = label_videos(network, read_inputs(Store(store), [video]), [video], settings)[video]
    np.testing.assert_allclose(zero[video], expected, atol=1e-6)
    assert not np.allclose(transferred[video], expected, atol=1e-4)

    # A row that is gone is run again, to the same end; the others are not touched.
    before = {name: (out / "rows" / name / "result.json").stat().st_mtime_ns for name in rows}
    seed = out / "rows" / "task1_conv1d" / "classic_classification" / "seed-43.json"
    (out / "rows" / "task1_conv1d" / "result.json").unlink()
    seed.unlink()
    finetune.reproduce.main(
        [
            "--data",
            store,
            "--out",
            str(out),
            *SMALL,
            "--rows",
            "task1_conv1d",
            "joint_inductive",
            "--resume",
        ]
    )
    assert results(out)["task1_conv1d"]["tasks"] == rows["task1_conv1d"]["tasks"]
    after = {name: (out / "rows" / name / "result.json").stat().st_mtime_ns for name in rows}
    assert {name for name in rows if before[name] != after[name]} == {"task1_conv1d"}
    with pytest.raises(BadInput, match="begun with other settings"):
        finetune.reproduce.main(
            ["--data", store, "--out", str(out), *SMALL, "--seeds", "3", "--resume"]
        )


def test_the_joint_model_alone_and_with_what_was_asked_for(
    ray_here: None, store: str, tmp_path: Path
) -> None:
    words = [word for pair in TINY if pair.startswith("joint.") for word in ("--set", pair)]
    finetune.reproduce.main(
        [
            "--data",
            store,
            "--out",
            str(tmp_path / "joint"),
            "--rows",
            "joint_transductive",
            "--seeds",
            "1",
            "--epochs-share",
            "0.002",
            *words,
            "--set",
            "joint.members=1",
        ]
    )
    ((name, row),) = results(tmp_path / "joint").items()
    assert name == "joint_transductive"
    assert "TRANSDUCTIVE" in row["title"]
    assert "TRANSDUCTIVE" in (tmp_path / "joint" / "table.md").read_text(encoding="utf-8")


def test_what_is_wrong_is_said_before_anything_starts(store: str, tmp_path: Path) -> None:
    for words, error in (
        (["--rows", "task9"], "there is no row 'task9'"),
        (["--set", "conv9.epochs=1"], "files are: "),
        (["--seeds", "0"], "--seeds is 0"),
        (["--epochs-share", "2"], "--epochs-share 2"),
        (["--rows", "encoder", "--encoder"], "no --encoder was given"),
    ):
        with pytest.raises(BadInput, match=error):
            finetune.reproduce.main(["--data", store, "--out", str(tmp_path / "none"), *words])
    assert not (tmp_path / "none").exists()
    with pytest.raises(BadInput, match="--data is required"):
        finetune.reproduce.main([])
