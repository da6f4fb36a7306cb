"""Everything that a call might change, by key, and a digest of it.

Keys say what a thing is: `self.count`, `class Batches.total`, `global data.CACHE`, `free make.<n>`, `cache data.load`,
`rng np.random`, `rng self.noise`.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

import numpy as np

from keras_mpseq.checks.members import generators
from keras_mpseq.checks.records import NUMPY, PYTHON, TORCH, Change
from keras_mpseq.state.digests import (
    THOROUGH,
    entries_of,
    is_iterator,
    position_of,
    print_of,
    print_of_generator,
    size_of,
)
from keras_mpseq.state.reach import Reach
from keras_mpseq.state.values import values_of

_SLOW_S = 0.1
"""Seconds of a look from which a thing is looked at before the first call and after the last only."""


class Seen(NamedTuple):
    """What one thing was like at one time."""

    digest: object
    identity: int
    size: int


class Watch:
    """Looks at the state of one sequence in this process.

    Args:
        sequence: Whose attributes, classes and random generators are looked at.
        reach: What else its code may change.
    """

    def __init__(self, sequence: Any, reach: Reach) -> None:
        self._sequence = sequence
        self._reach = reach
        self._generators = generators(sequence)
        for label, (namespace, name) in reach.globals.items():
            self._generators |= {label + path[4:]: value for path, value in generators(_Held(namespace[name])).items()}
        self.too_large: set[str] = set()
        self.slow: dict[str, Seen] = {}
        """What is not looked at every time, and what it was like the last time."""
        self.large_arrays: set[str] = set()

    def look(self, only: Collection[str] | None = None, thorough: bool = False) -> dict[str, Seen]:
        """Return what everything, or what the keys *only* name, is like now.

        What took long before is taken to be what it was, unless the look is *thorough*.
        """
        if thorough:
            self.slow.clear()
        return {key: self._seen(key, value) for key, value in self._values() if only is None or key in only}

    def look_at_generators(self) -> dict[str, Seen]:
        """Return what the random generators are like now."""
        values = [*self._global_generators(), *((f"rng {path}", value) for path, value in self._generators.items())]
        return {key: self._seen(key, value) for key, value in values}

    def value_of(self, key: str) -> Any:
        """Return what *key* names now, or None."""
        return next((value for name, value in self._values() if name == key), None)

    def entries(self, key: str) -> dict[object, bytes | None] | None:
        """Return digests of the entries of the container that *key* names, if it is one."""
        return entries_of(self.value_of(key))

    def _values(self) -> Iterator[tuple[str, Any]]:
        yield from self._global_generators()
        for path, value in self._generators.items():
            yield f"rng {path}", value
        yield from values_of(self._sequence, self._reach)
        for label, function in self._reach.caches.items():
            yield f"cache {label}", function.cache_info().currsize

    @staticmethod
    def _global_generators() -> Iterator[tuple[str, Any]]:
        yield f"rng {PYTHON}", random.getstate
        yield f"rng {NUMPY}", _numpy_state
        torch = sys.modules.get("torch")
        if torch is not None and hasattr(torch, "get_rng_state"):
            yield f"rng {TORCH}", lambda: torch.get_rng_state().numpy().tobytes()

    def _seen(self, key: str, value: Any) -> Seen:
        if key.startswith("rng "):
            return Seen(hash(str(value())) if callable(value) else print_of_generator(value), 0, -1)
        if key in self.slow:
            return self.slow[key]
        began = time.perf_counter()
        if isinstance(value, np.ndarray) and value.nbytes >= THOROUGH.large:
            self.large_arrays.add(key)
        digest: object = print_of(value)
        if digest is None:
            self.too_large.add(key)
            digest = id(value)
        if is_iterator(value):
            digest = position_of(value)
        seen = Seen(digest, id(value), size_of(value))
        if time.perf_counter() - began > _SLOW_S:
            self.slow[key] = seen
        return seen


class _Held:
    """Gives a global the shape of an attribute, so that one walk serves both."""

    def __init__(self, value: Any) -> None:
        self.__dict__["_"] = value


def changes(before: dict[str, Seen], after: dict[str, Seen], value_of: Callable[[str], Any]) -> tuple[Change, ...]:
    """Return what differs between two looks."""
    found = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if old is not None and new is not None and old.digest == new.digest and old.size == new.size:
            continue
        rebound = old is None or new is None or old.identity != new.identity
        shrank = not rebound and old is not None and new is not None and new.size < old.size
        moved = not key.startswith("rng ") and not rebound and is_iterator(value_of(key))
        found.append(Change(key, rebound, shrank or moved))
    return tuple(found)


def _numpy_state() -> object:
    state: Any = np.random.get_state(legacy=False)
    return state["state"]["key"].tobytes(), state["state"]["pos"], state["has_gauss"], state["gauss"]
