"""to_dataset: the pool as a `tf.data.Dataset`. The only module that imports TensorFlow.

Large batches go into TensorFlow one by one and without a copy: their arrays lie, aligned, over a slot. Small batches
go in groups, because one step of a Python generator costs TensorFlow more (0.2 ms) than the batch: what is ready is
stacked, and `unbatch` takes it apart in C++ (decision S13).
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import inspect
import weakref
from collections.abc import Callable, Generator, Iterator
from math import prod
from typing import Any

import numpy as np
import optree
import tensorflow as tf

from keras_mpseq.codec import Array, by_leaf, leaf_name, part_count, with_text
from keras_mpseq.elements import Elements
from keras_mpseq.errors import PoolClosedError, UnsupportedLeafError, UserCodeError
from keras_mpseq.limits import SLOW_WARNING_S
from keras_mpseq.loader import feed_of
from keras_mpseq.options import OnError, Partition, check_flag, checked, length_of, steps_of
from keras_mpseq.ray_options import RayOptions
from keras_mpseq.run import Parts
from keras_mpseq.shares import Shard, Uneven
from keras_mpseq.spec import ElementSpec, LeafSpec, lists_to_tuples

_GROUP_BELOW = 1 << 14
"""Bytes of a batch up to which stacking and taking apart costs less than a step of the generator."""
_GROUP_MOST = 32
_ROWS_UNKNOWN = 32
"""Taken for a dimension of unknown size when a declared spec is weighed."""
_generators: weakref.WeakSet[Generator[Any, None, None]] = weakref.WeakSet()


@atexit.register
def _let_iterators_be() -> None:
    """Keep iterators that are in use from being deleted while the interpreter ends, which may take for ever.

    Deleting one waits for its threads. Python ends a thread that calls it during its own end, and TensorFlow then
    waits for an answer that never comes (decision S16).
    """
    if any(inspect.getgeneratorstate(generator) != inspect.GEN_CLOSED for generator in _generators):
        for thing in gc.get_objects():
            if isinstance(thing, tf.data.Iterator):
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def to_dataset(
    sequence: Any,
    *,
    workers: int | str = "auto",
    partition: Partition = "dynamic",
    shuffle: bool = False,
    ordered: bool = True,
    seed: int | None = None,
    shard: Shard | None = None,
    uneven: Uneven | None = None,
    on_error: OnError = "raise",
    prefetch: int | None = None,
    element_spec: Any = None,
    timeout: float | None = None,
    attempts: int = 2,
    max_bytes: int | None = None,
    worker_threads: int = 1,
    strict: bool = False,
    varying_length: bool = False,
    backend: str = "local",
    ray: RayOptions | None = None,
    launcher: str | None = None,
    slow_warning_s: float | None = SLOW_WARNING_S,
    max_tasks_per_worker: int | None = None,
) -> tf.data.Dataset[Any]:
    """Return the batches of *sequence*, built by several processes, as a `tf.data.Dataset`.

    Each iteration of the dataset is one epoch: it runs `on_epoch_begin` and `on_epoch_end` once. Without
    `element_spec` the first batch is built now, by a worker, to learn structure, dtypes and shapes; it is used by the
    first iteration. The workers live as long as the dataset.

    Args:
        sequence: As for `Loader`.
        workers: As for `Loader`, like all that follow.
        partition: Who builds what.
        shuffle: Permute the indices of each epoch.
        ordered: Deliver in the order of the epoch.
        seed: Of all randomness.
        shard: (i, n): deliver the i-th of n shares of each epoch; or "auto".
        uneven: What happens where n does not divide the number of batches: "error", "drop", "pad" or "wrap".
        on_error: "raise" or "skip".
        prefetch: Batches ready ahead.
        element_spec: Tree of `tf.TensorSpec`, `tf.RaggedTensorSpec` or `tf.SparseTensorSpec`, with None for each
            dimension that varies. Without it all dimensions but the first are fixed by the first batch.
        timeout: Seconds that one batch may take.
        attempts: How many workers one batch may lose.
        max_bytes: Bound on the shared memory for batches.
        worker_threads: Threads of numeric libraries in each worker.
        strict: Raise when `__getitem__` changes the sequence.
        varying_length: The number of batches may differ from epoch to epoch; the dataset then has no cardinality.
        backend: "local": processes on this machine, or "ray": actors on a cluster of Ray (`keras_mpseq[ray]`).
        ray: Which cluster and how, with `backend="ray"`; None takes what `RayOptions` takes by itself.
        launcher: "template" or "spawn".
        slow_warning_s: Seconds after which a batch that is still being built is logged.
        max_tasks_per_worker: Batches after which a worker is replaced by a fresh process.

    Returns:
        A dataset whose elements have the structure of the batches, with tuples in the place of lists, and the
        dtypes as the sequence gives them. Strings become `tf.string`, SciPy matrices `tf.SparseTensor`.

    Raises:
        TypeError: As for `Loader`; also UnsupportedLeafError for a dtype that TensorFlow does not have.
        ValueError: As for `Loader`.
        MpseqError: Building the first batch failed; see `keras_mpseq.errors`.
    """
    check_flag("varying_length", varying_length)
    options = checked(
        sequence,
        workers=workers,
        partition=partition,
        shuffle=shuffle,
        ordered=ordered,
        seed=seed,
        shard=shard,
        uneven=uneven,
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
    feed = feed_of(sequence, options, fixed=1)
    dataset = dataset_of(Elements(feed, None if varying_length else length_of(sequence)))
    length = length_of(sequence)
    if length is not None and on_error == "raise" and not varying_length:
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(steps_of(sequence, length, options)))
    return dataset


def dataset_of(elements: Elements) -> tf.data.Dataset[Any]:
    """Return the dataset of *elements*, whose first batch is built now unless their spec is known."""
    spec = elements.spec()
    dataset = _from_elements(elements, spec, group_of(elements, spec))
    quiet = tf.data.Options()
    # With autotune on, deleting an iterator can stall 1.4 s, and iterating costs up to twice as much.
    quiet.autotune.enabled = False
    return dataset.with_options(quiet)


def mapped(dataset: tf.data.Dataset[Any], function: Callable[..., Any]) -> tf.data.Dataset[Any]:
    """Return *dataset* with *function* on its elements, in which there is nothing for AutoGraph to convert."""
    return dataset.map(tf.autograph.experimental.do_not_convert(function))


def _from_elements(elements: Elements, spec: ElementSpec, group: int) -> tf.data.Dataset[Any]:
    signature = tuple(
        part for number, leaf in enumerate(spec.leaves) for part in _part_specs(leaf_name(spec.tree, number), leaf)
    )
    if group > 1:
        signature = tuple(tf.TensorSpec((None, *part.shape), part.dtype) for part in signature)
    # TensorFlow keeps the functions of from_generator for ever (tensorflow#37653), so they must not hold the pool. The
    # dataset does; datasets made from it and their iterators hold the dataset.
    weak = weakref.ref(elements)

    def generate() -> Iterator[tuple[Array, ...]]:
        living = weak()
        if living is None:
            raise PoolClosedError(
                "The dataset was deleted", remedy="Keep what to_dataset returned for as long as you iterate it."
            )
        generator = _one_by_one(living) if group == 1 else _in_groups(living, group)
        _generators.add(generator)
        return generator

    dataset = tf.data.Dataset.from_generator(generate, output_signature=signature)
    dataset._keras_mpseq = elements
    if group > 1:
        dataset = dataset.unbatch()
    return dataset if _is_flat(spec) else mapped(dataset, _assembler(spec))


def group_of(elements: Elements, spec: ElementSpec) -> int:
    """Return how many batches go into TensorFlow at a time, at the most."""
    if not all(map(_stacks, spec.leaves)):
        return 1
    nbytes = elements.first.nbytes if elements.first else sum(map(_weight, spec.leaves))
    return max(1, min(_GROUP_MOST, _GROUP_BELOW // max(1, nbytes)))


@contextlib.contextmanager
def _as_tensorflow_knows_it() -> Iterator[None]:
    """Let a ValueError or TypeError of the user's code arrive as InvalidArgumentError, as from any Python function."""
    try:
        yield
    except UserCodeError as error:
        if not isinstance(error.__cause__, (ValueError, TypeError)):
            raise
        alike = type(type(error).__name__, (ValueError,), {})
        raise alike(str(error)) from error


