"""BatchedSequence: batches of the samples of arrays, files, or anything that has an index."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import optree
from numpy.typing import NDArray

from keras_mpseq import role
from keras_mpseq.codec import is_numeric
from keras_mpseq.errors import MpseqError, SpecMismatchError, StatefulGetitemError, named, user_error
from keras_mpseq.hdf5 import Files
from keras_mpseq.limits import SLOW_WARNING_S, check_among
from keras_mpseq.local import context, per_worker
from keras_mpseq.options import OnError, check_flag, check_int
from keras_mpseq.ray_options import RayOptions
from keras_mpseq.sampling import Epoch, Plan, RecentEpochs, generators
from keras_mpseq.sequence import SafeSequence
from keras_mpseq.shares import Shard, Uneven
from keras_mpseq.sources import ArrayColumn, RowSpec, Source, shown
from keras_mpseq.stacking import Padding, Sample, stacked


class _Skipped(Exception):  # noqa: N818 - never seen by users
    """A sample is left out."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class BatchedSequence(SafeSequence):
    """A `SafeSequence` that makes batches of the samples of an array, of files, or of anything that has an index.

    Samples are read, transformed and put into the batch by the workers, each written straight to its place in shared
    memory. The batches are the same for any number of workers, and what `transform` draws from `rng` depends on
    (seed, epoch, number of the sample) only, so that it is the same for any `batch_size`.

    Args:
        source: Where samples come from: an array, a memmap, a list of paths, `"FILE.h5:/DATASET"`, a pandas DataFrame,
            a tuple or dict of arrays or of any of these, whose structure samples and batches then have, or any object
            with `__len__` and `__getitem__` that gives one sample. A list holds samples, a tuple parts of samples. A
            dataset of an HDF5 file is opened by each worker for itself. Of a DataFrame the columns count as they are
            now, and a sample is a dict.
        batch_size: Samples in a batch.
        transform: A function `transform(sample, rng)` that returns what is to stand in the batch: arrays, numbers or
            strings, or a tuple or dict of these; a list of numbers is an array. It runs in the workers, once for each
            sample, with a generator of the sample's own. What it gets of an array is read-only. None leaves samples
            as they are.
        shuffle: Deal the samples to batches anew in every epoch, keyed by (seed, epoch).
        pad: Let samples differ in size: True fills up with zeros (texts with empty ones), a number with that, to the
            largest size in the batch; a tuple or dict, structured as a sample, gives each leaf a value of its own,
            and False to a leaf whose samples are all of one size.
        pad_to_multiple_of: With *pad*, round sizes that differ up to a multiple of it. The length (the first
            dimension) of a leaf that *pad* names in a tuple or dict, or that is the only one with dimensions, is
            rounded also in batches whose samples happen to be of one length.
        bucket_by_length: Make batches of samples of similar length, so that little is padded: "auto" takes the length
            of the first part of a sample, as it is in the source; a function gives the length of a sample, and is
            called here, once for each; an array holds the lengths. Samples are sorted within windows of 100 batches,
            which *shuffle* fills anew in every epoch.
        drop_remainder: Leave out the samples that do not fill a batch.
        sample_weight: An array with a weight for each sample, which becomes the third part of the batch: for samples
            (x, y).
        on_error: "raise", or "skip" to leave out samples that cannot be read or whose transform raises. Their batches
            have fewer rows, and the log names them after the epoch. In a batch that loses all its samples the next
            one of the epoch that can be read stands in, and so is there twice: no batch is empty, and the number of
            batches stays. That none at all can be read is an error.
        workers: As in `SafeSequence`.
        use_multiprocessing: As in `SafeSequence`.
        max_queue_size: As in `SafeSequence`.
        seed: As in `SafeSequence`.
        strict: As in `SafeSequence`.
        timeout: As in `SafeSequence`.
        slow_warning_s: As in `SafeSequence`.
        max_tasks_per_worker: As in `SafeSequence`.
        backend: As in `SafeSequence`.
        ray: As in `SafeSequence`.
        shard: As in `SafeSequence`.
        uneven: As in `SafeSequence`.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument is out of its range, or the source is empty or its parts are of unequal length.
        FileNotFoundError: A path does not exist; not with `on_error="skip"`.
        ImportError: The source is an HDF5 dataset, and h5py is not installed.

    Example:
        ```python
        def augment(sample, rng):
            image, label = sample
            return (image[:, ::-1] if rng.random() < 0.5 else image) / np.float32(255), label


        images = np.zeros((200, 28, 28), np.uint8)
        labels = np.zeros(200, np.int64)
        sequence = BatchedSequence((images, labels), 32, transform=augment, shuffle=True, workers=4)
        ```
    """

    def __init__(
        self,
        source: Any,
        batch_size: int,
        *,
        transform: Callable[[Any, np.random.Generator], Any] | None = None,
        shuffle: bool = False,
        pad: Any = False,
        pad_to_multiple_of: int | None = None,
        bucket_by_length: Any = None,
        drop_remainder: bool = False,
        sample_weight: Any = None,
        on_error: OnError = "raise",
        workers: int = 1,
        use_multiprocessing: bool | None = None,
        max_queue_size: int = 10,
        seed: int = 0,
        strict: bool = False,
        timeout: float | None = None,
        slow_warning_s: float | None = SLOW_WARNING_S,
        max_tasks_per_worker: int | None = None,
        backend: str = "local",
        ray: RayOptions | None = None,
        shard: Shard = (0, 1),
        uneven: Uneven = "error",
    ) -> None:
        """Check the arguments; files are looked for, and no sample is read but for its length."""
        super().__init__(
            workers,
            use_multiprocessing,
            max_queue_size,
            seed,
            strict,
            timeout=timeout,
            slow_warning_s=slow_warning_s,
            max_tasks_per_worker=max_tasks_per_worker,
            backend=backend,
            ray=ray,
            shard=shard,
            uneven=uneven,
        )
        self.batch_size: int = check_int("batch_size", batch_size, 1)
        check_flag("shuffle", shuffle)
        check_flag("drop_remainder", drop_remainder)
        check_among("on_error", on_error, ("raise", "skip"))
        self._transform = _checked_transform(transform)
        self._padding = _padding(pad, pad_to_multiple_of)
        self._skips = on_error == "skip"
        self._source = Source(source, check_files=not self._skips)
        self._shuffle, self._drop_remainder = bool(shuffle), bool(drop_remainder)
        if not self._plan.batches:
            raise ValueError(
                f"drop_remainder=True leaves no batch: source has {self._source.count} samples, and batch_size is "
                f"{self.batch_size}."
            )
        self._weights = None if sample_weight is None else self._checked_weights(sample_weight)
        self._lengths = None if bucket_by_length is None else self._checked_lengths(bucket_by_length)

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return self._plan.batches

    def __getitem__(self, index: int) -> Any:
        """Return one batch of the epoch `self.epoch`.

        Args:
            index: Of the batch.

        Raises:
            IndexError: There is no such batch.
            UserCodeError: The transform, or the source, raised; the exception is the cause.
            SpecMismatchError: Samples differ in structure, dtype or size.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"index must be from 0 to {len(self) - 1}, got {index}.")
        plan = self._plan
        epoch = self._epoch_of_batch(plan)
        first, end = int(index) * plan.batch_size, min((int(index) + 1) * plan.batch_size, plan.samples)
        numbers = epoch.numbers(first, end)
        if self._is_read_whole:
            batch = self._source.take(numbers, self.empty, self._files)
        else:
            batch, numbers = self._built(numbers, epoch, end)
        if self._weights is not None:
            batch = self._weighted(batch, self._weights.take(numbers, self.empty, self._files))
        if role.in_worker:
            self._source.release()
        return batch

    @property
    def element_spec(self) -> Any:
        """Shape and dtype of the batches, as `to_dataset` takes them; None where only a batch can tell."""
        specs = self._source.specs
        if specs is None or not self._is_read_whole or type(self).__getitem__ is not BatchedSequence.__getitem__:
            return None
        if not all(is_numeric(dtype) or dtype.kind in "SUO" for _, dtype in specs):
            return None
        always_full = not self._skips and (self._drop_remainder or self._source.count % self.batch_size == 0)
        rows = self.batch_size if always_full else None
        spec = optree.tree_unflatten(self._source.tree, [RowSpec((rows, *shape), dtype) for shape, dtype in specs])
        return spec if self._weights is None else self._weighted(spec, RowSpec((rows,), self._weights.array.dtype))

    def _leaves_of_any_size(self, tree: optree.PyTreeSpec) -> list[bool]:
        """Tell of each leaf of a batch, structured as *tree*, whether it is padded: its sizes differ by batch."""
        if self._padding is None or type(self).__getitem__ is not BatchedSequence.__getitem__:
            return [False] * tree.num_leaves
        batch: Any = tree.unflatten(range(tree.num_leaves))
        return self._padding.leaves(batch) if self._weights is None else [*self._padding.leaves(batch[:2]), False]

    # --- what belongs to one process ---

    @per_worker
    def _files(self) -> Files:
        return Files()

    @per_worker
    def _epochs(self) -> RecentEpochs:
        return RecentEpochs()

    # --- a batch ---

    @property
    def _plan(self) -> Plan:
        return Plan(self._source.count, self.batch_size, self._shuffle, self._drop_remainder)

    @property
    def _is_read_whole(self) -> bool:
        """A batch is rows of arrays, as they are."""
        may_fail = self._skips and self._source.in_files
        return not (self._transform or self._padding or may_fail) and self._source.specs is not None

    def _epoch_of_batch(self, plan: Plan) -> Epoch:
        seed = self.seed if context.seed is None else context.seed
        return self._epochs.epoch(plan, seed, self.epoch, self.rng, self._lengths)

    def _built(self, numbers: NDArray[Any], epoch: Epoch, end: int) -> tuple[Any, NDArray[Any]]:
        """Return the batch of the samples *numbers*, which end before *end*, and what samples are in it."""
        samples = self._samples(numbers, epoch, end)
        if self._padding is None:
            tree, leaves, kept = stacked(samples, len(numbers), self.empty)
        else:
            tree, leaves, kept = self._padding.batch(list(samples), self.empty)
        return optree.tree_unflatten(tree, leaves), np.array(kept)

    def _samples(self, numbers: NDArray[Any], epoch: Epoch, end: int) -> Iterator[Sample]:
        """Yield the samples, but for those that are skipped; at least one."""
        left, failed, files = False, None, self._files
        for number, rng in zip(numbers.tolist(), generators(epoch.key, numbers), strict=True):
            try:
                sample = self._sample(number, rng, files)
            except _Skipped as skipped:
                failed = skipped.error, number
                context.skipped.append((self._source.name(number), named(skipped.error)))
            else:
                left = True
                yield sample
        if failed and not left:
            yield self._stand_in(epoch, end, *failed)

    def _sample(self, number: int, rng: np.random.Generator, files: Files) -> Sample:
        try:
            value = self._source.sample(number, files)
            if self._transform is not None:
                value = self._transform(value, rng)
        except Exception as error:  # The wall around the user's code: one sample is not to end an epoch.
            raise _Skipped(error) if self._skips else self._explained(error, number) from error
        return Sample.of(number, value, self._source.name)

    def _stand_in(self, epoch: Epoch, end: int, error: Exception, failed: int) -> Sample:
        """Return the first sample that can be read from position *end* on, round the epoch; *failed* cannot."""
        size = self._source.count if epoch.order is None else len(epoch.order)
        for position in range(end, end + size):
            number = epoch.numbers(position % size, position % size + 1)
            (rng,) = generators(epoch.key, number)
            with contextlib.suppress(_Skipped):  # Its own batch tells of it.
                return self._sample(int(number[0]), rng, self._files)
        raise self._explained(error, failed, f"All {size} samples failed: ") from error

    def _explained(self, error: Exception, number: int, before: str = "") -> MpseqError:
        name = self._source.name(number)
        if isinstance(error, ValueError) and str(error).endswith("read-only"):
            return StatefulGetitemError(
                f"transform wrote to {name}, which is a view of the source",
                remedy="Copy what you change, as in sample = sample.copy().",
            )
        return user_error(f"{before}{'transform of' if self._transform else 'reading'} {name}", error)

    def _weighted(self, batch: Any, weights: Any) -> Any:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise SpecMismatchError(
                f"sample_weight needs samples (x, y), and the batch is a {type(batch).__name__}",
                remedy="Return (x, y) from transform, or let it return (x, y, weight) itself.",
            )
        return (*batch, weights)

    # --- arguments ---

    def _checked_weights(self, weights: Any) -> ArrayColumn:
        array = np.asarray(weights)
        if array.ndim != 1 or array.dtype.kind not in "biuf":
            raise TypeError(f"sample_weight must be an array of one number for each sample, got {shown(weights)}.")
        if len(array) != self._source.count:
            raise ValueError(
                f"sample_weight must have one number for each of {self._source.count} samples, got {len(array)}."
            )
        if self._transform is None and self._source.specs is not None and not self._source.is_pair:
            raise ValueError("sample_weight needs samples (x, y): source must be a tuple of two, or transform given.")
        return ArrayColumn(array if array.dtype.kind == "f" else array.astype(np.float32))

    def _checked_lengths(self, by: Any) -> NDArray[np.int64]:
        if isinstance(by, str) and by == "auto":
            return self._source.lengths()
        if callable(by):
            with Files() as files:
                by = [by(self._source.sample(number, files)) for number in range(self._source.count)]
        try:
            lengths = np.asarray(by)
        except ValueError:  # Lists of unequal length.
            lengths = np.zeros((0, 0))
        if isinstance(by, str) or lengths.ndim != 1 or lengths.dtype.kind not in "biuf":
            raise TypeError(
                'bucket_by_length must be "auto", a function that returns the length of a sample, or an array of '
                f"lengths, got {shown(by)}."
            )
        if len(lengths) != self._source.count:
            raise ValueError(
                f"bucket_by_length must have one length for each of {self._source.count} samples, got {len(lengths)}."
            )
        return lengths


def _padding(pad: Any, multiple: int | None) -> Padding | None:
    if multiple is not None:
        check_int("pad_to_multiple_of", multiple, 1)
    if isinstance(pad, (bool, np.bool_)) and not pad:
        if multiple is not None:
            raise ValueError(f"pad_to_multiple_of={multiple} needs pad: pass pad=True as well.")
        return None
    return Padding(pad, multiple)


def _checked_transform(transform: Any) -> Any:
    if transform is None:
        return None
    if not callable(transform):
        raise TypeError(f"transform must be a function transform(sample, rng) or None, got {shown(transform)}.")
    try:
        signature = inspect.signature(transform)
    except (TypeError, ValueError):  # Functions in C need not tell.
        return transform
    try:
        signature.bind(None, None)
    except TypeError:
        name = getattr(transform, "__name__", type(transform).__name__)
        raise TypeError(
            f"transform must take (sample, rng), got {name}{signature}: wrap it, as in "
            "transform=lambda sample, rng: ...."
        ) from None
    return transform
