"""Whatever is killed or cut off, at whatever moment: the command, if need be gone on with, ends
with the undisturbed run's result, and leaves no MLflow run RUNNING.

A case is a command, what is hit, and a draw of the moment, which is counted in records that the
command has logged. ``FAULT_SEED=7 make faults`` draws others.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import Cluster, Lab, Relay, kill, moment, until

from pretrain import prepare

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.faults]

VICTIMS = {
    "worker": "RayTrainWorker",
    "controller": "TrainController",
    "trial": "ImplicitFunc",
    "row": "_run_piece",
}
CASES = [
    *(("pretrain", "driver", draw) for draw in range(3)),
    *(("pretrain", "worker", draw) for draw in range(3)),
    *(("pretrain", "controller", draw) for draw in range(2)),
    *(("pretrain", "machine", draw) for draw in range(2)),
    *(("pretrain", "storage", draw) for draw in range(2)),
    *(("pretrain", "tracking", draw) for draw in range(2)),
    *(("finetune", "driver", draw) for draw in range(2)),
    *(("finetune", "trial", draw) for draw in range(2)),
    ("finetune", "machine", 0),
    ("finetune", "tracking", 0),
    *(("compare", "driver", draw) for draw in range(2)),
    ("compare", "trial", 0),
    *(("reproduce", "driver", draw) for draw in range(2)),
    ("reproduce", "row", 0),
]


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """An MLflow server behind a relay."""
    from test_tracking import ServerProcess

    from pretrain.runs.tracked_run import open_tracking

    folder = tmp_path_factory.mktemp("mlflow")
    open_tracking(None, runs_folder=folder)
    server = ServerProcess(folder, folder / "mlflow.db")
    try:
        server.start()
        yield Relay(server.port)
    finally:
        server.kill()


@pytest.fixture(scope="module")
def storage() -> Iterator[Relay]:
    """An S3 server behind a relay, with a bucket named lab; the environment tells where."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    relay = Relay(server.get_host_and_port()[1])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{relay.port}",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="lab")
        yield relay
    server.stop()


@pytest.fixture(scope="module")
def cluster(storage: Relay) -> Iterator[Cluster]:
    """Two machines: one works, the other is spare."""
    scratch = Path(tempfile.mkdtemp(prefix="eth-", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        (scratch / "token").write_text("0123456789abcdef" * 4)
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "180")  # of a busy machine
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(scratch / "token"))
        started = Cluster(scratch)
        try:
            started.add()
            started.add()
            yield started
        finally:
            started.close()
            shutil.rmtree(scratch, ignore_errors=True)


@pytest.fixture(scope="module")
def lab(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    scale = {"cpus_per_worker": 1.0, "retries": 3, "checkpoint_steps": 5}
    return Lab(tmp_path_factory.mktemp("lab"), address=cluster.address, **scale)


@pytest.fixture(scope="module")
def undisturbed(lab: Lab) -> dict[str, tuple[Any, int]]:
    """Result and number of records of a command that nobody disturbs; run when first asked for."""

    class Runs(dict[str, tuple[Any, int]]):
        def __missing__(self, command: str) -> tuple[Any, int]:
            status, said = lab.run(command, f"{command}-whole")
            assert status == 0, said
            self[command] = (
                lab.outcome(command, f"{command}-whole"),
                lab.records(f"{command}-whole"),
            )
            return self[command]

    return Runs()


@pytest.mark.parametrize(("command", "hit", "draw"), CASES)
def test_a_fault_changes_no_result(
    command: str,
    hit: str,
    draw: int,
    lab: Lab,
    cluster: Cluster,
    request: pytest.FixtureRequest,
    undisturbed: dict[str, tuple[Any, int]],
) -> None:
    expected, records = undisturbed[command]
    out = f"{command}-{hit}-{draw}"
    scale, server = {}, None
    if hit in ("storage", "tracking"):
        server = request.getfixturevalue(hit)
        addresses = {"storage": "s3://lab/runs", "tracking": f"http://127.0.0.1:{server.port}"}
        scale[hit] = addresses[hit]
    when = moment(out, records // (4 if hit in VICTIMS else 2))  # there must be one to kill
    process = lab.start(command, out, **scale)
    title = VICTIMS.get(hit, VICTIMS["worker" if command == "pretrain" else "trial"])
    log = lab.folder / f"{out}.log"
    assert until(lambda: lab.records(out) >= when, process), log.read_text()
    victim = None if hit == "driver" else cluster.wait_for(title, process)
    match hit:
        case "driver":
            kill(process)
        case "machine":
            cluster.kill_machine_of(victim)
            cluster.add()
        case "storage" | "tracking":
            server.cut()
            time.sleep(2 + 3 * draw)
            server.open()
        case _:
            kill(victim)
    status, said = lab.end(process, out)
    if hit == "driver":
        assert status != 0, "it was killed"
    for _ in range(3):
        if status:
            status, said = lab.run(command, out, "--resume", **scale)
    assert status == 0, said
    assert lab.outcome(command, out) == expected
    assert not lab.running(out, scale.get("tracking"))


@pytest.mark.skipif(os.geteuid() != 0, reason="mount namespaces are root's")
@pytest.mark.parametrize("spare", [True, False], ids=["spare", "no spare"])
def test_machines_that_share_nothing_but_s3(
    spare: bool,
    lab: Lab,
    cluster: Cluster,
    undisturbed: dict[str, tuple[Any, int]],
    request: pytest.FixtureRequest,
) -> None:
    """Two work and one of them is killed; the lab's folder is empty on each of them."""
    _, records = undisturbed["pretrain"]
    prepare.main(["arena", "--frames", "15000", "--out", f"s3://lab/store-{spare}"])
    request.addfinalizer(lambda: cluster.replace_machines(2))
    cluster.replace_machines(3 if spare else 2, hidden=lab.folder)
    out, workers = f"apart-{spare}", 2 if spare else [1, 2]
    process = lab.start(
        *("pretrain", out, "--data", f"s3://lab/store-{spare}"),
        storage="s3://lab/runs",
        workers=workers,
    )
    when = moment(out, records // 2)
    assert until(lambda: lab.records(out) >= when, process), (lab.folder / f"{out}.log").read_text()
    cluster.kill_machine_of(cluster.wait_for(VICTIMS["worker"], process))
    status, said = lab.end(process, out)
    assert status == 0, said
    whole = lab.weights("pretrain-whole")
    for name, value in lab.weights(out).items():  # sums of another order
        torch.testing.assert_close(value, whole[name], atol=1e-4, rtol=1e-3)
    assert not lab.running(out)
