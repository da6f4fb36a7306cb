"""What the pool keeps of its actors on Ray: the calls that were not answered, the tasks that they build, the layouts.

Nothing here calls Ray.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from keras_mpseq.messages import Batch, Build, Done, Failure, Layout, Past
from keras_mpseq.ray_actor import Answer, Place
from keras_mpseq.ray_store import RemoteSlot


class Reply(NamedTuple):
    """What came of a call. Not its future, which knows the call: together they would keep a batch in the store."""

    error: BaseException | None
    answer: Any


class Kind(Enum):
    """What a call is for."""

    BEGIN = "load the sequence"
    TELL = "obey a message"
    BUILD = "build batches"
    STOP = "end"
    LIVE = "fail when the actor ends"
    STACK = "tell where the user's code is"


@dataclass(eq=False, slots=True)
class Job:
    """A task that an actor was sent, in one call or in one for each batch."""

    message: Build
    calls: int
    twin: tuple[Member, Job] | None = None
    """Whose job this is a second one of, and which."""
    answers: list[tuple[Done, Answer]] = field(default_factory=list)
    spare: bool = False
    """Another actor was given it as well."""
    over: bool = False
    """It was answered, or its worker was lost: further answers count for nothing."""

    @property
    def finished(self) -> int:
        """How many of its batches were answered."""
        return sum(len(done.outcomes) for done, _ in self.answers)

    @property
    def is_whole(self) -> bool:
        """All its calls were answered."""
        return len(self.answers) == self.calls


@dataclass(eq=False, slots=True)
class Call:
    """A call of an actor."""

    member: Member
    kind: Kind
    send: Callable[[], Any]
    """Makes the call, and returns the reference of its answer."""
    job: Job | None = None
    alone: bool = False
    """It is made when those before it were answered, and those after it wait for its answer."""
    ref: Any = None
    """Of its answer; None until it is made."""
    reply: Reply | None = None
    """When it is there."""


@dataclass(eq=False, slots=True)
class Member:
    """An actor that is a worker."""

    worker: int
    actor: Any
    place: Place | None = None
    """Where it is; None until it has begun."""
    calls: deque[Call] = field(default_factory=deque)
    """Unanswered, in order; the later ones may still be to be made."""
    spares: int = 0
    """Unanswered calls beside these, for tasks of others."""
    since: float = 0.0
    """When its oldest job became that."""
    silent: bool = False
    """Another actor answered its oldest job, and it itself has said nothing since."""
    dying: BaseException | None = None
    """How Ray told of its end, while answers of before may still come."""
    dying_until: float = 0.0
    stack: str = ""
    interrupted: bool = False
    stopping: bool = False
    layouts: dict[int, bytes] = field(default_factory=dict)
    """The structures that it numbered."""
    told: set[int] = field(default_factory=set)
    """Layouts that the pool knows to be this worker's."""

    @property
    def node(self) -> str:
        """The address of its machine, as far as it is known."""
        return self.place.node if self.place else "unknown"

    def jobs(self) -> Iterator[Job]:
        """Yield what the pool waits for, oldest first."""
        seen: Job | None = None
        for call in self.calls:
            if call.job is not None and call.job is not seen and not call.job.over:
                seen = call.job
                yield call.job

    def due(self) -> Iterator[Call]:
        """Yield the calls that are to be made now; they have to be made before the next is asked for."""
        before: list[Call] = []
        for call in self.calls:
            if before and (call.alone or before[-1].alone):
                return
            if call.ref is None:
                yield call
            before.append(call)

    @property
    def under_way(self) -> list[Call]:
        """The calls that were made."""
        return [call for call in self.calls if call.ref is not None]

    @property
    def oldest(self) -> Job | None:
        """The job that it builds."""
        return next(self.jobs(), None)


