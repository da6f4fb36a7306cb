"""Sequences in `fit`, `evaluate` and `predict` of tf_keras, the Keras 2 API, run on our workers.

tf_keras picks an adapter from one list. In the place of its adapter of Sequences we put a dispatcher: ours for a
SafeSequence, its own for anything else, unless `install` says so. The arguments `workers`, `use_multiprocessing` and
`max_queue_size` of `fit` count where they are given, else what the sequence asks for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tf_keras
from tf_keras.src.engine import data_adapter

from keras_mpseq import fitting
from keras_mpseq.dataset import mapped
from keras_mpseq.local import Safe
from keras_mpseq.pipeline import Pipeline, worker_count

if TYPE_CHECKING:

    class _DataAdapter:
        """As type checkers see it: Keras has no types."""

else:
    _DataAdapter = data_adapter.DataAdapter
_AHEAD = 10
"""max_queue_size where `fit` is given none."""


class LegacyAdapter(Pipeline, _DataAdapter):
    """What the trainers of tf_keras see of a sequence.

    Args:
        x: The sequence.
        workers: Processes; 0 means this one.
        max_queue_size: Batches ready ahead; 0 means two for each worker.
        shuffle: As in `fit`.
    """

    def __init__(self, x: Any, *, workers: int, max_queue_size: int, shuffle: bool) -> None:
        """Start the workers."""
        super().__init__(
            x, workers=workers, ahead=max_queue_size, shuffle=bool(shuffle), floatx=tf_keras.backend.floatx()
        )
        self._cut = False
        self.elements.before_batch = self._before_batch
        dataset = self.dataset(weighted=False)
        # `adapt` of a layer takes an array as it is; so do the others.
        spec = dataset.element_spec
        alone = isinstance(spec, tuple) and len(spec) == 1 and not isinstance(spec[0], (tuple, dict))
        self._dataset = mapped(dataset, lambda x: x) if alone else dataset

    def state_dict(self) -> Any:
        """Refuse."""
        raise ValueError(
            "state_dict() is not known in fit of tf_keras: use a model of Keras 3, or a loop of your own with "
            "Loader.state_dict."
        )

    def take(self, steps: int | None) -> LegacyAdapter:
        """Learn of `steps_per_epoch`: a pass then goes on in the next epoch (decision S12)."""
        self._cut = steps is not None
        # Where a pass is cut, no batch may be taken before the hook of its epoch.
        self.elements.grouping = not self._cut
        if self._cut:
            self._dataset = self._dataset.repeat()
        return self

    @staticmethod
    def can_handle(x: Any, y: Any = None) -> bool:
        """Tell whether the data is ours."""
        del y
        return isinstance(x, (LegacyAdapter, Safe))

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
        return not self._cut


class _Dispatcher:
    """Stands on the list of tf_keras in the place of *stock*, its adapter of Sequences."""

    def __init__(self, stock: Any) -> None:
        self.stock = stock

    def can_handle(self, x: Any, y: Any = None) -> bool:
        """Tell whether the data is a sequence, ours or theirs."""
        return LegacyAdapter.can_handle(x) or bool(self.stock.can_handle(x, y))

    def __call__(self, x: Any, y: Any = None, **settings: Any) -> Any:
        """Return the adapter for the arguments of `fit`."""
        if isinstance(x, LegacyAdapter):
            return x.take(settings.get("steps"))
        workers, processes = settings.get("workers", 1), settings.get("use_multiprocessing", False)
        if not (isinstance(x, Safe) or (fitting.everywhere and processes)):
            return self.stock(x, y, **settings)
        for name, value in (("y", y), ("sample_weight", settings.get("sample_weights"))):
            if not data_adapter.is_none_or_empty(value):
                raise ValueError(f"{name} must be None for a sequence, whose batches hold it.")
        ahead = settings.get("max_queue_size", _AHEAD)
        return LegacyAdapter(
            x,
            workers=workers if workers > 1 or processes else worker_count(x),
            max_queue_size=ahead if ahead != _AHEAD else getattr(x, "max_queue_size", ahead),
            shuffle=settings.get("shuffle", False),
        ).take(settings.get("steps"))


_dispatcher = _Dispatcher(data_adapter.KerasSequenceAdapter)


def join() -> None:
    """Put the dispatcher on the list of tf_keras, and the wrappers on its `Model`; once."""
    adapters = data_adapter.ALL_ADAPTER_CLS
    if _dispatcher.stock in adapters:
        adapters[adapters.index(_dispatcher.stock)] = _dispatcher
        fitting.wrap(tf_keras.Model, keras_3=False)
