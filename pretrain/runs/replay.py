"""Sends all that a run logged to an MLflow server that was away:
``python -m pretrain.runs.replay FILE ADDRESS``. Doing it twice does no harm."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from pretrain.errors import BadInput, exit_status
from pretrain.redact import redact
from pretrain.runs.addresses import full_address
from pretrain.runs.background_sender import RecordRejected, ServerUnavailable, batches
from pretrain.runs.json_lines import JsonLines
from pretrain.runs.mlflow_server import MLflowServer, reason

log = logging.getLogger(__name__)


def main(words: list[str] | None = None) -> None:
    """Runs the command line ``words``."""
    parser = argparse.ArgumentParser(prog="python -m pretrain.runs.replay", description=__doc__)
    parser.add_argument("file", help="the metrics.jsonl in the run's folder")
    parser.add_argument(
        "address", help="the server, http://host:5000, or a database, sqlite:////folder/mlflow.db"
    )
    args = parser.parse_args(words)
    print(f"{replay(args.file, args.address)} records sent to {redact(args.address)}")


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
