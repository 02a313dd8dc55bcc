"""MLflow: records become calls of its client. The only file that imports MLflow.

It uses the client alone: MLflow's fluent interface keeps state that belongs to a thread.
"""

from __future__ import annotations

import json
import logging
import re
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock

from pretrain.redact import redact
from pretrain.runs import quiet_environment
from pretrain.runs.addresses import artifacts_folder, database_file
from pretrain.runs.background_sender import RecordRejected, ServerUnavailable
from pretrain.runs.json_lines import Record

PERMANENT = {
    "INVALID_PARAMETER_VALUE",
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_ALREADY_EXISTS",
    "BAD_REQUEST",
    "INVALID_STATE",
}
MODEL_TRAINING = {"mlflow.experimentKind": "custom_model_development"}
"""Which of its views MLflow shows an experiment in."""


class MLflowServer:
    """MLflow's client, for records: each becomes the calls it needs, each failure ServerUnavailable
    or RecordRejected.

    Args:
        address: As MLflow takes it.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._run_ids: dict[str, str] = {}
        self._experiments: dict[str, str] = {}
        self._client: Any = None

    def create_database(self) -> None:
        """Makes the file of a sqlite address, once: whole before any other process can see it."""
        database = database_file(self.address)
        _import_mlflow()
        if database is None or (database.exists() and database.stat().st_size):
            return
        database.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(database.with_name(f".{database.name}.lock"), timeout=120):
            if database.exists() and database.stat().st_size:
                return
            from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

            fresh = database.with_name(f"{database.name}.new")
            fresh.unlink(missing_ok=True)  # of a process that was killed at it
            store = SqlAlchemyStore(f"sqlite:///{fresh}", str(artifacts_folder(self.address)))
            store.engine.dispose()
            fresh.replace(database)

    def experiment_id(self, name: str) -> str | None:
        """MLflow's id of an experiment, by its name; None where there is none or nobody answers."""
        if name in self._experiments:
            return self._experiments[name]
        try:
            found = _import_mlflow().MlflowClient(self.address).get_experiment_by_name(name)
        except Exception:  # the page of all experiments is good enough
            return None
        return found.experiment_id if found else None

    def run_id(self, key: str) -> str | None:
        """MLflow's id of a run, by the run's own key; None until it was sent."""
        return self._run_ids.get(key)

    def send(self, records: list[Record]) -> None:
        """Sends records of one run.

        Raises:
            ServerUnavailable: If the server cannot take them now.
            RecordRejected: If it never will.
        """
        first = records[0]
        try:
            if self._client is None:
                self._client = _import_mlflow().MlflowClient(self.address)
            if first["kind"] == "start":
                self._start(first)
            else:
                self._log(self._known(first), records)
        except (ServerUnavailable, RecordRejected):
            raise
        except Exception as error:
            if first["kind"] != "start" and getattr(error, "error_code", None) in PERMANENT:
                raise RecordRejected(reason(error)) from error
            # Artifacts go another way than numbers: one that cannot be stored must not hold up the
            # rest.
            if first["kind"] in ("artifact", "text", "model") and self._answers():
                name = first.get("path") or first.get("file")
                raise RecordRejected(f"{name}: {reason(error)}") from error
            raise ServerUnavailable(reason(error)) from error

    def _answers(self) -> bool:
        try:
            self._client.search_experiments(max_results=1)
        except Exception:
            return False
        return True

    def _start(self, record: Record) -> None:
        tags = dict(record["tags"])
        if parent := record["parent"]:
            parent_id = self._run_ids.get(parent) or self._find(parent, record["experiment"])
            tags |= {"mlflow.parentRunId": parent_id} if parent_id else {}
        experiment = self._experiment(record["experiment"])
        # an attempt that seemed to fail, or an earlier sending, may have made it
        run_id = self._find(record["run"], record["experiment"])
        if run_id is None:
            run_id = self._client.create_run(
                experiment,
                start_time=record["time"],
                tags=tags,
                run_name=record["name"],
            ).info.run_id
        elif record["resumed"]:
            self._client.update_run(run_id, status="RUNNING")
            if "ethoray.error" in self._client.get_run(run_id).data.tags:  # of an earlier attempt
                self._client.delete_tag(run_id, "ethoray.error")
            self._log_items(run_id, "tags", list(tags.items()))
        self._run_ids[record["run"]] = run_id

    def _known(self, record: Record) -> str:
        key = record["run"]
        run_id = self._run_ids.get(key) or self._find(key, record["experiment"])
        if run_id is None:
            raise RecordRejected("the run is not there; it may have been deleted")
        self._run_ids[key] = run_id
        return run_id

    def _find(self, key: str, experiment: str) -> str | None:
        known = self._client.get_experiment_by_name(experiment)
        if known is None:
            return None
        runs = self._client.search_runs(
            [known.experiment_id], filter_string=f"tags.`ethoray.run` = '{key}'", max_results=1
        )
        return runs[0].info.run_id if runs else None

    def _experiment(self, name: str) -> str:
        if name in self._experiments:
            return self._experiments[name]
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            folder = artifacts_folder(self.address)
            location = f"{folder}/{uuid.uuid4().hex[:12]}" if folder else None
            try:
                new_id = self._client.create_experiment(
                    name, artifact_location=location, tags=MODEL_TRAINING
                )
                experiment = self._client.get_experiment(new_id)
            except Exception as error:
                experiment = self._client.get_experiment_by_name(name)  # another process was first
                if experiment is None:
                    raise error from None
        if experiment.lifecycle_stage == "deleted":
            command = f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
            raise ServerUnavailable(f"its experiment {name!r} was deleted; restore it: {command}")
        return self._experiments.setdefault(name, experiment.experiment_id)

    def _log(self, run_id: str, records: list[Record]) -> None:
        first = records[0]
        match first["kind"]:
            case "status":
                self._client.set_terminated(run_id, first["status"], end_time=first["time"])
            case "artifact":
                if not Path(first["path"]).exists():
                    raise RecordRejected(f"{first['path']} is no longer there")
                self._client.log_artifact(run_id, first["path"])
            case "text":
                self._client.log_text(run_id, first["text"], first["file"])
            case "model":
                self._log_model(run_id, first)
            case "dataset":
                self._log_dataset(run_id, first)
            case _:
                self._log_batch(run_id, records)

    def _log_model(self, run_id: str, record: Record) -> None:
        """Logs a model once, and registers it once, however often the record comes."""
        from mlflow.entities import LoggedModelOutput

        run = self._client.get_run(run_id)
        if outputs := run.outputs.model_outputs if run.outputs else []:
            model_id = outputs[0].model_id
        else:
            model_id = self._client.create_logged_model(
                run.info.experiment_id, name=record["name"], source_run_id=run_id
            ).model_id
            self._client.log_model_artifacts(model_id, record["path"])
            self._client.finalize_logged_model(model_id, "READY")
            self._client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
        if not record["register"]:
            return
        name, _, alias = record["register"].partition("@")
        if not self._client.search_registered_models(f"name = '{name}'"):
            self._client.create_registered_model(name)
        source = self._client.get_logged_model(model_id).artifact_location
        versions = self._client.search_model_versions(f"name = '{name}'")
        version = next((one.version for one in versions if one.source == source), None)
        if version is None:
            version = self._client.create_model_version(
                name, source, run_id, model_id=model_id
            ).version
        if alias:
            self._client.set_registered_model_alias(name, alias, version)

    def _log_batch(self, run_id: str, records: list[Record]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(name, float(value), r["time"], r["step"])
            for r in records
            for name, value in r.get("metrics", {}).items()
        ]
        self._client.log_batch(run_id, metrics=metrics)
        refused = [
            sentence
            for kind in ("params", "tags")
            for sentence in self._log_items(
                run_id, kind, [item for r in records for item in r.get(kind, {}).items()]
            )
        ]
        if refused:
            raise RecordRejected("; ".join(refused))

    def _log_items(self, run_id: str, kind: str, items: Sequence[tuple[str, str]]) -> list[str]:
        """Logs ``params`` or ``tags``. One that is refused does not take the others with it: it
        gets a sentence."""
        from mlflow.entities import Param, RunTag

        entity = Param if kind == "params" else RunTag
        try:
            self._client.log_batch(run_id, **{kind: [entity(*item) for item in items]})
        except Exception as error:
            if getattr(error, "error_code", None) not in PERMANENT:
                raise
            if len(items) > 1:
                each = [self._log_items(run_id, kind, [item]) for item in items]
                return [sentence for sentences in each for sentence in sentences]
            return [f"{name} = {value:.80}: {reason(error)}" for name, value in items]
        return []

    def _log_dataset(self, run_id: str, record: Record) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=record["name"][:500],
            digest=record["fingerprint"][:36],
            source_type=urlsplit(record["uri"]).scheme if "://" in record["uri"] else "local",
            source=json.dumps({"uri": record["uri"]}),
        )
        context = [InputTag("mlflow.data.context", "training")]
        self._client.log_inputs(run_id, datasets=[DatasetInput(dataset, context)])


def reason(error: BaseException) -> str:
    """The heart of an error, without the wrapping of three libraries, without passwords."""
    text = redact(str(error)).strip()
    heart = re.search(r"\[Errno -?\d+\] [^'\")<>]+", text) or re.search(
        r"(?:Read|Connect)? ?timed out", text
    )
    first_line = (text.splitlines() or [type(error).__name__])[0]
    return heart.group().strip() if heart else first_line[:300]


def _import_mlflow() -> Any:
    """MLflow, imported late (it takes seconds), and quiet."""
    quiet_environment.set_defaults(quiet_environment.MLFLOW)
    import mlflow

    logging.getLogger("alembic").setLevel(logging.WARNING)
    # it logs what it raises, with a traceback
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    return mlflow
