"""`keras-mpseq explain CODE` and `keras-mpseq rules`: what the rules are, from the rules themselves."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

from keras_mpseq.cli.arguments import Commands, write
from keras_mpseq.errors import MpseqError
from keras_mpseq.reporting import coloured
from keras_mpseq.rules import RULES, Rule

_FOUND_BY = {(True, True): "lint and check", (True, False): "lint", (False, True): "check", (False, False): "nobody"}


def add(commands: Commands) -> None:
    """Add both commands to the parser."""
    what = "Tell what a rule finds, why it matters, and what to write instead."
    parser = commands.add_parser("explain", help=what, description=what, allow_abbrev=False)
    parser.add_argument("rule", metavar="CODE", help="a code, such as SEQ205, or a name, such as stateful-getitem")
    parser.set_defaults(run=_explain)
    what = "List all rules."
    parser = commands.add_parser("rules", help=what, description=what, allow_abbrev=False)
    parser.add_argument("--format", choices=("text", "json", "md"), default="text", help="(default: text)")
    parser.set_defaults(run=_rules)


def page_of(rule: type[Rule]) -> str:
    """Return the page of a rule as Markdown: its title, what is to know about it, and its docstring."""
    first, _, rest = rule.page().partition("\n")
    told = [f"severity `{rule.severity}`", f"found by {found_by(rule)}"]
    if not rule.stable:
        told.append("on trial: only with `--preview`")
    return f"# {rule.code} {rule.name}\n\n{first}\n\n{'; '.join(told).capitalize()}.\n{rest}\n"


def found_by(rule: type[Rule]) -> str:
    """Return which of the engines looks for a rule."""
    return _FOUND_BY[rule.static, rule.runtime]


def _explain(options: argparse.Namespace) -> int:
    wanted = options.rule
    found = [rule for rule in RULES.values() if wanted.upper() == rule.code or wanted.lower() == rule.name]
    if not found:
        from keras_mpseq.lint.codes import nearest

        near = nearest(wanted, [*RULES, *(rule.name for rule in RULES.values())])
        raise MpseqError(f"There is no rule {wanted!r}{near}", remedy="`keras-mpseq rules` lists all.")
    page = page_of(found[0])
    if not coloured():
        write(page)
        return 0
    from rich.console import Console
    from rich.markdown import Markdown

    Console(force_terminal=True).print(Markdown(page))
    return 0


def _rules(options: argparse.Namespace) -> int:
    if options.format == "json":
        write(json.dumps([_as_dict(rule) for rule in RULES.values()], indent=2) + "\n")
    else:
        lines = _table() if options.format == "md" else _lines()
        write("\n".join(lines) + "\n")
    return 0


def _as_dict(rule: type[Rule]) -> dict[str, object]:
    return {
        "code": rule.code,
        "name": rule.name,
        "severity": rule.severity,
        "stable": rule.stable,
        "static": rule.static,
        "runtime": rule.runtime,
        "summary": rule.summary(),
        "why": rule.why,
        "fix": rule.fix,
        "page": rule.page(),
    }


def _table() -> Iterator[str]:
    yield from ("| code | name | severity | found by | |", "|---|---|---|---|---|")
    for rule in RULES.values():
        trial = "" if rule.stable else " On trial."
        cells = (rule.code, rule.name, rule.severity, found_by(rule), f"{rule.summary()}{trial}")
        yield f"| {' | '.join(cells)} |"


def _lines() -> Iterator[str]:
    width = max(len(rule.name) for rule in RULES.values())
    for rule in RULES.values():
        trial = "" if rule.stable else " (preview)"
        yield f"{rule.code}  {rule.name:{width}}  {rule.severity:7}  {rule.summary()}{trial}"
