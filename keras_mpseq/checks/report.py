"""What `check` returns."""

from __future__ import annotations

from collections.abc import Sequence

from keras_mpseq.errors import CheckError
from keras_mpseq.findings import Finding
from keras_mpseq.reporting import Results, by_place, coloured, render, to_html


class Report:
    """What `check` found, and what it could not look at. Its `str()` is the text that the command prints."""

    findings: list[Finding]
    """By place; what was expected is not among them."""
    unverified: list[str]
    """What could not be looked at, as sentences without their full stop."""
    expected: list[tuple[Finding, str]]
    """Findings that were expected, each with the reason that was given."""
    class_name: str
    """Of the sequence."""

    def __init__(
        self,
        findings: Sequence[Finding],
        unverified: Sequence[str] = (),
        expected: Sequence[tuple[Finding, str]] = (),
        class_name: str = "",
    ) -> None:
        self.findings = sorted(findings, key=by_place)
        self.unverified = list(unverified)
        self.expected = list(expected)
        self.class_name = class_name

    @property
    def ok(self) -> bool:
        """Whether there is no error and no warning."""
        return all(finding.severity == "info" for finding in self.findings)

    def raise_for_errors(self) -> None:
        """Raise unless the report is `ok`.

        Raises:
            CheckError: There is an error or a warning; the message is the report.
        """
        if not self.ok:
            bad = [finding for finding in self.findings if finding.severity != "info"]
            codes = ", ".join(sorted({finding.code for finding in bad}))
            raise CheckError(
                f"{self.class_name or 'The sequence'} is not safe in several processes: {codes}",
                remedy=f"What was found:\n\n{render(self._results()).rstrip()}",
            )

    def __str__(self) -> str:
        """Return the report as text, in colours where the output is a terminal and NO_COLOR is not set."""
        return render(self._results(), colour=coloured()).rstrip("\n")

    def __repr__(self) -> str:
        counts = ", ".join(f"{number} {severity}" for severity, number in self._results().counts().items())
        return f"<Report on {self.class_name}: {counts}, {len(self.unverified)} unverified>"

    def to_json(self) -> str:
        """Return the report as JSON, in the form that `keras-mpseq check --output-format json` prints."""
        return render(self._results(), "json")

    def to_sarif(self) -> str:
        """Return the report as SARIF 2.1.0."""
        return render(self._results(), "sarif")

    def _repr_html_(self) -> str:
        return to_html(self._results())

    def _results(self) -> Results:
        return Results(findings=self.findings, classes=1, unverified=self.unverified)
