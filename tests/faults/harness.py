"""What the tests of faults share: commands in processes of their own, machines that can be killed,
servers that can be cut off, and what a command leaves."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import random
import select
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import safetensors.torch
import torch
import yaml
from screenshots import free_port

from pretrain import prepare

ROOT = Path(__file__).parents[2]
SECONDS = 900
"""After which a command or a condition is given up."""
RECIPE = {
    "encoder": {"name": "tcn", "width": 8, "layers": 2},
    "objective": {"name": "contrastive", "projection": 8},
    "optimiser": {"lr": 0.01},
    "batch": 16,
    "window": 64,
    "epochs": 2,
    "seed": 3,
    "precision": "float32",
}
COMMANDS = {
    "pretrain": "pretrain.run --recipe recipe.yaml --data store",
    "finetune": "finetune.run --encoder handmade --task classic_classification --videos 3 "
    "--trials 4 --seeds 2 --set steps=24 --set evaluations=4 --set window=64 "
    "--set searcher=optuna --set postprocess_folds=0 --data store",
    "compare": "finetune.compare --encoders none handmade --tasks classic_classification "
    "--videos 3 --frozen-set trials=2 seeds=1 steps=12 evaluations=2 window=64 "
    "postprocess_folds=0 --data store",
    "reproduce": "finetune.reproduce --rows task1_single_frame task2_zero_shot --seeds 2 "
    "--epochs-share 0.0005 --data store",
}
CODE = """
import importlib, logging, sys
import pretrain.train.driver as driver
from pretrain.errors import exit_status
main = importlib.import_module(sys.argv[1]).main
logging.basicConfig(level=logging.INFO, format="%(message)s")
driver.RESIZE_SECONDS = 2.0
sys.exit(exit_status(lambda: main(sys.argv[2:])))
"""


class Lab:
    """A folder with a store of simulated mice, a recipe, a scale, and the commands' results.

    Args:
        folder: Where.
        scale: Of every command, laid over by those of :meth:`start`.
    """

    def __init__(self, folder: Path, **scale: Any) -> None:
        self.folder, self.scale = folder, scale
        prepare.main(["arena", "--frames", "15000", "--out", str(folder / "store")])
        (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))

    def start(self, command: str, out: str, *more: str, **scale: Any) -> subprocess.Popen[str]:
        """Starts a command; ``more`` are further words, ``scale`` further keys of the scale."""
        file = self.folder / f"{out}.yaml"
        file.write_text(yaml.safe_dump({"concurrent_trials": 1} | self.scale | scale))
        words = [*COMMANDS[command].split(), "--scale", str(file), "--out", out, *more]
        with (self.folder / f"{out}.log").open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-c", CODE, *words],
                cwd=self.folder,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=log,
                text=True,
            )

    def end(self, process: subprocess.Popen[str], out: str) -> tuple[int, str]:
        """Waits for a command; returns its exit status and what it printed."""
        try:
            process.wait(SECONDS)
        finally:
            process.kill()
        return process.returncode, (self.folder / f"{out}.log").read_text()

    def run(self, command: str, out: str, *more: str, **scale: Any) -> tuple[int, str]:
        """Runs a command to its end."""
        return self.end(self.start(command, out, *more, **scale), out)

    def records(self, out: str) -> int:
        """How many lines a run has logged: a clock that every command has."""
        files = (self.folder / out).rglob("metrics.jsonl")
        return sum(file.read_bytes().count(b"\n") for file in files)

    def checkpoints(self, out: str) -> list[str]:
        """Names of a pretraining run's complete checkpoints."""
        markers = (self.folder / out / "checkpoints").glob("checkpoint_*/complete")
        return sorted(marker.parent.name for marker in markers)

    def weights(self, out: str) -> dict[str, torch.Tensor]:
        """Of a pretraining run."""
        file = self.folder / out / "encoder" / "encoder.safetensors"
        return dict(safetensors.torch.load_file(file))

    def outcome(self, command: str, out: str) -> Any:
        """What must be the same whatever happened on the way."""
        folder = self.folder / out
        if command == "pretrain":
            return {name: x.tolist() for name, x in self.weights(out).items()}
        if command == "finetune":
            result = json.loads((folder / "result.json").read_text())
            return {key: result[key] for key in ("macro_f1", "map", "per_seed")}
        with (folder / "table.csv").open() as file:
            return [
                {key: cell for key, cell in row.items() if "seconds" not in key}
                for row in csv.DictReader(file)
            ]

    def running(self, out: str, tracking: str | None = None) -> list[str]:
        """Names of the runs of a folder that MLflow has as RUNNING."""
        from mlflow import MlflowClient

        files = (self.folder / out).rglob("metrics.jsonl")
        lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        keys = {record["run"] for record in lines}
        databases = [tracking] if tracking else self.folder.rglob("mlflow.db")
        open_runs, seen = [], 0
        for database in databases:
            client = MlflowClient(tracking or f"sqlite:///{database}")
            for run in client.search_runs([e.experiment_id for e in client.search_experiments()]):
                if run.data.tags.get("ethoray.run") in keys:
                    seen += 1
                    open_runs += [run.info.run_name] if run.info.status == "RUNNING" else []
        assert seen == len(keys), "MLflow has every run"
        return open_runs


