"""Zip archives from strangers."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from pathlib import Path

from pretrain.errors import BadInput

ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    LookupError,
    OverflowError,
    MemoryError,
)
"""What reading a damaged archive may raise."""
_EXPANSION = 200


def refuse_bomb(archive: zipfile.ZipFile, path: Path, *, room_bytes: int) -> None:
    """Refuses an archive that unpacks to more than ``room_bytes`` and far more than its own
    size."""
    size, packed = sum(info.file_size for info in archive.infolist()), path.stat().st_size
    if size > max(room_bytes, _EXPANSION * packed):
        raise BadInput(
            f"{path}: {size / 2**30:,.1f} GiB packed into {packed / 2**20:,.2f} MiB: refused as a "
            "zip bomb"
        )


def leaves_folder(member: str) -> bool:
    """Whether a member of this name would be unpacked elsewhere than into the folder."""
    name = member.replace("\\", "/")
    return name.startswith("/") or ".." in name.split("/") or bool(re.match(r"[A-Za-z]:", name))