def _one_by_one(elements: Elements) -> Generator[tuple[Array, ...], None, None]:
    """Yield each batch as a tuple of its parts."""
    with _as_tensorflow_knows_it(), elements.epoch() as iteration:
        for parts in iteration:
            yield tuple(_tensors(parts))
            del parts  # Nothing of ours may hold the slot.


def _in_groups(elements: Elements, most: int) -> Generator[tuple[Array, ...], None, None]:
    """Yield batches of equal shapes, as many as are ready, stacked."""
    with _as_tensorflow_knows_it(), elements.epoch() as iteration:
        while group := iteration.next_ready(most if elements.grouping else 1, _shapes):
            columns = zip(*map(_tensors, group), strict=True)
            yield tuple([np.stack(column) for column in columns])


def _shapes(parts: Parts) -> list[tuple[int, ...]]:
    return [array.shape for array in parts.arrays]


def _tensors(parts: Parts) -> Iterator[Array]:
    """Yield what TensorFlow takes for each part of the signature; text as objects of bytes."""
    for kind, arrays in by_leaf(parts.structure.kinds, parts.arrays):
        if arrays[0].dtype.kind == "U":
            yield np.char.encode(arrays[0], "utf-8").astype(object)
        elif arrays[0].dtype.kind == "S":
            yield arrays[0].astype(object)
        else:
            yield from with_text(kind, arrays)


