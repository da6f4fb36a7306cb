"""What a scheduler did last and how its books stand, as text, for the case that it has locked itself up. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_mpseq.events import Action, Event
    from keras_mpseq.ledger import Job, Run, Slots
    from keras_mpseq.staff import Staff

_BRIEF = {"Batch", "Failure", "Lost", "Past"}
"""What is told by its name alone: it holds what the user gave."""


def report(
    trace: Iterable[tuple[Event, list[Action]]], staff: Staff, runs: Iterable[Run], again: Iterable[Job], slots: Slots
) -> str:
    """Return a line for each event, the oldest first, with the actions that followed; then the books."""
    lines = [f"{_text(event)} -> {', '.join(map(_text, actions)) or 'nothing'}" for event, actions in trace]
    for number, worker in enumerate(staff.all):
        tasks = ", ".join(_text(job.task) for job in worker.jobs)
        lines.append(f"worker {number}: {worker.state.value}, holds {tasks or 'nothing'}")
    for run in runs:
        wanted = "wanted" if run.wanted else "not wanted"
        places = f"next to deal {run.heads}, ready {sorted(run.ready)}"
        lines.append(f"run {run.number}: {wanted}, delivered {run.delivered} of {run.order.size}, {places}")
    lines.append(f"to be sent again: {[job.task.positions for job in again]}; slots: {_text(slots.counts())}")
    return "\n".join(lines)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        name = type(value).__name__
        if name in _BRIEF:
            return name
        if hasattr(value, "_fields"):
            fields = (f"{field}={_text(part)}" for field, part in zip(value._fields, value, strict=True))
            return f"{name}({', '.join(fields)})"
        return f"({', '.join(map(_text, value))})"
    return repr(value) if value is None or isinstance(value, (int, bool)) else type(value).__name__
