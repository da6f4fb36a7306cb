"""SEQ2xx and SEQ409: what calls change, and whether batches depend on the order of calls."""

from __future__ import annotations

import linecache
from collections.abc import Iterator

from keras_mpseq.checks.plan import Evidence
from keras_mpseq.checks.records import Place, Written
from keras_mpseq.checks.verdicts import are, batches, found
from keras_mpseq.findings import Finding
from keras_mpseq.state.values import name_of

_MESSAGES = {
    "SEQ201": ("is bound anew while serving a batch", "are bound anew while serving a batch"),
    "SEQ202": ("is changed while serving a batch", "are changed while serving a batch"),
    "SEQ203": ("of the class is written while serving a batch", "of the class are written while serving a batch"),
    "SEQ204": ("of an enclosing function is changed while serving a batch", "of enclosing functions are changed"),
    "SEQ205": ("is written while serving a batch", "are written while serving a batch"),
    "SEQ206": ("is used up while serving a batch", "are used up while serving a batch"),
    "SEQ207": ("is returned and overwritten by the next batch", "are returned and overwritten by the next batch"),
    "SEQ208": ("is written while serving a batch and read by", "are written while serving a batch and read by"),
    "SEQ209": ("is changed in place through a view of it", "are changed in place through views of them"),
    "SEQ210": ("keeps what batches have computed", "keep what batches have computed"),
}

_CAME_OUT = ("came out otherwise", "came out otherwise")


def judge(evidence: Evidence) -> Iterator[Finding]:
    """Yield what is wrong with the state."""
    order = evidence.order_dependent()
    threads = _differ_in_threads(evidence)
    groups: dict[tuple[str, Place | None, str], list[str]] = {}
    for key in evidence.state_changed():
        written = _written(evidence, key)
        for code in _codes(evidence, key, written, order):
            reader = written.read_by if code == "SEQ208" else ""
            for place in _places(evidence, key, code, written):
                groups.setdefault((code, place, reader), []).append(name_of(key))
    for (code, place, reader), names in groups.items():
        message = are(sorted(names), *_MESSAGES[code])
        severity, proof = _weighed(evidence, code, order, threads)
        yield found(evidence, code, f"{message} {reader}".strip(), place, severity=severity, proof=proof)
    yield from _order(evidence, order)


def _differ_in_threads(evidence: Evidence) -> list[int]:
    serial = evidence.batches("serial")
    outcome = evidence.outcomes.get("threads")
    calls = [] if outcome is None else outcome.calls
    return sorted({call.index for call in calls if call.raised is not None or call.leaves != serial.get(call.index)})


def _written(evidence: Evidence, key: str) -> Written:
    return next((one for one in evidence.trace.written if one.key == key), Written(key=key))


def _codes(evidence: Evidence, key: str, written: Written, order: list[int]) -> list[str]:
    """Return the rules that a change of *key* breaks."""
    changes = [change for call in evidence.serial.calls for change in call.changes if change.key == key]
    if key.startswith("cache ") or (written.memo and not order):
        return ["SEQ210"]
    if key.startswith("class "):
        return ["SEQ203"]
    if key.startswith("free "):
        return ["SEQ204"]
    if any(change.shrank for change in changes):
        return ["SEQ206"]
    if key.startswith("global "):
        return ["SEQ201" if any(change.rebound for change in changes) else "SEQ202"]
    if evidence.serial.overwritten and key in _aliased(evidence):
        return ["SEQ207"]
    if _changed_through_view(evidence, key, written) is not None:
        return ["SEQ209"]
    if written.read_by:
        return ["SEQ208", *(["SEQ205"] if order else [])]
    return ["SEQ205"]


def _aliased(evidence: Evidence) -> set[str]:
    """Return the attributes in whose memory batches lie."""
    paths = {path for call in evidence.serial.calls for path in call.aliases}
    return {f"self.{path[5:].partition('[')[0].partition('.')[0]}" for path in paths}


def _changed_through_view(evidence: Evidence, key: str, written: Written) -> Place | None:
    """Return the line that changes an array in place without naming the attribute."""
    for call in evidence.calls("freeze"):
        raised = call.raised
        if raised is None or raised.place is None or "read-only" not in raised.text:
            continue
        lines = {(place.path, place.line) for place in written.places}
        place = raised.place
        if (not lines or (place.path, place.line) in lines) and key not in linecache.getline(place.path, place.line):
            return place
    return None


def _places(evidence: Evidence, key: str, code: str, written: Written) -> list[Place | None]:
    if code == "SEQ209":
        return [_changed_through_view(evidence, key, written)]
    if code == "SEQ207":
        returned = [call.returned_at for call in evidence.trace.calls if call.returned_at is not None]
        return [returned[0]] if returned else [None]
    return list(written.places) or [None]


def _weighed(evidence: Evidence, code: str, order: list[int], threads: list[int]) -> tuple[str, str]:
    """Return severity and proof."""
    if code == "SEQ207":
        index, later = evidence.serial.overwritten[0]
        return "", f"seq[{index}] changed when seq[{later}] was built"
    if code not in ("SEQ201", "SEQ202", "SEQ203", "SEQ204", "SEQ205", "SEQ206", "SEQ208"):
        return "", "another process came to the same batches" if code == "SEQ210" else ""
    if order:
        return "", f"{batches(order, *_CAME_OUT)} when other batches were built before"
    if threads:
        return "", f"{batches(threads, *_CAME_OUT)} when two threads called at the same time"
    # What is written and has no effect on batches is wrong in what it counts only.
    return "warning" if code == "SEQ205" else "", "each process changes its own copy"


def _order(evidence: Evidence, order: list[int]) -> Iterator[Finding]:
    explained = evidence.changed("rng self.") or any(
        change.shrank for call in evidence.serial.calls for change in call.changes
    )
    if order and not explained:
        yield found(
            evidence,
            "SEQ409",
            batches(order, "depends on which batches were built before", "depend on which batches were built before"),
            proof="built in order, in reverse order and twice in a row, with the same seeds",
        )
