"""Networks as files that need nothing of ours: ONNX, and torch.export's .pt2. Poses in, with any
number of frames."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from pretrain.data.windows import Pose
from pretrain.encoders import Embedder
from pretrain.errors import BadInput

FRAMES = 256  # of the made-up video that is traced
INPUTS = ("position_BTMKX", "confidence_BTMK", "extra_BTE")


class PosesToEmbeddings(nn.Module):
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


def write_exported(
    path: Path,
    network: nn.Module,
    embedder: Embedder,
    *,
    head: str = "",
    problems: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Writes the file: a program of torch where its name ends in ``.pt2``, else ONNX.

    Inputs are ``position_BTMKX`` (px, NaN = missing), ``confidence_BTMK`` and, where ``embedder``
    reads external features, ``extra_BTE``; outputs are ``z_BTD`` and one for each problem. B is 1,
    T any number from the encoder's reach on. What the axes mean is the metadata entry ``ethoray``
    of ONNX, the extra file ``ethoray.json`` of torch.

    Args:
        path: File to write.
        network: From these inputs to the outputs.
        embedder: The encoder in it.
        head: What follows the encoder, for errors.
        problems: Name to classes, in the order of the outputs.

    Raises:
        BadInput: If onnx is not installed, or the network has operations that ONNX lacks.
    """
    animals, keypoints, coordinates = embedder.features.schema.shape
    torch.manual_seed(0)
    position = torch.rand(1, FRAMES, animals, keypoints, coordinates) * 100
    position[0, 3, 0, 0] = torch.nan
    inputs = [position, torch.ones(1, FRAMES, animals, keypoints)]
    if embedder.external:
        inputs.append(torch.zeros(1, FRAMES, sum(embedder.external.values())))
    about = {
        "schema": embedder.features.schema.to_dict(),
        **embedder.settings,
        "dim": embedder.dim,
        "external": embedder.external,
        "problems": problems or {},
    }
    about_text = json.dumps(about)
    try:
        program = torch.export.export(
            network.eval(),
            tuple(inputs),
            dynamic_shapes=tuple({1: torch.export.Dim.DYNAMIC} for _ in inputs),
            strict=False,
        )
        if path.suffix == ".pt2":
            torch.export.save(program, path, extra_files={"ethoray.json": about_text})
            return
        onnx = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            optimize=False,  # onnxruntime does it when it loads, and this fails at LSTMs
            input_names=INPUTS[: len(inputs)],
            output_names=["z_BTD", *(problems or ())],
        )
    except ImportError as error:
        raise BadInput(
            f"ONNX needs more packages: pip install 'ethoray[share]' ({error})"
        ) from error
    except Exception as error:
        name = f"encoder {embedder.settings['encoder']['name']}" + (head and f" with head {head}")
        raise BadInput(
            f"{name} cannot be written as {path.suffix.strip('.') or 'onnx'} (its mlflow_model "
            f"goes anywhere that Python does): {str(error).strip().splitlines()[0]}"
        ) from error
    assert onnx is not None, "dynamo=True gives a program"
    onnx.model.metadata_props["ethoray"] = about_text
    onnx.save(path)
