"""A SafeSequence in `fit`, `evaluate` and `predict` of Keras 3 runs on our workers (decision S11).

Keras picks the adapter of a PyDataset by one name, `PyDatasetAdapter` in `keras.src.trainers.data_adapters`. There we
put a dispatcher: for a SafeSequence it returns an adapter over our workers, for anything else Keras's own. It is put
there when `SafeSequence` is first used; nothing of Keras changes for other classes, unless `install` says so.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.util
import itertools
import sys
import warnings
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import keras
from keras.src.trainers import data_adapters
from keras.src.trainers.data_adapters import data_adapter_utils
from keras.src.trainers.data_adapters.data_adapter import DataAdapter
from keras.src.trainers.data_adapters.tf_dataset_adapter import make_class_weight_map_fn
from keras.src.trainers.epoch_iterator import EpochIterator

from keras_mpseq import fitting
from keras_mpseq.local import Safe
from keras_mpseq.pipeline import Pipeline, worker_count
from keras_mpseq.spec import lists_to_tuples

_NAME = "PyDatasetAdapter"
_LEGACY = "tf_keras"
_NUMBERS = 2 if tuple(map(int, keras.__version__.split(".")[:2])) >= (3, 11) else 1
"""Of a step of Keras's iterator: that of its first batch, and since 3.11 that of its last."""
_joined = False


if TYPE_CHECKING:

    class _DataAdapter:
        """As type checkers see it: Keras has no types."""

else:
    _DataAdapter = DataAdapter


