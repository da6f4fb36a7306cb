"""A sequence for tests of `fit`: augmentation, hooks that change the state, and a batch that can be broken."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np

from keras_mpseq import SafeSequence
from tests.sequences import append_line


class Noisy(SafeSequence):
    """Ten batches; every y of a batch is its index. Who builds one is noted in a file, if there is one."""

    def __init__(self, broken: int = -1, stuck: int = -1, log: Path | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.broken = broken
        self.stuck = stuck
        self.log = log and str(log)
        self.hooks: list[str] = []

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        if index == self.broken:
            raise ValueError("broken")
        if index == self.stuck:
            threading.Event().wait()
        if self.log:
            append_line(self.log, str(os.getpid()))
        x = self.rng(index).normal(size=(8, 4)) + np.random.rand() + len(self.hooks)
        return x, np.full((8,), index, np.float32)

    def on_epoch_begin(self) -> None:
        self.hooks.append(f"begin {self.epoch}")

    def on_epoch_end(self) -> None:
        self.hooks.append(f"end {self.epoch}")


class Kinds:
    """Batches of several kinds, to stand before a base: Keras's own or ours."""

    def __init__(self, kind: str, batches: int, offset: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kind, self.batches, self.offset = kind, batches, offset

    def __len__(self) -> int:
        return self.batches

    @property
    def num_batches(self) -> int | None:
        return None if self.kind == "infinite" else self.batches

    def __getitem__(self, index: int) -> Any:
        draw = np.random.default_rng(self.offset + index)
        rows = 3 if self.kind == "short" and index == self.batches - 1 else 8
        x, second = draw.normal(size=(rows, 4)), draw.normal(size=(rows, 2))
        a, b, weight = (draw.normal(size=(rows, 1)) for _ in range(3))
        if self.kind == "doubles":
            return x, a, weight[:, 0]
        x, second, a, b, weight = (leaf.astype(np.float32) for leaf in (x, second, a, b, weight))
        match self.kind:
            case "classes":
                return x, draw.integers(0, 3, (rows, 1))
            case "weighted":
                return x, a, weight[:, 0]
            case "dict":
                return {"first": x, "second": second}, {"a": a, "b": b}
            case "lists":
                return (x, second), (a, b)
        return x, a


class Ours(Kinds, SafeSequence):
    """On our base; here, so that workers need not import Keras."""


class OnlyX(SafeSequence):
    """Four batches without a target."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return np.random.default_rng(index).normal(index, size=(5, 3)).astype(np.float32)
