"""SEQ1xx, SEQ3xx: what the sequence holds that no other process can have, and what batches do to the outside world."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from keras_mpseq.checks import members
from keras_mpseq.checks.judge_chance import events
from keras_mpseq.checks.plan import Evidence
from keras_mpseq.checks.records import Event, Place
from keras_mpseq.checks.verdicts import batches, found
from keras_mpseq.findings import Finding

_HOLDS = {
    "SEQ102": "a lock, thread or queue",
    "SEQ301": "an open array file",
    "SEQ302": "a database connection",
    "SEQ303": "an open file or socket",
    "SEQ304": "an object of a framework",
}
_OFTEN = 3
"""Times that one call opens one file from which it is worth a word."""


def judge(evidence: Evidence) -> Iterator[Finding]:
    """Yield what is wrong with resources."""
    yield from _members(evidence)
    yield from _refused(evidence)
    yield from _not_sent(evidence)
    yield from _class(evidence)
    yield from _framework(evidence)
    yield from _outside(evidence)
    yield from _files(evidence)


# --- members ----------------------------------------------------------------------------------------


def _members(evidence: Evidence) -> Iterator[Finding]:
    seen: set[str] = set()
    for code, member in evidence.parts.kinds:
        # What lies inside a member that was told is no news: the lock of a queue, the raw file of a buffered one.
        if any(member.path.startswith((f"{path}.", f"{path}[")) for path in seen):
            continue
        seen.add(member.path)
        kind = members.type_name(member.value)
        message = f"{member.path} is {_HOLDS[code]} ({kind}), which belongs to one process"
        yield found(evidence, code, message, evidence.parts.stored_at(member.path), confidence="certain")


def _refused(evidence: Evidence) -> Iterator[Finding]:
    told = {member.path for _, member in evidence.parts.kinds}
    for member in evidence.parts.refused:
        path = "self" + member.path.removeprefix("seq")
        value = member.value
        if members.kind_of(value) or any(path == one or path.startswith((f"{one}.", f"{one}[")) for one in told):
            continue
        if isinstance(value, type) or value is evidence.parts.sequence:
            continue  # Told as SEQ103, or by what happens when it is loaded.
        kind = members.type_name(value)
        sent = evidence.parts.packed is not None and member.path not in evidence.parts.lost
        if evidence.parts.safe and sent:
            continue  # A SafeSequence is sent by our own pickler, which takes it.
        message = f"{path} ({kind}) does not pickle"
        place = evidence.parts.stored_at(path)
        proof = f"pickle says: {_reason(member.error)}" if member.error is not None else ""
        yield found(evidence, "SEQ101", message, place, proof=proof)


def _not_sent(evidence: Evidence) -> Iterator[Finding]:
    """Yield that nothing at all could be sent: which member it is, nobody knows."""
    parts = evidence.parts
    if parts.packed is None:
        why = "no worker gets the sequence"
        yield found(
            evidence, "SEQ101", parts.unsendable.rstrip("."), why=why, fix="correct `__getstate__` or `__reduce__`"
        )


def _reason(error: Exception | None) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def _class(evidence: Evidence) -> Iterator[Finding]:
    parts = evidence.parts
    if parts.misplaced and not parts.safe:
        message = f"{parts.class_name} {parts.misplaced}, where no other process can import it"
        yield found(evidence, "SEQ103", message, confidence="certain")
    missing: dict[str, Place | None] = {}
    for call in evidence.calls("serial"):
        raised = call.raised
        if raised is not None and evidence.is_lost_attribute(raised.attribute):
            missing.setdefault(raised.attribute, raised.place)
    for name, place in missing.items():
        message = f"self.{name} is lost when the sequence is pickled, and batches need it"
        yield found(evidence, "SEQ104", message, place, proof="__getitem__ raises AttributeError in another process")
    if not missing and _changed_on_the_way(evidence):
        message = "The sequence builds other batches after it was pickled"
        yield found(evidence, "SEQ104", message, proof=batches(evidence.differ("made", "again"), "differs", "differ"))
    if parts.forks_with_threads:
        message = f"This process has {parts.forks_with_threads} threads, and workers would be forked from it"
        stack = "" if evidence.hung is None else evidence.hung.stack.strip()
        proof = f"in a process that was forked from one with threads, a batch hung:\n{stack}" if stack else ""
        yield found(evidence, "SEQ309", message, proof=proof)


def _changed_on_the_way(evidence: Evidence) -> bool:
    """Tell whether batches of a sequence that was pickled differ from those of one that was made on the spot."""
    reproducible = not evidence.ambient() and not evidence.differ("made", "made again")
    return reproducible and bool(evidence.differ("made", "again")) and not evidence.differ("made", "made elsewhere")


# --- what calls do ----------------------------------------------------------------------------------


def _framework(evidence: Evidence) -> Iterator[Finding]:
    seen: dict[Place | None, str] = {}
    for _, event in events(evidence, "framework", "trace"):
        seen.setdefault(event.place, f"{event.detail} is called while serving a batch")
    for call in evidence.calls("serial"):
        for tensor in call.tensors if not seen else ():
            seen.setdefault(_returned_at(evidence, call.index), f"Leaf {tensor}")
    if not seen:
        for _, event in events(evidence, "import"):
            seen.setdefault(event.place, f"{event.detail} is imported while serving a batch")
    for place, message in seen.items():
        yield found(evidence, "SEQ304", message, place)


def _returned_at(evidence: Evidence, index: int) -> Place | None:
    return next((call.returned_at for call in evidence.trace.calls if call.index == index), None)


def _outside(evidence: Evidence) -> Iterator[Finding]:
    started: dict[Place | None, Event] = {}
    for _, event in events(evidence, "start"):
        started.setdefault(event.place, event)
    for place, event in started.items():
        yield found(
            evidence, "SEQ306", "Threads or processes are started while serving a batch", place, proof=event.detail
        )
    printed: dict[Place | None, Event] = {}
    for _, event in events(evidence, "print"):
        printed.setdefault(event.place, event)
    for place, event in printed.items():
        if not (evidence.blocked or place is None):
            yield found(evidence, "SEQ308", f"Serving a batch writes to {event.detail}", place)


def _files(evidence: Evidence) -> Iterator[Finding]:
    writers: dict[str, dict[int, Place | None]] = defaultdict(dict)
    for index, event in events(evidence, "write"):
        writers[event.detail].setdefault(index, event.place)
    told: set[Place | None] = set()
    for path, by_index in writers.items():
        place = next(iter(by_index.values()))
        if len(by_index) > 1 and place not in told:
            told.add(place)
            proof = batches(list(by_index), "writes", f"all write {path}")
            yield found(evidence, "SEQ307", "Batches of different indices write the same file", place, proof=proof)
    for call in evidence.calls("serial"):
        opened: dict[tuple[str, Place | None], int] = defaultdict(int)
        for event in call.events:
            if event.kind == "read":
                opened[event.detail, event.place] += 1
        for (path, place), count in opened.items():
            if count >= _OFTEN and place not in told:
                told.add(place)
                message = f"One batch opens the same file {count} times"
                yield found(evidence, "SEQ603", message, place, proof=f"seq[{call.index}] opened {path}")
    calls = evidence.serial.calls
    if calls and all(call.fds > 0 for call in calls):
        place = next((event.place for call in calls for event in call.events if event.kind in ("read", "write")), None)
        message = "Every batch leaves a file or socket open"
        yield found(evidence, "SEQ303", message, place, proof=f"{calls[0].fds} more descriptors after each call")
