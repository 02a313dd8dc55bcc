"""An encoder as an ONNX file: poses in, embeddings out, with any number of frames."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pretrain.data.windows import Pose
from pretrain.encoders import Embedder
from pretrain.errors import BadInput

FRAMES = 256  # of the made-up video that is traced


class _PosesIn(nn.Module):
    """Features and encoder, of frames that all exist."""

    def __init__(self, embedder: Embedder) -> None:
        super().__init__()
        self.embedder = embedder

    def forward(
        self, position_BTMKX: Tensor, confidence_BTMK: Tensor, extra_BTE: Tensor | None = None
    ) -> Tensor:
        """(B, T, D) float32."""
        valid_BT = torch.ones(confidence_BTMK.shape[:2], dtype=torch.bool)
        pose = Pose(position_BTMKX, confidence_BTMK, extra_BTE)
        z_BTD: Tensor = self.embedder(pose, valid_BT).float()
        return z_BTD


def write_onnx(path: Path, embedder: Embedder, *, about: dict[str, Any]) -> None:
    """Writes the file; its metadata (key ``ethoray``) say what the axes mean.

    Inputs are ``position_BTMKX`` (px, NaN = missing), ``confidence_BTMK`` and, where the encoder
    reads external features, ``extra_BTE``; the output is ``z_BTD``. B is 1, T any number from the
    encoder's reach on.

    Args:
        path: File to write.
        embedder: In evaluation mode.
        about: What to say of it: schema, features, encoder.

    Raises:
        BadInput: If onnx is not installed, or the encoder has operations that ONNX lacks.
    """
    animals, keypoints, coordinates = embedder.features.schema.shape
    torch.manual_seed(0)
    position = torch.rand(1, FRAMES, animals, keypoints, coordinates) * 100
    position[0, 3, 0, 0] = torch.nan
    inputs = [position, torch.ones(1, FRAMES, animals, keypoints)]
    if embedder.external:
        inputs.append(torch.zeros(1, FRAMES, sum(embedder.external.values())))
    names = ["position_BTMKX", "confidence_BTMK", "extra_BTE"][: len(inputs)]
    try:
        program = torch.onnx.export(
            _PosesIn(embedder).eval(),
            tuple(inputs),
            dynamo=True,
            verbose=False,
            optimize=False,  # onnxruntime does it when it loads, and this fails at LSTMs
            dynamic_shapes=tuple({1: torch.export.Dim.DYNAMIC} for _ in inputs),
            input_names=names,
            output_names=["z_BTD"],
        )
    except ImportError as error:
        raise BadInput(
            f"ONNX needs more packages: pip install 'ethoray[share]' ({error})"
        ) from error
    except Exception as error:
        raise BadInput(
            f"the encoder {embedder.settings['encoder']['name']} cannot be written as ONNX: "
            f"{str(error).splitlines()[0]}"
        ) from error
    assert program is not None, "dynamo=True gives a program"
    program.model.metadata_props["ethoray"] = json.dumps(about)
    program.save(path)
