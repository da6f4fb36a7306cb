"""Elements: the epochs of a feed as a consumer such as tf.data or Keras iterates them, and the spec they share."""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterator

import optree

from keras_mpseq.epochs import Begun, Start
from keras_mpseq.errors import Failure, SequenceLengthError
from keras_mpseq.iteration import Iteration
from keras_mpseq.run import Feed, Parts
from keras_mpseq.spec import ElementSpec
from keras_mpseq.streams import Streamed


class Elements:
    """Owns the feed of a dataset or an adapter: with it, it goes.

    Args:
        feed: Where batches come from.
        length: Of the sequence in every epoch; None where it may vary.
        probe: How many batches are built to learn the spec. Dimensions in which they differ vary.
        failure: Where to keep an error that ends an iteration.
    """

    def __init__(self, feed: Feed, length: int | None, probe: int = 1, failure: Failure | None = None) -> None:
        self._feed = feed
        self._length = length
        self._probe = probe
        self._ahead: Iteration | None = None
        self._latest: weakref.ref[Iteration] | None = None
        self._origin: Begun | None = None
        self.may_begin_again = False
        """The consumer may want the epoch that it has begun from its beginning."""
        self._given_back: Iteration | None = None
        """An iteration that was dropped after so few batches that it can begin again with them."""
        self.before_batch: Callable[[], None] | None = None
        """Called before each batch is taken, and before each iteration begins."""
        self.grouping = True
        """Small batches may go into TensorFlow several at a time."""
        self._failure = failure or Failure()

    def spec(self) -> ElementSpec:
        """Return the declared spec, or that of the first batches, which wait for the first iteration."""
        if self._feed.spec is None:
            try:
                with self._failure.watched():
                    self._ahead = Iteration(self._feed)
                    self._probed(self._ahead.peek(self._probe))
            except BaseException:
                self._feed.close()
                raise
        if self._feed.spec is None:
            self._feed.close()
            first = "element" if isinstance(self._feed.source.sequence, Streamed) else "batch of the first epoch"
            raise SequenceLengthError(
                f"No {first} could be built, so that there is no element spec",
                remedy="See the log for what was skipped, or declare element_spec=.",
            )
        return self._feed.spec

    def _probed(self, batches: list[Parts]) -> None:
        if self._probe > 1 and batches:
            specs = [
                ElementSpec.of_batch(parts.structure, [array.shape for array in parts.arrays], fixed=1)
                for parts in batches
            ]
            self._feed.learn(functools.reduce(ElementSpec.merged, specs))
        of_any_size = getattr(self._feed.source.sequence, "_leaves_of_any_size", None)
        if of_any_size and self._feed.spec is not None:
            tree = self._feed.spec.tree
            if self._feed.adds_weights:
                loose = [*of_any_size(optree.treespec_tuple(tree.children()[:-1])), False]
            else:
                loose = of_any_size(tree)
            self._feed.spec = self._feed.spec.loosened(loose)

    @property
    def first(self) -> Parts | None:
        """The first batch, while it waits for the first iteration."""
        return self._ahead.peeked[0].parts if self._ahead and self._ahead.peeked else None

    @contextlib.contextmanager
    def epoch(self) -> Iterator[Iteration]:
        """Begin an epoch, or the one that was begun to learn the spec; end it with the block."""
        with self._failure.watched():
            if self.before_batch:
                self.before_batch()
            iteration = self._begin()
            iteration.before_batch = self.before_batch
            self._latest, self._origin = weakref.ref(iteration), iteration.origin
            iteration.kept = [] if self.may_begin_again else None
            try:
                yield iteration
            finally:
                if iteration.kept and not iteration.ended:
                    self._given_back = iteration
                else:
                    iteration.close()

    @property
    def under_way(self) -> Iteration | None:
        """The iteration that began last, if it has batches left."""
        latest = self._latest() if self._latest else None
        return latest if latest is not None and latest.left != 0 else None

    def rewind(self) -> None:
        """Let the epoch that began last begin once more."""
        given_back, self._given_back = self._given_back, None
        if given_back is not None and given_back.put_back():
            self._ahead = given_back
            return
        if self._latest and (latest := self._latest()):
            latest.close()
        if self._origin is None:  # No batch was taken.
            return
        number, start, skipped = self._origin.number, self._origin.start + self._origin.pads, self._origin.skipped
        self._feed.source.epochs.begin_at(number, Start(start, skipped))

    @property
    def next_number(self) -> int:
        """Of the epoch whose first batch is taken next, when none is under way."""
        return self._feed.source.epochs.coming if self._ahead is None else self._ahead.epoch

    def _begin(self) -> Iteration:
        ahead, self._ahead = self._ahead, None
        if self._given_back is not None:
            self._given_back.close()
            self._given_back = None
        if ahead is not None:
            ahead.refresh()
            iteration = ahead
        else:
            iteration = Iteration(self._feed)
        if self._length is not None and iteration.length != self._length:
            iteration.close()
            raise SequenceLengthError(
                f"The sequence had {self._length} batches when the dataset was made and has {iteration.length} now",
                remedy="Pass varying_length=True to to_dataset.",
            )
        return iteration
