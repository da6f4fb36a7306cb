"""Every row of the table of what goes wrong today has its test, or a line that names tests of other files.

What cannot run here: rows A10, A12 and A13 on Windows and macOS, whose way to start workers (spawn) is tested on Linux;
rows A3, B12 and D9 on a GPU, where what keeps workers away from it is tested.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROWS = {"a": 15, "b": 12, "c": 20, "d": 9, "e": 18}
"""How many rows each section has."""
TESTS = Path(__file__).parents[1]
_ELSEWHERE = re.compile(r"\b([A-E]\d+): ((?:also )?test_\w+(?:, test_\w+)*)")


def _functions() -> Iterator[str]:
    for file in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                yield node.name


def _elsewhere() -> dict[str, list[str]]:
    """Return the tests that comments of the scenarios name, by row."""
    named: dict[str, list[str]] = {}
    for file in Path(__file__).parent.glob("test_[a-e]_*.py"):
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith("# "):
                for row, tests in _ELSEWHERE.findall(line):
                    named[row.lower()] = re.findall(r"test_\w+", tests)
    return named


FUNCTIONS = set(_functions())
ELSEWHERE = _elsewhere()


@pytest.mark.parametrize(
    "row", [f"{section}{number}" for section, count in ROWS.items() for number in range(1, count + 1)]
)
def test_every_row_has_its_test(row: str) -> None:
    own = re.compile(rf"test_{row[0]}{int(row[1:]):02}_")
    here = [name for name in FUNCTIONS if own.match(name)]
    assert here or ELSEWHERE.get(row)


def test_tests_that_are_named_exist() -> None:
    assert {name for names in ELSEWHERE.values() for name in names} <= FUNCTIONS


def test_there_are_no_rows_beside_the_table() -> None:
    found = {match[1] for name in FUNCTIONS if (match := re.match(r"test_([a-e]\d\d)_", name))}
    assert found <= {f"{section}{number:02}" for section, count in ROWS.items() for number in range(1, count + 1)}


def test_the_page_of_symptoms_has_every_row_with_a_test_of_it() -> None:
    page = (TESTS.parent / "docs" / "is-my-problem-solved.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([A-E]\d+) \| (.+) \| `(test_\w+)` \|$", page, re.MULTILINE)
    assert [row.lower() for row, _, _ in rows] == [
        f"{section}{number}" for section, count in ROWS.items() for number in range(1, count + 1)
    ]
    for row, cells, test in rows:
        section, number = row[0].lower(), int(row[1:])
        own = test.startswith(f"test_{section}{number:02}_") and test in FUNCTIONS
        assert own or test in ELSEWHERE.get(row.lower(), ()), f"{row}: {test}"
        symptom, keras, here = cells.split(" | ")
        assert symptom and keras and here, row
