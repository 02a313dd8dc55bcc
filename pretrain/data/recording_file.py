"""Names of recordings, which are anybody's, as names of files."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

_NOT_IN_FILE_NAMES = re.compile(r'^\.|[\x00-\x1f\x7f%/\\:*?"<>|]')
_MOST_BYTES = 223
"""File systems take 255; the rest is for endings."""


def recording_file(folder: Path, name: str, ending: str) -> Path:
    """A recording's own file below a folder, whatever the recording is called.

    Recordings that differ by their folders (``monday/1``) keep them; two names never share a file,
    and none leads out of the folder.

    Args:
        folder: Where.
        name: Of the recording.
        ending: Of the file, ``.csv``.
    """
    *above, last = name.split("/")
    # the folder of m1.csv/2 is not the file of m1
    folders = [file_name(part) + "%" * part.endswith(ending) for part in above]
    return folder.joinpath(*folders, file_name(last) + ending)


def file_name(name: str) -> str:
    """A name as one part of a path: what file systems refuse or take for something else is written
    as %XX, and what is too long is cut, with a checksum of the whole in its place."""
    safe = _NOT_IN_FILE_NAMES.sub(lambda match: f"%{ord(match[0]):02X}", name) or "%"
    if len(safe.encode()) <= _MOST_BYTES:
        return safe
    checksum = f"~{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return safe.encode()[: _MOST_BYTES - len(checksum)].decode(errors="ignore") + checksum
