"""Sends what a run's journal holds to an MLflow server that was away:
``python -m pretrain.runs.replay JOURNAL ADDRESS``."""

from __future__ import annotations

import argparse
import logging
import sys

from pretrain.errors import exit_status
from pretrain.runs.addresses import redact
from pretrain.runs.mlflow_server import replay


def main(words: list[str] | None = None) -> None:
    """Runs the command line ``words``."""
    parser = argparse.ArgumentParser(prog="python -m pretrain.runs.replay", description=__doc__)
    parser.add_argument("journal", help="the tracking.jsonl in the run's folder")
    parser.add_argument(
        "address", help="the server, http://host:5000, or a database, sqlite:////folder/mlflow.db"
    )
    given = parser.parse_args(words)
    print(f"{replay(given.journal, given.address)} records sent to {redact(given.address)}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(exit_status(main))
