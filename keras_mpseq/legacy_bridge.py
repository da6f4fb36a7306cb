"""A SafeSequence in `fit`, `evaluate` and `predict` of tf_keras, the Keras 2 API, runs on our workers.

tf_keras picks an adapter from one list; ours joins it, for SafeSequence only. The arguments `workers`,
`use_multiprocessing` and `max_queue_size` of `fit` count where they are given, else what the sequence asks for.
"""

from __future__ import annotations

from typing import Any

import tf_keras
from tf_keras.src.engine import data_adapter

from keras_mpseq import fitting
from keras_mpseq.local import Safe
from keras_mpseq.pipeline import Pipeline, worker_count

_AHEAD = 10
"""max_queue_size where `fit` is given none."""


class LegacyAdapter(Pipeline, data_adapter.DataAdapter):  # type: ignore[misc]
    """What the trainers of tf_keras see of a SafeSequence; arguments as they pass them."""

    def __init__(
        self,
        x: Any,
        y: Any = None,
        *,
        sample_weights: Any = None,
        shuffle: bool = False,
        workers: int = 1,
        use_multiprocessing: bool = False,
        max_queue_size: int = _AHEAD,
        steps: int | None = None,
        **_: Any,
    ) -> None:
        """Start the workers."""
        for name, value in (("y", y), ("sample_weight", sample_weights)):
            if not data_adapter.is_none_or_empty(value):
                raise ValueError(f"{name} must be None for a SafeSequence, whose batches hold it.")
        given = workers > 1 or use_multiprocessing
        super().__init__(
            x,
            workers=workers if given else worker_count(x),
            ahead=max_queue_size if max_queue_size != _AHEAD else x.max_queue_size,
            shuffle=bool(shuffle),
            floatx=tf_keras.backend.floatx(),
        )
        self._steps = steps
        self.elements.before_batch = self._before_batch
        dataset = self.dataset(weighted=False)
        # steps_per_epoch: a pass goes on in the next epoch, and after its end comes the next (DESIGN S12).
        self._dataset = dataset.repeat() if steps is not None else dataset

    @staticmethod
    def can_handle(x: Any, y: Any = None) -> bool:
        """Tell whether the data is ours."""
        del y
        return isinstance(x, Safe)

    def _before_batch(self) -> None:
        # Keras 2 tells of the ends of epochs only.
        if not self.within:
            self.begin_epoch()

    def on_epoch_end(self) -> None:
        """An epoch has ended."""
        self.end_epoch()

    def get_dataset(self) -> Any:
        """Return the batches; each iteration is a pass."""
        return self._dataset

    def get_size(self) -> int | None:
        """Return the batches of an epoch; None if the sequence is infinite."""
        return self.length

    def batch_size(self) -> None:
        """Return None: batches may differ."""

    def representative_batch_size(self) -> None:
        """Return None, as `batch_size`."""

    def has_partial_batch(self) -> bool:
        """Return False: there is no batch size."""
        return False

    def partial_batch_size(self) -> None:
        """Return None, as `batch_size`."""

    def should_recreate_iterator(self) -> bool:
        """Tell whether each epoch is a pass of its own."""
        return self._steps is None


def join() -> None:
    """Put the adapter on the list of tf_keras, and the wrappers on its `Model`; once."""
    if LegacyAdapter not in data_adapter.ALL_ADAPTER_CLS:
        data_adapter.ALL_ADAPTER_CLS.append(LegacyAdapter)
        fitting.wrap(tf_keras.Model, keras_3=False)
