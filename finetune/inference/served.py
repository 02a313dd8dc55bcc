"""A fitted model for those who have tables: poses in, labels and probabilities out."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from finetune.inference.model import open_model
from finetune.labels.frame_labels import looked_at
from finetune.report.predictions import names_of
from pretrain.runs.pose_table import Columns, TableModel


def label_table(folder: str) -> TableModel:
    """The model of a run, or one model folder in it; its first network.

    Its outputs are ``label`` (several joined by ``+``, without one ``none``; empty where no pose
    supports a label) and ``p_CLASS`` for each class; of a model of several problems each column
    begins with ``PROBLEM.``.
    """
    model = open_model(str(folder))

    def apply(frames: dict[str, Tensor]) -> Columns:
        columns = {}
        for problem, predicted in zip(model.problems, model.predict(frames), strict=True):
            prefix = f"{problem.name}." if len(model.problems) > 1 else ""
            names = names_of(problem, predicted.labels, known=looked_at(predicted.labels))
            columns[f"{prefix}label"] = np.array(
                ["" if name is None else name or "none" for name in names]
            )
            for c, name in enumerate(problem.classes):
                p_T = predicted.probabilities_TC[:, c]
                columns[f"{prefix}p_{name}"] = np.asarray(p_T, np.float64)
        return columns

    return TableModel(schema=model.schema, external=model.external, apply=apply)
