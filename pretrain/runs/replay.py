"""Brings MLflow up to date with a run's folder: ``python -m pretrain.runs.replay RUN [ADDRESS]``.

What the run logged while the server was away is sent, and what a killed command left RUNNING is
closed as KILLED. Doing it twice does no harm, and --resume goes on with the same runs.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from pretrain.errors import BadInput, exit_status
from pretrain.redact import redact
from pretrain.runs.addresses import full_address
from pretrain.runs.background_sender import RecordRejected, ServerUnavailable, batches
from pretrain.runs.folder import is_locked
from pretrain.runs.json_lines import JsonLines
from pretrain.runs.mlflow_server import MLflowServer, reason

log = logging.getLogger(__name__)


def main(words: list[str] | None = None) -> None:
    """Runs the command line ``words``."""
    parser = argparse.ArgumentParser(
        prog="python -m pretrain.runs.replay",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", help="the run's folder, or the metrics.jsonl in it")
    parser.add_argument(
        "address",
        nargs="?",
        help="the server, http://host:5000, or a database, sqlite:////folder/mlflow.db; left out: "
        "where the run was tracked",
    )
    args = parser.parse_args(words)
    file = Path(args.run)
    file = file / "metrics.jsonl" if file.is_dir() else file
    address = args.address or _own_address(file)
    if closed := close_open_runs(file):
        print(f"{closed} runs were left open by a command that was killed: closed")
    print(f"{replay(file, address)} records sent to {redact(address)}")


def _own_address(file: Path) -> str:
    """The address that a run was tracked at.

    Raises:
        BadInput: If the run's file does not have the whole of it.
    """
    runs_folder = file.absolute().parent.parent
    params = [record.get("params", {}) for record in JsonLines(file).read()]
    tracking = next((each["scale.tracking"] for each in params if "scale.tracking" in each), "null")
    if "***" in tracking:
        raise BadInput(f"{file} does not keep the password of {tracking}: give the address too")
    return full_address(None if tracking == "null" else tracking, runs_folder=runs_folder)


def close_open_runs(file: Path) -> int:
    """Writes the end of runs that a killed command began, at the time of its last record, into the
    run's file; returns how many. A folder in which a process is at work is left alone."""
    if is_locked(file.parent):
        return 0
    records = JsonLines(file).read()
    started: dict[str, str] = {}
    for record in records:
        if record["kind"] == "start":
            started[record["run"]] = record["experiment"]
        elif record["kind"] == "status":
            started.pop(record["run"], None)
    for key, experiment in reversed(started.items()):
        end = {"kind": "status", "run": key, "experiment": experiment, "status": "KILLED"}
        JsonLines(file).append(end | {"time": records[-1]["time"]})
    return len(started)


def replay(file: str | Path, address: str) -> int:
    """Sends all that a run and its children logged; what the server has already it keeps once.

    Args:
        file: A ``metrics.jsonl``.
        address: The server, the one of the run or another.

    Returns:
        How many records were sent.

    Raises:
        BadInput: If there is no such file or the server cannot be used.
    """
    path = Path(file).expanduser().absolute()
    if not path.is_file():
        raise BadInput(f"there is no file {path}; give the metrics.jsonl in a run's folder")
    server, shown = MLflowServer(full_address(address, runs_folder=path.parent)), redact(address)
    try:
        records = JsonLines(path).read()
        server.create_database()
    except Exception as error:
        raise BadInput(f"{path} cannot be sent to {shown}: {reason(error)}") from error
    sent = 0
    for batch in batches(records):
        try:
            server.send(batch)
        except RecordRejected as error:
            log.warning("MLflow at %s refused %s: %s", shown, batch[0]["kind"], error)
        except ServerUnavailable as error:
            raise BadInput(
                f"MLflow at {shown} cannot be used now: {error}. {sent} of {len(records)} records "
                "were sent; run the command again later"
            ) from error
        sent += len(batch)
    return sent


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(exit_status(main))
