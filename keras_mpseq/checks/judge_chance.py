"""SEQ4xx: random generators, what differs from process to process, and indices that are not read.

The workers of a `SafeSequence` seed `random` and `np.random` for every batch, so that drawing from them is safe there;
it is reported as information, because the sequence would not be safe anywhere else.
"""

from __future__ import annotations

from collections.abc import Iterator

from keras_mpseq.checks.plan import Evidence
from keras_mpseq.checks.records import NUMPY, PYTHON, TORCH, Event, Place
from keras_mpseq.checks.verdicts import batches, found
from keras_mpseq.findings import Finding

_GLOBAL = {f"rng {NUMPY}": "SEQ401", f"rng {PYTHON}": "SEQ402", f"rng {TORCH}": "SEQ402"}
_SEEDED_BY_US = (f"rng {NUMPY}", f"rng {PYTHON}")


def judge(evidence: Evidence) -> Iterator[Finding]:
    """Yield what is wrong with chance."""
    yield from _seeds(evidence)
    yield from _draws(evidence)
    yield from _ambient(evidence)
    yield from _made(evidence)
    yield from _index(evidence)


def events(evidence: Evidence, kind: str, trial: str = "serial") -> Iterator[tuple[int, Event]]:
    """Yield index and event for each event of a kind, in order."""
    outcome = evidence.outcomes.get(trial)
    for call in outcome.calls if outcome is not None else ():
        yield from ((call.index, event) for event in call.events if event.kind == kind)


def _seeds(evidence: Evidence) -> Iterator[Finding]:
    seen = {}
    for _, event in events(evidence, "seed"):
        seen[event.place, event.detail] = f"{event.detail} is called while serving a batch", ""
    outcome = evidence.outcomes.get("epochs")
    for hook, event in outcome.hook_events if outcome is not None else ():
        if event.kind == "seed":
            seen.setdefault((event.place, event.detail), (f"{event.detail} is called in {hook}", "warning"))
    for (place, _), (message, severity) in seen.items():
        yield found(evidence, "SEQ404", message, place, severity=severity)


def _draws(evidence: Evidence) -> Iterator[Finding]:
    reseeded = {event.detail.rpartition(".")[0] for _, event in events(evidence, "seed")}
    matters = evidence.differ("again", "seeds")
    for key in evidence.changed("rng "):
        name = key[4:]
        if name in reseeded and not matters:
            continue  # Told as SEQ404.
        code = _GLOBAL.get(key, "SEQ403")
        ours = evidence.parts.safe and key in _SEEDED_BY_US
        message = f"{name} is drawn from while serving a batch"
        if ours:
            message += ", which only the workers of a SafeSequence make safe"
        proof = f"{batches(matters, 'has', 'have')} other values when {name} is seeded otherwise" if matters else ""
        if code == "SEQ403":
            proof = "every process has a copy of the generator, and draws the same numbers"
        written = next((one for one in evidence.trace.written if one.key == key), None)
        places: list[Place | None] = [*written.places] if written is not None else []
        for place in places or [None]:
            yield found(evidence, code, message, place, severity="info" if ours else "", proof=proof)


# --- what differs between processes -----------------------------------------------------------------


def _ambient(evidence: Evidence) -> Iterator[Finding]:
    """Yield what makes a batch another one in another process, the nearest cause only."""
    changing, elsewhere = evidence.ambient(), evidence.differ("again", "ambient")
    turned = evidence.differ("ambient", "listing")
    if changing:
        what, place = _source(evidence)
        proof = f"{batches(changing, 'differs', 'differ')} between two processes that make the same calls"
        yield found(evidence, "SEQ406", f"The batch depends on {what}", place, proof=proof)
    elif elsewhere:
        yield _elsewhere(evidence, elsewhere)
    elif turned:
        place = next((event.place for _, event in events(evidence, "list")), None)
        message = "The batch depends on the order in which the file system lists a directory"
        proof = f"{batches(turned, 'differs', 'differ')} when the directory is listed the other way round"
        yield found(evidence, "SEQ407", message, place, proof=proof)


def _source(evidence: Evidence) -> tuple[str, Place | None]:
    event = next((event for _, event in events(evidence, "ambient")), None)
    if event is not None:
        return event.detail, event.place
    return "something that is another in every process, such as the time", evidence.about.ambient_at


def _elsewhere(evidence: Evidence, indices: list[int]) -> Finding:
    proof = f"{batches(indices, 'differs', 'differ')} in a process with another PYTHONHASHSEED and TZ"
    if evidence.about.ambient_at is not None:
        message = "The batch depends on hash(), id() or the environment of its process"
        return found(evidence, "SEQ406", message, evidence.about.ambient_at, proof=proof)
    place = next((event.place for _, event in events(evidence, "list")), None)
    return found(evidence, "SEQ407", "The batch depends on the order of a set", place, proof=proof)


def _made(evidence: Evidence) -> Iterator[Finding]:
    """Yield what two sequences from the same factory differ in."""
    outcome = evidence.outcomes.get("made")
    if outcome is None or evidence.ambient():
        return
    initial = [event for hook, event in outcome.hook_events if hook == "__init__"]
    if evidence.differ("made", "made again"):
        source = next((event for event in initial if event.kind == "ambient"), None)
        what = source.detail if source is not None else "something that is another in every process"
        message = f"The sequence depends on {what} when it is made"
        yield found(evidence, "SEQ405", message, source.place if source is not None else None)
        return
    listing = next((event.place for event in initial if event.kind == "list"), None)
    sets = evidence.differ("made", "made elsewhere")
    turned = evidence.differ("made elsewhere", "made from other listings")
    if sets and not evidence.differ("again", "ambient"):
        message = "The sequence depends on the order of a set when it is made"
        proof = f"{batches(sets, 'differs', 'differ')} when it is made in a process with another PYTHONHASHSEED"
        yield found(evidence, "SEQ407", message, proof=proof)
    elif turned and not evidence.differ("ambient", "listing"):
        message = "The sequence depends on the order in which the file system lists a directory"
        proof = f"{batches(turned, 'differs', 'differ')} when the directory is listed the other way round"
        yield found(evidence, "SEQ407", message, listing, proof=proof)


# --- the index --------------------------------------------------------------------------------------


def _index(evidence: Evidence) -> Iterator[Finding]:
    alike = list(evidence.batches("one seed").values())
    if not evidence.about.index_unread or len(alike) < 2:
        return
    serial = list(evidence.batches("serial").values())
    constant = all(batch == serial[0] for batch in serial) and not evidence.changed()
    if constant:
        return  # A dummy that is the same for ever: nothing that another index could change.
    same = all(batch == alike[0] for batch in alike)
    drawn = set(evidence.changed())
    yield found(
        evidence,
        "SEQ408",
        "__getitem__ never reads its index",
        severity="info" if evidence.parts.safe and drawn <= set(_SEEDED_BY_US) else "",
        proof=f"all of {len(alike)} batches are equal when they are seeded alike" if same else "",
    )
