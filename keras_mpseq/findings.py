"""What a rule saw, and where: the one record that the linter, `check` and every report share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras_mpseq.rules import rule_of

SEVERITIES = ("error", "warning", "info")
"""From the worst."""
CONFIDENCES = ("proved", "certain", "likely")
"""From the most."""
HEAVY = 64 << 20
"""Bytes of pickle from which an attribute is too heavy for every worker to get, unless a setting says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One hop of a chain of calls that leads to a finding."""

    function: str
    """Qualified name, such as `BatchGenerator._get_net_size`."""
    path: str
    """File, as in the finding."""
    line: int
    """Of the call, or of the statement that is to blame, from 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a rule saw in one place."""

    code: str
    """Of the rule."""
    severity: str
    """`error`, `warning` or `info`."""
    confidence: str
    """`proved`: seen at run time. `certain`: follows from the source. `likely`: follows if names mean what they do."""
    message: str
    """One sentence without its full stop."""
    path: str | None = None
    """File, as given on the command line, or as the code object says; None where nobody knows."""
    line: int | None = None
    """From 1."""
    column: int | None = None
    """From 1, in characters."""
    end_line: int | None = None
    """From 1; the last line that belongs to it."""
    end_column: int | None = None
    """From 1; the first column that no longer belongs to it."""
    class_name: str | None = None
    """The sequence class."""
    chain: tuple[Step, ...] = ()
    """How `__getitem__` gets there, from the outermost call."""
    why: str = ""
    """What goes wrong here; empty means what the rule says."""
    proof: str = ""
    """What was seen at run time."""
    fix: str = ""
    """What to do here; empty means what the rule says."""

    @classmethod
    def of(cls, code: str, message: str, *, severity: str = "", confidence: str = "certain", **where: Any) -> Finding:
        """Return a finding with the severity of its rule, unless *severity* says another.

        Args:
            code: Of the rule.
            message: One sentence without its full stop.
            severity: One of `SEVERITIES`; empty means the rule's own.
            confidence: One of `CONFIDENCES`.
            where: The other fields.
        """
        severity = severity or rule_of(code).severity
        return cls(code=code, severity=severity, confidence=confidence, message=message, **where)

    @property
    def name(self) -> str:
        """Name of the rule."""
        return rule_of(self.code).name

    @property
    def reason(self) -> str:
        """What goes wrong: here, or in general."""
        return self.why or rule_of(self.code).why

    @property
    def remedy(self) -> str:
        """What to do: here, or in general."""
        return self.fix or rule_of(self.code).fix
