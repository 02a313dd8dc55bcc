"""Runs and their children, as whoever trains sees them: every call returns at once, whatever the
server does."""

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
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from pretrain.runs.addresses import redact, ui_command
from pretrain.runs.journal import BackgroundSender, Journal, Record
from pretrain.runs.mlflow_limits import (
    ITEMS_A_REQUEST,
    METRICS_A_REQUEST,
    NAME_CHARACTERS,
    PARAM_CHARACTERS,
    cut,
    flat,
    free_name,
    pieces,
    plain_tags,
)
from pretrain.runs.provenance import code_tags, machine_tags

log = logging.getLogger(__name__)

Status = Literal["FINISHED", "FAILED", "KILLED"]

START_S = 10.0
FINISH_S = 10.0
FINISH_AWAY_S = 2.0


class Server(Protocol):
    """What records are sent to; picklable."""

    address: str
    ids: dict[str, str]

    def connect(self) -> Any:
        """Gets ready to send."""

    def send(self, journal: Journal, records: list[Record]) -> None:
        """Sends records of one run, or raises ServerUnavailable or RecordRejected."""


class Tracking:
    """A place where runs are kept. Picklable; made by
    :func:`pretrain.runs.mlflow_server.open_tracking`.

    Attributes:
        where: Its address without password.
        runs_folder: The folder that holds the runs' folders.
    """

    def __init__(self, server: Server, runs_folder: Path) -> None:
        self.runs_folder, self.where = runs_folder, redact(server.address)
        self._server = server
        self._courier = BackgroundSender(send=server.send, where=self.where)
        self._told: set[Path] = set()

    def __repr__(self) -> str:
        return f"Tracking({self.where!r})"

    def __reduce__(self) -> tuple[type[Tracking], tuple[Server, Path]]:
        return Tracking, (
            self._server,
            self.runs_folder,
        )  # a queue and a thread stay where they are

    def start(
        self,
        experiment: str,
        name: str,
        *,
        parent: TrackedRun | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
        folder: str | Path | None = None,
        resume: bool = False,
    ) -> TrackedRun:
        """Starts a run, tagged with commit, release and machine.

        Waits ten seconds at most for a server that does not answer; the run then starts without it.

        Args:
            experiment: Experiment, made if it is new.
            name: Name of the run.
            parent: The run it is a child of.
            params: Settings, as for :meth:`TrackedRun.log_params`.
            tags: More tags.
            folder: The run's folder, for the journal; by default the parent's, or the runs folder.
            resume: Go on with the run of that name in the folder's journal, if there is one.
        """
        where = (
            Path(folder).expanduser().absolute()
            if folder
            else parent.folder
            if parent
            else self.runs_folder
        )
        inherited = code_tags() | (parent.inherited if parent else {})
        link = (
            {"run": parent.key, "experiment": parent.experiment, "id": parent.run_id}
            if parent
            else None
        )
        run = TrackedRun(
            self,
            experiment=experiment,
            name=name,
            key=uuid.uuid4().hex,
            folder=where,
            parent=link,
            inherited=inherited,
        )
        before = None
        with contextlib.suppress(OSError):
            before = run.journal.started(experiment=experiment, name=name) if resume else None
        if before:
            run.key = before["run"]
            self.send_leftovers(run)
        try:
            where.mkdir(parents=True, exist_ok=True)
            # takes seconds the first time, which must not count as the server's silence
            self._server.connect()
        except Exception as error:
            log.debug("the courier will meet this too, and tell: %s", error)
        all_tags = inherited | machine_tags() | plain_tags(tags or {}) | {"ethoray.run": run.key}
        self.put(
            run,
            run.record("start", name=name, parent=link, resumed=before is not None, tags=all_tags),
        )
        if params:
            run.log_params(params)
        if not self._courier.away and self._courier.drain(START_S):
            self._courier.say_away(f"it has not answered within {START_S:.0f} s", run.journal)
        return run

    def ui_command(self) -> str:
        """What to type, or which page to open, to see the runs."""
        return ui_command(self._server.address, self.runs_folder)

    def put(self, run: TrackedRun, record: Record) -> None:
        """Queues a record of a run."""
        if run.run_id:
            self._server.ids.setdefault(run.key, run.run_id)
        self._courier.put(run.journal, record)

    def known_id(self, key: str) -> str | None:
        """MLflow's id of a run, where the server has told it to this process."""
        return self._server.ids.get(key)

    def send_leftovers(self, run: TrackedRun) -> None:
        """Queues what other processes of a run could not send before they ended, and closes the
        children they left open."""
        owed: list[Record] = []
        open_children: list[Record] = []
        with contextlib.suppress(
            OSError
        ):  # a journal that cannot be read could not be written either, which was told
            owed, open_children = (
                run.journal.owed(to=self.where),
                run.journal.open_children(run.key),
            )
        for record in owed:
            if record["by"] != self._courier.writer:
                self._courier.put(run.journal, record)
        for child in open_children:
            self._courier.put(
                run.journal,
                run.record("status", status="KILLED")
                | {"run": child["run"], "experiment": child["experiment"]},
            )

    def configure_torch(self, run: TrackedRun, *, seconds: float | None = None) -> bool:
        """Sends what is queued, within a time; warns with the command that sends the rest later."""
        patience = (
            FINISH_AWAY_S if self._courier.away and run.parent else FINISH_S
        )  # of many children, each would wait in vain
        left = self._courier.drain(patience if seconds is None else seconds)
        if left and run.journal.path not in self._told:
            self._told.add(run.journal.path)
            self._courier.say_away("it does not answer", run.journal)
            command = shlex.join(
                [sys.executable, "-m", "pretrain.runs.replay", str(run.journal.path), self.where]
            )
            log.warning(
                "%d records of run %r are not sent yet. They are kept; when the server is back: %s",
                left,
                run.name,
                command,
            )
        return left == 0


