"""The scheduler: a referee that knows the rules, a state machine that plays against it, and sharp examples.

`Referee` keeps its own books from events and actions alone and checks every action against the rules.
The examples feed it too, so that they check all the rules besides their own. `test_scheduler_mutants.py`
runs everything here against broken schedulers, through the global name `Scheduler`.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from keras_mpseq.events import (
    Action,
    Built,
    Cancel,
    ChunkChanged,
    CopyOut,
    Deliver,
    Event,
    Finish,
    GiveUp,
    Grew,
    Released,
    Retire,
    Retired,
    RunAbandoned,
    RunStarted,
    Send,
    SlotsAdded,
    Spawn,
    StartFailed,
    Wanted,
    WorkerLost,
    WorkerReady,
)
from keras_mpseq.growing import Growing, Lanes
from keras_mpseq.messages import (
    Batch,
    Failure,
    Lost,
    Outcome,
    Task,
)
from keras_mpseq.order import Order, epoch_order
from keras_mpseq.scheduler import Scheduler

BIG, SMALL = 1000, 10
COPY_BELOW = 100
CAUSE = "SIGKILL"


def order_of(
    length: int | None,
    workers: int = 2,
    partition: str = "dynamic",
    ordered: bool = True,
    shuffle: bool = False,
    shard: tuple[int, int] = (0, 1),
) -> Order:
    return epoch_order(
        length=length,
        seed=0,
        epoch=0,
        shuffle=shuffle,
        shard=shard,
        partition=partition,
        workers=workers,
        ordered=ordered,
    )


# --- the referee ---


@dataclass
class Pass:
    """What is known of a live run."""

    number: int
    order: Order
    wanted: bool = False
    dealt: set[int] = field(default_factory=set)
    delivered: list[int] = field(default_factory=list)
    ready: dict[int, Outcome] = field(default_factory=dict)
    """Not delivered, in the order of completion."""
    where: dict[int, int] = field(default_factory=dict)
    """The slot in which a ready batch lies."""
    losses: Counter[int] = field(default_factory=Counter)
    blocks: list[tuple[int, int, int]] = field(default_factory=list)
    """Of an order of lanes, for each position: lane, end of the block, index."""

    def owner(self, position: int) -> int | None:
        """The worker that is to build *position*."""
        return self.blocks[position][0] % self.order.workers if self.blocks else self.order.owner(position)

    def index(self, position: int) -> int:
        return self.blocks[position][2] if self.blocks else self.order.index(position)

    def grow(self, lanes: Sequence[int], count: int) -> None:
        """Let the order grow by *count* positions: of each lane, or in all."""
        assert isinstance(self.order, Growing)
        if not isinstance(self.order, Lanes):
            self.order.grow(count)
            return
        for lane in lanes:
            start, step = self.order.known, self.order.steps[lane]
            self.order.grow_lane(lane, count)
            self.blocks += [(lane, start + count, (step + i) * self.order.lanes + lane) for i in range(count)]

    def pieces(self, positions: Iterable[int]) -> int:
        """How many tasks, at the least, these positions are."""
        return len({self.blocks[position][1] if self.blocks else position for position in positions})

    @property
    def kept(self) -> int:
        return len(self.ready) - len(self.where)

    @property
    def passed(self) -> int:
        """Positions passed over, each of which must find a free slot when its owner has time."""
        frontier = max(self.dealt, default=-1) + 1
        return self.pieces(set(range(frontier)) - self.dealt) if self.order.ordered else 0

    def next_of(self, worker: int) -> int | None:
        """The lowest position that is not dealt and that *worker*, by its seat, may build."""
        worker %= self.order.workers
        for position in itertools.count():
            if position == (self.order.known if isinstance(self.order, Growing) else self.order.size):
                return None
            if position not in self.dealt and self.owner(position) in (None, worker):
                return position
            if position > 500:  # an endless order that one worker has no part in
                return None
        raise AssertionError


class Referee:
    """Feeds a scheduler, keeps books of its own, and checks every action against the rules."""

    def __init__(
        self,
        workers: int = 2,
        depth: int = 2,
        attempts: int = 2,
        slots: int = 8,
        copy_below: int = COPY_BELOW,
        most: int | None = None,
    ) -> None:
        self.scheduler = Scheduler(workers, depth, attempts, slots, copy_below, most)
        self.depth, self.attempts, self.copy_below, self.chunk = depth, attempts, copy_below, 1
        self.seats, self.most = workers, most
        workers *= 1 if most is None else 2
        self.left = [0.0] * workers
        """Batches that a worker may still be given."""
        self.started = [0] * workers
        self.workers = ["absent"] * workers
        self.tasks: list[list[Task]] = [[] for _ in range(workers)]
        self.again: list[Task] = []
        self.slots: list[str] = ["free"] * slots
        self.inside: dict[int, tuple[int, set[int]]] = {}
        """For each slot that is working or built: the run, and the positions to build or to deliver."""
        self.runs: dict[int, Pass] = {}
        self.ever: set[int] = set()
        self.singles: set[int] = set()
        """Slots that are built and were of a task of one position."""
        self.expected: list[Action] = []
        """What else must follow from the event."""
        self.copying: int | None = None
        self.owed: set[int] = set()
        """Runs for which a slot was copied out."""
        self.start_losses = [0] * workers
        self.started_for: list[set[int]] = [set() for _ in range(workers)]
        """The runs that were live when the worker was started."""
        self.losses = 0
        self._layouts = itertools.count()

    # what happens

    def feed(self, *events: Event) -> list[Action]:
        """Hand events over, check what follows, and return the actions."""
        everything: list[Action] = []
        for event in events:
            self.expected = []
            self._note(event)
            actions = self.scheduler.handle(event)
            for action in actions:
                self._follow(action)
            assert not self.expected, f"missing after {event}: {self.expected}"
            self._check()
            everything += actions
        return everything

    def batch(self, nbytes: int = BIG) -> Batch:
        """A batch that equals no other."""
        return Batch(next(self._layouts), (), nbytes)

    def build(self, worker: int, sizes: Sequence[int | None] | None = None) -> list[Action]:
        """Let *worker* finish its oldest task: batches of these sizes, None for a failure."""
        task = self.tasks[worker][0]
        sizes = [BIG] * len(task.positions) if sizes is None else sizes
        outcomes = tuple(Failure(b"error") if size is None else self.batch(size) for size in sizes)
        return self.feed(Built(worker, outcomes))

    def start(self, *orders: Order) -> list[Action]:
        """Start runs 0, 1, … and make all workers ready."""
        actions = self.feed(*(RunStarted(len(self.ever) + i, order) for i, order in enumerate(orders)))
        return actions + self.ready()

    def ready(self) -> list[Action]:
        """Make ready every worker that is starting."""
        starting = [w for w, state in enumerate(self.workers) if state == "starting"]
        return self.feed(*(WorkerReady(worker) for worker in starting))

    def end(self) -> list[Action]:
        """End every worker that was told to."""
        return self.feed(*(Retired(worker) for worker, state in enumerate(self.workers) if state == "retiring"))

    def drive(self, number: int, at_most: int = 30) -> list[int]:
        """Consume one run to its end without releasing a lease; all workers work fairly. Return what came."""
        run = self.runs[number]
        for _ in range(2000):
            if run.number not in self.runs:
                return run.delivered
            if isinstance(run.order, Growing) and run.order.size is None and run.wanted:
                run.order.end()
                self.feed(Grew(number))
                continue
            if not run.wanted:
                if run.order.size is None and len(run.delivered) >= at_most:
                    self.feed(RunAbandoned(number))
                else:
                    self.feed(Wanted(number))
                continue
            before = len(run.delivered)
            moved = bool(self.ready() + self.end())
            for worker, tasks in enumerate(self.tasks):
                if tasks:
                    self.build(worker)
                    moved = True
            assert moved or len(run.delivered) > before, f"run {number} waits for ever: {self.slots}"
        raise AssertionError(f"run {number} does not come to its end")

    # books: what the event says

    def _note(self, event: Event) -> None:
        match event:
            case RunStarted(number, order):
                self.runs[number] = Pass(number, order)
                self.ever.add(number)
                for seat in range(self.seats):
                    self._expect_somebody(seat)
            case Wanted(number):
                self.runs[number].wanted = True
            case RunAbandoned(number):
                if number in self.runs:
                    self._drop(number)
            case WorkerReady(worker):
                self.workers[worker] = "ready"
                self.start_losses[worker] = 0
                for other in self._others(worker):
                    if self.workers[other] == "ready":
                        self.left[other] = 0
                        self._expect_end(other)
            case Built(worker, outcomes):
                self._note_built(self.tasks[worker].pop(0), outcomes)
                self._expect_end(worker)
            case Retired(worker):
                self.workers[worker] = "absent"
                if self.runs:
                    self._expect_somebody(worker % self.seats)
            case WorkerLost(worker, cause, done):
                self._note_lost(worker, cause, done)
            case StartFailed(worker, cause):
                self.workers[worker] = "absent"
                self._note_given_up(worker, 1, cause)
            case Released(slot):
                self.slots[slot] = "free"
            case SlotsAdded(count):
                self.slots += ["free"] * count
            case ChunkChanged(count):
                self.chunk = count

    def _others(self, worker: int) -> list[int]:
        return [w for w in range(len(self.workers)) if w != worker and w % self.seats == worker % self.seats]

    def _expect_somebody(self, seat: int) -> None:
        """A worker is to be started at a seat where nobody has work to come, unless the old ones are in its way."""
        numbers = range(seat, len(self.workers), self.seats)
        last = (self.most or 0) // 8
        if not any(
            self.workers[w] == "starting" or (self.workers[w] == "ready" and self.left[w] > last) for w in numbers
        ):
            self.expected += [Spawn(w) for w in numbers if self.workers[w] == "absent"][:1]

    def _expect_end(self, worker: int) -> None:
        if self.left[worker] <= 0 and not self.tasks[worker]:
            self.expected.append(Retire(worker))

    def _note_built(self, task: Task, outcomes: tuple[Outcome, ...]) -> None:
        del self.inside[task.slot]
        self.slots[task.slot] = "free"
        run = self.runs.get(task.run)
        if run is None:
            return
        count = len(outcomes)
        rest = task._replace(positions=task.positions[count:], indices=task.indices[count:])
        for position, outcome in zip(task.positions, outcomes, strict=False):
            run.ready[position] = outcome
            if isinstance(outcome, Batch) and rest.positions:
                self.expected.append(CopyOut(task.run, position, outcome, task.slot))
            elif isinstance(outcome, Batch):
                run.where[position] = task.slot
        inside = {position for position in task.positions if position in run.where}
        if rest.positions:
            self.again.append(rest)
            self.slots[task.slot] = "working"
            self.inside[task.slot] = task.run, set(rest.positions)
        elif inside:
            self.slots[task.slot] = "built"
            self.inside[task.slot] = task.run, inside
            self.singles.discard(task.slot)
            if len(task.positions) == 1:
                self.singles.add(task.slot)

    def _note_lost(self, worker: int, cause: object, done: int | None) -> None:
        self.losses += 1
        tasks, self.tasks[worker] = self.tasks[worker], []
        if tasks and tasks[0].run in self.runs and done is not None:
            run, task = self.runs[tasks[0].run], tasks[0]
            position = task.positions[min(done, len(task.positions) - 1)]
            run.losses[position] += 1
            if run.losses[position] == self.attempts:
                run.ready[position] = Lost(worker, self.attempts, cause)
                at = task.positions.index(position)
                tasks[0] = task._replace(
                    positions=task.positions[:at] + task.positions[at + 1 :],
                    indices=task.indices[:at] + task.indices[at + 1 :],
                )
        for task in tasks:
            if task.run in self.runs and task.positions:
                self.again.append(task)
                self.inside[task.slot] = task.run, set(task.positions)
            else:
                self.slots[task.slot] = "free"
                del self.inside[task.slot]
        starting = self.workers[worker] == "starting"
        self.start_losses[worker] += starting
        self.workers[worker] = "absent"
        if self.start_losses[worker] == self.attempts:
            self._note_given_up(worker, self.attempts, cause)
            self.start_losses[worker] = 0
        elif starting:
            self.expected.append(Spawn(worker))
        else:
            self._expect_somebody(worker % self.seats)

    def _note_given_up(self, worker: int, attempts: int, cause: object) -> None:
        ended = [number for number in self.runs if number in self.started_for[worker]]
        self.expected += [GiveUp(number, worker, attempts, cause) for number in ended]
        if len(ended) < len(self.runs):
            self._expect_somebody(worker % self.seats)

    def _drop(self, number: int) -> None:
        run = self.runs.pop(number)
        for task in self.again:
            if task.run == number:
                self._free(task.slot)
        self.again = [task for task in self.again if task.run != number]
        for slot in set(run.where.values()):
            self._free(slot)
        if any(task.run == number for tasks in self.tasks for task in tasks):
            self.expected.append(Cancel(number))

    def _free(self, slot: int) -> None:
        self.slots[slot] = "free"
        del self.inside[slot]

    # rules: what the actions may be

    def _follow(self, action: Action) -> None:
        match action:
            case Send(worker, task):
                self._follow_send(worker, task)
            case Deliver():
                self._follow_deliver(action)
            case CopyOut() if action in self.expected:  # Of a task that is divided.
                self.expected.remove(action)
            case CopyOut(number, position, outcome, slot):
                self._follow_copy(self.runs[number], position, outcome, slot)
            case Finish(number):
                run = self.runs.pop(number)
                assert run.wanted
                assert sorted(run.delivered) == list(range(run.order.size or 0))
                assert not run.ready
            case Spawn(worker):
                self.expected.remove(action)
                assert self.workers[worker] == "absent"
                self.workers[worker] = "starting"
                self.started_for[worker] = set(self.runs)
                first = self.most is not None and worker < self.seats and not self.started[worker]
                self.left[worker] = float("inf") if self.most is None else self.most
                self.left[worker] -= (self.most or 0) * worker // (2 * self.seats) if first else 0
                self.started[worker] += 1
            case Retire(worker):
                self.expected.remove(action)
                assert self.workers[worker] == "ready"
                assert not self.tasks[worker]
                self.workers[worker] = "retiring"
            case GiveUp(number):
                self.expected.remove(action)
                self._drop(number)
            case Cancel():
                self.expected.remove(action)
            case _:
                raise AssertionError(action)

    def _follow_send(self, worker: int, task: Task) -> None:
        run = self.runs[task.run]  # of no run that is over
        order = run.order
        assert self.workers[worker] == "ready"
        assert len(self.tasks[worker]) < self.depth
        assert task.positions
        assert self.copying is None
        assert not any(isinstance(copy, CopyOut) for copy in self.expected), "sent before the slot was empty"
        assert not self.owed or task.run in self.owed, "copied out for one run, dealt to another"
        self.owed = set()
        assert task.indices == tuple(map(run.index, task.positions))
        assert self.left[worker] > 0, "a worker is given more than it may be"
        assert all(run.owner(position) in (None, worker % self.seats) for position in task.positions)
        able = self._with_time()
        if not order.partitioned:
            assert worker == min(able, key=lambda w: (len(self.tasks[w]), w)), "not the least loaded worker"
        if task in self.again:  # with what is left of its positions, in the slot that it has
            mine = [other for other in self.again if self._may_build(other, worker)]
            assert task.positions[0] == min(other.positions[0] for other in mine)
            assert self.slots[task.slot] == "working"
            self.again.remove(task)
        else:
            assert not any(self._may_build(other, worker) for other in self.again), "new before lost"
            self._follow_new(run, worker, task)
        self.tasks[worker].append(task)
        self.left[worker] -= len(task.positions)
        if self.most is not None and self.left[worker] <= self.most // 8:
            self._expect_somebody(worker % self.seats)

    def _follow_new(self, run: Pass, worker: int, task: Task) -> None:
        first, count = task.positions[0], len(task.positions)
        assert self.slots[task.slot] == "free"
        assert first == run.next_of(worker), "not in the order of positions"
        assert task.positions == tuple(range(first, first + count))
        size = run.order.size
        workers, most = self.seats, min(self.chunk, int(min(self.left[worker], self.chunk)))
        if run.order.partitioned:
            most = 1
        elif isinstance(run.order, Growing):
            most = min(most, run.order.known - first)
        fits = [
            n
            for n in range(2, most + 1)
            if first >= n * workers and (size is None or size - first > 2 * workers * (n - 1))
        ]
        whole = run.blocks[first][1] - first if run.blocks else max(fits, default=1)
        assert count == whole, "not a full chunk, or too much where an epoch begins or ends"
        if first >= max(run.dealt, default=-1) + 1 or not run.order.ordered:  # not into a slot reserved
            for other in self.runs.values():
                if other.next_of(worker) is not None and other.kept < len(self.slots) and not other.order.partitioned:
                    mine, theirs = self._held(run), self._held(other)
                    assert (mine, not run.wanted) <= (theirs, not other.wanted), "not the run that holds least"
        if run.order.partitioned and not run.order.ordered and run.kept < len(self.slots):
            others = [w for w in self._with_time() if run.next_of(w) is not None]
            loads = {w: len(self.tasks[w]) for w in others}
            assert loads[worker] == min(loads.values()), "not the least loaded owner"
        run.dealt |= set(task.positions)
        self.slots[task.slot] = "working"
        self.inside[task.slot] = run.number, set(task.positions)
        free = self.slots.count("free")
        assert free >= sum(r.passed for r in self.runs.values()), "passed over without a slot in reserve"

    def _follow_deliver(self, action: Deliver) -> None:
        run = self.runs[action.run]
        assert run.wanted
        run.wanted = False
        expected = len(run.delivered) if run.order.ordered else next(iter(run.ready))
        assert action.position == expected
        assert action.index == run.index(expected)
        assert action.outcome == run.ready.pop(expected)
        slot = run.where.pop(expected, None)
        assert action.slot == slot
        assert action.lease == (slot is not None and self._may_lease(slot, action.outcome))
        run.delivered.append(expected)
        if slot is not None:
            self.inside[slot][1].remove(expected)
            if action.lease:
                del self.inside[slot]
                self.slots[slot] = "leased"
            elif not self.inside[slot][1]:
                self._free(slot)

    def _may_lease(self, slot: int, outcome: Outcome) -> bool:
        rest = len(self.slots) - self.slots.count("leased") - 1
        return slot in self.singles and outcome.nbytes >= self.copy_below and rest >= self.seats + 1

    def _follow_copy(self, run: Pass, position: int, outcome: Outcome, slot: int) -> None:
        if self.copying != slot:
            assert self.copying is None, "another slot before this one was empty"
            self.copying = slot
            starving = [r for r in self.runs.values() if r.wanted and not self._held(r)]
            self.owed = {r.number for r in starving if r.number != run.number}
            assert self.owed, "copied out without need"
            built: dict[int, list[int]] = {}
            for number, inside in (self.inside[s] for s, state in enumerate(self.slots) if state == "built"):
                built.setdefault(number, []).append(max(inside))
            assert len(built[run.number]) == max(map(len, built.values())), "not of the run with most"
            assert max(self.inside[slot][1]) == max(built[run.number]), "not the one delivered last"
        assert position == min(self.inside[slot][1])
        assert run.where.pop(position) == slot
        assert outcome == run.ready[position]
        self.inside[slot][1].remove(position)
        if not self.inside[slot][1]:
            self._free(slot)
            self.copying = None

    def _held(self, run: Pass) -> int:
        return sum(number == run.number for number, _ in self.inside.values()) + run.kept

    def _with_time(self) -> list[int]:
        return [
            w
            for w, state in enumerate(self.workers)
            if state == "ready" and len(self.tasks[w]) < self.depth and self.left[w] > 0
        ]

    def _may_build(self, task: Task, worker: int) -> bool:
        return self.runs[task.run].owner(task.positions[0]) in (None, worker % self.seats)

    def _next_of(self, run: Pass) -> int | None:
        """Return the position that should be dealt next if slots were no matter."""
        heads = [run.next_of(worker) for worker in self._with_time()]
        able = [p for p in heads if p is not None and (run.kept < len(self.slots) or p == len(run.delivered))]
        return min(able, default=None)

    # rules: what holds after every event

    def _check(self) -> None:
        """Whatever may be done now has been done, and the scheduler's books agree."""
        assert self.copying is None, "a slot was copied out in part"
        assert not self.owed, "copied out, and then not dealt to the run that starves"
        for task in self.again:
            assert not any(self._may_build(task, worker) for worker in self._with_time()), "lost task waits"
        free = self.slots.count("free")
        spare = free - sum(run.passed for run in self.runs.values())
        assert spare >= 0, "passed over without a slot in reserve"
        for run in self.runs.values():
            if run.wanted:
                assert not (len(run.delivered) in run.ready if run.order.ordered else run.ready), "not answered"
                assert len(run.delivered) != run.order.size, "not finished"
            position = self._next_of(run)
            if position is not None:
                frontier = max(run.dealt, default=-1) + 1
                passes = run.pieces(range(frontier, position)) if run.order.ordered else 0
                if free:
                    reserved = run.order.ordered and position < frontier
                    assert not reserved, "a position passed over was not dealt"
                    assert passes >= spare, "idle worker, free slot, nothing dealt"
                if run.wanted and not self._held(run) and not passes:
                    assert "built" not in self.slots, "a wanted run starves"
        for seat in range(self.seats):
            there = [(self.workers[w], self.left[w] > 0) for w in range(seat, len(self.workers), self.seats)]
            assert there.count(("ready", True)) <= 1, "two workers at one seat are given tasks"
            useful = {("starting", True), ("ready", True)} & set(there)
            assert not self.runs or useful or "absent" not in dict(there), "no worker for a live run"
        self._check_books()

    def _check_books(self) -> None:
        scheduler = self.scheduler
        assert scheduler.slots() == tuple(map(self.slots.count, ("free", "working", "built", "leased")))
        kept = scheduler._slots
        places = [*kept.free, *kept.jobs, *kept.leased]
        assert sorted(places) == list(range(len(self.slots))), "a slot in two states, or in none"
        for worker, tasks in enumerate(self.tasks):
            assert scheduler.state(worker).value == self.workers[worker]
            assert scheduler.tasks(worker) == tuple(tasks)
            assert scheduler.current(worker) == (tasks[0] if tasks else None)
            if self.most is not None and self.workers[worker] in ("starting", "ready"):
                assert scheduler._staff.all[worker].left == self.left[worker]
        for run in self.runs.values():
            for position in run.dealt:
                assert scheduler.attempt(run.number, position) == 1 + run.losses[position], "wrongly blamed"
        assert scheduler.idle == (not self.runs and not any(self.tasks))
        assert scheduler.losses == self.losses


