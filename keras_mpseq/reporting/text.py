"""Text for people: a finding with its line of source, or a finding a line; coloured where the console has colours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rich.cells import cell_len
from rich.text import Text

from keras_mpseq.findings import Finding
from keras_mpseq.reporting.results import Results, counted
from keras_mpseq.rules import rule_of

STYLES = {"error": "bold red", "warning": "bold yellow", "info": "bold blue"}
_PROVED = " (proved)"
_SHOWN = {code: chr(0x2400 + code) for code in range(32)} | dict.fromkeys(range(127, 160), "\N{REPLACEMENT CHARACTER}")
"""Control characters, as a terminal shows them instead of obeying them."""
_OBEYED = {code: char for code, char in _SHOWN.items() if chr(code) not in "\n\t"}


def full(results: Results) -> Text:
    """Return each finding with its place in the source, how it is reached, why it matters and what to do."""
    text = Text()
    for finding in results.findings:
        text.append_text(_heading(finding)).append("\n")
        width = len(str(finding.line or ""))
        for line in (*_excerpt(finding, results, width), *_remarks(finding, width)):
            text.append_text(line).append("\n")
        text.append("\n")
    return shown(text.append_text(footer(results)))


def concise(results: Results) -> Text:
    """Return a line for each finding."""
    text = Text()
    for finding in results.findings:
        text.append_text(_heading(finding)).append("\n")
    return shown(text.append_text(footer(results)))


def shown(text: Text) -> Text:
    """Let no file, by its name or by what is in it, speak to the terminal."""
    text.plain = text.plain.translate(_OBEYED)
    return text


def statistics(results: Results) -> Text:
    """Return how often each rule was found, the most frequent first."""
    counts = Counter(finding.code for finding in results.findings)
    text = Text()
    width = max((len(f"{number:,}") for number in counts.values()), default=0)
    for code, number in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        text.append(f"{number:{width},}  ")
        text.append(code, STYLES[rule_of(code).severity]).append(f" {rule_of(code).name}\n")
    return text.append_text(footer(results))


def footer(results: Results) -> Text:
    """Return the sums, and what was not looked at."""
    text = Text()
    if results.show_not_followed:
        for call in results.not_followed:
            text.append(f"{call.path}:{call.line}: ", "dim")
            text.append(f"{call.call} could not be followed" + (f" ({call.class_name})\n" if call.class_name else "\n"))
    for sentence in results.unverified:
        text.append(f"Not verified: {sentence}.\n", "dim")
    found = [counted(number, severity) for severity, number in results.counts().items() if number]
    where = f" in {counted(results.classes, 'class')}" if results.classes else ""
    if not where and results.files:
        where = f" in {counted(results.files, 'file')}"
    text.append(f"Found {', '.join(found)}{where}" if found else f"No findings{where}", "bold")
    if results.not_followed:
        hint = "" if results.show_not_followed else ", --show-unresolved"
        text.append(f" ({counted(len(results.not_followed), 'call')} could not be followed{hint})")
    return text.append(".\n")


def _heading(finding: Finding) -> Text:
    text = Text()
    place = ":".join(str(part) for part in (finding.path, finding.line, finding.column) if part is not None)
    place = (place or finding.class_name or "").replace("\n", _SHOWN[ord("\n")])
    if place:
        text.append(f"{place}: ", "bold")
    style = STYLES[finding.severity]
    text.append(f"{finding.severity[0].upper()} ", style).append(finding.code, style).append(f" {finding.name}", "dim")
    text.append(f"  {finding.message}")
    return text.append(_PROVED if finding.confidence == "proved" else "", "bold")


def _excerpt(finding: Finding, results: Results, width: int) -> Iterator[Text]:
    """Yield the line of the finding below the one above it, and mark what it is about."""
    source = results.sources.line(finding.path, finding.line)
    if finding.line is None or not source.strip():
        return
    gap = " " * width
    yield Text(f"{gap} |", "blue")
    above = results.sources.line(finding.path, finding.line - 1)
    if above.strip():
        yield Text.assemble((f"{finding.line - 1:>{width}} | ", "blue"), above.expandtabs(4))
    yield Text.assemble((f"{finding.line} | ", "blue"), source.expandtabs(4))
    if finding.column is not None:
        begin = finding.column - 1
        ends_here = finding.end_line in (None, finding.line) and finding.end_column is not None
        end = (finding.end_column or 0) - 1 if ends_here else len(source.rstrip())
        before, marked = source[:begin].expandtabs(4), source[:end].expandtabs(4)
        # Columns count characters; some of them are two cells wide, or none.
        marks = max(1, cell_len(marked) - cell_len(before))
        yield Text.assemble((f"{gap} | ", "blue"), (" " * cell_len(before) + "^" * marks, STYLES[finding.severity]))


def _remarks(finding: Finding, width: int) -> Iterator[Text]:
    remedy = f"{finding.remedy}; see `keras-mpseq explain {finding.code}`"
    # A chain of one call is the line that is shown.
    told = {
        "path": chain_of(finding) if len(finding.chain) > 1 else "",
        "why": finding.reason,
        "proof": finding.proof,
        "fix": remedy,
    }
    for label, remark in told.items():
        if remark:
            yield Text.assemble((f"{' ' * width} = {label + ':':6} ", "blue"), remark)


def chain_of(finding: Finding) -> str:
    """Return how the call gets to the place: `Batches.__getitem__ (45) -> _size (57) -> flip (image.py:41)`."""
    parts = []
    owner = ""
    for step in finding.chain:
        function = step.function.removeprefix(owner) if owner else step.function
        owner = owner or f"{step.function.rpartition('.')[0]}."
        where = str(step.line) if step.path == finding.path else f"{step.path}:{step.line}"
        parts.append(f"{function} ({where})")
    return " -> ".join(parts)
