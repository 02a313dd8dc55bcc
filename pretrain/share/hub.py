"""Encoders and models on the Hugging Face Hub, or a server with its interface: a repository is the
folder as it is, with the card as its README.md."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pretrain.errors import BadInput, RunFailed
from pretrain.redact import redact

FILES = ("*.json", "*.safetensors", "README.md")


def shared_folder(path: Path) -> Path:
    """What of a run is shared: ``model/``, or ``encoder/``; another folder is itself.

    Raises:
        BadInput: If it holds neither.
    """
    for folder in (path / "model", path / "encoder", path):
        if any(folder.glob("encoder.json")) or any(folder.glob("seed-*/encoder.json")):
            return folder
    raise BadInput(f"there is no encoder or model at {path}: give the --out folder of a run")


def push(folder: Path, repository: str, *, endpoint: str | None, private: bool) -> str:
    """Uploads a folder's weights, settings and card; returns the address of the commit.

    Args:
        folder: Encoder or model.
        repository: ``OWNER/NAME``; made if it is not there.
        endpoint: The hub; None: what HF_ENDPOINT says, or huggingface.co.
        private: Whether a new repository is.

    Raises:
        BadInput: If huggingface_hub is not installed.
        RunFailed: If the hub refuses or cannot be reached.
    """
    with _hub(endpoint, repository) as api:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=list(FILES),
            commit_message="Ethoray",
        )
        return str(commit.commit_url)


def pull(repository: str, folder: Path, *, endpoint: str | None, revision: str | None) -> None:
    """Downloads what :func:`push` uploaded; arguments and errors as there."""
    with _hub(endpoint, repository) as api:
        api.snapshot_download(
            repository, revision=revision, local_dir=folder, allow_patterns=list(FILES)
        )


@contextmanager
def _hub(endpoint: str | None, repository: str) -> Iterator[Any]:
    """The hub's client; its errors as ours."""
    if repository.count("/") != 1:
        raise BadInput(f"{repository!r} is no repository of the hub: give OWNER/NAME")
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise BadInput("the hub needs one more package: pip install 'ethoray[share]'") from None
    try:
        yield HfApi(endpoint=endpoint, library_name="ethoray")
    except Exception as error:
        heart = redact(str(error)).strip() or type(error).__name__
        raise RunFailed(
            f"the hub at {redact(endpoint or 'its default address')}: {heart}"
        ) from error
