"""The main job as a submitted Ray job, on a head that the test starts and stops."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pretrain.runs import paths

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """Address of a job server with token authentication, and the environment its users need."""
    scratch = Path("/tmp") / f"eth-{os.getpid()}"  # Ray's sockets need a short path
    scratch.mkdir()
    environment = os.environ | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(scratch / "token"),
    }
    environment.pop("RAY_ADDRESS", None)
    environment["PATH"] = (
        # what activating the environment does: a job's `python` is found there
        f"{BIN}{os.pathsep}{environment['PATH']}"
    )
    (scratch / "token").write_text("0123456789abcdef" * 4)
    port, page = free_port(), free_port()
    command = [
        str(BIN / "ray"),
        "start",
        "--head",
        "--block",
        f"--port={port}",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={page}",
        # The usual ports of its agent may be taken by another Ray.
        f"--dashboard-agent-listen-port={free_port()}",
        f"--dashboard-agent-grpc-port={free_port()}",
        "--num-cpus=3",
        "--disable-usage-stats",
        f"--temp-dir={scratch / 'ray'}",
        "--object-store-memory=134217728",
    ]
    server = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{page}"
    try:
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            # The page answers before the agent that starts jobs is up; only a job that ran shows
            # that both are.
            tried = [str(BIN / "ray"), "job", "submit", "--address", address, "--", "true"]
            if (
                subprocess.run(tried, env=environment, capture_output=True, check=False).returncode
                == 0
            ):
                break
            time.sleep(1)
        else:
            pytest.fail("the job server did not answer within three minutes")
        yield address, environment
    finally:
        # Ray waits half a minute for its own processes to end; they hold nothing that is wanted.
        started = psutil.Process(server.pid).children(recursive=True)
        server.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs([psutil.Process(server.pid), *started], timeout=3)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        server.wait(60)
        subprocess.run(["rm", "-rf", str(scratch)], check=True)


@pytest.fixture(scope="module")
def arena(own_places: None) -> str:
    return paths.default_store()


@pytest.mark.ray
@pytest.mark.slow
def test_results_of_a_submitted_job_survive_it(
    head: tuple[str, dict[str, str]], arena: str, tmp_path: Path
) -> None:
    address, environment = head
    home = tmp_path / "home"
    variables = json.dumps({"env_vars": {"ETHORAY_HOME": str(home)}})

    def submit(*command: str) -> subprocess.CompletedProcess[str]:
        submitted = [
            str(BIN / "ray"),
            "job",
            "submit",
            "--address",
            address,
            "--working-dir",
            str(ROOT),
            "--runtime-env-json",
            variables,
            "--",
            "python",
            *command,
        ]
        return subprocess.run(
            submitted, env=environment, capture_output=True, text=True, timeout=400, check=False
        )

    small = [
        "--set",
        "epochs=1",
        "--set",
        "batch=32",
        "--set",
        "encoder.width=16",
        "--set",
        "encoder.layers=2",
    ]
    pretrained = submit(
        "pretrain/run.py", "--recipe", "quickstart", "--data", arena, "--out", "mine", *small
    )
    assert pretrained.returncode == 0, pretrained.stdout + pretrained.stderr
    assert json.loads((home / "mine" / "result.json").read_text())["frames"] > 0
    assert (home / "mlflow.db").is_file(), (
        "the tracking store must lie beside the runs, not in the job's folder"
    )
    tuned = submit(
        "finetune/run.py",
        "--encoder",
        "mine",
        "--task",
        "classic_classification",
        "--data",
        arena,
        "--out",
        "tuned",
        "--trials",
        "1",
        "--seeds",
        "1",
        "--set",
        "steps=5",
    )
    assert tuned.returncode == 0, tuned.stdout + tuned.stderr
    result = json.loads((home / "tuned" / "result.json").read_text())
    assert 0 < result["map"] <= 1
    assert list((home / "tuned" / "predictions").glob("*.parquet"))

    refused = submit("pretrain/run.py", "--data", str(tmp_path / "nothing"))
    assert refused.returncode != 0
    assert "there is no store at" in refused.stdout + refused.stderr
