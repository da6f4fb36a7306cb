"""Sequences that change what they must not, or raise what does not pickle."""

from __future__ import annotations

from typing import Any

import numpy as np


class TwoArgumentsError(Exception):
    """Does not unpickle: the base pickles one argument."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class TwoArguments:
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        raise TwoArgumentsError("a", "b")


class Shared:
    """Changes an array that is shared."""

    def __init__(self) -> None:
        self.x = np.zeros((1 << 18,), np.float64)

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        self.x += 1
        return self.x[:2]


class Counter:
    """Counts its calls, and so is no function of the index."""

    def __init__(self) -> None:
        self.calls = 0

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        self.calls += 1
        return np.array([self.calls])
