"""The image iterators of Keras, `ImageDataGenerator().flow(...)` and its like, as functions of the index.

They are Sequences that hold a lock and a generator, count their batches to seed NumPy, and draw their permutation
when the first batch is asked for: in each process another one, so that some images come often and others never.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_mpseq.local import context


class KerasImages:
    """One of these iterators, wrapped. The permutation is drawn in the training process, by NumPy's global generator.

    Args:
        flow: The iterator.
    """

    def __init__(self, flow: Any) -> None:
        self.flow: Any = flow
        self._drawn = 0
        if flow.index_array is None:
            self._draw(flow._set_index_array)

    def _draw(self, draw: Callable[[], object]) -> object:
        """Let the iterator draw a permutation: from its seed, or without one from NumPy's global generator."""
        if self.flow.seed is None:
            return draw()
        state = np.random.get_state()
        np.random.seed(self.flow.seed + self._drawn * len(self))
        self._drawn += 1
        try:
            return draw()
        finally:
            np.random.set_state(state)

    def __len__(self) -> int:
        return len(self.flow)

    def __getitem__(self, index: int) -> Any:
        seen = self.flow.total_batches_seen
        # What it would be with one process: from it comes the seed of the augmentation.
        self.flow.total_batches_seen = (context.epoch or 0) * len(self) + index
        try:
            return self.flow[index]
        finally:
            self.flow.total_batches_seen = seen

    def on_epoch_end(self) -> None:
        """Draw the next permutation."""
        self._draw(self.flow.on_epoch_end)

    def __getstate__(self) -> dict[str, Any]:
        left_out = ("lock", "index_generator")  # For `next()`, which workers do not call.
        return {"kind": type(self.flow), "state": {k: v for k, v in vars(self.flow).items() if k not in left_out}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.flow = object.__new__(state["kind"])
        vars(self.flow).update(state["state"])


def by_index(sequence: Any) -> Any:
    """Return *sequence*, wrapped if it is one of these iterators."""
    if any(
        base.__name__ == "Iterator" and base.__module__.endswith("preprocessing.image")
        for base in type(sequence).__mro__
    ):
        return KerasImages(sequence)
    return sequence
