"""What the sequence is in this process, before any child runs: how it pickles, what it holds, what it weighs.

Calls nothing of the user's but what pickling calls. `multiprocessing` pickles with the standard pickler, our workers
with cloudpickle: both are tried, and what only the first refuses is told apart.
"""

from __future__ import annotations

import copyreg
import dis
import multiprocessing
import pickle
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np

from keras_mpseq.checks import members
from keras_mpseq.checks.lost import substitute
from keras_mpseq.checks.records import Place
from keras_mpseq.diagnosis import Member, culprits
from keras_mpseq.errors import PayloadError
from keras_mpseq.local import Safe
from keras_mpseq.payload import Packed, pack, unsendable
from keras_mpseq.state.reach import codes, is_library


@dataclass(slots=True, kw_only=True)
class Parts:
    """What was found out about one sequence."""

    sequence: Any
    safe: bool
    """It is a `SafeSequence`, which our own workers build."""
    keras: bool
    """It is a sequence of Keras."""
    kinds: list[tuple[str, members.Member]] = field(default_factory=list)
    """Code, and a member that breaks that rule by being what it is."""
    refused: list[Member] = field(default_factory=list)
    """What the standard pickler refuses."""
    lost: dict[str, str] = field(default_factory=dict)
    """Type of what cannot be sent to a child of ours either, by path."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Bytes of pickle of each attribute."""
    memmaps: list[str] = field(default_factory=list)
    packed: Packed | None = None
    unsendable: str = ""
    """Why it cannot be sent as it is."""
    misplaced: str = ""
    """Why no fresh process finds the class."""
    super_missing: bool = False
    forks_with_threads: int = 0
    """Threads of this process, where the start method of workers is to fork it."""

    @property
    def class_name(self) -> str:
        """Name of the class."""
        return type(self.sequence).__qualname__.rpartition("<locals>.")[2]

    def stored_at(self, path: str) -> Place | None:
        """Return the line that assigns the attribute with which *path* begins."""
        name = path.partition(".")[2].partition(".")[0].partition("[")[0].partition("{")[0]
        return next(_stores(type(self.sequence), name), None)


def parts_of(sequence: Any) -> Parts:
    """Look at *sequence*, and make the payload for the children."""
    names = {f"{cls.__module__}.{cls.__qualname__}" for cls in type(sequence).__mro__}
    parts = Parts(
        sequence=sequence,
        safe=isinstance(sequence, Safe),
        keras=any(name.startswith(("keras.", "tf_keras.", "tensorflow.")) for name in names),
    )
    for member in members.members(sequence):
        code = members.kind_of(member.value)
        if code:
            parts.kinds.append((code, member))
        if isinstance(member.value, np.memmap):
            parts.memmaps.append(member.path)
    parts.refused = _refused_by_pickle(sequence)
    parts.misplaced = _misplaced(type(sequence))
    attributes = getattr(sequence, "__dict__", {})
    parts.sizes = {f"self.{name}": _size(value, parts.safe) for name, value in list(attributes.items())}
    parts.packed = _packed(sequence, parts)
    base = any(name.startswith("keras.") and name.endswith(".PyDataset") for name in names)
    parts.super_missing = base and not hasattr(sequence, "_workers")
    parts.forks_with_threads = 0 if parts.safe else _threads_to_fork()
    return parts


def _packed(sequence: Any, parts: Parts) -> Packed | None:
    try:
        return pack(sequence)
    except PayloadError as error:
        bad = unsendable(sequence)
        parts.unsendable = str(error.message)
    parts.lost = {member.path: members.type_name(member.value) for member in bad}
    if any(member.value is sequence for member in bad):
        return None
    try:
        return pack(sequence, {id(member.value): substitute(member.path, member.value) for member in bad})
    except PayloadError:  # Its own pickling is broken: there is nothing to leave out.
        return None


# --- the standard pickler ---------------------------------------------------------------------------


class _Counter:
    """A file that keeps nothing but the number of bytes."""

    def __init__(self) -> None:
        self.nbytes = 0

    def write(self, data: Any) -> int:
        self.nbytes += len(data)
        return len(data)


def _attempt(value: object) -> Exception | None:
    try:
        pickle.Pickler(_Counter(), 5, buffer_callback=_leave_out).dump(value)
    except Exception as error:  # Pickling calls the user's hooks, which raise what they like.
        return error
    return None


def _leave_out(buffer: pickle.PickleBuffer) -> None:
    """Copy no array only to see that arrays pickle."""


def _reduce(value: Any) -> Any:
    if isinstance(value, (type, types.FunctionType)):
        return NotImplemented
    reducer = copyreg.dispatch_table.get(type(value))
    return reducer(value) if reducer is not None else value.__reduce_ex__(5)


def _refused_by_pickle(sequence: Any) -> list[Member]:
    error = _attempt(sequence)
    return [] if error is None else culprits(Member("seq", sequence, error), _attempt, _reduce)


def _size(value: object, safe: bool) -> int:
    """Return the bytes that each worker gets of an attribute; ours share large arrays and map files by name."""
    if safe:
        try:
            return pack(value).nbytes_pickled
        except PayloadError:
            return 0
    counter = _Counter()

    def count(buffer: pickle.PickleBuffer) -> None:
        counter.nbytes += buffer.raw().nbytes

    try:
        cloudpickle.Pickler(counter, 5, buffer_callback=count).dump(value)
    except Exception:  # As in _attempt.
        return 0
    return counter.nbytes


# --- the class --------------------------------------------------------------------------------------


def _misplaced(cls: type) -> str:
    """Return why a process that imports the class's module would not find it."""
    if "<locals>" in cls.__qualname__:
        return "is defined in a function"
    if cls.__module__ == "__main__":
        main = sys.modules["__main__"]
        is_script = Path(getattr(main, "__file__", None) or "").is_file()
        return "" if is_script else "is defined in a notebook or an interactive session"
    found: Any = sys.modules.get(cls.__module__)
    for name in cls.__qualname__.split("."):
        found = getattr(found, name, None)
    return "" if found is cls else f"is not what {cls.__module__}.{cls.__qualname__} names"


def _stores(cls: type, name: str) -> Iterator[Place]:
    for owner in cls.__mro__:
        for function in vars(owner).values() if not is_library(owner) else ():
            if isinstance(function, types.FunctionType):
                for code in codes(function.__code__):
                    yield from _stores_in(code, name, function.__qualname__)


def _stores_in(code: types.CodeType, name: str, function: str) -> Iterator[Place]:
    starts = {offset: line for offset, _, line in code.co_lines()}
    line = code.co_firstlineno
    for step in dis.get_instructions(code):
        line = starts.get(step.offset) or line
        if step.opname == "STORE_ATTR" and step.argval == name:
            yield Place(code.co_filename, line, function)


def _threads_to_fork() -> int:
    method = multiprocessing.get_start_method(allow_none=True)
    default = "fork" if sys.platform == "linux" and sys.version_info < (3, 14) else "spawn"
    if (method or default) != "fork":
        return 0
    try:
        count = len(list(Path("/proc/self/task").iterdir()))
    except OSError:
        return 0
    return count if count > 1 else 0


def setting(sequence: Any, name: str, otherwise: Any) -> Any:
    """Return one of Keras's settings of a sequence; its properties warn where `super().__init__` was not called."""
    attributes = getattr(sequence, "__dict__", {})
    return attributes.get(f"_{name}", attributes.get(name, otherwise))
