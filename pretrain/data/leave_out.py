"""Videos that nothing is to be learned from, and which of them an encoder has seen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from pretrain.data.store import Store
from pretrain.errors import BadInput


def videos_to_leave_out(word: str, store: Store) -> list[str]:
    """What ``--leave-out`` means.

    Args:
        word: ``test``: the test videos of any label set of the store; else a file of names, one a
            line.
        store: Where the videos are.

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


def digests(store: Store, names: Iterable[str]) -> list[str]:
    """Short names that are the same for the same recordings in another store: of their source files
    where those are known, else of this store's poses and the video's name."""
    videos = {video["name"]: video for video in store.videos}
    texts = (f"{videos[n].get('source_sha256') or store.fingerprint}/{n}" for n in names)
    return sorted(hashlib.sha256(text.encode()).hexdigest()[:12] for text in texts)
