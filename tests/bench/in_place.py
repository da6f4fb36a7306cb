"""The sequences of `workloads.py` that allocate, with `self.empty` in the place of `np.empty`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_mpseq import SafeSequence
from tests.bench.workloads import BIG, Batches, Filled, Touched, fill, touch


class TouchedInPlace(Touched, SafeSequence):
    """As Touched."""

    def __getitem__(self, index: int) -> NDArray[Any]:
        return touch(self.empty(BIG, np.float32), index)


class FilledInPlace(Filled, SafeSequence):
    """As Filled."""

    def __getitem__(self, index: int) -> NDArray[Any]:
        return fill(self.empty(BIG, np.float32), self.sources[index % len(self.sources)])


IN_PLACE: dict[str, Callable[[int], Batches]] = {"touched": TouchedInPlace, "filled": FilledInPlace}
