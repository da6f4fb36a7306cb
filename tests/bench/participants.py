"""Who loads: each participant makes a `tf.data.Dataset` of a sequence, in the way its own documentation shows.

All get two worker processes and keep two batches ahead for each. What a peer needs is imported when it is asked for,
so that a missing one is left out and no participant pays for another's imports.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tests.bench.workloads import WORKERS, Batches

_AHEAD = 2
"""Batches ahead for each worker: what torch and keras_mpseq take by themselves."""


@contextmanager
def ours(sequence: Batches) -> Iterator[tf.data.Dataset]:
    """keras_mpseq.to_dataset."""
    from keras_mpseq import to_dataset

    yield to_dataset(sequence, workers=WORKERS)


@contextmanager
def keras_dataset(sequence: Batches, workers: int, use_multiprocessing: bool) -> Iterator[tf.data.Dataset]:
    """The dataset that Keras itself makes of a PyDataset, driven as `fit` does."""
    import keras
    from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

    class Wrapped(keras.utils.PyDataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return len(sequence)

        def __getitem__(self, index: int) -> NDArray[Any]:
            return sequence[index]

    adapter = PyDatasetAdapter(Wrapped(workers=workers, use_multiprocessing=use_multiprocessing))
    dataset = adapter.get_tf_dataset()
    adapter.on_epoch_begin()
    yield dataset
    adapter.on_epoch_end()


@contextmanager
def torch_dataset(sequence: Batches) -> Iterator[tf.data.Dataset]:
    """A DataLoader over ready batches, feeding from_generator."""
    from torch.utils.data import DataLoader

    loader: Any = DataLoader(sequence, batch_size=None, num_workers=WORKERS)  # type: ignore[arg-type]
    yield _generated(lambda: (batch.numpy() for batch in loader), sequence)


@contextmanager
def grain_dataset(sequence: Batches) -> Iterator[tf.data.Dataset]:
    """A MapDataset with mp_prefetch, feeding from_generator."""
    import grain  # type: ignore[import-untyped]
    from absl import flags

    flags.FLAGS.mark_as_parsed()  # As absl.app.run does: grain reads flags, also in its workers.
    # By default each worker reads 500 elements ahead, which for batches of 19 MB is more than the machine has.
    reading = grain.ReadOptions(num_threads=1, prefetch_buffer_size=_AHEAD)
    workers = grain.MultiprocessingOptions(num_workers=WORKERS, per_worker_buffer_size=_AHEAD)
    source: Any = grain.MapDataset.source(sequence)
    yield _generated(source.to_iter_dataset(reading).mp_prefetch(workers).__iter__, sequence)


@contextmanager
def hf_dataset(sequence: Batches) -> Iterator[tf.data.Dataset]:
    """A table of indices, whose collate function builds the batch in the workers."""
    from datasets import Dataset  # type: ignore[import-untyped]

    indices = Dataset.from_dict({"index": np.arange(len(sequence))})
    yield indices.to_tf_dataset(
        batch_size=1, collate_fn=functools.partial(_collate, sequence), num_workers=WORKERS, num_test_batches=2
    )


def _collate(sequence: Batches, rows: list[dict[str, Any]]) -> dict[str, NDArray[Any]]:
    return {"batch": sequence[int(rows[0]["index"])]}


@contextmanager
def slices(sequence: Batches) -> Iterator[tf.data.Dataset]:
    """No loader: all batches in one tensor."""
    yield tf.data.Dataset.from_tensor_slices(np.stack([sequence[index] for index in range(len(sequence))]))


def _generated(generator: Callable[[], Iterator[NDArray[Any]]], sequence: Batches) -> tf.data.Dataset:
    batch = sequence[0]
    return tf.data.Dataset.from_generator(generator, output_signature=tf.TensorSpec(batch.shape, batch.dtype))


PARTICIPANTS: dict[str, Callable[[Batches], AbstractContextManager[tf.data.Dataset]]] = {
    "ours": ours,
    "ours-in-place": ours,
    "keras": functools.partial(keras_dataset, workers=WORKERS, use_multiprocessing=True),
    "keras-single": functools.partial(keras_dataset, workers=1, use_multiprocessing=False),
    "torch": torch_dataset,
    "grain": grain_dataset,
    "datasets": hf_dataset,
    "slices": slices,
}
