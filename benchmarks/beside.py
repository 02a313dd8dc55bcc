"""Ray as the workers of a run see it: one core is theirs, the others read."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from pretrain.cluster.join import cluster
from pretrain.config import Scale


@contextmanager
def beside_one_worker() -> Iterator[None]:
    """A Ray of all cores but one (of one, where there is no other), in which this process plays the
    worker."""
    logging.getLogger("ray").setLevel(logging.WARNING)
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    with cluster(Scale(cpus=max(1, (os.cpu_count() or 1) - 1)), cpus_wanted=1):
        yield