class SafeSequenceAdapter(Pipeline, _DataAdapter):
    """What Keras's trainers see of a sequence.

    Args:
        x: The sequence.
        class_weight: As in `fit`.
        shuffle: As in `fit`.
        workers: Processes; None takes what the sequence asks for.
        max_queue_size: Batches ready ahead; None takes what the sequence asks for, 0 means two for each worker.
    """

    resumes = True

    def __init__(
        self,
        x: Any,
        class_weight: dict[int, float] | None = None,
        shuffle: bool = False,
        *,
        workers: int | None = None,
        max_queue_size: int | None = None,
    ) -> None:
        """Start the workers."""
        super().__init__(
            x,
            workers=worker_count(x) if workers is None else workers,
            ahead=getattr(x, "max_queue_size", 0) if max_queue_size is None else max_queue_size,
            shuffle=bool(shuffle),
            floatx=keras.config.floatx(),
        )
        self._class_weight = class_weight
        self._dataset: Any = None
        self._trainers: weakref.ref[EpochIterator] | None = None
        self._step = 0
        """Steps of the epoch of Keras that were begun."""

    def serve(self, iterator: EpochIterator) -> None:
        """Learn which iterator of the trainer takes the batches."""
        self._trainers = weakref.ref(iterator)
        # Where steps_per_epoch cuts a pass, no batch may be taken before the hook of its epoch.
        self.elements.grouping = iterator.steps_per_epoch is None
        iterator._enumerate_iterator = self._steps  # On the class stands Keras's own.

    def _steps(self) -> Iterator[tuple[Any, ...]]:
        """Yield the steps of an epoch: all of them, or those that are left of one that is resumed."""
        iterator: Any = self._trainers and self._trainers()
        whole = self._resumed is None or not (self._first_step or self._resumed.position)
        for step in type(iterator)._enumerate_iterator(iterator) if whole else self._rest(iterator):
            self._step = step[0] + iterator.steps_per_execution
            yield step
        self._step, self._resumed = 0, None

    def _rest(self, iterator: EpochIterator) -> Iterator[tuple[Any, ...]]:
        """Yield what is left of the epoch that is resumed, as Keras's `_enumerate_iterator` does."""
        assert self._resumed is not None
        self.on_epoch_begin()
        iterator._current_iterator = iter(iterator._get_iterator())
        iterator._steps_seen = self._resumed.position
        each, total = iterator.steps_per_execution, iterator._num_batches
        steps = iterator.steps_per_epoch or total
        numbers = itertools.count(self._first_step, each) if steps is None else range(self._first_step, steps, each)
        for step in numbers:
            if total and iterator._steps_seen >= total:
                iterator._interrupted_warning()
                break
            iterator._steps_seen += each
            yield *(step, step + each - 1)[:_NUMBERS], iterator._current_iterator
        if total and iterator._steps_seen >= total:
            iterator._current_iterator = iter(iterator._get_iterator())
            iterator._steps_seen = 0
        self.on_epoch_end()

    @property
    def steps_left(self) -> int | None:
        """Steps of the epoch of Keras that were not begun; None if they are endless."""
        iterator = self._trainers and self._trainers()
        steps = iterator.num_batches if iterator else None
        return None if steps is None else max(steps - self._step, 0)

    def state_dict(self) -> dict[str, Any]:
        """Return where the trainer is, counting the steps that were begun."""
        if self._resumed is not None and not self._step:  # Nothing was done yet.
            return self._state(self._resumed.epoch, self._resumed.position, self._first_step)
        iterator = self._trainers and self._trainers()
        seen = iterator._steps_seen if iterator else 0
        if seen and self.length is not None:
            seen = min(seen, self.length)
        # A pass that was begun is the one that began last: batches are taken of one at a time.
        epoch = self.coming_epoch - 1 if seen else self.elements.next_number
        return self._state(epoch, seen, self._step)

    @property
    def num_batches(self) -> int | None:
        """Batches of the coming epoch; None if the sequence is infinite."""
        return self.length

    @property
    def batch_size(self) -> None:
        """Unknown: batches may differ."""
        return None

    has_partial_batch: Any = batch_size
    partial_batch_size: Any = batch_size

    def on_epoch_begin(self) -> None:
        """An epoch of Keras begins."""
        if self.within:
            raise ValueError("`on_epoch_begin` was called twice without `on_epoch_end` having been called.")
        self.begin_epoch()
        if iterator := self._trainers and self._trainers():
            # It asked before the hook, and asks once for all epochs.
            iterator._num_batches = self.num_batches

    def on_epoch_end(self) -> None:
        """An epoch of Keras has ended, or its iterator begins anew (`EpochIterator.reset`)."""
        iterator = self._trainers and self._trainers()
        if self.within and not self.ended_once and iterator and iterator._epoch_iterator is None:
            # The trainer took a batch to build the model, and now begins the same epoch.
            self._step = 0
            self.begin_again()
        else:
            self.end_epoch()

    def get_tf_dataset(self) -> Any:
        """Return the batches as a `tf.data.Dataset`; each iteration is a pass."""
        if self._dataset is None:
            dataset = self.dataset(self._class_weight is not None)
            if self._class_weight is not None:
                dataset = dataset.map(make_class_weight_map_fn(self._class_weight))
            self._dataset = dataset
        return self._dataset

    def get_numpy_iterator(self) -> Iterator[Any]:
        """Return the batches of one pass in NumPy."""
        return data_adapter_utils.get_numpy_iterator(self._batches())  # type: ignore[no-any-return]

    def get_jax_iterator(self) -> Iterator[Any]:
        """Return the batches of one pass as JAX takes them."""
        return data_adapter_utils.get_jax_iterator(self._batches())  # type: ignore[no-any-return]

    def get_torch_dataloader(self) -> Any:
        """Return the batches of one pass as a torch DataLoader without workers of its own."""
        return data_adapter_utils.get_torch_dataloader(self._batches())

    def _batches(self) -> Iterator[Any]:
        weighted = self._class_weight is not None
        with self.elements.epoch() as iteration:
            for number, parts in enumerate(iteration):
                if not number:  # The spec is there with the first batch, and stays; each batch is checked against it.
                    self.checked_spec(weighted)
                batch = lists_to_tuples(parts.batch)
                del parts
                if not isinstance(batch, (tuple, dict)):
                    batch = (batch,)
                if self._class_weight is not None and len(batch) == 2 and isinstance(batch, tuple):
                    weights = data_adapter_utils.class_weight_to_sample_weights(batch[1], self._class_weight)
                    batch = (*batch, weights)
                yield batch
                del batch


