"""docs/reference/faults.md: what came of each cell. Written by `python -m tests.faults --write`, read by the tests."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from tests.faults.entries import ENTRIES
from tests.faults.matrix import FAULTS, LAUNCHERS, PHASES

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "faults.md"
COLUMNS = [*itertools.product(ENTRIES, LAUNCHERS)]
AROUND = "What happens to processes"
NOT_THERE = "no template"
"""What stands where a row is about the template and there is none."""
_INTRO = """# Faults

<!-- Written by `python -m tests.faults --write` from what came of each cell; tests/test_faults.py compares. -->

What comes of what can go wrong, in the user's code and around it.
Every cell has been played, through its entry point and with its launcher; the tests play all again and compare.

Each error is one of [Errors](errors.md).
"In `UnknownError`" means that TensorFlow raises an error of its own, with ours as its text.
"Index 3" is the batch that is blamed, where one is.
What stands behind the semicolon has been seen as well.
"Next epoch" is one of the same loader or dataset, and whole.
After each cell no process, thread, descriptor or name in `/dev/shm` is left.

`hang` and `SIGSTOP` are played with a `timeout`; without one a batch may take for ever.
In the tables of phases one attempt is allowed, so that a worker that dies once is an error.
By default another worker builds the batch again.

There is no resource tracker to lose: workers are started without `multiprocessing`, and memory has no name.
The one that is killed below is the user's own.
"""


def key(table: str, row: str, entry: str, launcher: str) -> tuple[str, str, str]:
    """Return how a cell is found on the page."""
    return table, row, f"{entry}, {launcher}"


def written(cells: dict[tuple[str, str, str], str]) -> str:
    """Return the page of *cells*."""
    return "\n".join([_INTRO, *_tables(cells)]).rstrip() + "\n"


def _tables(cells: dict[tuple[str, str, str], str]) -> Iterator[str]:
    rows: dict[str, list[str]] = {}
    for table, row, _ in cells:
        if row not in rows.setdefault(table, []):
            rows[table].append(row)
    for table in [*PHASES, AROUND]:
        title = f"In {PHASES[table]}" if table in PHASES else table
        columns = [f"`{entry}`, {launcher}" for entry, launcher in COLUMNS]
        yield from (f"## {title}", "", f"| fault | {' | '.join(columns)} |", "|---" * (len(COLUMNS) + 1) + "|")
        for row in sorted(rows[table], key=lambda row: FAULTS.index(row) if row in FAULTS else 0):
            found = [cells.get(key(table, row, *column), NOT_THERE) for column in COLUMNS]
            yield f"| {row} | {' | '.join(found)} |"
        yield ""


def read() -> dict[tuple[str, str, str], str]:
    """Return the cells of the page."""
    cells: dict[tuple[str, str, str], str] = {}
    titles = {f"In {text}": name for name, text in PHASES.items()}
    table = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            table = titles.get(line[3:], line[3:])
        elif found := re.fullmatch(r"\| (?!fault \|)(.*) \|", line):
            row, *texts = found[1].split(" | ")
            cells |= {key(table, row, *column): text for column, text in zip(COLUMNS, texts, strict=True)}
    return cells
