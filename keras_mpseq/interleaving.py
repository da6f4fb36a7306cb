"""generator_dataset: a generator for each partition, run in workers, as one `tf.data.Dataset`."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mpseq.dataset import dataset_of
from keras_mpseq.elements import Elements
from keras_mpseq.generators import Generators
from keras_mpseq.limits import SLOW_WARNING_S
from keras_mpseq.loader import feed_of
from keras_mpseq.options import OnError, check_int, checked
from keras_mpseq.ray_options import RayOptions

_CYCLE = 16
"""Partitions that run at a time, by default: more than most machines have use for, few enough to hold them all open."""
log: logging.Logger = logging.getLogger("keras_mpseq")


def generator_dataset(
    fn: Callable[[Any], Iterable[Any]],
    partitions: int | Sequence[Any],
    *,
    workers: int | str = "auto",
    cycle_length: int | None = None,
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
) -> tf.data.Dataset[Any]:
    """Return the elements that `fn(partition)` yields for every partition, run by several processes.

    What `Dataset.from_generator` is to code that holds the GIL. Each partition is run whole, by one worker.
    `cycle_length` of them run at a time, and give one element each in turn; partition p comes after partition
    p - `cycle_length` is over. So the order is that of `Dataset.interleave` over equal partitions, and the same for
    any number of workers.

    Args:
        fn: A generator function of one partition, or any function that returns an iterable. Its elements are any nest
            of arrays, numbers and strings. It should give the same elements each time: a worker that is lost is
            replaced by one that runs the partition again, up to where the first was. `random` and `np.random` are
            seeded before each element, by (seed, epoch, partition, number of the element).
        partitions: What *fn* is called with, such as file names; n stands for 0 to n - 1.
        workers: Processes; 0 runs everything in this process; "auto" takes the number of cores. More than
            `cycle_length` would have nothing to do.
        cycle_length: How many partitions run at a time, 1 or more; None means 16. Part of the order, so it does not
            follow from the number of workers.
        ordered: Take turns; False gives first what is ready first.
        seed: Of `random` and `np.random`, an int of 0 or more.
        on_error: "raise", or "skip" to give up a partition where it raises, count that, and log it after each pass.
        prefetch: Elements ready ahead; None means two for each worker.
        element_spec: Tree of `tf.TensorSpec`, with None for each dimension that varies. Without it the first element
            of the first partition is built now, by a worker, and all its dimensions are fixed.
        timeout: Seconds that one element may take before its worker is replaced; None means for ever.
        attempts: How many workers one element may lose before it is an error.
        max_bytes: Bound on the shared memory for elements; None means a quarter of the machine's memory.
        worker_threads: Threads that numeric libraries may use in each worker.
        backend: "local": processes on this machine, or "ray": actors on a cluster of Ray (`keras_mpseq[ray]`).
        ray: Which cluster and how, with `backend="ray"`; None takes what `RayOptions` takes by itself.
        launcher: "template" or "spawn"; None means what the platform has.
        slow_warning_s: Seconds after which an element that is still being built is logged, with the line at which the
            worker's code is; None means never.

    Returns:
        A dataset of unknown cardinality. Each iteration runs all partitions once. Where an iteration is given up, the
        generators are closed, so that their `finally` blocks run.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An option is out of its range, or there is no partition.
        PayloadError: *fn* or the partitions cannot be sent to workers.
        SequenceLengthError: There is no element at all, so that there is no spec.
        MpseqError: Building the first element failed; see `keras_mpseq.errors`.

    Example:
        ```python
        def numbers(start):
            for number in range(start, start + 10):
                yield {"number": number, "square": number**2}


        dataset = keras_mpseq.generator_dataset(numbers, [0, 100, 200], workers=2).batch(5)
        ```
    """
    _check_function(fn)
    parts = _partitions(partitions)
    lanes = min(len(parts), _lanes(cycle_length))
    generators = Generators(fn, parts, lanes)
    options = checked(
        generators,
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
        partition="stride",
        most_workers=lanes,
    )
    if isinstance(workers, int) and workers > lanes:
        log.warning(
            "generator_dataset starts %d of %d workers: no more than %d of %d partitions run at a time (cycle_length).",
            lanes,
            workers,
            lanes,
            len(parts),
        )
    return dataset_of(Elements(feed_of(generators, options, fixed=0), None))


def _check_function(fn: object) -> None:
    if inspect.isgenerator(fn) or isinstance(fn, Iterator):
        state = "" if not inspect.isgenerator(fn) or fn.gi_frame is not None else "exhausted "
        raise TypeError(
            f"fn must be a function, which workers call with a partition, got the {state}{type(fn).__name__} object "
            f"{fn!r}: that runs once, and in this process only. Pass the function that makes it."
        )
    if not callable(fn):
        raise TypeError(f"fn must be a generator function of one partition, got {fn!r}.")
    if inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn):
        raise TypeError(f"fn must be a generator function (def with yield), got an async function, {fn!r}.")


def _partitions(partitions: Any) -> Sequence[Any]:
    if isinstance(partitions, (int, np.integer)) and not isinstance(partitions, bool):
        if partitions < 1:
            raise ValueError(f"partitions must be 1 or more, or a list of partitions, got {partitions!r}.")
        return range(int(partitions))
    sized = hasattr(partitions, "__len__") and hasattr(partitions, "__getitem__")
    if not sized or isinstance(partitions, (str, bytes, dict)):
        text = f"a list of what fn is called with, or how many, got {type(partitions).__name__} {partitions!r}."
        raise TypeError(f"partitions must be {text}")
    if not len(partitions):
        raise ValueError(f"partitions must hold at least one partition, got {partitions!r}.")
    return list(partitions)


def _lanes(cycle_length: int | None) -> int:
    return _CYCLE if cycle_length is None else check_int("cycle_length", cycle_length, 1)
