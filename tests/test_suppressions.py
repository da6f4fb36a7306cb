"""Comments that suppress: what they cover, and what is said about those that suppress nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from keras_mpseq.findings import Finding
from keras_mpseq.lint import suppressions
from keras_mpseq.lint.config import Config
from keras_mpseq.lint.select import select, uncovered
from keras_mpseq.reporting import Sources


def covered(source: str, code: str = "SEQ205") -> list[int]:
    """Return the lines on which a finding would be suppressed."""
    read = suppressions.read("a.py", source)
    lines = range(1, source.count("\n") + 1)
    return [line for line in lines if read.cover(Finding.of(code, "it", path="a.py", line=line))]


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("a = 1\nb = 2  # seq: ignore[SEQ205] why\nc = 3\n", [2]),
        ("a = 1\nb = 2  # seq:ignore[SEQ101, SEQ205]\nc = 3\n", [2]),
        ("a = 1\n# seq: ignore[SEQ205] a reason\n# of two lines\nb = 2\nc = 3\n", [4]),
        ("a = [\n    1,  # seq: ignore[SEQ205]\n]\nb = 2\n", [1, 2, 3]),
        ("def f():  # seq: ignore[SEQ205]\n    a = 1\n\n    b = 2\nc = 3\n", [1, 2, 3, 4]),
        ("@d  # seq: ignore[SEQ205]\nclass A:\n    a = 1\nc = 3\n", [1, 2, 3]),
        ("# seq: ignore[SEQ205]\nasync def f(\n    a,\n):\n    a = 1\nc = 3\n", [2, 3, 4, 5]),
        ("def f():\n    a = 1\n    # seq: ignore[SEQ205]\nb = 2\n", [4]),
        ("a = 1\n# seq: ignore-file[SEQ205] generated\nb = 2\n", [1, 2, 3]),
        ("a = 1\nb = 2  # mpseq: ignore[SEQ205] why\nc = 3\n", [2]),
        ("def f():  # mpseq: ignore[SEQ205]\n    a = 1\nc = 3\n", [1, 2]),
        ("a = 1\n# mpseq: ignore-file[SEQ205] generated\nb = 2\n", [1, 2, 3]),
        ("a = 1\nb = 2  # noqa: E501, SEQ205\nc = 3\n", [2]),
        ("class A:  # noqa: SEQ205\n    a = 1\n", [1]),
        ("a = '# seq: ignore[SEQ205]'\n", []),
        ("a = 1  # seq: ignore[SEQ206]\n", []),
        ("a = 1  # noqa\n", []),
        ("a = (  # seq: ignore[SEQ205]\n", []),
        ("if a:  # seq: ignore[SEQ205]\n    b = 2\n", [1]),
    ],
)
def test_what_a_comment_covers(source: str, lines: list[int]) -> None:
    assert covered(source) == lines


def told(source: str, *found: Finding, config: Config | None = None) -> list[tuple[str, int | None, str]]:
    config = config or Config()
    selected = select(found, ["a.py"], config, Sources({"a.py": source}))
    return [(finding.code, finding.line, finding.message) for finding in selected.findings]


def test_comments_that_suppress_nothing_are_told() -> None:
    source = (
        "a = 1  # seq: ignore[SEQ205, SEQ206]\n"
        "b = 2  # seq: ignore[SEQ999]\n"
        "c = 3  # seq: ignore[SEQ20O]\n"
        "d = 4  # seq: ignore\n"
        "e = 5  # seq: ignore[]\n"
        "f = 6  # noqa: SEQ205\n"
    )
    assert told(source, Finding.of("SEQ205", "it", path="a.py", line=1)) == [
        ("SEQ001", 1, "SEQ206 is suppressed here, and not found"),
        ("SEQ002", 2, "There is no rule 'SEQ999'"),
        ("SEQ002", 3, "There is no rule 'SEQ20O'; the nearest is 'SEQ210'"),
        ("SEQ002", 4, "The comment is not of the form `seq: ignore[SEQ205] reason`"),
        ("SEQ002", 5, "The comment names no code"),
    ]


def test_a_comment_is_unused_only_if_its_rule_was_looked_for() -> None:
    source = "a = 1  # seq: ignore[SEQ205]\nb = 2  # seq: ignore[SEQ409] proved by check alone\n"
    config = Config(select=frozenset({"SEQ001", "SEQ101"}))
    assert told(source, config=config) == []
    assert [code for code, *_ in told(source)] == ["SEQ001"]


def test_findings_about_comments_can_be_suppressed() -> None:
    comments = "a = 1  # seq: ignore[SEQ205]\nb = 2  # seq: ignore[SEQ999]\n"
    assert len(told(comments)) == 2
    assert told(f"# seq: ignore-file[SEQ001, SEQ002]\n{comments}") == []


def test_a_reason_can_be_demanded() -> None:
    found = [Finding.of("SEQ205", "it", path="a.py", line=line) for line in (1, 2)]
    source = "a = 1  # seq: ignore[SEQ205]\nb = 2  # seq: ignore[SEQ205] scratch\n"
    assert [(code, line) for code, line, _ in told(source, *found, config=Config(require_reason=True))] == [
        ("SEQ205", 1),
        ("SEQ002", 1),
    ]


def test_findings_without_a_line_are_covered_by_the_file_only(tmp_path: Path) -> None:
    parse_error = Finding.of("SEQ000", "it does not parse", path="a.py")
    assert told("# seq: ignore-file[SEQ000]\n", parse_error) == []
    assert len(told("a = 1  # seq: ignore[SEQ000]\n", parse_error)) == 2


def test_what_was_seen_at_run_time_is_suppressed_alike() -> None:
    found = [Finding.of("SEQ205", "it", path="a.py", line=line, confidence="proved") for line in (1, 2)]
    nowhere = Finding.of("SEQ205", "it", confidence="proved")
    sources = Sources({"a.py": "a = 1  # seq: ignore[SEQ205] scratch\nb = 2\n"})
    assert uncovered([*found, nowhere], sources) == [found[1], nowhere]
