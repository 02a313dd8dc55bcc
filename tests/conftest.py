"""What all tests share: a quiet and quick Ray, places of their own that go away afterwards, the
real recordings."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pretrain.runs import quiet_environment

# Before anything imports ray or torch, which read them once.
quiet_environment.set_defaults(
    quiet_environment.RAY
    | quiet_environment.MLFLOW
    | {
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
        "RAY_DATA_EXECUTION_NO_PROGRESS_TIMEOUT_S": "120",
        "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    }
)
# A test must not join whatever Ray happens to run on this machine.
os.environ.pop("RAY_ADDRESS", None)


@pytest.fixture(scope="session", autouse=True)
def own_places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The default store is made once a session, and Ray's session folders go when the session
    ends."""
    # Ray keeps sockets in there, whose paths may have 107 characters at most.
    ray_folder = tempfile.mkdtemp(prefix="eth-", dir="/tmp" if os.path.isdir("/tmp") else None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETHORAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("RAY_TMPDIR", ray_folder)
        patch.delenv("ETHORAY_HOME", raising=False)
        yield
    shutil.rmtree(ray_folder, ignore_errors=True)


@pytest.fixture(scope="session")
def ray_here(own_places: None) -> Iterator[None]:
    """One Ray of four CPUs for all tests that run in this process; commands called in-process run
    on it."""
    ray = pytest.importorskip("ray")
    if not ray.is_initialized():
        ray.init(
            address="local",
            num_cpus=4,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=128 * 2**20,
        )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real recordings; tests that need it are skipped where it is absent."""
    folder = Path(
        os.environ.get("ETHORAY_REAL_DATA") or Path(__file__).parents[2] / "shared" / "data"
    )
    if not folder.is_dir():
        pytest.skip(f"the real recordings are not at {folder}; set ETHORAY_REAL_DATA")
    return folder
