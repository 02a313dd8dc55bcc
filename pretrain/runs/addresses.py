"""Where runs are tracked: the addresses that MLflow takes, and how to show them without their
password."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from pretrain.errors import BadInput
from pretrain.redact import redact


def ui_command(
    address: str | None, runs_folder: str | Path, *, experiment_id: str | None = None
) -> str:
    """What to type, and which page to open, to see the runs of an experiment, or all experiments.

    The page asks for MLflow's view of model training; MLflow 3 opens on traces of language models.
    """
    full = full_address(address, runs_folder=runs_folder)
    place = f"experiments/{experiment_id}/runs" if experiment_id else "experiments"
    page = f"/#/{place}?workflowType=machine_learning"
    if full.startswith(("http://", "https://")):
        return redact(full) + page
    command = f"mlflow ui --backend-store-uri {shlex.quote(redact(full))} --port 5000"
    return f"{command}\nthen open:    http://127.0.0.1:5000{page}"


def full_address(address: str | None, *, runs_folder: str | Path) -> str:
    """The address as MLflow takes it from anywhere: the default filled in, a database's file
    absolute.

    Raises:
        BadInput: If MLflow knows no such address.
    """
    text = (address or "").strip()
    if not text:
        if "://" in str(runs_folder) or "?" in str(runs_folder):
            raise BadInput(
                f"runs cannot be tracked in {runs_folder}: the database needs a local folder; give "
                "a server's address instead, "
                "http://host:5000"
            )
        return f"sqlite:///{Path(runs_folder).expanduser().absolute() / 'mlflow.db'}"
    if re.match(r"https?://(?:[^/\s]*@)?[\w.\-\[\]:]+", text):
        return text.rstrip("/")
    if text.startswith("sqlite:///") and text.removeprefix("sqlite:///") not in ("", ":memory:"):
        return f"sqlite:///{Path(text.removeprefix('sqlite:///')).expanduser().absolute()}"
    if re.match(r"(postgresql|mysql|mssql)(\+\w+)?://.|databricks", text):
        return text
    raise BadInput(
        f"the tracking address {redact(text)!r} is none that MLflow takes: give http://host:5000, "
        "sqlite:////folder/mlflow.db or postgresql://…, or leave it out for a database in the "
        "folder of the runs"
    )


def database_file(address: str) -> Path | None:
    """The file of a sqlite address."""
    return (
        Path(address.removeprefix("sqlite:///").split("?")[0])
        if address.startswith("sqlite:///")
        else None
    )


def artifacts_folder(address: str) -> Path | None:
    """Where artifacts go: next to a database's file; None where a server knows."""
    database = database_file(address)
    return database.parent / "mlartifacts" if database else None
