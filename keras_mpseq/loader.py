"""Loader: the pool without tf.data, as an iterable of NumPy batches."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any

from keras_mpseq.errors import SequenceLengthError
from keras_mpseq.images import by_index
from keras_mpseq.limits import SLOW_WARNING_S
from keras_mpseq.options import (
    OnError,
    Options,
    Partition,
    check_endless,
    checked,
    length_of,
    shard_length,
)
from keras_mpseq.ray_options import RayOptions
from keras_mpseq.run import Feed, Iteration, Source, Stats
from keras_mpseq.serial import Serial


def feed_of(sequence: Any, options: Options, *, fixed: int | None) -> Feed:
    """Return the feed for checked *options*: worker processes, or this process for `workers=0`."""
    length = length_of(sequence)  # A bad length is told before any process starts.
    if length is None:
        check_endless(options)
    elif not shard_length(length, options.shard):
        i, n = options.shard
        raise SequenceLengthError(
            f"Share {i} of {n} of {type(sequence).__name__} is empty: it has {length} batches",
            remedy="Use fewer shards, or smaller batches.",
        )
    return Feed(_source(by_index(sequence), options), fixed)


def _source(sequence: Any, options: Options) -> Source:
    if not options.workers:
        return Serial(sequence, options)
    from keras_mpseq.pool import Pool  # Not above: it stands on what Windows does not have, where workers are 0.

    return Pool(sequence, options)


class Batches(Iterator[Any]):
    """One epoch of a `Loader`: an iterator of batches in NumPy that can be closed half-way."""

    def __init__(self, feed: Feed) -> None:
        """Begin an epoch."""
        self._iteration = Iteration(feed)

    def __next__(self) -> Any:
        """Return the next batch."""
        return next(self._iteration).batch

    def close(self) -> None:
        """Give the rest of the epoch up; `on_epoch_end` runs now."""
        self._iteration.close()


class Loader:
    """Iterate the batches of a sequence that several processes build, in NumPy, without tf.data.

    Each `iter(loader)` is one epoch. Arrays lie in shared memory and are the consumer's as long as it holds them.
    Use it in a `with` block, or call `close`; a loader that is garbage closes itself.

    Args:
        sequence: A `SafeSequence`, a Keras `Sequence` or `PyDataset`, or any object with `__len__` (batches) and
            `__getitem__(index)` that returns a batch.
        workers: Processes; 0 builds the same batches in this process; "auto" takes the sequence's own `workers` if
            it asks for more than one, else the number of cores.
        partition: Who builds what: "dynamic" gives the next index to the least loaded worker; "stride" and "block"
            always give the same index to the same worker, so that caches in workers stay warm. In order and
            unshuffled, "block" lets one worker work at a time: combine it with `shuffle` or `ordered=False`.
        shuffle: Permute the indices of each epoch, keyed by (seed, epoch).
        ordered: Deliver in the order of the epoch; False delivers what is ready first.
        seed: Of all randomness, an int of 0 or more; None takes the sequence's own `seed`, else 0.
        shard: (i, n): deliver the i-th of n shares of each epoch.
        on_error: "raise", or "skip" to leave failing batches out, count them, and log them after the epoch.
        prefetch: Batches ready ahead; None means two for each worker.
        element_spec: Tree of `tf.TensorSpec`, or of anything with shape and dtype, that each batch must fit; None
            takes structure, dtypes and ranks from the first batch.
        timeout: Seconds that one batch may take before its worker is replaced; None means for ever.
        attempts: How many workers one batch may lose before it is an error.
        max_bytes: Bound on the shared memory for batches; None means a quarter of the machine's memory.
        worker_threads: Threads that numeric libraries may use in each worker.
        strict: Compare the sequence before and after each call, and raise when `__getitem__` changed it.
        backend: "local": processes on this machine, or "ray": actors on a cluster of Ray (`keras_mpseq[ray]`).
        ray: Which cluster and how, with `backend="ray"`; None takes what `RayOptions` takes by itself.
        launcher: "template" (fork from a clean process, Linux) or "spawn"; None means what the platform has.
        slow_warning_s: Seconds after which a batch that is still being built is logged, once for each index, with the
            line at which the worker's code is; None means never. Nothing is stopped by it.
        max_tasks_per_worker: Batches after which a worker is replaced by a fresh process, at the latest, so that code
            that leaks memory can be lived with; None means never. Batches and their order stay the same.

    Raises:
        TypeError: *sequence* is no sequence of batches, or an option is of the wrong type.
        ValueError: An option is out of its range.
        PayloadError: The sequence cannot be sent to workers.
        SequenceLengthError: Its length is not an int of 1 or more.

    Example:
        ```python
        with Loader(sequence, workers=4, shuffle=True) as loader:
            for epoch in range(3):
                for x, y in loader:
                    train(x, y)
        ```
    """

    def __init__(
        self,
        sequence: Any,
        *,
        workers: int | str = "auto",
        partition: Partition = "dynamic",
        shuffle: bool = False,
        ordered: bool = True,
        seed: int | None = None,
        shard: tuple[int, int] = (0, 1),
        on_error: OnError = "raise",
        prefetch: int | None = None,
        element_spec: Any = None,
        timeout: float | None = None,
        attempts: int = 2,
        max_bytes: int | None = None,
        worker_threads: int = 1,
        strict: bool = False,
        backend: str = "local",
        ray: RayOptions | None = None,
        launcher: str | None = None,
        slow_warning_s: float | None = SLOW_WARNING_S,
        max_tasks_per_worker: int | None = None,
    ) -> None:
        """Check the options and start the workers."""
        options = checked(
            sequence,
            workers=workers,
            partition=partition,
            shuffle=shuffle,
            ordered=ordered,
            seed=seed,
            shard=shard,
            on_error=on_error,
            prefetch=prefetch,
            element_spec=element_spec,
            timeout=timeout,
            attempts=attempts,
            max_bytes=max_bytes,
            worker_threads=worker_threads,
            strict=strict,
            backend=backend,
            ray=ray,
            launcher=launcher,
            slow_warning_s=slow_warning_s,
            max_tasks_per_worker=max_tasks_per_worker,
        )
        self._feed = feed_of(sequence, options, fixed=None)

    def __iter__(self) -> Batches:
        """Begin an epoch."""
        return Batches(self._feed)

    def __len__(self) -> int:
        """Return the number of batches of the next epoch, on this shard."""
        length = length_of(self._feed.source.sequence)
        if length is None:
            raise TypeError("The sequence is infinite: it has no length.")
        return shard_length(length, self._feed.source.options.shard)

    def stats(self) -> Stats:
        """Return what was done so far: batches, waiting time, restarts, bytes shared and pickled."""
        return self._feed.source.stats()

    def close(self) -> None:
        """End the workers, at once if they are idle; batches that are held stay valid."""
        self._feed.close()

    def __enter__(self) -> Loader:
        """Return the loader."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()
