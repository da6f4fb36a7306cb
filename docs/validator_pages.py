"""The pages of docs/reference/ about the validator: one a rule, their index, and the commands.

Used by generate.py.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

from keras_mpseq.cli.explain import found_by, page_of
from keras_mpseq.cli.main import make_parser
from keras_mpseq.rules import RULES

_NOTE = "<!-- Written by docs/generate.py from {}; change those. -->"
_FAMILIES = {
    "SEQ0": "About the linter's own work",
    "SEQ1": "Serialization",
    "SEQ2": "Shared mutable state",
    "SEQ3": "Resources that belong to one process",
    "SEQ4": "Randomness and order",
    "SEQ5": "What Keras expects",
    "SEQ6": "Cost",
}


def pages() -> dict[str, str]:
    """Return the text of each page by its path in docs/reference."""
    written = {f"rules/{code.lower()}.md": _rule(code) for code in RULES}
    written["rules/index.md"] = "\n".join(_rules()) + "\n"
    written["commands.md"] = "\n".join(_commands()) + "\n"
    return written


def _rule(code: str) -> str:
    title, _, rest = page_of(RULES[code]).partition("\n")
    note = _NOTE.format("the docstring of the rule")
    spaced = re.sub(r"^(## .+)$", r"\1\n", rest.rstrip(), flags=re.MULTILINE)
    return f"{title}\n\n{note}\n{spaced}\n\n[All rules](index.md)\n"


def _rules() -> Iterator[str]:
    yield from ("# Rules", "", _NOTE.format("the docstrings of the rules"), "")
    yield "What `keras-mpseq lint` finds in source, and `keras-mpseq check` proves by building batches."
    yield "Rules on trial are looked for with `--preview` only."
    for begin, family in _FAMILIES.items():
        yield from ("", f"## {family}", "", "| rule | name | severity | found by | what |", "|---|---|---|---|---|")
        for code, rule in RULES.items():
            if code.startswith(begin):
                trial = "" if rule.stable else " On trial."
                link = f"[{code}]({code.lower()}.md)"
                cells = (link, rule.name, rule.severity, found_by(rule), f"{rule.summary()}{trial}")
                yield f"| {' | '.join(cells)} |"


def _commands() -> Iterator[str]:
    yield from ("# Commands", "", _NOTE.format("the parser"), "")
    yield (
        "The exit code is 0 if all is well, 1 if there are findings, and 2 if the call or a setting is a mistake, "
        "or keras-mpseq itself makes one."
    )
    parser = make_parser()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield from _command(name, command)


def _command(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    # Not argparse's own help, which looks different in each version of Python.
    yield from ("", f"## keras-mpseq {name}", "", str(parser.description), "", "| argument | what |", "|---|---|")
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        shown = ", ".join(action.option_strings) or str(action.metavar or action.dest)
        if action.option_strings and action.nargs != 0:
            shown += f" {action.metavar or '{' + ','.join(map(str, action.choices or ())) + '}'}"
        yield f"| `{shown}` | {action.help} |"
