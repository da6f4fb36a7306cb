"""`check`: the public function, its arguments, and what becomes of the findings."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal

import cloudpickle
import numpy as np

from keras_mpseq.checks import judge_chance, judge_contract, judge_cost, judge_resources, judge_state
from keras_mpseq.checks.plan import Evidence, Plan
from keras_mpseq.checks.report import Report
from keras_mpseq.checks.sending import parts_of
from keras_mpseq.checks.verdicts import named_batches
from keras_mpseq.errors import MpseqError, is_interrupt, user_error
from keras_mpseq.findings import HEAVY, Finding
from keras_mpseq.lint.codes import codes_of, matching
from keras_mpseq.order import preserved_globals, seed_globals

_JUDGES = (judge_resources.judge, judge_state.judge, judge_chance.judge, judge_contract.judge, judge_cost.judge)
_ON_FAIL = ("report", "warn", "raise")


def check(
    seq_or_factory: Any,
    *,
    samples: int = 6,
    epochs: int = 2,
    select: Collection[str] | None = None,
    ignore: Collection[str] | None = None,
    expected: Mapping[str, str] | None = None,
    on_fail: Literal["report", "warn", "raise"] = "report",
    lint: bool = False,
    timeout: float = 60.0,
    heavy_state_limit: int = HEAVY,
) -> Report:
    """Build some batches of a sequence in throw-away processes, and prove what goes wrong in several processes.

    The same batches are built in order, in reverse order, twice, in another process, with other seeds, and compared
    bit for bit. What `__getitem__` changes, draws and opens is found with its line. Each process is worker 0 and calls
    `on_worker_start` first, if there is one; what that sets and opens is the worker's own. Nothing runs in this process
    but the factory, and what pickling calls; files that `__getitem__` writes are written.

    A factory shows more than a sequence does: also what happens when the sequence is made, and it makes one in each
    process where it cannot be sent.

    Args:
        seq_or_factory: A `SafeSequence`, a `PyDataset`, a `Sequence` of tf_keras, anything with `__len__` and
            `__getitem__`; or a class or function without arguments that makes one.
        samples: Batches to build, in pairs of neighbours from the first to the last.
        epochs: Epochs to go through, with their hooks.
        select: Codes, names or beginnings of codes (`"SEQ2"`) to look for; None means all rules that are stable.
        ignore: The same, not to look for.
        expected: Codes that may be found, with the reason; one that is not found is reported.
        on_fail: What to do unless the report is ok: `"report"` nothing more, `"warn"` a warning, `"raise"` an error.
        lint: Look at the source of the sequence's classes as well, and join what is found; comments that suppress,
            such as `# seq: ignore[SEQ205] reason`, then count for both.
        timeout: Seconds that loading the sequence, or one batch, may take; a process that takes longer is ended, and
            its stack is in the report. After twice this time, trials that could be left out are left out, and named.
        heavy_state_limit: Bytes of pickle from which an attribute is too heavy (SEQ601).

    Returns:
        The report; its `ok` says that there is no error and no warning.

    Raises:
        CheckError: With `on_fail="raise"`: the report is not ok.
        MpseqError: An argument means nothing, or the factory raised.

    Example:
        ```python
        report = check(sequence)
        assert report.ok, report
        ```
    """
    _validate(seq_or_factory, samples, epochs, on_fail, timeout, heavy_state_limit)
    wanted, refused = codes_of(select, ignore=ignore or ()), matching(ignore or ())
    reasons = _reasons(expected or {})
    sequence, factory = _sequence_of(seq_or_factory)
    parts = parts_of(sequence)
    evidence = Plan(parts, factory, samples, epochs, float(timeout)).run()
    evidence.heavy = heavy_state_limit
    findings = [finding for judge in _JUDGES for finding in judge(evidence)]
    if lint:
        from keras_mpseq.checks.merge import with_source
        from keras_mpseq.lint.select import uncovered
        from keras_mpseq.reporting import Sources

        # The comments are part of the source: what one suppresses is known, whoever found it.
        findings = uncovered(with_source(sequence, findings), Sources())
    # What ended the check is told whatever was selected: without it, no finding would mean that nothing was wrong.
    ends = [one for one in judge_contract.ends(evidence) if one.code in wanted or one.code not in refused]
    findings = [*ends, *(finding for finding in findings if finding.code in wanted)]
    report = _report(evidence, _once(findings), reasons)
    if on_fail == "raise":
        report.raise_for_errors()
    elif on_fail == "warn" and not report.ok:
        warnings.warn(f"{parts.class_name} is not safe in several processes:\n{report}", stacklevel=2)
    return report


# --- arguments --------------------------------------------------------------------------------------


def _validate(sequence: Any, samples: Any, epochs: Any, on_fail: Any, timeout: Any, heavy: Any) -> None:
    if not hasattr(os, "fork"):
        raise MpseqError("check() needs Linux or macOS: its processes talk over Unix sockets")
    if not (_is_sequence(sequence) or callable(sequence)):
        raise MpseqError(
            f"check() takes a sequence or a function that makes one, got {_shown(sequence)}",
            remedy="A sequence has __getitem__ and __len__.",
        )
    for name, value, least in (("samples", samples, 1), ("epochs", epochs, 1), ("heavy_state_limit", heavy, 0)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise MpseqError(f"{name} must be an int of {least} or more, got {value!r}")
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < float("inf"):
        raise MpseqError(f"timeout must be a number of seconds above 0, got {timeout!r}")
    if on_fail not in _ON_FAIL:
        raise MpseqError(f"on_fail must be one of {', '.join(map(repr, _ON_FAIL))}, got {on_fail!r}")


def _reasons(expected: Mapping[str, str]) -> dict[str, str]:
    """Return the reason for each code that may be found."""
    reasons: dict[str, str] = {}
    for selector, reason in expected.items():
        if not isinstance(reason, str) or not reason.strip():
            raise MpseqError(f"expected must give a reason for {selector}, got {reason!r}")
        reasons |= dict.fromkeys(matching([selector]), reason)
    return reasons


def _is_sequence(value: Any) -> bool:
    return not isinstance(value, type) and hasattr(type(value), "__getitem__")


def _sequence_of(value: Any) -> tuple[Any, bytes]:
    """Return the sequence, and the pickled factory if there is one."""
    if _is_sequence(value):
        return value, b""
    factory: Callable[[], Any] = value
    name = getattr(factory, "__qualname__", type(factory).__name__)
    try:
        # As in the children: what it draws is then no difference between their sequences and this one.
        with preserved_globals():
            seed_globals(0, 0, 0)
            sequence = factory()
    except BaseException as error:  # The wall around the user's code.
        if is_interrupt(error):
            raise
        raise user_error(f"The factory {name}", error) from error
    if not _is_sequence(sequence):
        raise MpseqError(
            f"The factory {name} returned {_shown(sequence)} in the place of a sequence",
            remedy="A sequence has __getitem__ and __len__.",
        )
    try:
        pickled: bytes = cloudpickle.dumps(factory, 5)
    except Exception:  # What it refers to stays here; the sequence itself may travel.
        pickled = b""
    return sequence, pickled


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"an object of type {type(value).__name__}"


# --- the report -------------------------------------------------------------------------------------


def _once(findings: list[Finding]) -> list[Finding]:
    """Return each finding once: what several trials saw is one thing."""
    return list({(one.code, one.path, one.line, one.message): one for one in findings}.values())


def _report(evidence: Evidence, findings: list[Finding], reasons: dict[str, str]) -> Report:
    expected = [(finding, reasons[finding.code]) for finding in findings if finding.code in reasons]
    seen = {finding.code for finding, _ in expected}
    findings = [finding for finding in findings if finding.code not in reasons]
    for reason in dict.fromkeys(reasons.values()):
        codes = [code for code, of in reasons.items() if of == reason]
        if not seen & set(codes):
            message = f"{codes[0]} was expected ({reason}), and not found"
            findings.append(Finding.of("SEQ001", message, class_name=evidence.parts.class_name, confidence="proved"))
    return Report(findings, list(dict.fromkeys(_unverified(evidence))), expected, evidence.parts.class_name)


def _unverified(evidence: Evidence) -> Iterator[str]:
    parts = evidence.parts
    for path, kind in parts.lost.items():
        yield f"{_of_self(path)} ({kind}) could not be sent to another process"
    if parts.packed is None and not evidence.has_factory:
        yield "The sequence could not be sent to another process: no batch was built"
    needed = {call.raised.lost for outcome in evidence.outcomes.values() for call in outcome.calls if call.raised}
    needed |= {raised.lost for outcome in evidence.outcomes.values() for _, raised in outcome.hook_raised}
    for path in sorted(needed - {""}):
        yield f"Batches that need {_of_self(path)} were not compared: give check() a function that makes the sequence"
    if evidence.not_loaded is not None:
        yield "The sequence could not be loaded in another process: no batch was built"
    if evidence.blocked is not None:
        yield f"What comes after the trial {evidence.blocked.trial!r} was not tried"
    if evidence.left_out:
        trials = ", ".join(map(repr, evidence.left_out))
        why = (
            "Batches take long" if evidence.hung is None else "Forked processes hang, and fresh ones take long to load"
        )
        yield f"{why}: the trials {trials} were left out"
    opaque: dict[str, list[int]] = {}
    for call in evidence.calls("serial"):
        for sentence in call.opaque[:3] if call.kind != "NoneType" and not parts.safe else ():
            opaque.setdefault(sentence.rstrip("."), []).append(call.index)
    for sentence, indices in opaque.items():
        yield f"{named_batches(indices)}: {sentence}"
    for key in evidence.serial.too_large:
        yield f"{key} is too large to be compared byte by byte"


def _of_self(path: str) -> str:
    return "self" + path.removeprefix("seq")
