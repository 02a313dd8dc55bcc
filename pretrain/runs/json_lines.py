"""A file of JSON records, one a line, that survives whatever happens to its writer."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

Record = dict[str, Any]


@dataclass(frozen=True)
class JsonLines:
    """Records appended to a file.

    Args:
        path: The file, made with the first record.
    """

    path: Path

    def append(self, record: Record) -> None:
        """Adds one line.

        Raises:
            OSError: If the file cannot be written.
        """
        line = json.dumps(record, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        with self.path.open("ab+") as file:
            if file.tell() > 0:
                file.seek(-1, 2)
                if file.read() != b"\n":  # a writer was killed, or the disk was full
                    line = b"\n" + line
            file.write(line)

    def read(self) -> list[Record]:
        """All records in the order written; lines cut short by a crash are left out with a warning.

        Raises:
            OSError: If the file is there but cannot be read.
        """
        if not self.path.exists():
            return []
        records, damaged = [], 0
        with self.path.open("rb") as file:
            for line in file:
                try:
                    record = json.loads(line)
                    record["kind"]
                    records.append(record)
                except (ValueError, KeyError, TypeError):
                    damaged += bool(line.strip())
        if damaged:
            log.warning("%s: %d damaged lines are left out", self.path, damaged)
        return records
