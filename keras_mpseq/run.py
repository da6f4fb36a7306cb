"""One pass over an epoch: its record in the pool; where batches come from, and the spec that they share."""

from __future__ import annotations

import weakref
from collections import deque
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from keras_mpseq.codec import Array, Structure, put_together
from keras_mpseq.epochs import Begun, Epochs, Start
from keras_mpseq.errors import MpseqError
from keras_mpseq.html import table
from keras_mpseq.options import Options
from keras_mpseq.padding import weighted, weighted_spec
from keras_mpseq.resuming import SavedSpec, State, restored_spec, saved_spec
from keras_mpseq.spec import ElementSpec

if TYPE_CHECKING:
    from keras_mpseq.messages import Input, Recorded
    from keras_mpseq.versions import Version


class Parts(NamedTuple):
    """A batch, taken apart."""

    structure: Structure
    arrays: list[Array]

    @property
    def batch(self) -> Any:
        """The batch as the user gave it, in NumPy."""
        return put_together(self.structure, self.arrays)

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return sum(array.nbytes for array in self.arrays)


class Signal(Enum):
    """What stands in the place of a batch when there is none."""

    END = "the run is over"
    NOT_READY = "the next batch is still being built"
    PAST = "there is no such element, nor any after it in its lane"


Answer: TypeAlias = Parts | MpseqError | Signal


@dataclass(slots=True, eq=False)
class Run:
    """A pass over an epoch, from its first task to its end."""

    number: int
    begun: Begun
    version: Version | None = None
    answers: deque[Answer] = field(default_factory=deque)
    """What the scheduler delivered and the consumer has not taken: at most one."""
    kept: dict[int, Parts] = field(default_factory=dict)
    """Batches by position that were copied out because their slot was needed."""
    wanted: bool = False
    """The scheduler has been asked for the next batch."""
    index: int = -1
    """Of the last batch that was delivered."""
    position: int = 0
    """Of the next batch, where batches are built in this process."""
    delivered: int = 0
    """Positions that are over."""
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """Samples that batches were built without: the name of each, and why."""
    inputs: dict[int, Input | bytes] = field(default_factory=dict)
    """What batches are made of and where it lies, by position, from the first time that they are sent."""


@dataclass(frozen=True, slots=True)
class Stats:
    """What a loader has done so far."""

    workers: int
    batches: int
    """Delivered to the consumer, over all epochs."""
    skipped: int
    """Left out by `on_error="skip"`."""
    restarts: int
    """Workers that were lost and replaced."""
    recycled: int
    """Workers that were replaced after `max_tasks_per_worker` batches."""
    waited_s: float
    """Seconds that the consumer waited for batches."""
    bytes_pickled: int
    """Of the sequence, as it was sent to workers last, without what is shared."""
    bytes_shared: int
    """Of its arrays of 1 MiB and more, in memory that all workers map."""
    slots: int
    bytes_slots: int
    """Shared memory that batches lie in."""
    ready: int = 0
    """Batches that are built and that nobody has taken yet."""
    bytes_delivered: int = 0
    """Of the arrays of all batches that were delivered."""
    built: tuple[int, ...] = ()
    """Batches that each worker has built, by its number, those before a restart included."""

    def _repr_html_(self) -> str:
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return table("Stats", {**named, "built": ", ".join(map(str, self.built))})


class Source(Protocol):
    """Where batches come from: worker processes (`Pool`) or this one (`Serial`)."""

    sequence: Any
    options: Options
    epochs: Epochs
    delivered: int
    """Batches that consumers took."""
    bytes_delivered: int
    skipped: int

    def iterate(self) -> Run:
        """Begin an epoch."""

    def refreshed(self, run: Run, taken: int, skipped: int) -> Run:
        """Return *run*, or one for what is left after *taken* positions when the sequence has changed meanwhile."""

    def start(self, begun: Begun) -> Run:
        """Return a run for *begun*, as it is."""

    def settle(self) -> None:
        """End the epochs whose iterators were dropped."""

    def take(self, run: Run, wait: bool = True) -> Answer:
        """Return the next batch of *run*, an error in its place, or END; without *wait* also NOT_READY."""

    def abandon(self, run: Run) -> None:
        """Give *run* up."""

    def drop(self, run: Run) -> None:
        """Say that the iterator of *run* is garbage. A finalizer's one thing to do."""

    def stats(self) -> Stats:
        """Return what was done so far."""

    def records(self) -> list[tuple[int, Recorded]]:
        """Take out what workers have measured, each with the number of the worker's seat; see `Options.record`."""

    def close(self) -> None:
        """End the workers and free everything."""


class Feed:
    """A source with its element spec: what `Loader` and `to_dataset` hold. Garbage, it closes the source.

    Args:
        source: Where batches come from.
        fixed: From which dimension on a spec that is taken from the first batch fixes sizes; None for none.
    """

    def __init__(self, source: Source, fixed: int | None) -> None:
        self.source = source
        self.fixed = fixed
        self._padded = source.options.uneven == "pad"
        self.adds_weights: bool = False
        """To batches that the sequence returns without."""
        declared = source.options.element_spec
        self.spec: ElementSpec | None = weighted_spec(declared) if declared and self._padded else declared
        self.saved: SavedSpec | None = None
        """That of the state that was loaded."""
        self._garbage = weakref.finalize(self, source.close)

    def close(self) -> None:
        """Close the source. When an interrupt cuts it short, closing again goes on."""
        self.source.close()
        self._garbage.detach()

    def checked(self, parts: Parts) -> Parts:
        """Return a batch, with weights if need be, after a check against the spec, which the first one makes."""
        if self._padded:
            given, parts = parts, Parts(*weighted(*parts))
            self.adds_weights = given.structure is not parts.structure
        shapes = [array.shape for array in parts.arrays]
        if self.spec is None:
            self.learn(ElementSpec.of_batch(parts.structure, shapes, self.fixed))
        assert self.spec is not None
        self.spec.check(parts.structure, shapes)
        return parts

    def learn(self, spec: ElementSpec) -> None:
        """Take *spec*, which the first batches suggest; of a state that was loaded, the sizes count."""
        self.spec = spec if self.saved is None else restored_spec(spec, self.saved)

    @property
    def spec_to_save(self) -> SavedSpec | None:
        """The spec as a state holds it; None where no batch was built and no state loaded."""
        return self.saved if self.spec is None else saved_spec(self.spec)

    def begin_at(self, state: State) -> None:
        """Let the next epoch be what is left of that of *state*."""
        self.saved = state.spec
        if self.spec is not None:
            self.learn(self.spec)
        hooked = state.begun and state.sequence is not None
        self.source.epochs.begin_at(state.epoch, Start(state.position, state.skipped, state.begun, hooked))
