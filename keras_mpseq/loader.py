"""Loader: the pool without tf.data, as an iterable of NumPy batches."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

from keras_mpseq.batches import Batches
from keras_mpseq.html import table
from keras_mpseq.images import by_index
from keras_mpseq.iteration import Iteration
from keras_mpseq.limits import SLOW_WARNING_S, check_seconds
from keras_mpseq.options import (
    OnError,
    Options,
    Partition,
    check_endless,
    check_int,
    checked,
    length_of,
    steps_of,
)
from keras_mpseq.profiling.profile import Profile
from keras_mpseq.profiling.runner import profile, settled
from keras_mpseq.ray_options import RayOptions
from keras_mpseq.resuming import restore, snapshot
from keras_mpseq.run import Feed, Source, Stats
from keras_mpseq.serial import Serial
from keras_mpseq.shares import Shard, Uneven
from keras_mpseq.telemetry import observe


def feed_of(sequence: Any, options: Options, *, fixed: int | None) -> Feed:
    """Return the feed for checked *options*: worker processes, or this process for `workers=0`."""
    length = length_of(sequence)  # A bad length is told before any process starts.
    if length is None:
        check_endless(options)
    else:
        steps_of(sequence, length, options)
    if options.auto:
        options = settled(lambda trial: feed_of(sequence, trial, fixed=None), options, length)
    source = _source(by_index(sequence), options)
    if not options.record:  # What only measures delivers nothing.
        observe(source)
    return Feed(source, fixed)


def _source(sequence: Any, options: Options) -> Source:
    if not options.workers:
        return Serial(sequence, options)
    from keras_mpseq.pool import Pool  # Not above: it stands on what Windows does not have, where workers are 0.

    return Pool(sequence, options)


class Loader:
    """Iterate the batches of a sequence that several processes build, in NumPy, without tf.data.

    Each `iter(loader)` is one epoch. Arrays lie in shared memory and are the consumer's as long as it holds them.
    Use it in a `with` block, or call `close`; a loader that is garbage closes itself.

    Args:
        sequence: A `SafeSequence`, a Keras `Sequence` or `PyDataset`, or any object with `__len__` (batches) and
            `__getitem__(index)` that returns a batch.
        workers: Processes; 0 builds the same batches in this process; "auto" takes the sequence's own `workers` if
            it asks for more than one. Else one worker builds batches for some tenths of a second, and it is as many as
            keep the cores busy: more than there are where batches wait for a disk or a network, fewer where taking them
            over costs as much as building them; the log (info) says which, and why. Epochs of fewer than 64 batches
            get one for each core.
        partition: Who builds what: "dynamic" gives the next index to the least loaded worker; "stride" and "block"
            always give the same index to the same worker, so that caches in workers stay warm. In order and
            unshuffled, "block" lets one worker work at a time: combine it with `shuffle` or `ordered=False`.
        shuffle: Permute the indices of each epoch, keyed by (seed, epoch).
        ordered: Deliver in the order of the epoch; False delivers what is ready first.
        seed: Of all randomness, an int of 0 or more; None takes the sequence's own `seed`, else 0.
        shard: (i, n): deliver the i-th of n shares of each epoch: all that is at position i, i + n, i + 2n and so on.
            "auto" asks the framework or launcher that runs several processes, without importing any, and logs (info)
            what it found: tf.distribute, keras.distribution, torch.distributed, JAX, TF_CONFIG, SLURM, Open MPI; (0, 1)
            where there is nothing. All processes must have the same `seed`. None takes the sequence's own, else (0, 1).
        uneven: What happens where n does not divide the number of batches, so that all shards deliver as many.
            "error": a SequenceLengthError, before any process starts. "drop": the last batches of the epoch's order,
            fewer than n, are built by nobody; shuffled, they are other ones in every epoch. "wrap": the shards that
            have one less go on at the beginning of the epoch's order, so that a few batches are delivered twice.
            "pad": they deliver their last batch once more, with weights of 0, which costs no `__getitem__`; for that
            all batches become (x, y, sample_weight), with a weight of 1 for each sample that has none, whatever n is.
            Infinite sequences have endless shares. None takes the sequence's own, else "error".
        on_error: "raise", or "skip" to leave failing batches out, count them, and log them after the epoch; with
            several shards only with `uneven="pad"`, which fills up.
        prefetch: Batches ready ahead; None means two for each worker.
        element_spec: Tree of `tf.TensorSpec`, or of anything with shape and dtype, that each batch must fit; None
            takes structure, dtypes and ranks from the first batch.
        timeout: Seconds that one batch may take before its worker is replaced; None means for ever.
        attempts: How many workers one batch may lose before it is an error.
        max_bytes: Bound on the shared memory for batches; None means a quarter of the machine's memory.
        worker_threads: Threads that numeric libraries may use in each worker.
        strict: Compare the sequence before and after each call, and raise when `__getitem__` changed it.
        backend: "local": processes on this machine, or "ray": actors on a cluster of Ray (`keras_mpseq[ray]`).
        ray: Which cluster and how, with `backend="ray"`; None takes what `RayOptions` takes by itself.
        launcher: "template" (fork from a clean process, Linux) or "spawn"; None means what the platform has.
        slow_warning_s: Seconds after which a batch that is still being built is logged, once for each index, with the
            line at which the worker's code is; None means never. Nothing is stopped by it.
        max_tasks_per_worker: Batches after which a worker is replaced by a fresh process, at the latest, so that code
            that leaks memory can be lived with; None means never. Batches and their order stay the same.
        progress: Draw a bar for each epoch, with batches a second and the time that is left, on standard error or in
            the notebook.

    Raises:
        TypeError: *sequence* is no sequence of batches, or an option is of the wrong type.
        ValueError: An option is out of its range.
        PayloadError: The sequence cannot be sent to workers.
        SequenceLengthError: Its length is not an int of 1 or more, or cannot be shared.

    Example:
        ```python
        with Loader(sequence, workers=4, shuffle=True) as loader:
            for epoch in range(3):
                for x, y in loader:
                    train(x, y)
        ```
    """

    def __init__(
        self,
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
        backend: str = "local",
        ray: RayOptions | None = None,
        launcher: str | None = None,
        slow_warning_s: float | None = SLOW_WARNING_S,
        max_tasks_per_worker: int | None = None,
        progress: bool = False,
    ) -> None:
        """Check the options and start the workers."""
        if not isinstance(progress, bool):
            raise TypeError(f"progress must be True or False, got {progress!r}.")
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
        self._feed = feed_of(sequence, options, fixed=None)
        self._progress = progress
        self._latest: Callable[[], Iteration | None] = lambda: None

    def __iter__(self) -> Batches:
        """Begin an epoch, or go on with the one of a state that was loaded."""
        batches = Batches(self._feed, self._progress)
        self._latest = weakref.ref(batches.iteration)
        return batches

    def __len__(self) -> int:
        """Return the number of batches of the next epoch, on this shard."""
        length = length_of(self._feed.source.sequence)
        if length is None:
            raise TypeError("The sequence is infinite: it has no length.")
        return steps_of(self._feed.source.sequence, length, self._feed.source.options)

    def state_dict(self) -> dict[str, Any]:
        """Return where the consumer is, as a dict that JSON can hold; some hundred bytes for any number of workers.

        It counts the batches that the consumer received, not those that were built ahead. Of several iterators the
        one that began last counts; when that is over or was given up, the state is that before the next epoch.

        Returns:
            Epoch, position, seed, `shuffle`, `shard`, `uneven`, length of the sequence and spec of its batches, and
            under "sequence" what `on_save_state` of the sequence returned.

        Raises:
            ValueError: With `ordered=False` no position says which batches are left.
            TypeError: `on_save_state` returned what JSON cannot hold.
            UserCodeError: `on_save_state` raised.
        """
        source, latest = self._feed.source, self._under_way()
        if latest is None:
            source.settle()
            start = source.epochs.start
            at = {"epoch": source.epochs.coming, "position": start.position, "skipped": start.skipped}
            begun = start.begun
        else:
            at = {"epoch": latest.epoch, "position": latest.position, "skipped": latest.skipped}
            begun = True
        return snapshot(source.sequence, source.options, self._feed.spec_to_save, begun=begun, **at).as_json()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next `iter(loader)` go on where *state* was saved: with the next batch of the same epoch.

        The number of workers may be another one. An epoch of which all batches had been received is gone on with too:
        it has no batch left, and `on_epoch_end` runs.

        Args:
            state: What `state_dict` returned, then or in another process.

        Raises:
            ValueError: It is no state, or one of another sequence, seed, order or shard; or an epoch is under way.
            SpecMismatchError: The batches have another structure or other dtypes; where no batch was built yet, the
                first one tells.
            UserCodeError: `on_load_state` raised.
        """
        if self._under_way() is not None:
            raise ValueError("load_state_dict() was called while an epoch is under way: close its iterator first.")
        source = self._feed.source
        source.settle()
        self._feed.begin_at(restore(source.sequence, source.options, state))

    def _under_way(self) -> Iteration | None:
        latest = self._latest()
        return None if latest is None or latest.ended else latest

    def stats(self) -> Stats:
        """Return what was done so far: batches, waiting time, restarts, bytes shared and pickled."""
        return self._feed.source.stats()

    def profile(
        self,
        *,
        seconds: float = 1.0,
        step_s: float | None = None,
        workers: Iterable[int] | None = None,
        told: Callable[[str], None] | None = None,
    ) -> Profile:
        """Measure the pipeline with several numbers of workers, and find out what is in its way.

        Takes the options of this loader, but for the number of workers, and workers of its own, one number after the
        other. Batches are built and dropped, and hooks run, as in any epoch; the loader itself stays where it is.

        Args:
            seconds: For each number of workers, once they are there.
            step_s: Of a model that the pipeline is to feed; it is run once more with such a step between batches.
            workers: The numbers to measure; None takes 0, 1, 2, 4 and so on up to the number of cores.
            told: Called with what is measured next.

        Returns:
            What was measured. `sentence` is the bottleneck in one sentence, and `workers` the advised number;
            `write_html`, `write_trace` and `write_png` write pictures of it.

        Raises:
            ValueError: An epoch is under way, workers are on a cluster, or an argument is out of its range.
            MpseqError: A batch fails.
        """
        if self._under_way() is not None:
            raise ValueError("profile() was called while an epoch is under way: close its iterator first.")
        source = self._feed.source
        if source.options.ray is not None:
            raise ValueError('profile() measures workers on this machine, and the loader has backend="ray".')
        check_seconds("seconds", seconds, "no limit")
        check_seconds("step_s", step_s, "no model")
        counts = None if workers is None else sorted({check_int("workers", count, 0) for count in workers})
        if counts == []:
            raise ValueError("workers must be one or several numbers of workers, got none.")
        source.settle()

        def opened(options: Options) -> Feed:
            return feed_of(source.sequence, options, fixed=None)

        name = type(source.sequence).__name__
        return profile(
            name,
            opened,
            source.options,
            seconds=seconds,
            step_s=step_s,
            workers=counts,
            told=told or (lambda _: None),
        )

    def _repr_html_(self) -> str:
        source = self._feed.source
        options, stats = source.options, source.stats()
        told = {
            "workers": options.workers,
            "partition": options.partition,
            "shuffle": options.shuffle,
            "ordered": options.ordered,
            "seed": options.seed,
            "shard": "{} of {}".format(*options.shard),
            "prefetch": options.prefetch,
            "batches delivered": stats.batches,
            "batches ready": stats.ready,
            "seconds waited": stats.waited_s,
            "bytes delivered": stats.bytes_delivered,
            "restarts": stats.restarts,
        }
        return table(f"Loader of {type(source.sequence).__name__}", told)

    def close(self) -> None:
        """End the workers, at once if they are idle; batches that are held stay valid."""
        self._feed.close()

    def __enter__(self) -> Loader:
        """Return the loader."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()
