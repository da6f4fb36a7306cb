"""Watches that `__getitem__` keeps no state: sees what calls change, and says what, where and against which rule.

To look is to take digests of what the sequence holds and reaches, some 0.1 ms for a light one. A strict watch looks
before and after every call. Otherwise a look is taken only while all looks together are worth no more than a share of
the time that building took, so that watching costs next to nothing whatever `__getitem__` costs; what a call has left
behind is seen as well by a later look. Source: docs/explanation/determinism.md, "A `__getitem__` that keeps state".
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from keras_mpseq.errors import StatefulGetitemError
from keras_mpseq.state.blame import line_that_changes, rule_broken, where
from keras_mpseq.state.digests import QUICK, print_of, size_of
from keras_mpseq.state.reach import Reach, UserCode, getitem_of
from keras_mpseq.state.values import name_of, values_of
from keras_mpseq.streams import Streamed

T = TypeVar("T")

_SHARE, _LATER_SHARE = 0.01, 0.002
"""Of the time that building takes, for looks: in the first epoch, and later."""
_COMPARED = 2
"""The call that is always compared: the first may still open files and fill caches."""
_REMEDY = (
    "Make __getitem__ a function of index, self.epoch and self.rng(index); "
    "open files with @per_worker, change state in epoch hooks. `keras-mpseq explain {}` says more."
)


class _Seen(NamedTuple):
    digest: bytes | int
    identity: int
    size: int


class Watcher:
    """Watches the calls of one process, until it has something to tell.

    Args:
        strict: Look at every call, and raise.
        alone: Nothing but `__getitem__` changes the sequence between two calls, as in a worker.
    """

    def __init__(self, *, strict: bool, alone: bool) -> None:
        self._strict = strict
        self._alone = alone
        self._told = False
        self._looked_at: Callable[[], object] = object
        """Gives the sequence that was looked at; weak, for versions that are not needed any more are to go."""
        self._getitem: Any = None
        self._reach: Reach | None = None
        self._seen: dict[str, _Seen] | None = None
        self._too_large: set[str] = set()
        self._calls = 0
        self._first_epoch = -1
        self._left_s = 0.0

    def call(self, sequence: Any, epoch: int, build: Callable[[], T]) -> tuple[T, str]:
        """Return what *build* returns, which calls `__getitem__`; and a warning, or nothing.

        Raises:
            StatefulGetitemError: The watch is strict, and something changed.
        """
        if self._told or isinstance(sequence, Streamed):
            return build(), ""
        if sequence is not self._looked_at():
            self._looked_at, self._seen = _weakly(sequence), None
        if self._strict:
            return self._strictly(sequence, build), ""
        if not self._calls:
            self._first_epoch = epoch
        self._calls += 1
        looks = self._left_s > 0 or self._calls == _COMPARED or (self._alone and self._calls == 1)
        if looks and not self._alone:
            self._look(sequence)
        began = time.perf_counter()
        result = build()
        share = _SHARE if epoch == self._first_epoch else _LATER_SHARE
        self._left_s += share * (time.perf_counter() - began)
        changed = self._changes(sequence) if looks else []
        self._told = bool(changed)
        return result, f"{self._sentence(sequence, changed)}. {_remedy(changed)}" if changed else ""

    def _strictly(self, sequence: Any, build: Callable[[], T]) -> T:
        if self._seen is None or not self._alone:
            self._look(sequence)
        result = build()
        if changed := self._changes(sequence):
            raise StatefulGetitemError(self._sentence(sequence, changed), remedy=_remedy(changed))
        return result

    def _look(self, sequence: Any) -> Reach:
        began = time.perf_counter()
        function = getitem_of(sequence)
        # Another version of the sequence has the same code, but where that travels by value.
        if self._reach is None or function is not self._getitem:
            self._reach, self._getitem = reach_of(sequence), function
        self._seen = {key: self._seen_of(key, value) for key, value in values_of(sequence, self._reach)}
        self._left_s -= time.perf_counter() - began
        return self._reach

    def _seen_of(self, key: str, value: Any) -> _Seen:
        digest = None if key in self._too_large else print_of(value, QUICK)
        if digest is None:
            self._too_large.add(key)
        return _Seen(digest or id(value), id(value), size_of(value))

    def _changes(self, sequence: Any) -> list[tuple[str, str]]:
        """Look; return what changed since the last look, if there was one: the key, and the rule that it breaks."""
        before = self._seen
        reach = self._look(sequence)
        after = self._seen
        if before is None or after is None or before == after:
            return []
        values = dict(values_of(sequence, reach))
        found = []
        for key in sorted(before.keys() | after.keys()):
            old, new = before.get(key), after.get(key)
            if old is not None and new is not None and (old.digest, old.size) == (new.digest, new.size):
                continue
            rebound = old is None or new is None or old.identity != new.identity
            grown = 0 if old is None or new is None else new.size - old.size
            found.append((key, rule_broken(key, values.get(key), rebound=rebound, grown=grown)))
        return found

    def _sentence(self, sequence: Any, changed: list[tuple[str, str]]) -> str:
        assert self._reach is not None
        told = [f"{name_of(key)} ({where(code, line_that_changes(key, self._reach))})" for key, code in changed]
        return (
            f"{type(sequence).__name__}.__getitem__ changed {', '.join(told)}: each worker has a copy of its own, so "
            "that batches would depend on which worker built which"
        )


def reach_of(sequence: Any) -> Reach:
    """Return what the code of *sequence* may get at."""
    code = UserCode()
    code.learn(sequence)
    return Reach(sequence, code)


def _weakly(sequence: object) -> Callable[[], object]:
    try:
        return weakref.ref(sequence)
    except TypeError:  # A list of batches, which holds little besides.
        return lambda: sequence


def _remedy(changed: list[tuple[str, str]]) -> str:
    return _REMEDY.format(changed[0][1])
