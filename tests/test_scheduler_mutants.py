"""Broken schedulers, each with a bug that a real loader had or could have; the tests must notice every one.

A mutant is a replacement in the source of the scheduler's modules. What it is run against is
`test_scheduler.py`: first the examples, and then, whatever they say, the state machine.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

import keras_mpseq.scheduler
from tests import test_scheduler

MODULES = ("staff", "ledger", "dealing", "scheduler")
"""In the order of their imports."""
FOLDER = Path(keras_mpseq.scheduler.__file__).parent
# No shrinking and no memory of earlier runs: one failure is enough, and the same ones in every run.
HUNT = settings(
    test_scheduler.PLAY_SETTINGS,
    max_examples=400,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    report_multiple_bugs=False,
)


class Mutant(NamedTuple):
    bug: str
    module: str
    old: str
    new: str
    rare: bool = False
    """Too rare a state for the bounded state machine; the examples have to find it.

    What it finds within its bounds depends on which modules are loaded: Hypothesis draws constants from them.
    """


MUTANTS = [
    Mutant(
        "what an order has got since it was looked at last is not dealt",
        "ledger",
        "            if head is None:\n                self.heads[owner] = self.order.next_of(owner, known)\n",
        "            pass\n",
    ),
    Mutant(
        "the end of an order that grew is not told to who waits",
        "scheduler",
        "                self._runs[run].grew()\n                self._answer(self._runs[run])\n",
        "                self._runs[run].grew()\n",
    ),
    Mutant(
        "a block of a lane is dealt in parts, which take the slots of blocks before it",
        "scheduler",
        "        return run.order.together(position, max(1, min(self._chunk, position // workers, rest, left)))\n",
        "        return min(run.order.together(position, 9), max(1, min(self._chunk, position // workers, rest)))\n",
    ),
    Mutant(
        "a lost task's slot is free while it waits to be sent again",
        "scheduler",
        "                self._again.append(job)\n",
        "                self._again.append(job)\n                self._slots.free.append(job.task.slot)\n",
    ),
    Mutant(
        "the rest of a divided task goes on in a slot that is free",
        "scheduler",
        "        elif not job.inside:\n            self._slots.give_back(job)\n",
        "        if not job.inside:\n            self._slots.give_back(job)\n",
    ),
    Mutant(
        "what was built of a divided task stays where its rest is built",
        "scheduler",
        "        self._empty(job)\n        job.task =",
        "        job.task =",
    ),
    Mutant(
        "the end of an epoch frees slots that the consumer holds",
        "scheduler",
        "            self._forget(run)\n            self._actions.append(Finish(run.number))\n",
        "            self._forget(run)\n            self._actions.append(Finish(run.number))\n"
        "            for slot in list(self._slots.leased):\n                self._slots.release(slot)\n",
    ),
    Mutant(
        "the end of an epoch waits for slots that the consumer holds",
        "scheduler",
        "elif run.delivered == run.order.size:",
        "elif run.delivered == run.order.size and not self._slots.leased:",
    ),
    Mutant(
        "a batch of an abandoned epoch is kept as if somebody wanted it",
        "scheduler",
        "        if run.live:\n            for position, outcome in zip(",
        "        if outcomes:\n            for position, outcome in zip(",
    ),
    Mutant(
        "a message of an abandoned epoch does not free its slot",
        "scheduler",
        "        elif not job.inside:\n            self._slots.give_back(job)\n",
        "        elif not job.inside and run.live:\n            self._slots.give_back(job)\n",
    ),
    Mutant(
        "abandoning an epoch frees slots into which workers still write",
        "scheduler",
        "            if job.worker is None:\n                self._slots.give_back(job)\n",
        "            self._slots.give_back(job)\n",
    ),
    Mutant(
        "abandoning an epoch loses the slots of tasks that wait to be sent again",
        "scheduler",
        "            if job.worker is None:\n                self._slots.give_back(job)\n",
        "            if job.inside:\n                self._slots.give_back(job)\n",
    ),
    Mutant(
        "abandoning an epoch leaves its lost tasks to be sent again",
        "scheduler",
        "        self._again = [job for job in self._again if job.run is not run]\n",
        "",
    ),
    Mutant(
        "workers are not told that an epoch was abandoned",
        "scheduler",
        "            self._actions.append(Cancel(run.number))\n",
        "            pass\n",
    ),
    Mutant(
        "queued tasks are charged for a death",
        "scheduler",
        "        if jobs and jobs[0].run.live and done is not None:\n"
        "            self._blame(jobs[0], number, cause, done)\n",
        "        for job in (j for j in jobs if j.run.live and done is not None):\n"
        "            self._blame(job, number, cause, done)\n",
    ),
    Mutant(
        "a task that a dead worker never began is charged",
        "scheduler",
        "        if jobs and jobs[0].run.live and done is not None:\n"
        "            self._blame(jobs[0], number, cause, done)\n",
        "        if jobs and jobs[0].run.live:\n            self._blame(jobs[0], number, cause, done or 0)\n",
    ),
    Mutant(
        "the first batch of a chunk is charged, whichever was being built",
        "scheduler",
        "        at = min(done, len(task.positions) - 1)\n",
        "        at = 0\n",
    ),
    Mutant(
        "a position may lose one worker more than allowed",
        "scheduler",
        "        if losses >= self._attempts:\n",
        "        if losses > self._attempts:\n",
    ),
    Mutant(
        "the rest of a chunk is dropped with the position that is given up",
        "scheduler",
        "                positions=task.positions[:at] + task.positions[at + 1 :],\n"
        "                indices=task.indices[:at] + task.indices[at + 1 :],\n",
        "                positions=task.positions[:at],\n                indices=task.indices[:at],\n",
    ),
    Mutant(
        "the loss of a position is not told to the consumer that waits for it",
        "scheduler",
        "            run.keep(position, Lost(worker, losses, cause))\n            self._answer(run)\n",
        "            run.keep(position, Lost(worker, losses, cause))\n",
    ),
    Mutant(
        "lost tasks are sent again in the wrong order",
        "scheduler",
        "sorted(self._again, key=lambda job: job.task.positions)",
        "sorted(self._again, key=lambda job: job.task.positions, reverse=True)",
    ),
    Mutant(
        "lost tasks go to any worker, whoever owns them",
        "scheduler",
        "self._staff.least_loaded(job.run.order.owner(job.task.positions[0]))",
        "self._staff.least_loaded(None)",
    ),
    Mutant(
        "leases are granted up to the last slot",
        "scheduler",
        "rest > self._staff.seats",
        "rest >= 0",
    ),
    Mutant(
        "one lease too many is granted",
        "scheduler",
        "rest > self._staff.seats",
        "rest >= self._staff.seats",
    ),
    Mutant(
        "a slot with several batches is leased with the first of them",
        "scheduler",
        "len(job.task.positions) == 1 and outcome.nbytes",
        "outcome.nbytes",
    ),
    Mutant(
        "a slot with several batches is free with the first of them",
        "scheduler",
        "            job.inside.remove(position)\n            if not job.inside:\n",
        "            job.inside.clear()\n            if not job.inside:\n",
    ),
    Mutant(
        "a run that is wanted waits for ever for a slot that another run holds",
        "scheduler",
        "                if deal is None or not self._copy_out():\n                    return\n",
        "                return\n",
    ),
    Mutant(
        "a slot is taken from another run with batches still in it",
        "scheduler",
        "        for position in sorted(job.inside):\n",
        "        for position in sorted(job.inside)[:1]:\n",
    ),
    Mutant(
        "an answered consumer still counts as waiting, and is answered again",
        "scheduler",
        "        run.wanted = False\n        run.delivered += 1\n",
        "        run.delivered += 1\n",
    ),
    Mutant(
        "a consumer that waits is not answered when its batch is built",
        "scheduler",
        "        self._staff.retire_if_done(number)\n        self._answer(run)\n",
        "        self._staff.retire_if_done(number)\n",
    ),
    Mutant(
        "workers that die at start are replaced for ever",
        "scheduler",
        "            worker.start_losses += 1\n",
        "",
    ),
    Mutant(
        "losses at start that are not in a row end all epochs",
        "staff",
        "        worker.state = WorkerState.READY\n        worker.start_losses = 0\n",
        "        worker.state = WorkerState.READY\n",
    ),
    Mutant(
        "a worker that was given up is never started again",
        "scheduler",
        "                worker.state = WorkerState.ABSENT\n                self._give_up(",
        "                self._give_up(",
    ),
    Mutant(
        "user code that fails at start ends one epoch only",
        "scheduler",
        "        for run in [run for run in self._runs.values() if run.number in started_for]:\n",
        "        for run in [run for run in self._runs.values() if run.number in started_for][:1]:\n",
    ),
    Mutant(
        "a start that fails late ends the next epoch as well",
        "scheduler",
        "        for run in [run for run in self._runs.values() if run.number in started_for]:\n",
        "        for run in list(self._runs.values()):\n",
    ),
    Mutant(
        "a start that fails late leaves the next epoch without that worker",
        "scheduler",
        "        if self._runs:\n            self._staff.fill(self._staff.seat(worker), self._runs)\n",
        "",
    ),
    Mutant(
        "a worker is started again for nobody",
        "scheduler",
        "        if self._runs:\n            self._staff.fill(self._staff.seat(worker), self._runs)\n",
        "        self._staff.fill(self._staff.seat(worker), self._runs)\n",
    ),
    Mutant(
        "batches are delivered in the order of completion",
        "ledger",
        "        if self.order.ordered:\n            return self.delivered if self.delivered in self.ready else None\n",
        "",
    ),
    Mutant(
        "unordered batches wait for each other",
        "ledger",
        "        return next(iter(self.ready), None)\n",
        "        return self.delivered if self.delivered in self.ready else None\n",
    ),
    Mutant(
        "a chunk runs past the end of the epoch",
        "scheduler",
        "max(1, min(self._chunk, position // workers, rest, left))",
        "max(1, min(self._chunk, position // workers, left))",
    ),
    Mutant(
        "the first batch of an epoch waits for a whole chunk",
        "scheduler",
        "max(1, min(self._chunk, position // workers, rest, left))",
        "max(1, min(self._chunk, rest, left))",
    ),
    Mutant(
        "one worker is left alone with the last chunk",
        "scheduler",
        "ceil((size - position) / (2 * workers))",
        "size - position",
    ),
    Mutant(
        "positions that were passed over are forgotten",
        "ledger",
        "        self.heads[owner] = self.order.next_of(owner, end)\n",
        "        self.heads[owner] = self.order.next_of(owner, max(end, self.frontier))\n",
    ),
    Mutant(
        "a worker is given more tasks than it may hold",
        "staff",
        "len(worker.jobs) < self._depth",
        "len(worker.jobs) <= self._depth",
    ),
    Mutant(
        "tasks are given to workers that are not ready",
        "staff",
        "worker.state is WorkerState.READY and len(",
        "worker.state is not WorkerState.ABSENT and len(",
    ),
    Mutant(
        "a slot that the consumer lets go of is never used again",
        "ledger",
        "        self.leased.remove(slot)\n        self.free.append(slot)\n",
        "        self.leased.remove(slot)\n",
    ),
    Mutant(
        "new slots take the numbers of old ones",
        "ledger",
        "reversed(range(self.total, self.total + count))",
        "reversed(range(count))",
    ),
    Mutant(
        "later positions take the last slot from an owner that is busy",
        "dealing",
        "run.passes(deal.position) < spare",
        "True",
    ),
    Mutant(
        "another run takes the slot that is reserved for an owner that is busy",
        "dealing",
        "spare = len(slots.free) - sum(run.passed for run in runs)",
        "spare = len(slots.free)",
    ),
    Mutant(
        "a slot is reserved for a position that has been dealt",
        "ledger",
        "        if position < self.frontier:\n            self.passed -= self.order.pieces(position, end)\n",
        "        if position < self.frontier:\n            pass\n",
    ),
    Mutant(
        "failures pile up in memory behind a slow batch",
        "dealing",
        "position is not None and (run.kept < slots.total or position == run.delivered)",
        "position is not None",
        rare=True,
    ),
    Mutant(
        "the position that delivery waits for is held back by failures behind it",
        "dealing",
        "(run.kept < slots.total or position == run.delivered)",
        "run.kept < slots.total",
        rare=True,
    ),
    Mutant(
        "a run that nobody consumes hoards copies",
        "dealing",
        "key=lambda run: (run.held, not run.wanted)",
        "key=lambda run: (run.slots, not run.wanted)",
    ),
    Mutant(
        "the oldest run takes all slots",
        "dealing",
        "in sorted(runs, key=lambda run: (run.held, not run.wanted))",
        "in runs",
    ),
    Mutant(
        "unordered blocks are built one after the other",
        "dealing",
        "key = (position, load) if run.order.ordered else (load, position)",
        "key = (position, load)",
    ),
    Mutant(
        "owners of ordered positions are served by load, and the first position waits",
        "dealing",
        "key = (position, load) if run.order.ordered else (load, position)",
        "key = (load, position)",
    ),
    Mutant(
        "a worker is given batches after its last",
        "staff",
        " and len(worker.jobs) < self._depth and worker.left > 0:",
        " and len(worker.jobs) < self._depth:",
    ),
    Mutant(
        "a chunk is larger than what a worker may be given",
        "scheduler",
        "position // workers, rest, left)",
        "position // workers, rest)",
    ),
    Mutant(
        "a worker is told to end with tasks in hand, which it drops",
        "staff",
        "        if worker.left <= 0 and not worker.jobs:\n",
        "        if worker.left <= 0:\n",
    ),
    Mutant(
        "a successor is started when the old worker has ended, and its seat is empty meanwhile",
        "staff",
        "        if worker.left <= self._last:\n            self.fill(self.seat(number), runs)\n",
        "",
    ),
    Mutant(
        "the old worker works on beside its successor",
        "staff",
        "                self.all[other].left = 0\n",
        "",
    ),
    Mutant(
        "an idle worker stays when its successor is there",
        "staff",
        "                self.all[other].left = 0\n                self.retire_if_done(other)\n",
        "                self.all[other].left = 0\n",
    ),
    Mutant(
        "a successor that has to wait for the end of the one before is never started",
        "staff",
        "        if runs:\n            self.fill(self.seat(number), runs)\n",
        "",
    ),
    Mutant(
        "the end of a worker starts another for nobody",
        "staff",
        "        if runs:\n            self.fill(self.seat(number), runs)\n",
        "        self.fill(self.seat(number), runs)\n",
        rare=True,
    ),
    Mutant(
        "a worker that dies after its last task is replaced, although its successor is there",
        "scheduler",
        "            self._staff.fill(self._staff.seat(number), self._runs)\n\n",
        "            self._staff.spawn(number, self._runs)\n\n",
    ),
    Mutant(
        "all workers are replaced at the same time",
        "staff",
        "                worker.next_limit -= most * seat // (2 * seats)\n",
        "                pass\n",
    ),
    Mutant(
        "later workers have the short life of the first",
        "staff",
        "        worker.left, worker.next_limit = worker.next_limit, self._most\n",
        "        worker.left = worker.next_limit\n",
    ),
    Mutant(
        "a position is owned by a process, and not by its seat",
        "staff",
        "if owner in (None, self.seat(number))]",
        "if owner in (None, number)]",
    ),
]


def load(mutant: Mutant | None) -> Any:
    """Return the Scheduler class of fresh, mutated modules."""
    sources = {name: (FOLDER / f"{name}.py").read_text() for name in MODULES}
    if mutant is not None:
        assert sources[mutant.module].count(mutant.old) == 1, f"not there, or not once: {mutant.old!r}"
        sources[mutant.module] = sources[mutant.module].replace(mutant.old, mutant.new)
    names = [f"keras_mpseq.{name}" for name in MODULES]
    originals = {name: sys.modules.get(name) for name in names}
    try:
        for name, source in zip(names, sources.values(), strict=True):
            module = sys.modules[name] = ModuleType(name)
            exec(compile(source, name, "exec"), vars(module))
        return sys.modules["keras_mpseq.scheduler"].Scheduler
    finally:
        for name, original in originals.items():
            if original is None:
                del sys.modules[name]
            else:
                sys.modules[name] = original


@contextmanager
def put_in_place(scheduler: Any) -> Iterator[None]:
    original = test_scheduler.Scheduler
    test_scheduler.Scheduler = scheduler  # type: ignore[misc]
    try:
        yield
    finally:
        test_scheduler.Scheduler = original  # type: ignore[misc]


def examples() -> Iterator[Callable[[], None]]:
    for name, function in vars(test_scheduler).items():
        if name.startswith("test_") and name != "test_rules_hold_whatever_happens":
            yield function


def notice(*tests: Callable[[], None]) -> bool:
    """Tell whether one of *tests* fails, by whatever exception."""
    for test in tests:
        try:
            test()
        except (Exception, pytest.fail.Exception):
            return True
    return False


def play() -> None:
    run_state_machine_as_test(test_scheduler.Play, settings=HUNT)


@pytest.mark.slow
def test_the_scheduler_as_it_is_passes() -> None:
    with put_in_place(load(None)):
        assert not notice(*examples(), play)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.bug.replace(" ", "-"))
def test_mutant_is_noticed(mutant: Mutant) -> None:
    with put_in_place(load(mutant)):
        assert notice(*examples()), f"no example notices that {mutant.bug}"
        assert mutant.rare or notice(play), f"the state machine does not notice that {mutant.bug}"
