"""Tracking with the real MLflow: its sqlite store, and its server on loopback that is stopped,
killed and started again."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import screenshots

from finetune.quickstart import page_of_runs
from pretrain.errors import BadInput, exit_status
from pretrain.redact import redact
from pretrain.runs import replay as replay_entry
from pretrain.runs import tracked_run
from pretrain.runs.addresses import ui_command
from pretrain.runs.background_sender import BackgroundSender, ServerUnavailable, batches
from pretrain.runs.json_lines import JsonLines, Record
from pretrain.runs.mlflow_limits import plain_name
from pretrain.runs.provenance import code_tags
from pretrain.runs.quiet_environment import MLFLOW
from pretrain.runs.replay import replay
from pretrain.runs.tracked_run import Tracking, open_tracking

PYTHON = [sys.executable, "-c"]
QUIET = MLFLOW | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


@pytest.fixture(scope="module")
def ready_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that has been through MLflow's migrations (seconds), to be copied."""
    folder = tmp_path_factory.mktemp("ready")
    open_tracking(None, runs_folder=folder)
    return folder / "mlflow.db"


@pytest.fixture
def runs(ready_database: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    shutil.copy(ready_database, folder / "mlflow.db")
    return folder


@pytest.fixture
def tracking(runs: Path) -> Tracking:
    return open_tracking(None, runs_folder=runs)


@pytest.fixture
def nobody() -> str:
    """An address where nobody listens, with a password in it."""
    return f"http://me:secret@127.0.0.1:{screenshots.free_port()}"


def client(address: str | Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{address}" if isinstance(address, Path) else address)


def curve(found: Any, run_id: str | None, name: str) -> list[tuple[int, float]]:
    return sorted((m.step, m.value) for m in found.get_metric_history(run_id, name))


def status(found: Any, run_id: str | None) -> str:
    return str(found.get_run(run_id).info.status)


def wait_until(condition: Callable[[], bool], *, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not (true := condition()) and time.monotonic() < until:
        time.sleep(0.05)
    return true


# -- runs ------------------------------------------------------------------------------------------


def test_a_run_is_in_the_store_whole(tracking: Tracking, runs: Path) -> None:
    (runs / "table.csv").write_text("a,b\n")
    with tracking.start("pretrain", "one", params={"epochs": 3}, folder=runs / "one") as run:
        for step in range(5):
            run.log_metrics({"loss": 5.0 - step, "objective": {"scale": step}}, step=step)
        run.set_tags({"note": "hello"})
        run.log_artifact(runs / "table.csv")
        run.log_dataset("arena", "0123456789abcdef", runs / "store")
    found = client(runs / "mlflow.db")
    data = found.get_run(run.run_id)
    assert (data.info.status, data.info.run_name) == ("FINISHED", "one")
    assert data.data.params == {"epochs": "3"}
    assert curve(found, run.run_id, "loss") == [(s, 5.0 - s) for s in range(5)]
    assert curve(found, run.run_id, "objective.scale") == [(s, float(s)) for s in range(5)]
    tags = data.data.tags
    assert tags["note"] == "hello"
    assert tags["ethoray.data"] == "0123456789abcdef"
    assert "cores" in tags["ethoray.machine"]
    assert socket.gethostname() not in tags["ethoray.machine"]
    assert tags["ethoray.version"]
    assert [file.path for file in found.list_artifacts(run.run_id)] == ["table.csv"]
    dataset = data.inputs.dataset_inputs[0].dataset
    assert (dataset.name, dataset.digest) == ("arena", "0123456789abcdef")
    experiments = {e.name: e.artifact_location for e in found.search_experiments()}
    assert experiments["pretrain"].startswith(str(runs / "mlartifacts"))
    records = JsonLines(runs / "one" / "metrics.jsonl").read()
    assert [(r["step"], r["metrics"]["loss"]) for r in records if r["kind"] == "metrics"] == [
        (step, 5.0 - step) for step in range(5)
    ]


def test_the_default_experiment_keeps_its_artifacts_at_an_absolute_place(
    ready_database: Path,
) -> None:
    place = client(ready_database).get_experiment("0").artifact_location
    assert place == str(ready_database.parent / "mlartifacts" / "0")


def test_how_a_run_ends_is_its_status(tracking: Tracking, runs: Path) -> None:
    ends: list[tuple[BaseException | None, str]] = [
        (None, "FINISHED"),
        (RuntimeError("at http://me:secret@host/x"), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(0), "FINISHED"),
        (SystemExit(2), "FAILED"),
    ]
    found = client(runs / "mlflow.db")
    for error, status in ends:
        with (
            contextlib.suppress(BaseException),
            tracking.start("ends", str(error), folder=runs / status) as run,
        ):
            if error is not None:
                raise error
        data = found.get_run(run.run_id)
        assert (data.info.status, data.info.end_time is not None) == (status, True)
        told = data.data.tags.get("ethoray.error", "")
        assert told.startswith(type(error).__name__) == (status != "FINISHED")
        assert "secret" not in told


def test_an_error_is_forgotten_when_the_run_goes_on(tracking: Tracking, runs: Path) -> None:
    for resume in (False, True):
        with (
            contextlib.suppress(RuntimeError),
            tracking.start("ends", "run", folder=runs / "run", resume=resume) as run,
        ):
            if not resume:
                raise RuntimeError("no room on the disk")
    data = client(runs / "mlflow.db").get_run(run.run_id)
    assert data.info.status == "FINISHED"
    assert "ethoray.error" not in data.data.tags


def test_a_child_has_the_settings_of_its_parent(tracking: Tracking, runs: Path) -> None:
    facts = {"encoder": {"name": "tcn"}, "lr": 0.1}
    with tracking.start("search", "run", params=facts, folder=runs / "run") as run:
        tracking.start("search", "trial", parent=run, params={"lr": 0.2}).finish()
    found = client(runs / "mlflow.db")
    experiment = found.get_experiment_by_name("search")
    assert tracking.ui_command("search").endswith(
        f"/#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning"
    )
    elsewhere = open_tracking(None, runs_folder=runs)
    assert elsewhere.ui_command("search") == tracking.ui_command("search")
    assert {
        one.info.run_name: one.data.params for one in found.search_runs([experiment.experiment_id])
    } == {
        "run": {"encoder.name": "tcn", "lr": "0.1"},
        "trial": {"encoder.name": "tcn", "lr": "0.2"},
    }


def test_the_quickstart_ends_with_the_page_of_its_runs(tracking: Tracking, runs: Path) -> None:
    with tracking.start("finetune classic_classification", "one", folder=runs / "one"):
        pass
    printed = page_of_runs(None, runs)
    assert printed == tracking.ui_command("finetune classic_classification")
    assert re.search(r"/#/experiments/\d+/runs\?workflowType=machine_learning$", printed)


def test_settings_of_any_shape_and_length_fit_mlflows_limits(
    tracking: Tracking, runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wide = {f"key_{i}": i for i in range(250)}
    with tracking.start("limits", "run", folder=runs / "run") as run:
        run.log_params(
            {
                "none": None,
                "yes": True,
                "lr": 1e-3,
                "empty": {},
                "list": [1, "a", None],
                "path": Path("/x/y"),
                "objectives": [{"name": "cpc"}, {"name": "masked"}],
                "long": "x" * 7000,
                "n" * 300: 1,
                "n" * 299: 2,
                "a=b": 1,
                "a+b": 2,
                "../up": 3,
                "": 4,
                "wide": wide,
                "tracking": "https://me:secret@host:5000",
            }
        )
        run.log_metrics(
            {"F1@0.5": 0.25, "x" * 400: 1.0} | {f"m{i}": i for i in range(2500)}, step=1
        )
        run.set_tags({"odd=name": "y" * 9000})
    data = client(runs / "mlflow.db").get_run(run.run_id).data
    assert "refused" not in caplog.text
    expected = {
        "none": "null",
        "yes": "true",
        "lr": "0.001",
        "empty": "{}",
        "list": '[1, "a", null]',
        "path": '"/x/y"',
        "objectives.0.name": "cpc",
        "objectives.1.name": "masked",
        "tracking": "https://***@host:5000",
    }
    assert expected.items() <= data.params.items()
    assert {f"wide.{k}": str(v) for k, v in wide.items()}.items() <= data.params.items()
    assert len(data.params["long"]) == 6000
    assert sorted(data.params[name] for name in data.params if name.startswith("a_b")) == ["1", "2"]
    assert sorted(data.params[name] for name in data.params if name.startswith("nnn")) == ["1", "2"]
    assert len(data.params) == 16 - 1 + 1 + 250
    assert data.metrics["F1_0.5"] == 0.25
    assert len(data.metrics) == 2502
    assert data.tags["odd_name"].startswith("yyy")
    whole = json.loads(
        Path(client(runs / "mlflow.db").download_artifacts(run.run_id, "params.json")).read_text()
    )
    assert whole["long"] == "x" * 7000
    assert "secret" not in (runs / "run" / "metrics.jsonl").read_text()


@pytest.mark.parametrize(
    "name",
    ["a", "a/b", "F1@", "/a", "a//b", "..", ".", "", "a/../b", "é:1 x-y", "x" * 251, "./a", "a/"],
)
def test_every_name_becomes_one_that_mlflow_takes(name: str, runs: Path) -> None:
    from mlflow import MlflowException

    server = client(runs / "mlflow.db")
    run_id = server.create_run("0").info.run_id
    plain = plain_name(name)
    server.log_metric(run_id, plain, 1.0)
    assert 0 < len(plain) <= 250
    try:
        server.log_metric(run_id, name, 2.0)
    except MlflowException:
        assert plain != name
    else:
        assert plain == name or len(name) > 250


def test_numbers_that_are_none_are_kept_or_named(
    tracking: Tracking, runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with tracking.start("numbers", "run", folder=runs / "run") as run:
        run.log_metrics(
            {
                "nan": math.nan,
                "inf": math.inf,
                "minus": -math.inf,
                "word": "much",
                "nothing": None,
                "good": 2,
            },
            step=7,
        )
    found = client(runs / "mlflow.db")
    assert math.isnan(found.get_metric_history(run.run_id, "nan")[0].value)
    assert found.get_metric_history(run.run_id, "inf")[0].value > 1e300
    assert found.get_metric_history(run.run_id, "minus")[0].value < -1e300
    assert curve(found, run.run_id, "good") == [(7, 2.0)]
    assert {"word", "nothing"}.isdisjoint(found.get_run(run.run_id).data.metrics)
    assert [r.getMessage().split(" of run")[0] for r in caplog.records] == [
        "the metric word",
        "the metric nothing",
    ]
    for line in (runs / "run" / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))


def test_what_mlflow_refuses_does_not_take_the_rest_with_it(
    tracking: Tracking, runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with tracking.start("refused", "run", params={"epochs": 3}, folder=runs / "run") as run:
        run.log_params({"epochs": 4, "seed": 1})  # MLflow never changes a parameter
        run.log_artifact(runs / "never-made.png")
        run.log_metrics({"loss": 1.0}, step=0)
    data = client(runs / "mlflow.db").get_run(run.run_id)
    assert data.data.params == {"epochs": "3", "seed": "1"}
    assert data.data.metrics == {"loss": 1.0}
    assert data.info.status == "FINISHED"
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "epochs = 4" in told[0]
    assert "never-made.png is no longer there" in told[1]


def test_a_run_that_was_interrupted_goes_on_as_the_same_run(runs: Path) -> None:
    first = open_tracking(None, runs_folder=runs)
    with (
        contextlib.suppress(KeyboardInterrupt),
        first.start("pretrain", "run", folder=runs / "run") as run,
    ):
        run.log_metrics({"loss": 2.0}, step=1)
        raise KeyboardInterrupt
    again = open_tracking(None, runs_folder=runs)
    resumed = again.start("pretrain", "run", folder=runs / "run", resume=True)
    found = client(runs / "mlflow.db")
    assert wait_until(lambda: status(found, run.run_id) == "RUNNING", seconds=10)
    resumed.log_metrics({"loss": 1.0}, step=2)
    resumed.finish()
    assert resumed.run_id == run.run_id
    assert status(found, run.run_id) == "FINISHED"
    assert curve(found, run.run_id, "loss") == [(1, 2.0), (2, 1.0)]
    new = again.start("pretrain", "other", folder=runs / "run", resume=True)
    new.finish()
    assert new.run_id != run.run_id


# -- children, processes ---------------------------------------------------------------------------


def test_children_belong_to_their_parent_and_end_with_it(tracking: Tracking, runs: Path) -> None:
    run = tracking.start("search", "parent", folder=runs / "parent")
    run.log_dataset("arena", "0123456789abcdef", "/x")
    with tracking.start(run.experiment, "trial 0", parent=run) as trial:
        trial.log_metrics({"f1": 0.75}, step=1)
    tracking.start(run.experiment, "trial 1", parent=run).log_metrics({"f1": 0.5}, step=1)
    run.finish()
    found = client(runs / "mlflow.db")
    children = found.search_runs(
        [found.get_experiment_by_name("search").experiment_id],
        f"tags.`mlflow.parentRunId` = '{run.run_id}'",
    )
    # Trial 1 was left open; whoever looks at the runs must not see it running for ever.
    ends = {c.info.run_name: (c.info.status, c.data.metrics["f1"]) for c in children}
    assert ends == {"trial 0": ("FINISHED", 0.75), "trial 1": ("KILLED", 0.5)}
    assert all(child.data.tags["ethoray.data"] == "0123456789abcdef" for child in children)


KILLED = """
import os, signal, sys
from pathlib import Path
from pretrain.runs.tracked_run import open_tracking

run = open_tracking(sys.argv[1], runs_folder=sys.argv[2]).start(
    "search", "parent", folder=sys.argv[2], params={"a": 1}
)
run.log_metrics({"loss": 4.0}, step=4)
for name in ("trial 0", "trial 1"):
    run.tracking.start(run.experiment, name, parent=run).log_metrics({"f1": 0.5}, step=1)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_and_what_it_could_not_send_is_sent(
    nobody: str, tracking: Tracking, runs: Path
) -> None:
    """Killed while the server was away, resumed when it is back: nothing is lost or there twice."""
    command = [*PYTHON, KILLED, nobody, str(runs / "run")]
    done = subprocess.run(command, timeout=60, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    records = JsonLines(runs / "run" / "metrics.jsonl").read()
    keys = [record["run"] for record in records if record["kind"] == "start"]
    run = tracking.start("search", "parent", folder=runs / "run", params={"a": 1}, resume=True)
    with tracking.start(run.experiment, "trial 0", parent=run, resume=True) as trial:
        trial.log_metrics({"f1": 0.75}, step=2)
    run.log_metrics({"loss": 5.0}, step=5)
    run.finish()
    assert [run.key, trial.key] == keys[:2]
    found = client(runs / "mlflow.db")
    assert curve(found, run.run_id, "loss") == [(4, 4.0), (5, 5.0)]
    made = found.search_runs([found.get_experiment_by_name("search").experiment_id])
    assert {r.info.run_name: r.info.status for r in made} == {
        "parent": "FINISHED",
        "trial 0": "FINISHED",
        "trial 1": "KILLED",
    }
    assert len(made) == 3
    assert curve(found, trial.run_id, "f1") == [(1, 0.5), (2, 0.75)]


RACE = """
import os, sys, traceback
import mlflow.store.tracking.sqlalchemy_store
from pretrain.runs.tracked_run import open_tracking

racing = []
for name in "0123":  # forked, so that none has a lead of seconds from its imports
    process = os.fork()
    if not process:
        try:
            tracking = open_tracking(None, runs_folder=sys.argv[1])
            with tracking.start("race", name, folder=f"{sys.argv[1]}/{name}") as run:
                run.log_metrics({"x": 1.0}, step=0)
            os._exit(run.run_id is None)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    racing.append(process)
sys.exit(sum(os.waitpid(process, 0)[1] != 0 for process in racing))
"""


@pytest.mark.slow
def test_four_processes_open_a_fresh_store_at_once(tmp_path: Path) -> None:
    done = subprocess.run(
        [*PYTHON, RACE, str(tmp_path / "runs")],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | QUIET,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = client(tmp_path / "runs" / "mlflow.db")
    made = found.search_runs([found.get_experiment_by_name("race").experiment_id])
    assert sorted((run.info.run_name, run.info.status) for run in made) == [
        (name, "FINISHED") for name in "0123"
    ]
    assert not list((tmp_path / "runs").glob("*.new"))


# -- a server that is away -------------------------------------------------------------------------


class ServerProcess:
    """A real ``mlflow server`` that can be killed and started again at the same address."""

    def __init__(self, folder: Path, database: Path) -> None:
        self.folder = folder
        shutil.copy(database, folder / "server.db")
        self.port = screenshots.free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self._process is not None:
            return
        where = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        store = [
            "--backend-store-uri",
            f"sqlite:///{self.folder / 'server.db'}",
            "--artifacts-destination",
            str(self.folder / "artifacts"),
        ]
        command = [str(Path(sys.executable).with_name("mlflow")), "server", *where, *store]
        with (self.folder / "server.log").open("ab") as told:
            self._process = subprocess.Popen(
                command, stdout=told, stderr=told, start_new_session=True, env=os.environ | QUIET
            )
        healthy = wait_until(lambda: screenshots.answers(f"{self.address}/health"), seconds=60)
        assert healthy, (self.folder / "server.log").read_text()[-2000:]

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait(10)
            self._process = None


@pytest.fixture(scope="module")
def server_process(
    tmp_path_factory: pytest.TempPathFactory, ready_database: Path
) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("server"), ready_database)
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
def server(server_process: ServerProcess) -> ServerProcess:
    server_process.start()
    return server_process


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracked_run, "FINISH_S", 1.0)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(("away_s", "left"), [(1.2, 0), (math.inf, 1)])
def test_the_end_of_a_run_waits_for_a_server_that_is_away_for_a_moment(
    tmp_path: Path, away_s: float, left: int
) -> None:
    began = time.monotonic()

    def send(batch: list[Record]) -> None:
        if time.monotonic() < began + away_s:
            raise ServerUnavailable("it restarts")

    sender = BackgroundSender(send, file=JsonLines(tmp_path / "m.jsonl"), address="http://x")
    sender.put({"kind": "status", "run": "r", "experiment": "e", "status": "FINISHED"})
    assert sender.drain(2.5) == left
    assert time.monotonic() - began < 6


def test_the_end_of_a_run_waits_for_its_model(tmp_path: Path) -> None:
    """Hundreds of files, which take longer than a record may."""

    def send(batch: list[Record]) -> None:
        time.sleep(1.5 if batch[0]["kind"] == "model" else 0)

    sender = BackgroundSender(send, file=JsonLines(tmp_path / "m.jsonl"), address="http://x")
    for kind in ("model", "status"):
        sender.put({"kind": kind, "run": "r", "experiment": "e"})
    assert sender.drain(0.2) == 0


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_a_server_that_stalls_does_not_stall_training(
    server: ServerProcess, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracking = open_tracking(server.address, runs_folder=tmp_path)
    run = tracking.start("stall", "run", folder=tmp_path / "run")
    assert wait_until(lambda: run.run_id is not None, seconds=10)
    server.signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        for step in range(1000):
            run.log_metrics({"loss": float(step)}, step=step)
        # a run that starts while the server is silent
        late = tracking.start("stall", "late", parent=run)
        late.log_metrics({"loss": 9.0}, step=9)
        late.finish()
        logged = time.monotonic() - began
        assert not run.finish()
        finished = time.monotonic() - began
    finally:
        server.signal(signal.SIGCONT)
    assert logged < 2
    assert finished < 8
    told = warnings(caplog)
    assert len(told) == 2, told  # that it is away; how to send the rest
    assert all(server.address in line for line in told)
    file = tmp_path / "run" / "metrics.jsonl"
    assert f"pretrain.runs.replay {file} {server.address}" in told[1]
    replay(file, server.address)
    assert run.sender.drain(20) == 0  # by now the background thread has sent it all once more
    found = client(server.address)
    assert curve(found, run.run_id, "loss") == [(step, float(step)) for step in range(1000)]
    assert found.get_run(run.run_id).info.status == "FINISHED"
    made = found.search_runs(
        [found.get_experiment_by_name("stall").experiment_id], f"tags.`ethoray.run` = '{late.key}'"
    )
    assert [(r.data.metrics, r.data.tags["mlflow.parentRunId"]) for r in made] == [
        ({"loss": 9.0}, run.run_id)
    ]


@pytest.mark.slow
def test_a_server_that_is_killed_and_started_again_has_everything(
    server: ServerProcess, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "figure.txt").write_text("picture")
    tracking = open_tracking(server.address, runs_folder=tmp_path)
    with tracking.start("outage", "run", folder=tmp_path / "run", params={"a": 1}) as run:
        run.log_metrics({"loss": 1.0}, step=1)
        assert run.sender.drain(10) == 0
        server.kill()
        run.log_metrics({"loss": 2.0}, step=2)
        run.log_params({"during": 2})
        run.log_artifact(tmp_path / "figure.txt")
        assert wait_until(lambda: bool(warnings(caplog)), seconds=10)
        for step in range(3, 10):
            run.log_metrics({"loss": float(step)}, step=step)
        assert len(warnings(caplog)) == 1
        assert server.address in warnings(caplog)[0]
        assert str(tmp_path / "run" / "metrics.jsonl") in warnings(caplog)[0]
        server.start()
        run.log_metrics({"loss": 10.0}, step=10)
    found = client(server.address)
    assert curve(found, run.run_id, "loss") == [(step, float(step)) for step in range(1, 11)]
    data = found.get_run(run.run_id)
    assert data.data.params == {"a": "1", "during": "2"}
    assert data.info.status == "FINISHED"
    assert [file.path for file in found.list_artifacts(run.run_id)] == ["figure.txt"]
    assert [line for line in warnings(caplog)[1:] if "is back" not in line] == []
    assert len(warnings(caplog)) == 2


def test_a_server_that_is_never_there(
    nobody: str,
    runs: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "run").mkdir()
    began = time.monotonic()
    tracking = open_tracking(nobody, runs_folder=tmp_path)
    with tracking.start(
        "away", "parent", params={"scale": {"tracking": nobody}}, folder=tmp_path / "run"
    ) as run:
        run.log_metrics({"loss": math.nan}, step=0)
        with tracking.start("away", "child", parent=run, params={"long": "x" * 7000}) as child:
            child.log_metrics({"f1": 0.5}, step=3)
        ran_at = time.time()
    assert time.monotonic() - began < 12
    assert run.run_id is None
    told = warnings(caplog)
    assert len(told) == 2, told
    shown, file = nobody.replace("me:secret@", "***@"), tmp_path / "run" / "metrics.jsonl"
    assert shown in told[0]
    assert "Connection refused" in told[0]
    assert "pretrain.runs.replay" in told[1]
    assert not any(
        "secret" in text
        for text in (
            caplog.text,
            *capfd.readouterr(),
            file.read_text(),
            repr(run),
            repr(tracking),
        )
    )

    address = f"sqlite:///{runs / 'mlflow.db'}"  # another server than the one that was meant
    time.sleep(0.05)
    for _ in range(2):  # the second time does no harm
        assert replay(file, address) == len(JsonLines(file).read())
    found = client(runs / "mlflow.db")
    all_made = found.search_runs([found.get_experiment_by_name("away").experiment_id])
    made = {r.info.run_name: r for r in all_made}
    assert (len(all_made), set(made)) == (2, {"parent", "child"})
    assert made["parent"].data.params == {"scale.tracking": shown}
    assert made["child"].data.tags["mlflow.parentRunId"] == made["parent"].info.run_id
    assert [r.info.status for r in made.values()] == ["FINISHED"] * 2
    assert curve(found, made["child"].info.run_id, "f1") == [(3, 0.5)]
    assert len(found.get_metric_history(made["parent"].info.run_id, "loss")) == 1
    assert (
        made["parent"].info.end_time <= ran_at * 1000 + 2000
    )  # when it happened, not when it was sent
    assert (made["parent"].info.end_time - made["parent"].info.start_time) < 12_000


def test_a_file_that_cannot_be_written_stops_nobody(
    tracking: Tracking, runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (runs / "file").write_text("")
    with tracking.start("exp", "run", folder=runs / "file" / "run") as run:
        for step in range(10):
            run.log_metrics({"loss": 1.0}, step=step)
    assert len(curve(client(runs / "mlflow.db"), run.run_id, "loss")) == 10
    assert len([line for line in warnings(caplog) if "cannot write" in line]) == 1


def test_replay_as_a_command(
    tmp_path: Path, nobody: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(lambda: replay_entry.main([str(tmp_path / "none.jsonl"), nobody])) == 2
    assert "there is no file" in capsys.readouterr().err
    start = {"kind": "start", "run": "k", "experiment": "e", "name": "x", "time": 1}
    file = tmp_path / "metrics.jsonl"
    JsonLines(file).append(start | {"parent": None, "resumed": False, "tags": {}})
    assert exit_status(lambda: replay_entry.main([str(file), nobody])) == 2
    told = capsys.readouterr().err
    assert "Connection refused" in told
    assert "secret" not in told


# -- the file --------------------------------------------------------------------------------------


LEFT_RUNNING = """
import os, signal
from pathlib import Path
from pretrain.runs.folder import open_run_folder
from pretrain.runs.tracked_run import open_tracking
out = Path("runs/mine")
tracking = open_tracking(None, runs_folder="runs")
with open_run_folder(out, {}, resume=False), tracking.start("e", "mine", folder=out) as run:
    tracking.start("e", "child", parent=run).log_metrics({"f1": 0.5}, step=1)
    done = tracking.start("e", "done", parent=run)
    done.finish()
    assert run.sender.drain(60) == 0
    %s
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_command_left_running_is_closed_by_one_command(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    busy = "from pretrain.runs.replay import main; main(['runs/mine'])"
    ran = subprocess.run(
        [*PYTHON, LEFT_RUNNING % busy], cwd=runs.parent, capture_output=True, text=True, check=False
    )
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert "closed" not in ran.stdout, "a living process is at work in that folder"
    found = client(runs / "mlflow.db")
    experiment = found.get_experiment_by_name("e").experiment_id

    def states() -> dict[str, str]:
        return {r.info.run_name: r.info.status for r in found.search_runs([experiment])}

    assert states() == {"mine": "RUNNING", "child": "RUNNING", "done": "FINISHED"}
    for said in ("2 runs were left open", "records sent"):
        assert exit_status(lambda: replay_entry.main([str(runs / "mine")])) == 0
        assert said in capsys.readouterr().out
        assert states() == {"mine": "KILLED", "child": "KILLED", "done": "FINISHED"}

    tracking = open_tracking(None, runs_folder=runs)
    with tracking.start("e", "mine", folder=runs / "mine", resume=True) as run:
        assert run.sender.drain(60) == 0
        assert states()["mine"] == "RUNNING", "the same run goes on"
    assert states()["mine"] == "FINISHED"


def test_a_line_cut_short_costs_that_line_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = JsonLines(tmp_path / "metrics.jsonl")
    file.append({"kind": "tags", "n": 1})
    with file.path.open("ab") as torn:
        torn.write(b'{"kind": "metr')
    file.append({"kind": "tags", "n": 3})
    assert [record["n"] for record in file.read()] == [1, 3]
    assert "1 damaged lines" in caplog.text


def test_threads_at_once_do_not_mix_their_lines(tracking: Tracking, runs: Path) -> None:
    with tracking.start("threads", "run", folder=runs / "run") as run:

        def write(name: str) -> None:
            for n in range(100):
                run.set_tags({f"{name}{n}": name * 4000})

        threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    records = [r for r in JsonLines(runs / "run" / "metrics.jsonl").read() if r["kind"] == "tags"]
    assert len(records) == 300
    for record in records:
        ((name, text),) = record["tags"].items()
        assert text == name[0] * 4000
    assert len(client(runs / "mlflow.db").get_run(run.run_id).data.tags) >= 300


def test_a_batch_keeps_order_and_belongs_to_one_run() -> None:
    kinds = [
        ("a", "start"),
        ("a", "metrics"),
        ("a", "params"),
        ("b", "metrics"),
        ("a", "metrics"),
        ("a", "text"),
        ("a", "status"),
    ]
    records = [{"run": run, "kind": kind, "n": n} for n, (run, kind) in enumerate(kinds)]
    found = list(batches(records))
    assert [r["n"] for batch in found for r in batch] == list(range(7))
    assert [len(batch) for batch in found] == [1, 2, 1, 1, 1, 1]


# -- addresses, provenance -------------------------------------------------------------------------


def test_the_line_that_shows_the_runs(tmp_path: Path) -> None:
    assert (
        ui_command(None, "/my runs")
        == "mlflow ui --backend-store-uri 'sqlite:////my runs/mlflow.db' --port 5000\n"
        "then open:    http://127.0.0.1:5000/#/experiments?workflowType=machine_learning"
    )
    assert (
        ui_command("http://me:secret@host:5000/", tmp_path, experiment_id="7")
        == "http://***@host:5000/#/experiments/7/runs?workflowType=machine_learning"
    )
    relative = ui_command("sqlite:///here.db", tmp_path)
    assert f"sqlite:///{Path.cwd()}/here.db" in relative


@pytest.mark.parametrize(
    "address",
    [
        "host:5000",
        "htp://host",
        "sqlite:///",
        "sqlite:///:memory:",
        "http://",
        "file:///x",
        "/some/folder",
    ],
)
def test_an_address_that_mlflow_does_not_know_is_refused_at_once(
    address: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match="http://host:5000"):
        open_tracking(address, runs_folder=tmp_path)


def test_passwords_are_taken_out_of_any_text() -> None:
    assert redact("at postgresql://me:p%40ss@db/x and https://tok@h:1/a, mail me@x.org") == (
        "at postgresql://***@db/x and https://***@h:1/a, mail me@x.org"
    )
    assert redact("http://host:5000/a") == "http://host:5000/a"


def test_the_users_own_patience_is_respected(runs: Path) -> None:
    script = (
        "import os, sys; from pretrain.runs.tracked_run import open_tracking\n"
        "assert 'mlflow' not in sys.modules\n"
        "folder = sys.argv[1]\n"
        "open_tracking(None, runs_folder=folder).start('e', 'r', folder=folder).finish()\n"
        "print(os.environ['MLFLOW_HTTP_REQUEST_TIMEOUT'], os.environ['MLFLOW_DISABLE_TELEMETRY'])"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")} | {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "77"
    }
    done = subprocess.run(
        [*PYTHON, script, str(runs)],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("77 true\n", "")


def test_commit_and_dirt_are_those_of_the_checkout(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *words],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    git("init", "-q")
    (tmp_path / "inner").mkdir()
    (tmp_path / "file").write_text("1")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    commit = git("rev-parse", "HEAD")
    assert code_tags(tmp_path)["ethoray.git_commit"] == commit
    assert code_tags(tmp_path)["ethoray.git_dirty"] == "false"
    assert "ethoray.git_commit" not in code_tags(tmp_path / "inner")  # somebody else's repository
    (tmp_path / "file").write_text("2")
    code_tags.cache_clear()
    assert code_tags(tmp_path)["ethoray.git_dirty"] == "true"
    code_tags.cache_clear()
