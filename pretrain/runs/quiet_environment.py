"""Settings that keep Ray and MLflow from reporting home, exporting metrics and printing tables.

What a user has set stands. Both libraries read them once, when they are imported or started.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # a trial that reserves no GPU must not find one
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
}
MLFLOW = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # MLflow's own patience is minutes; ours is the metrics file.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


def set_defaults(settings: Mapping[str, str]) -> None:
    """Sets what the environment of this process does not set yet."""
    for name, value in settings.items():
        os.environ.setdefault(name, value)
