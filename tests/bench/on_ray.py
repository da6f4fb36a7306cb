"""Ray: our backend on it, and Ray Data in the way its own documentation shows. Each starts Ray, on this machine alone.

Ray listens on all interfaces, so that these run where there is no network; see `running.measure`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import ray
import tensorflow as tf
from numpy.typing import NDArray

from keras_mpseq.ray_cluster import SYSTEM_CONFIG
from keras_mpseq.ray_workplace import RayWorkplace
from tests.bench.workloads import WORKERS, Batches

_STORE_BYTES = 2 << 30
_AHEAD = 2
"""Batches ahead for each worker, as everywhere."""


@contextmanager
def _started() -> Iterator[None]:
    # Twice the CPUs that the workers take: Ray Data hangs where its actors take all (ray#44687).
    # As ours starts it: it frees memory as often.
    ray.init(
        num_cpus=2 * WORKERS,
        object_store_memory=_STORE_BYTES,
        include_dashboard=False,
        logging_level="ERROR",
        _system_config=SYSTEM_CONFIG,
    )
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def ours(sequence: Batches) -> Iterator[tf.data.Dataset]:
    """keras_mpseq.to_dataset(backend="ray")."""
    from keras_mpseq import to_dataset

    yield to_dataset(sequence, workers=WORKERS, backend="ray")


class _Actor:
    """Builds batches, and does nothing else."""

    def __init__(self, sequence: Batches) -> None:
        self.sequence = sequence

    def build(self, index: int) -> NDArray[Any]:
        return self.sequence[index]


@contextmanager
def actors(sequence: Batches) -> Iterator[tf.data.Dataset]:
    """Ray alone: a call of an actor for each batch, in turn, as many ahead as ours; no retries, no errors, no seeds."""
    with _started():
        crew = [ray.remote(_Actor).remote(sequence) for _ in range(WORKERS)]
        ahead = RayWorkplace.depth * WORKERS

        def batches() -> Iterator[NDArray[Any]]:
            calls = [crew[index % WORKERS].build.remote(index) for index in range(min(ahead, len(sequence)))]
            for index in range(len(sequence)):
                yield ray.get(calls.pop(0))
                if index + ahead < len(sequence):
                    calls.append(crew[index % WORKERS].build.remote(index + ahead))

        batch = sequence[0]
        yield tf.data.Dataset.from_generator(batches, output_signature=tf.TensorSpec(batch.shape, batch.dtype))


class _Built:
    """Builds the batches of some indices, in an actor."""

    def __init__(self, sequence: Batches) -> None:
        self.sequence = sequence

    def __call__(self, rows: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {"batch": self.sequence[int(rows["id"][0])]}


@contextmanager
def ray_data(sequence: Batches, rows: bool) -> Iterator[tf.data.Dataset]:
    """Ray Data: map_batches on as many actors, and iter_batches in order, feeding from_generator.

    Args:
        sequence: What is built.
        rows: Blocks as Ray Data chooses them, from which batches of equal size are cut; else a block is a batch.
    """
    import ray.data

    with _started():
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        batch = sequence[0]
        blocks = None if rows else len(sequence)
        built = ray.data.range(len(sequence), override_num_blocks=blocks).map_batches(
            _Built, batch_size=1, concurrency=WORKERS, fn_constructor_args=(sequence,)
        )

        def batches() -> Iterator[NDArray[Any]]:
            size = len(batch) if rows else None
            for columns in built.iter_batches(batch_size=size, prefetch_batches=_AHEAD * WORKERS):
                yield np.asarray(columns["batch"])

        yield tf.data.Dataset.from_generator(batches, output_signature=tf.TensorSpec(batch.shape, batch.dtype))


ON_RAY = {
    "ours-ray": ours,
    "actors": actors,
    "ray-data": functools.partial(ray_data, rows=False),
    "ray-data-rows": functools.partial(ray_data, rows=True),
}