# --- the state machine ---


class Play(RuleBasedStateMachine):
    """Workers that become ready, finish, die; consumers that want, release in any order, go away."""

    @initialize(
        workers=st.integers(1, 3),
        depth=st.integers(1, 3),
        attempts=st.integers(1, 3),
        slots=st.integers(1, 9),
        copy_below=st.sampled_from([0, COPY_BELOW]),
        chunk=st.sampled_from([1, 1, 3]),
        most=st.sampled_from([None, None, 1, 3, 9]),
    )
    def begin(
        self, workers: int, depth: int, attempts: int, slots: int, copy_below: int, chunk: int, most: int | None
    ) -> None:
        self.referee = Referee(workers, depth, attempts, slots, copy_below, most)
        self.referee.feed(ChunkChanged(chunk))

    def numbers(self, *states: str) -> list[int]:
        return [worker for worker, state in enumerate(self.referee.workers) if state in states]

    @precondition(lambda self: len(self.referee.runs) < 3)
    @rule(
        length=st.one_of(st.integers(0, 30), st.none()),
        partition=st.sampled_from(["dynamic", "dynamic", "stride", "block"]),
        ordered=st.booleans(),
        shuffle=st.booleans(),
        hosts=st.integers(1, 2),
    )
    def start_run(self, length: int | None, partition: str, ordered: bool, shuffle: bool, hosts: int) -> None:
        if length is None:
            shuffle, partition = False, "stride" if partition == "block" else partition
        workers = self.referee.seats
        order = order_of(length, workers, partition, ordered, shuffle, (hosts - 1, hosts))
        self.referee.feed(RunStarted(len(self.referee.ever), order))

    @precondition(lambda self: len(self.referee.runs) < 3)
    @rule(lanes=st.integers(0, 4), ordered=st.booleans())
    def start_growing_run(self, lanes: int, ordered: bool) -> None:
        workers = self.referee.seats
        order = Lanes(lanes, workers, ordered) if lanes else Growing(workers, ordered)
        self.referee.feed(RunStarted(len(self.referee.ever), order))

    def growing(self) -> list[Pass]:
        runs = self.referee.runs.values()
        return [run for run in runs if isinstance(run.order, Growing) and run.order.size is None]

    @precondition(lambda self: self.growing())
    @rule(
        pick=st.integers(0, 2),
        lanes=st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True),
        count=st.integers(1, 5),
        end=st.integers(0, 9),
    )
    def grow_order(self, pick: int, lanes: list[int], count: int, end: int) -> None:
        run = self.growing()[pick % len(self.growing())]
        assert isinstance(run.order, Growing)
        if end == 0 or run.order.known > 40:
            run.order.end()
        else:
            known = run.order.lanes if isinstance(run.order, Lanes) else 1
            run.grow(sorted({lane % known for lane in lanes}), count)
        self.referee.feed(Grew(run.number))

    @precondition(lambda self: any(not run.wanted for run in self.referee.runs.values()))
    @rule(pick=st.integers(0, 2), times=st.integers(1, 6))
    def want(self, pick: int, times: int) -> None:
        runs = [run for run in self.referee.runs.values() if not run.wanted]
        run = runs[pick % len(runs)]
        for _ in range(times):
            if run.number in self.referee.runs and not run.wanted:
                self.referee.feed(Wanted(run.number))

    @precondition(lambda self: self.referee.runs)
    @rule(pick=st.integers(0, 2), times=st.integers(1, 12))
    def consume(self, pick: int, times: int) -> None:
        run = list(self.referee.runs.values())[pick % len(self.referee.runs)]
        for _ in range(times):
            if run.number in self.referee.runs and not run.wanted:
                self.referee.feed(Wanted(run.number))
            for worker, tasks in enumerate(self.referee.tasks):
                if run.wanted and tasks:
                    self.referee.build(worker)

    @precondition(lambda self: len(self.referee.runs) > 1)
    @rule(pick=st.integers(0, 5))
    def abandon(self, pick: int) -> None:
        # Also of a run that is over: the consumer cannot know.
        self.referee.feed(RunAbandoned(sorted(self.referee.ever)[-1 - pick % len(self.referee.ever)]))

    @precondition(lambda self: self.numbers("starting"))
    @rule(pick=st.integers(0, 2))
    def become_ready(self, pick: int) -> None:
        workers = self.numbers("starting")
        self.referee.feed(WorkerReady(workers[pick % len(workers)]))

    @precondition(lambda self: self.numbers("starting"))
    @rule()
    def become_ready_together(self) -> None:
        self.referee.ready()

    @precondition(lambda self: self.numbers("retiring"))
    @rule(pick=st.integers(0, 5))
    def retire(self, pick: int) -> None:
        workers = self.numbers("retiring")
        self.referee.feed(Retired(workers[pick % len(workers)]))

    @precondition(lambda self: any(self.referee.tasks))
    @rule(
        picks=st.lists(st.integers(0, 2), min_size=1, max_size=8),
        sizes=st.lists(st.sampled_from([BIG, BIG, SMALL, None]), min_size=4, max_size=4),
        skip=st.integers(0, 4),
        full=st.sampled_from([False, False, False, True]),
    )
    def build(self, picks: list[int], sizes: list[int | None], skip: int, full: bool) -> None:
        for pick in picks:
            workers = [worker for worker, tasks in enumerate(self.referee.tasks) if tasks]
            if workers:
                worker = workers[pick % len(workers)]
                task = self.referee.tasks[worker][0]
                count = len(task.positions)
                most = min(skip, count)
                if task.run in self.referee.runs:
                    most = max(1, most) if full else count
                self.referee.build(worker, (sizes * 2)[:most])
                sizes = sizes[1:] + sizes[:1]

    @precondition(lambda self: any(self.referee.tasks))
    @rule(pick=st.integers(0, 2), times=st.integers(1, 3), done=st.none() | st.integers(0, 4), ready=st.booleans())
    def lose(self, pick: int, times: int, done: int | None, ready: bool) -> None:
        workers = [worker for worker, tasks in enumerate(self.referee.tasks) if tasks]
        worker = workers[pick % len(workers)]
        for _ in range(times if ready else 1):
            self.referee.feed(WorkerLost(worker, CAUSE, done))
            if self.referee.workers[worker] == "absent":  # Its successor is there already.
                return
            if ready:
                self.referee.feed(WorkerReady(worker))

    @precondition(lambda self: self.numbers("starting", "ready"))
    @rule(pick=st.integers(0, 2), how=st.sampled_from(["ready", "lost", "lost", "failed"]))
    def fail(self, pick: int, how: str) -> None:
        workers = self.numbers("starting", "ready")
        worker = workers[pick % len(workers)]
        if self.referee.workers[worker] == "starting":
            events = {"ready": WorkerReady(worker), "failed": StartFailed(worker, CAUSE)}
            self.referee.feed(events.get(how, WorkerLost(worker, CAUSE, 0)))
        elif how == "failed":
            self.referee.feed(WorkerLost(worker, CAUSE, 0))

    @precondition(lambda self: "leased" in self.referee.slots)
    @rule(picks=st.lists(st.integers(0, 9), min_size=1, max_size=3))
    def release(self, picks: list[int]) -> None:
        for pick in picks:
            slots = [slot for slot, state in enumerate(self.referee.slots) if state == "leased"]
            if slots:
                self.referee.feed(Released(slots[pick % len(slots)]))

    @precondition(lambda self: self.referee.runs and len(self.referee.slots) < 12)
    @rule(chunk=st.integers(1, 4), slots=st.sampled_from([0, 0, 0, 1, 2]))
    def grow(self, chunk: int, slots: int) -> None:
        self.referee.feed(ChunkChanged(chunk), SlotsAdded(slots))

    def teardown(self) -> None:
        """Each run comes to its end while nobody consumes the others and nobody lets go of a slot."""
        if hasattr(self, "referee"):
            for number in list(self.referee.runs):
                self.referee.drive(number)
            assert "built" not in self.referee.slots