class TrackedRun:
    """A run in MLflow, from any process: picklable, and never an error or a wait for whoever logs.

    Made by :meth:`Tracking.start`. In a ``with`` block it ends FINISHED, FAILED (an exception) or
    KILLED (Ctrl-C). A copy unpickled in another process goes on logging to the same run; only the
    process that started it should finish it, the others end with :meth:`flush`.

    Attributes:
        tracking: Where it is logged; ``run.tracking.start(run.experiment, …, parent=run)`` starts a
            child.
        key: Its own name for itself (tag ``ethoray.run``), known even while the server is away.
        folder: Where its journal is.
        inherited: Tags that its children get too.
    """

    def __init__(
        self,
        tracking: Tracking,
        *,
        experiment: str,
        name: str,
        key: str,
        folder: Path,
        parent: Mapping[str, Any] | None,
        inherited: Mapping[str, str],
    ) -> None:
        self.tracking, self.experiment, self.name, self.key, self.folder, self.parent = (
            tracking,
            experiment,
            name,
            key,
            folder,
            parent,
        )
        self.inherited = dict(inherited)
        self.status: Status | None = None
        self._run_id: str | None = None

    def __repr__(self) -> str:
        return (
            f"TrackedRun({self.experiment!r}, {self.name!r}, run_id={self.run_id!r}, "
            f"at={self.tracking.where!r})"
        )

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_run_id": self.run_id}

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run; None until the server has answered once."""
        self._run_id = self._run_id or self.tracking.known_id(self.key)
        return self._run_id

    @property
    def journal(self) -> Journal:
        """The journal beside the run."""
        return Journal(self.folder / "tracking.jsonl")

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
            numbers[free_name(name, numbers)] = (
                number if math.isfinite(number) else str(number)
            )  # JSON has no NaN
        for piece in pieces(numbers, METRICS_A_REQUEST):
            self._put("metrics", metrics=piece, step=int(step))

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Logs settings, each once in a run: nested mappings become dotted names, lists and None
        their JSON.

        What exceeds MLflow's limits is cut, and the whole is kept as the artifact ``params.json``.
        """
        values: dict[str, str] = {}
        too_long = False
        for name, value in flat(params):
            text = redact(
                value
                if isinstance(value, str)
                else json.dumps(value, default=str, ensure_ascii=False)
            )
            too_long = too_long or len(text) > PARAM_CHARACTERS or len(name) > NAME_CHARACTERS
            values[free_name(name, values)] = cut(text, PARAM_CHARACTERS)
        for piece in pieces(values, ITEMS_A_REQUEST):
            self._put("params", params=piece)
        if too_long:
            self.log_text(
                json.dumps(dict(flat(params)), indent=1, default=str, ensure_ascii=False),
                "params.json",
            )

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Sets tags; the last value of a name stays."""
        for piece in pieces(plain_tags(tags), ITEMS_A_REQUEST):
            self._put("tags", tags=piece)

    def log_text(self, text: str, file: str) -> None:
        """Keeps a text as the artifact ``file``."""
        self._put("text", text=redact(text), file=file)

    def log_artifact(self, path: str | Path, *, folder: str = "") -> None:
        """Keeps a copy of a file (or a folder of files) among the run's artifacts.

        Args:
            path: The file, which must stay where it is until it was sent.
            folder: Folder among the artifacts.
        """
        self._put("artifact", path=str(Path(path).absolute()), folder=folder)

    def log_dataset(self, name: str, fingerprint: str, uri: str | Path) -> None:
        """Names exactly the data the run saw: as a dataset of the run and as a tag, which later
        children inherit.

        Args:
            name: What people call it.
            fingerprint: ``Store.fingerprint``.
            uri: Where it was read from.
        """
        tag = plain_tags({"ethoray.data": fingerprint})
        self.inherited |= tag
        self._put("dataset", name=name, fingerprint=fingerprint, uri=redact(str(uri)))
        self.set_tags(tag)

    def flush(self, *, seconds: float | None = None) -> bool:
        """Sends what was logged so far; whether all of it arrived. For a process that logs to a run
        it did not start."""
        return self.tracking.configure_torch(self, seconds=seconds)

    def finish(self, status: Status = "FINISHED") -> bool:
        """Ends the run and sends what is left, its other processes' share included; whether all of
        it arrived.

        Gives up on a server that takes nothing for ten seconds; a warning then says how to send the
        rest.
        """
        if self.status is not None:
            return True
        self.status = status
        if self.parent is None:
            self.tracking.send_leftovers(self)
        self._put("status", status=status)
        return self.tracking.configure_torch(self)

    def record(self, kind: str, **fields: Any) -> Record:
        """A record of this run, stamped with the time."""
        return {
            "kind": kind,
            "run": self.key,
            "experiment": self.experiment,
            "time": int(time.time() * 1000),
            **fields,
        }

    def _put(self, kind: str, **fields: Any) -> None:
        self.tracking.put(self, self.record(kind, **fields))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Ray Tune ends a trial that it stops early with SystemExit(0): that trial did not fail.
        if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
            self.finish("FINISHED")
            return
        self.set_tags({"ethoray.error": f"{type(error).__name__}: {error}"})
        self.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
