"""`check` in pytest: one test for each sequence and each rule."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import pytest

from keras_mpseq.checks import Report, check
from keras_mpseq.errors import CheckError, MpseqError
from keras_mpseq.lint.codes import codes_of, matching
from keras_mpseq.rules import RULES

__all__ = ["RuleCheck", "parametrize_with_checks"]

Expected = Mapping[str, str]
"""Code, name or beginning of codes, and the reason why it may be found."""


class RuleCheck:
    """What a test is given: called without arguments, it fails if the rule finds something in the sequence.

    Args:
        code: Of the rule.
        reported: Returns the report; the sequence is checked at the first call, for all its rules.
        strict: Whether notes count as well, as they do where a finding is expected.
    """

    def __init__(self, code: str, reported: Callable[[], Report], *, strict: bool = False) -> None:
        self.code = code
        self._reported = reported
        self._strict = strict

    def __call__(self) -> None:
        """Fail if the rule found something.

        Raises:
            CheckError: It did; the message is what the report says of it.
        """
        __tracebackhide__ = True
        report = self._reported()
        found = [f for f in report.findings if f.code == self.code and (self._strict or f.severity != "info")]
        if found:
            name = f"{self.code} {RULES[self.code].name}"
            raise CheckError(
                f"{report.class_name or 'The sequence'} is not safe in several processes: {name}",
                remedy=f"What was found:\n\n{Report(found, class_name=report.class_name)}",
            )

    def __repr__(self) -> str:
        return f"<check of {self.code}>"


def parametrize_with_checks(
    sequences: Iterable[Any],
    *,
    expected: Expected | Callable[[Any], Expected] | None = None,
    select: Collection[str] | None = None,
    ignore: Collection[str] | None = None,
    samples: int = 6,
    epochs: int = 2,
    lint: bool = False,
    timeout: float = 60.0,
) -> pytest.MarkDecorator:
    """Make one test for each sequence and each rule of a test function that has the parameter `check`.

    The tests are called `Batches-SEQ205`. A sequence is checked once, when the first of its tests runs, and not at all
    if none of them is chosen.

    Args:
        sequences: Functions or classes without arguments that make a sequence, or sequences, as `check` takes them.
        expected: Codes that are found, with the reason: their tests are `xfail`, and fail if nothing is found. Or a
            function that returns this for one of *sequences*.
        select: Codes, names or beginnings of codes to look for; None means all rules that are stable.
        ignore: The same, not to look for.
        samples: Batches to build.
        epochs: Epochs to go through.
        lint: Look at the source as well; rules that only the linter can find then have tests, too.
        timeout: Seconds that a process may take.

    Raises:
        MpseqError: An argument means nothing.

    Example:
        ```python
        @parametrize_with_checks([make_train, make_val], expected={"SEQ210": "the cache is small"})
        def test_sequences(check):
            check()
        ```
    """
    codes = [code for code in sorted(codes_of(select, ignore=ignore or ())) if _is_looked_for(code, lint)]
    parameters = []
    for sequence in sequences:
        run = functools.partial(
            check, sequence, select=codes, samples=samples, epochs=epochs, lint=lint, timeout=timeout
        )
        reported = _Once(run)
        reasons = dict(_reasons(expected(sequence) if callable(expected) else expected or {}))
        for code in codes:
            marks = _expected(reasons[code]) if code in reasons else ()
            one = RuleCheck(code, reported, strict=code in reasons)
            parameters.append(pytest.param(one, id=f"{_name_of(sequence)}-{code}", marks=marks))
    return pytest.mark.parametrize("check", parameters)


def _is_looked_for(code: str, lint: bool) -> bool:
    rule = RULES[code]
    return not code.startswith("SEQ0") and (rule.runtime or (lint and rule.static))


def _reasons(expected: Expected) -> Iterator[tuple[str, str]]:
    for selector, reason in expected.items():
        if not isinstance(reason, str) or not reason.strip():
            raise MpseqError(f"expected must give a reason for {selector}, got {reason!r}")
        for code in matching([selector]):
            yield code, reason


def _expected(reason: str) -> pytest.MarkDecorator:
    return pytest.mark.xfail(reason=reason, raises=CheckError, strict=True)


def _name_of(sequence: Any) -> str:
    while isinstance(sequence, functools.partial):
        sequence = sequence.func
    named: str = getattr(sequence, "__qualname__", type(sequence).__qualname__)
    return named.rpartition(".")[2].strip("<>")


class _Once:
    """Runs a check at the first call; its report, or what it raised, is that of all later ones."""

    def __init__(self, run: Callable[[], Report]) -> None:
        self._run = run
        self._report: Report | None = None
        self._error: MpseqError | None = None

    def __call__(self) -> Report:
        __tracebackhide__ = True
        if self._error is None and self._report is None:
            try:
                self._report = self._run()
            except MpseqError as error:
                self._error = error
        if self._report is None:
            assert self._error is not None
            raise self._error.with_traceback(None)
        return self._report
