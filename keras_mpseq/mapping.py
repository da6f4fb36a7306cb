"""process_map: `tf.data.Dataset.map` for a function of Python, in processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from keras_mpseq.dataset import dataset_of
from keras_mpseq.elements import Elements
from keras_mpseq.limits import SLOW_WARNING_S
from keras_mpseq.loader import feed_of
from keras_mpseq.machine import cores
from keras_mpseq.mapper import Mapper
from keras_mpseq.options import OnError, checked
from keras_mpseq.ray_options import RayOptions


def process_map(
    dataset: tf.data.Dataset[Any],
    fn: Callable[..., Any],
    *,
    workers: int | str = "auto",
    ordered: bool = True,
    seed: int = 0,
    on_error: OnError = "raise",
    prefetch: int | None = None,
    element_spec: Any = None,
    timeout: float | None = None,
    attempts: int = 2,
    max_bytes: int | None = None,
    worker_threads: int = 1,
    backend: str = "local",
    ray: RayOptions | None = None,
    launcher: str | None = None,
    slow_warning_s: float | None = SLOW_WARNING_S,
    max_tasks_per_worker: int | None = None,
) -> tf.data.Dataset[Any]:
    """Return *dataset* with *fn* called on each element, in worker processes.

    What `Dataset.map` with `tf.numpy_function` is to code that holds the GIL: that runs in one process, one call at a
    time, whatever `num_parallel_calls` says. *dataset* may be infinite, and is iterated in this process.

    Args:
        dataset: Any dataset of this process; its elements reach *fn* as NumPy arrays, scalars as NumPy scalars,
            strings as `bytes`, ragged and sparse tensors as named tuples of their components.
        fn: Called with the components of a tuple, or with the element, as `Dataset.map` does. What it returns, any
            nest of arrays, numbers and strings, is the new element. It must not write to its arguments: they are
            read-only. `random` and `np.random` are seeded for each element by (seed, epoch, number of the element).
        workers: Processes; 0 calls *fn* in this process; "auto" takes the number of cores.
        ordered: Keep the order of the elements; False gives first what is ready first.
        seed: Of `random` and `np.random` in *fn*, an int of 0 or more.
        on_error: "raise", or "skip" to leave out elements for which *fn* raises, count them, and log them after each
            pass.
        prefetch: Elements ready ahead; None means two for each worker.
        element_spec: Tree of `tf.TensorSpec` for what *fn* returns, with None for each dimension that varies. Without
            it the first element is built now, and all its dimensions are fixed.
        timeout: Seconds that one element may take before its worker is replaced; None means for ever.
        attempts: How many workers one element may lose before it is an error.
        max_bytes: Bound on the shared memory for elements; None means a quarter of the machine's memory.
        worker_threads: Threads that numeric libraries may use in each worker.
        backend: "local": processes on this machine, or "ray": actors on a cluster of Ray (`keras_mpseq[ray]`).
        ray: Which cluster and how, with `backend="ray"`; None takes what `RayOptions` takes by itself.
        launcher: "template" or "spawn"; None means what the platform has.
        slow_warning_s: Seconds after which an element that is still being built is logged, with the line at which the
            worker's code is; None means never.
        max_tasks_per_worker: Elements after which a worker is replaced by a fresh process; None means never.

    Returns:
        A dataset with as many elements as *dataset*, fewer where some are skipped. Its first iteration uses what was
        built to learn the spec; *dataset* is iterated once for each iteration.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An option is out of its range.
        PayloadError: *fn* cannot be sent to workers.
        MpseqError: Building the first element failed; see `keras_mpseq.errors`.

    Example:
        ```python
        dataset = tf.data.Dataset.range(1000).shuffle(1000)
        dataset = keras_mpseq.process_map(dataset, lambda n: float(sum(range(n))), workers=4).batch(32)
        ```
    """
    if not isinstance(dataset, tf.data.Dataset):
        raise TypeError(
            f"dataset must be a tf.data.Dataset, got {type(dataset).__name__}: for a sequence or arrays use "
            "BatchedSequence(transform=...) or to_dataset."
        )
    if not callable(fn):
        raise TypeError(f"fn must be a function of the elements of the dataset, got {fn!r}.")
    mapper = Mapper(fn, _Separate(dataset))
    options = checked(
        mapper,
        workers=workers,
        ordered=ordered,
        seed=seed,
        on_error=on_error,
        prefetch=prefetch,
        element_spec=element_spec,
        timeout=timeout,
        attempts=attempts,
        max_bytes=max_bytes,
        worker_threads=worker_threads,
        backend=backend,
        ray=ray,
        launcher=launcher,
        slow_warning_s=slow_warning_s,
        max_tasks_per_worker=max_tasks_per_worker,
    )
    mapped = dataset_of(Elements(feed_of(mapper, options, fixed=0), None))
    size = int(dataset.cardinality())
    if size == tf.data.INFINITE_CARDINALITY or (size >= 0 and on_error == "raise"):
        mapped = mapped.apply(tf.data.experimental.assert_cardinality(size))
    return mapped


class _Separate:
    """Iterates a dataset on threads of its own.

    Whoever waits for a mapped element holds a thread of TensorFlow's pool. With a few such datasets one over the other
    none would be left to read the lowest.
    """

    def __init__(self, dataset: tf.data.Dataset[Any]) -> None:
        options = tf.data.Options()
        if not dataset.options().threading.private_threadpool_size:
            options.threading.private_threadpool_size = max(2, cores())
        self._dataset = dataset.with_options(options)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._dataset)