PLAY_SETTINGS = settings(
    deadline=None, max_examples=300, stateful_step_count=50, suppress_health_check=list(HealthCheck)
)


def test_rules_hold_whatever_happens() -> None:
    run_state_machine_as_test(Play, settings=PLAY_SETTINGS)


# --- examples ---


def sends(actions: Iterable[Action]) -> list[tuple[int, tuple[int, ...], int]]:
    """Worker, positions and slot of each Send."""
    return [(a.worker, a.task.positions, a.task.slot) for a in actions if isinstance(a, Send)]


def delivered(actions: Iterable[Action]) -> list[tuple[int, int | None, bool]]:
    """Position, slot and lease of each Deliver."""
    return [(a.position, a.slot, a.lease) for a in actions if isinstance(a, Deliver)]


def kinds(actions: Iterable[Action]) -> list[str]:
    return [type(action).__name__ for action in actions]


def test_first_run_spawns_all_workers_and_the_next_none() -> None:
    play = Referee(workers=3)
    assert play.feed(RunStarted(0, order_of(5))) == [Spawn(0), Spawn(1), Spawn(2)]
    assert play.feed(RunStarted(1, order_of(5))) == []
    assert play.scheduler.state(0).value == "starting"
    play.ready()
    assert play.feed(RunStarted(2, order_of(5))) == []


