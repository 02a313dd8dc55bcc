"""What a run leaves: its full state, to resume from, and the encoder folder, to use."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from pretrain.data.schema import Schema
from pretrain.encoders import Embedder, build_embedder
from pretrain.errors import BadInput, refuse

VERSION = 1
_STATE, _COMPLETE = "state.pt", "complete"


def save_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Writes everything a run needs to go on (weights, optimiser, position in the data), and last a
    marker that lists the bytes of every file in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state), folder / _STATE)
    (folder / _COMPLETE).write_text(json.dumps(_sizes(folder)), encoding="utf-8")


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file below a folder but the marker."""
    return {
        file.relative_to(folder).as_posix(): file.stat().st_size
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != _COMPLETE
    }


def is_complete(folder: Path) -> bool:
    """Whether all of a checkpoint is there, in whatever order its files were copied."""
    marker = folder / _COMPLETE
    if not marker.is_file():
        return False
    # empty where an earlier release wrote it
    expected = json.loads(marker.read_text(encoding="utf-8") or "{}")
    there = _sizes(folder)
    return all(there.get(name) == size for name, size in expected.items())


def load_state(folder: Path) -> dict[str, Any]:
    """Reads what :func:`save_state` wrote; no code in the file is run.

    Raises:
        BadInput: If the folder holds no complete state.
    """
    if not is_complete(folder):
        raise BadInput(
            f"the checkpoint {folder} is not complete: choose an earlier one (--from), or start "
            "anew"
        )
    try:
        state: dict[str, Any] = torch.load(folder / _STATE, weights_only=True, map_location="cpu")
    except Exception as error:
        raise BadInput(f"the checkpoint {folder} is damaged: {error}") from error
    return state


def save_encoder(folder: Path, embedder: Embedder, *, made_by: Mapping[str, Any]) -> None:
    """Writes the encoder folder: ``encoder.safetensors``, and ``encoder.json``, which says how to
    rebuild it.

    Args:
        folder: Made if it is not there.
        embedder: The encoder, with its features.
        made_by: Where it comes from: recipe, data fingerprint, steps. Free, for the reader.
    """
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "version": VERSION,
        "schema": embedder.features.schema.to_dict(),
        **embedder.settings,
        "dim": embedder.dim,
        "made_by": dict(made_by),
    }
    safetensors.torch.save_file(
        {name: x.detach().cpu().contiguous() for name, x in embedder.state_dict().items()},
        folder / "encoder.safetensors",
    )
    (folder / "encoder.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def find_encoder(path: str | Path) -> Path:
    """The encoder folder of a run, or the folder itself.

    Raises:
        BadInput: If neither holds an encoder.
    """
    for folder in (Path(path), Path(path) / "encoder"):
        if (folder / "encoder.json").is_file():
            return folder
    raise BadInput(
        f"there is no encoder at {path}: give the --out folder of a finished "
        "`ethoray pretrain`, its encoder/ folder, or none"
    )


def load_encoder(path: str | Path, schema: Schema | None = None) -> tuple[Embedder, dict[str, Any]]:
    """Rebuilds an encoder.

    Args:
        path: Run or encoder folder.
        schema: Skeleton of the poses it is to embed.

    Returns:
        The embedder in evaluation mode, and ``encoder.json``.

    Raises:
        BadInput: If the folder is damaged or the skeletons differ; shows both.
    """
    folder = find_encoder(path)
    try:
        about = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
        version = about["version"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise BadInput(f"the encoder {folder} is damaged: encoder.json: {error!r}") from error
    if version != VERSION:
        raise BadInput(f"the encoder {folder} has version {version}; this release reads {VERSION}")
    refuse(
        [
            f"encoder.json has no {key!r}"
            for key in ("schema", "features", "encoder")
            if not isinstance(about.get(key), dict)
        ],
        about=f"the encoder {folder} is damaged",
    )
    trained_on = Schema.from_dict(about["schema"])
    if schema is not None:
        refuse(
            schema.differences(trained_on),
            about=f"the encoder {folder} (there) does not fit the store's skeleton (here)",
        )
        if trained_on.fps != schema.fps:
            fps = f"{trained_on.fps:g}"
            raise BadInput(
                f"the encoder {folder} was trained at {fps} frames/s, the store has "
                f"{schema.fps:g}: prepare it at {fps}"
            )
    embedder = build_embedder(
        trained_on,
        features=about["features"],
        encoder=about["encoder"],
        extra_features=about.get("extra_features", about.get("beside")),
    )
    try:
        weights = safetensors.torch.load_file(folder / "encoder.safetensors")
        # Folders written before extra features had this name call them "beside".
        embedder.load_state_dict({re.sub("^beside_", "extra_", k): w for k, w in weights.items()})
    except RuntimeError as error:
        raise BadInput(
            f"the encoder {folder} has weights that do not fit {about['encoder'].get('name')} as "
            "it is in this release: it is damaged, or of an earlier release in which that was "
            f"another network (then pretrain it anew): encoder.safetensors: {error}"
        ) from error
    except (OSError, safetensors.SafetensorError) as error:
        raise BadInput(f"the encoder {folder} is damaged: encoder.safetensors: {error}") from error
    return embedder.eval(), about
