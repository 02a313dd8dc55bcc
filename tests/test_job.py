"""Jobs submitted to a head without CPUs and two machines, by the commands of docs/cluster.md."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from screenshots import free_port

from pretrain.runs import paths

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
SMALL = {
    "pretrain/run.py": "--recipe quickstart --set epochs=1 --set batch=32 --set encoder.width=16 "
    "--set encoder.layers=2",
    "finetune/run.py": "--trials 1 --seeds 1 --set steps=5",
    "finetune/reproduce.py": "--rows task1_single_frame --seeds 1 --epochs-share 0.0001",
}


MACHINES_ARE_UP = """
import ray, time
ray.init(log_to_driver=False, logging_level="ERROR")
while sum(node["Alive"] for node in ray.nodes()) < 3:
    time.sleep(0.5)
"""


def blocks() -> list[str]:
    """What the page has to be typed on the head, on the other machines, and to submit; the
    environment is the one that runs the tests."""
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    section = page.partition("## Submitting to a Ray cluster")[2].partition("\n## ")[0]
    return [
        block.replace(". .venv/bin/activate", ":")
        for block in re.findall(r"^```\n(.*?)^```", section, flags=re.S | re.M)
    ]


@pytest.fixture(scope="module")
def submitting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """The block that submits, for a cluster that is up, and the environment it is typed in."""
    on_head, on_machine, submit = blocks()
    scratch = Path("/tmp") / f"eth-{os.getpid()}"  # Ray's sockets need a short path
    scratch.mkdir()
    (scratch / "token").write_text("0123456789abcdef" * 4)
    environment = os.environ | {
        "RAY_AUTH_TOKEN_PATH": str(scratch / "token"),
        "RAY_TMPDIR": str(scratch),
        # what activating the environment does: a job's `python` is found there
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "ETHORAY_HOME": str(tmp_path_factory.mktemp("home")),
    }
    environment.pop("RAY_ADDRESS", None)
    ports = {"6379": str(free_port()), "8265": str(free_port()), "HEAD": "127.0.0.1"}

    def here(block: str) -> str:
        for word, value in ports.items():
            block = re.sub(rf"\b{word}\b", value, block)
        return block

    started = []

    def start(block: str, *more: str) -> None:
        own = ["--node-ip-address=127.0.0.1", "--object-store-memory=100000000", *more]
        # The usual ports of its agent may be taken by another Ray.
        own += [f"--dashboard-agent-{kind}-port={free_port()}" for kind in ("listen", "grpc")]
        started.append(
            subprocess.Popen(
                ["bash", "-ec", here(block).replace("--block", f"--block {' '.join(own)}")],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )

    try:
        start(on_head)
        wait, _, _ = submit.partition("ray job submit --working-dir")
        subprocess.run(["bash", "-ec", here(wait)], env=environment, check=True, timeout=600)
        for _ in range(2):
            start(on_machine, "--num-cpus=1")
            # two that start at once on one computer get into each other's way
            while not any(
                "raylet" in one.name()
                for one in psutil.Process(started[-1].pid).children(recursive=True)
            ):
                assert started[-1].poll() is None, "the machine does not come up"
                time.sleep(0.2)
        counted = {"RAY_AUTH_MODE": "token", "RAY_ADDRESS": f"127.0.0.1:{ports['6379']}"}
        waiting = [sys.executable, "-c", MACHINES_ARE_UP]
        subprocess.run(waiting, env=environment | counted, check=True, timeout=600)
        yield here(submit), environment
    finally:
        # Ray waits half a minute for its own processes to end; they hold nothing that is wanted.
        alive = [psutil.Process(one.pid) for one in started if one.poll() is None]
        alive += [child for one in alive for child in one.children(recursive=True)]
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGTERM)
        for process in psutil.wait_procs(alive, timeout=3)[1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for one in started:
            one.wait(60)
        shutil.rmtree(scratch, ignore_errors=True)


class Page:
    """The jobs that the page submits, with its places moved to a folder of the test."""

    def __init__(self, block: str, environment: dict[str, str], folder: Path) -> None:
        self._environment, self.folder = environment, folder
        self.home = Path(environment["ETHORAY_HOME"])
        shutil.copytree(paths.default_store(), folder / "store")
        block = block.replace("/shared/", f"{folder}/")
        before, *self.jobs = re.split(r"^(?=ray job submit --working-dir)", block, flags=re.M)
        self._exports = [line for line in before.splitlines() if line.startswith("export")]

    def submit(self, job: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-ec", "\n".join([*self._exports, job])],
            env=self._environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def run(self, job: str) -> None:
        program = next(name for name in SMALL if name in job)
        done = self.submit(f"{job.strip()} {SMALL[program]}")
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def page(submitting: tuple[str, dict[str, str]], own_places: None, tmp_path: Path) -> Page:
    return Page(*submitting, tmp_path)


@pytest.mark.ray
@pytest.mark.slow
def test_a_job_of_the_page_leaves_its_results(page: Page) -> None:
    pretraining = page.jobs[0]
    assert "pretrain/run.py" in pretraining
    page.run(pretraining)
    result = json.loads((page.folder / "runs" / "mine" / "result.json").read_text())
    assert (result["frames"] > 0, result["scale"]["workers"]) == (True, 2)
    assert list((page.folder / "checkpoints" / "mine").glob("checkpoint_*"))


@pytest.mark.ray
@pytest.mark.faults
def test_all_jobs_of_the_page_leave_their_results(page: Page) -> None:
    assert len(page.jobs) == 3
    for job in page.jobs:
        page.run(job)
    runs = page.folder / "runs"
    assert 0 < json.loads((runs / "task1" / "result.json").read_text())["map"] <= 1
    assert (runs / "paper" / "table.csv").is_file()

    # a relative --out survives the job's folder
    page.run(
        "ray job submit --working-dir . -- python finetune/run.py --out tuned "
        f"--data {page.folder}/store --encoder handmade --task classic_classification"
    )
    assert (page.home / "tuned" / "result.json").is_file()
    assert (page.home / "mlflow.db").is_file(), "the tracking store lies next to the runs"

    job = "ray job submit --working-dir . -- python finetune/run.py --task classic_classification"
    refused = page.submit(f"{job} --data {page.folder}/nothing")
    assert refused.returncode != 0
    assert "there is no store at" in refused.stdout + refused.stderr
