"""What belongs to one process: the batch it is building, which worker it is, and its per_worker resources.

What a sequence keeps for one process and must not travel (epoch, resources) lies in one `Local` object on the
instance, which pickles as an empty one.
"""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, overload

from numpy.typing import DTypeLike, NDArray

from keras_mpseq.limits import Limits
from keras_mpseq.ray_options import RayOptions
from keras_mpseq.shares import Shard

T = TypeVar("T")


class WorkerInfo(NamedTuple):
    """What a worker process knows of itself."""

    id: int
    """Number of the worker, from 0."""
    num_workers: int
    seed: int


class Allocator(Protocol):
    """Where `SafeSequence.empty` gets its memory from."""

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an uninitialised array."""

    def note(self, mark: int) -> None:
        """Leave a mark that the pool finds when this process is lost."""


class _Context(threading.local):
    """The batch that this thread is building, if any."""

    seed: int | None = None
    epoch: int | None = None
    allocator: Allocator | None = None
    element: Any = None
    """What the batch is made of, where that comes from the pool."""
    mark: int = -1
    """Where in its own terms the sequence is; see `Streamed.name_of`."""

    def __init__(self) -> None:
        self.skipped: list[tuple[str, str]] = []
        """Samples that the batch was built without: the name of each, and why."""


context: _Context = _Context()
_worker_info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """Return id, number of workers and seed inside a worker process, and None outside."""
    return _worker_info


def set_worker_info(info: WorkerInfo) -> None:
    """Say that this process is a worker; called once, by the worker's main loop."""
    global _worker_info
    _worker_info = info


class Safe:
    """Marks `SafeSequence`, so that it can be told without importing Keras."""

    seed: int
    strict: bool
    workers: Any
    _limits: Limits
    """In `fit`, `evaluate` and `predict`."""
    _backend: str
    """As `_limits`."""
    _ray: RayOptions | None
    """As `_limits`."""
    _shard: Shard
    _uneven: str


class Trained(Protocol):
    """What serves a `fit`."""

    def state_dict(self) -> dict[str, Any]:
        """Return where the trainer is."""


class Local:
    """What one process keeps of a sequence: the epoch that began last, and its resources."""

    def __init__(self) -> None:
        self.pid: int = os.getpid()
        self.epoch = 0
        self.fitted = 0
        """The epoch with which the next `fit` begins."""
        self.syncs = 0
        """How often `sync` was called."""
        self.trained: Trained | None = None
        """What serves the `fit` that runs on the sequence."""
        self.resume: dict[str, Any] | None = None
        """The state with which the next `fit` begins."""
        self.resources: dict[str, Any] = {}
        self.closers: list[Callable[[], object]] = []

    def __reduce__(self) -> tuple[type[Local], tuple[()]]:
        return Local, ()


def local_of(sequence: Any) -> Local:
    """Return what this process keeps of *sequence*."""
    if not hasattr(sequence, "__dict__"):
        raise TypeError(f"{type(sequence).__name__} has no __dict__ for its per_worker resources: drop its __slots__.")
    local: Local | None = vars(sequence).get("_mpseq")
    # After a fork by the user the parent's resources are not ours to use or to close.
    if local is None or local.pid != os.getpid():
        local = Local()
        vars(sequence)["_mpseq"] = local
    return local


def syncs_of(sequence: object) -> int:
    """Return how often `sync` was called on *sequence*, in this process."""
    return local_of(sequence).syncs if isinstance(sequence, Safe) else 0


def set_epoch(sequence: object, epoch: int) -> None:
    """Say that *epoch* begins, if the sequence is one of ours."""
    if isinstance(sequence, Safe):
        local_of(sequence).epoch = epoch


def move_resources(old: object, new: object) -> None:
    """Let *new*, a later version of the same sequence in this process, go on with the resources of *old*."""
    local = getattr(old, "__dict__", {}).get("_mpseq")
    if local is not None:
        vars(new)["_mpseq"] = local


def close_resources(sequence: object) -> None:
    """Close what `per_worker` built in this process, last built first."""
    local = getattr(sequence, "__dict__", {}).get("_mpseq")
    if local is None or local.pid != os.getpid():
        return
    local.resources.clear()
    errors: list[BaseException] = []
    while local.closers:
        try:
            local.closers.pop()()
        except BaseException as error:  # The user's code: the other resources must be closed as well.
            errors.append(error)
    if errors:
        raise errors[0]


class per_worker(Generic[T]):  # noqa: N801 - a decorator, spelled like property
    """A resource of a sequence that each process builds for itself on first use and never pickles.

    The decorated method builds it: it returns the resource, which is closed by its `close()` if it has one, or it
    yields the resource once and cleans up after the `yield`, as in `contextlib.contextmanager`. It is closed when
    the worker stops, and built anew in a worker that replaces another. It works in any class with a `__dict__`.

    Args:
        build: The method that makes the resource.

    Raises:
        TypeError: *build* cannot be called.
        AttributeError: A resource is assigned.

    Example:
        ```python
        class Images(SafeSequence):
            @per_worker
            def file(self):
                return h5py.File(self.path)

            def __getitem__(self, index):
                return self.file["x"][32 * index : 32 * (index + 1)]
        ```
    """

    def __init__(self, build: Callable[[Any], T] | Callable[[Any], Iterator[T]]) -> None:
        """Remember how to build the resource."""
        if not callable(build):
            raise TypeError(f"per_worker decorates a method that builds a resource, got {build!r}.")
        self.build = build
        self.name = getattr(build, "__name__", "")
        self.__doc__ = build.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        """Take the name of the attribute."""
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> per_worker[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> per_worker[T] | T:
        """Return this process's resource, built now if it is not there."""
        if instance is None:
            return self
        local = local_of(instance)
        if self.name not in local.resources:
            value: Any = self.build(instance)
            if inspect.isgenerator(value):
                generator = value
                try:
                    value = next(generator)
                except StopIteration:
                    raise TypeError(
                        f"{type(instance).__name__}.{self.name} must yield the resource once, but it ended without a "
                        "yield."
                    ) from None
                local.closers.append(lambda: next(generator, None))
            elif callable(getattr(value, "close", None)):
                local.closers.append(value.close)
            local.resources[self.name] = value
        resource: T = local.resources[self.name]
        return resource

    def __set__(self, instance: object, value: object) -> None:
        """Refuse: the resource belongs to the process."""
        raise AttributeError(
            f"{type(instance).__name__}.{self.name} is a per_worker resource: each process builds its own, "
            "it cannot be assigned."
        )