def join() -> None:
    """Put the dispatcher in the place of Keras's adapter, and the wrappers on `keras.Model`; once."""
    global _joined
    if _joined:
        return
    _joined = True
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
        ours = isinstance(x, Safe) or (fitting.everywhere and x.use_multiprocessing)
        return (SafeSequenceAdapter if ours else stock)(x, class_weight=class_weight, shuffle=shuffle)

    begin = EpochIterator.__init__

    @functools.wraps(begin)
    def begin_and_tell(self: Any, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        if isinstance(self.data_adapter, SafeSequenceAdapter):
            self.data_adapter.serve(self)

    setattr(data_adapters, _NAME, dispatch)
    EpochIterator.__init__ = begin_and_tell
    fitting.wrap(keras.Model, keras_3=True)
    if _LEGACY in sys.modules:
        _join_legacy()
    else:
        sys.meta_path.insert(0, _LegacyFinder())


def _join_legacy() -> None:
    importlib.import_module("keras_mpseq.legacy_bridge").join()


class _LegacyFinder(importlib.abc.MetaPathFinder):
    """Joins tf_keras when it is imported, in whichever place the program does so: before its `fit` is called."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        """Find tf_keras as ever, and let it be joined at the end of its import."""
        del path, target
        if name != _LEGACY:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec and spec.loader:
            execute = spec.loader.exec_module

            def execute_and_join(module: Any) -> None:
                execute(module)
                _join_legacy()

            spec.loader.exec_module = execute_and_join  # type: ignore[method-assign]
        return spec


def install() -> None:
    """Let every `PyDataset` that asks for processes (`use_multiprocessing=True`) use ours in `fit`.

    Also every `Sequence` of tf_keras where `fit` is called with `use_multiprocessing=True`. For code whose classes
    cannot be edited. Without it nothing changes for classes that are no `SafeSequence`.
    """
    fitting.everywhere = True


def uninstall() -> None:
    """Undo `install`: Keras's own workers serve every class but `SafeSequence` again."""
    fitting.everywhere = False


def fit(
    model: Any,
    x: Any,
    *,
    workers: int = 1,
    use_multiprocessing: bool = True,
    max_queue_size: int = 10,
    shuffle: bool = True,
    class_weight: dict[int, float] | None = None,
    validation_data: Any = None,
    **kwargs: Any,
) -> Any:
    """Fit *model* to any sequence with our workers: `model.fit` in the spelling of Keras 2.

    Args:
        model: A compiled `keras.Model`, or one of tf_keras.
        x: A sequence: any object with `__len__` and `__getitem__(index)` that returns (x,), (x, y),
            (x, y, sample_weight) or a dict.
        workers: Processes, also for validation; 0 means this process.
        use_multiprocessing: Without it, 1 worker means this process; more are processes in any case.
        max_queue_size: Batches ready ahead.
        shuffle: As in `model.fit`.
        class_weight: As in `model.fit`.
        validation_data: As in `model.fit`, or a sequence like *x*.
        **kwargs: The other arguments of `model.fit`.

    Returns:
        The `keras.callbacks.History`.

    Raises:
        TypeError: *x* is no sequence.
        ValueError: An option is out of its range.
        MpseqError: The pipeline failed; see `keras_mpseq.errors`.
    """
    initial_epoch = kwargs.get("initial_epoch", 0)
    count: Any = 0 if workers == 1 and not use_multiprocessing else workers

    legacy: Any = None
    if _LEGACY in sys.modules and isinstance(model, sys.modules[_LEGACY].Model):
        legacy = importlib.import_module("keras_mpseq.legacy_bridge")
        kwargs["class_weight"] = class_weight  # There the trainer applies it.

    def adapter(sequence: Any, weight: Any, shuffled: bool) -> Any:
        if legacy:
            return legacy.LegacyAdapter(sequence, workers=count, max_queue_size=max_queue_size, shuffle=shuffled)
        return SafeSequenceAdapter(
            sequence, class_weight=weight, shuffle=shuffled, workers=count, max_queue_size=max_queue_size
        )

    with fitting.Session(x, initial_epoch) as session:
        session.prepare(model, kwargs.get("callbacks"), keras_3=legacy is None)
        training = adapter(x, class_weight, shuffle)  # The first of the session is what PipelineMonitor looks at.
        if validation_data is not None and _is_sequence(validation_data):
            validation_data = adapter(validation_data, None, False)
        return model.fit(training, validation_data=validation_data, **kwargs)


def _is_sequence(data: Any) -> bool:
    """Tell whether validation data is a sequence, and no arrays or dataset."""
    if isinstance(data, keras.utils.PyDataset):
        return True
    own = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    return own and not isinstance(data, (tuple, list, dict, str)) and not hasattr(data, "__array__")
