"""What stands in the place of a sequence where elements have no index of their own: see `Mapper` and `Generators`.

Light, because workers import it. The training process keeps a `Supply` for each pass over an epoch: it says, while the
pass goes on, which positions there are.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from keras_mpseq.errors import MpseqError
from keras_mpseq.local import context

if TYPE_CHECKING:
    from keras_mpseq.growing import Growing
    from keras_mpseq.options import Options


class Supply(Protocol):
    """What makes the order of one pass grow. In the training process; asked by whoever is about to wait."""

    @property
    def order(self) -> Growing:
        """What grows."""

    @property
    def error(self) -> MpseqError | None:
        """What comes after the last element, in the place of the end."""

    def grow(self, delivered: int, chunk: int) -> bool:
        """Let the order grow if too little of it is under way, and tell whether it has changed.

        Args:
            delivered: Positions that were delivered so far.
            chunk: How many elements one task may have.
        """

    def element(self, position: int) -> Any:
        """Return what the element at *position* is made of, taken apart, or None; it is asked for once."""

    def put(self, index: int, answer: Any) -> None:
        """Take in what was delivered."""

    def next(self) -> tuple[int, Any] | None:
        """Return the index and the answer that the consumer gets next, or None when more has to be put first."""


class Streamed:
    """Base of both."""

    called: ClassVar[str]
    """What the user calls the function that we call."""
    num_batches = None

    def __getitem__(self, index: int) -> Any:
        """Return the element at *index*, or PAST."""
        raise NotImplementedError

    def supply(self, options: Options) -> Supply:
        """Begin a pass. In the training process."""
        raise NotImplementedError

    def over(self, epoch: int) -> None:
        """Close what was opened for *epoch*, in this process."""

    def name_of(self, index: int, mark: int) -> str:  # noqa: ARG002
        """Return what an error calls the element at *index*, given the mark that was left in its slot."""
        return f"element {index}"


PAST: Any = object()
"""What `__getitem__` returns where there is no element any more."""


def name_of(sequence: object, index: int, mark: int = -1) -> str:
    """Return what is called what a worker builds for *index*, given the mark that it left."""
    return sequence.name_of(index, mark) if isinstance(sequence, Streamed) else f"batch {index}"


def in_its_words(error: MpseqError, sequence: object) -> MpseqError:
    """Let *error* speak of what the user wrote, if that is no sequence of batches."""
    if isinstance(sequence, Streamed):
        if error.index is not None and not error.where:
            error.where = sequence.name_of(error.index, context.mark)
        message = re.sub("^__getitem__ ", f"{sequence.called} ", error.message)
        message = re.sub("in the place of a batch$", "in the place of an element", message)
        message = re.sub(r"^(The |Leaf |Making an array of )batch(?= |\[)", r"\1element", message)
        error.message = re.sub("as in the first batch$", "as in the first element", message)
        error.remedy = (
            error.remedy.replace("__getitem__", sequence.called)
            .replace("for every index", "for every element")
            .replace(
                "to leave one out, make the sequence shorter",
                'to leave one out, raise an exception and pass on_error="skip"',
            )
        )
    return error
