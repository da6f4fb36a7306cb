"""SafeSequence, the base class for the user's code.

In the training process it is a real `keras.utils.PyDataset`. In a worker it stands on a light base with the same
members, so that a worker does not load Keras for its sake (decision S4); the user's class, which travels by name or by
value, finds whichever belongs to the process.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from keras_mpseq import role
from keras_mpseq.limits import SLOW_WARNING_S, Limits
from keras_mpseq.local import Safe, context, local_of
from keras_mpseq.order import rng_of
from keras_mpseq.ray_options import RayOptions, checked_for
from keras_mpseq.shares import Shard, Uneven, check_shard, check_uneven

if TYPE_CHECKING or role.in_worker:

    class _Base:
        """What a worker needs of keras.utils.PyDataset."""

        def __init__(self, workers: int = 1, use_multiprocessing: bool = False, max_queue_size: int = 10) -> None:
            self._workers = workers
            self._use_multiprocessing: bool | None = use_multiprocessing
            self._max_queue_size = max_queue_size

        workers: property = property(lambda self: self._workers)
        use_multiprocessing: property = property(lambda self: self._use_multiprocessing)
        max_queue_size: property = property(lambda self: self._max_queue_size)

        def __getitem__(self, index: int) -> Any:
            raise NotImplementedError

        @property
        def num_batches(self) -> int | None:
            if hasattr(self, "__len__"):
                return len(self)
            raise NotImplementedError

        def __iter__(self) -> Iterator[Any]:
            count = self.num_batches
            index = 0
            while count is None or index < count:
                yield self[index]
                index += 1

else:
    from keras.utils import PyDataset as _Base


class SafeSequence(_Base, Safe):
    """A Keras `PyDataset` whose batches several processes may build, in any order, any number of times.

    Change the base of an existing `keras.utils.Sequence` or `PyDataset` and keep the rest, with or without a call
    of `super().__init__`. `__getitem__` is to be a function of `index`, `self.epoch` and `self.rng(index)`.

    Args:
        workers: Processes that build batches. 0, or 1 without `use_multiprocessing`, means this process.
        use_multiprocessing: As in Keras. None and True mean processes; with False and `workers > 1` processes are
            used all the same, because threads would share the state of the sequence.
        max_queue_size: Batches ready ahead; 0 leaves it to us, as in Keras: two for each worker.
        seed: Of `self.rng` and of the shuffling, an int of 0 or more.
        strict: Compare the sequence before and after each call of `__getitem__`, and raise `StatefulGetitemError` when
            it changed something. Otherwise some calls are compared, and there is a warning.
        timeout: As in `Loader`, like the following, and for `fit`, `evaluate` and `predict`: seconds that one batch
            may take before its worker is replaced.
        slow_warning_s: Seconds after which a batch that is still being built is logged.
        max_tasks_per_worker: Batches after which a worker is replaced by a fresh process.
        backend: "local": processes on this machine, or "ray": actors on a cluster of Ray (`keras_mpseq[ray]`).
        ray: Which cluster and how, with `backend="ray"`.
        shard: As in `Loader`, like the following: (i, n), this process's share of each epoch, or "auto".
        uneven: What happens when n does not divide the number of batches.

    Raises:
        TypeError: *ray* is none of our options.
        ValueError: An argument is out of its range.
        ImportError: Ray is not installed.

    Example:
        ```python
        class Digits(SafeSequence):
            def __init__(self, files, **kwargs):
                super().__init__(**kwargs)
                self.files = files

            def __len__(self):
                return len(self.files)

            def __getitem__(self, index):
                image = np.load(self.files[index])
                return image + self.rng(index).normal(size=image.shape)
        ```
    """

    def __new__(cls, *_args: Any, **_kwargs: Any) -> SafeSequence:
        """Give every instance its defaults, also when a subclass does not call `super().__init__`."""
        self = super().__new__(cls)
        self.seed = 0
        self.strict = False
        self._limits = Limits()
        self._backend, self._ray = "local", None
        self._shard, self._uneven = (0, 1), "error"
        self._workers = 1
        self._use_multiprocessing = None
        self._max_queue_size = 10
        return self

    def __init__(
        self,
        workers: int = 1,
        use_multiprocessing: bool | None = None,
        max_queue_size: int = 10,
        seed: int = 0,
        strict: bool = False,
        *,
        timeout: float | None = None,
        slow_warning_s: float | None = SLOW_WARNING_S,
        max_tasks_per_worker: int | None = None,
        backend: str = "local",
        ray: RayOptions | None = None,
        shard: Shard = (0, 1),
        uneven: Uneven = "error",
    ) -> None:
        """Store the settings; processes start when the sequence is iterated."""
        for name, value, least in (
            ("workers", workers, 0),
            ("max_queue_size", max_queue_size, 0),
            ("seed", seed, 0),
        ):
            if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be an int of {least} or more, got {value!r}.")
        if use_multiprocessing not in (None, True, False):
            raise ValueError(f"use_multiprocessing must be True, False or None, got {use_multiprocessing!r}.")
        if not isinstance(strict, (bool, np.bool_)):
            raise ValueError(f"strict must be True or False, got {strict!r}.")
        limits = Limits.checked(timeout, slow_warning_s, max_tasks_per_worker)
        on_ray = checked_for(backend, ray)
        super().__init__(
            workers=workers,
            use_multiprocessing=use_multiprocessing,  # type: ignore[arg-type]
            max_queue_size=max_queue_size,
        )
        self.seed: int = int(seed)
        self.strict: bool = bool(strict)
        self._limits = limits
        self._backend, self._ray = backend, on_ray
        self._shard, self._uneven = check_shard(shard), check_uneven(uneven)

    @property
    def epoch(self) -> int:
        """The epoch, from 0: of the batch being built, else the one that began last."""
        return local_of(self).epoch if context.epoch is None else context.epoch

    def rng(self, index: int) -> np.random.Generator:
        """Return a fresh random generator for this batch, keyed by (seed, epoch, index).

        The same on every call, in every process, at every attempt; another for every index and epoch.

        Args:
            index: The index that `__getitem__` was given.

        Raises:
            TypeError: It is not an int.
        """
        if isinstance(index, bool) or not isinstance(index, (int, np.integer)):
            raise TypeError(f"index must be an int, got {index!r}.")
        return rng_of(self.seed if context.seed is None else context.seed, self.epoch, int(index))

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """Return an uninitialised array that lies where the batch will be, so that returning it copies nothing.

        Inside `__getitem__` in a worker the array lies in the batch's slot of shared memory and is valid until
        `__getitem__` returns. Elsewhere it is a plain `np.empty`, so that code stays the same.

        Args:
            shape: Of the array, the batch dimension first.
            dtype: Any NumPy dtype but object.

        Raises:
            ValueError: The shape or the dtype is none of these.
            SlotTooSmallError: The batch outgrows what `max_bytes` leaves for it.
        """
        try:
            sizes = tuple(map(operator.index, (shape,) if isinstance(shape, (int, np.integer)) else shape))
        except TypeError:
            sizes = (-1,)
        if min(sizes, default=0) < 0:
            raise ValueError(f"shape must be an int of 0 or more, or a tuple of such, got {shape!r}.")
        try:
            kind = np.dtype(dtype)
        except TypeError:
            kind = np.dtype(object)
        if kind.hasobject or not kind.itemsize:
            raise ValueError(f"dtype must be a dtype of a fixed size in bytes, got {dtype!r}.")
        if context.allocator is None:
            return np.empty(sizes, kind)
        return context.allocator.empty(sizes, kind)

    def sync(self) -> None:
        """Let what was changed in this process reach the workers at once, in the middle of an epoch.

        Changes are otherwise sent when an epoch begins. The batches that were built ahead are built anew, from the
        next one on; those that TensorFlow has taken already stay: none, but for batches below 16 KiB up to 32.
        """
        local_of(self).syncs += 1

    def state_dict(self) -> dict[str, Any]:
        """Return where the `fit` stands that runs on this sequence, as a dict that JSON can hold.

        To be called by a callback, in `on_train_batch_end`, `on_epoch_begin` or `on_epoch_end`. It counts the batches
        on which the model was trained. Weights are not in it: see `ResumeData`, which saves both at one moment.

        Raises:
            ValueError: No `fit` runs on the sequence, or it is one of tf_keras.
            TypeError: `on_save_state` returned what JSON cannot hold.
            UserCodeError: `on_save_state` raised.
        """
        trained = local_of(self).trained
        if trained is None:
            raise ValueError(
                "state_dict() of a sequence says where fit stands, and no fit runs on it: call it in a callback. For "
                "a loop of your own see Loader.state_dict."
            )
        return trained.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next `fit` on this sequence go on where *state* was saved, with the next batch of the same epoch.

        Pass `fit` the `initial_epoch` of the epoch that is gone on with, and weights as they were then.

        Args:
            state: What `state_dict` returned, then or in another process. `fit` refuses one of another sequence.
        """
        local_of(self).resume = state

    def on_save_state(self) -> Any:
        """Hook: return what the epoch hooks change of the sequence, for JSON to hold; None if nothing.

        Runs in the training process, when the state of a `Loader` or of a `fit` is saved. A sequence whose batches
        follow from `index`, `self.epoch` and `self.rng(index)` needs none.
        """

    def on_load_state(self, state: Any) -> None:
        """Hook: take back what `on_save_state` returned. `on_epoch_begin` of an epoch that had begun is not run again.

        Args:
            state: What it returned; lists in the place of tuples.

        Raises:
            NotImplementedError: `on_save_state` is defined, and this hook is not.
        """
        raise NotImplementedError(f"{type(self).__name__} defines on_save_state: define on_load_state as well.")

    def on_worker_start(self, worker: int) -> None:
        """Hook: a worker process has started and will build batches.

        Attributes set here belong to the worker: they survive the changes that epoch hooks make in the parent.

        Args:
            worker: Its number, from 0; a replaced worker has the number of its predecessor.
        """

    def on_worker_stop(self) -> None:
        """Hook: this worker process ends in good order (not when it is killed)."""

    def on_epoch_begin(self) -> None:
        """Hook: an epoch begins. Runs once, in the training process; what it changes reaches the workers."""

    def on_epoch_end(self) -> None:
        """Hook: the epoch's last batch was taken. Runs once, in the training process."""
