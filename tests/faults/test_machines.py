"""Runs that are stopped, moved and disturbed, in processes of their own, end as the undisturbed
one."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml
from worlds import wander_store

ROOT = Path(__file__).parents[2]
RECIPE = {
    "encoder": {"name": "tcn", "width": 8, "layers": 2},
    "objective": {"name": "contrastive", "projection": 8},
    "optimiser": {"lr": 0.01},
    "batch": 4,
    "window": 32,
    "epochs": 4,
    "seed": 3,
    "precision": "float32",
}

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.faults]

CODE = """
import logging, sys
import pretrain.train.driver as driver
from pretrain.errors import exit_status
from pretrain.run import main
logging.basicConfig(level=logging.INFO, format="%(message)s")
driver.RESIZE_SECONDS = 2.0
sys.exit(exit_status(lambda: main(sys.argv[1:])))
"""


class Lab:
    """A store, a recipe, and pretraining commands in processes of their own."""

    def __init__(self, folder: Path, lengths: list[int]) -> None:
        self.folder = folder
        wander_store(folder / "store", lengths)
        (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))

    def start(self, out: str, *more: str) -> subprocess.Popen[str]:
        words = ["--recipe", "recipe.yaml", "--data", "store", "--out", out, *more]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            [sys.executable, "-c", CODE, *words],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, out: str, *more: str) -> tuple[int, str]:
        process = self.start(out, *more)
        said, _ = process.communicate(timeout=900)
        return process.returncode, said

    def weights(self, out: str) -> dict[str, torch.Tensor]:
        return dict(
            safetensors.torch.load_file(self.folder / out / "encoder" / "encoder.safetensors")
        )

    def checkpoints(self, out: str) -> list[str]:
        markers = (self.folder / out / "checkpoints").glob("checkpoint_*/complete")
        return sorted(marker.parent.name for marker in markers)

    def until(self, condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + 120
        while not condition():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"), [3000, 5000, 640, 1500])


@pytest.fixture(scope="module")
def whole(lab: Lab) -> dict[str, torch.Tensor]:
    """The weights of a run that nobody disturbed."""
    status, said = lab.run("whole")
    assert status == 0, said
    return lab.weights("whole")


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_sigterm_writes_a_checkpoint_and_an_earlier_one_can_be_chosen(
    lab: Lab, whole: dict[str, torch.Tensor]
) -> None:
    process = lab.start("stopped")
    log = lab.folder / "stopped" / "train.log"
    lab.until(lambda: log.exists() and "step 9 " in log.read_text(), process)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "after a last checkpoint: go on with --resume" in said
    assert "Traceback" not in said
    last = lab.checkpoints("stopped")[-1]
    about = json.loads(
        (lab.folder / "stopped/checkpoints" / last / "encoder/encoder.json").read_text()
    )
    assert about["made_by"]["step"] < about["made_by"]["steps"]

    status, said = lab.run("stopped", "--resume", "--from", "checkpoint_of_nobody")
    assert status == 2
    assert last in said, "those there are, are listed"
    (lab.folder / "stopped/checkpoints/checkpoint_half/encoder").mkdir(parents=True)
    status, said = lab.run("stopped", "--resume", "--from", last)
    assert status == 0, said
    assert_equal(lab.weights("stopped"), whole)
    assert not (lab.folder / "stopped/checkpoints/checkpoint_half").exists()


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """A Ray head without CPUs; a test adds machines to it."""
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="eth-", dir="/tmp")
    monkeypatch.setenv("RAY_TMPDIR", folder)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": 80 << 20},
    )
    try:
        yield cluster
    finally:
        with contextlib.suppress(Exception):
            cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def test_a_machine_that_comes_and_one_that_goes_change_no_result(
    lab: Lab, whole: dict[str, torch.Tensor], nodes: object
) -> None:
    first = nodes.add_node(num_cpus=1, object_store_memory=80 << 20)  # type: ignore[attr-defined]
    scale = ["workers=[1,2]", "cpus_per_worker=1", "checkpoint_steps=10", "retries=2"]
    scale.append(f"address={nodes.address}")  # type: ignore[attr-defined]
    process = lab.start("elastic", *(word for one in scale for word in ("--set", one)))
    lab.until(lambda: lab.checkpoints("elastic"), process)
    nodes.add_node(num_cpus=1, object_store_memory=80 << 20)  # type: ignore[attr-defined]
    before = lab.checkpoints("elastic")
    lab.until(lambda: lab.checkpoints("elastic")[-1] > before[-1], process)
    nodes.remove_node(first, allow_graceful=False)  # type: ignore[attr-defined]
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 0, said
    for name, value in lab.weights("elastic").items():
        torch.testing.assert_close(value, whole[name], atol=1e-5, rtol=1e-4)
    loss = [
        json.loads((lab.folder / out / "result.json").read_text())["loss"]
        for out in ("whole", "elastic")
    ]
    assert loss[0] == pytest.approx(loss[1], rel=1e-4)


def test_machines_that_cannot_work_together_are_refused_before_the_first_step(
    lab: Lab, nodes: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    for package in ("pretrain", "finetune", "ethoray"):
        shutil.copytree(ROOT / package, other / package)
    with (other / "pretrain" / "errors.py").open("a") as file:
        file.write("# another version\n")
    monkeypatch.setenv("PYTHONPATH", str(other))
    nodes.add_node(num_cpus=2, object_store_memory=80 << 20)  # type: ignore[attr-defined]
    address = f"address={nodes.address}"  # type: ignore[attr-defined]
    status, said = lab.run("apart", "--set", address)
    assert status == 2, said
    assert "ethoray is " in said
    assert "run the same files there" in said
    assert not (lab.folder / "apart" / "checkpoints").exists()
