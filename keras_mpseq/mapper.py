"""Mapper: a function over the elements of a dataset, called in workers. What the workers need of `process_map`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import optree

from keras_mpseq.codec import take_apart
from keras_mpseq.errors import MpseqError, is_interrupt, user_error
from keras_mpseq.growing import Growing
from keras_mpseq.local import context
from keras_mpseq.run import Parts
from keras_mpseq.streams import Streamed

if TYPE_CHECKING:
    from keras_mpseq.options import Options

_DEPTH = 2
"""Tasks under way for each worker."""
_PULL_S = 0.04
"""So long elements are read for one task, as long as a task of several small elements takes to build."""


class Mapper(Streamed):
    """Calls *function* on what the pool put into the task.

    Args:
        function: Called as `Dataset.map` would: with the components of a tuple, or with the element.
        elements: What a pass reads; stays in the training process.
    """

    called = "fn"

    def __init__(self, function: Callable[..., Any], elements: Iterable[Any] = ()) -> None:
        self.function = function
        self._elements = elements

    def __reduce__(self) -> tuple[Any, ...]:
        return Mapper, (self.function,)

    def __getitem__(self, index: int) -> Any:
        """Return the function's value for the element of this task."""
        element: Any = optree.tree_map(_argument, context.element)
        return self.function(*element) if type(element) is tuple else self.function(element)

    def supply(self, options: Options) -> MapSupply:
        """See Streamed."""
        return MapSupply(iter(self._elements), options)


def _argument(leaf: Any) -> Any:
    """Return scalars as numbers or bytes, as `tf.numpy_function` does, and arrays read-only."""
    if isinstance(leaf, np.ndarray):
        if not leaf.ndim:
            return leaf[()]
        leaf.flags.writeable = False  # It lies in the slot, where another attempt may need it once more.
    return leaf


class MapSupply:
    """Reads elements ahead: as many as keep the workers busy. See Supply."""

    def __init__(self, elements: Iterator[Any], options: Options) -> None:
        self.order: Growing = Growing(options.workers, options.ordered)
        self.error: MpseqError | None = None
        self._elements = elements
        self._waiting: dict[int, Parts] = {}
        self._answers: list[tuple[int, Any]] = []
        self._workers = max(options.workers, 1)
        self._prefetch = options.prefetch

    def grow(self, delivered: int, chunk: int) -> bool:
        """See Supply."""
        under_way = self.order.known - delivered
        window = self._workers * _DEPTH * chunk + self._prefetch
        if self.order.size is not None or (under_way and under_way + chunk > window):
            return False
        began = time.monotonic()
        for _ in range(chunk):
            if not self._read() or time.monotonic() - began > _PULL_S:
                break
        return True

    def _read(self) -> bool:
        try:
            element = next(self._elements)
            self._waiting[self.order.known] = Parts(*take_apart(element))
        except StopIteration:
            self.order.end()
            return False
        except BaseException as error:  # Of TensorFlow's or of the user's code before us: it ends the pass.
            if is_interrupt(error):
                raise
            self.error = error if isinstance(error, MpseqError) else user_error("The dataset that is mapped", error)
            self.order.end()
            return False
        self.order.grow(1)
        return True

    def element(self, position: int) -> Parts:
        """See Supply."""
        return self._waiting.pop(position)

    def put(self, index: int, answer: Any) -> None:
        """See Supply: nothing is to be arranged."""
        self._answers.append((index, answer))

    def next(self) -> tuple[int, Any] | None:
        """See Supply."""
        return self._answers.pop() if self._answers else None
