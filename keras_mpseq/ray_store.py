"""Batches and versions of the sequence in Ray's object store.

A slot is a budget of bytes. What workers return of it lies in objects of the store, one for each call: mapped here,
read-only, for as long as arrays are over it. Ray copies an object to this machine if it was built on another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from keras_mpseq.messages import Leaf
from keras_mpseq.slots import ALIGNMENT, SLOT_HEAD, Lease, LeaseEnd, Slot, aligned


@dataclass(eq=False, slots=True)
class StoredSegment:
    """Bytes of a version in the object store; the handle is an object reference. See Segment."""

    handle: Any
    view: memoryview

    @property
    def nbytes(self) -> int:
        """See Segment."""
        return self.view.nbytes

    @classmethod
    def of(cls, data: memoryview | bytes) -> StoredSegment:
        """Copy *data* into the store; the reference is held, or workers that start later would not find it."""
        handle = ray.put(np.frombuffer(data, np.uint8))
        stored: NDArray[np.uint8] = ray.get(handle)
        return cls(handle, stored.data)

    def close(self) -> None:
        """See Segment."""
        self.view.release()
        self.handle = None


class RemoteSlot:
    """The pool's side of a slot on a cluster. See PoolSlot."""

    noted = -1
    """Marks die with their worker."""

    def __init__(self) -> None:
        self._given: Slot | None = None
        """What the batches are made of, if they are made of something."""
        self._pieces: list[tuple[int, NDArray[np.uint8]]] = []
        """What was returned, and where in the slot it would begin."""
        self._end = 0
        self._lease_end: LeaseEnd | None = None
        self._progress: int | None = None
        self.since: float = 0.0
        self.nbytes: int = 0

    @property
    def progress(self) -> int | None:
        """See PoolSlot."""
        return self._progress

    @progress.setter
    def progress(self, done: int | None) -> None:
        self._progress = done
        self.since = time.monotonic()

    # --- to the worker ---

    def begin(self, room: int) -> None:
        """See PoolSlot."""
        if self._given is None:
            self._given = Slot.new()
        self._given.begin(room)

    def place(self, array: NDArray[Any]) -> Leaf:
        """See PoolSlot."""
        assert self._given is not None
        return self._given.place(array)

    def given(self) -> NDArray[np.uint8] | None:
        """Return what was placed, as it is to lie in the worker's slot."""
        return None if self._given is None else self._given.written(SLOT_HEAD)

    # --- from the worker ---

    def empty(self) -> None:
        """Let go of what lies in the slot."""
        self._pieces, self._end = [], 0

    def hold(self, pieces: Sequence[tuple[int, NDArray[np.uint8]]]) -> int:
        """Take in what a call returned; return by how much its leaves lie further on than it says."""
        if not pieces:
            return 0
        shift = self._end - min(start for start, _ in pieces) if self._pieces else 0
        for start, memory in pieces:
            self._pieces.append((start + shift, _aligned(memory)))
            self._end = max(self._end, start + shift + aligned(memory.nbytes))
        self.nbytes = max(self.nbytes, self._end)
        return shift

    def arrays(self, leaves: Iterable[Leaf], dtypes: Iterable[np.dtype[Any]], copy: bool) -> list[NDArray[Any]]:
        """See PoolSlot."""
        views = [
            self._bytes_of(leaf).view(dtype).reshape(leaf.shape) for leaf, dtype in zip(leaves, dtypes, strict=True)
        ]
        return [view.copy() for view in views] if copy else views

    def _bytes_of(self, leaf: Leaf) -> NDArray[np.uint8]:
        for start, memory in self._pieces:
            if leaf.nbytes and start <= leaf.offset < start + memory.nbytes:
                return memory[leaf.offset - start : leaf.offset - start + leaf.nbytes]
        return np.empty(0, np.uint8)  # Of a leaf of no bytes nothing is returned.

    def leased(
        self,
        leaves: Iterable[Leaf],
        dtypes: Iterable[np.dtype[Any]],
        number: int,
        ended: Callable[[LeaseEnd], object],
    ) -> list[NDArray[Any]]:
        """See PoolSlot. The object is the consumer's from now on: nothing here holds it."""
        lease = Lease(self._pieces[0][1])
        self._lease_end = LeaseEnd(lease, ended)
        self._lease_end.number = number  # Before the arrays are anybody's.
        self._pieces = [(start, np.asarray(Held(memory, lease))) for start, memory in self._pieces]
        arrays = self.arrays(leaves, dtypes, copy=False)
        self._pieces = []
        return arrays

    def reserve(self, nbytes: int) -> None:
        """See PoolSlot: the store was asked for its size."""

    def close(self) -> None:
        """See PoolSlot."""
        self._pieces.clear()
        if self._given is not None:
            self._given.close()


class Held:
    """The base of arrays over one piece of a batch: with the last of them, of whichever piece, the lease ends."""

    __slots__ = ("__array_interface__", "lease", "memory")

    def __init__(self, memory: NDArray[np.uint8], lease: Lease) -> None:
        self.memory: NDArray[np.uint8] = memory
        self.lease: Lease = lease
        self.__array_interface__: dict[str, Any] = memory.__array_interface__


def _aligned(memory: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return *memory*, or a copy where Ray sent so little that it lies anywhere: TensorFlow would copy each leaf."""
    if memory.__array_interface__["data"][0] % ALIGNMENT == 0:
        return memory
    room = np.empty(memory.nbytes + ALIGNMENT, np.uint8)
    start = -room.__array_interface__["data"][0] % ALIGNMENT
    copy = room[start : start + memory.nbytes]
    copy[...] = memory
    return copy
