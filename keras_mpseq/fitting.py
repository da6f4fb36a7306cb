"""`fit`, `evaluate` and `predict`, wrapped: what runs inside is closed at their end, and errors are ours.

The wrappers stand on the class `Model` of Keras or tf_keras and change nothing for calls in which
no sequence of ours takes part.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

from keras_mpseq.errors import Failure
from keras_mpseq.local import Safe, local_of

KERAS_2 = ("workers", "use_multiprocessing", "max_queue_size")
"""Arguments of fit, evaluate and predict in Keras 2; in Keras 3 they are the sequence's."""
METHODS = ("fit", "evaluate", "predict")
_VALIDATES = ("_eval_epoch_iterator", "_eval_data_handler")
"""What a model of Keras 3 and of tf_keras keeps for validation, during `fit`."""
everywhere = False
"""Sequences of any class that ask for processes use ours (`install`)."""


class Adapter(Protocol):
    """What a session knows of an adapter."""

    @property
    def coming_epoch(self) -> int:
        """Number of the epoch that would begin next."""

    def state_dict(self) -> dict[str, Any]:
        """Return where the trainer is."""

    def end_epoch(self) -> None:
        """Run the hook, if an epoch has begun."""

    def close(self) -> None:
        """End the workers."""


class Prepares(Protocol):
    """A callback that has a say before `fit` begins."""

    def _before_fit(self, model: Any, keras_3: bool) -> dict[str, Any] | None:
        """Return the state with which the data is to begin."""


class Session:
    """One call of fit, evaluate or predict: the adapters that were made for it. A context manager; closes them.

    Args:
        x: The data argument of the call.
        initial_epoch: Of `fit`; None in the others.
    """

    def __init__(self, x: Any, initial_epoch: int | None) -> None:
        self.adapters: list[Adapter] = []
        self.failure: Failure = Failure()
        """The error of any of them."""
        self._x = x
        self._initial_epoch = initial_epoch
        self._trained: Adapter | None = None
        self._resume: dict[str, Any] | None = None

    def prepare(self, model: Any, callbacks: Any, *, keras_3: bool) -> None:
        """Learn of a state to resume: one that the sequence was given, or one that a callback finds."""
        if isinstance(self._x, Safe):
            local = local_of(self._x)
            self._resume, local.resume = local.resume, None
        for callback in _flat(callbacks):
            if hasattr(type(callback), "_before_fit"):
                preparing: Prepares = callback
                self._resume = preparing._before_fit(model, keras_3) or self._resume

    def resume_of(self, x: Any) -> dict[str, Any] | None:
        """Return the state with which *x* is to begin."""
        return self._resume if x is self._x else None

    def first_epoch(self, x: Any) -> int:
        """Return the number of the first epoch of *x*: fitting a sequence again goes on where it ended."""
        if self._initial_epoch is None or x is not self._x:
            return int((self._resume or {}).get("validations", 0))
        return self._initial_epoch or (local_of(x).fitted if isinstance(x, Safe) else 0)

    def add(self, adapter: Adapter, x: Any) -> None:
        """Take *adapter*, made for *x*, into the session."""
        self.adapters.append(adapter)
        if self._initial_epoch is not None and x is self._x and isinstance(x, Safe):
            self._trained = adapter
            local_of(x).trained = adapter

    def __enter__(self) -> Session:
        """Make it the current one of this thread."""
        _stack().append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all adapters. Of an error that TensorFlow tells the text of, raise the original."""
        _stack().remove(self)
        if self._trained is not None:
            local_of(self._x).fitted = self._trained.coming_epoch
            local_of(self._x).trained = None
        try:
            for adapter in self.adapters if error is None else ():
                adapter.end_epoch()  # Trainers do not end the epoch in which training was stopped.
        finally:
            for adapter in self.adapters:
                adapter.close()
        ours = self.failure.error
        if isinstance(error, Exception) and ours is not None and error is not ours and ours.message in str(error):
            ours.__suppress_context__ = True
            raise ours


_local = threading.local()


def _stack() -> list[Session]:
    stack: list[Session] = _local.__dict__.setdefault("sessions", [])
    return stack


def current_session() -> Session | None:
    """Return the innermost call that runs in this thread."""
    return _stack()[-1] if _stack() else None


def outermost_session() -> Session | None:
    """Return the outermost call that runs in this thread: `keras_mpseq.fit` calls `model.fit`."""
    return next((session for session in _stack() if session.adapters), None)


def training_session() -> Session | None:
    """Return the innermost call that runs in this thread and has data of ours: that which calls a callback."""
    return next((session for session in reversed(_stack()) if session.adapters), None)


def wrap(model: type, *, keras_3: bool) -> None:
    """Put the wrappers on the class *model*; with *keras_3* they answer arguments of Keras 2."""
    for name in METHODS:
        setattr(model, name, _wrapped(name, getattr(model, name), keras_3))


def _wrapped(name: str, original: Callable[..., Any], keras_3: bool) -> Callable[..., Any]:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def call(self: Any, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        old = {key: kwargs[key] for key in KERAS_2 if key in kwargs}
        if keras_3 and old and isinstance(x, Safe):
            raise TypeError(keras_2_message(name, type(x).__name__, old))
        with Session(x, kwargs.get("initial_epoch", 0) if name == "fit" else None) as session:
            # keras_mpseq.fit has prepared already, and passes an adapter.
            if name == "fit" and not any(x is adapter for outer in _stack() for adapter in outer.adapters):
                session.prepare(self, _argument("callbacks", signature, self, x, *args, **kwargs), keras_3=keras_3)
            try:
                return original(self, x, *args, **kwargs)
            finally:
                if name == "fit" and outermost_session():
                    _forget_validation(self)

    return call


def _argument(name: str, signature: inspect.Signature, *args: Any, **kwargs: Any) -> Any:
    try:
        return signature.bind_partial(*args, **kwargs).arguments.get(name)
    except TypeError:  # Wrong arguments are the method's to refuse.
        return None


def _flat(callbacks: Any) -> list[Any]:
    """Return the callbacks in a nest of lists, or in a `CallbackList`."""
    inner = getattr(callbacks, "callbacks", callbacks)
    if isinstance(inner, (list, tuple)):
        return [callback for part in inner for callback in _flat(part)]
    return [] if callbacks is None else [callbacks]


def _forget_validation(model: Any) -> None:
    """Drop what `fit`, ended by an error, leaves for its next epoch: the next call would validate with it."""
    for name in _VALIDATES:
        if getattr(model, name, None) is not None:
            delattr(model, name)


def keras_2_message(method: str, kind: str, arguments: dict[str, Any]) -> str:
    """Return what to write in the place of *arguments* of Keras 2, for a sequence of the class *kind*."""
    given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    other = f", or keras_mpseq.fit(model, sequence, {given})" if method == "fit" else ""
    return (
        f"{method}() of Keras 3 does not take {', '.join(arguments)}, which belong to the sequence: write "
        f"{kind}(..., {given}) and model.{method}(sequence){other}."
    )
