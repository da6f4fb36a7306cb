"""Sequences that say which batches were built, for tests of sharding and of resuming. NumPy and keras_mpseq only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from keras_mpseq import SafeSequence
from tests.sequences import append_line


class Pairs(SafeSequence):
    """(x, y): y is the index, x is drawn. Notes each call of `__getitem__` in a file, if there is one."""

    def __init__(
        self,
        batches: int | None = 10,
        *,
        log: Path | None = None,
        broken: tuple[int, ...] = (),
        rows: int = 4,
        weights: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.batches, self.broken, self.rows, self.weights = batches, broken, rows, weights
        self.log = log and str(log)

    @property
    def num_batches(self) -> int | None:
        return self.batches

    def __getitem__(self, index: int) -> Any:
        if self.log:
            append_line(self.log, str(index))
        if index in self.broken:
            raise ValueError("broken")
        x = self.rng(index).normal(size=(self.rows, 2))
        y = np.full(self.rows, index, np.float32)
        return (x, y, np.full(self.rows, 0.5, np.float32)) if self.weights else (x, y)


class Reshuffled(SafeSequence):
    """The old way: an order of its own, dealt anew by a generator at the end of each epoch, from what it was before."""

    def __init__(self, batches: int = 6, *, saves: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.order = np.arange(batches)
        self.saves = saves
        self.hooks: list[str] = []

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Any:
        return np.full(3, self.order[index] + self.rng(index).random(), np.float32)

    def on_epoch_begin(self) -> None:
        self.hooks.append(f"begin {self.epoch}")
        self.order = np.roll(self.order, 1)

    def on_epoch_end(self) -> None:
        self.hooks.append(f"end {self.epoch}")
        self.order = np.random.default_rng(int(self.order[0])).permutation(self.order)

    def on_save_state(self) -> Any:
        return self.order.tolist() if self.saves else None

    def on_load_state(self, state: Any) -> None:
        self.order = np.array(state)


class Unsaveable(Pairs):
    """Its state is nothing that JSON knows."""

    def on_save_state(self) -> Any:
        return {"order": np.arange(3)}


class Forgetful(Pairs):
    """Cannot take back what it saves."""

    def on_save_state(self) -> Any:
        raise RuntimeError("no")

    def on_load_state(self, state: Any) -> None:
        raise RuntimeError(f"cannot take {state}")