def test_tasks_go_to_the_least_loaded_worker_up_to_depth() -> None:
    play = Referee(workers=2, depth=2, slots=8)
    assert play.feed(RunStarted(0, order_of(9)), WorkerReady(1))[2:] == [
        Send(1, Task(0, (0,), (0,), 0)),
        Send(1, Task(0, (1,), (1,), 1)),
    ]
    assert sends(play.feed(WorkerReady(0))) == [(0, (2,), 2), (0, (3,), 3)]
    assert sends(play.build(1)) == [(1, (4,), 4)]


def test_no_free_slot_no_dispatch() -> None:
    play = Referee(workers=2, depth=2, slots=3)
    assert len(sends(play.start(order_of(9)))) == 3
    assert sends(play.build(0)) == []
    assert kinds(play.feed(Wanted(0))) == ["Deliver", "Send"]


def test_wanted_is_answered_at_once_or_as_soon_as_it_can_be() -> None:
    play = Referee()
    play.start(order_of(4))
    assert play.feed(Wanted(0)) == []
    assert delivered(play.build(1)) == []  # position 2; delivery waits for 0
    assert delivered(play.build(0)) == [(0, 0, True)]
    play.build(0)
    assert delivered(play.feed(Wanted(0))) == [(1, 1, True)]
    assert delivered(play.feed(Wanted(0))) == [(2, 2, True)]