class Layouts:
    """Numbers the structures that any actor has met."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}

    def done(self, job: Job, by: Member, to: Member, slot: RemoteSlot) -> list[Layout | Done]:
        """Put what was returned into *slot*; return what the pool is told.

        Args:
            job: Whole.
            by: Who built it.
            to: Whom the pool thinks to have built it.
            slot: Of the job.
        """
        slot.empty()
        layouts: list[Layout] = []
        outcomes: list[Batch | Failure | Past] = []
        for done, answer in job.answers:
            shift = slot.hold(answer.pieces)
            for outcome in done.outcomes:
                if isinstance(outcome, Batch):
                    layouts += self._learned(by.layouts[outcome.layout], to)
                    leaves = tuple([leaf._replace(offset=leaf.offset + shift) for leaf in outcome.leaves])
                    number = self._numbers[by.layouts[outcome.layout]]
                    outcomes.append(outcome._replace(layout=number, leaves=leaves if shift else outcome.leaves))
                else:
                    outcomes.append(outcome)
        seconds = sum(done.seconds for done, _ in job.answers)
        warning = next((done.warning for done, _ in job.answers if done.warning), "")
        return [*layouts, Done(tuple(outcomes), seconds, warning)]

    def _learned(self, structure: bytes, to: Member) -> list[Layout]:
        number = self._numbers.setdefault(structure, len(self._numbers))
        if number in to.told:
            return []
        to.told.add(number)
        return [Layout(number, structure)]


class Suspects:
    """The batches that a worker held when it was lost, by run and index: which of them it died of is not known."""

    def __init__(self) -> None:
        self._held: set[tuple[int, int]] = set()

    def __contains__(self, message: Build) -> bool:
        """Tell whether *message* has one of them."""
        return not self._held.isdisjoint(_batches(message))

    def clear(self, message: Build) -> None:
        """Take in that what *message* asked for was built."""
        self._held.difference_update(_batches(message))

    def blame(self, member: Member, is_built: Callable[[Call], bool]) -> int | None:
        """Return how many batches of its oldest task *member*, which was lost, had finished.

        None where that is not certain, and so nobody is to blame: what it held are suspects from now on.

        Args:
            member: It has a task.
            is_built: Tells whether a call was answered, and the answer is on its way here or lost on it.
        """
        job, under_way = member.oldest, member.under_way
        assert job is not None
        alone = len(under_way) == 1 and not member.spares
        # One that was killed for being late lived until then: no answer of before was lost with it.
        certain = (alone or member.interrupted) and under_way[0].job is job
        if certain and (under_way[0].alone or len(job.message.indices) == 1):
            return None if is_built(under_way[0]) else job.finished
        self._held.update(*[_batches(call.job.message) for call in under_way if call.job is not None])
        return None


def _batches(message: Build) -> set[tuple[int, int]]:
    return {(message.run, index) for index in message.indices}


def one_by_one(message: Build) -> Iterator[Build]:
    """Yield a message for each batch."""
    for at, index in enumerate(message.indices):
        yield message._replace(indices=(index,), inputs=message.inputs[at : at + 1])


def next_late(members: Collection[Member], hedge: float | None, now: float) -> float | None:
    """Return in how many seconds an actor will be late that another can help; None for never."""
    if hedge is None:
        return None
    waiting = [
        0.0 if member.silent else max(0.0, member.since + hedge - now)
        for member in members
        if (job := member.oldest) is not None and not job.spare and _helper(members, member)
    ]
    return min(waiting, default=None)


def late(members: Collection[Member], hedge: float, now: float) -> Iterator[tuple[Member, Job, Member]]:
    """Yield each actor that is late, its oldest job, and who can build that as well; one whose job has none yet."""
    for member in members:
        job, helper = member.oldest, _helper(members, member)
        if job is None or job.spare or helper is None:
            continue
        if member.silent or now - member.since >= hedge:
            yield member, job, helper


def _helper(members: Collection[Member], member: Member) -> Member | None:
    """Return another actor that has least to do, of those that can be relied on."""
    others = [
        one
        for one in members
        if one is not member and one.place is not None and not (one.silent or one.stopping or one.interrupted)
    ]
    return min(others, key=lambda one: len(one.calls), default=None)
