"""What all judges share: how evidence becomes a finding."""

from __future__ import annotations

from collections.abc import Sequence

from keras_mpseq.checks.plan import Evidence
from keras_mpseq.checks.records import Place
from keras_mpseq.findings import Finding, Step

_MOST_NAMED = 3


def found(
    evidence: Evidence,
    code: str,
    message: str,
    place: Place | None = None,
    *,
    severity: str = "",
    proof: str = "",
    why: str = "",
    fix: str = "",
    confidence: str = "proved",
) -> Finding:
    """Return a finding about the sequence.

    Args:
        evidence: Of the check.
        code: Of the rule.
        message: One sentence without its full stop.
        place: In the user's code; None means where `__getitem__` is defined, if that is known.
        severity: Empty means the rule's own.
        proof: What was seen.
        why: What goes wrong here; empty means what the rule says.
        fix: What to do here; empty means what the rule says.
        confidence: What was run is proved; what only follows from the kinds of members is certain.
    """
    place = place or evidence.about.def_place
    chain = (
        () if place is None else tuple(Step(function=name, path=path, line=line) for name, path, line in place.chain)
    )
    return Finding.of(
        code,
        message,
        severity=severity,
        confidence=confidence,
        path=None if place is None else place.path,
        line=None if place is None else place.line,
        class_name=evidence.parts.class_name,
        chain=chain,
        proof=proof,
        why=why,
        fix=fix,
    )


def batches(indices: Sequence[int], one: str, many: str) -> str:
    """Return batches with the verb that fits: `seq[3] differs`, or `seq[0], seq[1], seq[2] and 4 more differ`."""
    return f"{named_batches(indices)} {one if len(indices) == 1 else many}"


def named_batches(indices: Sequence[int]) -> str:
    """Return batches as a sentence lists them: `seq[0], seq[1], seq[2] and 4 more`."""
    named = [f"seq[{index}]" for index in indices[:_MOST_NAMED]]
    rest = len(indices) - len(named)
    return listed([*named, *([f"{rest} more"] if rest else [])])


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence lists them."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def are(names: Sequence[str], one: str, many: str) -> str:
    """Return names with the verb that fits their number."""
    return f"{listed(names)} {one if len(names) == 1 else many}"