def test_each_run_ends_with_finish_when_it_is_asked_once_more() -> None:
    play = Referee()
    play.start(order_of(0))
    assert play.feed(Wanted(0)) == [Finish(0)]
    play.feed(RunStarted(1, order_of(1)))
    play.feed(Wanted(1))
    assert kinds(play.build(0)) == ["Deliver"]
    assert play.feed(Wanted(1)) == [Finish(1)]
    assert play.scheduler.idle


def test_unordered_runs_deliver_in_order_of_completion() -> None:
    play = Referee()
    play.start(order_of(4, ordered=False))
    play.build(1)
    play.build(0)
    assert [p for p, *_ in delivered(play.feed(Wanted(0), Wanted(0)))] == [2, 0]


def test_a_lost_task_keeps_its_slot_and_goes_before_new_ones() -> None:
    play = Referee(workers=2, depth=2, slots=5)
    play.start(order_of(20))  # worker 0 holds 0 and 1 in slots 0 and 1, worker 1 holds 2 and 3
    assert play.feed(WorkerLost(0, CAUSE, 0)) == [Spawn(0)]
    assert sends(play.build(1)) == [(1, (0,), 0)]
    assert sends(play.ready()) == [(0, (1,), 1), (0, (4,), 4)]


def test_a_lost_task_waits_for_its_owner() -> None:
    play = Referee(workers=2, depth=1, slots=8)
    play.start(order_of(20, partition="stride"))
    play.feed(WorkerLost(0, CAUSE, 0))
    assert sends(play.build(1)) == [(1, (3,), 2)]
    assert sends(play.ready()) == [(0, (0,), 0)]


def test_only_the_task_being_built_is_charged() -> None:
    play = Referee(workers=1, depth=3, attempts=2)
    play.start(order_of(9))
    play.feed(WorkerLost(0, CAUSE, 0))
    assert [play.scheduler.attempt(0, position) for position in range(4)] == [2, 1, 1, 1]
    assert sends(play.ready()) == [(0, (0,), 0), (0, (1,), 1), (0, (2,), 2)]
    assert play.scheduler.losses == 1


def test_a_position_that_kills_its_workers_ends_as_lost_in_its_turn() -> None:
    play = Referee(workers=1, depth=2, attempts=2)
    play.start(order_of(3))
    play.feed(Wanted(0))
    play.build(0)
    for _ in range(2):
        play.feed(WorkerLost(0, CAUSE, 0))
        play.ready()
    (deliver, *_) = play.feed(Wanted(0))
    assert deliver == Deliver(0, 1, 1, Lost(0, 2, CAUSE), None, False)
    assert play.drive(0) == [0, 1, 2]


def test_a_wanted_position_is_answered_by_its_loss() -> None:
    play = Referee(workers=1, attempts=1)
    play.start(order_of(1))
    play.feed(Wanted(0))
    assert kinds(play.feed(WorkerLost(0, CAUSE, 0))) == ["Deliver", "Spawn"]
    assert play.scheduler.slots().free == 8


def with_a_chunk() -> Referee:
    """Return a pool of one worker that holds positions 4 to 7 of 12 in one task; those before are delivered."""
    play = Referee(workers=1, depth=1, attempts=2)
    play.feed(ChunkChanged(4))
    play.start(order_of(12))
    for _ in range(3):
        play.build(0)
    for _ in range(4):
        play.feed(Wanted(0))
    assert [task.positions for task in play.scheduler.tasks(0)] == [(4, 5, 6, 7)]
    return play


def test_of_a_chunk_only_the_position_being_built_is_charged() -> None:
    play = with_a_chunk()
    play.feed(WorkerLost(0, CAUSE, 2))
    assert [positions for _, positions, _ in sends(play.ready())] == [(4, 5, 6, 7)]
    assert [play.scheduler.attempt(0, position) for position in range(4, 8)] == [1, 1, 2, 1]
    play.feed(WorkerLost(0, CAUSE, 2))
    assert [positions for _, positions, _ in sends(play.ready())] == [(4, 5, 7)]
    play.feed(WorkerLost(0, CAUSE, 9))  # no more than there are
    assert play.scheduler.attempt(0, 7) == 2
    play.ready()
    assert play.drive(0) == list(range(12))


def test_chunks_are_consecutive_small_at_first_and_at_last() -> None:
    play = Referee(workers=2, depth=1)
    play.feed(ChunkChanged(4))
    tasks = [positions for _, positions, _ in sends(play.start(order_of(32)))]
    play.feed(Wanted(0))
    worker = 0
    while play.scheduler.tasks(worker):
        for action in play.build(worker):
            tasks += [positions for _, positions, _ in sends([action])]
            if isinstance(action, Deliver):
                while kinds(play.feed(Wanted(0))) == ["Deliver"]:
                    pass
        worker = 1 - worker
    assert [position for task in tasks for position in task] == list(range(32))
    assert [len(task) for task in tasks] == [1, 1, 1, 1, 2, 3, 4, 4, 4, 3, 2, 2, 1, 1, 1, 1]


def test_an_endless_run_has_full_chunks_after_its_first() -> None:
    play = Referee(workers=1, depth=9)
    play.feed(ChunkChanged(3))
    assert [len(positions) for _, positions, _ in sends(play.start(order_of(None)))][:6] == [1, 1, 2, 3, 3, 3]


def test_chunks_are_copied_and_their_slot_is_free_with_the_last() -> None:
    play = with_a_chunk()
    play.build(0, [BIG, None, BIG, BIG])
    assert play.scheduler.slots().built == 1
    sent = [delivered(play.feed(Wanted(0))) for _ in range(4)]
    assert [lease for ((_, _, lease),) in sent] == [False] * 4
    assert [place is None for ((_, place, _),) in sent] == [False, True, False, False]
    assert play.scheduler.slots().built == 0


def test_a_task_that_does_not_fit_into_its_slot_is_divided() -> None:
    """What was built of it leaves the slot, which goes with the rest to whoever has time."""
    play = with_a_chunk()
    (task,) = play.tasks[0]
    play.feed(Wanted(0))
    actions = play.build(0, [BIG, None])
    assert kinds(actions)[:3] == ["CopyOut", "Deliver", "Send"]
    assert actions[2] == Send(0, task._replace(positions=task.positions[2:], indices=task.indices[2:]))
    assert play.drive(0) == list(range(12))


def test_orders_with_owners_travel_one_by_one_to_their_owners() -> None:
    play = Referee(workers=2, depth=2)
    play.feed(ChunkChanged(4))
    assert sends(play.start(order_of(6, partition="stride"))) == [
        (0, (0,), 0),
        (0, (2,), 1),
        (1, (1,), 2),
        (1, (3,), 3),
    ]


