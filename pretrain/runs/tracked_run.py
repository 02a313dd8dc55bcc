"""Runs in MLflow and their children, as whoever trains sees them.

    tracking = open_tracking(None, runs_folder="runs")
    with tracking.start("contrastive", "seed 0", params=recipe, folder=out) as run:
        run.log_metrics({"loss": 2.3}, step=100)

Every call returns at once, whatever the server does: a record is written to ``metrics.jsonl`` in
the run's folder and then sent by a background thread. Only the process that started the command
logs; what workers measure is brought to it (pretrain/train/driver.py).
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import shlex
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from pretrain.redact import redact
from pretrain.runs.addresses import full_address, ui_command
from pretrain.runs.background_sender import BackgroundSender
from pretrain.runs.json_lines import JsonLines, Record
from pretrain.runs.mlflow_limits import (
    NAME_CHARACTERS,
    PARAM_CHARACTERS,
    flat,
    free_name,
    plain_tags,
    shorten,
)
from pretrain.runs.mlflow_server import MLflowServer, reason
from pretrain.runs.provenance import code_tags, machine_tags

log = logging.getLogger(__name__)

Status = Literal["FINISHED", "FAILED", "KILLED"]

FINISH_S = 10.0


def open_tracking(address: str | None, *, runs_folder: str | Path) -> Tracking:
    """Opens the place where runs are kept.

    Args:
        address: An MLflow server (``http://host:5000``) or database; None is a file, ``mlflow.db``,
            in the runs folder.
        runs_folder: The folder that holds the runs' folders.

    Raises:
        BadInput: If the address is none that MLflow knows. A server that is away is not an error.
    """
    server = MLflowServer(full_address(address, runs_folder=runs_folder))
    try:
        # here, where a caller may have something else begin meanwhile, and not at the first record
        server.create_database()
    # whatever keeps MLflow from its database must not keep anybody from training
    except Exception as error:
        log.warning(
            "MLflow's database at %s cannot be made: %s. The run goes on; what it logs is kept in "
            "the metrics.jsonl of its folder",
            redact(server.address),
            reason(error),
        )
    return Tracking(server, Path(runs_folder))


class Tracking:
    """Where runs are kept; made by :func:`open_tracking`.

    Attributes:
        server: What records are sent to.
        address: Its address without password.
    """

    def __init__(self, server: MLflowServer, runs_folder: Path) -> None:
        self.server, self.address = server, redact(server.address)
        self._runs_folder = runs_folder

    def __repr__(self) -> str:
        return f"Tracking({self.address!r})"

    def start(
        self,
        experiment: str,
        name: str,
        *,
        folder: str | Path | None = None,
        parent: TrackedRun | None = None,
        params: Mapping[str, Any] | None = None,
        resume: bool = False,
    ) -> TrackedRun:
        """Starts a run, tagged with commit, release and machine.

        Args:
            experiment: Experiment, made if it is new.
            name: Name of the run.
            folder: The run's folder, for ``metrics.jsonl``; a child has its parent's.
            parent: The run it is a child of.
            params: Settings, as for :meth:`TrackedRun.log_params`; a child has its parent's, too,
                unless they are its own.
            resume: Go on with the run of that name in the folder, if there is one.
        """
        if parent:
            sender, inherited = parent.sender, dict(parent.inherited)
            params = dict(flat(parent.params)) | dict(flat(params or {}))
        else:
            assert folder is not None, "a run that is no child needs a folder"
            file = JsonLines(Path(folder).expanduser().absolute() / "metrics.jsonl")
            sender = BackgroundSender(self.server.send, file=file, address=self.address)
            inherited = code_tags() | machine_tags()
        earlier: list[Record] = []
        with contextlib.suppress(OSError):  # the first record meets the error too, and reports it
            sender.file.path.parent.mkdir(parents=True, exist_ok=True)
            earlier = sender.file.read() if resume else []
        named = [r for r in earlier if (r.get("experiment"), r.get("name")) == (experiment, name)]
        started = [r["run"] for r in named if r["kind"] == "start"]
        if parent is None:  # the server may have missed some of it, and keeps one copy of the rest
            sender.send_again(earlier)
        key = started[-1] if started else uuid.uuid4().hex
        run = TrackedRun(self, sender, experiment, name, key, parent, inherited, params or {})
        run.put(
            "start",
            name=name,
            parent=parent.key if parent else None,
            resumed=bool(started),
            tags=inherited | {"ethoray.run": key},
        )
        if params:
            run.log_params(params)
        return run

    def ui_command(self, experiment: str | None = None) -> str:
        """What to type, and which page to open, to see the runs of an experiment, or all."""
        known = self.server.experiment_id(experiment) if experiment else None
        return ui_command(self.server.address, self._runs_folder, experiment_id=known)


@dataclass(eq=False)
class TrackedRun:
    """A run in MLflow: logging to it is never an error and never a wait.

    Made by :meth:`Tracking.start`. In a ``with`` block it ends FINISHED, FAILED (an exception) or
    KILLED (Ctrl-C).
    """

    tracking: Tracking
    """Where it is logged; ``run.tracking.start(run.experiment, …, parent=run)`` starts a child."""
    sender: BackgroundSender
    """Writes its records to the folder and sends them."""
    experiment: str
    name: str
    key: str
    """Its own name for itself (tag ``ethoray.run``), known even while the server is away."""
    parent: TrackedRun | None
    inherited: dict[str, str]
    """Tags that its children get too."""
    params: Mapping[str, Any] = field(repr=False)
    """Settings that it was started with, which its children get too."""
    status: Status | None = None

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run; None until the server has answered once."""
        return self.tracking.server.run_id(self.key)

    def log_metrics(self, metrics: Mapping[str, Any], *, step: int) -> None:
        """Logs numbers at a step; nested mappings become dotted names. NaN and infinity are numbers
        too."""
        numbers: dict[str, float | str] = {}
        for name, value in flat(metrics):
            try:
                number = float(value)
            except (TypeError, ValueError, RuntimeError):
                log.warning(
                    "the metric %s of run %s is not a number and is left out: %.80r",
                    name,
                    self.name,
                    value,
                )
                continue
            # JSON has no NaN
            numbers[free_name(name, numbers)] = number if math.isfinite(number) else str(number)
        if numbers:
            self.put("metrics", step=int(step), metrics=numbers)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Logs settings, each once in a run: nested mappings become dotted names, lists and None
        their JSON.

        What exceeds MLflow's limits is cut, and the whole is kept as the artifact ``params.json``.
        """
        values: dict[str, str] = {}
        too_long = False
        for name, value in flat(params):
            text = redact(value if isinstance(value, str) else _json(value))
            too_long = too_long or len(text) > PARAM_CHARACTERS or len(name) > NAME_CHARACTERS
            values[free_name(name, values)] = shorten(text, PARAM_CHARACTERS)
        self.put("params", params=values)
        if too_long:
            text = redact(_json(dict(flat(params)), indent=1))
            self.put("text", text=text, file="params.json")

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Sets tags; the last value of a name stays."""
        self.put("tags", tags=plain_tags(tags))

    def log_artifact(self, path: str | Path) -> None:
        """Keeps a copy of a file among the run's artifacts; it must stay where it is until it was
        sent."""
        self.put("artifact", path=str(Path(path).absolute()))

    def log_model(self, folder: Path, *, opener: str, register: str | None = None) -> None:
        """Keeps an encoder or model as one of MLflow's, written to ``mlflow_model/`` in the run's
        folder.

        Args:
            folder: Encoder or model.
            opener: As of :class:`pretrain.runs.mlflow_model.Served`.
            register: ``NAME`` or ``NAME@ALIAS`` in the model registry.
        """
        path = self.sender.file.path.parent / "mlflow_model"
        try:
            from pretrain.runs.mlflow_model import save_mlflow_model

            save_mlflow_model(path, folder, opener=opener)
        except Exception as error:  # the run is whole without it
            log.warning("%s is not kept as a model of MLflow: %s", folder, reason(error))
            return
        self.put("model", path=str(path), name=folder.name, register=register)

    def log_dataset(self, name: str, fingerprint: str, uri: str | Path) -> None:
        """Names exactly the data the run saw: as a dataset of the run and as a tag, which later
        children inherit.

        Args:
            name: What people call it.
            fingerprint: ``Store.fingerprint``.
            uri: Where it was read from.
        """
        self.put("dataset", name=name, fingerprint=fingerprint, uri=redact(str(uri)))
        self.inherited |= plain_tags({"ethoray.data": fingerprint})
        self.set_tags({"ethoray.data": fingerprint})

    def put(self, kind: str, **fields: Any) -> None:
        """Writes and queues a record of this run."""
        self.sender.put(_record(kind, self.key, self.experiment, **fields))

    def finish(self, status: Status = "FINISHED") -> bool:
        """Ends the run. One that is no child also ends the children that were left open, and waits
        until all is sent.

        Gives up on a server that takes nothing for ten seconds; a warning then says how to send the
        rest.

        Returns:
            Whether all was sent; a child does not wait to know.
        """
        if self.status is not None:
            return True
        self.status = status
        if self.parent is None:
            for child in _open_children(self.sender.file, self.key):
                self.sender.put(_record("status", child, self.experiment, status="KILLED"))
        self.put("status", status=status)
        left = 0 if self.parent else self.sender.drain(FINISH_S)
        if left:
            module = [sys.executable, "-m", "pretrain.runs.replay"]
            log.warning(
                "%d records of run %r are not sent yet. They are kept; when the server is back: %s",
                left,
                self.name,
                shlex.join([*module, str(self.sender.file.path), self.tracking.address]),
            )
        return left == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
            self.finish()
        else:
            self.set_tags({"ethoray.error": f"{type(error).__name__}: {error}"})
            self.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")


def _record(kind: str, key: str, experiment: str, **fields: Any) -> Record:
    stamp = {"kind": kind, "run": key, "experiment": experiment, "time": int(time.time() * 1000)}
    return stamp | fields


def _open_children(file: JsonLines, parent: str) -> list[str]:
    """Keys of a run's children that were started and not ended, here or before an interruption."""
    children: dict[str, None] = {}
    with contextlib.suppress(OSError):
        for record in file.read():
            if record["kind"] == "start" and record["parent"] == parent:
                children[record["run"]] = None
            elif record["kind"] == "status":
                children.pop(record["run"], None)
    return list(children)


def _json(value: Any, *, indent: int | None = None) -> str:
    return json.dumps(value, default=str, ensure_ascii=False, indent=indent)
