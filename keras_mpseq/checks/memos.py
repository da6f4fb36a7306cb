"""Tells caches from other state: entries that are added once, and never changed or taken away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_mpseq.checks.watch import Seen, Watch

_ABSENT = Seen(None, 0, -1)


class Memos:
    """Follows what calls do to some things of the state.

    Args:
        watch: Looks at the state.
        keys: What is followed.
    """

    def __init__(self, watch: Watch, keys: Sequence[str]) -> None:
        self._watch = watch
        self._keys = [key for key in keys if not key.startswith("rng ")]
        self._before: dict[str, tuple[Any, Any, Seen]] = {}
        self._broken: set[str] = set()
        self._filled: set[str] = set()

    def begin(self) -> None:
        """Note how things are before a call."""
        self._before = {key: self._now(key) for key in self._keys}

    def end(self, *, repeated: bool) -> None:
        """Compare after a call; one that is *repeated* adds nothing to a cache."""
        for key in self._keys:
            (value, old, seen), (_, new, now) = self._before[key], self._now(key)
            if seen.digest == now.digest:
                continue
            if repeated or not (key.startswith("cache ") or self._is_added(key, value, old, new)):
                self._broken.add(key)

    def is_memo(self, key: str) -> bool:
        """Tell whether what was seen of *key* is what a cache does."""
        return key in self._keys and key not in self._broken

    def _now(self, key: str) -> tuple[Any, Any, Seen]:
        return self._watch.value_of(key), self._watch.entries(key), self._watch.look([key]).get(key, _ABSENT)

    def _is_added(self, key: str, value: Any, old: Any, new: Any) -> bool:
        if old is not None and new is not None:
            return all(entry in new and new[entry] == digest for entry, digest in old.items())
        # A value that was not there is filled in once.
        first = value is None and key not in self._filled
        self._filled.add(key)
        return first
