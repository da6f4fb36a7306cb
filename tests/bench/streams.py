"""A function and generators of pure Python, over tf.data: in our processes, and in TensorFlow's threads."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tests.bench.workloads import WORKERS, loop

_PARTITIONS = 4


def worked(loops: int, number: Any) -> Any:
    """Return a number that takes so many loops."""
    return number + loop(loops) % 2


def generated(loops: int, count: int, partition: int) -> Iterator[NDArray[Any]]:
    """Yield a partition's share of *count* elements."""
    for number in range(partition, count, _PARTITIONS):
        yield np.full(8, worked(loops, number))


@contextmanager
def process_map(count: int, loops: int) -> Iterator[Any]:
    """keras_mpseq.process_map."""
    from keras_mpseq import process_map

    yield process_map(tf.data.Dataset.range(count), functools.partial(worked, loops), workers=WORKERS)


@contextmanager
def numpy_function(count: int, loops: int) -> Iterator[Any]:
    """Dataset.map with numpy_function."""
    function = functools.partial(worked, loops)
    yield tf.data.Dataset.range(count).map(
        lambda number: tf.numpy_function(function, [number], tf.int64), num_parallel_calls=tf.data.AUTOTUNE
    )


@contextmanager
def generator_dataset(count: int, loops: int) -> Iterator[Any]:
    """keras_mpseq.generator_dataset."""
    from keras_mpseq import generator_dataset

    yield generator_dataset(functools.partial(generated, loops, count), _PARTITIONS, workers=WORKERS)


@contextmanager
def from_generator(count: int, loops: int) -> Iterator[Any]:
    """Dataset.from_generator, one for each partition, interleaved in parallel."""

    def one(partition: Any) -> tf.data.Dataset:
        return tf.data.Dataset.from_generator(
            functools.partial(generated, loops, count),
            output_signature=tf.TensorSpec((8,), tf.int64),
            args=(partition,),
        )

    partitions = tf.data.Dataset.range(_PARTITIONS)
    yield partitions.interleave(one, cycle_length=_PARTITIONS, num_parallel_calls=tf.data.AUTOTUNE)


STREAMS: dict[str, Callable[[int, int], AbstractContextManager[Any]]] = {
    "process-map": process_map,
    "numpy-function": numpy_function,
    "generator-dataset": generator_dataset,
    "from-generator": from_generator,
}
