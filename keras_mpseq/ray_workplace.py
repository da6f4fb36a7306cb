"""Where workers are with `backend="ray"`: the cluster, and how batches and versions lie in its object store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_mpseq.backend import PoolSlot
from keras_mpseq.errors import PayloadError
from keras_mpseq.messages import Setup
from keras_mpseq.options import Options
from keras_mpseq.ray_backend import RayBackend
from keras_mpseq.ray_cluster import Cluster
from keras_mpseq.ray_store import RemoteSlot, StoredSegment

_STORE_SHARE = 2
"""Batches may take one part in so many of the object store: Ray frees what was let go up to a second later."""


class RayWorkplace:
    """A cluster of Ray. See Workplace."""

    depth = 4
    slot = RemoteSlot

    def __init__(self, options: Options) -> None:
        assert options.ray is not None
        self._options = options.ray
        self._cluster = Cluster(options.ray, options.workers)
        self._store_bytes = self._cluster.store_bytes
        self.max_bytes: int = min(options.max_bytes, self._store_bytes // _STORE_SHARE)

    def segment(self, data: memoryview | bytes) -> StoredSegment:
        """See Workplace.

        Raises:
            PayloadError: It is larger than the object store of this node.
        """
        nbytes = memoryview(data).nbytes
        if nbytes > self._store_bytes:
            raise PayloadError(
                f"The sequence has {nbytes:,} bytes in one piece, and Ray's object store of this node has "
                f"{self._store_bytes:,}",
                remedy="Start Ray with a larger object store (ray start --object-store-memory), or let the sequence "
                "read its data from files that all nodes see.",
            )
        return StoredSegment.of(data)

    def backend(self, setup: Setup, slots: Sequence[PoolSlot], handles: Sequence[Any]) -> RayBackend:
        """See Workplace."""
        return RayBackend(setup, slots, handles, self._cluster, self._options)
