"""What a rule is: a code, a name, how much it matters, and a docstring that is its page.

A rule only describes. What looks for it is the static engine, which reads source, or the runtime engine, which runs
the sequence; both report what they saw as findings under the rule's code.
"""

from __future__ import annotations

import inspect
import re
from typing import ClassVar

SECTIONS = ("What it does", "Why it matters", "Example", "Use instead", "Known false alarms")
"""Headings of a rule's docstring, in order; notices about the linter itself have the first two only."""
_HEADING = re.compile(rf"^## ({'|'.join(SECTIONS)})$", re.MULTILINE)
_CODE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Rule:
    """One thing that can be wrong with a sequence.

    The docstring of a subclass is the page of the rule: a first line, then the headings of `SECTIONS`. *Example* and
    *Use instead* each hold one fenced block, a complete module: the rule is found in the first and not in the second.
    """

    code: ClassVar[str]
    """`SEQ` and three digits; the first digit is the family."""
    name: ClassVar[str]
    """The same in words, such as `stateful-getitem`."""
    severity: ClassVar[str]
    """Of a finding that does not say otherwise: `error`, `warning` or `info`."""
    stable: ClassVar[bool] = True
    """False: on trial, and looked for only with `preview`."""
    core: ClassVar[bool] = False
    """Found in real code when the rules were drawn up."""
    static: ClassVar[bool] = True
    """The linter finds the Example."""
    runtime: ClassVar[bool] = True
    """`check` finds the Example when it runs it."""
    why: ClassVar[str] = ""
    """What goes wrong, as one clause without a full stop."""
    fix: ClassVar[str] = ""
    """What to do, as one clause without a full stop."""

    @classmethod
    def page(cls) -> str:
        """Return the docstring as Markdown, without its indentation."""
        return inspect.cleandoc(cls.__doc__ or "")

    @classmethod
    def summary(cls) -> str:
        """Return the first line of the page."""
        return cls.page().partition("\n")[0]

    @classmethod
    def sections(cls) -> dict[str, str]:
        """Return the text below each heading of the page, by heading, in order."""
        parts = _HEADING.split(cls.page())
        return {heading: text.strip() for heading, text in zip(parts[1::2], parts[2::2], strict=True)}

    @classmethod
    def example(cls) -> str:
        """Return the module in which the rule is found; empty if the rule has none."""
        return _block(cls.sections().get("Example", ""))

    @classmethod
    def instead(cls) -> str:
        """Return the module to write instead; empty if the rule has none."""
        return _block(cls.sections().get("Use instead", ""))


def _block(text: str) -> str:
    found = _CODE.search(text)
    return found[1] if found else ""
