"""Searches on a real Ray: one that is killed and goes on, several at once on one MLflow store, what
trials share."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.storages.journal import JournalFileBackend

import finetune.run
from finetune.fit.frames import Frames, embed
from finetune.search import ray_tune
from finetune.search.ray_jobs import run_jobs
from finetune.search.read_frames import embed_frames
from finetune.settings import Tuning
from pretrain.config import Scale
from pretrain.errors import BadInput
from pretrain.runs import paths

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TRIALS = 5
RUN = Path(finetune.run.__file__)


def command_line(out: Path) -> list[str]:
    """One trial at a time: with more, which are stopped depends on which are quicker, and no two
    searches are the same."""
    settings = [
        "steps=24",
        "evaluations=4",
        "window=64",
        "concurrent_trials=1",
        "searcher=optuna",
        "cpus=4",
        "postprocess_folds=0",
    ]
    changed = [word for pair in settings for word in ("--set", pair)]
    return [
        "--encoder",
        "handmade",
        "--task",
        "classic_classification",
        "--videos",
        "3",
        "--data",
        paths.default_store(),
        "--out",
        str(out),
        "--trials",
        str(TRIALS),
        "--seeds",
        "1",
        *changed,
    ]


def start_search(out: Path) -> subprocess.Popen[bytes]:
    import ray

    address = {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    with out.with_suffix(".log").open("wb") as log_file:
        command = [sys.executable, str(RUN), *command_line(out)]
        return subprocess.Popen(
            command,
            stdout=log_file,
            stderr=log_file,
            env=os.environ | address,
            start_new_session=True,
        )


def kill_at(process: subprocess.Popen[bytes], journal: Path, lines: int) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if journal.is_file() and journal.read_bytes().count(b"\n") >= lines:
            break
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def folder(own_places: None, ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two searches of the same at the same time on one store: ``here`` in this process, ``killed``
    in another, killed and gone on with."""
    runs = tmp_path_factory.mktemp("searches")
    paths.default_store()
    killed = start_search(runs / "killed")
    moment = random.Random(5).randint(1, 4 * TRIALS)
    killer = threading.Thread(
        target=kill_at, args=(killed, runs / "killed" / "search.journal", moment)
    )
    killer.start()
    try:
        until = time.monotonic() + 120
        while not (runs / "killed" / "search.journal").exists() and killed.poll() is None:
            assert time.monotonic() < until, (runs / "killed.log").read_text()
            time.sleep(0.005)
        finetune.run.main(command_line(runs / "here"))
        killer.join()
        assert killed.returncode == -signal.SIGKILL, (runs / "killed.log").read_text()
        assert not (runs / "killed" / "result.json").exists()
        before = (runs / "killed" / "search.journal").read_bytes()
        with pytest.raises(BadInput, match="pass --resume"):
            finetune.run.main(command_line(runs / "killed"))
        finetune.run.main([*command_line(runs / "killed"), "--resume"])
    finally:
        if killed.poll() is None:
            os.killpg(killed.pid, signal.SIGKILL)
        killer.join()
    whole = before[: before.rfind(b"\n") + 1]
    assert (runs / "killed" / "search.journal").read_bytes().startswith(whole), (
        f"killed after {moment} events"
    )
    return runs


def trials_in(folder: Path) -> list[optuna.trial.FrozenTrial]:
    journal = JournalFileBackend(str(folder / "search.journal"))
    storage = optuna.storages.JournalStorage(journal)
    return optuna.load_study(study_name="search", storage=storage).trials


def search_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "result.json").read_text()))


def test_a_search_killed_at_a_random_moment_ends_as_if_it_had_not_been(folder: Path) -> None:
    whole, again = search_of(folder / "here"), search_of(folder / "killed")
    assert len(whole["search"]["trials"]) == TRIALS
    assert again["search"] == whole["search"]
    assert again["map"] == whole["map"]
    lines = (folder / "killed" / "search.journal").read_text().splitlines()
    reports = [
        (event["trial_id"], event["step"])
        for event in map(json.loads, lines)
        if "intermediate_value" in event
    ]
    assert reports
    assert len(reports) == len(set(reports)), "a trial was scored twice for the same steps"
    assert not (folder / "killed" / "tune").exists()


