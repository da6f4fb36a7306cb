"""The scheduler: a referee that knows the rules, a state machine that plays against it, and sharp examples.

`Referee` keeps its own books from events and actions alone and checks every action against the rules of DESIGN
section 4. The examples feed it too, so that they check all the rules besides their own. `test_scheduler_mutants.py`
runs everything here against broken schedulers, through the global name `Scheduler`.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from keras_mpseq.messages import (
    Action,
    Batch,
    Built,
    Cancel,
    ChunkChanged,
    CopyOut,
    Deliver,
    Event,
    Failure,
    Finish,
    GiveUp,
    Lost,
    Outcome,
    Released,
    RunAbandoned,
    RunStarted,
    Send,
    SlotsAdded,
    Spawn,
    StartFailed,
    Task,
    Wanted,
    WorkerLost,
    WorkerReady,
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

    @property
    def kept(self) -> int:
        return len(self.ready) - len(self.where)

    @property
    def passed(self) -> int:
        """Positions passed over, each of which must find a free slot when its owner has time."""
        return max(self.dealt, default=-1) + 1 - len(self.dealt) if self.order.ordered else 0

    def next_of(self, worker: int) -> int | None:
        """The lowest position that is not dealt and that *worker* may build."""
        for position in itertools.count():
            if position == self.order.size:
                return None
            if position not in self.dealt and self.order.owner(position) in (None, worker):
                return position
            if position > 500:  # an endless order that one worker has no part in
                return None
        raise AssertionError


class Referee:
    """Feeds a scheduler, keeps books of its own, and checks every action against the rules."""

    def __init__(
        self, workers: int = 2, depth: int = 2, attempts: int = 2, slots: int = 8, copy_below: int = COPY_BELOW
    ) -> None:
        self.scheduler = Scheduler(workers, depth, attempts, slots, copy_below)
        self.depth, self.attempts, self.copy_below, self.chunk = depth, attempts, copy_below, 1
        self.workers = ["absent"] * workers
        self.tasks: list[list[Task]] = [[] for _ in range(workers)]
        self.again: list[Task] = []
        self.slots: list[str] = ["free"] * slots
        self.inside: dict[int, tuple[int, set[int]]] = {}
        """For each slot that is working or built: the run, and the positions to build or to deliver."""
        self.runs: dict[int, Pass] = {}
        self.ever: set[int] = set()
        self.expected: list[Action] = []
        self.start_losses = 0
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
            self._check(actions)
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

    def drive(self, number: int, at_most: int = 30) -> list[int]:
        """Consume one run to its end without releasing a lease; all workers work fairly. Return what came."""
        run = self.runs[number]
        for _ in range(2000):
            if run.number not in self.runs:
                return run.delivered
            if not run.wanted:
                if run.order.size is None and len(run.delivered) >= at_most:
                    self.feed(RunAbandoned(number))
                else:
                    self.feed(Wanted(number))
                continue
            before = len(run.delivered)
            moved = bool(self.ready())
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
                self.expected += [Spawn(w) for w, state in enumerate(self.workers) if state == "absent"]
            case Wanted(number):
                self.runs[number].wanted = True
            case RunAbandoned(number):
                if number in self.runs:
                    self._drop(number)
            case WorkerReady(worker):
                self.workers[worker] = "ready"
                self.start_losses = 0
            case Built(worker, outcomes):
                self._note_built(self.tasks[worker].pop(0), outcomes)
            case WorkerLost(worker, cause, done):
                self._note_lost(worker, cause, done)
            case StartFailed(worker, cause):
                self.workers[worker] = "absent"
                self.expected += [GiveUp(number, worker, 1, cause) for number in self.runs]
            case Released(slot):
                self.slots[slot] = "free"
            case SlotsAdded(count):
                self.slots += ["free"] * count
            case ChunkChanged(count):
                self.chunk = count

    def _note_built(self, task: Task, outcomes: tuple[Outcome, ...]) -> None:
        del self.inside[task.slot]
        self.slots[task.slot] = "free"
        run = self.runs.get(task.run)
        if run is None:
            return
        for position, outcome in zip(task.positions, outcomes, strict=True):
            run.ready[position] = outcome
            if isinstance(outcome, Batch):
                run.where[position] = task.slot
        inside = {position for position in task.positions if position in run.where}
        if inside:
            self.slots[task.slot] = "built"
            self.inside[task.slot] = task.run, inside
            self.single = len(task.positions) == 1

    def _note_lost(self, worker: int, cause: object, done: int) -> None:
        self.losses += 1
        tasks, self.tasks[worker] = self.tasks[worker], []
        if tasks and tasks[0].run in self.runs:
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
        if self.workers[worker] == "starting":
            self.start_losses += 1
        self.workers[worker] = "absent"
        if self.start_losses == self.attempts:
            self.expected += [GiveUp(number, worker, self.attempts, cause) for number in self.runs]
            self.start_losses = 0
        else:
            self.expected.append(Spawn(worker))

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
        assert task.indices == tuple(map(order.index, task.positions))
        assert all(order.owner(position) in (None, worker) for position in task.positions)
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

    def _follow_new(self, run: Pass, worker: int, task: Task) -> None:
        first, count = task.positions[0], len(task.positions)
        assert self.slots[task.slot] == "free"
        assert first == run.next_of(worker), "not in the order of positions"
        assert task.positions == tuple(range(first, first + count))
        assert count <= (1 if run.order.partitioned else self.chunk)
        size = run.order.size
        assert run.order.partitioned or count == self.chunk or first + count == size, "chunk not full"
        for other in self.runs.values():
            # Among orders without owners nothing but a bound on copies keeps the neediest from being first.
            if not other.order.partitioned and other.kept < len(self.slots) and len(other.dealt) != other.order.size:
                mine, theirs = (self._held(r) for r in (run, other))
                assert (mine, not run.wanted) <= (theirs, not other.wanted), "not the run that holds least"
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
        assert action.index == run.order.index(expected)
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
        return slot in self.singles and outcome.nbytes >= self.copy_below and rest >= len(self.workers) + 1

    def _follow_copy(self, run: Pass, position: int, outcome: Outcome, slot: int) -> None:
        starving = [other for other in self.runs.values() if other.wanted and not self._held(other)]
        assert starving, "copied out without need"
        assert run.where.pop(position) == slot
        assert outcome == run.ready[position]
        built: Counter[int] = Counter(self.inside[s][0] for s, state in self.slots_in("built"))
