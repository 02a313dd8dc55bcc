"""Where a store is, and whether there is a whole one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from pretrain.errors import BadInput, refuse

VERSION = 1


def filesystem(uri: str | Path) -> tuple[fs.FileSystem, str]:
    """The file system and the path on it that an address means; a bare path is local.

    Raises:
        BadInput: If the address cannot be understood.
    """
    text = str(uri)
    if "://" not in text:
        return fs.LocalFileSystem(), str(Path(text).expanduser().absolute())
    try:
        system, path = fs.FileSystem.from_uri(text)
    except (pa.ArrowInvalid, ValueError, OSError) as error:
        raise BadInput(
            f"cannot open {text}: {error}. A store is a folder, file://…, s3://bucket/folder or "
            "gs://bucket/folder"
        ) from error
    return system, path.rstrip("/")


def read_meta(system: fs.FileSystem, path: str, uri: str) -> dict[str, Any]:
    """What store.json says.

    Raises:
        BadInput: If there is no whole store of this version.
    """
    try:
        info = system.get_file_info(f"{path}/store.json")
        if info.type != fs.FileType.File:
            there = system.get_file_info(path).type
            if (
                there == fs.FileType.Directory
                and system.get_file_info(f"{path}/poses").type == fs.FileType.Directory
            ):
                raise BadInput(
                    f"the store {uri} is half-written (it has poses but no store.json): remove it "
                    "and prepare it again"
                )
            if there == fs.FileType.NotFound:
                raise BadInput(
                    f"there is no store at {uri}. Make one: ethoray prepare arena --out {uri}"
                )
            raise BadInput(f"{uri} is not a pose store (no store.json in it)")
        with system.open_input_stream(f"{path}/store.json") as stream:
            meta = json.loads(stream.read())
    except OSError as error:
        raise BadInput(f"cannot read the store {uri}: {error}") from error
    except ValueError as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"the store {uri} is damaged: store.json is not JSON ({error})") from error
    if not isinstance(meta, dict) or meta.get("version") != VERSION:
        found = meta.get("version") if isinstance(meta, dict) else None
        raise BadInput(
            f"the store {uri} has version {found}; this release reads version {VERSION}: prepare "
            "it again"
        )
    missing = [key for key in ("schema", "chunk_frames", "videos", "parts") if key not in meta]
    refuse([f"store.json has no {key!r}" for key in missing], about=f"the store {uri} is damaged")
    return meta