def test_owners_follow_the_index_under_shuffling() -> None:
    order = order_of(8, partition="block", shuffle=True)
    play = Referee(workers=2, depth=8, slots=20)
    for worker, positions, _ in sends(play.start(order)):
        assert [order.index(p) // 4 for p in positions] == [worker]


def test_small_batches_are_copied() -> None:
    play = Referee(workers=1)
    play.start(order_of(9))
    play.build(0, [COPY_BELOW - 1])
    play.build(0, [COPY_BELOW])
    assert delivered(play.feed(Wanted(0), Wanted(0))) == [(0, 0, False), (1, 1, True)]


def test_failures_free_their_slot_at_once() -> None:
    play = Referee(workers=1, depth=1, slots=1)
    play.start(order_of(2))
    play.build(0, [None])
    assert delivered(play.feed(Wanted(0))) == [(0, None, False)]


def test_the_last_slots_are_never_leased() -> None:
    for slots, leases in ((1, 0), (3, 0), (4, 1), (6, 3)):
        play = Referee(workers=2, slots=slots)
        play.start(order_of(20))
        assert play.drive(0) == list(range(20))
        assert play.scheduler.slots() == (slots - leases, 0, 0, leases)


def test_a_leased_slot_outlives_its_epoch_and_delays_no_end() -> None:
    play = Referee(workers=1, slots=4)
    play.start(order_of(1))
    play.feed(Wanted(0))
    play.build(0)
    assert play.feed(Wanted(0)) == [Finish(0)]
    assert play.scheduler.slots().leased == 1
    assert [slot for *_, slot in sends(play.feed(RunStarted(1, order_of(9))))] == [1, 2]
    play.feed(Released(0))
    assert play.scheduler.slots().leased == 0


def test_copied_batches_come_before_the_task_that_takes_their_slot() -> None:
    play = Referee(workers=1, depth=1, slots=1)
    play.start(order_of(2))
    play.feed(Wanted(0))
    deliver, send = play.build(0)
    assert isinstance(deliver, Deliver)
    assert isinstance(send, Send)
    assert (deliver.slot, deliver.lease, send.task.slot) == (0, False, 0)


def test_abandoned_runs_leave_only_what_workers_hold() -> None:
    play = Referee(workers=2, depth=2, slots=8)
    play.start(order_of(20))
    play.build(0)
    play.feed(WorkerLost(1, CAUSE, 0))
    assert play.feed(RunAbandoned(0)) == [Cancel(0)]
    assert play.scheduler.slots() == (6, 2, 0, 0)
    assert not play.scheduler.idle
    play.build(0, [])  # skipped by the worker
    play.build(0)  # finished before the worker heard of it
    assert play.scheduler.slots() == (8, 0, 0, 0)
    assert play.scheduler.idle


def test_a_late_batch_of_an_abandoned_run_answers_nobody() -> None:
    play = Referee(workers=1, depth=1)
    play.start(order_of(2))
    play.feed(Wanted(0), RunAbandoned(0), RunStarted(1, order_of(2)), Wanted(1))
    assert delivered(play.build(0)) == []
    assert [p for p, *_ in delivered(play.build(0))] == [0]
    assert play.drive(1) == [0, 1]


def test_a_worker_that_dies_on_an_abandoned_task_blames_nobody() -> None:
    play = Referee(workers=1, attempts=1)
    play.start(order_of(9))
    play.feed(Wanted(0), RunAbandoned(0))
    assert play.feed(WorkerLost(0, CAUSE, 0)) == [Spawn(0)]
    assert play.scheduler.slots().free == 8


def test_abandoning_what_is_over_or_idle_does_nothing() -> None:
    play = Referee()
    assert play.scheduler.handle(RunAbandoned(5)) == []
    play.start(order_of(0))
    assert play.feed(Wanted(0)) == [Finish(0)]
    assert play.feed(RunAbandoned(0)) == []
    play.feed(RunStarted(1, order_of(1)))
    play.build(0)
    assert play.feed(RunAbandoned(1)) == []  # no worker holds anything: nothing to cancel


def test_runs_share_slots_evenly() -> None:
    play = Referee(workers=4, depth=2, slots=6)
    play.feed(RunStarted(0, order_of(20)), RunStarted(1, order_of(20)))
    play.ready()
    assert Counter(task.run for tasks in play.tasks for task in tasks) == {0: 3, 1: 3}


def test_a_run_that_is_wanted_goes_before_an_older_one_that_holds_as_much() -> None:
    play = Referee(workers=1, depth=1)
    play.feed(RunStarted(0, order_of(9)), RunStarted(1, order_of(9)), Wanted(1))
    (send,) = play.feed(WorkerReady(0))
    assert isinstance(send, Send)
    assert send.task.run == 1


def test_a_starving_run_takes_a_slot_from_the_run_with_most() -> None:
    play = Referee(workers=1, depth=2, slots=3)
    play.feed(ChunkChanged(2))
    play.start(order_of(20))
    for _ in range(3):
        play.build(0)
    assert play.scheduler.slots() == (0, 0, 3, 0)
    assert play.feed(RunStarted(1, order_of(4))) == []
    copies = play.feed(Wanted(1))
    # Whole slot of the latest positions, and then the task that needs it.
    assert kinds(copies) == ["CopyOut", "CopyOut", "Send"]
    assert [(c.run, c.position, c.slot) for c in copies if isinstance(c, CopyOut)] == [(0, 2, 2), (0, 3, 2)]
    assert sends(copies) == [(0, (0,), 2)]
    assert play.drive(1) == [0, 1, 2, 3]
    assert play.drive(0) == list(range(20))


def test_nothing_is_copied_out_while_no_worker_has_time() -> None:
    play = Referee(workers=1, depth=1, slots=2)
    play.start(order_of(20))
    play.build(0)  # slot 0 built, slot 1 working
    assert play.feed(RunStarted(1, order_of(4)), Wanted(1)) == []
    assert kinds(play.build(0)) == ["CopyOut", "Send"]


def test_with_one_slot_runs_take_turns() -> None:
    play = Referee(workers=2, slots=1)
    play.start(order_of(5), order_of(5), order_of(5))
    for _ in range(5):
        for number in (0, 1, 2):
            play.feed(Wanted(number))
            while play.runs[number].wanted:
                play.build(next(worker for worker, tasks in enumerate(play.tasks) if tasks))
    assert all(run.delivered == [0, 1, 2, 3, 4] for run in play.runs.values())


def test_copies_count_as_held() -> None:
    play = Referee(workers=1, depth=3, slots=2)
    play.start(order_of(9))
    play.build(0)
    play.build(0)
    play.feed(RunStarted(1, order_of(9)), Wanted(1))  # run 0 keeps 0 in a slot and 1 as a copy
    play.build(0)  # run 1 is at position 1
    (send,) = play.feed(SlotsAdded(1))
    assert isinstance(send, Send)
    assert (send.task.run, send.task.positions) == (1, (2,))


def test_failures_do_not_pile_up_behind_a_slow_batch() -> None:
    play = Referee(workers=2, depth=1, slots=4)
    play.start(order_of(100))
    while play.tasks[1]:  # worker 0 is at position 0 all the time
        play.build(1, [None])
    assert play.runs[0].kept == 4
    play.build(0)
    assert play.drive(0) == list(range(100))


def test_no_owner_is_passed_over_without_a_slot_in_reserve() -> None:
    play = Referee(workers=2, depth=9, slots=4)
    play.feed(RunStarted(0, order_of(20, partition="stride")), WorkerReady(1), Wanted(0))
    assert play.scheduler.slots() == (2, 2, 0, 0)  # 1 and 3 are dealt, slots for 0 and 2 stay
    assert sends(play.ready()) == [(0, (0,), 2), (0, (2,), 3)]
    assert play.drive(0) == list(range(20))


def test_another_run_does_not_take_the_reserve() -> None:
    play = Referee(workers=2, depth=9, slots=4)
    play.feed(RunStarted(0, order_of(20, partition="stride")), WorkerReady(1))
    assert play.feed(RunStarted(1, order_of(4))) == []
    play.build(1)
    # Copied out although slots are free: they are reserved.
    assert kinds(play.feed(Wanted(1))) == ["CopyOut", "Send"]
    assert play.drive(1) == [0, 1, 2, 3]
    assert play.drive(0) == list(range(20))


def test_what_delivery_waits_for_is_not_held_back_by_failures() -> None:
    play = Referee(workers=2, depth=1, attempts=1, slots=4)
    play.start(order_of(12, partition="block"))
    for _ in range(4):
        play.feed(Wanted(0))
        play.build(0, [SMALL])
    play.feed(Wanted(0))
    assert [p for p, *_ in delivered(play.feed(WorkerLost(0, CAUSE, 0)))] == [4]
    while play.tasks[1]:
        play.build(1, [None])
    assert play.runs[0].kept == 4  # 6 to 9, while nobody has been given 5
    assert [positions for _, positions, _ in sends(play.ready())] == [(5,)]
    assert play.drive(0) == list(range(12))


def test_blocks_of_ordered_runs_are_built_in_the_order_of_delivery() -> None:
    play = Referee(workers=2, depth=2, slots=4)
    play.start(order_of(0))
    assert sends(play.feed(RunStarted(1, order_of(8, partition="block")))) == [(0, (0,), 0), (0, (1,), 1)]


def test_blocks_of_unordered_runs_are_built_side_by_side() -> None:
    play = Referee(workers=2, depth=2, slots=2)
    play.start(order_of(0))
    actions = play.feed(RunStarted(1, order_of(8, partition="block", ordered=False)))
    assert sends(actions) == [(0, (0,), 0), (1, (4,), 1)]


def test_an_absent_owner_does_not_stop_an_unordered_run() -> None:
    play = Referee(workers=2, depth=1, slots=2)
    play.feed(RunStarted(0, order_of(8, partition="stride", ordered=False)), WorkerReady(1))
    for position in (1, 3, 5, 7):
        play.feed(Wanted(0))
        assert [p for p, *_ in delivered(play.build(1))] == [position]
    assert play.drive(0) == [1, 3, 5, 7, 0, 2, 4, 6]


def test_slots_added_are_numbered_on_and_used() -> None:
    play = Referee(workers=1, depth=9, slots=1)
    play.start(order_of(9))
    assert sends(play.feed(SlotsAdded(2))) == [(0, (1,), 1), (0, (2,), 2)]
    assert play.feed(SlotsAdded(0)) == []


def test_a_worker_that_never_becomes_ready_ends_all_runs() -> None:
    play = Referee(workers=2, attempts=2)
    play.feed(RunStarted(0, order_of(9)), RunStarted(1, order_of(9)), WorkerReady(1), Wanted(1))
    assert play.feed(WorkerLost(0, "first", 0)) == [Spawn(0)]
    assert play.feed(WorkerLost(0, "second", 0)) == [
        GiveUp(0, 0, 2, "second"),
        Cancel(0),
        GiveUp(1, 0, 2, "second"),
        Cancel(1),
    ]
    assert play.scheduler.state(0).value == "absent"
    # The next run tries again, as often.
    assert play.feed(RunStarted(2, order_of(9))) == [Spawn(0)]
    assert play.feed(WorkerLost(0, CAUSE, 0)) == [Spawn(0)]


def test_start_losses_count_in_a_row_only() -> None:
    play = Referee(workers=2, attempts=2)
    play.feed(RunStarted(0, order_of(9)))
    play.feed(WorkerLost(0, CAUSE, 0), WorkerReady(0), WorkerLost(0, CAUSE, 0))
    assert play.feed(WorkerLost(0, CAUSE, 0)) == [Spawn(0)]
    # The end of a template is a loss for each of its workers: none of them has been lost twice.
    play = Referee(workers=2, attempts=2)
    play.feed(RunStarted(0, order_of(9)))
    assert play.feed(WorkerLost(0, CAUSE, 0), WorkerLost(1, CAUSE, 0)) == [Spawn(0), Spawn(1)]


def test_user_code_that_fails_at_start_ends_all_runs_at_once() -> None:
    play = Referee(workers=2, attempts=5)
    play.feed(RunStarted(0, order_of(9)), Wanted(0))
    assert play.feed(StartFailed(1, CAUSE)) == [GiveUp(0, 1, 1, CAUSE)]
    assert play.feed(RunStarted(1, order_of(9))) == [Spawn(1)]
    play.ready()
    assert play.drive(1) == list(range(9))


def test_a_start_that_fails_late_does_not_end_a_later_run() -> None:
    """The user has mended what ended the run before; worker 1 was started before that."""
    for failure in (StartFailed(1, CAUSE), WorkerLost(1, CAUSE, None)):
        play = Referee(workers=2, attempts=1)
        play.feed(RunStarted(0, order_of(9)), RunStarted(1, order_of(9)), Wanted(0))
        play.feed(StartFailed(0, CAUSE))
        play.feed(RunStarted(2, order_of(9, partition="stride")))
        assert play.feed(failure) == [Spawn(1)]
        play.ready()
        assert play.drive(2) == list(range(9))
        # Where there is none, nothing is started.
        play = Referee(workers=2, attempts=1)
        play.feed(RunStarted(0, order_of(9)), StartFailed(0, CAUSE))
        assert play.feed(failure) == []


def test_a_start_that_fails_again_for_a_later_run_ends_it() -> None:
    play = Referee(workers=2, attempts=5)
    play.feed(RunStarted(0, order_of(9)), RunStarted(1, order_of(9)))
    play.feed(WorkerReady(0), WorkerReady(1), WorkerLost(1, CAUSE, 0), RunStarted(2, order_of(9)))
    actions = [action for action in play.feed(StartFailed(1, "old")) if isinstance(action, (GiveUp, Spawn))]
    assert actions == [GiveUp(0, 1, 1, "old"), GiveUp(1, 1, 1, "old"), Spawn(1)]
    assert play.feed(StartFailed(1, "new"))[0] == GiveUp(2, 1, 1, "new")


def test_a_task_that_was_not_begun_is_not_charged() -> None:
    play = Referee(workers=1, attempts=1)
    play.start(order_of(2))
    play.feed(Wanted(0))
    assert play.feed(WorkerLost(0, CAUSE, None)) == [Spawn(0)]
    assert play.scheduler.attempt(0, 0) == 1
    play.ready()
    assert play.drive(0) == [0, 1]


def test_a_worker_lost_between_epochs_is_replaced() -> None:
    play = Referee(workers=1)
    play.start(order_of(0))
    play.feed(Wanted(0))
    assert play.feed(WorkerLost(0, CAUSE, 0)) == [Spawn(0)]
    assert play.scheduler.attempt(0, 0) == 1


def refusals() -> list[tuple[Event, str]]:
    batch = Batch(0, (), BIG)
    return [
        (Wanted(9), "Run 9 was wanted, but it is over or was never started."),
        (Wanted(0), "Run 0 was wanted again before the answer."),
        (RunStarted(0, order_of(1)), "Run 0 was started, but it is under way already."),
        (
            RunStarted(1, order_of(9, workers=3, partition="stride")),
            "The order is for 3 workers, but there are 2.",
        ),
        (WorkerReady(0), "Worker 0 became ready while it was ready."),
        (WorkerReady(2), "Worker 2 became ready, but there are 2, from 0."),
        (WorkerReady(-1), "Worker -1 became ready, but there are 2, from 0."),
        (StartFailed(0, CAUSE), "Worker 0 failed while it was ready."),
        (Built(1, (batch,)), "Worker 1 built a task while it was starting."),
        (Built(0, ()), "Worker 0 answered a task of 1 positions with 0 outcomes."),
        (Built(0, (batch, batch)), "Worker 0 answered a task of 1 positions with 2 outcomes."),
        (Released(0), "Slot 0 was released, but it is not leased."),
        (Released(99), "Slot 99 was released, but it is not leased."),
        (SlotsAdded(-1), "SlotsAdded takes 0 slots or more, got -1."),
        (ChunkChanged(0), "ChunkChanged takes 1 position or more, got 0."),
    ]


def test_events_that_cannot_be_are_refused_and_change_nothing() -> None:
    play = Referee(workers=2)
    play.feed(RunStarted(0, order_of(4)), WorkerReady(0), Wanted(0))
    for event, sentence in refusals():
        with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
            play.scheduler.handle(event)
        play._check()
    play.ready()
    assert play.drive(0) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match=r"^Worker 1 built a task, but it holds none\.$"):
        play.scheduler.handle(Built(1, ()))
    play.feed(RunStarted(1, order_of(4)), WorkerLost(1, CAUSE, 0))
    play.feed(StartFailed(1, CAUSE))
    with pytest.raises(ValueError, match=r"^Worker 1 was lost while it was absent\.$"):
        play.scheduler.handle(WorkerLost(1, CAUSE, 0))
    nonsense: Any = "Wanted"
    with pytest.raises(TypeError, match=r"^handle\(\) takes an event of keras_mpseq\.messages, got 'Wanted'\.$"):
        play.scheduler.handle(nonsense)


def test_arguments_out_of_range_are_refused() -> None:
    good = {"workers": 1, "depth": 1, "attempts": 1, "slots": 1, "copy_below": 0, "most": 1}
    Scheduler(**good)
    for name, least in (("workers", 1), ("depth", 1), ("attempts", 1), ("slots", 1), ("copy_below", 0), ("most", 1)):
        with pytest.raises(ValueError, match=rf"^{name} must be {least} or more, got {least - 1}\.$"):
            Scheduler(**(good | {name: least - 1}))


def test_what_an_order_has_got_since_is_dealt_at_once() -> None:
    play = Referee(workers=1, depth=2)
    order = Growing(1, ordered=True)
    play.start(order)
    order.grow(1)
    assert sends(play.feed(Grew(0))) == [(0, (0,), 0)]
    order.grow(3)
    assert sends(play.feed(Grew(0))) == [(0, (1,), 1)]
    assert sends(play.build(0)) == [(0, (2,), 2)]


def test_the_end_of_an_order_that_grew_answers_who_waits() -> None:
    play = Referee()
    order = Growing(2, ordered=True)
    play.start(order)
    assert play.feed(Wanted(0)) == []
    order.end()
    assert play.feed(Grew(0)) == [Finish(0)]


def test_a_block_of_a_lane_is_one_task_of_one_worker() -> None:
    play = Referee(workers=2, depth=1)
    order = Lanes(3, 2, ordered=True)
    play.start(order)
    for lane in range(3):
        play.runs[0].grow([lane], 3)
    assert sends(play.feed(Grew(0))) == [(0, (0, 1, 2), 0), (1, (3, 4, 5), 1)]
    assert sends(play.build(1)) == []  # Lane 2 is worker 0's.
    assert sends(play.build(0)) == [(0, (6, 7, 8), 2)]


