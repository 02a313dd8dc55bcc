"""The line that a command ends with opens a page on which runs can be compared, in a real browser
where there is one."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from pretrain.runs.quiet_environment import MLFLOW
from pretrain.runs.tracked_run import open_tracking

pytestmark = pytest.mark.slow

QUIET = MLFLOW | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
NAMES = ("a search on rats", "a search on mice")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The page that the line names, and the one that shows two runs side by side; the server ends
    with the tests."""
    folder = tmp_path_factory.mktemp("runs")
    tracking = open_tracking(None, runs_folder=folder)
    for index, name in enumerate(NAMES):
        with tracking.start(
            "finetune S1",
            name,
            params={"head": {"name": "linear"}, "lr": 0.01 * index},
            folder=folder / name,
        ) as run:
            run.log_metrics({"validation/score": 0.5 + 0.1 * index}, step=10)
    ids = [run["run_id"] for run in _runs(folder / "mlflow.db")]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    line, opened = tracking.ui_command("finetune S1").split("\nthen open:")
    program, *words = shlex.split(line)
    assert (program, words[-2:]) == ("mlflow", ["--port", "5000"])
    command = [str(Path(sys.executable).with_name(program)), *words[:-1], port, "--workers", "1"]
    with (folder / "server.log").open("wb") as told:
        server = subprocess.Popen(
            command, stdout=told, stderr=told, start_new_session=True, env=os.environ | QUIET
        )
    try:
        until = time.monotonic() + 90
        while not _answers(f"http://127.0.0.1:{port}/health"):
            assert time.monotonic() < until, (folder / "server.log").read_text()[-2000:]
            time.sleep(0.1)
        experiments = urllib.parse.quote(
            json.dumps([_runs(folder / "mlflow.db")[0]["experiment_id"]])
        )
        both = f"runs={urllib.parse.quote(json.dumps(ids))}&experiments={experiments}"
        yield (
            opened.strip().replace(":5000/", f":{port}/"),
            f"http://127.0.0.1:{port}/#/compare-runs?{both}",
        )
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(10)


def _runs(database: Path) -> list[dict[str, str]]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{database}")
    return [
        dict(run.info)
        for run in client.search_runs([client.get_experiment_by_name("finetune S1").experiment_id])
    ]


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_the_page_is_served(pages: tuple[str, str]) -> None:
    with urllib.request.urlopen(pages[0].split("#")[0], timeout=10) as answer:
        assert b"<title>MLflow</title>" in answer.read()


def test_the_line_opens_on_the_runs(pages: tuple[str, str], tmp_path: Path) -> None:
    shown = _browse(pages[0], tmp_path)
    for word in (*NAMES, "finetune S1"):
        assert word in shown, f"{word!r} is not on the page"


def test_a_browser_shows_two_runs_side_by_side(pages: tuple[str, str], tmp_path: Path) -> None:
    shown = _browse(pages[1], tmp_path)
    for word in (*NAMES, "validation/score", "0.6", "head.name"):
        assert word in shown, f"{word!r} is not on the page"


def _browse(page: str, profile: Path) -> str:
    """What a browser that knows nothing of MLflow makes of a page."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser on this machine (looked for {', '.join(BROWSERS)})")
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--user-data-dir={profile}",
        "--no-proxy-server",
        "--virtual-time-budget=30000",
        "--dump-dom",
        page,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout
