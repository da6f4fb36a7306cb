"""SEQ0xx: what the linter says about its own work, not about sequences."""

from __future__ import annotations

from keras_mpseq.rules.base import Rule


class ParseError(Rule):
    """A file cannot be read as Python.

    ## What it does
    Reports files that are not Python source: a syntax error, an encoding that does not decode, a null byte, or nesting too deep to parse.
    Nothing else is looked for in such a file.
    Files that neither mention sequences nor are imported by one that does are not parsed.

    ## Why it matters
    A file that is skipped in silence looks like one without findings.
    """

    code = "SEQ000"
    name = "parse-error"
    severity = "error"
    runtime = False
    why = "nothing else was looked for in this file"
    fix = "correct the file, or name it in `exclude`"


class UnusedSuppression(Rule):
    """A comment suppresses a rule that finds nothing there.

    ## What it does
    Reports `# seq: ignore[...]` and `# seq: ignore-file[...]` whose rule has no finding where they stand.
    `# noqa: SEQ205` is not reported: other tools read those comments as well.
    A comment counts as used if its rule is not among those selected.

    ## Why it matters
    Such a comment hides the next finding of that rule on this line, which nobody has looked at.
    """

    code = "SEQ001"
    name = "unused-suppression"
    severity = "warning"
    runtime = False
    why = "it would hide the next finding of this rule here"
    fix = "delete the code from the comment, or the comment"


class UnknownCode(Rule):
    """A comment suppresses a rule that does not exist.

    ## What it does
    Reports codes in `# seq: ignore[...]` and `# seq: ignore-file[...]` that no rule has, and comments that begin like one and cannot be read.
    With `require-reason`, comments without a reason are reported as well.

    ## Why it matters
    The comment suppresses nothing, although it says that it does.
    """

    code = "SEQ002"
    name = "unknown-code"
    severity = "warning"
    runtime = False
    why = "the comment suppresses nothing"
    fix = "correct the code; `keras-mpseq rules` lists all"
