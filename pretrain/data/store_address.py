"""Where a store is, whether there is a whole one, and writing files of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
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
            folder, poses = system.get_file_info([path, f"{path}/poses"])
            if poses.type == fs.FileType.Directory:
                raise BadInput(
                    f"the store {uri} is half-written (it has poses but no store.json): remove it "
                    "and prepare it again"
                )
            if folder.type == fs.FileType.NotFound:
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
        version = meta.get("version") if isinstance(meta, dict) else None
        raise BadInput(
            f"the store {uri} has version {version}; this release reads version {VERSION}: prepare "
            "it again"
        )
    missing = [key for key in ("schema", "chunk_frames", "videos", "parts") if key not in meta]
    refuse([f"store.json has no {key!r}" for key in missing], about=f"the store {uri} is damaged")
    return meta


def write_file(
    system: fs.FileSystem, folder: str, relative: str, data: bytes, *, uri: str, written: list[str]
) -> dict[str, Any]:
    """Writes a file into the folder of a store; returns its record for store.json. ``written`` gets
    the path of the file once it may exist.

    Raises:
        BadInput: If it cannot be written.
    """
    path = f"{folder}/{relative}"
    try:
        system.create_dir(path.rsplit("/", 1)[0], recursive=True)
        written.append(path)
        with system.open_output_stream(path) as stream:
            stream.write(data)
    except OSError as error:  # a full disk, a bucket that is not ours
        raise BadInput(f"cannot write {relative} of the store {uri}: {error}") from error
    return {"file": relative, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def delete_files(system: fs.FileSystem, paths: Iterable[str]) -> None:
    """Deletes those that are there."""
    for path in paths:
        if system.get_file_info(path).type == fs.FileType.File:
            system.delete_file(path)


def replace_file(system: fs.FileSystem, path: str, data: bytes) -> None:
    """Writes a file so that a reader sees the old one or the new one, never a part of it."""
    if isinstance(system, fs.LocalFileSystem):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        new = Path(f"{path}.new")
        new.write_bytes(data)
        new.replace(path)
        return
    # an object store shows an object only once it is whole
    with system.open_output_stream(path) as stream:
        stream.write(data)
