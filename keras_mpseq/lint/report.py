"""From what was seen to findings: one for each code and place, whichever class comes across it first."""

from __future__ import annotations

from keras_mpseq.findings import SEVERITIES, Finding, Step
from keras_mpseq.lint.project import Project
from keras_mpseq.lint.summary import Effect, Hop
from keras_mpseq.lint.values import Site
from keras_mpseq.rules import RULES, rule_of


class Report:
    """The findings of a run."""

    def __init__(self, project: Project) -> None:
        """Begin without findings."""
        self.project = project
        self._found: dict[tuple[str, str, int, int], Finding] = {}
        self._lines: dict[str, list[str]] = {}

    def add(
        self,
        code: str,
        site: Site,
        message: str,
        *,
        cls: str | None = None,
        chain: tuple[Hop, ...] = (),
        severity: str = "",
        confidence: str = "certain",
        why: str = "",
        fix: str = "",
    ) -> None:
        """Enter a finding, unless the same was found there already by a shorter way.

        Args:
            code: Of the rule.
            site: What is to blame.
            message: One sentence without its full stop.
            cls: The sequence class.
            chain: The calls on the way.
            severity: Empty means the rule's own.
            confidence: `certain` or `likely`.
            why: What goes wrong here; empty means what the rule says.
            fix: What to do here; empty means what the rule says.
        """
        if code not in RULES:
            return
        key = code, site.path, site.line, site.column
        severity = severity or rule_of(code).severity
        before = self._found.get(key)
        if before is not None and _rank(before.severity, len(before.chain)) <= _rank(severity, len(chain) + 1):
            return
        steps = [Step(function=h.function or "<module>", path=h.path, line=h.line) for h in chain]
        steps.append(Step(function=site.function or "<module>", path=site.path, line=site.line))
        start, end = self._columns(site)
        self._found[key] = Finding(
            code=code,
            severity=severity,
            confidence=confidence,
            message=message,
            path=site.path,
            line=site.line,
            column=start,
            end_line=site.end_line,
            end_column=end,
            class_name=cls,
            chain=tuple(steps),
            why=why,
            fix=fix,
        )

    def _columns(self, site: Site) -> tuple[int, int]:
        """Return where a finding begins and ends, in characters, and at least one wide."""
        start = self._column(site.path, site.line, site.column)
        end = self._column(site.path, site.end_line, site.end_column)
        return start, max(end, start + 1) if site.end_line == site.line else end

    def at(self, code: str, effect: Effect, message: str, cls: str, **more: str) -> None:
        """Enter a finding where an effect happens."""
        self.add(code, effect.site, message, cls=cls, chain=effect.chain, **more)

    def _column(self, path: str, line: int, column: int) -> int:
        """Return a column in characters: the parser counts bytes."""
        if path not in self._lines:
            source = self.project.at(path)
            self._lines[path] = source.text.split("\n") if source else []
        lines = self._lines[path]
        if not 0 < line <= len(lines) or lines[line - 1].isascii():
            return column
        return len(lines[line - 1].encode()[: column - 1].decode(errors="replace")) + 1

    def findings(self) -> list[Finding]:
        """Return what was found, by place."""
        return sorted(self._found.values(), key=lambda f: (f.path or "", f.line or 0, f.column or 0, f.code))


def _rank(severity: str, steps: int) -> tuple[int, int]:
    """Of two findings in one place the worse is told, and of equal ones that with the shorter way."""
    return SEVERITIES.index(severity), steps
