"""Call the user's `__getitem__` for one batch: seeded, watched, and with every way to fail told apart.

The same code runs in a worker and, with `workers=0`, in the training process. That is what makes the batches equal.
"""

from __future__ import annotations

import pickle
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from keras_mpseq.errors import MpseqError, StatefulGetitemError, is_interrupt, user_error, users_traceback
from keras_mpseq.local import Allocator, context
from keras_mpseq.order import seed_globals
from keras_mpseq.streams import Streamed

_LARGE_SHARED = (
    "those of 1 MiB and more are shared by all workers, where a change would be lost",
    "Copy what you change (x = self.x[a:b].copy()), or change it in on_epoch_begin or on_epoch_end.",
)
_SHARED = "its arguments lie in shared memory, and another attempt may need them", "Copy what you change: x = x.copy()."
_LARGE = 1 << 20  # Bytes from which an array is sampled instead of pickled.
_SAMPLES = 64
_LIMIT = 8 << 20  # Bytes of pickle after which an object counts as not looked at.


class Job(NamedTuple):
    """Which batch to build."""

    seed: int
    epoch: int
    index: int  # type: ignore[assignment]  # shadows a tuple method nobody calls


def build(sequence: Any, job: Job, allocator: Allocator | None = None) -> Any:
    """Return `sequence[job.index]`, with `random`, `np.random` and `self.rng` keyed by the job.

    Raises:
        UserCodeError: The user's code raised; its exception is the cause.
        StatefulGetitemError: It wrote to a shared, read-only array.
    """
    seed_globals(job.seed, job.epoch, job.index)
    before = context.seed, context.epoch, context.allocator
    context.seed, context.epoch, context.allocator = job.seed, job.epoch, allocator
    try:
        return sequence[job.index]
    except MpseqError as error:
        raise placed(error, job) from error.__cause__
    # The wall between the user's code and ours; sys.exit() is a mistake of a batch, not the worker's end.
    except BaseException as error:
        if is_interrupt(error):
            raise
        raise _explained(sequence, error, job) from error
    finally:
        context.seed, context.epoch, context.allocator = before


def placed(error: MpseqError, job: Job) -> MpseqError:
    """Fill in which batch *error* is about."""
    error.index, error.epoch = job.index, job.epoch
    return error


def call_hook(sequence: Any, name: str, *args: Any) -> None:
    """Call a hook of the user's, if the sequence has it.

    Raises:
        UserCodeError: It raised; its exception is the cause.
    """
    hook = getattr(sequence, name, None)
    if callable(hook):
        try:
            hook(*args)
        except BaseException as error:  # The wall around the user's code, as in build().
            if is_interrupt(error):
                raise
            raise user_error(name, error) from error


def _explained(sequence: Any, error: BaseException, job: Job) -> MpseqError:
    # NumPy says it in a dozen ways, such as "assignment destination is read-only" and "sort array is read-only".
    if isinstance(error, ValueError) and str(error).endswith("read-only"):
        why, remedy = _SHARED if isinstance(sequence, Streamed) else _LARGE_SHARED
        return StatefulGetitemError(
            f"__getitem__ wrote to a read-only array: {why}",
            index=job.index,
            epoch=job.epoch,
            remedy=remedy,
            traceback=users_traceback(error),
        )
    found = user_error("__getitem__", error)
    found.index, found.epoch = job.index, job.epoch
    return found


# --- what __getitem__ changed ---------------------------------------------------------------------


def changes(sequence: Any, call: Callable[[], Any]) -> tuple[Any, tuple[str, ...]]:
    """Return what *call* returns, and the paths of what it changed of the sequence, its class and its globals."""
    before = fingerprint(sequence)
    result = call()
    after = fingerprint(sequence)
    paths = sorted(path for path in before | after if before.get(path) != after.get(path))
    return result, tuple(paths)


def stateful(sequence: Any, paths: tuple[str, ...]) -> str:
    """Return the sentence that tells what `__getitem__` changed."""
    return (
        f"{type(sequence).__name__}.__getitem__ changed {', '.join(paths)}: each worker has a copy of its own, so "
        "that batches would depend on which worker built which"
    )


STATEFUL_REMEDY = (
    "Make __getitem__ a function of index, self.epoch and self.rng(index); "
    "open files with @per_worker, change state in epoch hooks."
)


def fingerprint(sequence: Any) -> dict[str, int]:
    """Return a hash of each thing that `__getitem__` might change, by its path."""
    attributes = getattr(sequence, "__dict__", {})  # A list of batches has none.
    prints = {f"self.{name}": _digest(value) for name, value in attributes.items() if name != "_mpseq"}
    for cls in type(sequence).__mro__:
        if cls.__module__.partition(".")[0] in ("builtins", "keras", "keras_mpseq", "tf_keras", "abc", "typing"):
            continue
        for name, value in list(vars(cls).items()):
            if isinstance(value, types.FunctionType):
                prints |= _globals_of(value, set())
            elif not name.startswith("__") and not _is_code(value):
                prints[f"{cls.__name__}.{name}"] = _digest(value)
    return prints


def _globals_of(function: types.FunctionType, seen: set[types.CodeType]) -> dict[str, int]:
    prints: dict[str, int] = {}
    for code in _codes(function.__code__):
        if code in seen:
            continue
        seen.add(code)
        for name in code.co_names:
            value = function.__globals__.get(name, _is_code)
            if isinstance(value, types.FunctionType) and value.__globals__ is function.__globals__:
                prints |= _globals_of(value, seen)
            elif not _is_code(value):
                prints[f"{function.__module__}.{name}"] = _digest(value)
    return prints


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _is_code(value: object) -> bool:
    return (
        callable(value)
        or isinstance(value, (types.ModuleType, property, staticmethod, classmethod))
        or hasattr(type(value), "__get__")
    )


class _Hasher:
    """A file that keeps a hash of what is written, up to a limit."""

    def __init__(self) -> None:
        self.value = 0
        self.left = _LIMIT

    def write(self, data: bytes) -> None:
        self.left -= len(data)
        if self.left < 0:
            raise OverflowError
        self.value = hash((self.value, bytes(data)))


class _Pickler(pickle.Pickler):
    """Takes functions and classes by identity: to name them, pickle would import their modules."""

    def reducer_override(self, value: Any) -> Any:
        """Return what is written for *value*, or NotImplemented for the usual (called by pickle)."""
        if isinstance(value, (type, types.FunctionType, types.ModuleType)):
            return len, (id(value),)  # Never read again: any function of Python's own will do.
        return NotImplemented


def _digest(value: object) -> int:
    if isinstance(value, np.ndarray) and value.nbytes >= _LARGE and value.dtype.kind != "O":
        if not value.flags.writeable:
            return id(value)
        flat = value.reshape(-1) if value.flags.c_contiguous else value.flat
        return hash(np.asarray(flat[:: max(1, value.size // _SAMPLES)]).tobytes())
    hasher = _Hasher()
    try:
        _Pickler(hasher, 5).dump(value)
    except Exception:  # What does not pickle, or is too large, is told apart by identity only.
        return id(value)
    return hasher.value
