"""Reads row groups of a store in a given order, for Ray Data. Processes that read import no torch:
they are up in half the time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from pretrain.data.store import Store
from pretrain.errors import BadInput

READ_BYTES = 24 * 2**20
RESIDENT_READ_BYTES = 12 * 2**20
"""Where frames stay in the worker they are read once: a tenth slower, and Ray's object store takes
less memory next to them."""

Read = list[tuple[int, int, int]]
"""Row groups that one task reads: part, row group within it, index in what was asked for."""


class GroupSource(Datasource):  # type: ignore[misc]
    """Row groups of a store in a given order.

    No dataclass: Ray Data walks those, field by field, number by number, before it starts.
    """

    def __init__(
        self, store: Store, features: tuple[str, ...], reads: list[Read], size: int
    ) -> None:
        super().__init__()
        self.address, self.fingerprint, self.features = store.address, store.fingerprint, features
        self.reads, self.size = reads, size

    def get_name(self) -> str:
        """For Ray's logs."""
        return "Poses"

    def estimate_inmemory_data_size(self) -> int | None:
        """Bytes of all blocks, roughly."""
        return self.size * len(self.reads)

    def get_read_tasks(self, parallelism: int, *args: object, **more: object) -> list[ReadTask]:
        """One task a read, in the order given."""
        return [
            ReadTask(
                _reader(self.address, self.fingerprint, self.features, read),
                BlockMetadata(
                    num_rows=None, size_bytes=self.size, input_files=None, exec_stats=None
                ),
            )
            for read in self.reads
        ]


def _reader(
    address: str, fingerprint: str, features: Sequence[str], read: Read
) -> Callable[[], list[pa.Table]]:
    def tables() -> list[pa.Table]:
        store, pieces = _open(address, fingerprint), []
        for part, group, index in read:
            table = store.read_groups(part, [group], features=features)
            table = table.drop_columns(["video", "first_frame"])
            pieces.append(table.append_column("order", pa.array(np.repeat(index, len(table)))))
        return [pa.concat_tables(pieces).combine_chunks()]

    return tables


@lru_cache(maxsize=4)
def _open(uri: str, fingerprint: str) -> Store:
    """A store, opened once a process: it remembers where the row groups of its parts lie."""
    store = Store(uri)
    if store.fingerprint != fingerprint:
        raise BadInput(f"the store {uri} was changed while it was being read; start the run again")
    return store
