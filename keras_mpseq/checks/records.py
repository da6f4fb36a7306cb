"""What crosses between `check` and its children: what to try, and what was seen. Plain values only, for pickling."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from keras_mpseq.state.reach import Place as Place  # Records are made of it.

NUMPY, PYTHON, TORCH = "np.random", "random", "torch.random"
"""The global random generators, as findings name them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One run of the sequence in a process of its own; whatever differs from the defaults is what it looks at.

    Args:
        name: Of the trial, for messages.
        calls: (epoch, index) of each call, in order.
        epochs: Call the epoch hooks around the calls of each epoch.
        made: Let the factory make the sequence in the child, instead of unpickling it there.
        seed: Of the global random generators, which are seeded for every call as in our workers.
        one_seed: Seed them alike for every call, whatever its index.
        repeat: Call everything twice in a row.
        listen: Hear what the interpreter tells of seeds, files, processes and the like.
        observe: Besides, compare the state before and after each call, and look at the resources.
        trace: Find the lines that change what this names, see `Watch.keys`.
        freeze: Make every array that the sequence holds read-only.
        poison: Fill what `np.empty` returns with rubbish instead of zeros.
        backwards: Turn round what the listing of a directory returns.
        threads: Call from two threads at once.
    """

    name: str
    calls: tuple[tuple[int, int], ...]
    epochs: bool = False
    made: bool = False
    seed: int = 0
    one_seed: bool = False
    repeat: bool = False
    listen: bool = False
    observe: bool = False
    trace: tuple[str, ...] = ()
    freeze: bool = False
    poison: bool = False
    backwards: bool = False
    threads: bool = False


class Setup(NamedTuple):
    """What a child is told once; the descriptors of the payload, and of the factory if there is one, go along."""

    nbytes: tuple[int, ...]
    """Of the payload's pickle and of its buffers; empty if the sequence cannot be sent."""
    factory: int
    """Bytes of the pickled factory; 0: there is none."""
    timeout_s: float
    forks: bool
    """Fork a child for each trial; else the process serves one trial and ends."""


class Loaded(NamedTuple):
    """The child is ready, or not."""

    threads: int
    error: str = ""


class Began(NamedTuple):
    """A call of the user's code begins: if nothing else comes, this is where it ended."""

    epoch: int
    index: int  # type: ignore[assignment]  # shadows a tuple method nobody calls
    what: str = ""
    """What is called, if it is not `__getitem__`."""


class Ended(NamedTuple):
    """The process of a trial has ended, with this exit status."""

    status: int


class Leaf(NamedTuple):
    """One leaf of a batch."""

    path: str
    kind: str
    dtype: str
    shape: tuple[int, ...]
    digest: bytes
    nbytes: int


class Raised(NamedTuple):
    """What the user's code raised."""

    kind: str
    text: str
    place: Place | None
    traceback: str
    lost: str = ""
    """Path of the member that could not be sent and was missing here."""
    attribute: str = ""
    """The attribute that it did not find."""


class Event(NamedTuple):
    """Something that the interpreter told of during a call."""

    kind: str
    detail: str
    place: Place | None


class Change(NamedTuple):
    """A part of the sequence's state, or a random generator, that a call changed."""

    key: str
    rebound: bool
    """The name refers to another object now."""
    shrank: bool
    """It is a container that has become shorter, or an iterator that has moved on."""


@dataclass(slots=True, kw_only=True)
class Call:
    """One call of `__getitem__` and what was seen."""

    epoch: int
    index: int
    repeated: bool = False
    kind: str = ""
    """Type of what was returned."""
    length: int = 1
    """Members of the batch, if it is a tuple."""
    leaves: tuple[Leaf, ...] = ()
    structure: str = ""
    opaque: tuple[str, ...] = ()
    """Sentences about leaves that cannot be compared."""
    tensors: tuple[str, ...] = ()
    """Leaves that belong to a framework, by path and type."""
    rows: tuple[bytes, ...] = ()
    """A hash of each row of the first leaf."""
    raised: Raised | None = None
    changes: tuple[Change, ...] = ()
    events: list[Event] = field(default_factory=list)
    returned_at: Place | None = None
    swallowed: tuple[str, Place | None] | None = None
    """The last exception that did not leave the call, and where it was raised."""
    aliases: tuple[str, ...] = ()
    """Paths of the state's arrays in whose memory the batch lies."""
    seconds: float = 0.0
    copy_s: float = 0.0
    """Seconds that copying the batch took."""
    fds: int = 0
    """Descriptors more than before the call."""
    imports: bool = False
    """Modules were imported."""


@dataclass(slots=True, kw_only=True)
class Written:
    """What tracing found out about one thing that calls change."""

    key: str
    places: list[Place] = field(default_factory=list)
    memo: bool = False
    """Entries are added once and never changed: a cache."""
    read_by: str = ""
    """A method that is not called for a batch and reads the attribute."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """All that a trial saw."""

    calls: list[Call] = field(default_factory=list)
    written: list[Written] = field(default_factory=list)
    hook_changes: list[tuple[str, Change]] = field(default_factory=list)
    """Hook, and the random generator that it drew from or seeded."""
    hook_raised: list[tuple[str, Raised]] = field(default_factory=list)
    hook_events: list[tuple[str, Event]] = field(default_factory=list)
    lengths: tuple[int | None, ...] = ()
    no_length: Raised | None = None
    """What asking for the length raised."""
    overwritten: tuple[tuple[int, int], ...] = ()
    """(index, later index): the later call changed the batch of the earlier."""
    attributes: frozenset[str] = frozenset()
    """Names on the instance after it was loaded."""
    def_place: Place | None = None
    """Where `__getitem__` is defined; None if that is not the user's code."""
    length_place: Place | None = None
    """Where `__len__` is defined."""
    ambient_at: Place | None = None
    """A line that uses a name known to differ between processes."""
    index_unread: bool = False
    names: frozenset[str] = frozenset()
    """Names that the code of a batch uses."""
    too_large: tuple[str, ...] = ()
    """What is too large to be compared byte by byte."""
    slow: tuple[str, ...] = ()
    """What takes too long to be compared at every call."""
    large_arrays: tuple[str, ...] = ()
    objects: int = 0
    """Python objects that the sequence holds."""


class Failed(NamedTuple):
    """The trial itself failed, through no fault of the user's."""

    traceback: str


class Blocked(NamedTuple):
    """A trial came to no end by itself."""

    trial: str
    began: Began | None
    status: int
    stack: str
    late: bool