def until(condition: Callable[[], object], process: subprocess.Popen[str]) -> bool:
    """Waits for a condition; returns False if the command ends before."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return True


def moment(case: str, most: int) -> int:
    """A number from 1 to ``most``, drawn for a case; ``FAULT_SEED`` draws others."""
    return random.Random(f"{case} {os.environ.get('FAULT_SEED', 0)}").randint(1, max(1, most))


@dataclass
class Machine:
    """A machine of a cluster: raylet and workers, which die together."""

    process: subprocess.Popen[bytes]

    @property
    def processes(self) -> list[psutil.Process]:
        """All of them."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def find(self, title: str) -> psutil.Process | None:
        """A process whose title has this in it."""
        for process in self.processes:
            with contextlib.suppress(psutil.Error):
                if title in " ".join(process.cmdline()[:1]):
                    return process
        return None

    def kill(self) -> None:
        """Without notice."""
        for process in [*self.processes, psutil.Process(self.process.pid)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()


class Cluster:
    """A Ray head without CPUs, and machines of one CPU each.

    Args:
        scratch: A short path, for Ray's sockets.
    """

    def __init__(self, scratch: Path) -> None:
        self._scratch, self.machines = scratch, list[Machine]()
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        self.head = self._start(
            ["--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false"], ""
        )

    def add(self, *, hidden: Path | None = None) -> Machine:
        """Adds a machine.

        Args:
            hidden: A folder that it does not see: it is given its own mount namespace (root only).
        """
        before = "" if hidden is None else f"mount -t tmpfs none {hidden} && "
        self.machines.append(self._start([f"--address={self.address}", "--num-cpus=1"], before))
        return self.machines[-1]

    def replace_machines(self, number: int, *, hidden: Path | None = None) -> None:
        """Kills all machines but the head and adds others."""
        while self.machines:
            self.machines.pop().kill()
        for _ in range(number):
            self.add(hidden=hidden)

    def _start(self, words: list[str], before: str) -> Machine:
        ray = Path(sys.executable).with_name("ray")
        command = " ".join(
            [
                *(before + "exec", str(ray), "start", "--block", "--disable-usage-stats"),
                *("--object-store-memory=80000000", "--node-ip-address=127.0.0.1", *words),
            ]
        )
        namespace = ["unshare", "-m"] if before else []
        with (self._scratch / "log").open("ab") as log:
            process = subprocess.Popen(
                [*namespace, "sh", "-c", command],
                env=os.environ
                | {
                    "PYTHONPATH": str(ROOT),
                    "RAY_TMPDIR": str(self._scratch),
                    "RAY_health_check_period_ms": "1000",
                    "RAY_health_check_failure_threshold": "5",
                },
                cwd=self._scratch,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 120
        machine = Machine(process)
        while not machine.find("raylet"):
            assert process.poll() is None, (self._scratch / "log").read_text()[-3000:]
            assert time.monotonic() < deadline, "the machine does not come up"
            time.sleep(0.1)
        return machine

    def find(self, title: str) -> psutil.Process | None:
        """A process of any machine whose title has this in it."""
        return next(filter(None, (m.find(title) for m in [self.head, *self.machines])), None)

    def wait_for(self, title: str, command: subprocess.Popen[str]) -> psutil.Process:
        """The first process with this in its title, once there is one."""
        found: list[psutil.Process | None] = [None]

        def is_there() -> bool:
            found[0] = self.find(title)
            return found[0] is not None

        assert until(is_there, command), f"the command ended before there was a {title}"
        assert found[0] is not None
        return found[0]

    def kill_machine_of(self, process: psutil.Process) -> None:
        """Kills the machine that a process runs on."""
        machine = next(one for one in self.machines if process in one.processes)
        self.machines.remove(machine)
        machine.kill()

    def close(self) -> None:
        """Ends all machines."""
        for machine in [*self.machines, self.head]:
            if machine.process.poll() is None:
                machine.kill()


class Relay:
    """A port behind which a server is, and which can be closed: an outage that ends at once."""

    def __init__(self, server_port: int) -> None:
        self._target = ("127.0.0.1", server_port)
        self._server: socketserver.ThreadingTCPServer | None = None
        self._open: set[socket.socket] = set()
        self.port = 0
        self.open()

    def open(self) -> None:
        """Lets everything through."""
        relay = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                relay._pump(self.request)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address, daemon_threads, block_on_close = True, True, False

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def cut(self) -> None:
        """Refuses connections and drops those there are."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _pump(self, caller: socket.socket) -> None:
        with contextlib.suppress(OSError), socket.create_connection(self._target) as server:
            self._open |= {caller, server}
            other = {caller: server, server: caller}
            while ready := select.select(list(other), [], [])[0]:
                for one in ready:
                    if not (data := one.recv(1 << 16)):
                        return
                    other[one].sendall(data)


def kill(process: psutil.Process | subprocess.Popen[str]) -> None:
    """Without notice."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGKILL)