def test_a_run_that_is_over_cannot_grow() -> None:
    play = Referee()
    play.start(Growing(2, ordered=True))
    play.feed(RunAbandoned(0))
    with pytest.raises(ValueError, match=r"^Run 0 grew, but it is over or was never started\.$"):
        play.scheduler.handle(Grew(0))


# --- workers that are replaced after some batches ---


def test_a_worker_is_replaced_after_its_last_batch_and_blamed_for_nothing() -> None:
    play = Referee(workers=1, depth=2, attempts=1, most=3)
    assert sends(play.start(order_of(5))) == [(0, (0,), 0), (0, (1,), 1)]
    assert play.build(0) == [Send(0, Task(0, (2,), (2,), 2)), Spawn(1)]  # Its last: the successor starts meanwhile.
    assert play.build(0) == []
    assert play.build(0) == [Retire(0)]
    assert sends(play.feed(WorkerReady(1))) == [(1, (3,), 3), (1, (4,), 4)]
    assert play.feed(Retired(0)) == []
    assert play.scheduler.losses == 0
    assert [play.scheduler.attempt(0, position) for position in range(5)] == [1] * 5
    assert play.drive(0) == [0, 1, 2, 3, 4]


def test_a_successor_that_is_ready_early_takes_over_at_once() -> None:
    play = Referee(workers=1, depth=2, slots=30, most=16)
    play.start(order_of(40))
    while len(play.tasks[0]) == 2 and "starting" not in play.workers:
        play.feed(Wanted(0))
        play.build(0)
    assert play.left[0] == 2
    assert [positions for _, positions, _ in sends(play.feed(WorkerReady(1)))] == [(14,), (15,)]
    assert kinds(play.build(0)) == []
    assert play.build(0) == [Retire(0)]
    assert play.drive(0) == list(range(40))


def test_an_idle_worker_ends_when_its_successor_is_ready() -> None:
    play = Referee(workers=1, depth=1, slots=20, most=8)
    play.start(order_of(7))
    while play.tasks[0]:
        play.build(0)
    assert play.left[0] == 1
    assert play.feed(WorkerReady(1)) == [Retire(0)]


def test_workers_are_not_all_replaced_at_the_same_time() -> None:
    play = Referee(workers=4, depth=1, slots=20, most=8)
    play.start(order_of(60))
    assert play.left == [7.0, 6.0, 5.0, 4.0, 0.0, 0.0, 0.0, 0.0]
    play.feed(WorkerLost(3, CAUSE, 0))
    assert play.left[3] == 8.0  # As all later ones.


def test_a_chunk_is_no_larger_than_what_a_worker_may_be_given() -> None:
    play = Referee(workers=1, depth=1, most=6)
    play.feed(ChunkChanged(4))
    play.start(order_of(40))
    sizes = [1]
    while play.workers[0] == "ready":
        play.feed(Wanted(0))
        sizes += [len(positions) for _, positions, _ in sends(play.build(0))]
    assert sizes == [1, 1, 2, 2]


def test_a_death_after_the_last_task_leaves_it_to_the_successor() -> None:
    play = Referee(workers=1, depth=1, attempts=2, most=1)
    play.start(order_of(3))
    assert play.workers == ["ready", "starting"]
    assert play.feed(WorkerLost(0, CAUSE, 0)) == []
    assert sends(play.feed(WorkerReady(1))) == [(1, (0,), 0)]
    assert play.scheduler.attempt(0, 0) == 2
    assert play.drive(0) == [0, 1, 2]


def test_a_successor_waits_for_one_that_does_not_end() -> None:
    play = Referee(workers=1, depth=1, most=1)
    play.start(order_of(3))
    assert play.build(0) == [Retire(0)]
    assert sends(play.feed(WorkerReady(1))) == [(1, (1,), 1)]
    assert play.build(1) == [Retire(1)]
    assert play.feed(Retired(1)) == [Spawn(1)]  # 0 still closes its files.
    assert play.drive(0) == [0, 1, 2]


def test_between_epochs_nobody_is_started() -> None:
    play = Referee(workers=1, depth=1, most=1)
    play.start(order_of(1))
    play.feed(Wanted(0))
    assert play.build(0)[0] == Retire(0)
    play.feed(StartFailed(1, CAUSE))
    assert play.feed(Retired(0)) == []
    assert play.feed(RunStarted(1, order_of(2))) == [Spawn(0)]


def test_a_task_that_is_sent_again_may_exceed_the_limit() -> None:
    play = Referee(workers=1, depth=1, most=6)
    play.feed(ChunkChanged(3))
    play.start(order_of(30))
    for _ in range(2):
        play.build(0)
        play.feed(Wanted(0))
    play.build(0)
    play.feed(WorkerLost(0, CAUSE, 0))
    assert play.drive(0) == list(range(30))


def test_owners_keep_their_seats() -> None:
    play = Referee(workers=2, depth=1, slots=9, most=1)
    play.start(order_of(8, partition="stride"))
    play.feed(WorkerLost(0, CAUSE, 0))
    assert sends(play.feed(WorkerReady(2))) == [(2, (0,), 0)]
    assert play.drive(0) == list(range(8))  # The referee looks at the seat of each position's owner.
    with pytest.raises(ValueError, match=r"^Worker 0 retired while it was (ready|absent|starting)\.$"):
        play.scheduler.handle(Retired(0))
