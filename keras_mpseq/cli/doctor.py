"""`keras-mpseq doctor`: what workers will find on this machine, what would go wrong, and how to mend it."""

from __future__ import annotations

import argparse
import io
from typing import Any

from keras_mpseq.cli.arguments import Commands, write
from keras_mpseq.reporting import coloured

_WIDTH = 110


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    what = "Tell what workers will find on this machine, start one, and tell what would go wrong and how to mend it."
    parser = commands.add_parser("doctor", help=what, description=what, allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="everything for programs, sizes in bytes")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Examine, and return the exit code: 1 if there are problems."""
    from keras_mpseq.cli.surroundings import examined

    report = examined()
    write(report.as_json() if options.json else _screen(report.facts, list(map(str, report.problems))))
    return int(bool(report.problems))


def _screen(facts: dict[str, dict[str, Any]], problems: list[str]) -> str:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for section, found in facts.items():
        told = [f"{_name(name)}: {_value(name, value)}" for name, value in found.items() if name != "error"]
        table.add_row(f"[bold]{_name(section)}[/]", escape(", ".join(told)))
    file = io.StringIO()
    console = Console(file=file, force_terminal=coloured(), width=_WIDTH, highlight=False)
    console.print(table)
    console.print()
    for number, problem in enumerate(problems, start=1):
        console.print(f"[bold red]{number}.[/] {escape(problem)}")
    if not problems:
        console.print("[bold green]No problems found.[/]")
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


def _name(name: str) -> str:
    """Return the name of a fact as one reads it; environment variables as they are."""
    return (
        name
        if name.isupper() or name == "keras_mpseq"
        else name.removesuffix("_bytes").removesuffix("_s").replace("_", " ")
    )


def _value(name: str, value: Any) -> str:
    """Return the value of a fact with its unit."""
    from keras_mpseq.cli.surroundings import told_bytes

    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if name.endswith("_bytes"):
        return told_bytes(value)
    return f"{value:.3g} s" if name.endswith("_s") else str(value)
