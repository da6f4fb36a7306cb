"""The slot in which an actor builds: Ray copies what lies in it into its store, when the call returns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_mpseq.messages import Leaf
from keras_mpseq.slots import Slot, aligned

_LEFT_FROM = 1 << 16
"""Bytes from which copying costs more than a piece of its own."""


class StoreSlot(Slot):
    """A slot whose large leaves stay where they are until Ray copies them."""

    remedy = (
        "Raise max_bytes, lower workers, prefetch or the batch size, or give Ray's object store more memory "
        "(ray start --object-store-memory): batches may take half of it."
    )
    alone = False
    """The task has one batch: nothing of the user's runs between its end and the copy."""

    def begin(self, room: int, used: int = 0) -> None:
        """See Slot."""
        super().begin(room, used)
        self._left: dict[int, NDArray[Any]] = {}

    def place(self, array: NDArray[Any], dtype: np.dtype[Any] | None = None) -> Leaf:
        """See Slot; only its place is taken by an array that is as it has to be."""
        kind = dtype or array.dtype.newbyteorder("=")
        start, end = self._end, self._end + aligned(array.nbytes)
        fits = self.alone and end <= self._room and array.nbytes >= _LEFT_FROM
        if not fits or array.dtype != kind or not array.flags.c_contiguous or self.locate(array) is not None:
            return super().place(array, dtype)
        self._left[start] = array
        self._end = end
        return Leaf(start, array.shape, array.nbytes)

    def pieces(self, leaves: Iterable[Leaf]) -> tuple[tuple[int, NDArray[np.uint8]], ...]:
        """Return the memory at *leaves*, and where it is: in one piece, if nothing was left where it was."""
        leaves = [leaf for leaf in leaves if leaf.nbytes]
        if not leaves:
            return ()
        if not self._left:
            # A batch may consist of what it was made of, and then lies where that does.
            start = min(leaf.offset for leaf in leaves)
            return ((start, self.written(start)),)
        return tuple((leaf.offset, self._bytes_of(leaf)) for leaf in leaves)

    def _bytes_of(self, leaf: Leaf) -> NDArray[np.uint8]:
        left = self._left.get(leaf.offset)
        if left is not None:
            return left.reshape(-1).view(np.uint8)
        return self._maps[-1][leaf.offset : leaf.offset + leaf.nbytes]
