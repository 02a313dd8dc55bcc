"""MLflow, all of it: where runs are kept, runs and their children, and a server that may be away.

    tracking = open_tracking(None, runs_folder="runs")
    with tracking.start("contrastive", "seed 0", params=recipe, folder=out) as run:
        run.log_metrics({"loss": 2.3}, step=100)

Logging never fails and never waits. Records go to a journal beside the run and are sent by a
background thread; what a server missed is sent when it is back, at the end, or later by
:func:`replay`. This is the only file that imports MLflow, and it uses the client alone: its fluent
interface keeps state that does not cross processes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pretrain.errors import BadInput
from pretrain.runs.addresses import (
    artifacts_folder,
    database_file,
    full_address,
    redact,
    ui_command,
)
from pretrain.runs.journal import (
    Journal,
    Record,
    RecordRejected,
    ServerUnavailable,
    batches,
    locked,
    reason,
)
from pretrain.runs.mlflow_limits import ITEMS_A_REQUEST, METRICS_A_REQUEST
from pretrain.runs.tracked_run import TrackedRun, Tracking

log = logging.getLogger(__name__)

__all__ = ["TrackedRun", "Tracking", "open_tracking", "replay", "ui_command"]

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # MLflow's own patience is minutes; ours is the journal.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
PERMANENT = {
    "INVALID_PARAMETER_VALUE",
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_ALREADY_EXISTS",
    "BAD_REQUEST",
    "INVALID_STATE",
}


def open_tracking(address: str | None, *, runs_folder: str | Path) -> Tracking:
    """Opens the place where runs are kept. Call it in the driver, before any worker or trial
    starts.

    Args:
        address: An MLflow server (``http://host:5000``) or database; None is a file, ``mlflow.db``,
            in the runs folder.
        runs_folder: The folder that holds the runs' folders.

    Raises:
        BadInput: If the address is none that MLflow knows. A server that is away is not an error.
    """
    server = _Server(full_address(address, runs_folder=runs_folder))
    tracking = Tracking(server, Path(runs_folder).expanduser().absolute())
    try:
        # here, where a caller may have something else begin meanwhile, and not at the first record
        _import_mlflow()
        _create_database(server.address)
    except (
        Exception
    ) as error:  # whatever keeps MLflow from its database must not keep anybody from training
        log.warning(
            "MLflow's database at %s cannot be made: %s. The run goes on; see the journal beside "
            "it",
            tracking.where,
            reason(error),
        )
    return tracking


def replay(journal: str | Path, address: str) -> int:
    """Sends what a journal holds and a server has not been sent; doing it twice does no harm.

    Args:
        journal: A ``tracking.jsonl``.
        address: The server, the one of the run or another.

    Returns:
        How many records were sent.

    Raises:
        BadInput: If there is no such journal or the server cannot be used.
    """
    held = Journal(Path(journal).expanduser().absolute())
    if not held.path.is_file():
        raise BadInput(
            f"there is no journal at {held.path}; it is the tracking.jsonl in a run's folder"
        )
    full = full_address(address, runs_folder=held.path.parent)
    where = redact(full)
    try:
        _create_database(full)
    except Exception as error:
        raise BadInput(f"MLflow's database at {where} cannot be made: {reason(error)}") from error
    try:
        owed = held.owed(to=where)
    except OSError as error:
        raise BadInput(f"the journal {held.path} cannot be read: {error}") from error
    server, sent = _Server(full, replaying=True), 0
    for batch in batches(owed):
        try:
            server.send(held, batch)
        except RecordRejected as error:
            log.warning("MLflow at %s refused %s: %s", where, batch[0]["kind"], error)
        except ServerUnavailable as error:
            raise BadInput(
                f"MLflow at {where} cannot be used now: {error}. {sent} records were sent; run the "
                "command again later"
            ) from error
        held.sent(batch[-1], to=where)
        sent += len(batch)
    return sent


class _Server:
    """MLflow's client, for records: each becomes the calls it needs, each failure ServerUnavailable
    or RecordRejected."""

    def __init__(self, address: str, *, replaying: bool = False) -> None:
        self.address, self.replaying = address, replaying
        self.ids: dict[str, str] = {}
        self._experiments: dict[str, str] = {}
        self._client: Any = None

    def __reduce__(self) -> tuple[type[_Server], tuple[str]]:
        return _Server, (self.address,)

    def connect(self) -> Any:
        """The client, made on first use.

        Raises:
            ServerUnavailable: If the database's file is not on this machine.
        """
        database = database_file(self.address)
        if database and not database.exists():
            # MLflow would make a new, empty one; on a second machine, silently.
            raise ServerUnavailable(
                f"there is no {database} on this machine; machines that share no folder need a "
                "server"
            )
        if self._client is None:
            self._client = _import_mlflow().MlflowClient(self.address)
        return self._client

    def send(self, journal: Journal, records: list[Record]) -> None:
        """Sends records of one run.

        Raises:
            ServerUnavailable: If the server cannot take them now.
            RecordRejected: If it never will.
        """
        kind, client = records[0]["kind"], None
        try:
            client = self.connect()
            if kind == "start":
                self._start(client, records[0], lock=journal.path.with_name(".tracking.lock"))
            else:
                self._log(client, self._known(client, records[0]), records)
        except (ServerUnavailable, RecordRejected):
            raise
        except Exception as error:
            if kind != "start" and getattr(error, "error_code", None) in PERMANENT:
                raise RecordRejected(reason(error)) from error
            # Artifacts go another way than numbers: one that cannot be stored must not hold up the
            # rest.
            if kind in ("artifact", "text") and self._answers(client):
                raise RecordRejected(
                    f"{records[0].get('path') or records[0].get('file')}: {reason(error)}"
                ) from error
            raise ServerUnavailable(reason(error)) from error

    def _answers(self, client: Any) -> bool:
        try:
            client.search_experiments(max_results=1)
        except Exception:
            return False
        return True

    def _start(self, client: Any, record: Record, *, lock: Path) -> None:
        parent, tags = record["parent"], dict(record["tags"])
        if parent:
            found = (
                self.ids.get(parent["run"])
                or (None if self.replaying else parent["id"])
                or self._find(client, parent)
            )
            if found is None and not self.replaying:
                raise ServerUnavailable("the parent of a run is not there yet")
            tags |= {"ethoray.parent": parent["run"]} | (
                {"mlflow.parentRunId": found} if found else {}
            )
        with contextlib.ExitStack() as held:
            with contextlib.suppress(
                OSError
            ):  # where locks do not work, two processes may make the run twice: a blemish
                held.enter_context(locked(lock))
            run_id = self._find(
                client, record
            )  # an attempt that seemed to fail, or a replay, may have made it
            if run_id is None:
                experiment = self._experiment(client, record["experiment"])
                run_id = client.create_run(
                    experiment, start_time=record["time"], tags=tags, run_name=record["name"]
                ).info.run_id
            elif record["resumed"]:
                client.update_run(run_id, status="RUNNING")
                self._log_batch(client, run_id, tags=tags)
        self.ids[record["run"]] = run_id

    def _known(self, client: Any, record: Record) -> str:
        run_id = self.ids.get(record["run"]) or self._find(client, record)
        if run_id is None:
            raise ServerUnavailable(
                "the run is not there yet"
                + "; replay the journal of the run's own folder first" * self.replaying
            )
        self.ids[record["run"]] = run_id
        return run_id

    def _find(self, client: Any, named: Mapping[str, Any]) -> str | None:
        experiment = client.get_experiment_by_name(named["experiment"])
        if experiment is None:
            return None
        found = client.search_runs(
            [experiment.experiment_id],
            filter_string=f"tags.`ethoray.run` = '{named['run']}'",
            max_results=1,
        )
        return found[0].info.run_id if found else None

    def _experiment(self, client: Any, name: str) -> str:
        if name in self._experiments:
            return self._experiments[name]
        found = client.get_experiment_by_name(name)
        if found is None:
            folder = artifacts_folder(self.address)
            try:
                made = client.create_experiment(
                    name, artifact_location=f"{folder}/{uuid.uuid4().hex[:12]}" if folder else None
                )
                found = client.get_experiment(made)
            except Exception as error:
                found = client.get_experiment_by_name(name)  # another process was quicker
                if found is None:
                    raise error from None
        if found.lifecycle_stage == "deleted":
            command = f"mlflow experiments restore --experiment-id {found.experiment_id}"
            raise ServerUnavailable(f"its experiment {name!r} was deleted; restore it: {command}")
        self._experiments[name] = found.experiment_id
        return self._experiments[name]

    def _log(self, client: Any, run_id: str, records: list[Record]) -> None:
        first = records[0]
        match first["kind"]:
            case "status":
                client.set_terminated(run_id, first["status"], end_time=first["time"])
            case "artifact":
                if not Path(first["path"]).exists():
                    raise RecordRejected(f"{first['path']} is no longer there")
                client.log_artifact(run_id, first["path"], first["folder"] or None)
            case "text":
                client.log_text(run_id, first["text"], first["file"])
            case "dataset":
                self._log_dataset(client, run_id, first)
            case _:
                metrics = [
                    (name, value, r["time"], r["step"])
                    for r in records
                    for name, value in r.get("metrics", {}).items()
                ]
                params = {
                    name: value for r in records for name, value in r.get("params", {}).items()
                }
                tags = {name: value for r in records for name, value in r.get("tags", {}).items()}
                self._log_batch(client, run_id, metrics=metrics, params=params, tags=tags)

    def _log_batch(
        self,
        client: Any,
        run_id: str,
        *,
        metrics: Sequence[tuple[str, float | str, int, int]] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        for first in range(0, len(metrics), METRICS_A_REQUEST):
            piece = [
                Metric(name, float(value), when, step)
                for name, value, when, step in metrics[first : first + METRICS_A_REQUEST]
            ]
            client.log_batch(run_id, metrics=piece)
        refused = []
        entities = {
            "params": [Param(*item) for item in (params or {}).items()],
            "tags": [RunTag(*item) for item in (tags or {}).items()],
        }
        for kind, items in entities.items():
            for first in range(0, len(items), ITEMS_A_REQUEST):
                refused += self._log_items(
                    client, run_id, kind, items[first : first + ITEMS_A_REQUEST]
                )
        if refused:
            raise RecordRejected("; ".join(refused))

    def _log_items(self, client: Any, run_id: str, kind: str, items: Sequence[Any]) -> list[str]:
        """Parameters or tags; one that is refused does not take the others with it, but gets a
        sentence."""
        try:
            client.log_batch(run_id, **{kind: items})
        except Exception as error:
            if getattr(error, "error_code", None) not in PERMANENT:
                raise
            if len(items) > 1:
                return [
                    told for item in items for told in self._log_items(client, run_id, kind, [item])
                ]
            return [f"{items[0].key} = {items[0].value:.80}: {reason(error)}"]
        return []

    def _log_dataset(self, client: Any, run_id: str, record: Record) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        kind = urlsplit(record["uri"]).scheme if "://" in record["uri"] else "local"
        source = json.dumps({"uri": record["uri"]})
        dataset = Dataset(
            name=record["name"][:500],
            digest=record["fingerprint"][:36],
            source_type=kind,
            source=source,
        )
        client.log_inputs(
            run_id, datasets=[DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])]
        )


def _create_database(address: str) -> None:
    """Makes the database's file, once: whole before any other process can see it."""
    database = database_file(address)
    if database is None or (database.exists() and database.stat().st_size):
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with locked(database.with_name(f".{database.name}.lock"), seconds=120):
        if database.exists() and database.stat().st_size:
            return
        _import_mlflow()
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        fresh = database.with_name(f"{database.name}.new")
        fresh.unlink(missing_ok=True)  # of a process that was killed at it
        store = SqlAlchemyStore(f"sqlite:///{fresh}", str(artifacts_folder(address)))
        store.engine.dispose()
        fresh.replace(database)


def _import_mlflow() -> Any:
    """MLflow, imported late (it takes seconds), and quiet."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(
        logging.CRITICAL
    )  # it logs what it raises, with a traceback
    return mlflow
