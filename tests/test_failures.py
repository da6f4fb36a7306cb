"""State that `__getitem__` changes is told, and slots stay below `max_bytes`."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from keras_mpseq import Loader, SlotTooSmallError, StatefulGetitemError, UserCodeError
from tests.failing import Counter, Shared, TwoArguments


def test_writing_to_a_shared_array_is_an_error() -> None:
    with Loader(Shared(), workers=1) as loader, pytest.raises(StatefulGetitemError, match="read-only array"):
        list(loader)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stateful_getitem_is_told(workers: int) -> None:
    with Loader(Counter(), workers=workers) as loader, pytest.warns(UserWarning, match=r"changed self\.calls"):
        list(loader)
    told = r"Counter\.__getitem__ changed self\.calls"
    with Loader(Counter(), workers=workers, strict=True) as loader, pytest.raises(StatefulGetitemError, match=told):
        list(loader)


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_shared_memory_stays_below_max_bytes(slots: int) -> None:
    bound = slots * (1 << 17)

    class Large:
        def __len__(self) -> int:
            return 20

        def __getitem__(self, index: int) -> Any:
            return np.full((100, 100), index, np.float64)

    with Loader(Large(), workers=2, max_bytes=bound) as loader:
        held = list(loader)
        assert loader.stats().bytes_slots <= bound
    assert [int(batch[0, 0]) for batch in held] == list(range(20))


def test_a_batch_that_max_bytes_has_no_room_for() -> None:
    with (
        Loader([np.zeros(1 << 20)], workers=1, max_bytes=1 << 20) as loader,
        pytest.raises(SlotTooSmallError) as caught,
    ):
        list(loader)
    assert "needs 8,392,704 bytes of shared memory and max_bytes leaves 1,048,576" in str(caught.value)


def test_an_error_whose_cause_does_not_pickle_travels_without_it() -> None:
    with Loader(TwoArguments(), workers=1) as loader, pytest.raises(UserCodeError) as caught:
        list(loader)
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert "TwoArgumentsError: a and b" in str(again)
