"""Videos that nothing is to be learned from, and which of them an encoder has seen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path

import numpy as np

from pretrain.data.store import Store
from pretrain.errors import BadInput

_DIGITS = 12


def videos_to_leave_out(word: str, store: Store) -> list[str]:
    """What ``--leave-out`` means: ``test``, the test videos of any label set of the store; else a
    file of names, one a line.

    Raises:
        BadInput: If the file cannot be read, or the store does not say which videos are for
            testing.
    """
    if word != "test":
        try:
            lines = Path(word).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"--leave-out {word}: give test, or a file of names: {error}") from error
        return [name for line in lines if (name := line.strip())]
    if any("test" not in record for record in store.labels):
        raise BadInput(
            f"the store {store.uri} does not say which videos are for testing (an earlier version "
            "wrote its labels): prepare it anew, or name them in a file, --leave-out FILE"
        )
    return sorted({name for record in store.labels for name in record["test"]})


def fingerprints(store: Store, names: Iterable[str]) -> dict[str, set[str]]:
    """Short names by which videos of a store are known again in other stores.

    Returns:
        For each video one of its poses (those at its beginning and end, and its length), which
        keeps when it is called otherwise; and one of its source file and name, where that is known,
        which keeps when its poses were prepared otherwise.

    Raises:
        BadInput: If there is no such video, or a part of the store is damaged.
    """
    index_of = {name: store.video_index(name) for name in names}
    hashes = {
        index: hashlib.sha256(str(store.videos[index]["frames"]).encode())
        for index in index_of.values()
    }
    chunks = store.chunks
    changes = np.diff(chunks.video, prepend=-1, append=-1) != 0
    is_hashed = (changes[:-1] | changes[1:]) & np.isin(chunks.video, list(hashes))
    for group in np.unique(chunks.group_id[is_hashed]):
        rows = np.flatnonzero(chunks.group_id == group)
        table = store.read_groups(int(chunks.part[rows[0]]), [int(chunks.group[rows[0]])])
        for row in np.flatnonzero(is_hashed[rows]):
            for column in ("position", "confidence"):
                hashes[int(chunks.video[rows[row]])].update(table[column][int(row)].as_buffer())
    seen = {}
    for name, index in index_of.items():
        seen[name] = {hashes[index].hexdigest()[:_DIGITS]}
        if source := store.videos[index].get("source_sha256"):
            seen[name].add(hashlib.sha256(f"{source}/{name}".encode()).hexdigest()[:_DIGITS])
    return seen


def joined(fingerprints_by_video: Mapping[str, set[str]]) -> list[str]:
    """Those of all videos, as encoders and features keep them."""
    return sorted(set().union(*fingerprints_by_video.values()))


def share_seen(
    records: Iterable[Sequence[str] | None], store: Store, names: Set[str]
) -> float | None:
    """Share of some videos of a store that something was learned from. Records are fingerprints of
    the videos that each encoder and each external feature was learned from; None where nobody can
    tell.

    Returns:
        The share that is known for certain; None where there is none and not every record is known.
    """
    records = list(records)
    seen = set().union(*(record for record in records if record is not None))
    videos = fingerprints(store, names) if seen else {}
    share = sum(bool(prints & seen) for prints in videos.values()) / max(1, len(names))
    return None if not share and None in records else share
