"""A SafeSequence in `fit`, `evaluate` and `predict` of Keras 3 runs on our workers (DESIGN S11).

Keras picks the adapter of a PyDataset by one name, `PyDatasetAdapter` in `keras.src.trainers.data_adapters`. There we
put a dispatcher: for a SafeSequence it returns an adapter over `to_dataset`, for anything else Keras's own. It is put
there when `SafeSequence` is first used; nothing of Keras changes for other classes.
"""

from __future__ import annotations

import warnings
from typing import Any

import tensorflow as tf
from keras import config
from keras.src.trainers import data_adapters
from keras.src.trainers.data_adapters.tf_dataset_adapter import TFDatasetAdapter

from keras_mpseq.dataset import to_dataset
from keras_mpseq.local import Safe
from keras_mpseq.options import length_of

_NAME = "PyDatasetAdapter"


class SafeSequenceAdapter(TFDatasetAdapter):  # type: ignore[misc]
    """What Keras's trainers see of a SafeSequence: a dataset over a pool that lives as long as the adapter.

    Args:
        x: The sequence; its `workers`, `use_multiprocessing`, `max_queue_size` and `seed` count.
        class_weight: As in `fit`.
        shuffle: As in `fit`: permute the batches of each epoch, keyed by (seed, epoch); not if *x* is infinite.
    """

    def __init__(self, x: Any, class_weight: Any = None, shuffle: bool = False) -> None:
        """Start the workers."""
        self._sequence = x
        dataset = to_dataset(
            x,
            workers=worker_count(x),
            prefetch=x.max_queue_size,
            shuffle=bool(shuffle) and length_of(x) is not None,
            varying_length=True,
        )
        super().__init__(dataset.map(_as_floatx), class_weight=class_weight)

    @property
    def num_batches(self) -> int | None:
        """Batches of the coming epoch."""
        return length_of(self._sequence)


def worker_count(sequence: Any) -> int:
    """Return how many processes *sequence* asks for; 0 means this one (DESIGN S15)."""
    workers = int(sequence.workers)
    return workers if workers > 1 or (workers == 1 and sequence.use_multiprocessing) else 0


def _as_floatx(*batch: Any) -> Any:
    """Cast doubles to Keras's default float, as Keras does for a PyDataset."""

    def cast(leaf: Any) -> Any:
        return tf.cast(leaf, config.floatx()) if leaf.dtype == tf.float64 else leaf

    # A tuple arrives as arguments, anything else as the only one.
    return tf.nest.map_structure(cast, batch if len(batch) > 1 else batch[0])


def join() -> None:
    """Put the dispatcher in the place of Keras's adapter; once."""
    stock = getattr(data_adapters, _NAME, None)
    if stock is None:
        warnings.warn(
            "This version of Keras picks data adapters in a way that keras_mpseq does not know: in fit(), pass "
            "to_dataset(sequence) in the place of the sequence.",
            UserWarning,
            stacklevel=3,
        )
        return

    def dispatch(x: Any, class_weight: Any = None, shuffle: bool = False) -> Any:
        kind = SafeSequenceAdapter if isinstance(x, Safe) else stock
        return kind(x, class_weight=class_weight, shuffle=shuffle)

    setattr(data_adapters, _NAME, dispatch)
