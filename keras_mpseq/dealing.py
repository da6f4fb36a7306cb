"""Which position goes to which worker next, and which slot is emptied for it.

Slots are dealt in the order of positions within a run, and to the run that holds least.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

from keras_mpseq.ledger import Job, Run, Slots
from keras_mpseq.staff import Staff


class Deal(NamedTuple):
    """A new task, from *position* on, for *worker*."""

    run: Run
    worker: int
    position: int


def next_deal(runs: Collection[Run], staff: Staff, slots: Slots) -> Deal | None:
    """Return what to deal next into a free slot, or None."""
    if not slots.free:
        return None
    spare = len(slots.free) - sum(run.passed for run in runs)
    # Copies count as held, or a run that nobody consumes could take slot after slot.
    for run in sorted(runs, key=lambda run: (run.held, not run.wanted)):
        deal = _candidate(run, staff, slots)
        # A position passed over before takes the slot reserved for it; others leave the reserve.
        if deal and (deal.position < run.frontier or run.passes(deal.position) < spare):
            return deal
    return None


def starving_deal(runs: Collection[Run], staff: Staff, slots: Slots) -> Deal | None:
    """Return the next deal of a run that is wanted, holds nothing, and lacks but a slot."""
    for run in runs:
        if run.wanted and not run.held:
            deal = _candidate(run, staff, slots)
            if deal and not run.passes(deal.position):
                return deal
    return None


def victim(slots: Slots) -> Job | None:
    """Return whose slot to empty: of the run with most built slots the one delivered last."""
    built = [job for job in slots.jobs.values() if job.inside]
    count = Counter(job.run.number for job in built)
    return max(
        built,
        key=lambda job: (count[job.run.number], job.run.number, job.task.positions),
        default=None,
    )


def _candidate(run: Run, staff: Staff, slots: Slots) -> Deal | None:
    """Return what is next in *run*, as if there were slots enough."""
    choices = []
    for worker in staff.with_time():
        position = run.head(staff.seat(worker))
        # Failures and copies hold no slot, so it is not slots that keep them from piling up.
        if position is not None and (run.kept < slots.total or position == run.delivered):
            load = staff.load(worker)
            # By position where delivery waits for it; else by load, for "block" would be built
            # block by block.
            key = (position, load) if run.order.ordered else (load, position)
            choices.append((key, worker, position))
    if not choices:
        return None
    _, worker, position = min(choices)
    return Deal(run, worker, position)
