"""What all tests share: a quiet and quick Ray, places of their own that go away afterwards, the
real recordings."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pretrain.runs import paths, quiet_environment

# Before anything imports ray or torch, which read them once.
quiet_environment.set_defaults(
    quiet_environment.RAY
    | quiet_environment.MLFLOW
    | {
        "OMP_NUM_THREADS": "1",
        # Ray's own 15 lets the tests of the other process (`make test` has two) starve its workers
        "RAY_worker_niceness": "0",
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
    """The default store is made once a session, a quarter as long as that of users, and Ray's
    session folders go when the session ends."""
    # Ray keeps sockets in there, whose paths may have 107 characters at most.
    ray_folder = tempfile.mkdtemp(prefix="eth-", dir="/tmp" if os.path.isdir("/tmp") else None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETHORAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("RAY_TMPDIR", ray_folder)
        patch.delenv("ETHORAY_HOME", raising=False)
        patch.setattr(paths, "DEFAULT_FRAMES", 15_000)
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that two workers (`make test`) end at the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real recordings; tests that need it are skipped where it is absent."""
    if not os.environ.get("ETHORAY_REAL_DATA"):
        pytest.skip("ETHORAY_REAL_DATA does not name a folder of real recordings")
    return Path(os.environ["ETHORAY_REAL_DATA"])


@pytest.fixture
def add_component(tmp_path: Path) -> Iterator[Callable[[str, str, str], None]]:
    """Adds a file with some code to a folder of components, ``pretrain.encoders`` say, for one
    test."""
    added = []

    def add(package: str, name: str, code: str) -> None:
        folder = tmp_path / "components"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text(code, encoding="utf-8")
        folders = importlib.import_module(package).__path__
        folders.append(str(folder))
        added.append((folders, str(folder), f"{package}.{name}"))
        importlib.invalidate_caches()

    yield add
    for folders, folder, module in added:
        folders.remove(folder)
        sys.modules.pop(module, None)
