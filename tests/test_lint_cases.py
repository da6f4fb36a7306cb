"""What the static engine finds, line by line: eval files, and the examples on the rules' pages.

An eval file says `# error: SEQ205` on each guilty line, with every code that is found there, and `# safe` where
something near to it is fine. `# file: other.py` begins another module of the same project.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from keras_mpseq.lint import Linted, lint_paths, lint_source
from keras_mpseq.rules import RULES

CASES = sorted((Path(__file__).parent / "lint_cases").glob("*.py"))
STATIC = [code for code, rule in RULES.items() if rule.static and rule.example()]
MARK = re.compile(r"#\s*(error: (?P<codes>SEQ\d{3}(, SEQ\d{3})*)|safe)\b")


def split(case: Path, folder: Path) -> set[tuple[str, int, str]]:
    """Write the modules of an eval file, and return what it expects: module, line and code."""
    expected = set()
    name, lines = case.name, []
    for line in [*case.read_text().splitlines(), "# file: "]:
        if line.startswith("# file: "):
            (folder / name).write_text("\n".join(lines) + "\n")
            name, lines = line.removeprefix("# file: "), []
            continue
        lines.append(line)
        found = MARK.search(line)
        if found and found["codes"]:
            expected |= {(name, len(lines), code) for code in found["codes"].split(", ")}
    return expected


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_eval_file(case: Path, tmp_path: Path) -> None:
    expected = split(case, tmp_path)
    linted = lint_paths([tmp_path], preview=True)
    found = {(Path(f.path or "").name, f.line, f.code) for f in linted.findings}
    assert found == expected


def test_every_static_rule_has_an_eval_file_with_both_kinds_of_lines() -> None:
    for code, rule in RULES.items():
        if rule.static and rule.example():
            text = (Path(__file__).parent / "lint_cases" / f"{code.lower()}.py").read_text()
            assert f"# error: {code}" in text, code
            assert "# safe" in text, code


@pytest.mark.parametrize("code", STATIC)
def test_the_example_is_found_and_what_to_use_instead_is_clean(code: str) -> None:
    assert code in codes(lint_source(RULES[code].example(), "example.py"))
    assert codes(lint_source(RULES[code].instead(), "instead.py")) == set()


def codes(linted: Linted) -> set[str]:
    return {finding.code for finding in linted.findings}


def test_a_finding_says_where_what_and_how_it_is_reached() -> None:
    source = (Path(__file__).parent / "lint_cases" / "seq205.py").read_text()
    finding = next(f for f in lint_source(source, "a.py").findings if f.class_name == "Size" and f.code == "SEQ205")
    line = source.split("\n")[(finding.line or 0) - 1]
    assert line[(finding.column or 0) - 1 : (finding.end_column or 0) - 1] == "self.size"
    assert [step.function for step in finding.chain] == ["Size.__getitem__", "Size.pick"]
    assert finding.chain[-1].line == finding.line
    assert finding.message == "self.size is written while serving a batch"
    assert finding.severity == "error"
    assert finding.reason.startswith("other batches read size")
    assert finding.remedy


def test_columns_count_characters() -> None:
    source = "import keras\nclass A(keras.utils.PyDataset):\n    def __getitem__(self, i):\n        'äöü'; self.é = i\n"
    finding = next(f for f in lint_source(source).findings if f.code == "SEQ205")
    assert (finding.column, finding.end_column) == (16, 22)


def test_calls_that_cannot_be_followed_are_told() -> None:
    source = (
        "import keras, ext\nclass A(keras.utils.PyDataset):\n    def __getitem__(self, i): return 1 + ext.load(i)\n"
    )
    linted = lint_source(source, "a.py")
    assert [(u.line, u.call, u.class_name) for u in linted.unresolved] == [(3, "ext.load", "A")]
    assert linted.findings == []
    assert (linted.files, linted.classes) == (1, 1)


def test_preview_selection_and_further_bases(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(RULES["SEQ104"].example())
    assert codes(lint_paths([tmp_path])) == set()
    assert codes(lint_paths([tmp_path], preview=True)) == {"SEQ104"}
    (tmp_path / "a.py").write_text("import mine\nclass A(mine.Loader):\n    def __getitem__(self, i): self.n = i\n")
    assert codes(lint_paths([tmp_path])) == set()
    assert codes(lint_paths([tmp_path], extra_bases=["mine.Loader"])) == {"SEQ205", "SEQ501"}
    assert codes(lint_paths([tmp_path], extra_bases=["Loader"], select=["SEQ5"])) == {"SEQ501"}
    assert codes(lint_paths([tmp_path], extra_bases=["Loader"], exclude=["a.py"])) == set()


def test_what_the_user_declares_is_believed(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        "import keras, mine\nclass A(keras.utils.PyDataset):\n    def __getitem__(self, i):\n        return mine.f(i)\n"
    )
    assert codes(lint_paths([tmp_path], decls={"mine.f": "rng"})) == {"SEQ402"}
    assert codes(lint_paths([tmp_path], decls={"mine.f": "framework"})) == {"SEQ304"}
    assert lint_paths([tmp_path], decls={"mine.f": "pure"}).unresolved == []