def test_searches_at_once_are_whole_in_one_store_of_mlflow(folder: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    runs = client.search_runs(
        [client.get_experiment_by_name("finetune classic_classification").experiment_id]
    )
    assert {run.info.status for run in runs} == {"FINISHED"}
    parents = {
        run.info.run_name.split(", ")[-1]: run
        for run in runs
        if "mlflow.parentRunId" not in run.data.tags
    }
    assert set(parents) == {"here", "killed"}
    assert parents["killed"].info.start_time < parents["here"].info.end_time, (
        "they did not run at once"
    )
    for name, parent in parents.items():
        trials = trials_in(folder / name)
        children = {
            r.info.run_name: r
            for r in runs
            if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id
        }
        seeds = {name for name in children if name.startswith("seed ")}
        assert set(children) - seeds == {f"trial {trial.number}" for trial in trials}
        assert seeds, "no child for a seed"
        ours = {key: value for key, value in parent.data.params.items() if "search." not in key}
        best = max(trials, key=lambda trial: trial.value)
        assert float(ours["lr"]) == best.user_attrs["choice"]["lr"]
        assert parent.data.metrics["validation/best_score"] == best.value
        for child in children.values():
            facts = {key: child.data.params.get(key) for key in ours if not key.startswith("head.")}
            assert set(facts) <= set(child.data.params) | {"after"}, "a fact under another key"
            assert facts["encoder.name"] == ours["encoder.name"]
        for trial in trials:
            child = children[f"trial {trial.number}"]
            curve = {
                (m.step, m.value)
                for m in client.get_metric_history(child.info.run_id, "validation/score")
            }
            assert curve == set(trial.intermediate_values.items())
            assert child.data.metrics["validation/best_score"] == trial.value
            stopped = child.data.tags.get("ethoray.stopped_after_steps")
            assert stopped == (
                str(trial.last_step) if "stopped_after" in trial.user_attrs else None
            )
            choice = trial.user_attrs["choice"]
            assert float(child.data.params["lr"]) == choice["lr"]
            assert child.data.params["head.name"] == choice["head"]["name"]
            assert client.list_artifacts(child.info.run_id) == [], "a trial logs more than numbers"
        sizes = {
            artifact.path: artifact.file_size
            for artifact in client.list_artifacts(parent.info.run_id)
        }
        assert {"result.json", "confusion.png"} <= set(sizes)
        assert sum(sizes.values()) < 2e6


def test_trials_read_one_copy_and_share_processes(
    ray_here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    def looks(trial: Mapping[str, Any], *, frames: Frames, **others: Any) -> None:
        z_ND = frames.arrays["z"]
        seen = (bool(z_ND.flags.writeable or z_ND.flags.owndata), os.getpid(), float(z_ND.sum()))
        (tmp_path / f"{trial['number']}.json").write_text(json.dumps(seen))
        ray.tune.report(
            {"steps": 1, "score": 0.5, "macro_f1": 0.5, "map": 0.5, "training_loss": 0.0}
        )

    monkeypatch.setattr(ray_tune, "run_trial", looks)
    frames = ray.put(
        Frames(spans={"one": (0, 1000)}, arrays={"z": np.ones((1000, 64), np.float32)})
    )
    tuning = Tuning(steps=1, evaluations=1, trials=6, search={"lr": [0.1, 0.2]})
    ray_tune.search(
        frames, [], tuning, Scale(concurrent_trials=2), embedder=None, out=tmp_path, run=None
    )
    copies, processes, sums = zip(
        *(json.loads((tmp_path / f"{number}.json").read_text()) for number in range(6)), strict=True
    )
    assert sums == (64_000.0,) * 6
    assert not any(copies), "a trial had a copy of its own"
    assert len(set(processes)) <= 3, "each trial started a process"


def test_a_lost_process_is_replaced_and_failed_trials_are_told(
    ray_here: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    import ray

    def fails(trial: Mapping[str, Any], **others: Any) -> None:
        if trial["number"] == 0:
            raise RuntimeError(f"no luck with {trial['choice']['lr']}")
        for steps in (1, 2):
            ray.tune.report(
                {
                    "steps": steps,
                    "score": 0.1 * trial["number"],
                    "macro_f1": 0.5,
                    "map": 0.5,
                    "training_loss": 0.0,
                }
            )
            if trial["number"] == 2 and not (tmp_path / "lost").exists():
                (tmp_path / "lost").touch()
                os._exit(1)

    monkeypatch.setattr(ray_tune, "run_trial", fails)
    monkeypatch.setenv("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")
    tuning = Tuning(steps=2, evaluations=2, trials=3, search={"lr": [0.1]})
    best = ray_tune.search(
        None, [], tuning, Scale(concurrent_trials=2), embedder=None, out=tmp_path, run=None
    )
    assert (tmp_path / "lost").exists()
    assert [(row["score"], row["fitted"]) for row in best["trials"]] == [(0.1, 2), (0.2, 2)]
    assert best["steps"] == 1, "of equal scores the fewest steps"
    assert "1 of 3 trials failed: RuntimeError: no luck with 0.1" in caplog.text


def test_an_interruption_from_the_keyboard_is_one(
    ray_here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    driver = os.getpid()

    def interrupts(trial: Mapping[str, Any], **others: Any) -> None:
        for steps in (1, 2):
            report = {
                "steps": steps,
                "score": 0.1 * trial["number"],
                "macro_f1": 0.5,
                "map": 0.5,
                "training_loss": 0.0,
            }
            ray.tune.report(report)
            if trial["number"] == 2 and not (tmp_path / "again").exists():
                (tmp_path / "again").touch()
                os.kill(driver, signal.SIGINT)
                time.sleep(60)

    monkeypatch.setattr(ray_tune, "run_trial", interrupts)
    tuning = Tuning(steps=2, evaluations=2, trials=4, search={"lr": [0.1, 0.2]})
    options = {"embedder": None, "out": tmp_path, "run": None}
    with pytest.raises(KeyboardInterrupt):
        ray_tune.search(None, [], tuning, Scale(concurrent_trials=1), **options)
    best = ray_tune.search(None, [], tuning, Scale(concurrent_trials=1), **options)
    assert [row["score"] for row in best["trials"]] == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_embeddings_made_where_a_gpu_is_are_those_made_here(ray_here: None) -> None:
    from types import SimpleNamespace

    from finetune.fit.frames import gather_poses
    from finetune.fit.open_encoder import HANDMADE, open_encoder
    from pretrain.data.store import Store

    store = Store(paths.default_store())
    embedder, _ = open_encoder(HANDMADE, store, recipe="quickstart", seed=0)
    poses = gather_poses(store, [store.videos[0]["name"]])
    scale: Any = SimpleNamespace(gpu=True, gpus_per_trial=0)  # so that it runs where there is none
    embeddings = embed_frames(poses, embedder, scale, on_progress=lambda frames: None)
    assert np.array_equal(embeddings.arrays["z"], embed(poses, embedder).arrays["z"])


def test_jobs_wait_until_they_are_ready_and_a_lost_process_is_replaced(
    ray_here: None, tmp_path: Path
) -> None:
    def multiply(number: int, factor: int) -> int:
        if number == 2 and not (tmp_path / "lost").exists():
            (tmp_path / "lost").touch()
            os._exit(1)
        return number * factor

    results: dict[int, int] = {}
    for number, result in run_jobs(
        multiply,
        [1, 2, 3],
        lambda number: {"number": number},
        shared={"factor": 10},
        scale=Scale(concurrent_trials=2, retries=1),
        description="jobs",
        unit="job",
        ready=lambda number: number != 1 or 3 in results,
    ):
        results[number] = result
    assert results == {1: 10, 2: 20, 3: 30}
    assert (tmp_path / "lost").exists()
    assert list(results).index(1) > list(results).index(3)


def test_what_is_wrong_with_a_job_is_shown_as_the_users_matter(ray_here: None) -> None:
    def refuse_it(number: int) -> None:
        raise BadInput(f"{number} does not fit")

    jobs = run_jobs(
        refuse_it,
        [7],
        lambda number: {"number": number},
        shared={},
        scale=Scale(),
        description="jobs",
        unit="job",
    )
    with pytest.raises(BadInput, match=r"^7 does not fit$"):
        list(jobs)