def _part_specs(name: str, leaf: LeafSpec) -> list[tf.TensorSpec]:
    try:
        dtype = tf.string if leaf.dtype is None else tf.as_dtype(leaf.dtype)
    except TypeError:
        raise UnsupportedLeafError(
            f"{name} is {leaf}, a dtype that TensorFlow does not have",
            remedy="Convert it in __getitem__ with .astype, or use Loader.",
        ) from None
    if leaf.kind in ("array", "text"):
        return [tf.TensorSpec(leaf.shape, dtype)]
    if leaf.kind == "sparse":
        rank = None if leaf.shape is None else len(leaf.shape)
        return [
            tf.TensorSpec((None, rank), tf.int64),
            tf.TensorSpec((None,), dtype),
            tf.TensorSpec((rank,), tf.int64),
        ]
    splits = part_count(leaf.kind) - 1
    inner = () if leaf.shape is None else leaf.shape[splits + 1 :]
    return [tf.TensorSpec((None, *inner), dtype), *[tf.TensorSpec((None,), tf.int64)] * splits]


def _is_flat(spec: ElementSpec) -> bool:
    """Tell whether an element is just the tuple of its parts, so that a step of the pipeline can be saved."""
    numbers = range(len(spec.leaves))
    whole = all(leaf.kind in ("array", "text") for leaf in spec.leaves)
    return whole and bool(lists_to_tuples(optree.tree_unflatten(spec.tree, numbers)) == tuple(numbers))


def _assembler(spec: ElementSpec) -> Callable[..., Any]:
    """Return the function that makes an element of its parts."""

    def assemble(*parts: Any) -> Any:
        leaves = [
            _leaf_of(leaf, of_leaf)
            for leaf, (_, of_leaf) in zip(spec.leaves, by_leaf((leaf.kind for leaf in spec.leaves), parts), strict=True)
        ]
        return lists_to_tuples(optree.tree_unflatten(spec.tree, leaves))

    return assemble


def _leaf_of(leaf: LeafSpec, parts: list[Any]) -> Any:
    """Make a RaggedTensor or SparseTensor here: in the generator's signature they make TensorFlow copy every part."""
    if leaf.kind in ("array", "text"):
        return parts[0]
    if leaf.kind == "sparse":
        tensor = tf.SparseTensor(*parts)
        if leaf.shape is not None:
            tensor.set_shape(leaf.shape)
        return tensor
    return tf.RaggedTensor.from_nested_row_splits(parts[0], parts[1:], validate=False)


def _stacks(leaf: LeafSpec) -> bool:
    """Tell whether batches of this leaf can be stacked, and taken apart again by TensorFlow's unbatch."""
    if leaf.kind not in ("array", "text") or leaf.shape is None:
        return False
    # Of the dtypes that NumPy itself lacks, unbatch knows only bfloat16.
    return leaf.dtype is None or leaf.dtype.kind != "V" or leaf.dtype.name == "bfloat16"


def _weight(leaf: LeafSpec) -> int:
    """Return the bytes of a batch's leaf, as far as a declared spec tells."""
    item = 16 if leaf.dtype is None else leaf.dtype.itemsize
    return item * prod(_ROWS_UNKNOWN if size is None else size for size in leaf.shape or ())
