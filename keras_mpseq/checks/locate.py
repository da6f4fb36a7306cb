"""Finds the lines that change things: the user's lines are traced, and what is watched is looked at after each.

A look costs some microseconds and lines are many, so that only what is known to change is watched, and only for a
while; what was not found by then has no line.
"""

from __future__ import annotations

import sys
import time
import types
from collections.abc import Callable, Collection
from typing import Any

from keras_mpseq.checks.listen import Listener
from keras_mpseq.checks.records import Place
from keras_mpseq.checks.watch import Seen, Watch
from keras_mpseq.state.reach import UserCode

BUDGET_S = 2.0
"""Seconds of tracing in one trial."""
_MOST_PLACES = 10
"""Lines that are kept for one thing."""
_FRAMEWORKS = ("tensorflow", "keras", "tf_keras", "jax", "torch")
_NUMPY_ONLY = {
    *("floatx", "epsilon", "image_data_format", "backend", "to_categorical", "pad_sequences", "normalize"),
    *("load_img", "img_to_array", "array_to_img", "save_img", "timeseries_dataset_from_array", "set_random_seed"),
}
"""Functions of Keras that only read settings or work on NumPy arrays."""


class Tracer:
    """Traces calls one at a time.

    Args:
        watch: Looks at the state.
        keys: What is watched.
        listener: Knows the user's places.
        code: Which files are the user's.
    """

    def __init__(self, watch: Watch, keys: Collection[str], listener: Listener, code: UserCode) -> None:
        self._watch = watch
        self._keys = frozenset(keys)
        self._listener = listener
        self._code = code
        self._left = BUDGET_S
        self.places: dict[str, list[Place]] = {key: [] for key in keys}
        self.returned_at: Place | None = None
        self.swallowed: tuple[str, Place | None] | None = None
        self._seen: dict[str, Seen] = {}
        self._last: tuple[types.FrameType, int] | None = None
        self._until = 0.0

    def call(self, function: Callable[[], Any]) -> Any:
        """Return what *function* returns, traced."""
        self._seen = self._watch.look(self._keys)
        self._last = self.returned_at = self.swallowed = None
        began = time.perf_counter()
        self._until = began + self._left
        sys.settrace(self._enter)
        try:
            return function()
        finally:
            sys.settrace(None)
            self._left -= time.perf_counter() - began
            self._last = None  # Frames hold everything they refer to.

    def _enter(self, frame: types.FrameType, event: str, argument: Any) -> Any:
        del event, argument
        if not self._code.owns_frame(frame):
            self._notice_framework(frame)
            return None
        self._look()
        self._last = frame, frame.f_lineno
        return self._step

    def _step(self, frame: types.FrameType, event: str, argument: Any) -> Any:
        if event == "exception":
            if self._code.owns_frame(frame):
                self.swallowed = argument[0].__name__, self._listener.place(frame)
            return self._step
        self._look()
        self._last = frame, frame.f_lineno
        if event == "return":
            if frame.f_code.co_name == "__getitem__":
                self.returned_at = self._listener.place(frame)
            self._last = None if frame.f_back is None else (frame.f_back, frame.f_back.f_lineno)
        return self._step

    def _look(self) -> None:
        """Compare with the last look, and blame the line since then."""
        if not self._keys or self._last is None:
            return
        if time.perf_counter() > self._until:
            return
        now = self._watch.look(self._keys)
        for key in self._keys:
            old, new = self._seen.get(key), now.get(key)
            if (old and (old.digest, old.size)) != (new and (new.digest, new.size)):
                self._blame(key, *self._last)
        self._seen = now

    def _blame(self, key: str, frame: types.FrameType, line: int) -> None:
        place = self._listener.place(frame, line)
        if place is None or getattr(self._watch.value_of(key), "gi_code", None) is frame.f_code:
            return  # A generator moves on because somebody asks it to.
        known = self.places[key]
        if len(known) < _MOST_PLACES and (place.path, place.line) not in {(one.path, one.line) for one in known}:
            known.append(place)

    def _notice_framework(self, frame: types.FrameType) -> None:
        """Note the user's own calls into a framework."""
        caller = frame.f_back
        if caller is None or not self._code.owns_frame(caller):
            return
        name = str(frame.f_globals.get("__name__", ""))
        if name.partition(".")[0] in _FRAMEWORKS and not self._is_harmless(name, frame.f_code.co_name):
            self._listener.note("framework", f"{name}.{frame.f_code.co_name}()", caller)

    @staticmethod
    def _is_harmless(module: str, function: str) -> bool:
        return function in _NUMPY_ONLY or "data_utils" in module or "py_dataset" in module or function == "<module>"
