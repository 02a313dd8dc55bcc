"""Several machines: room for workers, what is checked before the first step, workers that come and
go, SIGTERM."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from worlds import wander_store

from pretrain.cluster.resources import Machine, room, with_cpus_per_worker
from pretrain.config import Scale
from pretrain.data import ray_stream
from pretrain.data.ray_stream import FrameStream
from pretrain.data.windows import BatchPlan
from pretrain.errors import BadInput
from pretrain.runs.folder import is_locked, open_run_folder
from pretrain.train.driver import network_environment

ROOT = Path(__file__).parent.parent
SMALL = Machine("small", cpus=2)
WITH_GPUS = Machine("with GPUs", cpus=16, gpus=4)


@pytest.mark.parametrize(
    ("machines", "cpus", "gpu", "workers"),
    [
        ([SMALL], 1.0, False, 2),
        ([SMALL, SMALL], 1.5, False, 2),
        ([WITH_GPUS], 4.0, True, 4),
        ([WITH_GPUS, SMALL], 2.0, True, 4),
        ([SMALL], 3.0, False, 0),
    ],
)
def test_a_worker_needs_room_on_one_machine(
    machines: list[Machine], cpus: float, gpu: bool, workers: int
) -> None:
    assert room(machines, cpus, gpu=gpu) == workers


def test_cpus_of_a_worker_follow_from_the_machines() -> None:
    four = Scale(workers=4, gpu=True)
    assert with_cpus_per_worker(four, [WITH_GPUS]).cpus_per_worker == 4
    assert with_cpus_per_worker(Scale(workers=2), [SMALL]).cpus_per_worker == 1
    assert with_cpus_per_worker(Scale(workers=[1, 8]), [SMALL]).cpus_per_worker == 2, (
        "where the most find no room, the fewest get what there is"
    )
    with pytest.raises(BadInput, match=r"there is room for 0.*gpu=false"):
        with_cpus_per_worker(Scale(workers=1, gpu=True), [SMALL])
    with pytest.raises(BadInput, match=r"3 workers want 1.5 CPUs each.*small has 2 CPUs; small"):
        with_cpus_per_worker(Scale(workers=3, cpus_per_worker=1.5), [SMALL, SMALL])


def test_a_second_process_is_kept_out_of_a_run(tmp_path: Path) -> None:
    out, settings = tmp_path / "run", {"a": 1}
    with open_run_folder(out, settings, resume=False):
        (out / "something").touch()
        assert is_locked(out)
        with (
            pytest.raises(BadInput, match="another process is at work"),
            open_run_folder(out, settings, resume=True),
        ):
            pytest.fail("it went on beside a living process")
    assert not is_locked(out)
    with open_run_folder(out, settings, resume=True):
        pass


LOCAL = """
import os, ray
from pretrain.cluster.join import cluster
from pretrain.config import Scale
with cluster(Scale(cpus=1)):
    asked = ray.remote(num_cpus=0)(lambda: os.environ["RAY_ADDRESS"])
    assert ray.get(asked.remote()) == ray.get_runtime_context().gcs_address
    assert "RAY_ADDRESS" not in os.environ
    seen = ray.remote(num_cpus=0)(lambda: os.environ["CUDA_VISIBLE_DEVICES"])
    assert ray.get(seen.remote()) == "", "what reserves no GPU finds none, wherever it runs"
"""


@pytest.mark.ray
@pytest.mark.slow
def test_processes_of_a_ray_of_our_own_ask_it_and_no_other_on_the_machine() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LOCAL],
        env=os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr


def test_what_the_driver_is_told_of_the_network_reaches_the_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth1")
    monkeypatch.setenv("NCC_OTHER", "x")
    told = network_environment()
    assert (told["NCCL_SOCKET_IFNAME"], told["GLOO_SOCKET_IFNAME"]) == ("ib0", "eth1")
    assert not [name for name in told if not name.startswith(("NCCL_", "GLOO_"))]


def test_frames_that_a_gpu_has_no_room_for_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = wander_store(tmp_path / "store", [2000])
    plan = BatchPlan.from_chunks(store.chunks, window=32, batch=4, seed=0)
    assert FrameStream(store, plan, resident_bytes=1e9).resident
    monkeypatch.setattr(ray_stream, "_free_bytes", lambda device: 1e5)
    assert not FrameStream(store, plan, resident_bytes=1e9).resident
    assert "the GPU has room for 0.0" in caplog.text
