"""A fitted model and an encoder as MLflow's: loaded where nothing of ours is installed, served on
loopback, registered under an alias."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import screenshots
import torch
from worlds import MICE, embedder_of, wander

import finetune.predict
from finetune.heads import build_head
from finetune.labels.problems import Problem
from finetune.postprocess.postprocessing import Postprocessing
from finetune.postprocess.smoothers.moving import Moving
from finetune.report.model_folder import save_model
from pretrain.data.schema import Video
from pretrain.data.store_writer import StoreWriter
from pretrain.errors import BadInput
from pretrain.runs.mlflow_limits import check_registered_name
from pretrain.runs.mlflow_model import save_mlflow_model
from pretrain.runs.quiet_environment import MLFLOW
from pretrain.runs.tracked_run import open_tracking
from pretrain.train.embed_video import as_pose, embed_table, embed_video

LABELS, EMBEDS = "finetune.inference.served:label_table", "pretrain.train.embed_video:embed_table"
LOAD = """
import json, sys
import mlflow.pyfunc, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
table = pandas.read_json(sys.argv[2], orient="split")
made = model.predict(table)
import pretrain
told = {"from": pretrain.__file__, "ray": "ray" in sys.modules}
print(json.dumps(told | {"made": made.to_dict("list")}))
"""
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def poses() -> tuple[np.ndarray, np.ndarray]:
    """Two mice, unseen for three seconds in the middle; confidence as a store keeps it."""
    position, confidence = wander(MICE, 400, seed=9)
    confidence = (np.round(confidence * 255) / 255).astype(np.float32)
    position[150:240], confidence[150:240] = np.nan, 0
    return position, confidence


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, poses: tuple[np.ndarray, np.ndarray]) -> Path:
    folder = tmp_path_factory.mktemp("run") / "model"
    arrays = dict(zip(("position", "confidence"), map(torch.from_numpy, poses), strict=True))
    embedder = embedder_of(MICE, "tcn", as_pose({k: v[None, :150] for k, v in arrays.items()}))
    torch.manual_seed(0)
    head = build_head({"name": "linear"}, embedder.dim, [3])
    head.standardise(embed_video(embedder, arrays))
    torch.nn.init.normal_(head.out[0].weight, std=1.0)
    problem = Problem(
        name="task",
        task="task",
        classes=("attack", "sniff", "other"),
        annotator="",
        overlapping=False,
        train={},
        test={},
    )
    save_model(
        folder / "seed-42",
        head,
        embedder,
        [problem],
        head_settings={"name": "linear"},
        made_by={},
        postprocessing=[Postprocessing(smoother=Moving(frames=9))],
    )
    return folder


@pytest.fixture(scope="module")
def saved(model: Path) -> Path:
    path = model.parent / "mlflow_model"
    save_mlflow_model(path, model, opener=LABELS)
    assert not [file for file in path.rglob("*") if file.suffix in (".pkl", ".pyc")]
    return path


@pytest.fixture(scope="module")
def table(poses: tuple[np.ndarray, np.ndarray], saved: Path) -> Path:
    """The poses as the server takes them: a row a frame, null where a point is missing."""
    names = [
        *(f"{a}.{k}.{x}" for a in MICE.animals for k in MICE.keypoints for x in "xy"),
        *(f"{a}.{k}.confidence" for a in MICE.animals for k in MICE.keypoints),
    ]
    values = np.concatenate([array.reshape(len(array), -1) for array in poses], axis=1)
    rows = [[None if np.isnan(x) else float(x) for x in row] for row in values]
    path = saved.parent / "table.json"
    path.write_text(json.dumps({"columns": names, "data": rows}))
    return path


@pytest.fixture(scope="module")
def written(model: Path, poses: tuple[np.ndarray, np.ndarray]) -> list[dict[str, str]]:
    """What ``predict.py`` writes of the same poses."""
    store = model.parent / "store"
    with StoreWriter(store, MICE, origin="") as writer:
        writer.add(Video(name="m1", position_TMKX=poses[0], confidence_TMK=poses[1]))
    out = model.parent / "predicted"
    finetune.predict.main(["--model", str(model), "--poses", str(store), "--out", str(out)])
    with (out / "csv" / "m1.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def agree(made: dict[str, list[object]], written: list[dict[str, str]]) -> None:
    assert made["label"] == [row["label"] for row in written]
    assert "" in made["label"], "the gap was labelled"
    for name in ("p_attack", "p_sniff", "p_other"):
        theirs = [float(row[name] or "nan") for row in written]
        ours = [np.nan if value is None else value for value in made[name]]
        np.testing.assert_allclose(np.array(ours, float), theirs, atol=1e-5)


def test_a_clean_process_without_ray_loads_what_predict_writes(
    saved: Path, table: Path, written: list[dict[str, str]], tmp_path: Path
) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | MLFLOW
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(saved), str(table)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["from"].startswith(str(saved)), "it is not the model's own code"
    assert not told["ray"]
    agree(told["made"], written)


@pytest.fixture
def server(saved: Path) -> Iterator[str]:
    port = screenshots.free_port()
    words = ["models", "serve", "-m", str(saved), "--env-manager", "local", "-h", "127.0.0.1"]
    address, log = f"http://127.0.0.1:{port}", saved.parent / "server.log"
    with screenshots.running([*words, "-p", str(port)], f"{address}/ping", log):
        yield f"{address}/invocations"


def test_a_server_answers_poses_with_what_predict_writes(
    server: str, table: Path, written: list[dict[str, str]]
) -> None:
    body = json.dumps({"dataframe_split": json.loads(table.read_text())}).encode()
    request = urllib.request.Request(server, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        rows = json.load(answer)["predictions"]
    agree({name: [row[name] for row in rows] for name in rows[0]}, written)


def test_an_encoder_is_kept_once_registered_and_found_by_its_alias(
    model: Path, tmp_path: Path
) -> None:
    import mlflow

    tracking = open_tracking(None, runs_folder=tmp_path)
    with tracking.start("pretrain", "one", folder=tmp_path / "one") as run:
        for _ in range(2):  # as when a server was away in between
            run.log_model(model / "seed-42", opener=EMBEDS, register="mice@best")
            assert run.sender.drain(30) == 0
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (found,) = client.search_logged_models([client.get_run(run.run_id).info.experiment_id])
    assert found.source_run_id == run.run_id
    (version,) = client.search_model_versions("name = 'mice'")
    assert (version.run_id, client.get_model_version_by_alias("mice", "best").version) == (
        run.run_id,
        version.version,
    )
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    opened = mlflow.pyfunc.load_model("models:/mice@best")
    example = opened.input_example
    ours = embed_table(str(model / "seed-42"))({name: example[name] for name in example})
    theirs = opened.predict(example)
    assert list(theirs) == list(ours)
    np.testing.assert_allclose(theirs.to_numpy(), np.stack(list(ours.values()), 1), atol=1e-5)
    assert len(opened.metadata.signature.inputs.input_names()) == 14 * 3


def test_what_cannot_be_a_table_of_poses_is_refused(model: Path) -> None:
    table = embed_table(str(model / "seed-42"))
    example = table.example()
    gone = next(iter(example))
    with pytest.raises(BadInput, match=gone.replace(".", r"\.")):
        table({name: values for name, values in example.items() if name != gone})


@pytest.mark.parametrize("name", ["a/b", "mice@", "mice@v1", "it's", "two words", "a@b@c", ""])
def test_names_that_the_registry_would_refuse(name: str) -> None:
    with pytest.raises(BadInput, match="NAME@ALIAS"):
        check_registered_name(name)
