"""Encoders and models as MLflow has them: a folder that ``mlflow.pyfunc.load_model`` opens and
``mlflow models serve`` serves, with our code in it and nothing pickled. Needs no Ray."""

from __future__ import annotations

import importlib
import logging
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import ModelSignature, infer_signature
from mlflow.pyfunc import PythonModel, save_model
from mlflow.types import ColSpec, Schema

from pretrain.runs.pose_table import TableModel

# What opening and applying a model imports.
REQUIREMENTS = (
    *("mlflow", "einops", "filelock", "joblib", "lightgbm", "numpy", "orjson", "pandas", "pyarrow"),
    *("pyyaml", "safetensors", "scikit-learn", "scipy", "torch", "tqdm"),
)
ROOT = Path(__file__).parents[2]
SCRIPT = """from mlflow.models import set_model
from pretrain.runs.mlflow_model import Served
set_model(Served({opener!r}))
"""


class Served(PythonModel):  # type: ignore[misc]
    """Poses as a table in, a table out.

    Args:
        opener: ``module:function``, which takes the folder and returns a :class:`TableModel`.
    """

    def __init__(self, opener: str) -> None:
        self._opener = opener

    def load_context(self, context: Any) -> None:
        """Opens the folder."""
        self._model = _open(self._opener, context.artifacts["folder"])

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """A row for every frame."""
        return pd.DataFrame(self._model(model_input))


def _open(opener: str, folder: str | Path) -> TableModel:
    module, name = opener.split(":")
    opened: TableModel = getattr(importlib.import_module(module), name)(folder)
    return opened


def save_mlflow_model(path: Path, folder: Path, *, opener: str) -> None:
    """Writes an MLflow model: signature, made-up input example, requirements, and what is in
    ``folder``.

    Args:
        path: Folder to make; one that is there is replaced.
        folder: Encoder or model.
        opener: As of :class:`Served`.
    """
    logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)
    model = _open(opener, folder)
    example = pd.DataFrame(model.example())
    inputs = Schema([ColSpec("double", name, required=r) for name, r in model.columns.items()])
    outputs = infer_signature(example, pd.DataFrame(model(example))).outputs
    shutil.rmtree(path, ignore_errors=True)
    with tempfile.TemporaryDirectory() as temporary:
        script = Path(temporary) / "model.py"
        script.write_text(SCRIPT.format(opener=opener), encoding="utf-8")
        save_model(
            path,
            python_model=str(script),
            artifacts={"folder": str(folder)},
            code_paths=[str(ROOT / name) for name in sorted({"pretrain", opener.split(".")[0]})],
            signature=ModelSignature(inputs, outputs),
            input_example=example,
            pip_requirements=[f"{name}=={version(name).split('+')[0]}" for name in REQUIREMENTS],
        )
