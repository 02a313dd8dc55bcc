"""Several machines: room for workers, what is checked before the first step, workers that come and
go, SIGTERM."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pretrain.cluster.resources import Machine, room, with_cpus_per_worker
from pretrain.config import Scale
from pretrain.errors import BadInput
from pretrain.runs.folder import is_locked, open_run_folder

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
"""


@pytest.mark.ray
@pytest.mark.slow
def test_processes_of_a_ray_of_our_own_ask_it_and_no_other_on_the_machine() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LOCAL],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
