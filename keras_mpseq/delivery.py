"""From what workers answer to batches: the slots, the structures of batches, how large slots and chunks are.

Owns the slots. Each worker numbers the structures it meets; here they get numbers of the pool.
"""

from __future__ import annotations

import pickle
import queue
from collections.abc import Callable
from math import ceil

import cloudpickle

from keras_mpseq.backend import PoolSlot
from keras_mpseq.codec import Structure
from keras_mpseq.errors import load_error, scarce
from keras_mpseq.messages import Batch, Failure, Input, Layout, Outcome, Past
from keras_mpseq.run import Parts
from keras_mpseq.slots import SLOT_HEAD, LeaseEnd, Slot, room_for_memory, whole_pages

_CHUNK_S = 0.04
"""Seconds of work in a task of several small batches. Messages, wake-ups and a step of tf.data cost the training
process 0.8 ms a task while the workers keep all cores busy (docs/explanation/slots.md)."""
_CHUNK_BYTES = 1 << 18
_CHUNK_MOST = 64
_CHUNK_SPARE = 16
"""Room that a task of several batches leaves for later ones that are so many times as large."""


class Delivery:
    """The pool's side of the slots.

    Args:
        slots: How many to make.
        max_bytes: Bound on their sum.
        slot: Makes one.
    """

    def __init__(self, slots: int, max_bytes: int, slot: Callable[[], PoolSlot] = Slot.new) -> None:
        self.slots: list[PoolSlot] = []
        self.released: queue.SimpleQueue[LeaseEnd] = queue.SimpleQueue()
        """Slots whose lease has ended; put there when the arrays die."""
        self.room: int = max_bytes
        """Bytes to which a slot may grow."""
        self._max_bytes = max_bytes
        self._sized = False
        self._chunk = 1
        self._largest = 0
        self._numbers: dict[Structure, int] = {}
        self._structures: list[Structure] = []
        self._layouts: dict[tuple[int, int], int] = {}
        self._pickled: dict[Structure, bytes] = {}
        try:
            with scarce(f"{slots} pieces of shared memory cannot be had"):
                for _ in range(slots):
                    self.slots.append(slot())
        except BaseException:
            self.close()
            raise

    # --- what workers say ---

    def learn(self, worker: int, layout: Layout) -> None:
        """Note a structure that *worker* will refer to."""
        structure: Structure = pickle.loads(layout.structure)
        number = self._numbers.setdefault(structure, len(self._numbers))
        if number == len(self._structures):
            self._structures.append(structure)
        self._layouts[worker, layout.number] = number

    def forget(self, worker: int) -> None:
        """Note that *worker* is gone: its successor numbers structures anew."""
        self._layouts = {key: number for key, number in self._layouts.items() if key[0] != worker}

    def place(self, slot: int, parts: Parts) -> Input:
        """Put what a batch is to be made of behind what is in *slot* already.

        Raises:
            SlotTooSmallError: There is not so much room.
        """
        if parts.structure not in self._pickled:
            self._pickled[parts.structure] = cloudpickle.dumps(parts.structure, 5)
        leaves = tuple([self.slots[slot].place(array) for array in parts.arrays])
        return Input(self._pickled[parts.structure], leaves)

    def received(
        self, outcome: Batch | Failure | Past, worker: int, seat: int, attempt: int, node: str
    ) -> Batch | Failure | Past:
        """Return an outcome as the pool keeps it: with a structure of the pool's, or with the error itself."""
        if isinstance(outcome, Batch):
            return outcome._replace(layout=self._layouts[worker, outcome.layout])
        if isinstance(outcome, Past):
            return outcome
        assert isinstance(outcome.error, bytes)
        error = load_error(outcome.error)
        error.worker, error.attempt, error.node = seat, attempt, node
        return Failure(error)

    # --- batches ---

    def parts(self, outcome: Outcome, slot: int, *, lease: bool) -> Parts:
        """Return a batch: over its slot, which comes back through `released`, or copied out of it."""
        assert isinstance(outcome, Batch)
        structure = self._structures[outcome.layout]
        if not lease:
            return Parts(structure, self.slots[slot].arrays(outcome.leaves, structure.dtypes, copy=True))
        arrays = self.slots[slot].leased(outcome.leaves, structure.dtypes, slot, self.released.put)
        return Parts(structure, arrays)

    # --- sizes ---

    def size(self, nbytes: int) -> int:
        """Fix the room of a slot by the first batch; return how many slots `max_bytes` allows beyond the first.

        Raises:
            MpseqError: This process cannot map so much, or so much room is not on the disk.
        """
        if self._sized or not nbytes:
            return 0
        self._sized = True
        # Its slot may have grown further than the first batch reached: the others must leave that much to it.
        room = max(whole_pages(SLOT_HEAD + nbytes), *(slot.nbytes for slot in self.slots))
        count = max(1, min(len(self.slots), self._max_bytes // room))
        self.room = self._max_bytes // count
        with scarce(f"Memory for {count} batches cannot be had"):
            room_for_memory(count * room)
            for slot in self.slots[:count]:
                slot.reserve(room)
        return count - 1

    @property
    def chunk_now(self) -> int:
        """How many batches a task has."""
        return self._chunk

    def chunk(self, nbytes: int, seconds: float) -> int | None:
        """Return how many batches a task should have, if that changes: several where a message costs more than one.

        Args:
            nbytes: Of the largest batch of a task; 0 where all of them failed, which tells nothing of the next.
            seconds: That one of its batches took.
        """
        if not nbytes:
            return None
        self._largest = max(self._largest, nbytes)
        # Of all batches, not of this task's: a task that begins with small ones must have room for a large one.
        most = min(_CHUNK_BYTES, self.room // _CHUNK_SPARE) // self._largest
        chunk = max(1, min(_CHUNK_MOST, most, 2 * self._chunk, ceil(_CHUNK_S / max(seconds, 1e-6))))
        changed = chunk != self._chunk
        self._chunk = chunk
        return chunk if changed else None

    @property
    def nbytes(self) -> int:
        """Bytes that all slots have grown to."""
        return sum(slot.nbytes for slot in self.slots)

    def close(self) -> None:
        """Give up the slots; leased arrays keep their mappings."""
        while self.slots:
            self.slots.pop().close()
